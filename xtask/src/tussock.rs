//! Our own gateway as a peer: its TOML, its process in a namespace, its own commands to drive it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use serde_json::Value;

use crate::peer::{ChildSa, IkeSa, Peer, host_dir};
use crate::pki::{Pki, shown};
use crate::process::{self, Daemon};
use crate::tunnel::{Auth, CHILD, Encap, End, FirstChild, Lease, REALM, Start};
use crate::world::World;

/// Sections of the configuration, as [`Tussock::set`] wants them.
pub const GATEWAY: &str = "[gateway]";
/// The realm's.
pub const SITE: &str = "[realm.site]";
/// Its child's.
pub const NET: &str = "[[realm.site.child]]";

/// How long one of our commands may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// One `tussock run` on one lab host.
pub struct Tussock<'w> {
    world: &'w World,
    host: &'static str,
    binary: PathBuf,
    /// Its configuration and log, kept after the run.
    dir: PathBuf,
    /// Its state folder, with the control socket.
    run: PathBuf,
    log: PathBuf,
    /// `NAME=value`, for its process alone.
    environment: Vec<String>,
    daemon: Option<Daemon>,
}

impl<'w> Tussock<'w> {
    /// Write its configuration below `results`; it is not started yet.
    pub fn new(world: &'w World, end: &End, binary: &Path, results: &Path) -> Result<Tussock<'w>> {
        let dir = host_dir(results, end.host)?;
        let run = world.state(end.host)?;
        let log = dir.join("tussock.log");
        let file = dir.join("gateway.toml");
        fs::write(&file, config(end, &run)?)?;
        // It holds the secret, and the gateway warns of one that others may read.
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
        // Leases and sessions of another story are nobody's here.
        for name in ["gateway/leases.db", "gateway/leases.db-wal", "secure/accounting"] {
            fs::remove_file(run.join(name)).ok();
        }
        let binary = binary.to_path_buf();
        let environment = Vec::new();
        Ok(Tussock { world, host: end.host, binary, dir, run, log, environment, daemon: None })
    }

    /// Something for its environment, from the next start on.
    pub fn environment(&mut self, (name, value): (&'static str, PathBuf)) {
        self.environment.push(format!("{name}={}", value.display()));
    }

    /// Change the configuration file; a running gateway notices at `reload`.
    pub fn rewrite(&self, change: impl Fn(&str) -> String) -> Result<()> {
        let file = self.file();
        fs::write(&file, change(&fs::read_to_string(&file)?))?;
        Ok(())
    }

    /// Write a key of a section, in the place of what stood there. The section must be there.
    pub fn set(&self, section: &str, key: &str, value: &str) -> Result<()> {
        let text = with_key(&self.text()?, section, key, value).with_context(|| format!("no {section}"))?;
        self.rewrite(|_| text.clone())
    }

    /// Write more at the end of the configuration.
    pub fn append(&self, more: &str) -> Result<()> {
        self.rewrite(|text| format!("{text}\n{more}\n"))
    }

    /// Variables of its environment, as `NAME=value`, from its next start on.
    pub fn preset(&mut self, environment: Vec<String>) {
        self.environment = environment;
    }

    /// The program, to be called with whatever.
    pub fn program(&self) -> Command {
        Command::new(&self.binary)
    }

    /// Let the program judge the configuration.
    pub fn check(&self) -> Result<()> {
        let mut command = Command::new(&self.binary);
        process::run(command.args(["check", "--config"]).arg(self.file())).map(drop)
    }

    /// What a command shows with `--json`.
    pub fn json(&self, what: &str) -> Result<Value> {
        let text = self.order(&[what, "--json"])?;
        serde_json::from_str(&text).with_context(|| format!("`tussock {what} --json` said {text}"))
    }

    /// A number in `status --json`, by its path ("/drops/replay"); 0 if it is not there.
    pub fn count(&self, path: &str) -> Result<u64> {
        Ok(self.json("status")?.pointer(path).and_then(Value::as_u64).unwrap_or(0))
    }

    /// What it says of its accelerators, best first.
    pub fn devices(&self) -> Result<Vec<Value>> {
        let all = self.json("accel")?;
        all.get("devices").and_then(Value::as_array).cloned().context("no devices")
    }

    /// What it says of one of them.
    pub fn device(&self, name: &str) -> Result<Value> {
        let all = self.devices()?;
        let found = all.iter().find(|device| device.pointer("/device/name").is_some_and(|n| n == name));
        found.cloned().with_context(|| format!("no device {name} in {all:#?}"))
    }

    /// A number in that, by its path ("/packets").
    pub fn device_count(&self, name: &str, path: &str) -> Result<u64> {
        let device = self.device(name)?;
        device.pointer(path).and_then(Value::as_u64).with_context(|| format!("no {path} in {device:#}"))
    }

    /// Whether nothing is left in a queue of a device, or waits for one.
    pub fn is_idle(&self) -> Result<bool> {
        let devices = self.devices()?;
        let queues = devices.iter().filter_map(|device| device.get("queues")?.as_array()).flatten();
        Ok(queues
            .flat_map(|queue| [queue.get("in_flight"), queue.get("waiting")])
            .all(|count| count.and_then(Value::as_u64) == Some(0)))
    }

    /// Inbound SPIs of the Child SAs that are for all workers.
    pub fn shared_spis(&self) -> Result<Vec<String>> {
        let sas = self.json("sas")?;
        let ike_sas = sas.get("ike_sas").and_then(Value::as_array).context("no list of IKE SAs")?;
        let children = ike_sas.iter().filter_map(|sa| sa.get("children")?.as_array()).flatten();
        let for_all = children.filter(|child| child["resource"].is_null());
        Ok(for_all.filter_map(|child| child["spi_in"].as_str().map(str::to_owned)).collect())
    }

    /// The configuration file as it is.
    pub fn text(&self) -> Result<String> {
        Ok(fs::read_to_string(self.file())?)
    }

    /// Any of its commands, with the socket of this gateway.
    pub fn order(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.binary);
        command.args(arguments).arg("--socket").arg(self.socket());
        let done = process::finish(&mut command, PATIENCE)?;
        if !done.status.success() {
            bail!("`tussock {}` on {} failed: {}", arguments.join(" "), self.host, done.text().trim());
        }
        Ok(done.stdout)
    }

    /// One of its commands with something to read on its standard input.
    pub fn order_feeding(&self, arguments: &[&str], input: &str) -> Result<String> {
        let mut command = Command::new(&self.binary);
        process::feed(command.args(arguments).arg("--socket").arg(self.socket()), input)
    }

    /// Ends the process that holds the keys, as `kill -9` does, and waits for another one.
    pub fn kill_key_side(&self) -> Result<()> {
        let before = self.key_side()?;
        let pid = rustix::process::Pid::from_raw(before).context("no process")?;
        rustix::process::kill_process(pid, Signal::KILL)?;
        let there = process::until(Duration::from_secs(15), || {
            let another = self.key_side().is_ok_and(|now| now != before);
            let lines = fs::read_to_string(&self.log)?;
            let last = lines.lines().rfind(|line| line.contains("tussock-secure "));
            Ok((another && last.is_some_and(|line| line.contains("is there again"))).then_some(()))
        })?;
        there.context("no key side comes after the one that was killed")
    }

    /// Ends all of it as `kill -9` does, first the process that holds the keys: so it has no time to put anything in order.
    pub fn kill_all(&mut self) -> Result<()> {
        let keys = rustix::process::Pid::from_raw(self.key_side()?).context("no process")?;
        rustix::process::kill_process(keys, Signal::KILL)?;
        self.kill();
        Ok(())
    }

    /// The process that holds the keys: beside the one that carries the packets, a child of the same supervisor.
    fn key_side(&self) -> Result<i32> {
        let gateway = self.pid().context("no gateway")?;
        let supervisor = parent(&gateway.to_string()).context("no supervisor")?;
        for entry in fs::read_dir("/proc")? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let comm = fs::read_to_string(format!("/proc/{name}/comm")).unwrap_or_default();
            if comm.trim() == "tussock-secure" && parent(&name).as_deref() == Some(&supervisor) {
                return Ok(name.parse()?);
            }
        }
        bail!("no tussock-secure")
    }

