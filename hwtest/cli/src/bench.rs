//! `bench`: packets and operations in a second, CPU time, and latency by percentiles; by size, burst and depth.
//!
//! So many bursts as the depth says are kept out all the time. A latency is that of a burst, from its submission to its delivery; with more
//! than one out, it has the wait behind the others in it. CPU time is that of the calling thread while it is not asleep: the one figure here
//! that a busy machine does not change.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;
use spi::caps::EspCap;
use spi::esp::MAX_OPS;
use spi::stats::{Histogram, Latency};
use spi::{
    CryptoDone, CryptoJob, CryptoOp, CryptoOutput, Device, DhPrivate, Direction, EspBurst, EspOp, Health,
    Outcome, PacketBuf, Pool, Queue, QueueConfig, Token,
};

use crate::judge::bar;
use crate::plot::{self, Chart, Series};
use crate::target::Opened;
use crate::{Target, code, table};

/// Octets of text in packets.
const SIZES: [usize; 6] = [64, 256, 576, 1408, 4096, 9000];
/// Packets in a burst.
const BURSTS: [usize; 3] = [1, 8, 32];
/// Bursts out at a time.
const DEPTHS: [usize; 4] = [1, 4, 16, 64];
/// Where the transforms are compared with each other.
const USUAL: Shape = Shape { size: 1408, burst: 32, depth: 4 };
/// Whose curves are of most use to a reader, best first.
const FAVOURITES: [&str; 5] =
    ["aes128gcm16", "aes256gcm16", "chacha20poly1305", "aes128-sha256", "aes128ctr-sha256"];
/// Parts of the time at one point, for each of which the rate is taken.
const SLICES: u32 = 9;
/// How long nothing may come back.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    pub(crate) effort: Effort,
    /// Folder for the plots (SVG and PNG) and bench.json.
    #[arg(long, value_name = "FOLDER", default_value = "hwtest-bench")]
    out: PathBuf,
}

/// How much is measured.
#[derive(Args, Clone, Debug)]
pub(crate) struct Effort {
    /// Milliseconds for each point.
    #[arg(long, default_value_t = 100)]
    milliseconds: u64,
    /// The transform whose curves are drawn, for example `aes128gcm16` or `aes128-sha256`; otherwise the first of these that the
    /// device has: aes128gcm16, aes256gcm16, chacha20poly1305, aes128-sha256, aes128ctr-sha256.
    #[arg(long)]
    transform: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    size: usize,
    burst: usize,
    depth: usize,
}

/// What was measured at one point.
#[derive(Clone, Copy, Debug)]
struct Point {
    shape: Shape,
    /// Packets or operations in a second.
    rate: f64,
    /// CPU time for each, nanoseconds.
    cpu_ns: f64,
    latency: Latency,
}

impl Point {
    /// Of the text, in bits in a second.
    fn bits(&self) -> f64 {
        self.rate * self.shape.size as f64 * 8.0
    }
}

/// Everything that was measured of one device.
pub(crate) struct Results {
    name: String,
    /// The transform with curves.
    transform: String,
    curves: Vec<Point>,
    /// Each transform at the usual shape.
    transforms: Vec<(String, Point)>,
    /// Each operation, at several depths.
    operations: Vec<(String, Point)>,
    /// What could not be measured, and why.
    pub(crate) missing: Vec<String>,
}

pub(crate) fn run(options: &Options) -> Result<u8> {
    std::fs::create_dir_all(&options.out)
        .with_context(|| format!("cannot make {}", options.out.display()))?;
    let mut all = Vec::new();
    let mut whole = true;
    for opened in options.target.open()? {
        let results = measure(&opened, &options.effort)?;
        whole &= results.missing.is_empty();
        results.missing.iter().for_each(|why| eprintln!("not measured: {why}"));
        println!("{} {}: {}\n", opened.driver, opened.device.desc().id, opened.identity());
        for rows in results.tables() {
            println!("{}", table::text(&rows));
        }
        for chart in results.charts() {
            save(&chart, &options.out)?;
        }
        all.push(results.as_json());
    }
    let file = options.out.join("bench.json");
    std::fs::write(&file, serde_json::to_string_pretty(&all)?)
        .with_context(|| format!("cannot write {}", file.display()))?;
    println!("written: {}", file.display());
    Ok(if whole { 0 } else { code::BROKEN })
}

fn save(chart: &Chart, folder: &Path) -> Result<()> {
    let at = |ending: &str| folder.join(format!("{}.{ending}", chart.file));
    std::fs::write(at("svg"), plot::svg(chart)?)?;
    plot::png(chart, &at("png"))?;
    println!("written: {} and {}", at("svg").display(), at("png").display());
    Ok(())
}

