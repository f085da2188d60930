//! Packets: every transform of the table, sealed and opened, and everything that must be refused.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::VecDeque;

use common::{esp, open, params, seal, with_every_engine};
use spi::{
    Device, Direction, Encr, EspBurst, EspOp, FaultKind, Integ, Outcome, Pool, QueueConfig, Reject, SaId,
    Secret, Token,
};

fn head(encr: Encr) -> usize {
    8 + encr.info().unwrap().iv_len
}

#[test]
fn every_declared_transform_opens_what_it_sealed_and_nothing_else() {
    with_every_engine(|device| {
        for cap in &device.desc().caps.esp {
            for esn in [false, true] {
                let name = format!("{} {} esn {esn}", cap.encr, cap.integ);
                let out = device.install_sa(&params(Direction::Seal, cap.encr, cap.integ, esn)).unwrap();
                let into = device.install_sa(&params(Direction::Open, cap.encr, cap.integ, esn)).unwrap();
                let info = cap.encr.info().unwrap();
                let icv = info.icv_len + cap.integ.info().unwrap().icv_len;
                for blocks in [0, 1, 2, 5, 90] {
                    let text: Vec<u8> = (0..info.block * blocks).map(|i| i as u8).collect();
                    let seq = 0x0000_0007_8000_0001;
                    let packet = seal(&*device, out, head(cap.encr), seq, &text);
                    assert_eq!(packet.len(), head(cap.encr) + text.len() + icv, "{name}");
                    assert_eq!(packet[..8], [0x12, 0x34, 0x56, 0x78, 0x80, 0, 0, 1], "{name}");
                    assert_eq!(open(&*device, into, seq, &packet), (Outcome::Done, text.clone()), "{name}");
                    if blocks > 1 && !matches!(info.kind, spi::alg::EncrKind::Null | spi::alg::EncrKind::Gmac)
                    {
                        assert_ne!(
                            packet[head(cap.encr)..][..text.len()],
                            text,
                            "{name}: nothing was encrypted"
                        );
                    }
                    for at in (0..packet.len()).step_by(packet.len() / 7 + 1).chain([packet.len() - 1]) {
                        let mut bent = packet.clone();
                        bent[at] ^= 0x10;
                        let outcome = open(&*device, into, seq, &bent).0;
                        assert_eq!(
                            outcome,
                            Outcome::Rejected(Reject::BadIcv),
                            "{name}: octet {at} was changed"
                        );
                    }
                    // The high half is not in the packet; with ESN the ICV covers it, without it is not looked at.
                    let other = open(&*device, into, seq ^ (1 << 40), &packet).0;
                    assert_eq!(other == Outcome::Done, !esn, "{name}");
                }
                device.remove_sa(out);
                device.remove_sa(into);
            }
        }
    });
}

#[test]
fn a_packet_of_impossible_length_is_refused_without_a_look_at_its_icv() {
    with_every_engine(|device| {
        for cap in device.desc().caps.esp.iter().filter(|c| c.encr.key_bits != 192) {
            let sa = device.install_sa(&params(Direction::Open, cap.encr, cap.integ, false)).unwrap();
            let least = head(cap.encr) + cap.encr.info().unwrap().icv_len + cap.integ.info().unwrap().icv_len;
            for len in 0..least {
                let outcome = open(&*device, sa, 1, &vec![0; len]).0;
                assert_eq!(outcome, Outcome::Rejected(Reject::BadLength), "{} {} {len}", cap.encr, cap.integ);
            }
            if cap.encr.info().unwrap().block == 16 {
                for len in [least + 1, least + 15, least + 17] {
                    let outcome = open(&*device, sa, 1, &vec![0; len]).0;
                    assert_eq!(outcome, Outcome::Rejected(Reject::BadLength));
                }
            }
            device.remove_sa(sa);
        }
    });
}

#[test]
fn an_operation_outside_its_buffer_is_refused_and_the_rest_of_the_burst_is_done() {
    with_every_engine(|device| {
        let sa = device.install_sa(&params(Direction::Seal, Encr::AES128_GCM16, Integ::NONE, false)).unwrap();
        let pool = Pool::new(256, 1).unwrap();
        let mut buf = pool.take().unwrap();
        let ops = [
            EspOp::new(0, 32, 1),
            EspOp::new(256 - 32, 32, 2),
            EspOp::new(256 - 16 - 32 - 15, 32, 3),
            EspOp::new(64, 32, 4),
        ];
        for op in ops {
            buf.push_op(op).unwrap();
        }
        // What push_op would not let in.
        buf.ops_mut()[2] = EspOp::new(u32::MAX, u16::MAX, 3);
        let mut queue = device.esp_queue(QueueConfig::default()).unwrap();
        queue
            .submit(&mut VecDeque::from([EspBurst { token: Token(1), sa, dir: Direction::Seal, buf }]))
            .unwrap();
        let mut outcomes = Vec::new();
        queue.poll(1, &mut |done: EspBurst| outcomes.extend(done.buf.ops().iter().map(|op| op.outcome)));
        let refused = Outcome::Rejected(Reject::BadLength);
        assert_eq!(outcomes, [Outcome::Done, refused, refused, Outcome::Done]);
    });
}

