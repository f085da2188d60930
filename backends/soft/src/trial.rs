//! The trial of the engines: what each costs for one transform, measured when the first SA of that transform is installed.
//!
//! Why then: a gateway uses two or three of the hundred transforms, so measuring all of them at start would be wasted, and
//! measuring some would be a guess. A process that carries no packets never pays. One that ranks its devices at start (with
//! [`spi::measure`]) installs an SA of each transform it is configured for, and so has all trials behind it before traffic
//! comes. A trial takes [`MOST`] or a little more, once in the life of the process: its result is the machine's, not a device's.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use spi::measure::{Costs, Effort, Load, Meter};
use spi::{Direction, Encr, EngineCost, EngineReport, Fault, Integ};

use crate::choose::{AWS_LC, BURSTS, EngineChoice, IPSEC_MB, Picks, TEXTS};
use crate::device::Soft;
use crate::imb;

/// When a trial stops, unless it has had fewer than [`FEWEST`] rounds.
const MOST: Duration = Duration::from_millis(10);
/// Rounds there must be: the first one warms up caches and has lanes made, and does not count.
const FEWEST: usize = 3;
/// Rounds beyond which nothing is learned.
const ENOUGH: usize = 16;
/// Packets measured at once, each way.
const PACKETS: usize = 32;

/// ipsec-mb must take less than this part of AWS-LC's time: what is closer than that changes sides from one start to the next,
/// and AWS-LC's keys are the smaller ones.
const CLEARLY: f64 = 0.9;

/// The loads that are tried: every size in every length of burst.
const LOADS: usize = TEXTS.len() * BURSTS.len();

/// What was found out about one transform.
#[derive(Clone, Debug, Default)]
struct Trial {
    /// By load; empty when it could not be measured.
    lc: Vec<Costs>,
    mb: Vec<Costs>,
    seal: Picks,
    open: Picks,
}

/// The packets of a transform that go to ipsec-mb.
pub(crate) fn picks(encr: Encr, integ: Integ, dir: Direction) -> Picks {
    if imb::presence().is_err() || !imb::carries(encr, integ) {
        return Picks::default();
    }
    let mut trials = trials();
    let trial = trials.entry((encr, integ)).or_insert_with(|| Trial::run(encr, integ).unwrap_or_default());
    match dir {
        Direction::Seal => trial.seal,
        Direction::Open => trial.open,
    }
}

/// Both engines' part in every trial so far.
pub(crate) fn reports() -> Vec<EngineReport> {
    trials().iter().flat_map(|(transform, trial)| trial.reports(*transform)).collect()
}

/// The trials so far. Whoever wants one that is under way waits for it: two at once would measure each other.
fn trials() -> MutexGuard<'static, BTreeMap<(Encr, Integ), Trial>> {
    static TRIALS: Mutex<BTreeMap<(Encr, Integ), Trial>> = Mutex::new(BTreeMap::new());
    // A trial that panicked has left no entry.
    TRIALS.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Trial {
    /// Round by round over all loads, the engines in turn. What counts is the least each load has cost: what disturbs (another
    /// process in the caches, a lower clock) only ever adds, and with so few rounds it may well disturb most of them.
    fn run(encr: Encr, integ: Integ) -> Result<Trial, Fault> {
        let effort = Effort { packets: PACKETS, rounds: 1, latency: false, ..Effort::default() };
        let devices = [EngineChoice::AwsLc, EngineChoice::IpsecMb]
            .map(|one| Soft::default().with_engines(one).device());
        let [lc, mb] = &devices;
        let mut meters = [Meter::new(&**lc)?, Meter::new(&**mb)?];
        for meter in &mut meters {
            meter.install(encr, integ, true)?;
        }
        let mut rounds: [Vec<Vec<Costs>>; 2] = [vec![Vec::new(); LOADS], vec![Vec::new(); LOADS]];
        let start = Instant::now();
        'rounds: for round in 0..ENOUGH {
            for (at, load) in loads().enumerate() {
                if round >= FEWEST && start.elapsed() >= MOST {
                    break 'rounds;
                }
                for (meter, all) in meters.iter_mut().zip(&mut rounds) {
                    let costs = meter.measure(load, effort)?;
                    if round > 0 {
                        all[at].push(costs);
                    }
                }
            }
        }
        let [lc, mb] = rounds.map(|all| all.iter().map(|costs| Costs::least(costs)).collect());
        Ok(Trial::judge(lc, mb))
    }

    fn judge(lc: Vec<Costs>, mb: Vec<Costs>) -> Trial {
        let pick = |of: fn(&Costs) -> f64| {
            let mut picks = Picks::default();
            for (at, (lc, mb)) in lc.iter().zip(&mb).enumerate() {
                if of(mb) < of(lc) * CLEARLY {
                    picks.add(at / BURSTS.len(), at % BURSTS.len());
                }
            }
            picks
        };
        let (seal, open) = (pick(|costs| costs.seal.cpu_ns), pick(|costs| costs.open.cpu_ns));
        Trial { lc, mb, seal, open }
    }

    fn reports(&self, transform: (Encr, Integ)) -> [EngineReport; 2] {
        let report = |engine, all: &[Costs], mine: bool| {
            let mut costs = Vec::new();
            for (at, (load, cost)) in loads().zip(all).enumerate() {
                let (text, burst) = (at / BURSTS.len(), at % BURSTS.len());
                for (dir, picks, cost) in
                    [(Direction::Seal, self.seal, cost.seal), (Direction::Open, self.open, cost.open)]
                {
                    let picked = picks.has(text, burst) == mine;
                    costs.push(EngineCost { dir, load, cpu_ns: cost.cpu_ns, picked });
                }
            }
            let picked = costs.iter().filter(|cost| cost.picked).count();
            let why = match (mine, picked) {
                _ if costs.is_empty() => "the two could not be measured: aws-lc is used",
                (true, 0) => "not used: not faster by a tenth",
                (false, 0) => "not used: the other is faster",
                (true, n) if n == costs.len() => "used: faster",
                (false, n) if n == costs.len() => "used: the other is not faster by a tenth",
                _ => "used for some sizes and bursts",
            };
            EngineReport { engine, transform: Some(transform), costs, why: why.to_owned() }
        };
        [report(AWS_LC, &self.lc, false), report(IPSEC_MB, &self.mb, true)]
    }
}

