//! What the tests of this crate share: a device, one packet or one operation at a time, hexadecimal.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "each test file uses its own part, and may panic"
)]

use std::collections::VecDeque;
use std::sync::Arc;

use soft::{EngineChoice, Soft, SoftDevice};
use spi::pend::Pend;
use spi::{
    CryptoDone, CryptoOp, CryptoOutput, Device, DhPrivate, Direction, Encr, EspBurst, EspOp, Group, Integ,
    KeyId, Outcome, Pool, QueueConfig, SaId, SaParams, Secret, SignScheme, Token,
};

pub fn device() -> Arc<SoftDevice> {
    Soft::default().device()
}

/// A device for each engine there is, and the name of the engine.
pub fn engines() -> Vec<(&'static str, Arc<SoftDevice>)> {
    let device = |choice| Soft::default().with_engines(choice).device();
    let mut all = vec![("aws-lc", device(EngineChoice::AwsLc))];
    let other = device(EngineChoice::IpsecMb);
    match other.engines().iter().find(|report| report.why.starts_with("not there")) {
        Some(report) => eprintln!("SKIPPED: {} is {}", report.engine, report.why),
        None => all.push(("ipsec-mb", other)),
    }
    all
}

/// Runs a test over each engine; its name is in the output of a test that fails.
pub fn with_every_engine(test: impl Fn(Arc<SoftDevice>)) {
    for (name, device) in engines() {
        eprintln!("engine {name}");
        test(device);
    }
}

pub fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).expect("hexadecimal"))
        .collect()
}

pub fn block<const N: usize>(text: &str) -> [u8; N] {
    hex(text).try_into().expect("length")
}

/// Key material for a transform: counting octets.
pub fn params(dir: Direction, encr: Encr, integ: Integ, esn: bool) -> SaParams {
    let (e, i) = (encr.info().unwrap(), integ.info().unwrap());
    SaParams {
        spi: 0x1234_5678,
        dir,
        encr,
        integ,
        encr_key: Secret::new((0..(e.key_len + e.salt_len) as u8).collect()),
        integ_key: Secret::new((100..100 + i.key_len as u8).collect()),
        esn,
    }
}

/// Runs one operation through a fresh queue and gives the operation and its octets afterwards.
pub fn esp(device: &dyn Device, sa: SaId, dir: Direction, op: EspOp, octets: &[u8]) -> (EspOp, Vec<u8>) {
    let pool = Pool::new(octets.len().max(op.at as usize + op.len as usize) + 128, 1).unwrap();
    let mut buf = pool.take().unwrap();
    buf.bytes_mut()[..octets.len()].copy_from_slice(octets);
    buf.push_op(op).unwrap();
    let mut queue = device.esp_queue(QueueConfig { depth: 1, cpu: None }).unwrap();
    let mut jobs = VecDeque::from([EspBurst { token: Token(1), sa, dir, buf }]);
    assert_eq!(queue.submit(&mut jobs), Ok(1));
    let mut out = None;
    queue.poll(1, &mut |done: EspBurst| {
        let op = done.buf.ops()[0];
        out = Some((op, done.buf.op_bytes(0).to_vec()));
    });
    out.expect("one completion")
}

/// Seals one text; gives the whole packet.
pub fn seal(device: &dyn Device, sa: SaId, head: usize, seq: u64, text: &[u8]) -> Vec<u8> {
    let mut octets = vec![0; head];
    octets.extend_from_slice(text);
    let (op, packet) = esp(device, sa, Direction::Seal, EspOp::new(0, text.len() as u16, seq), &octets);
    assert_eq!(op.outcome, Outcome::Done);
    packet
}

/// Opens one packet; gives the outcome and the text.
pub fn open(device: &dyn Device, sa: SaId, seq: u64, packet: &[u8]) -> (Outcome, Vec<u8>) {
    let op = EspOp::new(0, packet.len() as u16, seq);
    let (op, text) = esp(device, sa, Direction::Open, op, packet);
    (op.outcome, text)
}

/// A device and a queue of its own on which operations are run to their end, one by one.
pub struct Ops {
    pub device: Arc<SoftDevice>,
    pend: Pend,
}

impl Ops {
    pub fn new() -> Self {
        let device = device();
        let pend = Pend::new(device.crypto_queue(QueueConfig::default()).unwrap(), 4);
        Ops { device, pend }
    }

    pub fn run(&self, op: CryptoOp) -> Result<CryptoOutput, Outcome> {
        match self.pend.block_on(op) {
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

    pub fn encapsulate(&self, group: Group, theirs: &[u8]) -> Result<(Vec<u8>, Vec<u8>), Outcome> {
        match self.run(CryptoOp::KemEncapsulate { group, theirs: theirs.to_vec() })? {
            CryptoOutput::Encapsulated(ciphertext, secret) => Ok((ciphertext, secret.expose().to_vec())),
            _ => panic!("{group}: no ciphertext"),
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

/// A directory of test vectors that lies beside the checkout; `None`, loudly, when it is not there.
pub fn vectors(name: &str) -> Option<Vec<u8>> {
    let root = std::env::var_os("TUSSOCK_VECTORS")
        .map(std::path::PathBuf::from)
        .unwrap_or_else(|| std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/vectors"));
    let path = root.join(name);
    let found = std::fs::read(&path).ok();
    if found.is_none() {
        eprintln!("SKIPPED: {} is not there; set TUSSOCK_VECTORS", path.display());
    }
    found
}
