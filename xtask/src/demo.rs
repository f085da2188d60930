//! `cargo xtask demo`: two gateways, two networks, one tunnel, on this machine and in a minute. One gateway has two cards, which
//! are emulated.

mod cards;

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use cards::Cards;
use clap::{Args, ValueEnum};

use crate::capture::{self, Capture};
use crate::checkout::{self, Profile};
use crate::interop::course::{Maker, fresh};
use crate::interop::scenario::SITES;
use crate::netns;
use crate::packages;
use crate::peer::{Peer, await_tunnel};
use crate::ping;
use crate::process;
use crate::strongswan::StrongSwan;
use crate::traffic::{self, Load, Way};
use crate::trixie;
use crate::tunnel::{Encap, End};
use crate::tussock::Tussock;
use crate::world::{ALICE, BOB, BRIDGE, Layout, World};

/// How the demo is run.
#[derive(Args)]
pub struct Options {
    /// Leave everything up, and say how to play with it.
    #[arg(long)]
    keep: bool,
    /// Take down what `--keep` left.
    #[arg(long, conflicts_with = "keep")]
    down: bool,
    /// Seconds to measure throughput.
    #[arg(long, default_value_t = 5)]
    seconds: u32,
    /// ESP as IP protocol 50 instead of in UDP.
    #[arg(long)]
    raw: bool,
    /// ESP proposal.
    #[arg(long, default_value = SITES.esp)]
    esp: String,
    /// strongSwan's user-space ESP at both ends instead of ours, to compare.
    #[arg(long, conflicts_with = "keep")]
    strongswan: bool,
    /// What moon works with.
    #[arg(long, value_enum, default_value_t = With::Qat)]
    accel: With,
    /// Pull a card out in the middle of a transfer, and put it back.
    #[arg(long, conflicts_with = "strongswan")]
    kill_card: bool,
}

/// What does the work.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum With {
    /// Two Intel QAT cards, emulated.
    Qat,
    /// The processor.
    Soft,
}

/// What the pings carry, sixteen bytes: easy to find where it is in clear.
const WORDS: &[u8; 16] = b"tussock-in-clear";

/// Run; true if the demo shows what it says.
pub fn run(options: &Options) -> Result<bool> {
    packages::need_root("demo")?;
    if options.down {
        let said = if netns::take_down("demo")? { "the demo is down" } else { "there was no demo" };
        println!("{said}");
        return Ok(true);
    }
    let maker = if options.strongswan { Maker::StrongSwan } else { Maker::Tussock };
    println!("\n   alice --- moon ======== inet ======== sun --- bob");
    println!("   10.1.0.10   192.168.0.1     192.168.0.2   10.2.0.10\n");
    let mut steps = Steps::default();
    match maker {
        Maker::Tussock => packages::need(&[packages::BUILD, packages::LAB, packages::DEMO])?,
        Maker::StrongSwan => packages::need(&[packages::LAB, packages::DEMO, packages::INTEROP])?,
    }
    if options.strongswan && options.raw {
        trixie::need()?;
    }
    steps.done("packages", "all there");

    let binary = match maker {
        Maker::StrongSwan => PathBuf::new(),
        Maker::Tussock => {
            let began = Instant::now();
            let binary = checkout::build_gateway(Profile::Release)?;
            steps.done("build", format!("release, {:.0} s", began.elapsed().as_secs_f64()));
            binary
        }
    };
    let world = World::claim("demo")?;
    world.build(Layout::Sites)?;
    steps.done("network", "namespaces tsk-demo-alice, -moon, -inet, -sun, -bob");

    let results = checkout::target().join("demo");
    fresh(&results)?;
    let (moon, sun) = ends(options);
    let mut cards = match (options.accel, maker) {
        (With::Qat, Maker::Tussock) => Some(Cards::insert(&world, &binary, &results)?),
        _ => None,
    };
    if cards.is_none() && options.kill_card {
        bail!("--kill-card needs cards: leave --accel away");
    }
    let sections = cards.as_ref().map(Cards::sections).unwrap_or_default();
    let mut pair = Pair::new(&world, maker, (moon, sun), &binary, &results, &sections)?;
    if let Err(error) = pair.show(options, cards.as_mut(), &mut steps, &results) {
        for peer in pair.both() {
            eprintln!("   the log of {} ends:\n{}", peer.maker(), process::tail(peer.log(), 15));
        }
        return Err(error.context(format!("step {} of the demo failed", steps.count + 1)));
    }
    if options.keep {
        pair.leave();
        drop(pair);
        cards.into_iter().for_each(Cards::leave);
        how_to_play(&binary);
        world.net.keep();
        return Ok(true);
    }
    for peer in pair.both_mut() {
        peer.stop()?;
    }
    drop(pair);
    drop(world);
    steps.done("down", "both gateways ended, namespaces removed");
    Ok(true)
}

