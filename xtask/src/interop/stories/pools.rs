//! Pools at their ends: exhausted, reserved, held; leases when everything is killed, the disk is full, the database damaged.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::remote::{call, grep, inner, leases, says, server};
use super::{Place, Story};
use crate::freeradius::{self, FreeRadius};
use crate::interop::course::Steps;
use crate::interop::scenario::{SITES, Scenario};
use crate::packages;
use crate::peer::{Peer, await_tunnel, log_text};
use crate::ping;
use crate::process::{self, Daemon};
use crate::strongswan::{Release, StrongSwan};
use crate::tunnel::{Auth, End, KeyType, Lease};
use crate::tussock::{SITE, Tussock, quoted};
use crate::world::{ALICE, Layout, MOON, World};

pub const STORIES: &[Story] = &[
    Story::ours(
        "pool-ends",
        "an exhausted pool, reserved addresses and the time a lease is held, as both ends say it; all of it after kill -9 of everything",
        ends,
    )
    .on(Layout::Roadwarrior)
    .cast("tussock, strongSwan -> tussock"),
    Story::ours(
        "leases-disk",
        "leases on a full disk and in a damaged database: clients come up all the same, and the log says what is not kept",
        disk,
    )
    .on(Layout::Roadwarrior),
    Story::ours(
        "granted-twice",
        "an address that FreeRADIUS gives to two users, in a realm without a pool, is the first one's until it goes; the log says whose",
        granted,
    )
    .on(Layout::Roadwarrior)
    .with(packages::RADIUS)
    .cast("tussock -> tussock, FreeRADIUS"),
];

const HOLD: Duration = Duration::from_secs(8);

fn roadwarrior<'a>(
    place: &Place<'a>,
    scenario: &Scenario,
    host: &'static str,
    octet: u8,
) -> Result<Tussock<'a>> {
    let world = place.world;
    world.join(host, octet)?;
    world.net.ip(host, &format!("route add default via {MOON}\n"))?;
    place.tussock(&End { host, id: format!("{host}@lab.test"), ..scenario.far() })
}

/// The client is told that there is no address, and moon's log why.
fn refused(world: &World, moon: &Tussock<'_>, end: &Tussock<'_>, host: &str) -> Result<()> {
    let Err(error) = end.up() else { bail!("{host} got {:?}", inner(world, host)) };
    if !format!("{error:#}").contains("INTERNAL_ADDRESS_FAILURE") {
        bail!("{host}'s error does not say why: {error:#}");
    }
    says(moon, "no address left in the pool of realm site")
}

/// Until a database's files have these words.
fn written(folder: &Path, words: &str) -> Result<()> {
    let has = |name: &str| {
        let octets = fs::read(folder.join(name)).unwrap_or_default();
        octets.windows(words.len()).any(|part| part == words.as_bytes())
    };
    let there = process::until(Duration::from_secs(10), || {
        Ok((has("leases.db") || has("leases.db-wal")).then_some(()))
    })?;
    there.with_context(|| format!("{words} is not written to {}", folder.display()))
}

