//! Known answers, and what software makes of the same: with the default provider and with the one that pauses.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hwtest::seed::Seeded;
use serde_json::Value;
use soft::Soft;
use spi::{
    Device, Direction, Encr, EspBurst, EspOp, Group, Integ, KeySource, Outcome, Pool, QueueConfig, Reject,
    SaId, SaParams, Secret, Token,
};
use support::{Ops, default_provider, device, pausing};

fn both() -> [(&'static str, Arc<dyn Device>); 2] {
    [("default", device(&default_provider())), ("pausing", device(&pausing("20us", "")))]
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    let octet = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(octet).collect()
}

/// Runs one packet through a fresh queue; gives the operation and its octets afterwards.
fn packet(device: &dyn Device, sa: SaId, dir: Direction, op: EspOp, octets: &[u8]) -> (EspOp, Vec<u8>) {
    let pool = Pool::new(octets.len() + 256, 1).unwrap();
    let mut buf = pool.take().unwrap();
    buf.bytes_mut()[..octets.len()].copy_from_slice(octets);
    buf.push_op(op).unwrap();
    let mut queue = device.esp_queue(QueueConfig { depth: 1, cpu: None }).unwrap();
    queue.submit(&mut VecDeque::from([EspBurst { token: Token(1), sa, dir, buf }])).unwrap();
    let (start, mut out) = (Instant::now(), None);
    while out.is_none() {
        assert!(start.elapsed() < Duration::from_secs(20));
        queue.poll(1, &mut |done: EspBurst| out = Some((done.buf.ops()[0], done.buf.op_bytes(0).to_vec())));
    }
    out.unwrap()
}

fn seal(device: &dyn Device, sa: SaId, head: usize, seq: u64, text: &[u8]) -> Vec<u8> {
    let octets = [&vec![0; head][..], text].concat();
    let (op, packet) = packet(device, sa, Direction::Seal, EspOp::new(0, text.len() as u16, seq), &octets);
    assert_eq!(op.outcome, Outcome::Done);
    packet
}

fn open(device: &dyn Device, sa: SaId, seq: u64, octets: &[u8]) -> (Outcome, Vec<u8>) {
    let (op, text) = packet(device, sa, Direction::Open, EspOp::new(0, octets.len() as u16, seq), octets);
    (op.outcome, text)
}

/// What one seals the other opens, for every transform and random lengths, keys, and numbers beyond 32 bits; and the same key
/// exchange gives the same secret, in every group.
#[test]
fn software_agrees_about_packets() {
    const SEED: u64 = 2026;
    eprintln!("seed {SEED}");
    for (name, device) in both() {
        let mut seeded = Seeded::new(SEED);
        let software = Soft::default().device();
        for cap in &device.desc().caps.esp {
            let (info, integ) = (cap.encr.info().unwrap(), cap.integ.info().unwrap());
            assert!(cap.esn, "{name}: {} {} without ESN", cap.encr, cap.integ);
            for esn in [false, true] {
                let mut keys = (vec![0; info.key_len + info.salt_len], vec![0; integ.key_len]);
                seeded.fill(&mut keys.0);
                seeded.fill(&mut keys.1);
                let params = |dir| SaParams {
                    spi: 0x0bad_cafe,
                    dir,
                    encr: cap.encr,
                    integ: cap.integ,
                    encr_key: Secret::from_slice(&keys.0),
                    integ_key: Secret::from_slice(&keys.1),
                    esn,
                };
                let ends: [&dyn Device; 2] = [&*device, &*software];
                for (from, to) in [(0, 1), (1, 0)] {
                    let sealing = ends[from].install_sa(&params(Direction::Seal)).unwrap();
                    let opening = ends[to].install_sa(&params(Direction::Open)).unwrap();
                    for _ in 0..3 {
                        let mut text = vec![0; seeded.below(1500) / info.block * info.block];
                        seeded.fill(&mut text);
                        let seq = if esn { seeded.next_u64() } else { seeded.next_u64() >> 32 };
                        let sealed = seal(ends[from], sealing, 8 + info.iv_len, seq, &text);
                        let what = format!("{name}: {} {} esn {esn}", cap.encr, cap.integ);
                        assert_eq!(open(ends[to], opening, seq, &sealed), (Outcome::Done, text), "{what}");
                        if esn {
                            let (outcome, _) = open(ends[to], opening, seq ^ 1 << 40, &sealed);
                            assert_eq!(outcome, Outcome::Rejected(Reject::BadIcv), "{what}");
                        }
                    }
                    ends[from].remove_sa(sealing);
                    ends[to].remove_sa(opening);
                }
            }
        }
    }
}

/// Every transform and group that the contract names is there with both providers: none is lost without a word.
#[test]
fn nothing_is_missing_that_openssl_has() {
    for (name, device) in both() {
        let caps = &device.desc().caps;
        let hmacs = [
            Integ::HMAC_SHA1_96,
            Integ::HMAC_SHA2_256_128,
            Integ::HMAC_SHA2_384_192,
            Integ::HMAC_SHA2_512_256,
        ];
        for encr in [Encr::AES128_GCM8, Encr::AES192_GCM12, Encr::AES256_GCM16, Encr::CHACHA20_POLY1305] {
            assert!(caps.carries(encr, Integ::NONE, true), "{name}: {encr}");
        }
        for encr in [Encr::AES128_CBC, Encr::AES192_CBC, Encr::AES256_CBC, Encr::AES128_CTR, Encr::AES256_CTR]
        {
            assert!(hmacs.iter().all(|integ| caps.carries(encr, *integ, true)), "{name}: {encr}");
        }
        let groups =
            Group::ALL.iter().filter(|group| (14..=21).contains(&group.0) || [31, 32].contains(&group.0));
        for group in groups {
            assert!(caps.dh.contains(group), "{name}: {group}");
        }
        // 6 RSA, 18 ECDSA, 2 EdDSA; SHA-1 is verified in two ways more.
        assert_eq!((caps.sign.len(), caps.verify.len()), (26, 28), "{name}");
    }
}

#[test]
fn software_agrees_about_key_exchange_and_signatures() {
    for (name, device) in both() {
        let software = Soft::default().device();
        let (ours, theirs) = (Ops::new(&*device), Ops::new(&*software));
        for group in device.desc().caps.dh.iter().copied() {
            let rounds = if [Group::MODP6144, Group::MODP8192].contains(&group) { 1 } else { 3 };
            for _ in 0..rounds {
                let ((a, to_b), (b, to_a)) = (ours.generate(group), theirs.generate(group));
                let one = ours.derive(group, &a, &to_a).unwrap();
                let other = theirs.derive(group, &b, &to_b).unwrap();
                assert_eq!(one, other, "{name}: {group}");
                // And each can finish what the other has begun.
                assert_eq!(theirs.derive(group, &a, &to_a).unwrap(), one, "{name}: {group}");
            }
        }
        for key in ["rsa2048", "p256", "p384", "p521", "ed25519", "ed448"] {
            let file = format!("{}/../../hwtest/testdata/{key}.p8", env!("CARGO_MANIFEST_DIR"));
            let der = std::fs::read(file).unwrap();
            let key = device.open_key(KeySource::Der(Secret::from_slice(&der))).unwrap();
            for scheme in key.schemes.iter().copied().filter(|s| software.desc().caps.verify.contains(s)) {
                let signature = ours.sign(key.id, scheme, b"octets").unwrap();
                assert_eq!(
                    theirs.verify(&key.spki, scheme, b"octets", &signature),
                    Ok(()),
                    "{name}: {scheme:?}"
                );
            }
        }
    }
}

/// RFC 7296 section 2.14 wants g^ir at full length. One secret in 256 begins with a zero; here is one in each MODP group, found by
/// trying, and software, which computes another way, says the same.
#[test]
fn a_secret_that_begins_with_zeroes_keeps_them() {
    let device = device(&default_provider());
    let software = Soft::default().device();
    let (ours, theirs) = (Ops::new(&*device), Ops::new(&*software));
    for group in [Group::MODP2048, Group::ECP256] {
        let (_, public) = theirs.generate(group);
        let len = group.info().unwrap().secret_len;
        let found = (2u32..6000).find_map(|n| {
            let mut exponent = vec![0; if group == Group::ECP256 { 32 } else { 4 }];
            let at = exponent.len() - 4;
            exponent[at..].copy_from_slice(&n.to_be_bytes());
            let secret = theirs.derive(group, &exponent, &public).unwrap();
            (secret[0] == 0).then_some((exponent, secret))
        });
        let (exponent, secret) = found.expect("one in 256 begins with a zero");
        let got = ours.derive(group, &exponent, &public).unwrap();
        assert_eq!((got.len(), &got), (len, &secret), "{group}");
    }
}

/// A directory of test vectors that lies beside the checkout; `None`, loudly, when it is not there.
fn vectors(name: &str) -> Option<Value> {
    let root = std::env::var_os("TUSSOCK_VECTORS")
        .map(std::path::PathBuf::from)
        .unwrap_or_else(|| std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/vectors"));
    let path = root.join(name);
    let found = std::fs::read(&path).ok();
    if found.is_none() {
        eprintln!("SKIPPED: {} is not there; set TUSSOCK_VECTORS", path.display());
    }
    found.map(|octets| serde_json::from_slice(&octets).unwrap())
}

fn field(value: &Value, name: &str) -> Vec<u8> {
    hex(value[name].as_str().unwrap_or_else(|| panic!("{name} is missing")))
}

#[test]
fn rfc_exchanges_agree_and_rfc_packets_open() {
    let Some(file) = vectors("rfc_vectors.json") else { return };
    let all = &file["vectors"];
    for (name, device) in both() {
        let ops = Ops::new(&*device);
        let mut tried = 0;
        for case in all["dh"].as_array().unwrap() {
            let group = Group(case["group"].as_u64().unwrap() as u16);
            for (ours, theirs) in [("priv_i", "pub_r"), ("priv_r", "pub_i")] {
                let got = ops.derive(group, &field(case, ours), &field(case, theirs));
                assert_eq!(got.as_ref(), Ok(&field(case, "shared")), "{name}: {}", case["ref"]);
                tried += 1;
            }
        }
        for case in all["esp_packets"].as_array().unwrap() {
            // RFC 3602 leaves the ICV out.
            if case["encr"] != "CHACHA20-POLY1305" {
                continue;
            }
            let params = SaParams {
                spi: u32::from_str_radix(case["spi"].as_str().unwrap(), 16).unwrap(),
                dir: Direction::Open,
                encr: Encr::CHACHA20_POLY1305,
                integ: Integ::NONE,
                encr_key: Secret::new(field(case, "keymat")),
                integ_key: Secret::new(Vec::new()),
                esn: false,
            };
            let sa = device.install_sa(&params).unwrap();
            let octets = field(case, "esp_packet")[20..].to_vec();
            let (outcome, text) = open(&*device, sa, case["seq"].as_u64().unwrap(), &octets);
            assert_eq!(outcome, Outcome::Done, "{name}: {}", case["ref"]);
            let inner = field(case, "original_packet");
            let inner = if case["mode"] == "tunnel" { &inner[..] } else { &inner[20..] };
            assert_eq!(text[..inner.len()], *inner, "{name}: {}", case["ref"]);
            tried += 1;
        }
        assert!(tried >= 9, "{name}: only {tried}");
    }
}
