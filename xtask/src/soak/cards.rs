//! Two gateways with two cards each, traffic both ways all the time, keys changed every half minute, and everything that can go
//! wrong with a card going wrong at random. In the end all cards are well, and everything is as it was at the beginning.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use serde_json::Value;

use super::plan::{self, Course, Hand};
use super::report::Report;
use super::samples::{Sample, Sampler};
use crate::cards::{self, Card};
use crate::checkout::Profile;
use crate::inside::{Carried, Flow};
use crate::interop::course::Steps;
use crate::interop::stories::Place;
use crate::numbers::Numbers;
use crate::peer::Peer;
use crate::ping::Stream;
use crate::process;
use crate::silence::{self, Pulse};
use crate::tussock::{NET, SITE, Tussock};
use crate::world::{ALICE, BOB, World};

/// For how long, and what.
#[derive(Args)]
pub struct Options {
    /// For how long
    #[arg(long, default_value_t = 10.0)]
    pub minutes: f64,
    /// The same seed makes the same plan
    #[arg(long, default_value_t = 7)]
    pub seed: u64,
}

/// Each TCP connection.
const LEG: Duration = Duration::from_secs(15);
/// A machine that stood still for so long was stopped.
const STOPPED: Duration = Duration::from_secs(1);
/// Between two pings, and the shortest time without an answer that is listed.
const PACE: Duration = Duration::from_millis(20);
const LISTED: Duration = Duration::from_millis(150);
/// How long cards may take to get well when nothing goes wrong any more: one that fell ill often is not trusted for a minute.
const RECOVERY: Duration = Duration::from_secs(90);
/// How long it may take until nothing is under way.
const SETTLING: Duration = Duration::from_secs(30);
/// Lifetimes of keys.
const REKEY: [&str; 2] = ["\"30s\"", "\"100s\""];

/// A gateway with its cards, and what is to happen to them.
struct Side<'w> {
    gateway: Tussock<'w>,
    cards: Vec<(Card, Course)>,
}

/// What a gateway holds when nothing is under way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Held {
    /// IKE SAs.
    pub ike_sas: usize,
    /// Child SA pairs for all workers, and for single ones.
    pub children: (usize, usize),
    /// SAs on devices, each direction for itself.
    pub sas: u64,
    /// Packet buffers that are not free.
    pub buffers: u64,
    /// Lanes, each of which keeps some to read into.
    pub lanes: u64,
    /// Open descriptors.
    pub descriptors: usize,
}

/// Buffers that a lane keeps once it has needed them: one to read packets into, and eight for datagrams.
const STANDING: u64 = 9;

impl Held {
    /// Whether nothing is in `after` that was not there before. An SA for one worker alone comes when there are packets for it, and
    /// goes when nobody needs it.
    pub fn is_all_of(&self, after: &Held) -> bool {
        let (shared, beside) = after.children;
        after.ike_sas == self.ike_sas
            && shared == self.children.0
            && beside <= self.children.1.max(1)
            && after.sas == 2 * (shared + beside) as u64
            && after.buffers <= self.lanes * STANDING
            && after.descriptors <= self.descriptors
    }
}

