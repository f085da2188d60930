//! Interoperation with strongSwan, in namespaces on one machine: scenarios as data, one engine that plays them.

pub mod catalogue;
pub mod course;
pub mod residue;
pub mod scenario;
pub mod stories;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Result;

use crate::checkout;
use crate::interop::course::{Maker, Stage, Steps, fresh};
use crate::interop::scenario::Scenario;
use crate::interop::stories::{Place, Story};
use crate::packages;
use crate::peer::Peer;
use crate::process;
use crate::report::{Outcome, Row, Tally};
use crate::strongswan::{Release, StrongSwan};
use crate::trixie;
use crate::tunnel::End;
use crate::tussock::Tussock;
use crate::world::World;

/// Who plays.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cast {
    /// Every scenario twice: we call strongSwan, strongSwan calls us.
    Mixed,
    /// strongSwan on both ends: does the lab itself work?
    StrongSwanOnly,
    /// Ours on both ends.
    TussockOnly,
}

impl Cast {
    /// The makers of initiator and responder, for each run of a scenario.
    fn pairs(self) -> &'static [(Maker, Maker)] {
        use Maker::{StrongSwan, Tussock};
        match self {
            Cast::Mixed => &[(Tussock, StrongSwan), (StrongSwan, Tussock)],
            Cast::StrongSwanOnly => &[(StrongSwan, StrongSwan)],
            Cast::TussockOnly => &[(Tussock, Tussock)],
        }
    }
}

/// What to play.
pub struct Plan {
    /// With whom.
    pub cast: Cast,
    /// Only scenarios whose name contains one of these; all if empty.
    pub only: Vec<String>,
    /// What the namespaces are called; runs with different names can go on side by side.
    pub lab: String,
    /// Our binary; not needed when strongSwan plays alone.
    pub binary: Option<PathBuf>,
}

impl Plan {
    fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|part| name.contains(part.as_str()))
    }
}

/// Print the names.
pub fn list() {
    for scenario in catalogue::all() {
        println!("{:<26} {}", scenario.name, shows(&scenario));
    }
    for story in stories::all() {
        println!("{:<26} {}", story.name, story.shows);
    }
}

/// Play all of it; one line each.
pub fn run(plan: &Plan, tally: &mut Tally) -> Result<()> {
    let world = World::claim(&plan.lab)?;
    let scenarios: Vec<Scenario> = catalogue::all().into_iter().filter(|one| plan.wants(one.name)).collect();
    let young = scenarios.iter().any(|scenario| scenario.release == Release::Trixie);
    // Without it some scenarios cannot be played; that is a reason to skip those and not to fail them all.
    let trixie = if young && plan.cast != Cast::TussockOnly { trixie::need() } else { Ok(()) };
    for scenario in &scenarios {
        for &makers in plan.cast.pairs() {
            let began = Instant::now();
            let roles = format!("{} -> {}", makers.0.name(), makers.1.name());
            let results = results_of(scenario, makers);
            let outcome = match (&trixie, scenario.release) {
                (Err(error), Release::Trixie) => Outcome::Skipped(format!("{error:#}")),
                _ => play(&world, plan, scenario, makers, &results)?,
            };
            tally.add(Row {
                group: "interop",
                name: scenario.name.to_owned(),
                roles,
                shows: shows(scenario),
                seconds: began.elapsed().as_secs_f64(),
                outcome,
            });
        }
    }
    if plan.cast != Cast::StrongSwanOnly
        && let Some(binary) = &plan.binary
    {
        for story in stories::all().filter(|story| plan.wants(story.name)) {
            let began = Instant::now();
            let results = checkout::target().join("interop").join(story.name);
            let there = story.packages.map_or(Ok(()), packages::may_have);
            let outcome = match there.and_then(|()| story.others.map_or(Ok(()), |need| need())) {
                Ok(()) => tell(&world, binary, story, &results)?,
                Err(error) => Outcome::Skipped(format!("{error:#}")),
            };
            tally.add(Row {
                group: "interop",
                name: story.name.to_owned(),
                roles: story.roles.to_owned(),
                shows: story.shows.to_owned(),
                outcome,
                seconds: began.elapsed().as_secs_f64(),
            });
        }
    }
    Ok(())
}

/// Play one story.
fn tell(world: &World, binary: &Path, story: &Story, results: &Path) -> Result<Outcome> {
    fresh(results)?;
    world.build(story.layout)?;
    let mut steps = Steps::new(results)?;
    let Err(error) = (story.play)(&Place { world, binary, results }, &mut steps) else {
        return Ok(Outcome::Passed);
    };
    let mut text = format!("at \"{}\": {error:#}\n", steps.current());
    let mut hosts: Vec<_> = fs::read_dir(results)?.flatten().map(|entry| entry.path()).collect();
    hosts.sort();
    for log in hosts.iter().flat_map(|host| ["tussock.log", "charon.log"].map(|log| host.join(log))) {
        if log.exists() {
            text += &format!("    {} ends:\n{}", log.display(), process::tail(&log, 14));
        }
    }
    text += &format!("    all of it: {}", results.display());
    Ok(Outcome::Failed(text))
}

/// What a scenario shows, one line.
fn shows(scenario: &Scenario) -> String {
    if scenario.shows.is_empty() {
        format!("{} / {}", scenario.ike, scenario.esp)
    } else {
        scenario.shows.to_owned()
    }
}

fn results_of(scenario: &Scenario, makers: (Maker, Maker)) -> PathBuf {
    let folder = format!("{}-{}-{}", scenario.name, makers.0.name(), makers.1.name());
    checkout::target().join("interop").join(folder.to_lowercase())
}

/// Play one scenario. An error is the machine's (no namespaces, no disk); a scenario that fails is an outcome.
fn play(
    world: &World,
    plan: &Plan,
    scenario: &Scenario,
    makers: (Maker, Maker),
    results: &Path,
) -> Result<Outcome> {
    fresh(results)?;
    world.build(scenario.layout)?;
    let cast = |maker: Maker, end: End| -> Result<Box<dyn Peer + '_>> {
        Ok(match (maker, &plan.binary) {
            (Maker::Tussock, Some(binary)) => Box::new(Tussock::new(world, &end, binary, results)?),
            (Maker::Tussock, None) => anyhow::bail!("the gateway has not been built"),
            (Maker::StrongSwan, _) => Box::new(StrongSwan::new(world, end, scenario.release, results)?),
        })
    };
    let (caller, called) = if scenario.far_end_calls() {
        (scenario.far(), scenario.moon())
    } else {
        (scenario.moon(), scenario.far())
    };
    let hosts = (caller.host, called.host);
    let initiator = cast(makers.0, caller)?;
    let responder = cast(makers.1, called)?;
    let steps = Steps::new(results)?;
    let mut stage = Stage { world, scenario, initiator, responder, makers, hosts, results, steps };
    let Err(error) = stage.play() else {
        return Ok(Outcome::Passed);
    };
    let mut text = format!("at \"{}\": {error:#}\n", stage.steps.current());
    for peer in [&stage.initiator, &stage.responder] {
        text += &format!("    the log of {} ends:\n{}", peer.maker(), process::tail(peer.log(), 14));
    }
    text += &format!("    all of it: {}", results.display());
    Ok(Outcome::Failed(text))
}
