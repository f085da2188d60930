//! What a device costs: throw-away packets are run through a ring of its own, and the thread's CPU time is taken.
//!
//! 1. [`Meter::new`] opens a ring and a pool; [`Meter::install`] installs an SA both ways.
//! 2. [`Meter::measure`] runs rounds of one [`Load`]: all bursts sealed, all opened again, then one burst alone each way.
//! 3. What comes out is the median of the rounds.
//!
//! CPU time is that of the calling thread while it submits and polls. While nothing comes back it waits, and that time is not
//! counted: it is the caller's to spend on something else. A device that computes at once is thereby charged for the whole of
//! its work, and a card for its descriptors. Nothing here knows which of two costs is the better one.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::time::{ClockId, clock_gettime};

use crate::alg::{Encr, Integ};
use crate::buf::{PacketBuf, Pool};
use crate::device::{Device, QueueConfig};
use crate::esp::{Direction, EspBurst, EspOp, EspQueue, MAX_OPS, SaId, SaParams};
use crate::inflight::Token;
use crate::outcome::{Fault, FaultKind, Outcome};
use crate::secret::Secret;

/// The packets of one measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Load {
    /// Octets of text in each packet, trailer included; made whole blocks where the transform wants that.
    pub text: u16,
    /// Packets in each burst, 1 to [`MAX_OPS`], and no more than fit 128 KiB.
    pub burst: u16,
}

/// How much work a measurement may be.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Packets in one round, each way; at least one burst is run.
    pub packets: usize,
    /// Rounds, of which the median is taken.
    pub rounds: usize,
    /// Whether to measure the latency, too: one burst more in each round, each way.
    pub latency: bool,
    /// Longest time a burst may take to come back before the device is said to have lost it.
    pub patience: Duration,
}

impl Default for Effort {
    fn default() -> Self {
        Effort { packets: 256, rounds: 11, latency: true, patience: Duration::from_secs(1) }
    }
}

/// What one direction costs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    /// CPU time of the calling thread, nanoseconds per packet.
    pub cpu_ns: f64,
    /// Time from the submission of a burst, with nothing else out, to its completion, nanoseconds; 0 when not measured.
    pub latency_ns: f64,
}

/// What both directions cost.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Costs {
    /// Sealing.
    pub seal: Cost,
    /// Opening.
    pub open: Cost,
}

impl Costs {
    /// The median of each value for itself; zeroes of no rounds.
    pub fn median(rounds: &[Costs]) -> Costs {
        Self::of(rounds, |values| values.len() / 2)
    }

    /// The least of each value for itself; zeroes of no rounds.
    pub fn least(rounds: &[Costs]) -> Costs {
        Self::of(rounds, |_| 0)
    }

    fn of(rounds: &[Costs], which: fn(&[f64]) -> usize) -> Costs {
        let value = |of: fn(&Costs) -> f64| {
            let mut all: Vec<f64> = rounds.iter().map(of).collect();
            all.sort_by(f64::total_cmp);
            all.get(which(&all)).copied().unwrap_or_default()
        };
        Costs {
            seal: Cost { cpu_ns: value(|c| c.seal.cpu_ns), latency_ns: value(|c| c.seal.latency_ns) },
            open: Cost { cpu_ns: value(|c| c.open.cpu_ns), latency_ns: value(|c| c.open.latency_ns) },
        }
    }
}

/// Octets of a burst at most.
const BURST: usize = 128 * 1024;
/// Bursts in flight at most.
const BURSTS: usize = 64;
/// Octets in flight at most: more would measure the memory.
const IN_FLIGHT: usize = 256 * 1024;
/// Room for header, IV and ICV of any transform, and for a packet to begin on a cache line.
const AROUND: usize = 128;
/// How long to sleep when nothing came back and the device has no doorbell.
const NAP: Duration = Duration::from_micros(10);

/// A ring, a pool and an SA both ways on a device. Dropping it removes the SAs. One whose device has failed it is done for, since
/// it may get back late what it does not wait for any more.
pub struct Meter<'a> {
    device: &'a dyn Device,
    queue: Box<EspQueue>,
    bufs: Vec<PacketBuf>,
    pair: Option<Pair>,
    /// Sequence number and token of the next packet.
    next: u64,
    clock_ns: f64,
    failed: Option<Fault>,
}

struct Pair {
    seal: SaId,
    open: SaId,
    block: usize,
}

/// What one round is made of.
#[derive(Clone, Copy)]
struct Shape {
    bursts: usize,
    /// Packets in each.
    burst: usize,
    /// Octets of text in each packet.
    text: usize,
    /// Octets from one packet to the next.
    slot: usize,
}