#[test]
fn the_longest_packet_fits_and_one_octet_more_is_refused() {
    with_every_engine(|device| {
        let sa = device.install_sa(&params(Direction::Seal, Encr::AES128_GCM16, Integ::NONE, false)).unwrap();
        let longest = u16::MAX - 32;
        let (op, _) = esp(&*device, sa, Direction::Seal, EspOp::new(0, longest, 1), &vec![0; 66_000]);
        assert_eq!((op.outcome, op.len), (Outcome::Done, u16::MAX));
        let (op, _) = esp(&*device, sa, Direction::Seal, EspOp::new(0, longest + 1, 1), &vec![0; 66_000]);
        assert_eq!(op.outcome, Outcome::Rejected(Reject::BadLength));
    });
}

#[test]
fn an_sa_works_in_its_own_direction_only() {
    with_every_engine(|device| {
        let sa = device.install_sa(&params(Direction::Seal, Encr::AES128_GCM16, Integ::NONE, false)).unwrap();
        let (op, _) = esp(&*device, sa, Direction::Open, EspOp::new(0, 64, 1), &[0; 64]);
        assert_eq!(op.outcome, Outcome::Failed(FaultKind::Unsupported.into()));
    });
}

#[test]
fn wrong_key_lengths_and_unknown_combinations_are_not_installed() {
    with_every_engine(|device| {
        let mut bad = params(Direction::Seal, Encr::AES128_GCM16, Integ::NONE, false);
        bad.encr_key = Secret::new(vec![1; 16]);
        assert!(device.install_sa(&bad).is_err(), "the salt is missing");
        let mut bad = params(Direction::Seal, Encr::AES128_CBC, Integ::HMAC_SHA1_96, false);
        bad.integ = Integ::NONE;
        bad.integ_key = Secret::new(Vec::new());
        assert!(device.install_sa(&bad).is_err(), "nothing is carried without integrity");
        let mut bad = params(Direction::Seal, Encr::AES128_GCM16, Integ::NONE, false);
        bad.encr = Encr { id: 999, key_bits: 128 };
        assert!(device.install_sa(&bad).is_err());
    });
}

#[test]
fn cbc_ivs_do_not_repeat_and_counter_ivs_are_the_sequence_number() {
    with_every_engine(|device| {
        let cbc = device
            .install_sa(&params(Direction::Seal, Encr::AES256_CBC, Integ::HMAC_SHA2_256_128, false))
            .unwrap();
        let twin = device
            .install_sa(&params(Direction::Seal, Encr::AES256_CBC, Integ::HMAC_SHA2_256_128, false))
            .unwrap();
        let mut seen = std::collections::HashSet::new();
        for _ in 0..100 {
            for sa in [cbc, twin] {
                let packet = seal(&*device, sa, 24, 7, &[0; 16]);
                assert!(seen.insert(packet[8..24].to_vec()), "an IV came twice");
            }
        }
        let gcm = device.install_sa(&params(Direction::Seal, Encr::AES256_GCM16, Integ::NONE, true)).unwrap();
        let packet = seal(&*device, gcm, 16, 0x0102_0304_0506_0708, &[0; 16]);
        assert_eq!(packet[4..16], [5, 6, 7, 8, 1, 2, 3, 4, 5, 6, 7, 8]);
    });
}

#[test]
fn removed_and_reset_handles_are_stale_and_never_reach_another_sa() {
    with_every_engine(|device| {
        let install =
            || device.install_sa(&params(Direction::Seal, Encr::AES128_GCM16, Integ::NONE, false)).unwrap();
        let stale = Outcome::Failed(FaultKind::StaleHandle.into());
        let run = |sa| esp(&*device, sa, Direction::Seal, EspOp::new(0, 16, 1), &[0; 64]).0.outcome;
        let first = install();
        assert_eq!(run(first), Outcome::Done);
        device.remove_sa(first);
        assert_eq!(run(first), stale);
        let second = install();
        assert_eq!(second.index, first.index, "the place is reused");
        assert_eq!(run(first), stale);
        assert_eq!(run(second), Outcome::Done);
        device.begin_reset();
        assert_eq!(run(second), stale);
        assert_eq!(run(SaId { index: u32::MAX, epoch: 0 }), stale);
    });
}