/// Measures a device.
pub(crate) fn measure(opened: &Opened, effort: &Effort) -> Result<Results> {
    let device = &*opened.device;
    let caps = &device.desc().caps;
    let name_of = |cap: &EspCap| hwtest::Capability::Packets(*cap).to_string();
    let chosen = match &effort.transform {
        None => FAVOURITES
            .iter()
            .find_map(|name| caps.esp.iter().find(|cap| name_of(cap) == *name))
            .or(caps.esp.first()),
        Some(wanted) => match caps.esp.iter().find(|cap| name_of(cap) == *wanted) {
            Some(cap) => Some(cap),
            None => {
                let all: Vec<String> = caps.esp.iter().map(name_of).collect();
                bail!("the device has no transform {wanted}; it has: {}", all.join(", "));
            }
        },
    };
    let time = Duration::from_millis(effort.milliseconds.max(1));
    let mut shapes = Vec::new();
    if chosen.is_some() {
        for size in SIZES.into_iter().filter(|size| *size + 128 <= caps.max_len) {
            for burst in BURSTS {
                shapes.extend(DEPTHS.map(|depth| Shape { size, burst, depth }));
            }
        }
    }
    let bar = bar(shapes.len() + caps.esp.len());
    let (mut curves, mut missing) = (Vec::new(), Missing::default());
    for shape in shapes {
        let Some(cap) = chosen else { break };
        bar.set_message(format!(
            "{}, {} octets, bursts of {}, {} out",
            name_of(cap),
            shape.size,
            shape.burst,
            shape.depth
        ));
        curves.extend(missing.unless(device, packets(device, cap, shape, time))?);
        bar.inc(1);
    }
    let mut transforms = Vec::new();
    for cap in &caps.esp {
        bar.set_message(name_of(cap));
        let point = missing.unless(device, packets(device, cap, USUAL, time))?;
        transforms.extend(point.map(|point| (name_of(cap), point)));
        bar.inc(1);
    }
    // Their keys are opened now: no reset that a measurement of packets led to has made them stale.
    let operations = Operation::of(device);
    bar.inc_length(operations.len() as u64);
    let mut measured = Vec::new();
    for operation in &operations {
        bar.set_message(operation.name.clone());
        for depth in [1, 8] {
            let point = missing.unless(device, operation.measure(device, depth, time))?;
            measured.extend(point.map(|point| (operation.name.clone(), point)));
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    operations.iter().for_each(|operation| operation.close(device));
    Ok(Results {
        name: format!("{} {}", opened.driver, device.desc().id),
        transform: chosen.map(name_of).unwrap_or_default(),
        curves,
        transforms,
        operations: measured,
        missing: missing.0,
    })
}

/// What could not be measured, and why. A device that was reset in one measurement, for want of an answer on a machine that is too busy
/// to let it have the processor, say, is ready for the next.
#[derive(Default)]
struct Missing(Vec<String>);

impl Missing {
    /// After so many it is better to say what is wrong and stop.
    const MOST: usize = 8;

    /// The point, or nothing and a note; an error if the device does not get well again.
    fn unless(&mut self, device: &dyn Device, point: Result<Point>) -> Result<Option<Point>> {
        let why = match point {
            Ok(point) => return Ok(Some(point)),
            Err(why) => why,
        };
        let began = Instant::now();
        while device.health() == Health::Resetting && began.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(10));
        }
        if device.health() != Health::Ready || self.0.len() == Self::MOST {
            return Err(why);
        }
        self.0.push(format!("{why:#}"));
        Ok(None)
    }
}

