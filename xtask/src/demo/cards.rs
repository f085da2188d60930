//! The demo's accelerators: what they served, and one of them pulled out in the middle of it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::cards::{self, Card};
use crate::checkout::Profile;
use crate::inside::Flow;
use crate::numbers::Numbers;
use crate::plugins;
use crate::process;
use crate::providers;
use crate::world::{ALICE, BOB, World};

/// Cards in moon.
const CARDS: [&str; 2] = ["qat0", "qat1"];
/// How long traffic goes on around the card that is pulled out.
const TIME: Duration = Duration::from_secs(12);
/// The longest silence that is right.
const OUTAGE: Duration = Duration::from_secs(1);

/// Moon's cards, and moon's word on them.
pub struct Cards {
    cards: Vec<Card>,
    /// What else moon works with.
    others: String,
    binary: PathBuf,
    socket: PathBuf,
}

impl Cards {
    /// Two cards, in use by nobody yet.
    pub fn insert(world: &World, gateway: &Path, results: &Path) -> Result<Cards> {
        // Without optimisation it would be the bottleneck of everything.
        let emulator = cards::build(Profile::Release)?;
        let state = world.state("moon")?;
        let insert = |name: &&str| Card::insert(world, "moon", name, &emulator, results, None);
        Ok(Cards {
            cards: CARDS.iter().map(insert).collect::<Result<_>>()?,
            others: String::new(),
            binary: gateway.to_path_buf(),
            socket: state.join("control.sock"),
        })
    }

    /// No card, but an OpenSSL provider that pauses every job, and OpenSSL's default one behind it.
    pub fn providers(world: &World, gateway: &Path, results: &Path) -> Result<Cards> {
        let module = providers::build(Profile::Release)?;
        let pausing = providers::section("ossl0", &module, results, "50us", None)?;
        Ok(Cards {
            cards: Vec::new(),
            others: format!("{pausing}\n[accel.ossl1]\ndriver = \"openssl\"\nprovider = \"default\"\n"),
            binary: gateway.to_path_buf(),
            socket: world.state("moon")?.join("control.sock"),
        })
    }

    /// No card, but a vendor's plug-in: the example in C.
    pub fn plugin(world: &World, gateway: &Path, results: &Path) -> Result<Cards> {
        Ok(Cards {
            cards: Vec::new(),
            others: plugins::section("vendor0", &plugins::example(results)?),
            binary: gateway.to_path_buf(),
            socket: world.state("moon")?.join("control.sock"),
        })
    }

    /// What moon's configuration has to say of them.
    pub fn sections(&self) -> String {
        let cards = self.cards.iter().map(|card| format!("{}\n\n", card.section()));
        cards.chain([self.others.clone()]).collect()
    }

    /// Leave them in.
    pub fn leave(self) {
        self.cards.into_iter().for_each(Card::leave);
    }

    /// What moon says of each device.
    pub fn devices(&self) -> Result<Vec<Device>> {
        devices(&self.binary, &self.socket)
    }

    /// What moon says, in a line.
    pub fn line(&self) -> Result<String> {
        Ok(line(&self.devices()?))
    }