/// Plays it. `say` is told how it goes.
pub fn play(
    place: &Place<'_>,
    steps: &mut Steps,
    options: &Options,
    say: &mut dyn FnMut(String),
) -> Result<Report> {
    let length = Duration::from_secs_f64(options.minutes * 60.0);
    let courses = plan::courses(4, length, options.seed);
    let emulator = cards::build(Profile::Dev)?;
    let (moon, sun) = place.sites()?;
    // The clocks of the cards begin here, and so does ours.
    let began = Instant::now();
    let began_at = silence::now();
    let (for_moon, for_sun) = courses.split_at(2);
    let mut sides = [
        Side::new(place, moon, "moon", &emulator, for_moon, options.seed)?,
        Side::new(place, sun, "sun", &emulator, for_sun, options.seed)?,
    ];
    let [moon, sun] = &mut sides;
    place.begin(steps, &mut moon.gateway, &mut sun.gateway)?;
    steps.begin("some traffic, and what both hold after it");
    let warm = Duration::from_secs(1);
    Flow::begin(place.world, "alice", "bob", (BOB, 7000), warm)?.finish()?;
    Flow::begin(place.world, "bob", "alice", (ALICE, 7001), warm)?.finish()?;
    // One end asks for the SA of a worker alone, before both could do so at the same time and have two. Whether a flow needs one is
    // a matter of its ports.
    for port in 7002..7010 {
        if sides[0].held()?.children.1 > 0 {
            break;
        }
        Flow::begin(place.world, "alice", "bob", (BOB, port), warm / 4)?.finish()?;
    }
    let before = held(&sides, SETTLING)?;
    if began.elapsed() > plan::QUIET_AT_FIRST {
        bail!("this machine is too slow: faults began before anything else did");
    }

    steps.begin("traffic goes both ways, and things go wrong");
    let pids = pids(&sides)?;
    let (wire, pulse, sampler) = (Numbers::begin(place.world)?, Pulse::begin(), Sampler::begin(pids));
    let pings = Stream::every(place.world, "alice", BOB, PACE, &place.results.join("pings.log"))?;
    let failed = AtomicBool::new(false);
    let mut faults = BTreeMap::new();
    let (end, failed, feels) = (began + length, &failed, &pulse);
    let flows = thread::scope(|scope| {
        let legs = [("alice", "bob", (BOB, 7000)), ("bob", "alice", (ALICE, 7001))].map(|(from, to, at)| {
            scope.spawn(move || {
                let carried = legs(place.world, from, to, at, end, failed, feels);
                failed.fetch_or(carried.is_err(), Ordering::Relaxed);
                carried
            })
        });
        let handled = meddle(&mut sides, options.seed, began, end, failed, &mut faults, say);
        let [there, back] = legs.map(|leg| leg.join().map_err(|_| anyhow!("a thread panicked"))?);
        handled?;
        Ok::<_, anyhow::Error>([there?, back?])
    })?;
    let (answered, lost, outages) = pings.silences(LISTED)?;
    let (still, wire, samples) = (pulse.end(), wire.finish()?, sampler.end());

    steps.begin("nothing goes wrong any more, and all cards get well");
    for (card, _) in sides.iter_mut().flat_map(|side| &mut side.cards) {
        add(&mut faults, card)?;
        card.plan(None)?;
        card.put_back()?;
    }
    let well = process::until(RECOVERY, || Ok(all(&sides, Side::is_well)?.then_some(())))?;
    well.with_context(|| format!("a card does not get well:\n{}", shown(&sides)))?;
    steps.begin("and both hold what they held before");
    let after = process::until(SETTLING, || {
        // Keys may just be changing.
        let after = held(&sides, SETTLING)?;
        let nothing = before.iter().zip(&after).all(|(before, after)| before.is_all_of(after));
        Ok(nothing.then_some(after))
    })?;
    let after = after.map_or_else(|| held(&sides, SETTLING), Ok)?;
    let unanswered = process::until(SETTLING, || Ok((unanswered(&sides)? == 0).then_some(0)))?;
    let happened = courses.iter().enumerate().flat_map(|(card, course)| {
        let who = format!("{} of {}", ["qat0", "qat1"][card % 2], ["moon", "sun"][card / 2]);
        course.words().map(move |(at, what)| (at, format!("{who}: {what}")))
    });
    let report = Report {
        seed: options.seed,
        seconds: length.as_secs_f64(),
        began: began_at,
        flows,
        pings: (answered, lost),
        outages,
        still,
        wire,
        samples,
        faults,
        happened: happened.collect(),
        counts: counts(&sides)?,
        before,
        after,
        unanswered: unanswered.map_or_else(|| self::unanswered(&sides), Ok)?,
    };
    steps.begin("both gateways end");
    sides.iter_mut().try_for_each(|side| side.gateway.stop())?;
    Ok(report)
}

