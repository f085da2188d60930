//! A processor goes on with the key it has until something writes to the flags. Here it really does: the emulator follows each
//! thread, instruction by instruction, from one XCRYPT to the next POPF. A process of its own, since that is slow.
#![allow(clippy::unwrap_used)]

mod support;

use spi::{Direction, Encr, EspOp, Integ, Outcome};
use support::{Lane, device, emulator, params, soft};

#[test]
fn every_packet_is_sealed_with_the_key_of_its_own_sa() {
    let emulator = emulator();
    let mut lane = Lane::new(device());
    let mut all = Vec::new();
    let transforms = [
        (Encr::AES128_CBC, Integ::HMAC_SHA1_96),
        (Encr::AES256_CBC, Integ::HMAC_SHA2_256_128),
        (Encr::AES128_CTR, Integ::HMAC_SHA1_96),
        (Encr::AES192_CTR, Integ::HMAC_SHA2_256_128),
    ];
    for round in 0..4u8 {
        let (encr, integ) = transforms[usize::from(round) % 4];
        let (head, mut seal, mut open) = (
            8 + encr.info().unwrap().iv_len,
            params(Direction::Seal, encr, integ, false),
            params(Direction::Open, encr, integ, false),
        );
        // Keys that differ from round to round.
        for sa in [&mut seal, &mut open] {
            let key = sa.encr_key.expose().iter().map(|octet| octet ^ round).collect();
            sa.encr_key = spi::Secret::new(key);
        }
        let seal = lane.device.install_sa(&seal).unwrap();
        emulator.watch(true).unwrap();
        // Several pieces for each packet: the second one is not aligned, and longer than the bounce buffer.
        let ops = [EspOp::new(8, 256, 1), EspOp::new(1003, 1200, 2)];
        let octets: Vec<u8> = (0..4000).map(|n| n as u8 ^ round).collect();
        let sealed = lane.run(seal, Direction::Seal, &octets, &ops);
        emulator.watch(false).unwrap();
        let wire = sealed.bytes()[..octets.len()].to_vec();
        all.push((encr, open, ops, octets, wire, sealed.ops().to_vec(), head));
    }
    // Software opens them on a thread that is not followed.
    let opens = move || {
        let mut other = Lane::new(soft());
        for (encr, open, ops, octets, wire, sealed, head) in all {
            let open = other.device.install_sa(&open).unwrap();
            let opened = other.run(open, Direction::Open, &wire, &sealed);
            for (n, op) in ops.iter().enumerate() {
                assert_eq!(opened.ops()[n].outcome, Outcome::Done, "{encr} packet {n}");
                let text = &octets[op.at as usize + head..][..op.len.into()];
                assert_eq!(opened.op_bytes(n), text, "{encr} packet {n}");
            }
        }
    };
    std::thread::spawn(opens).join().unwrap();
    // Pieces of one text do go on with the key: otherwise this test would show nothing.
    assert!(emulator.reused() > 5, "{} times", emulator.reused());
}
