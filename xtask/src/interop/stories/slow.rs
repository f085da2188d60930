//! Servers that accept and never answer: whoever needs nothing from them does not notice, and whoever does is not kept for ever.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::couple::{Authority, Couple, MOON, SERVER, SUN, listens, stop};
use super::{Place, Story};
use crate::interop::course::{Steps, virtual_address_in};
use crate::interop::scenario::{SECRET, SITES, Scenario};
use crate::peer::{Peer, await_nothing, await_tunnel, log_text};
use crate::ping;
use crate::process::{self, Daemon};
use crate::tunnel::End;
use crate::tussock::quoted;
use crate::world::{self, ALICE, Layout};

pub const STORIES: &[Story] = &[Story::ours(
    "slow-servers",
    "an OCSP responder and a CRL server that never answer: another realm's tunnel comes up meanwhile, relaxed lets in after the bound, strict refuses",
    slow,
)
.cast("tussock <-> strongSwan, tussock")];

/// A server that accepts, says so in its log, and nothing to whom it accepted.
const MUTE: &str = "import socket, sys
server = socket.create_server((sys.argv[1], int(sys.argv[2])))
kept = []
while True:
    kept.append(server.accept())
    print('accepted', flush=True)";

/// What another realm's clients are given.
const QUICK_POOL: &str = "10.3.1.0/24";

fn slow(place: &Place<'_>, steps: &mut Steps) -> Result<()> {
    let lists = Authority::new(place, "lists", &["--crl-url", &format!("http://{SERVER}:8080/ca.crl")])?;
    let answers = Authority::new(place, "answers", &["--ocsp-url", &format!("http://{SERVER}:8081/")])?;
    for name in [MOON, SUN] {
        lists.issue(name)?;
        answers.issue(name)?;
    }
    let crl = mute(place, 8080)?;
    let ocsp = mute(place, 8081)?;
    let mut couple = Couple::new(place, &answers)?;
    couple.judge(&answers, ", revocation = \"relaxed\"")?;
    couple.moon.append(&quick_realm())?;
    // What strongSwan makes of such servers is its own story.
    couple.sun.fetches_nothing()?;
    couple.start()?;

    steps.begin("the responder is asked about sun, and says nothing");
    let mut up = couple.moon.follow(&["up", "site/net"], &place.results.join("up.log"))?;
    await_accepted(&ocsp)?;
    steps.begin("meanwhile erin, whom another realm knows by a secret, comes up and reaches alice");
    place.world.join("erin", 101)?;
    let mut erin = place.tussock(&erins_end())?;
    erin.start()?;
    erin.up()?;
    await_tunnel(&erin, "one tunnel", |_| true)?;
    ping::check(place.world, "erin", ALICE)?;
    ping::check(place.world, "alice", &virtual_address_in(place.world, "erin", QUICK_POOL)?)?;
    if up.has_ended() || log_text(&couple.moon).contains("could not be found out") {
        bail!("sun's certificate was not waited for as long as that");
    }
    erin.down()?;
    await_nothing(&erin, "after the end")?;
    erin.stop()?;
    steps.begin("when the server's time is over, relaxed lets sun in, with a warning");
    ended(&mut up)?;
    let seen = await_tunnel(&couple.moon, "one tunnel", |_| true)?;
    await_tunnel(&couple.sun, "the same tunnel", |other| other.ike == seen.ike)?;
    place.pings()?;
    let log = log_text(&couple.moon);
    if !(log.contains("could not be found out") && log.contains("the realm is relaxed")) {
        bail!("moon's log has no warning");
    }
    couple.end()?;

    steps.begin(
        "strongSwan calls, with a certificate whose list cannot be had: strict refuses after the bound",
    );
    couple.suns(&lists)?;
    couple.moons(&lists, "")?;
    couple.judge(&lists, ", revocation = \"strict\"")?;
    couple.reload()?;
    couple.refused(&couple.sun, &["the realm is strict"], &["AUTHENTICATION_FAILED", "AUTH_FAILED"])?;
    await_accepted(&crl)?;
    steps.begin("and at once while that is known, when we call");
    couple.refused(&couple.moon, &["a moment ago"], &["AUTHENTICATION_FAILED", "AUTH_FAILED"])?;
    stop(crl)?;
    stop(ocsp)
}

fn mute(place: &Place<'_>, port: u16) -> Result<Daemon> {
    let mut command = place.world.on("moon", "python3");
    command.args(["-u", "-c", MUTE, SERVER, &port.to_string()]);
    let mut daemon = Daemon::start(&mut command, &place.results.join(format!("mute-{port}.log")))?;
    listens(place, "moon", port, &mut daemon)?;
    Ok(daemon)
}

fn await_accepted(server: &Daemon) -> Result<()> {
    let accepted = process::until(Duration::from_secs(10), || {
        Ok(fs::read_to_string(server.log())?.contains("accepted").then_some(()))
    })?;
    accepted.context("nobody asked the server")
}

/// A command that was left alone ends well.
fn ended(up: &mut Daemon) -> Result<()> {
    let ended = process::until(Duration::from_secs(20), || Ok(up.has_ended().then_some(())))?;
    ended.with_context(|| format!("`tussock up` goes on: {}", process::tail(up.log(), 5)))
}

/// Another realm of moon's.
fn quick_realm() -> String {
    format!(
        "[[psk]]\nids = []\nrealm = \"quick\"\nsecret = {secret}\n\n[realm.quick]\nlocal = [{moon}]\nencap = \"udp\"\n\
         ike = [{ike}]\nlocal_auth = {{ method = \"psk\", id = \"quick.lab.test\" }}\n\
         remote_auth = {{ method = \"psk\", id = \"*@quick.test\" }}\npool = {{ ipv4 = {QUICK_POOL:?} }}\n\n\
         [[realm.quick.child]]\nname = \"net\"\nlocal = [{net}]\nremote = [\"dynamic\"]\nesp = [{esp}]\n",
        secret = quoted(SECRET),
        moon = quoted(world::MOON),
        ike = quoted(SITES.ike),
        net = quoted(world::MOON_NET),
        esp = quoted(SITES.esp),
    )
}

fn erins_end() -> End {
    let roadwarrior = Scenario { layout: Layout::Roadwarrior, ..SITES };
    End {
        host: "erin",
        id: "erin@quick.test".to_owned(),
        peer_id: "quick.lab.test".to_owned(),
        ..roadwarrior.far()
    }
}
