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
#[derive(Clone, Copy, Debug)]
pub struct Carried {
    /// Octets received.
    pub octets: u64,
    /// The longest time in which nothing came.
    pub longest_gap: Duration,
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
            stream.set_write_timeout(Some(PATIENCE))?;
            let (mut piece, end, mut at) = ([0; 16 * 1024], Instant::now() + time, 0_u64);
            while Instant::now() < end {
                for octet in &mut piece {
                    *octet = octet_at(at);
                    at += 1;
                }
                stream.write_all(&piece).context("the flow stands still")?;
            }
            Ok(())
        })?;
        Ok(Flow { sender, receiver })
    }

    /// Wait for its end.
    pub fn finish(self) -> Result<Carried> {
        let sent = self.sender.finish();
        let carried = self.receiver.finish();
        sent?;
        carried
    }
}

/// How long a connection may take to come.
const CONNECT: Duration = Duration::from_secs(2);
/// How long a flow may stand still.
const PATIENCE: Duration = Duration::from_secs(5);

fn receive(listener: &TcpListener) -> Result<Carried> {
    let end = Instant::now() + CONNECT;
    let mut stream = loop {
        match listener.accept() {
            Ok((stream, _)) => break stream,
            Err(error) if error.kind() == ErrorKind::WouldBlock && Instant::now() < end => {
                thread::sleep(Duration::from_millis(5));
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => bail!("nobody connects"),
            Err(error) => return Err(error.into()),
        }
    };
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let (mut buffer, mut last) = (vec![0; 64 * 1024], Instant::now());
    let mut carried = Carried { octets: 0, longest_gap: Duration::ZERO };
    loop {
        let count = stream.read(&mut buffer).context("the flow stands still")?;
        carried.longest_gap = carried.longest_gap.max(last.elapsed());
        last = Instant::now();
        if count == 0 {
            return Ok(carried);
        }
        for octet in buffer.iter().take(count) {
            if *octet != octet_at(carried.octets) {
                bail!("octet {} of the flow is not what was sent", carried.octets);
            }
            carried.octets += 1;
        }
    }
}

/// What a flow carries at a place: two that are near each other, or a packet apart, look different.
fn octet_at(at: u64) -> u8 {
    (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}
