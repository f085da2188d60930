//! Playing a scenario: two gateways on the built map, the steps one after the other, a log of both.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::capture::Capture;
use crate::interop::residue::Residue;
use crate::interop::scenario::{Course, Disagreement, OnWire, Scenario, Words};
use crate::peer::{self, Peer, Tunnel, await_nothing, await_tunnel};
use crate::ping;
use crate::process;
use crate::tunnel::{Auth, Start};
use crate::world::{BRIDGE, POOL, World};

/// Who made a gateway.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Maker {
    /// We.
    Tussock,
    /// strongSwan.
    StrongSwan,
}

impl Maker {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Maker::Tussock => "tussock",
            Maker::StrongSwan => "strongSwan",
        }
    }
}

/// A scenario with its cast, on the map.
pub struct Stage<'a> {
    /// The map, already built.
    pub world: &'a World,
    /// What is played.
    pub scenario: &'a Scenario,
    /// The end that calls.
    pub initiator: Box<dyn Peer + 'a>,
    /// The end that is called.
    pub responder: Box<dyn Peer + 'a>,
    /// Who made the two, initiator first.
    pub makers: (Maker, Maker),
    /// The hosts of the two, initiator first.
    pub hosts: (&'static str, &'static str),
    /// Where logs are kept.
    pub results: &'a Path,
    /// The steps taken, with their times.
    pub steps: Steps,
}

/// A log of steps; the last one begun is where a failure happened.
pub struct Steps {
    file: File,
    began: Instant,
    current: String,
}

impl Steps {
    /// A fresh log in a folder.
    pub fn new(results: &Path) -> Result<Steps> {
        let file = File::create(results.join("steps.log"))?;
        Ok(Steps { file, began: Instant::now(), current: String::new() })
    }

    /// Begin a step.
    pub fn begin(&mut self, what: impl Into<String>) {
        self.current = what.into();
        writeln!(self.file, "{:8.3}  {}", self.began.elapsed().as_secs_f64(), self.current).ok();
    }

    /// The step begun last.
    pub fn current(&self) -> &str {
        &self.current
    }
}