/// Seals packets for some time.
fn packets(device: &dyn Device, cap: &EspCap, shape: Shape, time: Duration) -> Result<Point> {
    let block = cap.encr.info().map_or(4, |info| info.block);
    let text = (shape.size / block).max(1) * block;
    let slot = (text + 128).next_multiple_of(64);
    let burst = shape.burst.min(MAX_OPS);
    let pool = Pool::new(slot * burst, shape.depth)?;
    device.register(pool.region()).map_err(|fault| anyhow::anyhow!("memory: {fault}"))?;
    let sa = device.install_sa(&hwtest::ring::params(cap, Direction::Seal, false, 7));
    let sa = sa.map_err(|fault| anyhow::anyhow!("{}: {fault}", cap.encr))?;
    let queue =
        device.esp_queue(QueueConfig { depth: shape.depth, cpu: None }).context("no queue for packets")?;
    let mut seq = 1;
    let prepare = |mut buf: PacketBuf, token: Token| {
        buf.clear_ops();
        for place in 0..burst {
            // Fresh buffers have room for them all.
            let _ = buf.push_op(EspOp::new((place * slot) as u32, text as u16, seq));
            seq += 1;
        }
        EspBurst { token, sa, dir: Direction::Seal, buf }
    };
    let take = |done: EspBurst| {
        let mut outcomes = done.buf.ops().iter().map(|op| op.outcome);
        let failed = outcomes.find(|outcome| *outcome != Outcome::Done);
        (done.token, failed.map_or(Ok(done.buf), Err))
    };
    let supply: Vec<PacketBuf> = std::iter::from_fn(|| pool.take()).collect();
    let measured = pump(queue, supply, prepare, take, time);
    device.remove_sa(sa);
    let (rate, cpu_ns, latency) = measured.with_context(|| {
        let name = hwtest::Capability::Packets(*cap);
        let Shape { size, depth, .. } = shape;
        format!("{name}, {size} octets, bursts of {burst}, {depth} out")
    })?;
    Ok(Point { shape, rate: rate * burst as f64, cpu_ns: cpu_ns / burst as f64, latency })
}

/// Keeps all of a supply out, for some time; returns jobs in a second, CPU time for each, and latencies. The rate is the median of that of
/// some parts of the time, so that a moment in which another process had the processor does not count.
fn pump<S, J, D>(
    mut queue: Box<dyn Queue<Job = J, Done = D>>,
    supply: Vec<S>,
    mut prepare: impl FnMut(S, Token) -> J,
    take: impl Fn(D) -> (Token, Result<S, Outcome>),
    time: Duration,
) -> Result<(f64, f64, Latency)> {
    let mut since: Vec<Instant> = vec![Instant::now(); supply.len()];
    let mut idle: Vec<(Token, S)> =
        supply.into_iter().enumerate().map(|(n, thing)| (Token(n as u64), thing)).collect();
    let latencies = Histogram::new();
    let mut jobs: VecDeque<J> = VecDeque::new();
    let (mut count, mut idle_ns, mut failed) = (0u64, 0.0, None);
    let mut last = Instant::now();
    // What comes first finds cold memory and is not counted.
    let warm = Instant::now() + time / 4;
    let (mut start, mut cpu_start, mut counting) = (Instant::now(), cpu_ns(), false);
    let (mut slice, mut rates) = ((start, 0), Vec::new());
    loop {
        let now = Instant::now();
        if !counting && now >= warm {
            (start, cpu_start, counting) = (now, cpu_ns(), true);
            (count, idle_ns) = (0, 0.0);
            slice = (start, 0);
        }
        if counting && count > slice.1 && now.duration_since(slice.0) >= time / SLICES {
            rates.push((count - slice.1) as f64 / now.duration_since(slice.0).as_secs_f64());
            slice = (now, count);
        }
        if counting && now.duration_since(start) >= time {
            break;
        }
        for (token, thing) in idle.drain(..) {
            since[token.0 as usize] = now;
            jobs.push_back(prepare(thing, token));
        }
        if !jobs.is_empty() && queue.submit(&mut jobs).is_err() {
            bail!("the device takes no work any more");
        }
        let polled = queue.poll(64, &mut |done: D| {
            let (token, thing) = take(done);
            count += 1;
            match thing {
                Ok(thing) => idle.push((token, thing)),
                Err(outcome) => failed = Some(outcome),
            }
            if counting {
                latencies.note(since[token.0 as usize].elapsed().as_nanos() as u64);
            }
        });
        if let Some(outcome) = failed {
            bail!("a job failed: {outcome:?}");
        }
        if polled.delivered > 0 {
            last = Instant::now();
        } else if last.elapsed() > PATIENCE {
            bail!("{} jobs have not come back in {} s", queue.in_flight(), PATIENCE.as_secs());
        } else {
            let began = cpu_ns();
            match queue.doorbell() {
                Some(bell) => {
                    let longest = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };
                    // However it ends, the queue is polled next.
                    let _ = poll(&mut [PollFd::new(&bell, PollFlags::IN)], Some(&longest));
                }
                None => std::thread::sleep(Duration::from_micros(10)),
            }
            idle_ns += cpu_ns() - began;
        }
    }
    let cpu = (cpu_ns() - cpu_start - idle_ns).max(0.0);
    rates.sort_by(f64::total_cmp);
    // Few parts, of jobs that take long: then all of it together.
    let rate = match rates.len() {
        0..3 => count as f64 / start.elapsed().as_secs_f64(),
        parts => rates[parts / 2],
    };
    Ok((rate, cpu / count.max(1) as f64, latencies.latency()))
}