fn ends(place: &Place<'_>, steps: &mut Steps) -> Result<()> {
    let world = place.world;
    let scenario = Scenario { layout: Layout::Roadwarrior, ..SITES };
    let mut moon = server(place, &scenario, &["erin@lab.test", "frank@lab.test"])?;
    let pool = format!(
        "{{ ranges = [\"10.3.0.10-10.3.0.11\"], reserve = {{ \"carol@lab.test\" = \"10.3.0.11\" }}, hold = \"{}s\" }}",
        HOLD.as_secs()
    );
    moon.set(SITE, "pool", &pool)?;
    let mut erin = roadwarrior(place, &scenario, "erin", 101)?;
    let mut frank = roadwarrior(place, &scenario, "frank", 102)?;
    let mut carol = StrongSwan::new(world, scenario.far(), Release::Host, place.results)?;
    steps.begin("what is reserved is nobody else's, also when there is nothing else left");
    moon.start()?;
    erin.start()?;
    frank.start()?;
    if call(world, &erin, "erin")? != "10.3.0.10" {
        bail!("erin has {:?}", inner(world, "erin"));
    }
    refused(world, &moon, &frank, "frank")?;
    frank.down()?;
    steps.begin("and its owner, a strongSwan, has it");
    carol.start()?;
    carol.up()?;
    await_tunnel(&carol, "after coming up", |_| true)?;
    if !log_text(&carol).contains("installing new virtual IP 10.3.0.11") {
        bail!("carol's log: {:?}", grep(&log_text(&carol), "virtual IP"));
    }
    ping::check(world, "carol", ALICE)?;
    steps.begin("what nobody uses any more is held for who had it, and then it is another's");
    erin.down()?;
    let left = Instant::now();
    let got = process::until(HOLD * 4, || {
        if frank.up().is_ok() {
            return Ok(Some(()));
        }
        frank.down().ok();
        Ok(None)
    })?;
    got.with_context(|| format!("frank gets nothing: {:?}", leases(&moon)))?;
    // erin's time began before this end of the clock.
    if left.elapsed() + Duration::from_secs(1) < HOLD {
        bail!("frank has erin's address after {:?}", left.elapsed());
    }
    if inner(world, "frank")? != ["10.3.0.10"] {
        bail!("frank has {:?}", inner(world, "frank"));
    }
    steps.begin("everything is killed");
    written(&world.state("moon")?.join("gateway"), "frank@lab.test")?;
    moon.kill();
    frank.kill();
    carol.kill();
    moon.start()?;
    let known: Vec<(String, String)> =
        leases(&moon)?.into_iter().map(|(address, who, _)| (address, who)).collect();
    let pair = |address: &str, who: &str| (address.to_owned(), who.to_owned());
    if known != [pair("10.3.0.10", "frank@lab.test"), pair("10.3.0.11", "carol@lab.test")] {
        bail!("known after the crash: {known:?}");
    }
    steps.begin("each has its address again");
    carol.start()?;
    carol.up()?;
    await_tunnel(&carol, "after the crash", |_| true)?;
    frank.start()?;
    if call(world, &frank, "frank")? != "10.3.0.10" {
        bail!("frank has {:?}", inner(world, "frank"));
    }
    ping::check(world, "frank", ALICE)?;
    ping::check(world, "carol", ALICE)?;
    steps.begin("and a strongSwan for which there is nothing says so, too");
    carol.down()?;
    carol.stop()?;
    moon.set(SITE, "pool", "{ ranges = [\"10.3.0.10-10.3.0.10\"] }")?;
    moon.order(&["reload"])?;
    call(world, &frank, "frank")?;
    carol.start()?;
    if carol.up().is_ok() {
        bail!("carol is up: {:?}", leases(&moon)?);
    }
    let log = log_text(&carol);
    if !log.contains("received INTERNAL_ADDRESS_FAILURE notify") {
        bail!("carol's log: {:?}", grep(&log, "notify"));
    }
    for end in [&mut frank, &mut erin, &mut moon] {
        end.stop()?;
    }
    carol.stop()
}

/// A file system of a few pages, which only those see whom this lets in.
struct SmallDisk {
    holder: Daemon,
    folder: std::path::PathBuf,
}

impl SmallDisk {
    fn new(place: &Place<'_>) -> Result<SmallDisk> {
        let folder = place.results.join("disk");
        fs::create_dir_all(&folder)?;
        let folder = folder.canonicalize()?;
        let mut unshare = place.world.on("moon", "unshare");
        let line = format!(
            "mount -t tmpfs -o size=512k,mode=0777 small {0}; touch {0}/here; exec sleep 600",
            folder.display()
        );
        unshare.args(["--mount", "sh", "-ec", &line]);
        let disk =
            SmallDisk { holder: Daemon::start(&mut unshare, &place.results.join("disk.log"))?, folder };
        let there =
            process::until(Duration::from_secs(5), || Ok(disk.run("test -e here").is_ok().then_some(())))?;
        there.context("there is no small disk")?;
        Ok(disk)
    }