    /// A command that goes on until it is stopped, its output going to `log`.
    pub fn follow(&self, arguments: &[&str], log: &Path) -> Result<Daemon> {
        let mut command = Command::new(&self.binary);
        Daemon::start(command.args(arguments).arg("--socket").arg(self.socket()), log)
    }

    /// Its configuration.
    pub fn file(&self) -> PathBuf {
        self.dir.join("gateway.toml")
    }

    /// The processes that its supervisor has: the one that faces the network, and the one that holds the keys.
    pub fn processes(&self) -> Result<[u32; 2]> {
        let supervisor = self.daemon.as_ref().context("it does not run")?.pid();
        let children = fs::read_to_string(format!("/proc/{supervisor}/task/{supervisor}/children"))?;
        let named = |name: &str| {
            let is = |pid: &&str| {
                fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == name)
            };
            let pid = children.split_whitespace().find(is).with_context(|| format!("no {name}"))?;
            Ok::<u32, anyhow::Error>(pid.parse()?)
        };
        Ok([named("tussock-gateway")?, named("tussock-secure")?])
    }

    /// Its state folder.
    pub fn state(&self) -> &Path {
        &self.run
    }

    /// Its control socket.
    pub fn socket(&self) -> PathBuf {
        self.run.join("control.sock")
    }
}

