//! What the driver costs by itself: CPU time of `submit` and of `poll`, per packet, over an emulated card whose own work is left out.
//!
//! The card stands still while the driver is measured. What the driver writes to registers is kept and passed on afterwards, so a
//! doorbell costs what storing a word costs, which is about what it costs on a bus that takes writes without waiting.
//!
//! ```text
//! cargo run --release -p tussock-qat --example overhead [octets of a packet]
//! ```
#![allow(clippy::unwrap_used)]

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use emu_qat::{Card, Interrupt, Options, Personality};
use qat::{Config, Memory, PciError, PciFunction};
use rustix::time::{ClockId, clock_gettime};
use spi::{
    Device, Direction, Encr, EspBurst, EspOp, Integ, Outcome, Pool, QueueConfig, SaParams, Secret, Token,
};

const PACKETS: usize = 32;
const ROUNDS: usize = 400;

/// A card in this process that hears of register writes only when it is told.
struct Posted {
    card: Card,
    writes: Mutex<Vec<(u8, u32, u32)>>,
    waits: AtomicBool,
}

impl Posted {
    fn pass_on(&self) {
        for (bar, at, value) in self.writes.lock().unwrap().drain(..) {
            self.card.write32(bar, at, value);
        }
    }
}

fn wrong(error: impl std::fmt::Debug) -> PciError {
    PciError::Protocol(format!("{error:?}"))
}

impl PciFunction for Posted {
    fn config_read(&self, at: u16, into: &mut [u8]) -> Result<(), PciError> {
        self.card.read_config(at, into);
        Ok(())
    }

    fn config_write(&self, at: u16, octets: &[u8]) -> Result<(), PciError> {
        self.card.write_config(at, octets);
        Ok(())
    }

    fn bar_len(&self, bar: u8) -> u64 {
        self.card.bar_len(bar)
    }

    fn read(&self, bar: u8, at: u32) -> u32 {
        self.card.read32(bar, at)
    }

    fn write(&self, bar: u8, at: u32, value: u32) {
        if self.waits.load(Ordering::Relaxed) {
            self.writes.lock().unwrap().push((bar, at, value));
        } else {
            self.card.write32(bar, at, value);
        }
    }

    fn map(&self, iova: u64, memory: &Memory<'_>) -> Result<(), PciError> {
        let file = memory.file.unwrap().try_clone_to_owned().map_err(wrong)?;
        self.card.map(iova, file, 0, memory.len as u64).map_err(wrong)
    }

    fn unmap(&self, iova: u64, len: usize) -> Result<(), PciError> {
        self.card.unmap(iova, len as u64).map_err(wrong)
    }

    fn iovas(&self) -> Vec<RangeInclusive<u64>> {
        vec![0..=u64::MAX]
    }

    fn interrupt(&self, bell: Option<BorrowedFd<'_>>) -> Result<(), PciError> {
        let bell = bell.map(|bell| bell.try_clone_to_owned().unwrap());
        self.card.connect(Interrupt::Msi, bell).map_err(wrong)
    }

    fn reset(&self) -> Result<(), PciError> {
        self.card.reset();
        Ok(())
    }
}

fn cpu_ns() -> u64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// What asking for the time costs, which is in every figure otherwise.
fn clock_ns() -> u64 {
    let mut costs: Vec<u64> = (0..1000)
        .map(|_| {
            let start = cpu_ns();
            cpu_ns() - start
        })
        .collect();
    costs.sort_unstable();
    costs[costs.len() / 2]
}

/// Medians of nanoseconds per packet: submitting, polling.
struct Cost(f64, f64);

