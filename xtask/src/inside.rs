//! Rust on a host of the map: a thread that has moved into its namespace, so that `std::net` and raw sockets speak
//! from there.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::Path;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::silence::{self, Silence};
use crate::world::World;

/// Work that goes on on another thread.
pub struct Going<T>(JoinHandle<Result<T>>);

impl<T> Going<T> {
    /// Wait for its end.
    pub fn finish(self) -> Result<T> {
        self.0.join().map_err(|_| anyhow!("a thread panicked"))?
    }
}

/// Begin some work on a host. The namespace lives as long as the work.
pub fn begin<T: Send + 'static>(
    world: &World,
    host: &str,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<Going<T>> {
    let place = Path::new("/run/netns").join(world.net.name(host));
    let place = File::open(&place).with_context(|| format!("no namespace {}", place.display()))?;
    Ok(Going(thread::spawn(move || {
        move_into_link_name_space(place.as_fd(), Some(LinkNameSpaceType::Network))?;
        work()
    })))
}

/// Do some work on a host and wait for it.
pub fn run<T: Send + 'static>(
    world: &World,
    host: &str,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    begin(world, host, work)?.finish()
}

/// A TCP connection that carries as much as it can.
pub struct Flow {
    sender: Going<()>,
    receiver: Going<Carried>,
}

/// What a flow carried.
#[derive(Clone, Debug, Default)]
pub struct Carried {
    /// Octets received.
    pub octets: u64,
    /// Of these, octets that were not what was sent.
    pub wrong: u64,
    /// The longest time in which nothing came.
    pub longest_gap: Duration,
    /// Times in which nothing came that were longer than [`SILENCE`].
    pub silences: Vec<Silence>,
}

impl Flow {
    /// From a host to an address and port of another, for some time.
    pub fn begin(world: &World, from: &str, to: &str, at: (&str, u16), time: Duration) -> Result<Flow> {
        let at = SocketAddr::new(at.0.parse::<IpAddr>()?, at.1);
        let listener = run(world, to, move || {
            let listener = TcpListener::bind(at).with_context(|| format!("cannot listen at {at}"))?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        })?;
        let receiver = begin(world, to, move || receive(&listener))?;
        let sender = begin(world, from, move || {
            let mut stream =
                TcpStream::connect_timeout(&at, CONNECT).with_context(|| format!("no connection to {at}"))?;
            stream.set_write_timeout(Some(NAP))?;
            let (mut piece, end, mut at) = ([0; 16 * 1024], Instant::now() + time, 0_u64);
            while Instant::now() < end {
                for octet in &mut piece {
                    *octet = octet_at(at);
                    at += 1;
                }
                let mut left = &piece[..];
                while !left.is_empty() {
                    let count = patiently(|| stream.write(left))?;
                    left = left.get(count..).unwrap_or_default();
                }
            }
            Ok(())
        })?;
        Ok(Flow { sender, receiver })
    }

    /// Wait for its end; an error if an octet was not what was sent.
    pub fn finish(self) -> Result<Carried> {
        let carried = self.end()?;
        if carried.wrong > 0 {
            bail!("{} octets of the flow are not what was sent", carried.wrong);
        }
        Ok(carried)
    }

    /// Wait for its end.
    pub fn end(self) -> Result<Carried> {
        let sent = self.sender.finish();
        let carried = self.receiver.finish();
        sent?;
        carried
    }
}

/// Shorter silences are not kept.
pub const SILENCE: Duration = Duration::from_millis(150);

/// How long a connection may take to come.
const CONNECT: Duration = Duration::from_secs(2);
/// How long a flow may stand still, and the naps in which that is counted: whatever time this process was stopped for, it is one.
const PATIENCE: Duration = Duration::from_secs(5);
const NAP: Duration = Duration::from_millis(100);

/// Reads or writes, with naps while nothing moves.
fn patiently(mut some: impl FnMut() -> std::io::Result<usize>) -> Result<usize> {
    let mut naps = 0;
    loop {
        match some() {
            // Somebody stopped this process for a while.
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock && NAP * naps < PATIENCE => naps += 1,
            done => return done.context("the flow stands still"),
        }
    }
}

fn receive(listener: &TcpListener) -> Result<Carried> {
    let (mut naps, nap) = (0, Duration::from_millis(5));
    let mut stream = loop {
        match listener.accept() {
            Ok((stream, _)) => break stream,
            Err(error) if error.kind() == ErrorKind::WouldBlock && nap * naps < CONNECT => {
                naps += 1;
                thread::sleep(nap);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => bail!("nobody connects"),
            Err(error) => return Err(error.into()),
        }
    };
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(NAP))?;
    let (mut buffer, mut last) = (vec![0; 64 * 1024], Instant::now());
    let mut carried = Carried::default();
    loop {
        let count = patiently(|| stream.read(&mut buffer))?;
        let gap = last.elapsed();
        last = Instant::now();
        carried.longest_gap = carried.longest_gap.max(gap);
        if gap >= SILENCE {
            let to = silence::now();
            carried.silences.push(Silence { from: to - gap.as_secs_f64(), to });
        }
        if count == 0 {
            return Ok(carried);
        }
        for octet in buffer.iter().take(count) {
            carried.wrong += u64::from(*octet != octet_at(carried.octets));
            carried.octets += 1;
        }
    }
}

/// What a flow carries at a place: two that are near each other, or a packet apart, look different.
fn octet_at(at: u64) -> u8 {
    (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}
