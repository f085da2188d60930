//! What no scenario with strongSwan can show: our gateway on both ends and what it promises beyond the RFCs, and ours
//! read by Wireshark. One file a subject.

mod addresses;
mod behind_nat;
mod cards;
mod carve_outs;
mod couple;
mod credentials;
mod dpdk;
mod eap;
mod eap_revoked;
mod endings;
mod esn;
mod guarded;
mod hardship;
mod hiding;
mod lanes;
mod leases;
mod lifetimes;
mod mixed;
mod nobody;
mod padlock;
mod path_mtu;
mod plugins;
mod pools;
mod providers;
mod radius;
mod reactions;
mod realms;
mod reload;
mod remote;
mod revocation;
mod roadwarriors;
mod sessions;
mod slow;
mod stapling;
mod suites;
mod tokens;
mod transport;
mod validity;
mod watching;
mod wireshark;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::capture::Capture;
use crate::interop::course::Steps;
use crate::interop::residue::Residue;
use crate::interop::scenario::SITES;
use crate::peer::{Peer, Tunnel, await_tunnel};
use crate::ping;
use crate::process;
use crate::tunnel::End;
use crate::tussock::{GATEWAY, Tussock};
use crate::world::{ALICE, BOB, BRIDGE, Layout, World};

/// One story.
pub struct Story {
    /// Its name, for filters and folders.
    pub name: &'static str,
    /// What it shows, one line.
    pub shows: &'static str,
    /// Who plays.
    pub roles: &'static str,
    /// The part of the map it takes.
    pub layout: Layout,
    /// Packages it cannot do without, where it is skipped if they are not to be had.
    pub packages: Option<&'static [&'static str]>,
    /// Others that are unpacked for it; without them it is skipped.
    pub others: Option<fn() -> Result<()>>,
    /// Play it there.
    pub play: Play,
}

/// How a story is played.
pub type Play = fn(&Place<'_>, &mut Steps) -> Result<()>;

/// All of them, by subject.
const SUBJECTS: &[&[Story]] = &[
    endings::STORIES,
    reload::STORIES,
    wireshark::STORIES,
    transport::STORIES,
    esn::STORIES,
    lifetimes::STORIES,
    carve_outs::STORIES,
    guarded::STORIES,
    path_mtu::STORIES,
    behind_nat::STORIES,
    hardship::STORIES,
    suites::STORIES,
    credentials::STORIES,
    eap::STORIES,
    leases::STORIES,
    remote::STORIES,
    addresses::STORIES,
    pools::STORIES,
    watching::STORIES,
    reactions::STORIES,
    hiding::STORIES,
    lanes::STORIES,
    cards::STORIES,
    dpdk::STORIES,
    mixed::STORIES,
    padlock::STORIES,
    providers::STORIES,
    radius::STORIES,
    sessions::STORIES,
    roadwarriors::STORIES,
    plugins::STORIES,
    tokens::STORIES,
    revocation::STORIES,
    validity::STORIES,
    slow::STORIES,
    stapling::STORIES,
    eap_revoked::STORIES,
    realms::STORIES,
    nobody::STORIES,
];

/// All of them.
pub fn all() -> impl Iterator<Item = &'static Story> {
    SUBJECTS.iter().copied().flatten()
}

impl Story {
    /// Our gateways between two sites.
    const fn ours(name: &'static str, shows: &'static str, play: Play) -> Story {
        Story {
            name,
            shows,
            roles: "tussock -> tussock",
            layout: Layout::Sites,
            packages: None,
            others: None,
            play,
        }
    }

    /// The same elsewhere on the map.
    const fn on(self, layout: Layout) -> Story {
        Story { layout, ..self }
    }

    /// The same, where these packages are.
    const fn with(self, packages: &'static [&'static str]) -> Story {
        Story { packages: Some(packages), ..self }
    }

    /// The same, where these can be had.
    const fn asking(self, others: fn() -> Result<()>) -> Story {
        Story { others: Some(others), ..self }
    }

    /// The same with others on the stage.
    const fn cast(self, roles: &'static str) -> Story {
        Story { roles, ..self }
    }
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

impl<'a> Place<'a> {
    /// Our gateway at an end; not started yet.
    fn tussock(&self, end: &End) -> Result<Tussock<'a>> {
        Tussock::new(self.world, end, self.binary, self.results)
    }

    /// Moon and sun, ours, not started yet; moon gives up soon.
    pub fn sites(&self) -> Result<(Tussock<'a>, Tussock<'a>)> {
        let moon = self.tussock(&SITES.moon())?;
        moon.set(GATEWAY, "retransmit", PATIENCE)?;
        Ok((moon, self.tussock(&SITES.far())?))
    }

    /// Moon and sun, ours, running, with a tunnel that pings.
    fn pair(&self, steps: &mut Steps) -> Result<(Tussock<'a>, Tussock<'a>)> {
        let (mut moon, mut sun) = self.sites()?;
        self.begin(steps, &mut moon, &mut sun)?;
        Ok((moon, sun))
    }

    /// Start both and bring the tunnel up.
    pub fn begin(&self, steps: &mut Steps, moon: &mut Tussock<'_>, sun: &mut Tussock<'_>) -> Result<Tunnel> {
        steps.begin("both gateways start");
        sun.start()?;
        moon.start()?;
        self.come_up(steps, moon, sun)
    }

    fn come_up(&self, steps: &mut Steps, moon: &Tussock<'_>, sun: &Tussock<'_>) -> Result<Tunnel> {
        steps.begin("the tunnel comes up");
        moon.up()?;
        let seen = agree(moon, sun)?;
        self.pings()?;
        Ok(seen)
    }

    /// Pings of both directions; an error unless all are answered.
    pub fn pings(&self) -> Result<()> {
        ping::check(self.world, "alice", BOB)?;
        ping::check(self.world, "bob", ALICE)
    }

    fn stock(&self) -> Result<[Residue; 2]> {
        Ok([Residue::of(self.world, "moon")?, Residue::of(self.world, "sun")?])
    }

    /// A capture of the whole outside.
    fn wire(&self, name: &str) -> Result<Capture> {
        Capture::start(self.world, "inet", BRIDGE, &self.results.join(name), "")
    }
}

/// A peer that is gone is given up after three seconds in these stories.
const PATIENCE: &str = "{ tries = 3, first = \"1s\", base = 1.0 }";

fn agree(moon: &Tussock<'_>, sun: &Tussock<'_>) -> Result<Tunnel> {
    let seen = await_tunnel(moon, "one tunnel", |_| true)?;
    await_tunnel(sun, "the same tunnel", |other| other.ike == seen.ike)?;
    Ok(seen)
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
