//! A driver whose instructions are carried out by the emulator, in this process.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]

use std::collections::VecDeque;
use std::sync::Arc;

use emu_padlock::{Emulator, Options};
use padlock::{Config, Padlock};
use spi::{
    Device, Direction, Driver, Encr, EspBurst, EspOp, EspQueue, Integ, PacketBuf, Pool, QueueConfig, SaId,
    SaParams, Secret, Token,
};

/// The emulator of this process, with all units.
pub fn emulator() -> &'static Emulator {
    Emulator::install(Options::default()).expect("this processor has no PadLock of its own")
}

/// A driver that uses all of them.
pub fn driver() -> Padlock {
    Padlock::new(Config { montmul: true, ..config() })
}

/// A driver as it is when nothing is said of it.
pub fn driver_without_montmul() -> Padlock {
    Padlock::new(config())
}

fn config() -> Config {
    let emulator = emulator();
    Config { cpuid: Box::new(move |leaf| emulator.leaf(leaf)), ..Config::new("padlock") }
}

/// Its device.
pub fn device() -> Arc<dyn Device> {
    let driver = driver();
    let desc = driver.probe().remove(0);
    driver.open(&desc).unwrap_or_else(|_| panic!("{:?}", driver.unusable()))
}

/// The device of the software backend.
pub fn soft() -> Arc<dyn Device> {
    soft::Soft::default().device()
}

/// Parameters with keys of counting octets.
pub fn params(dir: Direction, encr: Encr, integ: Integ, esn: bool) -> SaParams {
    let (e, i) = (encr.info().expect("in the table"), integ.info().expect("in the table"));
    let key = |len: usize, from: u8| Secret::new((0..len as u8).map(|n| n.wrapping_mul(7) ^ from).collect());
    SaParams {
        spi: 0x1234_5678,
        dir,
        encr,
        integ,
        encr_key: key(e.key_len + e.salt_len, 0x51),
        integ_key: key(i.key_len, 0xa2),
        esn,
    }
}

/// A packet queue and a buffer.
pub struct Lane {
    pub device: Arc<dyn Device>,
    queue: Box<EspQueue>,
    pool: Pool,
}

impl Lane {
    pub fn new(device: Arc<dyn Device>) -> Lane {
        let queue = device.esp_queue(QueueConfig::default()).expect("a ring");
        Lane { device, queue, pool: Pool::new(256 * 1024, 2).expect("memory") }
    }

    /// Runs one burst over these octets.
    pub fn run(&mut self, sa: SaId, dir: Direction, octets: &[u8], ops: &[EspOp]) -> PacketBuf {
        let mut buf = self.pool.take().expect("a buffer");
        buf.bytes_mut()[..octets.len()].copy_from_slice(octets);
        for op in ops {
            buf.push_op(EspOp { outcome: spi::Outcome::Pending, ..*op }).expect("room for it");
        }
        let mut jobs = VecDeque::from([EspBurst { token: Token(1), sa, dir, buf }]);
        assert_eq!(self.queue.submit(&mut jobs), Ok(1));
        let mut back = None;
        self.queue.poll(1, &mut |burst: EspBurst| back = Some(burst.buf));
        back.expect("it is done at once")
    }
}