/// CPU time of this thread.
fn cpu_ns() -> f64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec as f64 * 1e9 + now.tv_nsec as f64
}

/// An operation that is measured.
struct Operation {
    name: String,
    make: Box<dyn Fn() -> CryptoOp>,
    key: Option<spi::KeyId>,
}

impl Operation {
    fn of(device: &dyn Device) -> Vec<Operation> {
        let caps = &device.desc().caps;
        let mut all = Vec::new();
        for group in caps.dh.iter().copied() {
            all.push(Operation {
                name: format!("{group} generate"),
                make: Box::new(move || CryptoOp::DhGenerate { group }),
                key: None,
            });
            // A KEM's other half needs a ciphertext; groups have a pair of which the public half will do.
            if let Some((ours, public)) = pair(device, group) {
                let make = move || CryptoOp::DhDerive {
                    group,
                    ours: DhPrivate::Bytes(ours.duplicate()),
                    theirs: public.clone(),
                };
                all.push(Operation { name: format!("{group} derive"), make: Box::new(make), key: None });
            }
        }
        for key in hwtest::operation::open_keys(device) {
            for scheme in key.schemes.iter().copied().filter(|scheme| caps.sign.contains(scheme)).take(1) {
                let id = key.id;
                let make = move || CryptoOp::Sign { key: id, scheme, octets: vec![0x5a; 64] };
                all.push(Operation { name: format!("sign {scheme:?}"), make: Box::new(make), key: Some(id) });
            }
        }
        all
    }

    fn measure(&self, device: &dyn Device, depth: usize, time: Duration) -> Result<Point> {
        let queue =
            device.crypto_queue(QueueConfig { depth, cpu: None }).context("no queue for operations")?;
        let prepare = |(), token| CryptoJob { token, op: (self.make)() };
        let take = |done: CryptoDone| match done.outcome {
            Outcome::Done => (done.token, Ok(())),
            failed => (done.token, Err(failed)),
        };
        let measured = pump(queue, vec![(); depth], prepare, take, time);
        let (rate, cpu_ns, latency) = measured.with_context(|| self.name.clone())?;
        Ok(Point { shape: Shape { size: 0, burst: 1, depth }, rate, cpu_ns, latency })
    }

    fn close(&self, device: &dyn Device) {
        if let Some(key) = self.key {
            device.close_key(key);
        }
    }
}

/// A fresh pair whose private half can be had.
fn pair(device: &dyn Device, group: spi::Group) -> Option<(spi::Secret, Vec<u8>)> {
    if group.info()?.kind == spi::alg::GroupKind::Kem {
        return None;
    }
    let pend = spi::pend::Pend::new(device.crypto_queue(QueueConfig::default())?, 1);
    match pend.block_on(CryptoOp::DhGenerate { group }).ok()?.output {
        CryptoOutput::DhPair(DhPrivate::Bytes(ours), public) => Some((ours, public)),
        _ => None,
    }
}

const LATENCY: [&str; 4] = ["p50", "p90", "p99", "max"];

fn latencies(point: &Point) -> impl Iterator<Item = String> {
    let Latency { p50_ns, p90_ns, p99_ns, max_ns } = point.latency;
    [p50_ns, p90_ns, p99_ns, max_ns].into_iter().map(|ns| table::time(ns as f64))
}

impl Results {
    /// What was measured, a table for each kind; the first row of each is its heading.
    pub(crate) fn tables(&self) -> Vec<Vec<Vec<String>>> {
        let mut all = Vec::new();
        let heading = |first: &str, rest: &[&str]| -> Vec<String> {
            [first].iter().chain(rest).chain(&LATENCY).map(|text| (*text).to_owned()).collect()
        };
        if !self.curves.is_empty() {
            let mut rows = vec![heading(
                &self.transform,
                &["octets", "burst", "out", "packets/s", "bit/s", "CPU/packet"],
            )];
            rows.extend(self.curves.iter().map(|point| {
                let Shape { size, burst, depth } = point.shape;
                let numbers = [size, burst, depth].map(|number| number.to_string());
                let measured =
                    [table::short(point.rate), table::short(point.bits()), table::time(point.cpu_ns)];
                [String::new()].into_iter().chain(numbers).chain(measured).chain(latencies(point)).collect()
            }));
            all.push(rows);
        }
        if !self.transforms.is_empty() {
            let title = format!("{} octets, bursts of {}, {} out", USUAL.size, USUAL.burst, USUAL.depth);
            let mut rows = vec![heading(&title, &["packets/s", "bit/s", "CPU/packet"])];
            rows.extend(self.transforms.iter().map(|(name, point)| {
                let measured =
                    [table::short(point.rate), table::short(point.bits()), table::time(point.cpu_ns)];
                [name.clone()].into_iter().chain(measured).chain(latencies(point)).collect()
            }));
            all.push(rows);
        }
        if !self.operations.is_empty() {
            let mut rows = vec![heading("operation", &["out", "operations/s", "CPU/operation"])];
            rows.extend(self.operations.iter().map(|(name, point)| {
                let measured =
                    [point.shape.depth.to_string(), table::short(point.rate), table::time(point.cpu_ns)];
                [name.clone()].into_iter().chain(measured).chain(latencies(point)).collect()
            }));
            all.push(rows);
        }
        all
    }