/// Puts `bursts` bursts of `packets` packets out at a time.
fn measure(
    function: &Posted,
    device: &dyn Device,
    (encr, integ, dir): (Encr, Integ, Direction),
    (bursts, packets): (usize, usize),
    len: u16,
) -> Cost {
    let (encr_info, integ_info) = (encr.info().unwrap(), integ.info().unwrap());
    let sa = device
        .install_sa(&SaParams {
            spi: 0x1234_5678,
            dir,
            encr,
            integ,
            encr_key: Secret::new(vec![7; encr_info.key_len + encr_info.salt_len]),
            integ_key: Secret::new(vec![9; integ_info.key_len]),
            esn: true,
        })
        .unwrap();
    let place = (usize::from(len) + 128).next_multiple_of(64);
    let pool = Pool::new(place * packets, bursts).unwrap();
    device.register(pool.region()).unwrap();
    let mut queue = device.esp_queue(QueueConfig { depth: bursts, cpu: None }).unwrap();
    let (mut jobs, mut done) = (VecDeque::new(), Vec::new());
    let (mut submitting, mut polling) = (Vec::new(), Vec::new());
    let mut seq = 0;
    for _ in 0..ROUNDS {
        for token in 0..bursts {
            let mut buf = pool.take().unwrap();
            for n in 0..packets {
                seq += 1;
                buf.push_op(EspOp::new((n * place) as u32, len, seq)).unwrap();
            }
            jobs.push_back(EspBurst { token: Token(token as u64), sa, dir, buf });
        }
        function.waits.store(true, Ordering::Relaxed);
        let start = cpu_ns();
        queue.submit(&mut jobs).unwrap();
        submitting.push(cpu_ns() - start);
        function.waits.store(false, Ordering::Relaxed);
        function.pass_on();
        assert!(jobs.is_empty(), "the ring is too small");
        function.card.advance(Duration::from_millis(20));
        function.waits.store(true, Ordering::Relaxed);
        let start = cpu_ns();
        while queue.in_flight() > 0 {
            queue.poll(bursts, &mut |burst: EspBurst| done.push(burst));
        }
        polling.push(cpu_ns() - start);
        function.waits.store(false, Ordering::Relaxed);
        function.pass_on();
        for burst in done.drain(..) {
            let fine = |op: &EspOp| op.outcome == Outcome::Done || dir == Direction::Open;
            assert!(burst.buf.ops().iter().all(fine), "{:?}", burst.buf.ops()[0].outcome);
        }
    }
    device.remove_sa(sa);
    let clock = clock_ns();
    let median = |mut all: Vec<u64>| {
        all.sort_unstable();
        all[all.len() / 2].saturating_sub(clock) as f64 / (bursts * packets) as f64
    };
    Cost(median(submitting), median(polling))
}

fn main() {
    let len: u16 = std::env::args().nth(1).and_then(|arg| arg.parse().ok()).unwrap_or(64);
    let len = len.next_multiple_of(16);
    spi::mem::grant(spi::mem::Wish::File);
    let mut config = Config::default();
    (config.packet_patience, config.operation_patience, config.probe_after) = (u32::MAX, u32::MAX, u32::MAX);
    println!(
        "CPU time per packet of {len} octets, ns, medians of {ROUNDS} rounds; the card's own work is left out, and the clock's"
    );
    println!("{:<6} {:<34} {:>8} {:>8} {:>8}", "card", "what", "submit", "poll", "sum");
    for personality in [Personality::Vf4941, Personality::Vf37c9] {
        let card = Card::stepped(personality, &Options::default());
        let function = Arc::new(Posted { card, writes: Mutex::default(), waits: AtomicBool::new(false) });
        let opening = AtomicBool::new(true);
        let device = std::thread::scope(|threads| {
            threads.spawn(|| {
                while opening.load(Ordering::Acquire) {
                    function.card.advance(Duration::from_micros(20));
                    std::thread::yield_now();
                }
            });
            let device = qat::attach("card", Arc::clone(&function) as Arc<dyn PciFunction>, &config);
            opening.store(false, Ordering::Release);
            device.unwrap()
        });
        let gcm = (Encr::AES256_GCM16, Integ::NONE, Direction::Seal);
        let cbc = (Encr::AES256_CBC, Integ::HMAC_SHA2_256_128, Direction::Seal);
        for (what, transform, shape) in [
            ("aes256gcm16, bursts of 32", gcm, (16, PACKETS)),
            ("aes256gcm16, 32 bursts of one", gcm, (PACKETS, 1)),
            ("aes256-sha256, bursts of 32", cbc, (16, PACKETS)),
        ] {
            let Cost(submit, poll) = measure(&function, &*device, transform, shape, len);
            println!(
                "{:<6} {what:<34} {submit:>8.1} {poll:>8.1} {:>8.1}",
                personality.to_string(),
                submit + poll
            );
        }
    }
}
