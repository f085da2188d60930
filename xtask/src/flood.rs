//! Datagrams with made-up source addresses, many of them.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::net::{AddressFamily, SendFlags, SocketType, ipproto, sendto, socket};

use crate::inside::{self, Going};
use crate::world::World;

/// Sends an IKE_SA_INIT request over and over, each time with another initiator's SPI and from another address in
/// 172.16.0.0/12. Returns how many went out.
pub fn begin(
    world: &World,
    host: &str,
    request: Vec<u8>,
    to: Ipv4Addr,
    per_second: u32,
    time: Duration,
) -> Result<Going<u64>> {
    inside::begin(world, host, move || {
        // The kernel fills in checksum and identification of a header that we bring.
        let raw =
            socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::RAW)).context("no raw socket")?;
        let (began, mut sent) = (Instant::now(), 0_u64);
        while began.elapsed() < time {
            let due = (began.elapsed().as_secs_f64() * f64::from(per_second)) as u64;
            while sent < due {
                // Odd multiplier: a different number each time, and all over the place.
                let number = (sent + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                let from = Ipv4Addr::from(0xac10_0000 | (number >> 44) as u32);
                let packet = datagram(from, to, number, &request);
                // A full queue is not what is being tested.
                sendto(&raw, &packet, SendFlags::empty(), &SocketAddrV4::new(to, 0)).ok();
                sent += 1;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(sent)
    })
}

/// IPv4, UDP from and to port 500, and the message with another SPI.
fn datagram(from: Ipv4Addr, to: Ipv4Addr, spi: u64, message: &[u8]) -> Vec<u8> {
    let length = |n: usize| u16::try_from(n).unwrap_or(u16::MAX).to_be_bytes();
    let mut packet = vec![0x45, 0];
    packet.extend(length(28 + message.len()));
    packet.extend([0, 0, 0, 0, 64, 17, 0, 0]);
    packet.extend(from.octets());
    packet.extend(to.octets());
    packet.extend([500_u16.to_be_bytes(), 500_u16.to_be_bytes()].concat());
    packet.extend(length(8 + message.len()));
    // UDP over IPv4 may go without a checksum.
    packet.extend([0, 0]);
    packet.extend(spi.to_be_bytes());
    packet.extend(message.get(8..).unwrap_or_default());
    packet
}
