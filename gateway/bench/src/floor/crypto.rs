//! What ciphers cost: AWS-LC called directly, and whatever the software backend does, through the interface through which the
//! gateway asks for it.

use std::collections::VecDeque;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, ensure};
use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use serde_json::{Value, json};
use spi::{
    Device, Direction, Encr, EspBurst, EspOp, EspQueue, Integ, Outcome, PacketBuf, Pool, QueueConfig, SaId,
    SaParams, Secret, Token,
};

use crate::clock::{Effort, measure};

/// Octets of an ESP header with its 64-bit IV.
pub const HEAD: usize = 16;
/// Octets of ICV.
pub const ICV: usize = 16;

const SPI: u32 = 0x1234_5678;

/// Suites that a row of the table of ciphers is about.
const SUITES: [(&str, Encr, Integ); 4] = [
    ("aes128gcm16", Encr::AES128_GCM16, Integ::NONE),
    ("aes256gcm16", Encr::AES256_GCM16, Integ::NONE),
    ("chacha20poly1305", Encr::CHACHA20_POLY1305, Integ::NONE),
    ("aes128-sha256", Encr::AES128_CBC, Integ::HMAC_SHA2_256_128),
];

/// Payload lengths of the table. 1392 and not 1400: a multiple of every block.
const LENGTHS: [usize; 3] = [64, 256, 1392];

/// Packets per burst: as many as a long superpacket has.
const BURST: usize = 44;

/// The rows of the table.
pub fn table(effort: Effort) -> Result<Vec<Value>> {
    let mut rows = Vec::new();
    for length in LENGTHS {
        let [seal, open] = direct(effort, length)?;
        rows.push(row("aws-lc-rs, called directly", "aes128gcm16", length, seal, open));
    }
    for (name, encr, integ) in SUITES {
        for length in LENGTHS {
            let [seal, open] = through_spi(effort, encr, integ, length)?;
            rows.push(row("soft, through the SPI", name, length, seal, open));
        }
    }
    Ok(rows)
}

fn row(engine: &str, suite: &str, octets: usize, seal: f64, open: f64) -> Value {
    json!({ "engine": engine, "suite": suite, "octets": octets, "seal": seal, "open": open })
}

fn direct(effort: Effort, length: usize) -> Result<[f64; 2]> {
    let key = UnboundKey::new(&AES_128_GCM, &[7; 16]).map_err(|_| anyhow!("no AES-128-GCM"))?;
    let key = LessSafeKey::new(key);
    let nonce = |n: usize| {
        let mut nonce = [0; 12];
        nonce.iter_mut().zip(n.to_be_bytes()).for_each(|(to, from)| *to = from);
        Nonce::assume_unique_for_key(nonce)
    };
    let aad = [1u8; 8];
    let mut packets = vec![vec![0x5a; length + ICV]; BURST];
    measure(effort, |laps| {
        laps.start();
        for (n, packet) in packets.iter_mut().enumerate() {
            let (text, icv) = packet.split_at_mut(length);
            let tag = key.seal_in_place_separate_tag(nonce(n), Aad::from(aad), text);
            icv.copy_from_slice(tag.map_err(|_| anyhow!("a packet is not sealed"))?.as_ref());
        }
        laps.lap(0);
        for (n, packet) in packets.iter_mut().enumerate() {
            key.open_in_place(nonce(n), Aad::from(aad), packet)
                .map_err(|_| anyhow!("a packet is not opened"))?;
        }
        laps.lap(1);
        Ok(BURST)
    })
}

fn through_spi(effort: Effort, encr: Encr, integ: Integ, length: usize) -> Result<[f64; 2]> {
    let mut engine = Engine::new(encr, integ)?;
    let pool = Pool::new(BURST * (length + 64), 1)?;
    let mut spare = pool.take();
    let info = encr.info().context("no such cipher")?;
    let icv = info.icv_len + integ.info().map_or(0, |info| info.icv_len);
    // CBC wants whole blocks and has an IV as long as one.
    let stride = 8 + info.iv_len + length + icv;
    let mut seq = 0;
    measure(effort, |laps| {
        let mut buf = spare.take().context("the pool is dry")?;
        buf.clear_ops();
        for n in 0..BURST {
            seq += 1;
            let op = EspOp::new((n * stride) as u32, length as u16, seq);
            buf.push_op(op).map_err(|_| anyhow!("a packet does not fit"))?;
        }
        laps.start();
        buf = engine.run(Direction::Seal, buf)?;
        laps.lap(0);
        buf.ops_mut().iter_mut().for_each(|op| op.outcome = Outcome::Pending);
        laps.start();
        buf = engine.run(Direction::Open, buf)?;
        laps.lap(1);
        spare = Some(buf);
        Ok(BURST)
    })
}

/// The device that is always there.
pub fn software() -> Result<Arc<dyn Device>> {
    let (mut opened, _) = registry::open_all(&registry::network_drivers(&registry::Config::default()));
    Ok(opened.pop().context("no device at all")?.device)
}

/// The software backend with one SA for each direction.
pub struct Engine {
    // The queue holds links into it.
    _device: Arc<dyn Device>,
    queue: Box<EspQueue>,
    seal: SaId,
    open: SaId,
    jobs: VecDeque<EspBurst>,
}

impl Engine {
    /// With keys of its own.
    pub fn new(encr: Encr, integ: Integ) -> Result<Engine> {
        let device = software()?;
        let queue = device.esp_queue(QueueConfig::default()).context("no queue for packets")?;
        let info = encr.info().context("no such cipher")?;
        let install = |dir| {
            let integ_len = integ.info().map_or(0, |info| info.key_len);
            let sa = SaParams {
                spi: SPI,
                dir,
                encr,
                integ,
                encr_key: Secret::new(vec![7; info.key_len + info.salt_len]),
                integ_key: Secret::new(vec![9; integ_len]),
                esn: false,
            };
            device.install_sa(&sa).map_err(|fault| anyhow!("no SA: {fault}"))
        };
        let (seal, open) = (install(Direction::Seal)?, install(Direction::Open)?);
        Ok(Engine { _device: device, queue, seal, open, jobs: VecDeque::new() })
    }

    /// One burst, there and back.
    ///
    /// # Errors
    /// An operation that did not succeed.
    pub fn run(&mut self, dir: Direction, buf: PacketBuf) -> Result<PacketBuf> {
        let sa = if dir == Direction::Seal { self.seal } else { self.open };
        self.jobs.push_back(EspBurst { token: Token(0), sa, dir, buf });
        self.queue.submit(&mut self.jobs)?;
        let mut done = None;
        while done.is_none() {
            self.queue.poll(1, &mut |burst: EspBurst| done = Some(burst.buf));
        }
        let buf = done.context("the burst did not come back")?;
        ensure!(buf.ops().iter().all(|op| op.outcome == Outcome::Done), "an operation failed");
        Ok(buf)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_the_table_is_measured() {
        let rows = table(Effort { trials: 1, trial: 10_000 }).unwrap();
        assert_eq!(rows.len(), 3 * 5);
        assert!(rows.iter().all(|row| row["seal"].as_f64().unwrap() > 0.0), "{rows:?}");
    }
}