impl Stage<'_> {
    /// Play it to the end.
    pub fn play(&mut self) -> Result<()> {
        let capture = Capture::start(self.world, "inet", BRIDGE, &self.results.join("wire.pcap"), "")?;
        let before = self.stock()?;
        self.steps.begin("both gateways start");
        self.responder.start()?;
        self.initiator.start()?;
        match self.scenario.course {
            Course::Full => self.full()?,
            Course::Short => self.short()?,
            Course::Refused { over, initiator, responder } => self.refused(over, initiator, responder)?,
        }
        self.steps.begin("both gateways end");
        self.initiator.stop()?;
        self.responder.stop()?;
        self.as_it_was(&before, "after both gateways have ended")?;
        self.steps.begin("the capture is looked through");
        self.wire(capture)
    }

    fn full(&mut self) -> Result<()> {
        let loaded = self.stock()?;
        self.come_up()?;
        let stream = self.stream()?;
        self.rekey(End::Initiator, What::Child)?;
        self.rekey(End::Responder, What::Child)?;
        self.rekey(End::Initiator, What::Ike)?;
        self.rekey(End::Responder, What::Ike)?;
        self.steps.begin("no ping was lost at the rekeyings");
        stream.finish()?;
        self.end_by(End::Initiator, &loaded)?;
        self.come_up()?;
        self.end_by(End::Responder, &loaded)
    }

    fn short(&mut self) -> Result<()> {
        let loaded = self.stock()?;
        self.come_up()?;
        let stream = self.stream()?;
        self.rekey(End::Initiator, What::Child)?;
        self.rekey(End::Responder, What::Ike)?;
        self.steps.begin("no ping was lost at the rekeyings");
        stream.finish()?;
        self.end_by(End::Initiator, &loaded)
    }

    fn refused(&mut self, over: Disagreement, initiator: Words, responder: Words) -> Result<()> {
        let loaded = self.stock()?;
        self.steps.begin("the tunnel is refused");
        if self.initiator.up().is_ok() {
            bail!("it came up: {:?}", self.initiator.sas()?);
        }
        self.steps.begin("both logs say why");
        self.says(End::Initiator, initiator)?;
        self.says(End::Responder, responder)?;
        // Refusing the first Child SA leaves the IKE SA to be used for another (RFC 7296 section 1.2).
        if matches!(over, Disagreement::Esp | Disagreement::Selectors) {
            self.steps.begin("no Child SA is left, and the IKE SA can be ended");
            for sa in self.initiator.sas()?.iter().chain(&self.responder.sas()?) {
                if !sa.children.is_empty() {
                    bail!("a Child SA is left: {sa:?}");
                }
            }
            if !self.initiator.sas()?.is_empty() {
                self.initiator.down()?;
            }
        }
        self.steps.begin("nothing is left");
        await_nothing(&*self.initiator, "after the refusal")?;
        await_nothing(&*self.responder, "after the refusal")?;
        self.as_it_was(&loaded, "after the refusal")
    }

    /// Up, agreed on by both ends, and pings answered both ways.
    fn come_up(&mut self) -> Result<()> {
        self.steps.begin("the tunnel comes up");
        match self.scenario.start {
            Start::Manual => self.initiator.up()?,
            Start::Traffic => {
                let [(from, to), _] = self.pings()?;
                ping::until_answered(self.world, from, &to, Duration::from_secs(10))?;
            }
        }
        self.steps.begin("both ends list the same SAs");
        self.agree("after coming up", |_| true)?;
        self.steps.begin("pings are answered both ways");
        self.pings()?.iter().try_for_each(|(from, to)| ping::check(self.world, from, to))
    }

    /// The scenario's pings, with the address a roadwarrior got.
    fn pings(&self) -> Result<[(&'static str, String); 2]> {
        let [one, other] = self.scenario.pings();
        let known = |(from, to): (&'static str, Option<&'static str>)| -> Result<_> {
            let to = match to {
                Some(address) => address.to_owned(),
                None => virtual_address(self.world, self.scenario.layout.far_end())?,
            };
            Ok((from, to))
        };
        Ok([known(one)?, known(other)?])
    }

    fn stream(&mut self) -> Result<ping::Stream> {
        let [(from, to), _] = self.pings()?;
        ping::Stream::start(self.world, from, &to, &self.results.join("ping.log"))
    }

    fn rekey(&mut self, by: End, what: What) -> Result<()> {
        let step = format!("{} rekeys the {}", by.name(), what.name());
        self.steps.begin(step.clone());
        let before = self.agree("before the rekey", |_| true)?;
        match what {
            What::Child => self.peer(by).rekey_child()?,
            What::Ike => self.peer(by).rekey_ike()?,
        }
        self.agree(&step, |now| match what {
            What::Child => now.child != before.child && now.ike == before.ike,
            What::Ike => now.ike != before.ike && now.child == before.child,
        })?;
        // Let a few pings pass under the new keys before the next step.
        std::thread::sleep(Duration::from_millis(150));
        Ok(())
    }

    fn end_by(&mut self, by: End, loaded: &[Residue; 2]) -> Result<()> {
        self.steps.begin(format!("{} ends it and nothing is left", by.name()));
        self.peer(by).down()?;
        await_nothing(&*self.initiator, "after the end")?;
        await_nothing(&*self.responder, "after the end")?;
        self.as_it_was(loaded, "after the end")
    }

    /// Wait until both ends list one tunnel that is right, and the same one. Returned as the initiator sees it.
    fn agree(&self, what: &str, is_right: impl Fn(&Tunnel) -> bool) -> Result<Tunnel> {
        let seen = await_tunnel(&*self.initiator, what, &is_right)?;
        await_tunnel(&*self.responder, what, |other| {
            let (inbound, outbound) = &seen.child;
            other.ike == seen.ike && other.child == (outbound.clone(), inbound.clone())
        })
        .with_context(|| format!("the initiator has {seen:?}"))?;
        Ok(seen)
    }

    fn says(&self, by: End, words: Words) -> Result<()> {
        let (maker, peer) = match by {
            End::Initiator => (self.makers.0, &self.initiator),
            End::Responder => (self.makers.1, &self.responder),
        };
        let any_of = match maker {
            Maker::Tussock => words.tussock,
            Maker::StrongSwan => words.strongswan,
        };
        let said = process::until(Duration::from_secs(2), || {
            let text = peer::log_text(&**peer);
            Ok(any_of.iter().any(|words| text.contains(words)).then_some(()))
        })?;
        if said.is_none() {
            bail!("the log of {} does not say {any_of:?}", peer.maker());
        }
        Ok(())
    }

    fn peer(&self, by: End) -> &dyn Peer {
        match by {
            End::Initiator => &*self.initiator,
            End::Responder => &*self.responder,
        }
    }

    fn stock(&self) -> Result<[Residue; 2]> {
        Ok([Residue::of(self.world, self.hosts.0)?, Residue::of(self.world, self.hosts.1)?])
    }

    fn as_it_was(&self, before: &[Residue; 2], when: &str) -> Result<()> {
        before.iter().try_for_each(|residue| residue.must_return(self.world, when))
    }

    /// What an observer saw: IKE, ESP the way it was asked for, and nothing else.
    fn wire(&self, capture: Capture) -> Result<()> {
        let seen = capture.finish()?;
        if let Some(odd) = seen.others.first() {
            bail!("{} packets that are neither IKE nor ESP, the first: {odd}", seen.others.len());
        }
        if matches!(self.scenario.course, Course::Refused { .. }) {
            if seen.esp_in_udp + seen.esp_raw > 0 {
                bail!("ESP crossed the wire though the tunnel was refused: {seen:?}");
            }
            return Ok(());
        }
        let right = match self.scenario.on_wire() {
            OnWire::Udp => seen.esp_in_udp > 0 && seen.esp_raw == 0,
            OnWire::Raw => seen.esp_raw > 0 && seen.esp_in_udp == 0,
        };
        if !right {
            bail!("ESP did not travel as {:?}: {seen:?}", self.scenario.on_wire());
        }
        if self.scenario.fragment_size.is_some() && seen.ike_fragments < 4 {
            bail!("too few IKE fragments: {seen:?}");
        }
        if self.scenario.auth == Auth::Psk && seen.ike_fragments > 0 {
            bail!("IKE fragments where none were needed: {seen:?}");
        }
        Ok(())
    }
}

