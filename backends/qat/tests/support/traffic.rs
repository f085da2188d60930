//! Packets and operations on one card, counted: every job comes home once, whatever happens meanwhile.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use emu_qat::{Card, Options, Personality};
use qat::Config;
use spi::mem::{Wish, grant};
use spi::{
    CryptoDone, CryptoJob, CryptoOp, CryptoQueue, Device, Direction, Encr, EspBurst, EspOp, EspQueue,
    FaultKind, Group, Health, Integ, Outcome, Pool, QueueConfig, SaId, SaParams, Secret, Token,
};

use super::InProcess;

/// When a test is said to hang. Far beyond anything that a busy machine does.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

pub(crate) const BUFFERS: usize = 256;
const TEXT: u16 = 200;

/// How jobs ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) done: u64,
    pub(crate) aborted: u64,
    pub(crate) stale: u64,
    /// The card said that it could not do it, or its result was found wrong.
    pub(crate) failed: u64,
    pub(crate) rejected: u64,
}

impl Tally {
    fn note(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Done => self.done += 1,
            Outcome::Rejected(_) => self.rejected += 1,
            Outcome::Failed(fault) => match fault.kind {
                FaultKind::Aborted => self.aborted += 1,
                FaultKind::StaleHandle => self.stale += 1,
                _ => self.failed += 1,
            },
            Outcome::Pending => panic!("a job came back undecided"),
        }
    }
}

pub(crate) struct Traffic {
    pub(crate) card: Card,
    pub(crate) device: Arc<dyn Device>,
    pub(crate) packets: Box<EspQueue>,
    pub(crate) operations: Box<CryptoQueue>,
    pub(crate) pool: Pool,
    sa: Option<SaId>,
    out: HashMap<u64, usize>,
    next: u64,
    pub(crate) packet_tally: Tally,
    pub(crate) operation_tally: Tally,
}

pub(crate) fn params(dir: Direction) -> SaParams {
    SaParams {
        spi: 0x1234_5678,
        dir,
        encr: Encr::AES128_GCM16,
        integ: Integ::NONE,
        encr_key: Secret::new((0..20).collect()),
        integ_key: Secret::new(Vec::new()),
        esn: true,
    }
}

/// Settings that notice soon what does not come back.
pub(crate) fn hasty() -> Config {
    let mut config = Config::default();
    config.packet_patience = 40;
    config.operation_patience = 100;
    config.probe_after = 20;
    config
}

impl Traffic {
    pub(crate) fn new(personality: Personality, options: &Options, config: &Config) -> Traffic {
        grant(Wish::File);
        let card = Card::running(personality, options).unwrap();
        let device = qat::attach("card", Arc::new(InProcess(card.clone())), config).unwrap();
        Traffic::on(card, device)
    }

    pub(crate) fn on(card: Card, device: Arc<dyn Device>) -> Traffic {
        let pool = Pool::new(32 * 256, BUFFERS).unwrap();
        device.register(pool.region()).unwrap();
        let packets = device.esp_queue(QueueConfig::default()).unwrap();
        let operations = device.crypto_queue(QueueConfig { depth: 16, cpu: None }).unwrap();
        Traffic {
            card,
            device,
            packets,
            operations,
            pool,
            sa: None,
            out: HashMap::new(),
            next: 0,
            packet_tally: Tally::default(),
            operation_tally: Tally::default(),
        }
    }

    /// Submits what there is room for, up to a few jobs, and polls once.
    pub(crate) fn round(&mut self) {
        if self.sa.is_none() && self.device.health() == Health::Ready {
            self.sa = self.device.install_sa(&params(Direction::Seal)).ok();
        }
        if let Some(sa) = self.sa {
            let mut jobs = VecDeque::new();
            for _ in 0..self.packets.room().min(3) {
                let Some(mut buf) = self.pool.take() else { break };
                let count = 1 + self.next as usize % 32;
                for n in 0..count {
                    buf.push_op(EspOp::new(n as u32 * 256, TEXT, self.next << 5 | n as u64)).unwrap();
                }
                jobs.push_back(EspBurst { token: self.token(count), sa, dir: Direction::Seal, buf });
            }
            let _ = self.packets.submit(&mut jobs);
            self.forget(jobs.iter().map(|job| job.token));
        }
        let mut jobs = VecDeque::new();
        if self.operations.room() > 0 && self.operations.in_flight() < 2 {
            let token = self.token(1);
            jobs.push_back(CryptoJob { token, op: CryptoOp::DhGenerate { group: Group::ECP256 } });
        }
        let _ = self.operations.submit(&mut jobs);
        self.forget(jobs.iter().map(|job| job.token));
        self.poll();
    }

    fn token(&mut self, parts: usize) -> Token {
        self.next += 1;
        self.out.insert(self.next, parts);
        Token(self.next)
    }

    /// Jobs that were not taken.
    fn forget(&mut self, tokens: impl Iterator<Item = Token>) {
        for token in tokens {
            self.out.remove(&token.0);
        }
    }

    pub(crate) fn poll(&mut self) {
        let (out, tally, sa) = (&mut self.out, &mut self.packet_tally, &mut self.sa);
        let polled = self.packets.poll(64, &mut |burst: EspBurst| {
            assert_eq!(
                out.remove(&burst.token.0),
                Some(burst.buf.ops().len()),
                "{:?} came back twice",
                burst.token
            );
            for op in burst.buf.ops() {
                tally.note(op.outcome);
                if op.outcome == Outcome::Failed(FaultKind::StaleHandle.into()) && *sa == Some(burst.sa) {
                    *sa = None;
                }
            }
        });
        let tally = &mut self.operation_tally;
        let also = self.operations.poll(64, &mut |done: CryptoDone| {
            assert!(out.remove(&done.token.0).is_some(), "{:?} came back twice", done.token);
            tally.note(done.outcome);
        });
        if polled.delivered + also.delivered == 0 {
            std::thread::sleep(Duration::from_micros(100));
        }
    }

    /// Goes on until something is so.
    pub(crate) fn run_until(&mut self, what: &str, is_so: impl Fn(&Traffic) -> bool) {
        let start = Instant::now();
        while !is_so(self) {
            assert!(start.elapsed() < LIMIT, "{what} does not happen: {}", self.state());
            self.round();
        }
    }

    /// Waits for everything that is out; afterwards everything is home.
    pub(crate) fn drain(&mut self) {
        let start = Instant::now();
        while self.packets.in_flight() + self.operations.in_flight() > 0 {
            assert!(start.elapsed() < LIMIT, "jobs have not come back: {}", self.state());
            self.poll();
        }
        assert!(self.out.is_empty(), "jobs were lost: {:?}", self.out);
        assert_eq!(self.pool.available(), BUFFERS, "buffers are not at home");
    }

    /// A counter of the driver's.
    pub(crate) fn counter(&self, name: &str) -> u64 {
        let stats = self.device.stats().unwrap();
        stats
            .counters
            .iter()
            .find(|(known, _)| *known == name)
            .unwrap_or_else(|| panic!("no counter {name}"))
            .1
    }

    pub(crate) fn state(&self) -> String {
        format!(
            "{:?}, packets {:?}, operations {:?}, {:?}, card: {}",
            self.device.health(),
            self.packet_tally,
            self.operation_tally,
            self.device.stats(),
            self.card.counters()
        )
    }
}
