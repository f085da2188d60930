//! The same packets through this backend and through software: what either seals the other opens.
#![allow(clippy::unwrap_used)]

mod support;

use hwtest::seed::Seeded;
use spi::alg::EncrKind;
use spi::esp::MAX_OPS;
use spi::{Direction, EspOp, Outcome, Reject, SaId};
use support::{Lane, device, params, soft};

/// Packets at any place and of any length up to 2048, each with a number of its own.
fn burst(seeded: &mut Seeded, head: usize, icv: usize, block: usize, esn: bool) -> (Vec<u8>, Vec<EspOp>) {
    let (mut at, mut ops) = (0, Vec::new());
    for _ in 0..1 + seeded.below(MAX_OPS) {
        at += seeded.below(40);
        let len = seeded.below(2049) / block * block;
        let seq = if esn { seeded.next_u64() } else { seeded.next_u64() & 0xffff_ffff };
        ops.push(EspOp::new(at as u32, len as u16, seq));
        at += head + len + icv;
    }
    let mut octets = vec![0; at];
    seeded.fill(&mut octets);
    (octets, ops)
}

#[test]
fn either_opens_what_the_other_seals() {
    let seed = 0x9ad;
    eprintln!("seed {seed:#x}");
    let mut seeded = Seeded::new(seed);
    let mut lanes = [Lane::new(device()), Lane::new(soft())];
    let caps = lanes[0].device.desc().caps.esp.clone();
    let mut packets = 0;
    for cap in caps {
        for esn in [false, true] {
            let name = format!("{} {} esn {esn}", cap.encr, cap.integ);
            let info = cap.encr.info().unwrap();
            let (head, icv) = (8 + info.iv_len, cap.integ.info().unwrap().icv_len);
            let ids = [0, 1].map(|lane: usize| {
                let install =
                    |dir| lanes[lane].device.install_sa(&params(dir, cap.encr, cap.integ, esn)).unwrap();
                (install(Direction::Seal), install(Direction::Open))
            });
            for round in 0..6 {
                let (octets, ops) = burst(&mut seeded, head, icv, info.block, esn);
                let (from, to) = (round % 2, 1 - round % 2);
                let sealed = lanes[from].run(ids[from].0, Direction::Seal, &octets, &ops);
                let mut wire = sealed.bytes()[..octets.len()].to_vec();
                let spoiled: Vec<bool> = sealed
                    .ops()
                    .iter()
                    .map(|op| {
                        assert_eq!(op.outcome, Outcome::Done, "{name}");
                        let spoil = seeded.below(8) == 0;
                        if spoil {
                            wire[op.at as usize + seeded.below(op.len.into())] ^= 1 << seeded.below(8);
                        }
                        spoil
                    })
                    .collect();
                if info.kind == EncrKind::Ctr {
                    // Nothing in it is left to chance.
                    let again = lanes[to].run(ids[to].0, Direction::Seal, &octets, &ops);
                    assert_eq!(again.bytes()[..octets.len()], sealed.bytes()[..octets.len()], "{name}");
                }
                let opened = lanes[to].run(ids[to].1, Direction::Open, &wire, sealed.ops());
                for (n, (op, spoiled)) in ops.iter().zip(spoiled).enumerate() {
                    let expected = if spoiled { Outcome::Rejected(Reject::BadIcv) } else { Outcome::Done };
                    assert_eq!(opened.ops()[n].outcome, expected, "{name} packet {n}");
                    if !spoiled {
                        let text = &octets[op.at as usize + head..][..op.len.into()];
                        assert_eq!(opened.op_bytes(n), text, "{name} packet {n}");
                    }
                    packets += 1;
                }
            }
        }
    }
    eprintln!("{packets} packets");
    assert!(packets > 2000);
}

/// Each thread has a processor of its own: SAs of several threads do not get into each other's way.
#[test]
fn threads_that_trap_at_once_get_what_is_theirs() {
    let device = device();
    std::thread::scope(|scope| {
        for thread in 0..6u64 {
            let device = std::sync::Arc::clone(&device);
            scope.spawn(move || {
                let mut lane = Lane::new(std::sync::Arc::clone(&device));
                let mut other = Lane::new(soft());
                let mut seeded = Seeded::new(thread);
                for round in 0..20 {
                    let cap = device.desc().caps.esp[(thread as usize + round) % 12];
                    let info = cap.encr.info().unwrap();
                    let (head, icv) = (8 + info.iv_len, cap.integ.info().unwrap().icv_len);
                    let seal =
                        device.install_sa(&params(Direction::Seal, cap.encr, cap.integ, true)).unwrap();
                    let open: SaId =
                        other.device.install_sa(&params(Direction::Open, cap.encr, cap.integ, true)).unwrap();
                    let (octets, ops) = burst(&mut seeded, head, icv, info.block, true);
                    let sealed = lane.run(seal, Direction::Seal, &octets, &ops);
                    let wire = &sealed.bytes()[..octets.len()];
                    let opened = other.run(open, Direction::Open, wire, sealed.ops());
                    for (n, op) in ops.iter().enumerate() {
                        assert_eq!(opened.ops()[n].outcome, Outcome::Done, "thread {thread} packet {n}");
                        assert_eq!(opened.op_bytes(n), &octets[op.at as usize + head..][..op.len.into()]);
                    }
                    device.remove_sa(seal);
                }
            });
        }
    });
}

/// RFC 3602 section 3: the IVs of CBC cannot be foretold and do not repeat, whichever SA they go to.
#[test]
fn ivs_of_cbc_do_not_repeat_in_a_ring() {
    let mut lane = Lane::new(device());
    let cap = lane.device.desc().caps.esp[0];
    let ids =
        [0, 1].map(|_| lane.device.install_sa(&params(Direction::Seal, cap.encr, cap.integ, false)).unwrap());
    let mut seen = std::collections::HashSet::new();
    for round in 0..30 {
        let ops: Vec<EspOp> = (0..=round % 40).map(|n| EspOp::new(n * 64, 16, 1)).collect();
        let sealed = lane.run(ids[round as usize % 2], Direction::Seal, &[], &ops);
        for op in sealed.ops() {
            assert!(seen.insert(sealed.bytes()[op.at as usize + 8..][..16].to_vec()));
        }
    }
    assert!(seen.len() > 400);
}
