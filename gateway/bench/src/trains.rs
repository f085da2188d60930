//! `tussock-bench trains`: superpackets from one gateway's side to the other's, as fast as they are taken, so that nobody sleeps
//! and what is measured is the way of packets and nothing else.

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Subcommand;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{SendFlags, send};
use serde_json::{Value, json};

use crate::sys;

/// Which end.
#[derive(Subcommand)]
pub enum Trains {
    /// Sends.
    Send {
        /// Our address.
        #[arg(long)]
        from: Ipv4Addr,
        /// Where to.
        #[arg(long)]
        to: SocketAddrV4,
        /// Packets in each superpacket.
        #[arg(long)]
        batch: usize,
        /// Payload octets of each packet.
        #[arg(long)]
        octets: usize,
        /// For how long.
        #[arg(long)]
        seconds: f64,
    },
    /// Receives until it is ended by a signal.
    Sink {
        /// Where.
        #[arg(long)]
        at: SocketAddrV4,
    },
}

/// Sends, and says how many; or receives.
pub fn run(trains: &Trains) -> Result<Value> {
    match *trains {
        Trains::Send { from, to, batch, octets, seconds } => {
            let socket = UdpSocket::bind((from, 0))?;
            socket.connect(to)?;
            sys::set_buffers(&socket, 1 << 22)?;
            if batch > 1 {
                sys::set_segment(&socket, octets).context("no UDP_SEGMENT")?;
            }
            let bytes = vec![0x5a; octets * batch];
            let (end, mut sent) = (Instant::now() + Duration::from_secs_f64(seconds), 0u64);
            while Instant::now() < end {
                match send(&socket, &bytes, SendFlags::empty()) {
                    Ok(_) => sent += batch as u64,
                    // The queue is full, which is what is wanted: whoever empties it shall have the core.
                    Err(_) => std::thread::sleep(Duration::from_micros(50)),
                }
            }
            Ok(json!({ "sent": sent }))
        }
        Trains::Sink { at } => {
            let socket = UdpSocket::bind(at)?;
            sys::set_buffers(&socket, 1 << 22)?;
            sys::set_gro(&socket).context("no UDP_GRO")?;
            println!("ready");
            let mut buffer = vec![0; 1 << 16];
            loop {
                while sys::receive(&socket, &mut buffer).is_ok() {}
                poll(&mut [PollFd::new(&socket, PollFlags::IN)], None)?;
            }
        }
    }
}
