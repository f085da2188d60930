//! What the tests of this crate share: devices over different providers, and one operation at a time.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "each test file uses its own part, and may panic"
)]

pub mod token;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ossl::{Config, OpenSsl, Site};
use spi::pend::Pend;
use spi::{
    CryptoDone, CryptoOp, CryptoOutput, Device, DhPrivate, Group, KeyId, Outcome, QueueConfig, Secret,
    SignScheme,
};

pub fn driver(config: Config) -> OpenSsl {
    OpenSsl::new(vec![Site { name: "ossl0".into(), config }])
}

pub fn device(config: &Config) -> Arc<dyn Device> {
    ossl::open("ossl0", config).unwrap()
}

/// The provider that every OpenSSL has.
pub fn default_provider() -> Config {
    Config::default()
}

/// The emulator's module, which Cargo builds beside the test.
pub fn module() -> PathBuf {
    let file = std::env::current_exe().unwrap().with_file_name("libtussock_pausing.so");
    assert!(file.exists(), "{} is not there", file.display());
    file
}

/// A file that goes when the process does not need it any more.
pub fn file(name: &str, text: &str) -> PathBuf {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let file = dir.join(format!("{}-{count}-{name}", std::process::id()));
    std::fs::write(&file, text).unwrap();
    file
}

/// The provider whose hardware is a thread, with a latency and a plan.
pub fn pausing(latency: &str, plan: &str) -> Config {
    let plan = file("plan.toml", &format!("seed = 7\n\n{plan}"));
    let text = format!(
        "openssl_conf = init\n[init]\nproviders = all\n[all]\npausing = pausing\n[pausing]\nmodule = {}\nplan = {}\n\
         latency = {latency}\nactivate = 1\n",
        module().display(),
        plan.display()
    );
    let mut config = Config::default();
    config.provider = "pausing".into();
    config.config = Some(file("pausing.cnf", &text));
    config
}

/// What a device counts under a name.
pub fn counter(device: &dyn Device, name: &str) -> u64 {
    let stats = device.stats().unwrap();
    stats.counters.iter().find(|(other, _)| *other == name).unwrap().1
}

/// A queue of a device on which operations are run to their end, one by one.
pub struct Ops(Pend);

impl Ops {
    pub fn new(device: &dyn Device) -> Self {
        Ops(Pend::new(device.crypto_queue(QueueConfig::default()).unwrap(), 4))
    }

    pub fn run(&self, op: CryptoOp) -> Result<CryptoOutput, Outcome> {
        match self.0.block_on(op) {
            Ok(CryptoDone { outcome: Outcome::Done, output, .. }) => Ok(output),
            Ok(CryptoDone { outcome, .. }) => Err(outcome),
            Err(fault) => Err(Outcome::Failed(fault)),
        }
    }

    pub fn generate(&self, group: Group) -> (Vec<u8>, Vec<u8>) {
        match self.run(CryptoOp::DhGenerate { group }) {
            Ok(CryptoOutput::DhPair(DhPrivate::Bytes(ours), public)) => (ours.expose().to_vec(), public),
            _ => panic!("{group}: no key pair"),
        }
    }

    pub fn derive(&self, group: Group, ours: &[u8], theirs: &[u8]) -> Result<Vec<u8>, Outcome> {
        let ours = DhPrivate::Bytes(Secret::from_slice(ours));
        match self.run(CryptoOp::DhDerive { group, ours, theirs: theirs.to_vec() })? {
            CryptoOutput::Secret(secret) => Ok(secret.expose().to_vec()),
            _ => panic!("{group}: no secret"),
        }
    }

    pub fn sign(&self, key: KeyId, scheme: SignScheme, octets: &[u8]) -> Result<Vec<u8>, Outcome> {
        match self.run(CryptoOp::Sign { key, scheme, octets: octets.to_vec() })? {
            CryptoOutput::Signature(signature) => Ok(signature),
            _ => panic!("no signature"),
        }
    }

    pub fn verify(
        &self,
        spki: &[u8],
        scheme: SignScheme,
        octets: &[u8],
        signature: &[u8],
    ) -> Result<(), Outcome> {
        let (spki, octets, signature) = (spki.to_vec(), octets.to_vec(), signature.to_vec());
        self.run(CryptoOp::Verify { spki, scheme, octets, signature }).map(|_| ())
    }
}