    fn enter(&self) -> String {
        format!("nsenter --mount=/proc/{}/ns/mnt --", self.holder.pid())
    }

    /// Runs a line of shell in it.
    fn run(&self, line: &str) -> Result<String> {
        let line = format!("cd {}; {line}", self.folder.display());
        let mut shell = std::process::Command::new("sh");
        process::run(shell.args(["-ec", &format!("exec {} sh -ec '{line}'", self.enter())]))
    }

    /// Our program, inside.
    fn wrapped(&self, place: &Place<'_>) -> Result<std::path::PathBuf> {
        let path = place.results.join("tussock-inside");
        let binary = place.binary.canonicalize()?;
        let here = std::env::current_dir()?;
        let inside = format!("cd {}; exec {} \"$@\"", here.display(), binary.display());
        fs::write(&path, format!("#!/bin/sh\nexec {} sh -ec '{inside}' sh \"$@\"\n", self.enter()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        Ok(path.canonicalize()?)
    }
}

fn disk(place: &Place<'_>, steps: &mut Steps) -> Result<()> {
    let world = place.world;
    let scenario = Scenario { layout: Layout::Roadwarrior, ..SITES };
    let mut disk = SmallDisk::new(place)?;
    let binary = disk.wrapped(place)?;
    let mut moon = Tussock::new(world, &scenario.moon(), &binary, place.results)?;
    moon.set(SITE, "remote_auth", "{ method = \"psk\", id = \"*@lab.test\" }")?;
    let erins = "[[psk]]\nids = [\"moon.lab.test\", \"erin@lab.test\"]\nsecret = ";
    moon.append(&format!("{erins}{}", quoted(crate::interop::scenario::SECRET)))?;
    let file = disk.folder.join("leases.db");
    moon.set("[gateway]", "leases", &quoted(&file.display().to_string()))?;
    let mut carol = place.tussock(&scenario.far())?;
    let mut erin = roadwarrior(place, &scenario, "erin", 101)?;
    let holds = |words: &str| -> Result<()> {
        let line = format!("cat leases.db leases.db-wal | grep -qaF {words}");
        let there = process::until(Duration::from_secs(10), || Ok(disk.run(&line).is_ok().then_some(())))?;
        there.with_context(|| format!("{words} is not written"))
    };
    steps.begin("while there is room, leases are written");
    moon.start()?;
    carol.start()?;
    erin.start()?;
    call(world, &carol, "carol")?;
    holds("carol@lab.test")?;
    steps
        .begin("the disk is full: who comes gets an address all the same, and the log says what is not kept");
    disk.run("dd if=/dev/zero of=fill bs=4k 2>/dev/null || true")?;
    let erins = call(world, &erin, "erin")?;
    ping::check(world, "erin", ALICE)?;
    says(&moon, "leases are not written until it can be")?;
    if disk.run("cat leases.db leases.db-wal | grep -qaF erin@lab.test").is_ok() {
        bail!("the disk was not full");
    }
    steps.begin("there is room again, and what was not written is");
    disk.run("rm fill")?;
    holds("erin@lab.test")?;
    steps.begin("after kill -9 it is known");
    moon.kill();
    moon.start()?;
    let known = leases(&moon)?;
    if known.len() != 2 || !known.iter().any(|(address, who, _)| *address == erins && who == "erin@lab.test")
    {
        bail!("known: {known:?}");
    }
    steps.begin("full from the start: the gateway runs, and keeps nothing");
    // Moon knows nothing of the tunnels they still believe in.
    carol.kill();
    erin.kill();
    carol.start()?;
    moon.stop()?;
    disk.run("rm -f leases.db*; dd if=/dev/zero of=fill bs=4k 2>/dev/null || true")?;
    moon.start()?;
    says(&moon, "leases are not kept over a restart")?;
    call(world, &carol, "carol")?;
    ping::check(world, "carol", ALICE)?;
    steps.begin("damaged behind a sound beginning, it is moved aside");
    moon.stop()?;
    disk.run("rm -f fill leases.db*")?;
    moon.start()?;
    call(world, &carol, "carol")?;
    holds("carol@lab.test")?;
    moon.stop()?;
    disk.run("head -c 4096 /dev/urandom | dd of=leases.db bs=4096 seek=1 conv=notrunc 2>/dev/null")?;
    moon.start()?;
    says(&moon, "it was moved to")?;
    call(world, &carol, "carol")?;
    ping::check(world, "carol", ALICE)?;
    for end in [&mut carol, &mut moon] {
        end.stop()?;
    }
    disk.holder.kill();
    Ok(())
}

fn granted(place: &Place<'_>, steps: &mut Steps) -> Result<()> {
    const PASSWORD: &str = "Ar3etTnp.01";
    const ADDRESS: &str = "10.9.0.7";
    let world = place.world;
    let scenario = Scenario { layout: Layout::Roadwarrior, auth: Auth::Cert(KeyType::Rsa), ..SITES };
    let user =
        |name: &str| format!("{name} Cleartext-Password := \"{PASSWORD}\"\n Framed-IP-Address = {ADDRESS}\n");
    let server = FreeRadius::start(world, place.results, ("alice", ALICE), &(user("carol") + &user("erin")))?;
    let mut moon = place.tussock(&End { lease: Lease::None, ..scenario.moon() })?;
    moon.set(SITE, "remote_auth", "{ method = \"eap\", radius = true }")?;
    moon.append(&format!(
        "[[radius.server]]\nname = \"one\"\naddress = \"{ALICE}\"\nsecret = {}\n",
        quoted(freeradius::SECRET)
    ))?;
    world.join("erin", 101)?;
    world.net.ip("erin", &format!("route add default via {MOON}\n"))?;
    let client = |host: &'static str| -> Result<Tussock<'_>> {
        let end = place.tussock(&End { host, ..scenario.far() })?;
        let auth = format!(
            "{{ method = \"eap\", id = \"{host}@lab.test\", eap_id = \"{host}\", eap = [\"mschapv2\"] }}"
        );
        end.set(SITE, "local_auth", &auth)?;
        end.append(&format!("[[eap]]\nuser = \"{host}\"\npassword = \"{PASSWORD}\"\n"))?;
        Ok(end)
    };
    let (mut carol, mut erin) = (client("carol")?, client("erin")?);
    steps.begin("the first one has it");
    moon.start()?;
    carol.start()?;
    erin.start()?;
    if call(world, &carol, "carol")? != ADDRESS {
        bail!("carol has {:?}", inner(world, "carol"));
    }
    ping::check(world, "carol", ALICE)?;
    steps.begin("the second one is told that it gets none, and moon's log whose it is");
    let Err(error) = erin.up() else { bail!("erin got {:?}", inner(world, "erin")) };
    if !format!("{error:#}").contains("INTERNAL_ADDRESS_FAILURE") {
        bail!("erin's error does not say why: {error:#}");
    }
    says(&moon, "10.9.0.7 was assigned by the authentication server, and carol has it in realm site")?;
    ping::check(world, "carol", ALICE)?;
    steps.begin("when the first one is gone it is the second one's");
    erin.down()?;
    carol.down()?;
    let erins = process::until(Duration::from_secs(10), || Ok(call(world, &erin, "erin").ok()))?;
    if erins.as_deref() != Some(ADDRESS) {
        bail!("erin has {erins:?}");
    }
    ping::check(world, "erin", ALICE)?;
    for end in [&mut carol, &mut erin, &mut moon] {
        end.stop()?;
    }
    drop(server);
    Ok(())
}