impl Peer for Tussock<'_> {
    fn maker(&self) -> String {
        format!("tussock on {}", self.host)
    }

    fn start(&mut self) -> Result<()> {
        // Whatever else it takes to get there does not see the variables.
        let mut command = self.world.on(self.host, "env");
        command.args(&self.environment).arg(&self.binary);
        command.arg("run").arg("--config").arg(self.file());
        let mut daemon = Daemon::start(&mut command, &self.log)?;
        let ready = process::until(Duration::from_secs(10), || {
            Ok((daemon.has_ended() || self.order(&["status", "--json"]).is_ok()).then_some(()))
        })?;
        if ready.is_none() || daemon.has_ended() {
            bail!("tussock does not start on {}:\n{}", self.host, process::tail(&self.log, 20));
        }
        self.daemon = Some(daemon);
        Ok(())
    }

    fn stop(&mut self) -> Result<()> {
        let Some(mut daemon) = self.daemon.take() else { return Ok(()) };
        if !daemon.stop(Signal::TERM, Duration::from_secs(8))? {
            bail!("tussock did not end on SIGTERM");
        }
        Ok(())
    }

    fn kill(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.kill();
        }
    }

    /// Of the process that carries the packets.
    fn pid(&self) -> Option<u32> {
        self.daemon.as_ref()?;
        self.json("status").ok()?.get("pid")?.as_u64()?.try_into().ok()
    }

    fn up(&self) -> Result<()> {
        self.order(&["up", &format!("{REALM}/{CHILD}")]).map(drop)
    }

    fn down(&self) -> Result<()> {
        self.order(&["down", REALM]).map(drop)
    }

    fn rekey_child(&self) -> Result<()> {
        self.order(&["rekey", &format!("{REALM}/{CHILD}")]).map(drop)
    }

    fn rekey_ike(&self) -> Result<()> {
        self.order(&["rekey", REALM, "--ike"]).map(drop)
    }

    fn sas(&self) -> Result<Vec<IkeSa>> {
        let text = self.order(&["sas", "--json"])?;
        parse_sas(&text).with_context(|| format!("`tussock sas --json` said {text}"))
    }

    fn shown_sas(&self) -> Result<String> {
        self.order(&["sas"])
    }

    fn leave(&mut self) {
        if let Some(daemon) = self.daemon.take() {
            daemon.leave();
        }
    }

    fn log(&self) -> &Path {
        &self.log
    }
}

/// The parent of a process.
fn parent(pid: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("PPid:")).map(|rest| rest.trim().to_owned())
}

/// `sas --json`: a list of IKE SAs, each with its children.
fn parse_sas(text: &str) -> Result<Vec<IkeSa>> {
    let all: Value = serde_json::from_str(text)?;
    let list = all.get("ike_sas").unwrap_or(&all).as_array().context("no list of IKE SAs")?;
    Ok(list.iter().map(ike_sa).collect())
}

fn ike_sa(sa: &Value) -> IkeSa {
    let children = sa.get("children").and_then(Value::as_array);
    IkeSa {
        spis: (word(sa, "spi_i"), word(sa, "spi_r")),
        established: word(sa, "state") == "established",
        children: children.map(|all| all.iter().map(child_sa).collect()).unwrap_or_default(),
    }
}

fn child_sa(sa: &Value) -> ChildSa {
    ChildSa {
        spis: (word(sa, "spi_in"), word(sa, "spi_out")),
        installed: word(sa, "state") == "installed",
        beside: sa.get("resource").is_some_and(|worker| !worker.is_null()),
    }
}