/// Bursts that came back.
struct Passed {
    bufs: Vec<PacketBuf>,
    cpu_ns: f64,
    wall_ns: f64,
}

impl<'a> Meter<'a> {
    /// Opens a ring and makes a pool the device can reach.
    ///
    /// # Errors
    /// [`FaultKind::Unsupported`] when the device has no ring for packets, [`FaultKind::Exhausted`] when there is no memory.
    pub fn new(device: &'a dyn Device) -> Result<Self, Fault> {
        let queue = device.esp_queue(QueueConfig::default()).ok_or(FaultKind::Unsupported)?;
        let pool = Pool::new(BURST, BURSTS).map_err(|_| FaultKind::Exhausted)?;
        device.register(pool.region())?;
        let bufs = std::iter::from_fn(|| pool.take()).collect();
        Ok(Meter { device, queue, bufs, pair: None, next: 1, clock_ns: clock_cost(), failed: None })
    }

    /// Installs an SA of these transforms both ways, with a key that protects nothing, in place of the one before.
    ///
    /// # Errors
    /// What the device says.
    pub fn install(&mut self, encr: Encr, integ: Integ, esn: bool) -> Result<(), Fault> {
        self.remove();
        let info = encr.info().ok_or(FaultKind::Unsupported)?;
        let integ_info = integ.info().ok_or(FaultKind::Unsupported)?;
        let install = |dir| {
            self.device.install_sa(&SaParams {
                spi: 0x7e57_0001,
                dir,
                encr,
                integ,
                encr_key: Secret::new(vec![0x5a; info.key_len + info.salt_len]),
                integ_key: Secret::new(vec![0xa5; integ_info.key_len]),
                esn,
            })
        };
        let seal = install(Direction::Seal)?;
        let open = install(Direction::Open).inspect_err(|_| self.device.remove_sa(seal))?;
        self.pair = Some(Pair { seal, open, block: info.block });
        Ok(())
    }

    /// The medians over the rounds of one load.
    ///
    /// # Errors
    /// [`FaultKind::Unsupported`] when nothing is installed or the load is too large; what a packet failed with;
    /// [`FaultKind::Internal`] when one was refused or did not come back.
    pub fn measure(&mut self, load: Load, effort: Effort) -> Result<Costs, Fault> {
        let rounds = (0..effort.rounds.max(1)).map(|_| self.round(load, effort));
        Ok(Costs::median(&rounds.collect::<Result<Vec<_>, _>>()?))
    }

    fn round(&mut self, load: Load, effort: Effort) -> Result<Costs, Fault> {
        let pair = self.pair.as_ref().ok_or(FaultKind::Unsupported)?;
        let burst = usize::from(load.burst).clamp(1, MAX_OPS);
        let text = (usize::from(load.text) / pair.block).max(1) * pair.block;
        let slot = (text + AROUND).next_multiple_of(64);
        if burst * slot > BURST {
            return Err(FaultKind::Unsupported.into());
        }
        if let Some(fault) = self.failed {
            return Err(fault);
        }
        let most = (IN_FLIGHT / (slot * burst)).clamp(1, BURSTS);
        let bursts = (effort.packets / burst).clamp(1, most);
        let shape = Shape { bursts, burst, text, slot };
        self.run(shape, effort).inspect_err(|fault| self.failed = Some(*fault))
    }

    fn run(&mut self, shape: Shape, effort: Effort) -> Result<Costs, Fault> {
        // The same ones every time: only the first round meets memory that was never touched.
        let rest = self.bufs.split_off(shape.bursts.min(self.bufs.len()));
        let mut bufs = std::mem::replace(&mut self.bufs, rest);
        for (n, buf) in bufs.iter_mut().enumerate() {
            self.next += lay_out(buf, n, shape, self.next);
        }
        let packets = (bufs.len() * shape.burst) as f64;
        let seal = self.pass(Direction::Seal, bufs, effort.patience)?;
        let open = self.pass(Direction::Open, seal.bufs, effort.patience)?;
        let mut costs = Costs {
            seal: Cost { cpu_ns: seal.cpu_ns / packets, latency_ns: 0.0 },
            open: Cost { cpu_ns: open.cpu_ns / packets, latency_ns: 0.0 },
        };
        let mut bufs = open.bufs;
        if effort.latency {
            // One of them goes once more, alone.
            let mut lone = bufs.split_off(bufs.len().saturating_sub(1));
            for buf in &mut lone {
                self.next += lay_out(buf, 0, shape, self.next);
            }
            let seal = self.pass(Direction::Seal, lone, effort.patience)?;
            let open = self.pass(Direction::Open, seal.bufs, effort.patience)?;
            (costs.seal.latency_ns, costs.open.latency_ns) = (seal.wall_ns, open.wall_ns);
            bufs.extend(open.bufs);
        }
        self.bufs.splice(0..0, bufs);
        Ok(costs)
    }