    /// The curves: throughput and CPU time by size, and latency by what is out.
    pub(crate) fn charts(&self) -> Vec<Chart> {
        if self.curves.is_empty() {
            return Vec::new();
        }
        let series = |name: String, fits: &dyn Fn(&Shape) -> bool, at: &dyn Fn(&Point) -> (f64, f64)| {
            Series { name, points: self.curves.iter().filter(|point| fits(&point.shape)).map(at).collect() }
        };
        let deepest = DEPTHS[DEPTHS.len() - 1];
        let file = |what: &str| format!("{what}-{}", self.name.replace([' ', '/', ':'], "-"));
        let by_size = |depth: usize| {
            BURSTS.map(move |burst| (format!("bursts of {burst}, {depth} out"), burst, depth)).into_iter()
        };
        let throughput = Chart {
            file: file("throughput"),
            title: format!("{}, {}: throughput", self.name, self.transform),
            x: "octets of text in a packet".into(),
            y: "Gbit/s".into(),
            y_log: false,
            series: by_size(1)
                .chain(by_size(deepest))
                .map(|(name, burst, depth)| {
                    series(name, &|shape| shape.burst == burst && shape.depth == depth, &|point| {
                        (point.shape.size as f64, point.bits() / 1e9)
                    })
                })
                .collect(),
        };
        let cost = Chart {
            file: file("cpu"),
            title: format!("{}, {}: CPU time of the caller", self.name, self.transform),
            x: "octets of text in a packet".into(),
            y: "µs for a packet".into(),
            y_log: false,
            series: by_size(deepest)
                .map(|(name, burst, depth)| {
                    series(name, &|shape| shape.burst == burst && shape.depth == depth, &|point| {
                        (point.shape.size as f64, point.cpu_ns / 1e3)
                    })
                })
                .collect(),
        };
        type Percentile = fn(&Latency) -> u64;
        let percentiles: [(&str, Percentile); 2] = [("p50", |l| l.p50_ns), ("p99", |l| l.p99_ns)];
        let mut latency = Vec::new();
        for burst in [BURSTS[0], BURSTS[BURSTS.len() - 1]] {
            for (name, of) in percentiles {
                latency.push(series(
                    format!("{name}, bursts of {burst}"),
                    &|shape| shape.burst == burst && shape.size == USUAL.size,
                    &|point| (point.shape.depth as f64, of(&point.latency) as f64 / 1e3),
                ));
            }
        }
        let latency = Chart {
            file: file("latency"),
            title: format!("{}, {}: latency of a burst, {} octets", self.name, self.transform, USUAL.size),
            x: "bursts out at a time".into(),
            y: "µs from submission to delivery".into(),
            y_log: true,
            series: latency,
        };
        vec![throughput, cost, latency]
    }

    fn as_json(&self) -> serde_json::Value {
        let point = |point: &Point| {
            let Latency { p50_ns, p90_ns, p99_ns, max_ns } = point.latency;
            json!({ "octets": point.shape.size, "burst": point.shape.burst, "depth": point.shape.depth, "per_second": point.rate,
                "cpu_ns": point.cpu_ns, "p50_ns": p50_ns, "p90_ns": p90_ns, "p99_ns": p99_ns, "max_ns": max_ns })
        };
        let named = |list: &[(String, Point)]| -> Vec<serde_json::Value> {
            list.iter().map(|(name, at)| json!({ "name": name, "at": point(at) })).collect()
        };
        json!({
            "device": self.name,
            "transform": self.transform,
            "curves": self.curves.iter().map(point).collect::<Vec<_>>(),
            "transforms": named(&self.transforms),
            "operations": named(&self.operations),
        })
    }
}
