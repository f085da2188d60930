//! From what is known of devices to what `status` and `accel` show.

use std::collections::BTreeMap;

use esp::Faults;
use spi::stats::Latency;
use spi::{Direction, EngineCost, EngineReport, Health};

use super::Worker;
use super::accel::{SlotView, State};
use super::trials::Trial;
use crate::plane::look::Look;
use crate::report;

type Parts = [Option<Box<Look>>];

impl Worker {
    pub(super) fn devices(&self, parts: &Parts) -> Vec<report::Device> {
        self.accel.views().enumerate().map(|(number, view)| device(number, &view, parts)).collect()
    }

    pub(super) fn accelerators(&self, parts: &Parts) -> report::Accel {
        let devices = self.accel.views().enumerate();
        report::Accel { devices: devices.map(|(number, view)| closely(number, &view, parts)).collect() }
    }
}

fn device(number: usize, view: &SlotView<'_>, parts: &Parts) -> report::Device {
    let caps = view.desc.map(|desc| &desc.caps);
    let esp = caps.iter().flat_map(|caps| &caps.esp);
    let mut esp: Vec<String> = esp.map(|cap| transform(cap.encr, cap.integ)).collect();
    esp.dedup();
    let health = match (view.state, view.device.map(|device| device.health())) {
        (State::Away, _) | (_, None) => "missing",
        (_, Some(Health::Failed)) => "failed",
        (State::Ill, _) | (_, Some(Health::Resetting)) => "resetting",
        (State::Well, _) => "ready",
    };
    let lines = || parts.iter().flatten().filter_map(|look| look.lines.get(number));
    let (operations_out, _) = view.operations;
    let engines = view.device.map(|device| device.engines()).unwrap_or_default();
    report::Device {
        name: view.source.name.clone(),
        driver: view.source.driver.name().to_owned(),
        id: view.desc.map_or(String::new(), |desc| desc.id.clone()),
        health: health.to_owned(),
        why: (view.state != State::Well).then(|| view.why.to_owned()),
        esp,
        dh: caps.iter().flat_map(|caps| &caps.dh).map(ToString::to_string).collect(),
        sas: view.sas,
        max_sas: caps.map_or(0, |caps| caps.max_sas),
        packets_out: lines().map(|(_, queue)| queue.out).sum(),
        packets_waiting: lines().map(|(line, _)| line.waiting + line.critical).sum(),
        operations_out,
        waiting: view.waiting,
        engines: engines.iter().map(engine).collect(),
        trials: view.trials.iter().map(trial).collect(),
    }
}

fn closely(number: usize, view: &SlotView<'_>, parts: &Parts) -> report::AccelDevice {
    let lanes =
        parts.iter().enumerate().filter_map(|(lane, look)| Some((lane, look.as_ref()?.lines.get(number)?)));
    let mut queues = Vec::new();
    let mut faults = Faults::default();
    let (mut packets, mut lost) = (0, 0);
    for (lane, (line, queue)) in lanes {
        faults.join(line.faults);
        packets += line.done;
        lost += line.lost;
        queues.push(report::AccelQueue {
            name: format!("lane {lane}"),
            depth: queue.depth,
            in_flight: queue.out,
            waiting: line.waiting + line.critical,
            lost: line.lost,
            latency: percentiles(queue.latency),
        });
    }
    let (out, depth) = view.operations;
    if depth > 0 {
        queues.push(report::AccelQueue {
            name: "operations".to_owned(),
            depth,
            in_flight: out,
            waiting: view.waiting,
            lost: view.counts.lost,
            latency: percentiles(view.latency),
        });
    }
    let stats = view.device.and_then(|device| device.stats());
    let (known_right, known_wrong, resets) = view.known;
    let errors = [
        ("packets aborted", faults.aborted),
        ("packets with a stale handle", faults.stale),
        ("packets not supported", faults.unsupported),
        ("packets out of room", faults.exhausted),
        ("packets failed", faults.internal),
        ("bursts lost", lost),
        ("operations failed", view.counts.failed),
        ("operations lost", view.counts.lost),
        ("operations nobody waited for", view.counts.stray),
    ];
    report::AccelDevice {
        device: device(number, view, parts),
        place: view.source.place.clone(),
        identity: stats.as_ref().map(|stats| stats.identity.clone()).filter(|text| !text.is_empty()),
        numa_node: view.desc.and_then(|desc| desc.numa_node),
        since: view.since.as_secs(),
        max_len: view.desc.map_or(0, |desc| desc.caps.max_len),
        packets,
        load: view.load,
        operations: view.counts.done,
        queues,
        errors: counted(errors.into_iter().filter(|(_, count)| *count > 0)),
        sas_left: view.counts.left,
        sas_returned: view.counts.returned,
        operations_reissued: view.counts.reissued,
        known_right,
        known_wrong,
        resets,
        counters: counted(stats.into_iter().flat_map(|stats| stats.counters)),
    }
}

fn counted(counts: impl Iterator<Item = (&'static str, u64)>) -> BTreeMap<String, u64> {
    counts.map(|(name, count)| (name.to_owned(), count)).collect()
}

fn percentiles(latency: Latency) -> [u64; 4] {
    [latency.p50_ns, latency.p90_ns, latency.p99_ns, latency.max_ns]
}

/// As proposals write it.
fn transform(encr: spi::Encr, integ: spi::Integ) -> String {
    if integ == spi::Integ::NONE { encr.to_string() } else { format!("{encr}-{integ}") }
}

fn trial(trial: &Trial) -> report::Trial {
    let cost = |(load, ns): (spi::measure::Load, f64)| report::TrialCost {
        text: load.text,
        burst: load.burst,
        ns: ns.round() as u64,
    };
    report::Trial {
        esp: transform(trial.transform.0, trial.transform.1),
        fault: trial.cost.err().map(|fault| fault.to_string()),
        costs: trial.costs().map(cost).collect(),
    }
}

fn engine(report: &EngineReport) -> report::Engine {
    let cost = |cost: &EngineCost| report::EngineCost {
        direction: if cost.dir == Direction::Seal { "seal" } else { "open" }.to_owned(),
        text: cost.load.text,
        burst: cost.load.burst,
        ns: cost.cpu_ns.round() as u64,
        picked: cost.picked,
    };
    report::Engine {
        name: report.engine.to_owned(),
        esp: report.transform.map(|(encr, integ)| transform(encr, integ)),
        why: report.why.clone(),
        costs: report.costs.iter().map(cost).collect(),
    }
}
