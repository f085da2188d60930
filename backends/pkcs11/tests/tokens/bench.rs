//! A workbench: operations on a device, one by one or many at a time, and signatures verified by OpenSSL.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use openssl::ecdsa::EcdsaSig;
use openssl::hash::{MessageDigest, hash};
use openssl::pkey::PKey;
use openssl::rsa::Padding;
use openssl::sign::{RsaPssSaltlen, Verifier};
use rustix::event::{PollFd, PollFlags, Timespec};
use spi::crypto::KeyInfo;
use spi::{
    CryptoDone, CryptoJob, CryptoOp, CryptoOutput, CryptoQueue, Device, Fault, Hash, KeySource, Outcome,
    QueueConfig, SignScheme, Token,
};

/// A ring, and what has come out of it.
pub(crate) struct Bench {
    pub(crate) queue: Box<CryptoQueue>,
    next: u64,
}

impl Bench {
    pub(crate) fn new(device: &dyn Device) -> Bench {
        Bench { queue: device.crypto_queue(QueueConfig::default()).unwrap(), next: 0 }
    }

    /// Carries all out; the answers in the order of the questions. Each comes exactly once.
    pub(crate) fn run_all(&mut self, ops: Vec<CryptoOp>) -> Vec<(Outcome, CryptoOutput)> {
        let first = self.next;
        let mut jobs: VecDeque<CryptoJob> = VecDeque::new();
        for op in ops {
            jobs.push_back(CryptoJob { token: Token(self.next), op });
            self.next += 1;
        }
        let wanted = jobs.len();
        let mut done = BTreeMap::new();
        let begin = Instant::now();
        while done.len() < wanted {
            assert!(begin.elapsed() < Duration::from_secs(120), "{} of {wanted} came", done.len());
            self.queue.submit(&mut jobs).unwrap();
            self.queue.poll(64, &mut |d: CryptoDone| {
                assert!(
                    d.token.0 >= first && done.insert(d.token.0, (d.outcome, d.output)).is_none(),
                    "{:?}",
                    d.token
                );
            });
            let bell = self.queue.doorbell().unwrap();
            let mut fds = [PollFd::from_borrowed_fd(bell, PollFlags::IN)];
            let _ = rustix::event::poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 100_000_000 }));
        }
        done.into_values().collect()
    }

    pub(crate) fn run(&mut self, op: CryptoOp) -> Result<CryptoOutput, Outcome> {
        match self.run_all(vec![op]).remove(0) {
            (Outcome::Done, output) => Ok(output),
            (outcome, _) => Err(outcome),
        }
    }

    pub(crate) fn sign(
        &mut self,
        key: &KeyInfo,
        scheme: SignScheme,
        octets: &[u8],
    ) -> Result<Vec<u8>, Outcome> {
        match self.run(sign(key, scheme, octets))? {
            CryptoOutput::Signature(signature) => Ok(signature),
            _ => panic!("no signature came"),
        }
    }
}

pub(crate) fn sign(key: &KeyInfo, scheme: SignScheme, octets: &[u8]) -> CryptoOp {
    CryptoOp::Sign { key: key.id, scheme, octets: octets.to_vec() }
}

/// Opens a key, or says what the device says.
pub(crate) fn key(device: &dyn Device, uri: &str) -> Result<KeyInfo, String> {
    device.open_key(KeySource::Uri(uri.into())).map_err(|fault| device.explain(fault))
}

/// What a device says of a job that failed.
pub(crate) fn said(device: &dyn Device, outcome: Outcome) -> String {
    match outcome {
        Outcome::Failed(fault) => device.explain(fault),
        other => format!("{other:?}"),
    }
}

/// The fault of a job.
pub(crate) fn fault(outcome: Outcome) -> Fault {
    match outcome {
        Outcome::Failed(fault) => fault,
        other => panic!("{other:?}"),
    }
}

/// Whether OpenSSL takes a signature.
pub(crate) fn verifies(spki: &[u8], scheme: SignScheme, octets: &[u8], signature: &[u8]) -> bool {
    let key = PKey::public_key_from_der(spki).unwrap();
    let md = match scheme.hash() {
        Hash::Sha1 => MessageDigest::sha1(),
        Hash::Sha384 => MessageDigest::sha384(),
        Hash::Sha512 => MessageDigest::sha512(),
        _ => MessageDigest::sha256(),
    };
    match scheme {
        SignScheme::EcdsaPlain(curve, _) => {
            let (r, s) = signature.split_at(curve.coordinate_len());
            let number = |octets| openssl::bn::BigNum::from_slice(octets).unwrap();
            let signature = EcdsaSig::from_private_components(number(r), number(s)).unwrap();
            let digest = hash(md, octets).unwrap();
            signature.verify(&digest, &key.ec_key().unwrap()).unwrap()
        }
        SignScheme::Ed25519 | SignScheme::Ed448 => {
            Verifier::new_without_digest(&key).unwrap().verify_oneshot(signature, octets).unwrap()
        }
        _ => {
            let mut verifier = Verifier::new(md, &key).unwrap();
            if matches!(scheme, SignScheme::RsaPss(_)) {
                verifier.set_rsa_padding(Padding::PKCS1_PSS).unwrap();
                verifier.set_rsa_mgf1_md(md).unwrap();
                verifier.set_rsa_pss_saltlen(RsaPssSaltlen::DIGEST_LENGTH).unwrap();
            }
            verifier.verify_oneshot(signature, octets).unwrap_or(false)
        }
    }
}
