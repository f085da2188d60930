//! A ring under test, with its job type hidden: checks of the contract are the same for packets and for operations.

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use spi::{
    Closed, CryptoDone, CryptoJob, CryptoOp, Device, Direction, Driver, EspBurst, EspOp, FaultKind, Group,
    Health, Outcome, Polled, Pool, Queue, QueueConfig, SaId, SaParams, Secret, Token,
};

/// Longest time a device may take for a handful of cheap jobs before it is said to have lost them.
pub const DEADLINE: Duration = Duration::from_secs(15);

/// Octets of each packet's text in these checks.
const TEXT: u16 = 64;

/// A completion as a check sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Which job.
    pub token: Token,
    /// How it ended; of a burst, how its operations did, when all ended alike.
    pub outcome: Option<Outcome>,
}

/// A ring and a supply of cheap jobs for it.
pub trait Ring {
    /// "packets" or "operations".
    fn kind(&self) -> &'static str;
    /// Makes up to `count` new jobs, puts them behind those that did not fit before, and submits.
    fn offer(&mut self, count: usize) -> Result<usize, Closed>;
    /// Jobs that did not fit, front first.
    fn left(&self) -> Vec<Token>;
    /// One poll.
    fn poll(&mut self, budget: usize) -> (Polled, Vec<Seen>);
    /// See [`Queue::room`].
    fn room(&self) -> usize;
    /// See [`Queue::in_flight`].
    fn in_flight(&self) -> usize;
    /// See [`Queue::doorbell`].
    fn doorbell(&self) -> Option<BorrowedFd<'_>>;
    /// Buffers that are not at home, where the ring has buffers.
    fn away(&self) -> usize;
    /// Drops the queue and keeps the rest.
    fn close(&mut self);
    /// Prepares the jobs anew after a reset.
    fn reinstall(&mut self, device: &dyn Device);
    /// Removes what was installed for the jobs.
    fn release(&mut self, device: &dyn Device);

    /// Polls until nothing is out; gives what came.
    fn drain(&mut self) -> Vec<Seen> {
        let start = Instant::now();
        let mut all = Vec::new();
        while self.in_flight() > 0 {
            let (polled, seen) = self.poll(16);
            all.extend(seen);
            if polled.delivered == 0 {
                let out = self.in_flight();
                assert!(start.elapsed() < DEADLINE, "{}: {out} jobs have not come back", self.kind());
                std::thread::sleep(Duration::from_micros(50));
            }
        }
        all
    }
}

struct Lane<J: 'static, D: 'static> {
    kind: &'static str,
    queue: Option<Box<dyn Queue<Job = J, Done = D>>>,
    jobs: VecDeque<J>,
    next: u64,
    supply: Supply,
    make: fn(&Supply, Token) -> Option<J>,
    token: fn(&J) -> Token,
    see: fn(&D) -> Seen,
}

/// What jobs are made of.
struct Supply {
    pool: Option<(Pool, usize)>,
    sa: Option<SaId>,
    group: Option<Group>,
}

impl<J, D> Lane<J, D> {
    fn queue(&self) -> &dyn Queue<Job = J, Done = D> {
        self.queue.as_deref().expect("the queue is open")
    }
}

impl<J, D> Ring for Lane<J, D> {
    fn kind(&self) -> &'static str {
        self.kind
    }

    fn offer(&mut self, count: usize) -> Result<usize, Closed> {
        for _ in 0..count {
            // A dry pool ends it: every buffer is in the ring or waits before it.
            let Some(job) = (self.make)(&self.supply, Token(self.next)) else { break };
            self.next += 1;
            self.jobs.push_back(job);
        }
        self.queue.as_deref_mut().expect("the queue is open").submit(&mut self.jobs)
    }

    fn left(&self) -> Vec<Token> {
        self.jobs.iter().map(self.token).collect()
    }

    fn poll(&mut self, budget: usize) -> (Polled, Vec<Seen>) {
        let (mut all, see) = (Vec::new(), self.see);
        let queue = self.queue.as_deref_mut().expect("the queue is open");
        let polled = queue.poll(budget, &mut |done: D| all.push(see(&done)));
        (polled, all)
    }

    fn room(&self) -> usize {
        self.queue().room()
    }

    fn in_flight(&self) -> usize {
        self.queue().in_flight()
    }

    fn doorbell(&self) -> Option<BorrowedFd<'_>> {
        self.queue().doorbell()
    }

    fn away(&self) -> usize {
        self.supply.pool.as_ref().map_or(0, |(pool, all)| all - pool.available())
    }

    fn close(&mut self) {
        self.jobs.clear();
        self.queue = None;
    }

    fn reinstall(&mut self, device: &dyn Device) {
        if self.supply.sa.is_some() {
            self.supply.sa = Some(install_any(device));
        }
    }

    fn release(&mut self, device: &dyn Device) {
        if let Some(sa) = self.supply.sa {
            device.remove_sa(sa);
        }
    }
}

