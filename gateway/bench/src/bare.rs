//! `tussock-bench bare`: a gateway with everything left out that can be. It stands in a gateway's place, in a process of its own at
//! each end, and does what [`crate::floor::path`] does on one thread: what remains of a gateway's cost is then the gateway's own,
//! and what this costs above the floor is that packets come from another core and that somebody has to be woken.

use std::net::{SocketAddrV4, UdpSocket};
use std::os::fd::OwnedFd;

use anyhow::{Context, Result, anyhow};
use clap::Args;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::read;
use rustix::net::{SendFlags, send};
use serde_json::json;
use spi::{Direction, Encr, EspOp, Integ, PacketBuf, Pool};

use crate::floor::crypto::Engine;
use crate::floor::path::{LONGEST, SEALED, coalesce, split, write_joined};
use crate::sys;

/// Where it stands.
#[derive(Args)]
pub struct Options {
    /// Our address and port.
    #[arg(long)]
    from: SocketAddrV4,
    /// The other end's.
    #[arg(long)]
    to: SocketAddrV4,
    /// The TUN device to make.
    #[arg(long)]
    tun: String,
}

/// How long nothing may happen until counters are printed.
const IDLE: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

#[derive(Clone, Copy, Default, PartialEq)]
struct Counts {
    sealed: u64,
    reads: u64,
    opened: u64,
    writes: u64,
}

/// Carries until it is ended by a signal. Prints a line of counters whenever it has come to rest.
pub fn run(options: &Options) -> Result<()> {
    let socket = UdpSocket::bind(options.from)?;
    socket.connect(options.to)?;
    socket.set_nonblocking(true)?;
    sys::set_buffers(&socket, 1 << 22)?;
    sys::set_segment(&socket, SEALED).context("no UDP_SEGMENT")?;
    sys::set_gro(&socket).context("no UDP_GRO")?;
    let pool = Pool::new(LONGEST * SEALED, 1)?;
    let mut end = End {
        socket,
        tun: sys::open_tun(&options.tun, true).context("no TUN device with segmentation offload")?,
        engine: Engine::new(Encr::AES128_GCM16, Integ::NONE)?,
        slab: pool.take(),
        plain: vec![0; 1 << 16],
        seq: 0,
        counts: Counts::default(),
    };
    println!("ready");
    let mut told = Counts::default();
    loop {
        let ready = [PollFd::new(&end.tun, PollFlags::IN), PollFd::new(&end.socket, PollFlags::IN)];
        if poll(&mut { ready }, Some(&IDLE))? == 0 {
            if told != end.counts {
                told = end.counts;
                let Counts { sealed, reads, opened, writes } = told;
                println!(
                    "{}",
                    json!({ "sealed": sealed, "reads": reads, "opened": opened, "writes": writes })
                );
            }
            continue;
        }
        end.outward()?;
        end.inward()?;
    }
}

struct End {
    socket: UdpSocket,
    tun: OwnedFd,
    engine: Engine,
    /// Taken while it is worked on.
    slab: Option<PacketBuf>,
    plain: Vec<u8>,
    seq: u64,
    counts: Counts,
}

impl End {
    fn outward(&mut self) -> Result<()> {
        while let Ok(len) = read(&self.tun, &mut self.plain[..]) {
            let mut slab = self.slab.take().context("no slab")?;
            // What the kernel has to say for itself is of another shape.
            let ours = split(self.plain.get(..len).unwrap_or_default(), &mut slab, &mut self.seq).is_ok();
            if ours && !slab.ops().is_empty() {
                slab = self.engine.run(Direction::Seal, slab)?;
                let count = slab.ops().len();
                // A full queue is a loss, as anywhere.
                send(
                    &self.socket,
                    slab.bytes().get(..SEALED * count).unwrap_or_default(),
                    SendFlags::empty(),
                )
                .ok();
                self.counts.sealed += count as u64;
                self.counts.reads += 1;
            }
            self.slab = Some(slab);
        }
        Ok(())
    }

    fn inward(&mut self) -> Result<()> {
        loop {
            let mut slab = self.slab.take().context("no slab")?;
            slab.clear_ops();
            let Ok(arrived) = sys::receive(&self.socket, slab.bytes_mut()) else {
                self.slab = Some(slab);
                return Ok(());
            };
            let count = arrived.len / SEALED;
            for n in 0..count {
                let op = EspOp::new((n * SEALED) as u32, SEALED as u16, 0);
                slab.push_op(op).map_err(|_| anyhow!("too many packets"))?;
            }
            slab = self.engine.run(Direction::Open, slab)?;
            if let Some(head) = coalesce(&slab) {
                write_joined(&self.tun, &head, &slab)?;
                self.counts.opened += count as u64;
                self.counts.writes += 1;
            }
            self.slab = Some(slab);
        }
    }
}
