//! Many roadwarriors at once, by EAP-MSCHAPv2 through FreeRADIUS, while a tunnel between two sites carries pings.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;

use super::contest::{Cipher, Tussocks, come_up};
use super::crowd::{self, Came, Crowd, HOST, IDS, INSIDE, Kind, PASSWORD, Proof};
use super::table::{Cell, Table, median};
use super::{Report, Setup};
use crate::freeradius::{FreeRadius, SECRET};
use crate::interop::scenario::SITES;
use crate::meter;
use crate::packages;
use crate::peer::Peer;
use crate::ping::{RoundTrips, Stream};
use crate::pki::{Pki, shown};
use crate::tunnel::KeyType;
use crate::tussock::quoted;
use crate::world::{ALICE, BOB, Layout, MOON, MOON_NET};

/// What to measure.
#[derive(Args, Clone)]
pub struct Options {
    /// Roadwarriors, all begun within the same moment.
    #[arg(long, default_value_t = 500)]
    count: u32,
}

/// How long they may take in all.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two pings: a round is over so soon that it would not hold many with more.
const PAUSE: Duration = Duration::from_millis(2);

/// One round.
struct Round {
    came: Came,
    /// CPU milliseconds of the gateway for each.
    cpu: f64,
    before: RoundTrips,
    during: RoundTrips,
}

/// Measure.
pub fn run(setup: &Setup, options: &Options) -> Result<Report> {
    packages::need(&[packages::RADIUS])?;
    let count = if setup.quick { options.count.min(100) } else { options.count };
    let mut rounds = Vec::new();
    for number in 1..=setup.runs {
        eprintln!("round {number} of {}: {count} roadwarriors", setup.runs);
        rounds.push(round(setup, count)?);
    }
    let mut report = Report::default();
    report.notes.push(format!(
        "{} rounds of {count} peers, all begun at once: EAP-MSCHAPv2 through FreeRADIUS behind the gateway, each with a Child SA; \
         a ping every {} ms through another tunnel of the same gateway, for two seconds before and until the last is up",
        setup.runs,
        PAUSE.as_millis()
    ));
    let mut table = Table::new(
        "roadwarriors",
        "Roadwarriors by EAP through RADIUS at once, and a tunnel beside them",
        &[
            "peers",
            "up",
            "all up after s",
            "sent again",
            "CPU ms each",
            "pings before",
            "ms",
            "99 % ms",
            "max ms",
            "pings meanwhile",
            "ms",
            "99 % ms",
            "max ms",
            "lost",
        ],
    );
    let of = |figure: &dyn Fn(&Round) -> Option<f64>| median(rounds.iter().filter_map(figure));
    table.row([
        Cell::number(f64::from(count), 0),
        Cell::number(of(&|round| Some(f64::from(round.came.up))), 0),
        Cell::number(of(&|round| Some(round.came.seconds)), 2),
        Cell::number(of(&|round| Some(f64::from(round.came.again))), 0),
        Cell::number(of(&|round| Some(round.cpu)), 2),
        Cell::number(of(&|round| Some(round.before.answered as f64)), 0),
        Cell::number(of(&|round| Some(ms(round.before.half))), 2),
        Cell::number(of(&|round| Some(ms(round.before.most))), 1),
        Cell::number(of(&|round| Some(ms(round.before.worst))), 1),
        Cell::number(of(&|round| Some(round.during.answered as f64)), 0),
        Cell::number(of(&|round| Some(ms(round.during.half))), 2),
        Cell::number(of(&|round| Some(ms(round.during.most))), 1),
        Cell::number(of(&|round| Some(ms(round.during.worst))), 1),
        Cell::number(
            Some(rounds.iter().map(|round| round.before.lost + round.during.lost).sum::<usize>() as f64),
            0,
        ),
    ]);
    report.tables.push(table);
    Ok(report)
}

fn round(setup: &Setup, count: u32) -> Result<Round> {
    setup.world.build(Layout::Sites)?;
    setup.world.join(HOST, 100)?;
    crowd::make_room(&setup.world, "moon")?;
    let users = format!("DEFAULT Cleartext-Password := \"{PASSWORD}\"\n");
    let server = FreeRadius::start_quiet(&setup.world, &setup.results, ("alice", ALICE), &users)?;
    let Tussocks { mut moon, mut sun } = Tussocks::new(setup, Cipher::Aes128gcm)?;
    let pki = Pki::of(KeyType::Ecdsa)?;
    let own =
        format!("cert = [{}], key = {}", quoted(&shown(&pki.cert("moon"))), quoted(&shown(&pki.key("moon"))));
    moon.append(&format!(
        "[radius]\n[[radius.server]]\naddress = \"{ALICE}\"\nsecret = {}\n\
         [realm.{HOST}]\nlocal = [\"{MOON}\"]\nencap = \"udp\"\nike = [\"{}\"]\nunique = false\nike_rekey = \"0s\"\n\
         local_auth = {{ method = \"pubkey\", id = \"moon.lab.test\", {own} }}\n\
         remote_auth = {{ method = \"eap\", radius = true, id = \"{IDS}\" }}\n\
         [[realm.{HOST}.child]]\nname = \"net\"\nlocal = [\"{MOON_NET}\"]\nremote = [\"{INSIDE}\"]\n\
         esp = [\"aes128gcm16\"]\nrekey = \"0s\"\n",
        quoted(SECRET),
        SITES.ike
    ))?;
    come_up(&mut moon, &mut sun)?;
    let pid = moon.pid().context("moon has no process")?;
    let stream = |name: &str| Stream::every(&setup.world, "alice", BOB, PAUSE, &setup.results.join(name));
    let before = stream("before.log")?;
    sleep(Duration::from_secs(2));
    let before = before.round_trips()?;
    let kind = Kind { window: count, ..Kind::initiators(Proof::Eap, true) };
    let mut crowd = Crowd::start(setup, &kind)?;
    let cpu = meter::cpu(pid)?;
    let pings = stream("meanwhile.log")?;
    crowd.want(count)?;
    let came = crowd.await_end(PATIENCE)?;
    let during = pings.round_trips()?;
    let cpu = 1e3 * (meter::cpu(pid)? - cpu) / f64::from(count);
    if came.up < count {
        bail!("{} of {count} came up: {}", came.up, came.why.unwrap_or_default());
    }
    drop(crowd);
    moon.kill();
    sun.kill();
    drop(server);
    Ok(Round { came, cpu, before, during })
}

fn ms(time: Duration) -> f64 {
    1e3 * time.as_secs_f64()
}