fn word(object: &Value, key: &str) -> String {
    object.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// A configuration with a key changed; `None` without the section.
fn with_key(text: &str, section: &str, key: &str, value: &str) -> Option<String> {
    let mut lines: Vec<&str> = text.lines().collect();
    let start = lines.iter().position(|line| *line == section)? + 1;
    let end =
        lines.iter().skip(start).position(|line| line.starts_with('[')).map_or(lines.len(), |n| start + n);
    let line = format!("{key} = {value}");
    let same = |line: &&str| line.split_once(" = ").is_some_and(|(before, _)| before == key);
    match lines.get(start..end).and_then(|section| section.iter().position(same)) {
        Some(at) => lines.splice(start + at..=start + at, [line.as_str()]).for_each(drop),
        None => lines.insert(start, &line),
    }
    Some(lines.join("\n") + "\n")
}

/// The configuration file.
fn config(end: &End, run: &Path) -> Result<String> {
    let mut text = format!("[gateway]\nstate_dir = {}\nlog = \"info\"\n", quoted(&shown(run)));
    if end.auth == Auth::Psk || end.peer_auth == Auth::Psk {
        let ids = list(&[&end.id, &end.peer_id]);
        text += &format!("\n[[psk]]\nids = {ids}\nsecret = {}\n", quoted(&end.secret));
    }
    text += &format!("\n[realm.{REALM}]\n");
    if let Some(address) = end.address {
        text += &format!("local = {}\n", list(&[address]));
    }
    if let Some(address) = end.peer_address {
        text += &format!("remote = {}\n", list(&[address]));
    }
    text += match end.start {
        Start::Manual => "start = \"manual\"\n",
        Start::Traffic => "start = \"traffic\"\n",
    };
    text += match end.encap {
        Encap::Auto => "encap = \"auto\"\n",
        Encap::Udp => "encap = \"udp\"\n",
        Encap::Raw => "encap = \"raw\"\n",
    };
    text += &format!("ike = {}\n", list(&[&end.ike]));
    if let Some(size) = end.fragment_size {
        text += &format!("fragment_size = {size}\n");
    }
    if end.first_child == FirstChild::Later {
        text += "childless = \"prefer\"\n";
    }
    text += &format!("local_auth = {}\n", own_proof(end)?);
    text += &format!("remote_auth = {}\n", their_proof(end)?);
    match end.lease {
        Lease::None => {}
        Lease::Request => text += "virtual_ip = { request = [\"ipv4\"] }\n",
        Lease::Pool(prefix) => text += &format!("pool = {{ ipv4 = {} }}\n", quoted(prefix)),
    }
    text += &format!("\n[[realm.{REALM}.child]]\nname = {}\nmode = \"tunnel\"\n", quoted(CHILD));
    text += &format!("local = {}\nremote = {}\n", selectors(&end.local), selectors(&end.remote));
    text += &format!("esp = {}\n", list(&[&end.esp]));
    Ok(text)
}

fn own_proof(end: &End) -> Result<String> {
    let id = quoted(&end.id);
    Ok(match end.auth {
        Auth::Psk => format!("{{ method = \"psk\", id = {id} }}"),
        Auth::Cert(kind) => {
            let pki = Pki::of(kind)?;
            let (cert, key) = (quoted(&shown(&pki.cert(end.host))), quoted(&shown(&pki.key(end.host))));
            format!("{{ method = \"pubkey\", id = {id}, cert = [{cert}], key = {key} }}")
        }
    })
}

fn their_proof(end: &End) -> Result<String> {
    let id = quoted(&end.peer_id);
    Ok(match end.peer_auth {
        Auth::Psk => format!("{{ method = \"psk\", id = {id} }}"),
        Auth::Cert(kind) => {
            let ca = quoted(&shown(&Pki::of(kind)?.ca()));
            format!("{{ method = \"pubkey\", id = {id}, ca = [{ca}] }}")
        }
    })
}

fn selectors(list_of: &[&str]) -> String {
    if list_of.is_empty() { list(&["dynamic"]) } else { list(list_of) }
}

fn list(words: &[&str]) -> String {
    let words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
    format!("[{}]", words.join(", "))
}

/// A TOML basic string.
pub fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_written_in_its_section_once() {
        let text = "[gateway]\nlog = \"info\"\n\n[realm.site]\nlog = 1\n";
        let once = with_key(text, SITE, "log", "2").unwrap();
        assert_eq!(once, "[gateway]\nlog = \"info\"\n\n[realm.site]\nlog = 2\n");
        let more = with_key(&once, GATEWAY, "mtu", "1500").unwrap();
        assert!(more.starts_with("[gateway]\nmtu = 1500\nlog = \"info\""), "{more}");
        assert_eq!(with_key(text, NET, "esp", "1"), None);
    }
}
