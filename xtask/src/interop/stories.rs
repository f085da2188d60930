//! What no configuration of a peer can show: our gateway killed, ended, reloaded, and read by Wireshark.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::capture::Capture;
use crate::interop::course::Steps;
use crate::interop::residue::Residue;
use crate::interop::scenario::SITES;
use crate::peer::{Peer, Tunnel, await_nothing, await_tunnel, log_text};
use crate::ping;
use crate::process;
use crate::strongswan::{Release, StrongSwan};
use crate::tunnel::{CHILD, End, REALM};
use crate::tussock::Tussock;
use crate::world::{ALICE, BOB, BRIDGE, World};

/// One story.
pub struct Story {
    /// Its name, for filters and folders.
    pub name: &'static str,
    /// What it shows, one line.
    pub shows: &'static str,
    /// Who plays.
    pub roles: &'static str,
    /// Play it on the site-to-site map.
    pub play: fn(&Place<'_>, &mut Steps) -> Result<()>,
}

/// Where a story is played.
pub struct Place<'a> {
    /// The map, already built.
    pub world: &'a World,
    /// Our binary.
    pub binary: &'a Path,
    /// Where logs are kept.
    pub results: &'a Path,
}

/// All of them.
pub const STORIES: &[Story] = &[
    Story {
        name: "killed",
        shows: "killed with -9 it leaves no device and no route; started again it has its tunnel back",
        roles: "tussock -> tussock",
        play: killed,
    },
    Story {
        name: "peer-killed",
        shows: "a peer killed with -9 is noticed, and the tunnel comes back when it is started again",
        roles: "tussock -> tussock",
        play: peer_killed,
    },
    Story {
        name: "shutdown",
        shows: "ended with SIGTERM it sends Deletes, and nothing is left on either side",
        roles: "tussock -> tussock",
        play: shutdown,
    },
    Story {
        name: "reload",
        shows: "reload keeps tunnels whose realm did not change, and a broken file changes nothing",
        roles: "tussock -> tussock",
        play: reload,
    },
    Story {
        name: "wireshark-cbc",
        shows: "tshark decrypts our IKE messages with the key log: AES-CBC with HMAC-SHA2-256",
        roles: "tussock -> strongSwan",
        play: |place, steps| wireshark(place, steps, "aes128-sha256-modp2048"),
    },
    Story {
        name: "wireshark-ctr",
        shows: "tshark decrypts our IKE messages with the key log: AES-CTR with HMAC-SHA2-384",
        roles: "tussock -> strongSwan",
        play: |place, steps| wireshark(place, steps, "aes256ctr-sha384-ecp256"),
    },
    Story {
        name: "wireshark-gcm",
        shows: "tshark decrypts our IKE messages with the key log: AES-GCM with a 16-octet ICV",
        roles: "tussock -> strongSwan",
        play: |place, steps| wireshark(place, steps, "aes256gcm16-prfsha384-ecp384"),
    },
];

/// The two tails of logs a failure shows are those of these hosts.
pub const HOSTS: [&str; 2] = ["moon", "sun"];

impl<'a> Place<'a> {
    fn tussock(&self, end: &End) -> Result<Tussock<'a>> {
        Tussock::new(self.world, end, self.binary, self.results)
    }

    /// Moon and sun, ours, running, with a tunnel that pings.
    fn pair(&self, steps: &mut Steps) -> Result<(Tussock<'a>, Tussock<'a>)> {
        let mut moon = self.tussock(&SITES.moon())?;
        let mut sun = self.tussock(&SITES.far())?;
        moon.rewrite(|text| text.replace(RETRANSMIT.0, RETRANSMIT.1))?;
        steps.begin("both gateways start");
        sun.start()?;
        moon.start()?;
        self.come_up(steps, &moon, &sun)?;
        Ok((moon, sun))
    }

    fn come_up(&self, steps: &mut Steps, moon: &Tussock<'_>, sun: &Tussock<'_>) -> Result<Tunnel> {
        steps.begin("the tunnel comes up");
        moon.up()?;
        let seen = agree(moon, sun)?;
        self.pings()?;
        Ok(seen)
    }

    fn pings(&self) -> Result<()> {
        ping::check(self.world, "alice", BOB)?;
        ping::check(self.world, "bob", ALICE)
    }

    fn stock(&self) -> Result<[Residue; 2]> {
        Ok([Residue::of(self.world, "moon")?, Residue::of(self.world, "sun")?])
    }
}

