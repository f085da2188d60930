//! `cargo xtask demo`: two gateways, two networks, one tunnel, on this machine and in a minute. One gateway has two cards, which
//! are emulated.

mod cards;
mod token;

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use cards::Cards;
use clap::{Args, ValueEnum};
use token::InToken;

use crate::capture::{self, Capture};
use crate::checkout::{self, Profile};
use crate::interop::course::{Maker, fresh};
use crate::interop::scenario::SITES;
use crate::netns;
use crate::packages;
use crate::padlock::{self, Emulated};
use crate::peer::{Peer, await_tunnel};
use crate::ping;
use crate::plugins;
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
    /// ESP proposal; aes128gcm16-x25519, or what the accelerator has.
    #[arg(long)]
    esp: Option<String>,
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
    /// PadLock, emulated: instructions that trap.
    Padlock,
    /// Two providers of OpenSSL's: an emulated one that pauses its jobs, and the default one.
    Openssl,
    /// A vendor's plug-in in C: the example of the driver guide.
    Plugin,
    /// A PKCS #11 token, SoftHSM, for the private key and key exchanges; the processor for packets.
    Pkcs11,
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

    let results = checkout::target().join("demo");
    fresh(&results)?;
    let mut padlock = None;
    let binary = match maker {
        Maker::StrongSwan => PathBuf::new(),
        Maker::Tussock => {
            let began = Instant::now();
            let binary = checkout::build_gateway(Profile::Release)?;
            if options.accel == With::Padlock {
                padlock = Some(Emulated::build(Profile::Release)?);
            }
            steps.done("build", format!("release, {:.0} s", began.elapsed().as_secs_f64()));
            binary
        }
    };
    let world = World::claim("demo")?;
    world.build(Layout::Sites)?;
    steps.done("network", "namespaces tsk-demo-alice, -moon, -inet, -sun, -bob");

    let mut both = ends(options);
    let token = match (options.accel, maker) {
        (With::Pkcs11, Maker::Tussock) => {
            both = InToken::ends(both);
            Some(InToken::make(&world, &binary, &results)?)
        }
        _ => None,
    };
    if let Some(token) = &token {
        steps.done("token", format!("moon's key is made in SoftHSM and certified: {}", token.key()));
    }
    let mut cards = match (options.accel, maker) {
        (With::Qat, Maker::Tussock) => Some(Cards::insert(&world, &binary, &results)?),
        (With::Openssl, Maker::Tussock) => Some(Cards::providers(&world, &binary, &results)?),
        (With::Plugin, Maker::Tussock) => Some(Cards::plugin(&world, &binary, &results)?),
        _ => None,
    };
    if options.accel != With::Qat && options.kill_card {
        bail!("--kill-card needs cards: leave --accel away");
    }
    let sections = cards.as_ref().map(Cards::sections).unwrap_or_default();
    let moons = Moons { sections, padlock, token };
    let mut pair = Pair::new(&world, maker, both, &binary, &results, &moons)?;
    let shown = pair.show(options, cards.as_mut(), moons.token.as_ref(), &mut steps, &results);
    let shown = shown.and_then(|()| match &moons.padlock {
        Some(_) => on_padlock(&binary, &world, &mut steps),
        None => Ok(()),
    });
    if let Err(error) = shown {
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
    if let Some(padlock) = &moons.padlock {
        steps.done(
            "executed",
            padlock.served(&world.state("moon")?, &["xcrypt", "xsha1", "xsha256", "montmul"])?,
        );
    }
    drop(pair);
    drop(world);
    steps.done("down", "both gateways ended, namespaces removed");
    Ok(true)
}

/// The two ends' configurations.
pub fn ends(options: &Options) -> (End, End) {
    let (mut moon, mut sun) = (SITES.moon(), SITES.far());
    let (ike, esp) = match options.accel {
        // It has no combined modes and no curves.
        With::Padlock => ("aes128-sha256-modp2048", "aes128-sha256-modp2048"),
        With::Plugin => (SITES.ike, plugins::ESP),
        With::Qat | With::Openssl | With::Pkcs11 | With::Soft => (SITES.ike, SITES.esp),
    };
    for end in [&mut moon, &mut sun] {
        ike.clone_into(&mut end.ike);
        end.esp = options.esp.clone().unwrap_or_else(|| esp.to_owned());
        end.encap = if options.raw { Encap::Raw } else { Encap::Udp };
    }
    (moon, sun)
}

/// What moon has that sun has not.
pub struct Moons {
    /// More at the end of its configuration.
    sections: String,
    /// The processor it is told it runs on.
    padlock: Option<Emulated>,
    /// Where its key is.
    token: Option<InToken>,
}

impl Moons {
    fn gateway<'w>(&self, world: &'w World, end: &End, binary: &Path, results: &Path) -> Result<Tussock<'w>> {
        let Some(padlock) = &self.padlock else {
            let mut gateway = Tussock::new(world, end, binary, results)?;
            gateway.append(&self.sections)?;
            self.token.as_ref().map(|token| token.tell(&mut gateway)).transpose()?;
            return Ok(gateway);
        };
        let mut gateway = Tussock::new(world, end, &padlock.gateway, results)?;
        gateway.append(padlock::SECTION)?;
        padlock.put_into(&mut gateway);
        Ok(gateway)
    }
}

/// Moon's word on what PadLock has done.
fn on_padlock(binary: &Path, world: &World, steps: &mut Steps) -> Result<()> {
    let devices = cards::devices(binary, &world.state("moon")?.join("control.sock"))?;
    let line = cards::line(&devices);
    let idle = |name: &str| devices.iter().all(|device| device.name != name || device.packets == 0);
    if idle("via") || !idle("soft") {
        bail!("PadLock has not done it all: {line}");
    }
    steps.done("padlock", line);
    Ok(())
}

/// The two gateways.
pub struct Pair<'w> {
    world: &'w World,
    moon: Box<dyn Peer + 'w>,
    sun: Box<dyn Peer + 'w>,
}

impl<'w> Pair<'w> {
    /// Configured, not started; moon's configuration has more at its end, and its key is on the token, if there is one.
    pub fn new(
        world: &'w World,
        maker: Maker,
        (moon, sun): (End, End),
        binary: &Path,
        results: &Path,
        moons: &Moons,
    ) -> Result<Pair<'w>> {
        let make = |end: End| -> Result<Box<dyn Peer + 'w>> {
            Ok(match maker {
                Maker::Tussock if end.host == "moon" => {
                    Box::new(moons.gateway(world, &end, binary, results)?)
                }
                Maker::Tussock => Box::new(Tussock::new(world, &end, binary, results)?),
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
        token: Option<&InToken>,
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
        if let Some(token) = token {
            steps.done("token", token.line()?);
        }
        let Some(cards) = cards else { return Ok(()) };
        let devices = cards.devices()?;
        if devices.iter().all(|device| device.name == "soft" || device.packets == 0) {
            bail!("no accelerator has done anything: {}", cards.line()?);
        }
        steps.done("accel", cards.line()?);
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