/// The two ends' configurations.
pub fn ends(options: &Options) -> (End, End) {
    let (mut moon, mut sun) = (SITES.moon(), SITES.far());
    for end in [&mut moon, &mut sun] {
        end.esp.clone_from(&options.esp);
        end.encap = if options.raw { Encap::Raw } else { Encap::Udp };
    }
    (moon, sun)
}

/// The two gateways.
pub struct Pair<'w> {
    world: &'w World,
    moon: Box<dyn Peer + 'w>,
    sun: Box<dyn Peer + 'w>,
}

impl<'w> Pair<'w> {
    /// Configured, not started; moon's configuration has more at its end.
    pub fn new(
        world: &'w World,
        maker: Maker,
        (moon, sun): (End, End),
        binary: &Path,
        results: &Path,
        moons: &str,
    ) -> Result<Pair<'w>> {
        let make = |end: End| -> Result<Box<dyn Peer + 'w>> {
            Ok(match maker {
                Maker::Tussock => {
                    let gateway = Tussock::new(world, &end, binary, results)?;
                    if end.host == "moon" {
                        gateway.append(moons)?;
                    }
                    Box::new(gateway)
                }
                // Raw ESP takes the younger release.
                Maker::StrongSwan => {
                    Box::new(StrongSwan::new(world, end.clone(), end.encap.into(), results)?)
                }
            })
        };
        Ok(Pair { world, moon: make(moon)?, sun: make(sun)? })
    }

    /// Both started, and the tunnel up between them. Returns how long coming up took, in milliseconds.
    pub fn come_up(&mut self) -> Result<u128> {
        self.sun.start()?;
        self.moon.start()?;
        let began = Instant::now();
        self.moon.up()?;
        let took = began.elapsed().as_millis();
        let seen = await_tunnel(&*self.moon, "after coming up", |_| true)?;
        await_tunnel(&*self.sun, "after coming up", |other| other.ike == seen.ike)?;
        Ok(took)
    }

    /// Process ids, moon's first.
    pub fn pids(&self) -> Result<(u32, u32)> {
        self.moon.pid().zip(self.sun.pid()).context("a gateway is not running")
    }

    /// Moon and sun.
    pub fn both(&self) -> [&(dyn Peer + 'w); 2] {
        [&*self.moon, &*self.sun]
    }

    /// Moon and sun, to be told something.
    pub fn both_mut(&mut self) -> [&mut (dyn Peer + 'w); 2] {
        [&mut *self.moon, &mut *self.sun]
    }

    fn leave(&mut self) {
        self.moon.leave();
        self.sun.leave();
    }

    fn show(
        &mut self,
        options: &Options,
        cards: Option<&mut Cards>,
        steps: &mut Steps,
        results: &Path,
    ) -> Result<()> {
        let on_bridge = results.join("bridge.pcap");
        let on_lan = results.join("alice.pcap");
        let outside = Capture::start(self.world, "inet", BRIDGE, &on_bridge, "")?;
        let inside = Capture::start(self.world, "alice", "eth0", &on_lan, "")?;

        let took = self.come_up()?;
        let (moon, sun) = self.pids()?;
        steps.done(
            "gateways",
            format!("{} (pid {moon}), {} (pid {sun})", self.moon.maker(), self.sun.maker()),
        );
        steps.done("tunnel", format!("up in {took} ms"));
        for line in self.moon.shown_sas()?.lines() {
            println!("         {line}");
        }

        ping::with_words(self.world, "alice", BOB, WORDS)?;
        ping::with_words(self.world, "bob", ALICE, WORDS)?;
        steps.done("ping", "alice -> bob and bob -> alice, all answered");

        let seen = outside.finish()?;
        inside.finish()?;
        if let Some(odd) = seen.others.first() {
            bail!("{} packets on the wire are neither IKE nor ESP, the first: {odd}", seen.others.len());
        }
        if !capture::holds(&on_lan, WORDS)? {
            bail!("the ping's words are not even on alice's wire: the capture proves nothing");
        }
        if capture::holds(&on_bridge, WORDS)? {
            bail!("the ping's words crossed the wire in clear");
        }
        let esp = seen.esp_in_udp + seen.esp_raw;
        let how = if seen.esp_raw > 0 { "ESP" } else { "ESP in UDP" };
        steps.done(
            "wire",
            format!("{} IKE messages, {esp} packets of {how}; else only ARP and the like", seen.ike),
        );
        println!(
            "         the pings' payload is seen on alice's wire and nowhere on the one between the gateways"
        );

        let foreign = results.join("foreign.pcap");
        let strict = Capture::start(self.world, "inet", BRIDGE, &foreign, NOT_OURS)?;
        let measure =
            traffic::measure(self.world, Way::THROUGH, [moon, sun], Load::Tcp(1), options.seconds, results)?;
        let seen = strict.finish()?;
        if let Some(odd) = seen.others.first() {
            bail!("under load {} packets were neither IKE nor ESP, the first: {odd}", seen.others.len());
        }
        let [moon, sun] = measure.per_gb();
        steps.done(
            "throughput",
            format!("{:.2} Gbit/s TCP alice -> bob over {} s", measure.gbit(), options.seconds),
        );
        println!(
            "         CPU: moon {moon:.2} s per GB, sun {sun:.2} s per GB; still only IKE and ESP on the wire"
        );
        let Some(cards) = cards else { return Ok(()) };
        let devices = cards.devices()?;
        if devices.iter().all(|device| device.name == "soft" || device.packets == 0) {
            bail!("no card has done anything: {}", cards.line()?);
        }
        steps.done("cards", cards.line()?);
        if options.kill_card {
            let lines = cards.pull_out(self.world)?;
            let mut lines = lines.iter();
            steps.done("kill-card", lines.next().map_or("", String::as_str));
            lines.for_each(|line| println!("         {line}"));
        }
        Ok(())
    }
}

/// What must not be on the bridge, in tcpdump's language: the kernel looks, so it costs the measurement nothing.
const NOT_OURS: &str = "not ( ip proto 50 or ip6 proto 50 or udp port 500 or udp port 4500 or arp or icmp6 )";

fn how_to_play(binary: &Path) {
    let binary = binary.display();
    let socket = "--socket /run/tussock-lab/demo/moon/control.sock";
    println!(
        "
   It stays up. To play:

      ip netns exec tsk-demo-alice ping 10.2.0.10
      ip netns exec tsk-demo-bob iperf3 -s -D; ip netns exec tsk-demo-alice iperf3 -c 10.2.0.10
      ip netns exec tsk-demo-inet tcpdump -ni br0
      {binary} sas {socket}
      {binary} rekey site/net {socket}
      {binary} rekey site --ike {socket}

   Configurations and logs: {}
   To take it down:         cargo xtask demo --down
",
        checkout::target().join("demo").display()
    );
}

/// Numbered lines.
#[derive(Default)]
struct Steps {
    count: usize,
}

impl Steps {
    fn done(&mut self, what: &str, how: impl Display) {
        self.count += 1;
        println!("   {:>2}  ok  {what:<11} {how}", self.count);
    }
}