    /// Runs bursts to their end.
    fn pass(&mut self, dir: Direction, bufs: Vec<PacketBuf>, patience: Duration) -> Result<Passed, Fault> {
        let pair = self.pair.as_ref().ok_or(FaultKind::Unsupported)?;
        let sa = if dir == Direction::Seal { pair.seal } else { pair.open };
        let mut jobs = VecDeque::with_capacity(bufs.len());
        for mut buf in bufs {
            buf.ops_mut().iter_mut().for_each(|op| op.outcome = Outcome::Pending);
            jobs.push_back(EspBurst { token: Token(self.next), sa, dir, buf });
            self.next += 1;
        }
        let mut done = Vec::with_capacity(jobs.len());
        let count = jobs.len();
        let mut idle_ns = 0.0;
        let cpu_start = cpu_ns();
        let start = Instant::now();
        while done.len() < count {
            if !jobs.is_empty() {
                self.queue.submit(&mut jobs).map_err(|_| FaultKind::Aborted)?;
            }
            if self.queue.poll(usize::MAX, &mut |burst: EspBurst| done.push(burst.buf)).delivered == 0 {
                let idle_start = cpu_ns();
                self.wait();
                idle_ns += cpu_ns() - idle_start + self.clock_ns;
                if start.elapsed() > patience {
                    return Err(FaultKind::Internal.into());
                }
            }
        }
        let wall_ns = start.elapsed().as_nanos() as f64;
        let cpu_ns = (cpu_ns() - cpu_start - idle_ns - self.clock_ns).max(0.0);
        for op in done.iter().flat_map(PacketBuf::ops) {
            match op.outcome {
                Outcome::Done => {}
                Outcome::Failed(fault) => return Err(fault),
                Outcome::Pending | Outcome::Rejected(_) => return Err(FaultKind::Internal.into()),
            }
        }
        Ok(Passed { bufs: done, cpu_ns, wall_ns })
    }

    /// Sleeps until the bell rings, or for a moment where there is none.
    fn wait(&self) {
        let Some(bell) = self.queue.doorbell() else { return std::thread::sleep(NAP) };
        let longest = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };
        // However it ends, the queue is polled next.
        let _ = poll(&mut [PollFd::new(&bell, PollFlags::IN)], Some(&longest));
    }

    fn remove(&mut self) {
        if let Some(pair) = self.pair.take() {
            self.device.remove_sa(pair.seal);
            self.device.remove_sa(pair.open);
        }
    }
}

impl Drop for Meter<'_> {
    fn drop(&mut self) {
        self.remove();
    }
}

/// Puts a burst into a buffer, ready to be sealed, and returns how many packets it has. The buffers lie a power of two apart, so
/// packets at equal offsets would all fall into the same few lines of the cache: each buffer has an offset of its own.
fn lay_out(buf: &mut PacketBuf, n: usize, shape: Shape, seq: u64) -> u64 {
    let Shape { burst, text, slot, .. } = shape;
    buf.clear_ops();
    let slots = buf.capacity() / slot;
    let first = n * burst % (slots.saturating_sub(burst) + 1);
    let fits = |i: &usize| {
        buf.push_op(EspOp::new(((first + i) * slot) as u32, text as u16, seq + *i as u64)).is_ok()
    };
    let count = (0..burst).take_while(fits).count();
    // A text of no interest, but a text: memory that was never written to costs a fault at the first touch.
    if let Some(bytes) = buf.bytes_mut().get_mut(first * slot..(first + count) * slot) {
        bytes.fill(0x33);
    }
    count as u64
}

/// CPU time of this thread.
fn cpu_ns() -> f64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec as f64 * 1e9 + now.tv_nsec as f64
}

/// What looking at the clocks costs in each pass.
fn clock_cost() -> f64 {
    const LOOKS: usize = 32;
    let start = cpu_ns();
    for _ in 0..LOOKS {
        let began = Instant::now();
        std::hint::black_box((cpu_ns(), began.elapsed()));
    }
    (cpu_ns() - start) / LOOKS as f64
}