    /// Traffic both ways; the card with the SAs is pulled out and put back. Returns what was seen, in lines.
    pub fn pull_out(&mut self, world: &World) -> Result<Vec<String>> {
        let wire = Numbers::begin(world)?;
        let before = self.sas()?;
        let there = Flow::begin(world, "alice", "bob", (BOB, 7000), TIME)?;
        let back = Flow::begin(world, "bob", "alice", (ALICE, 7001), TIME)?;
        std::thread::sleep(TIME / 4);
        let devices = self.devices()?;
        let busy = devices.iter().filter(|device| device.sas > 0);
        let busy = busy.max_by_key(|device| device.packets).map(|device| device.name.clone());
        let busy = busy.context("no device has an SA")?;
        let card = self.cards.iter_mut().find(|card| card.name() == busy);
        card.with_context(|| format!("the SAs are on {busy}, which is no card"))?.pull_out();
        let is = |devices: &[Device], ready: bool| {
            devices.iter().any(|device| device.name == busy && (device.health == "ready") == ready)
        };
        let left = |devices: &[Device]| devices.iter().all(|device| device.name != busy || device.sas == 0);
        let noticed = process::until(TIME / 4, || {
            Ok(Some(self.devices()?).filter(|devices| is(devices, false) && left(devices)))
        })?;
        let noticed = noticed.with_context(|| format!("moon's SAs do not leave {busy}, which is gone"))?;
        let took: Vec<String> = noticed
            .iter()
            .filter(|device| device.sas > 0)
            .map(|device| format!("{} had {} SAs", device.name, device.sas))
            .collect();
        std::thread::sleep(TIME / 6);
        if let Some(card) = self.cards.iter_mut().find(|card| card.name() == busy) {
            card.put_back()?;
        }
        let (there, back) = (there.finish()?, back.finish()?);
        let wire = wire.finish()?;
        let ready = process::until(TIME, || Ok(is(&self.devices()?, true).then_some(())))?;
        ready.with_context(|| format!("{busy} is back, and moon does not use it"))?;
        if self.sas()? != before {
            bail!("the SAs are others now: they should have moved, not been replaced");
        }
        wire.none_again()?;
        let gap = there.longest_gap.max(back.longest_gap);
        if gap > OUTAGE {
            bail!("nothing came for {} ms", gap.as_millis());
        }
        Ok(vec![
            format!("{busy} pulled out under traffic, and put back; meanwhile {}", took.join(", ")),
            format!(
                "{} and {} MB arrived, each octet right; the longest silence was {} ms there and {} ms back",
                there.octets / 1_000_000,
                back.octets / 1_000_000,
                there.longest_gap.as_millis(),
                back.longest_gap.as_millis(),
            ),
            format!("the same SAs as before; {} packets on the wire, no sequence number twice", wire.packets),
        ])
    }

    /// The inbound SPIs of moon's Child SAs for everybody.
    fn sas(&self) -> Result<Vec<String>> {
        let mut command = Command::new(&self.binary);
        command.args(["sas", "--json", "--socket"]).arg(&self.socket);
        let all: Value = serde_json::from_str(&process::run(&mut command)?)?;
        let ike_sas = all.get("ike_sas").and_then(Value::as_array).into_iter().flatten();
        let children = ike_sas.filter_map(|sa| sa.get("children")?.as_array()).flatten();
        let for_all = children.filter(|child| child.get("resource").is_none_or(Value::is_null));
        let spi = |child: &Value| child.get("spi_in").and_then(Value::as_str).map(str::to_owned);
        Ok(for_all.filter_map(spi).collect())
    }
}

/// What a gateway says of each device: its name, its health, its SAs, and the packets and operations it has done.
pub fn devices(binary: &Path, socket: &Path) -> Result<Vec<Device>> {
    let mut command = Command::new(binary);
    command.args(["accel", "--json", "--socket"]).arg(socket);
    let all: Value = serde_json::from_str(&process::run(&mut command)?)?;
    let list = all.get("devices").and_then(Value::as_array).context("moon tells of no devices")?;
    Ok(list.iter().map(Device::read).collect())
}

/// That, in a line.
pub fn line(devices: &[Device]) -> String {
    let say = |device: &Device| {
        let Device { name, health, sas, packets, operations } = device;
        format!("{name} {health}, {sas} SAs, {packets} packets, {operations} operations")
    };
    devices.iter().map(say).collect::<Vec<_>>().join("; ")
}

/// A device as moon sees it.
pub struct Device {
    /// Its name.
    pub name: String,
    /// `ready` or something else.
    pub health: String,
    /// SAs on it.
    pub sas: u64,
    /// Packets it has done.
    pub packets: u64,
    /// Operations of the key exchange that it has done.
    pub operations: u64,
}

impl Device {
    fn read(value: &Value) -> Device {
        let of = |key: &str| value.pointer(key);
        let text = |key: &str| of(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let count = |key: &str| of(key).and_then(Value::as_u64).unwrap_or_default();
        Device {
            name: text("/device/name"),
            health: text("/device/health"),
            sas: count("/device/sas"),
            packets: count("/packets"),
            operations: count("/operations"),
        }
    }
}
