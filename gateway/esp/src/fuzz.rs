//! An entry for fuzzers: everything behind the sockets, with a device that believes every packet.

use std::time::Instant;

use spi::{Encr, Integ, Outcome, Pool, SaId};
use wire::TrafficSelector;

use crate::{ChildId, Config, Encap, Esp, InboundSa, Limits, Mode, Outer, Output, PeerMoves};

const SPI: u32 = 0x1000;

/// Takes `data` for a run of packets to one SA: two octets of length before each; the first octet of all chooses the mode.
/// Nothing is encrypted, so what the fuzzer writes after the ESP header is what the data path reads as plaintext.
pub fn fuzz_inbound(data: &[u8], now: Instant) {
    let Some((first, mut rest)) = data.split_first() else { return };
    let Ok(pool) = Pool::new(8192, 8) else { return };
    let mut esp = Esp::new(Config::new(pool));
    esp.add_device(4);
    let (local, remote) = ([192, 0, 2, 1].into(), [192, 0, 2, 2].into());
    let mode = match first & 1 {
        0 => Mode::Tunnel { local, remote },
        _ => Mode::Transport { local, remote, original: (first & 2 != 0).then_some((remote, local)) },
    };
    let any = || vec![TrafficSelector::ANY_V4, TrafficSelector::ANY_V6];
    let sa = InboundSa {
        child: ChildId(1),
        spi: SPI,
        device: 0,
        sa: SaId { index: 0, epoch: 0 },
        encr: Encr::NULL,
        integ: Integ::HMAC_SHA1_96,
        esn: first & 4 != 0,
        mode,
        encap: None,
        ts_local: any(),
        ts_remote: any(),
        iface: 0,
        replay_window: 64,
        moves: PeerMoves::Follow,
        pair: None,
        limits: Limits::default(),
        share: None,
    };
    if esp.install_inbound(sa, now).is_err() {
        return;
    }
    let mut out = Output::new();
    let socket = std::net::SocketAddr::new(remote, 4500);
    let outer = Outer { from: socket, to: socket, encap: Encap::Udp, tos: *first };
    while let Some(([hi, lo], behind)) = rest.split_first_chunk() {
        let len = usize::from(u16::from_be_bytes([*hi, *lo])).min(behind.len());
        let (packet, next) = behind.split_at(len);
        let mut whole = SPI.to_be_bytes().to_vec();
        whole.extend_from_slice(packet);
        esp.handle_outer(now, &outer, &whole, &mut out);
        rest = next;
    }
    esp.flush(now, &mut out);
    while let Some(mut burst) = out.submit.iter_mut().find_map(|queue| queue.pop_front()) {
        for op in burst.buf.ops_mut() {
            // SPI and number before, ICV behind.
            (op.at, op.len, op.outcome) = (op.at + 8, op.len - 20, Outcome::Done);
        }
        esp.on_done(now, burst, &mut out);
    }
    for packets in out.inner.drain(..) {
        for packet in packets.packets() {
            assert!(wire::ip::IpHeader::parse(packet).is_ok_and(|h| h.total_len == packet.len()));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn whatever_is_delivered_is_a_whole_ip_packet(
            first in any::<u8>(),
            packets in prop::collection::vec(
                (0u32..200, prop::sample::select(vec![0x45u8, 0x46, 0x60]), 0u8..90, prop::collection::vec(any::<u8>(), 20..100),
                    0u8..6, prop::sample::select(vec![4u8, 41, 6, 17, 59])), 1..6),
        ) {
            let mut data = vec![first];
            for (seq, version, total, mut plain, pad, next) in packets {
                plain[0] = version;
                plain[2..4].copy_from_slice(&[0, total]);
                plain[4..6].copy_from_slice(&[0, total]);
                plain.extend(1..=pad);
                while !(plain.len() + 2).is_multiple_of(4) { plain.insert(20, 1); }
                plain.extend([pad, next]);
                let packet = [&seq.to_be_bytes(), plain.as_slice(), &[0; 12]].concat();
                data.extend((packet.len() as u16).to_be_bytes());
                data.extend(packet);
            }
            fuzz_inbound(&data, Instant::now());
        }

        #[test]
        fn any_octets_are_judged_without_harm(data in prop::collection::vec(any::<u8>(), 0..400)) {
            fuzz_inbound(&data, Instant::now());
        }
    }
}