fn make_burst(supply: &Supply, token: Token) -> Option<EspBurst> {
    let (pool, _) = supply.pool.as_ref()?;
    let mut buf = pool.take()?;
    // One to three packets, so that bursts are not all alike.
    for n in 0..=(token.0 % 3) as u32 {
        buf.push_op(EspOp::new(n * 256, TEXT, token.0 * 4 + u64::from(n))).ok()?;
    }
    Some(EspBurst { token, sa: supply.sa?, dir: Direction::Seal, buf })
}

fn see_burst(done: &EspBurst) -> Seen {
    let first = done.buf.ops().first().map(|op| op.outcome);
    let alike = done.buf.ops().iter().all(|op| Some(op.outcome) == first);
    Seen { token: done.token, outcome: first.filter(|_| alike) }
}

fn make_op(supply: &Supply, token: Token) -> Option<CryptoJob> {
    let op = match supply.group {
        Some(group) => CryptoOp::DhGenerate { group },
        None => CryptoOp::Random { len: 32 },
    };
    Some(CryptoJob { token, op })
}

fn see_op(done: &CryptoDone) -> Seen {
    Seen { token: done.token, outcome: Some(done.outcome) }
}

/// Every ring a device has, of about `depth` jobs.
pub fn rings(device: &dyn Device, depth: usize) -> Vec<Box<dyn Ring>> {
    let config = QueueConfig { depth, cpu: None };
    let caps = &device.desc().caps;
    let mut list: Vec<Box<dyn Ring>> = Vec::new();
    if let Some(queue) = device.esp_queue(config).filter(|_| !caps.esp.is_empty()) {
        let count = depth * 2 + 64;
        let pool = Pool::new(1024, count).expect("memory for a pool");
        device.register(pool.region()).expect("the device maps a pool");
        let supply = Supply { pool: Some((pool, count)), sa: Some(install_any(device)), group: None };
        list.push(Box::new(Lane {
            kind: "packets",
            queue: Some(queue),
            jobs: VecDeque::new(),
            next: 1,
            supply,
            make: make_burst,
            token: |job| job.token,
            see: see_burst,
        }));
    }
    if let Some(queue) = device.crypto_queue(config) {
        let cheap = [Group::X25519, Group::ECP256, Group::ECP384, Group::MODP2048];
        let group = cheap.into_iter().find(|group| caps.dh.contains(group));
        list.push(Box::new(Lane {
            kind: "operations",
            queue: Some(queue),
            jobs: VecDeque::new(),
            next: 1,
            supply: Supply { pool: None, sa: None, group },
            make: make_op,
            token: |job| job.token,
            see: see_op,
        }));
    }
    list
}

/// Opens every device a driver finds; none at all is a failure, since then nothing would be checked.
pub fn devices(driver: &dyn Driver) -> Vec<std::sync::Arc<dyn Device>> {
    let found = driver.probe();
    assert!(!found.is_empty(), "{} finds no device", driver.name());
    found.iter().map(|desc| driver.open(desc).expect("a device that was found opens")).collect()
}

/// Waits for the end of a reset.
pub fn wait_until_ready(device: &dyn Device) {
    let start = Instant::now();
    while device.health() != Health::Ready {
        assert_ne!(device.health(), Health::Failed, "the device did not recover");
        assert!(start.elapsed() < DEADLINE, "the reset does not end");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// An outbound SA with the first transform the device declares. A device that somebody else is resetting is given time.
pub fn install_any(device: &dyn Device) -> SaId {
    let start = Instant::now();
    let cap = *device.desc().caps.esp.first().expect("the device carries packets");
    loop {
        match device.install_sa(&params(&cap, Direction::Seal, false, 1)) {
            Ok(sa) => return sa,
            Err(fault) => {
                let reset = fault.kind == FaultKind::Aborted && start.elapsed() < DEADLINE;
                assert!(reset, "a declared transform is not installed: {fault}");
            }
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Parameters for a declared transform; the key follows from `seed`.
pub fn params(cap: &spi::caps::EspCap, dir: Direction, esn: bool, seed: u64) -> SaParams {
    let (encr, integ) = (cap.encr.info().expect("in the table"), cap.integ.info().expect("in the table"));
    let mut seeded = crate::seed::Seeded::new(seed);
    let mut key = |len| {
        let mut octets = vec![0; len];
        seeded.fill(&mut octets);
        Secret::new(octets)
    };
    SaParams {
        spi: 0x0100_0000 | seed as u32 & 0xff_ffff,
        dir,
        encr: cap.encr,
        integ: cap.integ,
        encr_key: key(encr.key_len + encr.salt_len),
        integ_key: key(integ.key_len),
        esn,
    }
}

/// Whether an outcome is a fault of this kind.
pub fn is_fault(outcome: Option<Outcome>, kind: FaultKind) -> bool {
    matches!(outcome, Some(Outcome::Failed(fault)) if fault.kind == kind)
}