#[test]
fn a_queue_that_has_met_an_sa_forgets_it_when_it_is_removed() {
    with_every_engine(|device| {
        let install =
            || device.install_sa(&params(Direction::Seal, Encr::AES128_GCM16, Integ::NONE, false)).unwrap();
        let pool = Pool::new(128, 4).unwrap();
        let mut queue = device.esp_queue(QueueConfig::default()).unwrap();
        let mut run = |sa| {
            let mut buf = pool.take().unwrap();
            buf.push_op(EspOp::new(0, 16, 1)).unwrap();
            queue
                .submit(&mut VecDeque::from([EspBurst { token: Token(1), sa, dir: Direction::Seal, buf }]))
                .unwrap();
            let mut outcome = None;
            queue.poll(1, &mut |done: EspBurst| outcome = Some(done.buf.ops()[0].outcome));
            outcome.unwrap()
        };
        let first = install();
        assert_eq!(run(first), Outcome::Done);
        device.remove_sa(first);
        assert_eq!(run(first), Outcome::Failed(FaultKind::StaleHandle.into()));
        let second = install();
        assert_eq!(run(second), Outcome::Done);
        assert_eq!(run(first), Outcome::Failed(FaultKind::StaleHandle.into()));
    });
}

#[test]
fn what_is_out_at_a_reset_comes_back_aborted_once_each() {
    with_every_engine(|device| {
        let sa = device.install_sa(&params(Direction::Seal, Encr::AES128_GCM16, Integ::NONE, false)).unwrap();
        let pool = Pool::new(128, 8).unwrap();
        let mut queue = device.esp_queue(QueueConfig::default()).unwrap();
        let burst = |token| {
            let mut buf = pool.take().unwrap();
            buf.push_op(EspOp::new(0, 16, token)).unwrap();
            EspBurst { token: Token(token), sa, dir: Direction::Seal, buf }
        };
        queue.submit(&mut (1..=4).map(burst).collect()).unwrap();
        device.begin_reset();
        queue.submit(&mut (5..=6).map(burst).collect()).unwrap();
        let mut got = Vec::new();
        queue.poll(100, &mut |done: EspBurst| got.push((done.token.0, done.buf.ops()[0].outcome)));
        let (aborted, stale) =
            (Outcome::Failed(FaultKind::Aborted.into()), Outcome::Failed(FaultKind::StaleHandle.into()));
        assert_eq!(got, [(1, aborted), (2, aborted), (3, aborted), (4, aborted), (5, stale), (6, stale)]);
        assert_eq!(pool.available(), 8);
    });
}

#[test]
fn several_threads_seal_with_one_sa_while_others_come_and_go() {
    with_every_engine(|device| {
        for (encr, integ) in [(Encr::AES128_GCM16, Integ::NONE), (Encr::AES256_CBC, Integ::HMAC_SHA2_256_128)]
        {
            let seal_id = device.install_sa(&params(Direction::Seal, encr, integ, false)).unwrap();
            let open_id = device.install_sa(&params(Direction::Open, encr, integ, false)).unwrap();
            std::thread::scope(|scope| {
                for thread in 0..4u64 {
                    let device = &device;
                    scope.spawn(move || {
                        for n in 0..100 {
                            let (seq, text) = (thread * 1000 + n, [thread as u8; 96]);
                            let packet = seal(&**device, seal_id, head(encr), seq, &text);
                            assert_eq!(
                                open(&**device, open_id, seq, &packet),
                                (Outcome::Done, text.to_vec())
                            );
                        }
                    });
                }
                scope.spawn(|| {
                    for _ in 0..500 {
                        let id = device.install_sa(&params(Direction::Seal, encr, integ, true)).unwrap();
                        device.remove_sa(id);
                    }
                });
            });
        }
    });
}

#[test]
fn a_reset_in_the_midst_of_work_leaves_every_packet_with_one_of_three_ends() {
    with_every_engine(|device| {
        std::thread::scope(|scope| {
            for _ in 0..3 {
                let device = &device;
                scope.spawn(move || {
                    for seq in 0..300 {
                        let id = device
                            .install_sa(&params(Direction::Seal, Encr::AES128_GCM16, Integ::NONE, false))
                            .unwrap();
                        let (op, _) = esp(&**device, id, Direction::Seal, EspOp::new(0, 64, seq), &[0; 128]);
                        let ends = [
                            Outcome::Done,
                            Outcome::Failed(FaultKind::Aborted.into()),
                            Outcome::Failed(FaultKind::StaleHandle.into()),
                        ];
                        assert!(ends.contains(&op.outcome), "{:?}", op.outcome);
                        device.remove_sa(id);
                    }
                });
            }
            scope.spawn(|| {
                for _ in 0..100 {
                    device.begin_reset();
                    std::thread::yield_now();
                }
            });
        });
    });
}