/// A peer that is gone is given up after three seconds in these stories.
const RETRANSMIT: (&str, &str) =
    ("[gateway]\n", "[gateway]\nretransmit = { tries = 3, first = \"1s\", base = 1.0 }\n");

fn agree(moon: &Tussock<'_>, sun: &Tussock<'_>) -> Result<Tunnel> {
    let seen = await_tunnel(moon, "one tunnel", |_| true)?;
    await_tunnel(sun, "the same tunnel", |other| other.ike == seen.ike)?;
    Ok(seen)
}

fn killed(place: &Place<'_>, steps: &mut Steps) -> Result<()> {
    let [moon_before, sun_before] = place.stock()?;
    let (mut moon, mut sun) = place.pair(steps)?;
    steps.begin("moon is killed and leaves nothing");
    moon.kill();
    moon_before.without_rules().must_return(place.world, "after kill -9")?;
    steps.begin("moon is started again");
    moon.start()?;
    place.come_up(steps, &moon, &sun)?;
    steps.begin("sun has forgotten the old SAs");
    let left = sun.sas()?.len();
    if left != 1 {
        bail!("sun has {left} IKE SAs: {:?}", sun.sas()?);
    }
    steps.begin("both end, nothing is left");
    moon.stop()?;
    sun.stop()?;
    moon_before.must_return(place.world, "after the end")?;
    sun_before.must_return(place.world, "after the end")
}

fn peer_killed(place: &Place<'_>, steps: &mut Steps) -> Result<()> {
    let mut moon = place.tussock(&SITES.moon())?;
    let mut sun = place.tussock(&SITES.far())?;
    moon.rewrite(|text| {
        let dpd = "dpd = { delay = \"1s\", action = \"restart\" }\nlocal_auth";
        text.replace(RETRANSMIT.0, RETRANSMIT.1).replace("local_auth", dpd)
    })?;
    steps.begin("both gateways start");
    sun.start()?;
    moon.start()?;
    let before = place.come_up(steps, &moon, &sun)?;
    steps.begin("sun is killed, which moon notices");
    sun.kill();
    let gone = process::until(Duration::from_secs(10), || {
        Ok((!moon.sas()?.iter().any(|sa| sa.spis == before.ike)).then_some(()))
    })?;
    gone.context("moon keeps an SA with a peer that is gone")?;
    steps.begin("sun is started again, and the tunnel comes back by itself");
    sun.start()?;
    let back = process::until(Duration::from_secs(20), || {
        Ok((!moon.sas()?.is_empty() && agree(&moon, &sun).is_ok()).then_some(()))
    })?;
    back.with_context(|| format!("no tunnel again: {:?}", moon.sas()))?;
    place.pings()
}

fn shutdown(place: &Place<'_>, steps: &mut Steps) -> Result<()> {
    let [moon_before, sun_before] = place.stock()?;
    let (mut moon, mut sun) = place.pair(steps)?;
    steps.begin("moon is ended, and sun hears of it");
    moon.stop()?;
    await_nothing(&sun, "after moon's end")?;
    if !log_text(&sun).contains("deleted by the peer") {
        bail!("sun does not say that the peer deleted the SAs");
    }
    moon_before.must_return(place.world, "after SIGTERM")?;
    steps.begin("sun ends too");
    sun.stop()?;
    sun_before.must_return(place.world, "after SIGTERM")
}