/// TCP connections, one after the other. One that does not get over it that the machine stood still says nothing of gateways: the
/// kernel's timers ran on, and it would send its next packet when nobody waits any more.
fn legs(
    world: &World,
    from: &str,
    to: &str,
    at: (&str, u16),
    end: Instant,
    failed: &AtomicBool,
    pulse: &Pulse,
) -> Result<Vec<Carried>> {
    let mut all = Vec::new();
    while !failed.load(Ordering::Relaxed) {
        let left = end.saturating_duration_since(Instant::now());
        if left < Duration::from_secs(1) {
            break;
        }
        let since = silence::now();
        match Flow::begin(world, from, to, at, left.min(LEG)).and_then(Flow::end) {
            Ok(carried) => all.push(carried),
            Err(_) if pulse.longest_since(since) > STOPPED => {}
            Err(error) => {
                return Err(error.context(format!("{from} to {to}, connection {}", all.len() + 1)));
            }
        }
    }
    Ok(all)
}

/// Pulls cards out and puts them in when it is time to.
fn meddle(
    sides: &mut [Side<'_>; 2],
    seed: u64,
    began: Instant,
    end: Instant,
    failed: &AtomicBool,
    faults: &mut BTreeMap<String, u64>,
    say: &mut dyn FnMut(String),
) -> Result<()> {
    let planned: Vec<f64> = sides
        .iter()
        .flat_map(|side| &side.cards)
        .flat_map(|(_, course)| course.words())
        .map(|(at, _)| at)
        .collect();
    let mut cards: Vec<_> = sides.iter_mut().flat_map(|side| &mut side.cards).collect();
    let each = cards.iter().enumerate();
    let mut hands: Vec<(f64, Hand, usize)> = each
        .flat_map(|(number, (_, course))| course.hands.iter().map(move |(at, hand)| (*at, *hand, number)))
        .collect();
    hands.sort_by(|one, other| other.0.total_cmp(&one.0));
    let mut told = 0;
    while Instant::now() < end && !failed.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_millis(20));
        let now = began.elapsed().as_secs_f64();
        if now as u64 / 60 > told {
            told = now as u64 / 60;
            let passed = planned.iter().filter(|at| **at < now).count();
            say(format!("soak  {now:>5.0} s  {passed} of {} things that go wrong", planned.len()));
        }
        let Some((_, hand, number)) = hands.pop_if(|(at, ..)| *at <= now) else { continue };
        let Some((card, course)) = cards.get_mut(number) else { continue };
        add(faults, card)?;
        card.pull_out();
        match hand {
            Hand::Out => *faults.entry("pulled out".to_owned()).or_default() += 1,
            Hand::In => {
                let now = began.elapsed().as_secs_f64();
                card.plan(Some(&course.plan(now, seed)))?;
                card.put_back()?;
            }
        }
    }
    Ok(())
}

/// Adds the faults of a card that is about to go, if it is in.
fn add(faults: &mut BTreeMap<String, u64>, card: &Card) -> Result<()> {
    if card.is_in() {
        for (kind, count) in card.faults_by_kind()? {
            *faults.entry(kind).or_default() += count;
        }
    }
    Ok(())
}

