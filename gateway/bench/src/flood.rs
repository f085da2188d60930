//! `tussock-bench flood`: datagrams as fast as this machine sends them, and first IKE messages of strangers without number.

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Subcommand;
use rustix::net::{AddressFamily, SendFlags, SocketType, ipproto, sendto, socket};
use serde_json::{Value, json};
use wire::ike::{Flags, Header, Ke, Message, Nonce, Spi};
use wire::numbers::{ExchangeType, KeId};

use crate::load::suite;
use crate::sys;

/// Which.
#[derive(Subcommand)]
pub enum Flood {
    /// Datagrams, one as the other, as fast as it goes.
    Udp {
        /// Where to; nobody need listen there.
        #[arg(long)]
        to: SocketAddrV4,
        /// Payload octets of each.
        #[arg(long)]
        octets: usize,
        /// For how long.
        #[arg(long)]
        seconds: f64,
    },
    /// IKE_SA_INIT requests, each from another address of 198.18.0.0/15 and with another SPI.
    Strangers {
        /// The gateway.
        #[arg(long)]
        gateway: Ipv4Addr,
        /// How many a second.
        #[arg(long)]
        rate: u32,
        /// For how long.
        #[arg(long)]
        seconds: f64,
    },
}

/// Sends; says how many.
pub fn run(flood: &Flood) -> Result<Value> {
    let sent = match *flood {
        Flood::Udp { to, octets, seconds } => udp(to, octets, Duration::from_secs_f64(seconds))?,
        Flood::Strangers { gateway, rate, seconds } => {
            strangers(gateway, rate, Duration::from_secs_f64(seconds))?
        }
    };
    Ok(json!({ "sent": sent }))
}

fn udp(to: SocketAddrV4, octets: usize, time: Duration) -> Result<u64> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect(to)?;
    let bytes = vec![0x66; octets];
    let (end, mut sent) = (Instant::now() + time, 0);
    while Instant::now() < end {
        // An unreachable port comes back as an error of a later call, and is what we expect.
        sent += sys::send_many(&socket, &bytes, sys::BATCH).unwrap_or(0) as u64;
    }
    Ok(sent)
}

fn strangers(gateway: Ipv4Addr, rate: u32, time: Duration) -> Result<u64> {
    // The kernel fills in checksum and identification of a header that we bring.
    let raw = socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::RAW)).context("no raw socket")?;
    let (mut packet, to) = (stranger(gateway)?, SocketAddrV4::new(gateway, 0));
    let (began, mut sent) = (Instant::now(), 0u64);
    while began.elapsed() < time {
        let due = (began.elapsed().as_secs_f64() * f64::from(rate)) as u64;
        // Not all that is owed at once: a machine that was busy elsewhere has missed it.
        let now = due.min(sent + 256);
        while sent < now {
            sent += 1;
            // An odd multiplier: another number each time, and all over the place.
            let number = sent.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let from = Ipv4Addr::from(0xc612_0000 | (number >> 47) as u32);
            packet[12..16].copy_from_slice(&from.octets());
            packet[HEADERS..HEADERS + 8].copy_from_slice(&(number | 1).to_be_bytes());
            // A full queue is not what is being measured.
            sendto(&raw, &packet, SendFlags::empty(), &to).ok();
        }
        sleep(Duration::from_micros(500));
    }
    Ok(sent)
}

/// Octets of IPv4 and UDP header.
const HEADERS: usize = 28;

/// A first message as any initiator would send it, with an IPv4 and a UDP header.
fn stranger(gateway: Ipv4Addr) -> Result<Vec<u8>> {
    let header = Header::new(Spi(1), Spi::ZERO, ExchangeType::IKE_SA_INIT, Flags::INITIATOR, 0);
    // The base point: as good a public value as any.
    let mut point = vec![0; 32];
    point[0] = 9;
    let ke = Ke::new(KeId(spi::Group::X25519.0), point);
    let message =
        Message::new(header, vec![suite::ike_sa(1), ke.into(), Nonce(vec![0x4e; 32]).into()]).emit();
    let length = |n: usize| u16::try_from(n).map(u16::to_be_bytes).context("a long message");
    let mut packet = vec![0x45, 0];
    packet.extend(length(HEADERS + message.len())?);
    packet.extend([0, 0, 0, 0, 64, 17, 0, 0, 0, 0, 0, 0]);
    packet.extend(gateway.octets());
    packet.extend([500u16.to_be_bytes(), 500u16.to_be_bytes()].concat());
    packet.extend(length(8 + message.len())?);
    // UDP over IPv4 may go without a checksum.
    packet.extend([0, 0]);
    packet.extend(message);
    Ok(packet)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stranger_looks_like_any_initiator() {
        let packet = stranger(Ipv4Addr::new(192, 168, 0, 1)).unwrap();
        let header = wire::ip::IpHeader::parse(&packet).unwrap();
        assert_eq!((header.protocol, header.total_len), (17, packet.len()));
        let message = Message::parse(&packet[HEADERS..]).unwrap();
        assert_eq!(message.summary(), "IKE_SA_INIT request 0 [ SA KE No ]");
    }
}
