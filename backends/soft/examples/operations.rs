//! Processor time of each operation of the key exchange on this machine: what the table in `cost.rs` was made from.
//!
//!     cargo run --release -p tussock-soft --example operations
#![allow(clippy::unwrap_used)]

use std::collections::VecDeque;
use std::time::Duration;

use openssl::ec::{EcGroup, EcKey};
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use spi::crypto::KeySource;
use spi::{
    CryptoDone, CryptoJob, CryptoOp, CryptoOutput, CryptoQueue, Device, DhPrivate, Group, Outcome,
    QueueConfig, Secret, Token,
};

fn processor() -> Duration {
    let at = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(at.tv_sec as u64, at.tv_nsec as u32)
}

/// Does one operation so many times; what the last gave, and microseconds each.
fn time(queue: &mut CryptoQueue, times: usize, op: impl Fn() -> CryptoOp) -> (CryptoOutput, f64) {
    let began = processor();
    let mut jobs: VecDeque<CryptoJob> =
        (0..times).map(|n| CryptoJob { token: Token(n as u64), op: op() }).collect();
    let mut last = CryptoOutput::None;
    queue.submit(&mut jobs).unwrap();
    while queue.in_flight() > 0 {
        let mut fds = [rustix::event::PollFd::from_borrowed_fd(
            queue.doorbell().unwrap(),
            rustix::event::PollFlags::IN,
        )];
        rustix::event::poll(&mut fds, None).unwrap();
        queue.poll(usize::MAX, &mut |done: CryptoDone| {
            assert_eq!(done.outcome, Outcome::Done);
            last = done.output;
        });
    }
    (last, (processor() - began).as_secs_f64() * 1e6 / times as f64)
}

fn main() {
    let device = soft::Soft::new(1).device();
    let mut queue = device.crypto_queue(QueueConfig::default()).unwrap();
    let queue = &mut *queue;
    println!("{:<28} {:>10} {:>10}", "group", "generate", "derive");
    for group in Group::ALL.iter().copied().filter(|g| *g != Group::NONE) {
        let times = if group.to_string().starts_with("modp") { 20 } else { 200 };
        let (pair, generate) = time(queue, times, || CryptoOp::DhGenerate { group });
        let CryptoOutput::DhPair(DhPrivate::Bytes(private), public) = pair else { panic!("no pair") };
        let kem = CryptoOp::KemEncapsulate { group, theirs: public.clone() };
        let theirs = match time_kem(queue, kem) {
            Some((ciphertext, micros)) => {
                println!("{:<28} {:>10} {micros:>10.0}", group.to_string(), "encaps");
                ciphertext
            }
            None => public,
        };
        let derive = || CryptoOp::DhDerive {
            group,
            ours: DhPrivate::Bytes(private.duplicate()),
            theirs: theirs.clone(),
        };
        let (_, derive) = time(queue, times, derive);
        println!("{:<28} {generate:>10.0} {derive:>10.0}", group.to_string());
    }
    println!("\n{:<28} {:>10} {:>10}", "scheme", "sign", "verify");
    for key in keys() {
        let der = key.private_key_to_pkcs8().unwrap();
        let Ok(info) = device.open_key(KeySource::Der(Secret::new(der))) else { continue };
        for scheme in &info.schemes {
            let octets = vec![7; 500];
            let sign = || CryptoOp::Sign { key: info.id, scheme: *scheme, octets: octets.clone() };
            let (signature, sign) = time(queue, 50, sign);
            let CryptoOutput::Signature(signature) = signature else { panic!("no signature") };
            let verify = || CryptoOp::Verify {
                spki: info.spki.clone(),
                scheme: *scheme,
                octets: octets.clone(),
                signature: signature.clone(),
            };
            let (_, verify) = time(queue, 50, verify);
            println!("{:<28} {sign:>10.0} {verify:>10.0}", format!("{} bits, {scheme:?}", key.bits()));
        }
    }
}

fn time_kem(queue: &mut CryptoQueue, op: CryptoOp) -> Option<(Vec<u8>, f64)> {
    let CryptoOp::KemEncapsulate { group, theirs } = op else { return None };
    if !group.to_string().starts_with("mlkem") {
        return None;
    }
    let (output, micros) = time(queue, 200, || CryptoOp::KemEncapsulate { group, theirs: theirs.clone() });
    let CryptoOutput::Encapsulated(ciphertext, _) = output else { return None };
    Some((ciphertext, micros))
}

fn keys() -> Vec<PKey<Private>> {
    let ec = |nid| {
        let group = EcGroup::from_curve_name(nid).unwrap();
        PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap()
    };
    let rsa = |bits| PKey::from_rsa(Rsa::generate(bits).unwrap()).unwrap();
    vec![
        ec(Nid::X9_62_PRIME256V1),
        ec(Nid::SECP384R1),
        ec(Nid::SECP521R1),
        PKey::generate_ed25519().unwrap(),
        rsa(2048),
        rsa(3072),
        rsa(4096),
        rsa(8192),
    ]
}
