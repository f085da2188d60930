//! Two gateways with a wire between them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::{SECRET, tool};

/// Two hosts on one wire, each in a namespace, with a gateway each.
pub(crate) struct Pair {
    name: String,
    dir: PathBuf,
    gateways: Vec<Child>,
}

impl Pair {
    pub(crate) fn new(name: &str) -> Pair {
        let name = format!("tsk{name}{}", std::process::id());
        let dir = std::env::temp_dir().join(&name);
        fs::create_dir_all(&dir).unwrap();
        let pair = Pair { name, dir, gateways: Vec::new() };
        let [moon, sun] = pair.hosts();
        for host in [&moon, &sun] {
            tool("ip", &["netns", "add", host]);
            tool("ip", &["-n", host, "link", "set", "lo", "up"]);
        }
        tool(
            "ip",
            &["link", "add", "eth0", "netns", &moon, "type", "veth", "peer", "name", "eth0", "netns", &sun],
        );
        for (host, octet) in [(&moon, 1), (&sun, 2)] {
            tool("ip", &["-n", host, "link", "set", "eth0", "up"]);
            tool("ip", &["-n", host, "addr", "add", &format!("192.168.0.{octet}/24"), "dev", "eth0"]);
            tool("ip", &["-n", host, "addr", "add", &format!("10.{octet}.0.1/32"), "dev", "lo"]);
        }
        pair
    }

    pub(crate) fn hosts(&self) -> [String; 2] {
        ["moon", "sun"].map(|host| format!("{}-{host}", self.name))
    }

    pub(crate) fn place(&self, host: &str, file: &str) -> PathBuf {
        self.dir.join(format!("{host}.{file}"))
    }

    pub(crate) fn configure(&self, host: &str, us: u8, them: u8, auth: (&str, &str), psk: &str) -> PathBuf {
        let peer = if host == "moon" { "sun" } else { "moon" };
        let start = if host == "moon" { "boot" } else { "manual" };
        let text = format!(
            "[gateway]\nstate_dir = \"{}\"\nworkers = 2\n{psk}\n[realm.site]\nlocal = [\"192.168.0.{us}\"]\n\
             remote = [\"192.168.0.{them}\"]\nstart = \"{start}\"\n\
             local_auth = {{ id = \"{host}.lab.test\", {} }}\nremote_auth = {{ id = \"{peer}.lab.test\", {} }}\n\
             dpd = {{ delay = \"1s\", action = \"restart\" }}\n[[realm.site.child]]\nname = \"net\"\nmode = \"tunnel\"\nlocal = [\"10.{us}.0.0/16\"]\n\
             remote = [\"10.{them}.0.0/16\"]\n",
            self.place(host, "run").display(),
            auth.0,
            auth.1
        );
        let file = self.place(host, "toml");
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        file
    }

    pub(crate) fn psk(&self, host: &str, us: u8, them: u8) -> PathBuf {
        let psk = format!("[[psk]]\nids = [\"moon.lab.test\", \"sun.lab.test\"]\nsecret = \"{SECRET}\"\n");
        self.configure(host, us, them, ("method = \"psk\"", "method = \"psk\""), &psk)
    }

    /// Starts a gateway and returns its supervisor's number.
    pub(crate) fn run(&mut self, host: &str, file: &Path) -> u32 {
        self.run_with(host, file, &[])
    }

    /// The same with more words on its command line.
    pub(crate) fn run_with(&mut self, host: &str, file: &Path, more: &[&str]) -> u32 {
        let name = format!("{}-{host}", self.name);
        let log = fs::File::options().create(true).append(true).open(self.place(host, "log")).unwrap();
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &name, env!("CARGO_BIN_EXE_tussock"), "run", "--config"])
            .arg(file)
            .args(more);
        let process =
            command.stdin(Stdio::null()).stderr(log.try_clone().unwrap()).stdout(log).spawn().unwrap();
        let pid = process.id();
        self.gateways.push(process);
        self.until("it is ready", || self.command(host, &["status"]).is_some());
        pid
    }

    pub(crate) fn command(&self, host: &str, arguments: &[&str]) -> Option<String> {
        let done = self.order(host, arguments).output().unwrap();
        done.status.success().then(|| String::from_utf8(done.stdout).unwrap())
    }

    /// A command to this gateway, to be started.
    pub(crate) fn order(&self, host: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tussock"));
        command.args(arguments).arg("--socket").arg(self.place(host, "run").join("control.sock"));
        command
    }

    pub(crate) fn until(&self, what: &str, mut happens: impl FnMut() -> bool) {
        let until = Instant::now() + Duration::from_secs(40);
        while !happens() {
            let logs =
                ["moon", "sun"].map(|host| fs::read_to_string(self.place(host, "log")).unwrap_or_default());
            assert!(Instant::now() < until, "not so: {what}\n{}\n{}", logs[0], logs[1]);
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub(crate) fn pings(&self) -> bool {
        let name = format!("{}-moon", self.name);
        let mut ping = Command::new("ip");
        ping.args(["netns", "exec", &name, "ping", "-c", "1", "-W", "1", "-I", "10.1.0.1", "10.2.0.1"]);
        ping.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success()
    }

    /// Both up, with a tunnel by PSK.
    pub(crate) fn with_tunnel(name: &str) -> (Pair, u32) {
        let mut pair = Pair::new(name);
        let (moon, sun) = (pair.psk("moon", 1, 2), pair.psk("sun", 2, 1));
        pair.run("sun", &sun);
        let moon = pair.run("moon", &moon);
        pair.until("there is a tunnel", || pair.pings());
        (pair, moon)
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for process in &mut self.gateways {
            let _ = process.kill();
            let _ = process.wait();
        }
        for host in self.hosts() {
            let _ = Command::new("ip").args(["netns", "del", &host]).status();
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Numbers of the gateway's process and the key side's.
pub(crate) fn children(supervisor: u32) -> [u32; 2] {
    let file = format!("/proc/{supervisor}/task/{supervisor}/children");
    let all: Vec<u32> =
        fs::read_to_string(file).unwrap().split_whitespace().map(|pid| pid.parse().unwrap()).collect();
    ["tussock-gateway", "tussock-secure"].map(|name| {
        let is = |pid: &&u32| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap().trim() == name;
        *all.iter().find(is).unwrap_or_else(|| panic!("no {name} among {all:?}"))
    })
}