fn reload(place: &Place<'_>, steps: &mut Steps) -> Result<()> {
    let (moon, sun) = place.pair(steps)?;
    let before = agree(&moon, &sun)?;
    let stream = ping::Stream::start(place.world, "alice", BOB, &place.results.join("ping.log"))?;
    let stays = |what: &str| -> Result<()> {
        std::thread::sleep(Duration::from_millis(300));
        let now = agree(&moon, &sun)?;
        if now != before {
            bail!("{what}: the tunnel was {before:?} and is {now:?}");
        }
        Ok(())
    };
    steps.begin("a realm is added");
    moon.rewrite(|text| {
        let (_, realm) = text.split_once("[realm.site]").unwrap_or_default();
        let other = realm.replace("realm.site", "realm.other").replace("192.168.0.2", "192.168.0.99");
        format!("{text}\n[realm.other]{}", other.replace("10.2.0.0", "10.99.0.0"))
    })?;
    moon.order(&["reload"])?;
    stays("after a realm was added")?;
    if !moon.order(&["status", "--json"])?.contains("\"other\"") {
        bail!("the new realm is not there");
    }
    steps.begin("a broken file is refused with its line");
    let good = moon.text()?;
    moon.rewrite(|text| format!("{text}\nnonsense = 1\n"))?;
    match moon.order(&["reload"]) {
        Ok(_) => bail!("a broken file was accepted"),
        Err(error) if !format!("{error:#}").contains("gateway.toml:") => {
            return Err(error.context("the refusal names no line"));
        }
        Err(_) => {}
    }
    stays("after a broken file")?;
    steps.begin("the realm of the tunnel is removed");
    moon.rewrite(|_| good.clone())?;
    stream.finish()?;
    moon.rewrite(|text| {
        let start = text.find("[realm.site]").unwrap_or(0);
        let end = text.find("[realm.other]").unwrap_or(text.len());
        text.get(..start).unwrap_or_default().to_owned() + text.get(end..).unwrap_or_default()
    })?;
    moon.order(&["reload"])?;
    await_nothing(&moon, "after its realm was removed")?;
    await_nothing(&sun, "after moon's realm was removed")
}

/// A session with rekeyings, captured, and every encrypted message read by tshark with the keys we logged.
fn wireshark(place: &Place<'_>, steps: &mut Steps, suite: &str) -> Result<()> {
    let (mut ours, mut theirs) = (SITES.moon(), SITES.far());
    for end in [&mut ours, &mut theirs] {
        suite.clone_into(&mut end.ike);
    }
    let home = place.results.join("tshark");
    let keys = home.join("wireshark");
    fs::create_dir_all(&keys)?;
    let mut moon = place.tussock(&ours)?;
    moon.rewrite(|text| {
        text.replacen("[gateway]\n", &format!("[gateway]\nkeylog = \"{}\"\n", keys.display()), 1)
    })?;
    let mut sun = StrongSwan::new(place.world, theirs, Release::Host, place.results)?;
    let file = place.results.join("wire.pcap");
    let capture = Capture::start(place.world, "inet", BRIDGE, &file, "")?;
    steps.begin("a session with rekeyings");
    sun.start()?;
    moon.start()?;
    moon.up()?;
    let first = await_tunnel(&moon, "after coming up", |_| true)?;
    place.pings()?;
    moon.order(&["rekey", &format!("{REALM}/{CHILD}")])?;
    let second = await_tunnel(&moon, "after the Child rekey", |now| now.child != first.child)?;
    sun.rekey_ike()?;
    await_tunnel(&moon, "after the IKE rekey", |now| now.ike != second.ike)?;
    place.pings()?;
    moon.down()?;
    await_nothing(&moon, "after the end")?;
    let seen = capture.finish()?;
    steps.begin("tshark reads all of it");
    let shown = tshark(&file, &home, &["-V", "-Y", "isakmp"])?;
    fs::write(place.results.join("tshark.txt"), &shown)?;
    let count = |what: &str| shown.lines().filter(|line| line.contains(what)).count();
    let decrypted = count("Decrypted Data (");
    // Two messages of IKE_SA_INIT are in clear.
    if decrypted + 2 != seen.ike {
        bail!("{} IKE messages, of which {decrypted} were decrypted", seen.ike);
    }
    let genuine =
        shown.lines().filter(|line| line.contains("Integrity Checksum Data") && line.contains("[correct]"));
    let genuine = genuine.count();
    if genuine != decrypted {
        bail!("{decrypted} messages were decrypted, but the checksum of {genuine} is correct");
    }
    for bad in ["Malformed Packet", "[incorrect", "Bad: ", "Expert Info (Error"] {
        if count(bad) > 0 {
            bail!("tshark complains of \"{bad}\"; see tshark.txt");
        }
    }
    for part in
        ["Identification - Initiator", "Authentication (39)", "Traffic Selector - Initiator", "Delete (42)"]
    {
        if count(part) == 0 {
            bail!("tshark shows no \"{part}\"; see tshark.txt");
        }
    }
    Ok(())
}

fn tshark(file: &Path, home: &Path, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new("tshark");
    command.args(["-n", "-r"]).arg(file).args(arguments).env("XDG_CONFIG_HOME", home);
    let done = process::finish(&mut command, Duration::from_secs(60))?;
    if !done.status.success() {
        bail!("tshark: {}", done.stderr.trim());
    }
    Ok(done.stdout)
}