#[derive(Clone, Copy)]
enum End {
    Initiator,
    Responder,
}

impl End {
    fn name(self) -> &'static str {
        match self {
            End::Initiator => "the initiator",
            End::Responder => "the responder",
        }
    }
}

#[derive(Clone, Copy)]
enum What {
    Child,
    Ike,
}

impl What {
    fn name(self) -> &'static str {
        match self {
            What::Child => "Child SA",
            What::Ike => "IKE SA",
        }
    }
}

/// The address of the pool that a host has, on whatever interface.
pub fn virtual_address(world: &World, host: &str) -> Result<String> {
    virtual_address_in(world, host, POOL)
}

/// The address that a host has of another pool, whose length is 24.
pub fn virtual_address_in(world: &World, host: &str, pool: &str) -> Result<String> {
    let net = pool.trim_end_matches("0/24");
    let has =
        process::run(Command::new("ip").args(["-n", &world.net.name(host), "-o", "-4", "addr", "show"]))?;
    let mut words = has.split_whitespace().filter_map(|word| word.split('/').next());
    let found = words.find(|word| word.starts_with(net));
    found.map(str::to_owned).with_context(|| format!("{host} has no address of {pool}:\n{has}"))
}

/// A fresh folder for the logs of a run.
pub fn fresh(results: &Path) -> Result<()> {
    fs::remove_dir_all(results).ok();
    fs::create_dir_all(results).with_context(|| format!("cannot make {}", results.display()))
}
