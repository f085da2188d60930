//! Emulated accelerators for the gateways of a lab: each a process of `tussock-qat-emulator` with one card at a socket, which can be
//! pulled out and put back.

pub mod faults;
pub mod stage;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use serde_json::Value;

use crate::checkout::{self, Profile};
use crate::process::{self, Daemon};
use crate::world::World;

/// Build the emulator.
pub fn build(profile: Profile) -> Result<PathBuf> {
    checkout::build("tussock-qat-emulator", profile, &[])
}

/// A card. It goes when this value goes.
pub struct Card {
    name: String,
    /// The namespace that its process lives in, so that it goes with the lab whatever happens.
    namespace: String,
    binary: PathBuf,
    socket: PathBuf,
    /// A fault plan, if things are to go wrong.
    faults: Option<PathBuf>,
    /// Where it says what it has done.
    stats: PathBuf,
    log: PathBuf,
    /// Which card it is, by its PCI device number.
    device: &'static str,
    process: Option<Daemon>,
}

impl Card {
    /// One of generation 2, which has fewer algorithms.
    pub fn insert_older(
        world: &World,
        host: &str,
        name: &str,
        binary: &Path,
        results: &Path,
    ) -> Result<Card> {
        let mut card = Card::insert(world, host, name, binary, results, None)?;
        card.device = "37c9";
        card.put_back()?;
        Ok(card)
    }

    /// One of generation 4 in a host, in use by nobody yet; with a fault plan things go wrong. Its log is in `results`.
    pub fn insert(
        world: &World,
        host: &str,
        name: &str,
        binary: &Path,
        results: &Path,
        plan: Option<&str>,
    ) -> Result<Card> {
        let mut card = Card {
            name: name.to_owned(),
            namespace: world.net.name(host),
            binary: binary.to_path_buf(),
            socket: world.state(host)?.join(format!("{name}.sock")),
            faults: None,
            stats: results.join(format!("{name}.json")),
            log: results.join(format!("{name}.log")),
            device: "4941",
            process: None,
        };
        card.plan(plan)?;
        card.put_back()?;
        Ok(card)
    }

    /// What a gateway has to know of it.
    pub fn section(&self) -> String {
        format!("[accel.{}]\nsocket = \"{}\"", self.name, self.socket.display())
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Pull it out: no goodbye, and nothing behind the socket any more.
    pub fn pull_out(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// Put it in, as new.
    pub fn put_back(&mut self) -> Result<()> {
        self.pull_out();
        std::fs::remove_file(&self.socket).ok();
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace]).arg(&self.binary);
        command.arg("--socket").arg(&self.socket).args(["--device", self.device, "--log", "warn"]);
        command.arg("--stats").arg(&self.stats);
        if let Some(plan) = &self.faults {
            command.arg("--faults").arg(plan);
        }
        let mut process = Daemon::start(&mut command, &self.log)?;
        let there = process::until(Duration::from_secs(5), || {
            Ok((self.socket.exists() || process.has_ended()).then_some(()))
        })?;
        if there.is_none() || process.has_ended() {
            bail!("card {} does not come:\n{}", self.name, process::tail(&self.log, 5));
        }
        self.process = Some(process);
        Ok(())
    }

    /// Whether it is in.
    pub fn is_in(&self) -> bool {
        self.process.is_some()
    }

    /// Have another plan from the next time that it is put in.
    pub fn plan(&mut self, plan: Option<&str>) -> Result<()> {
        let file = self.stats.with_extension("toml");
        if let Some(plan) = plan {
            std::fs::write(&file, plan)?;
        }
        self.faults = plan.map(|_| file);
        Ok(())
    }

    /// How many faults of its plan have happened.
    pub fn faults(&self) -> Result<u64> {
        let counters = self.counters()?;
        counters.get("faults").and_then(Value::as_u64).context("odd counters")
    }

    /// How many of each kind have happened.
    pub fn faults_by_kind(&self) -> Result<BTreeMap<String, u64>> {
        let counters = self.counters()?;
        let kinds = counters.get("faults_by_kind").and_then(Value::as_object).context("odd counters")?;
        Ok(kinds.iter().filter_map(|(kind, count)| Some((kind.clone(), count.as_u64()?))).collect())
    }

    /// What it has done.
    pub fn counters(&self) -> Result<Value> {
        let process = self.process.as_ref().context("the card is out")?;
        std::fs::remove_file(&self.stats).ok();
        process.signal(Signal::USR1);
        let said = process::until(Duration::from_secs(5), || {
            let text = std::fs::read_to_string(&self.stats).unwrap_or_default();
            Ok(serde_json::from_str::<Value>(&text).ok())
        })?;
        let said = said.with_context(|| format!("card {} does not say what it has done", self.name))?;
        said.pointer("/0/counters").cloned().context("odd counters")
    }

    /// Leave it in when this value goes away.
    pub fn leave(mut self) {
        if let Some(process) = self.process.take() {
            process.leave();
        }
    }
}

impl Drop for Card {
    fn drop(&mut self) {
        self.pull_out();
    }
}