impl<'w> Side<'w> {
    fn new(
        place: &Place<'_>,
        gateway: Tussock<'w>,
        host: &str,
        emulator: &Path,
        courses: &[Course],
        seed: u64,
    ) -> Result<Side<'w>> {
        let results = place.results.join(host);
        let mut cards = Vec::new();
        for (number, course) in courses.iter().enumerate() {
            let plan = course.plan(0.0, seed);
            let card =
                Card::insert(place.world, host, &format!("qat{number}"), emulator, &results, Some(&plan))?;
            gateway.append(&card.section())?;
            cards.push((card, course.clone()));
        }
        gateway.set(NET, "rekey", REKEY[0])?;
        gateway.set(SITE, "ike_rekey", REKEY[1])?;
        Ok(Side { gateway, cards })
    }

    fn is_well(&self) -> Result<bool> {
        let devices = self.gateway.devices()?;
        Ok(devices
            .iter()
            .all(|device| device.pointer("/device/health").is_some_and(|health| health == "ready")))
    }

    fn is_idle(&self) -> Result<bool> {
        self.gateway.is_idle()
    }

    fn held(&self) -> Result<Held> {
        let sas = self.gateway.sas()?;
        let children = || sas.iter().flat_map(|sa| &sa.children);
        let beside = children().filter(|child| child.beside).count();
        let devices = self.gateway.devices()?;
        let on = devices.iter().filter_map(|device| device.pointer("/device/sas")?.as_u64());
        let status = self.gateway.json("status")?;
        let lanes = status.get("lanes").and_then(Value::as_array).context("no lanes")?;
        let number = |lane: &Value, key: &str| lane.get(key).and_then(Value::as_u64).unwrap_or_default();
        let used =
            lanes.iter().map(|lane| number(lane, "buffers").saturating_sub(number(lane, "buffers_free")));
        let pid = self.gateway.pid().context("a gateway is not running")?;
        Ok(Held {
            ike_sas: sas.len(),
            children: (children().count() - beside, beside),
            sas: on.sum(),
            buffers: used.sum(),
            lanes: lanes.len() as u64,
            descriptors: Sample::of([pid, pid])?.descriptors[0],
        })
    }
}

/// What both hold when nothing is under way.
fn held(sides: &[Side<'_>; 2], patience: Duration) -> Result<[Held; 2]> {
    let idle = process::until(patience, || Ok(all(sides, Side::is_idle)?.then_some(())))?;
    idle.with_context(|| format!("something stays under way:\n{}", shown(sides)))?;
    let [moon, sun] = sides;
    Ok([moon.held()?, sun.held()?])
}

fn all<'w>(sides: &[Side<'w>], is: impl Fn(&Side<'w>) -> Result<bool>) -> Result<bool> {
    sides.iter().try_fold(true, |all, side| Ok(all && is(side)?))
}

fn pids(sides: &[Side<'_>; 2]) -> Result<[u32; 2]> {
    let [moon, sun] = sides;
    let both = moon.gateway.pid().zip(sun.gateway.pid());
    both.map(|(moon, sun)| [moon, sun]).context("a gateway is not running")
}

/// Requests that cards have fetched and not answered.
fn unanswered(sides: &[Side<'_>; 2]) -> Result<u64> {
    let mut sum = 0;
    for (card, _) in sides.iter().flat_map(|side| &side.cards) {
        let counters = card.counters()?;
        let number = |key: &str| counters.get(key).and_then(Value::as_u64).context("odd counters");
        sum += number("fetched")?.saturating_sub(number("responses")?);
    }
    Ok(sum)
}

/// What both count of their devices, together.
fn counts(sides: &[Side<'_>; 2]) -> Result<BTreeMap<&'static str, u64>> {
    let mut sums = BTreeMap::new();
    for device in
        sides.iter().map(|side| side.gateway.devices()).collect::<Result<Vec<_>>>()?.iter().flatten()
    {
        let number = |key: &str| device.get(key).and_then(Value::as_u64).unwrap_or_default();
        let soft = device.pointer("/device/name").is_some_and(|name| name == "soft");
        *sums.entry(if soft { "packets by software" } else { "packets by cards" }).or_default() +=
            number("packets");
        for (what, key) in [
            ("resets", "resets"),
            ("known answers wrong or late", "known_wrong"),
            ("SAs that left a device", "sas_left"),
            ("SAs that returned", "sas_returned"),
            ("operations issued again", "operations_reissued"),
        ] {
            *sums.entry(what).or_default() += number(key);
        }
    }
    Ok(sums)
}

fn shown(sides: &[Side<'_>; 2]) -> String {
    sides.iter().map(|side| side.gateway.order(&["accel"]).unwrap_or_default()).collect()
}