fn loads() -> impl Iterator<Item = Load> {
    TEXTS.into_iter().flat_map(|text| BURSTS.into_iter().map(move |burst| Load { text, burst }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use spi::measure::Cost;

    fn costs(seal: f64, open: f64) -> Costs {
        let cost = |cpu_ns| Cost { cpu_ns, latency_ns: 0.0 };
        Costs { seal: cost(seal), open: cost(open) }
    }

    #[test]
    fn only_what_is_clearly_faster_is_picked_each_way_for_itself() {
        let lc = vec![costs(100.0, 100.0); LOADS];
        let mut mb = vec![costs(91.0, 89.0); LOADS];
        let trial = Trial::judge(lc.clone(), mb.clone());
        assert!(trial.seal.is_none() && trial.open.is_all());
        // The second size in bursts of the third length.
        mb[BURSTS.len() + 2] = costs(20.0, 300.0);
        let trial = Trial::judge(lc, mb);
        assert!(trial.seal.has(1, 2) && !trial.seal.has(1, 1) && !trial.seal.has(2, 2));
        assert!(!trial.open.has(1, 2) && trial.open.has(0, 0));
        let [aws_lc, ipsec_mb] = trial.reports((Encr::AES128_GCM16, Integ::NONE));
        for (one, other) in aws_lc.costs.iter().zip(&ipsec_mb.costs) {
            assert_eq!((one.dir, one.load), (other.dir, other.load));
            assert_ne!(one.picked, other.picked, "each packet has one engine");
        }
        assert_eq!(
            (aws_lc.why, ipsec_mb.why),
            ("used for some sizes and bursts".into(), "used for some sizes and bursts".into())
        );
    }

    #[test]
    fn a_transform_is_tried_once_and_reported_from_then_on() {
        if let Err(why) = imb::presence() {
            eprintln!("SKIPPED: {why}");
            return;
        }
        let transform = (Encr::AES192_GCM12, Integ::NONE);
        let first = picks(transform.0, transform.1, Direction::Seal);
        let mine = || {
            let all = reports();
            all.into_iter().filter(|report| report.transform == Some(transform)).collect::<Vec<_>>()
        };
        let reports = mine();
        assert_eq!(reports.len(), 2);
        assert!(reports.iter().all(|report| report.costs.len() == 2 * LOADS));
        assert!(reports.iter().flat_map(|report| &report.costs).all(|cost| cost.cpu_ns > 0.0));
        assert_eq!(picks(transform.0, transform.1, Direction::Seal), first);
        assert_eq!(mine(), reports, "the trial was not repeated");
        // What the library does not carry is not tried.
        assert!(picks(Encr::AES128_CCM16, Integ::NONE, Direction::Seal).is_none());
    }
}
