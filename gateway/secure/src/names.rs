//! Name servers that peers give us, put where the machine looks for them:
//!
//! - systemd-resolved, where it runs, is told of the servers and domains of each device ([`crate::resolved`]). It forgets them with the
//!   device, so nothing is left behind whatever happens to us.
//! - Elsewhere `/etc/resolv.conf` is rewritten, for servers that are to be asked for everything. What was there before is written down
//!   first, and put back afterwards; at the next start when we were killed; and not at all when somebody has rewritten the file since.
//! - A resolv.conf cannot say which domains a server is for. Such servers go into `resolv.d/REALM.conf` in the state folder alone, as
//!   dnsmasq and those who read its files understand them (`servers-file=`, `conf-dir=`).

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ipc::DnsChange;

use crate::resolved::Resolved;

/// First words of a resolv.conf that we wrote.
const MARK: &str = "# by tussock, while a tunnel is up; the file of before comes back\n";
/// A resolv.conf that is longer is none.
const MAX_FILE: u64 = 64 * 1024;
/// Servers a resolv.conf may name (resolv.conf(5)).
const MAX_NAMED: usize = 3;
/// What programs read.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// The servers in use.
pub(crate) struct Names {
    /// `None`: nothing is changed.
    dir: Option<PathBuf>,
    /// Open, so that it can be written to by one who may no longer open it.
    file: Option<File>,
    path: PathBuf,
    resolved: Resolved,
    users: BTreeMap<Arc<str>, User>,
}

#[derive(Clone, PartialEq)]
struct User {
    device: Arc<str>,
    servers: Vec<IpAddr>,
    domains: Vec<String>,
}

impl Names {
    /// None yet; what a gateway left that was killed is put in order.
    pub(crate) fn new(dir: Option<&Path>, file: Option<File>, inherits: bool) -> Self {
        let path = Path::new(RESOLV_CONF);
        let file = file.or_else(|| open(path).ok());
        Names::at(dir, path, file, Resolved::new(), inherits)
    }

    fn at(dir: Option<&Path>, path: &Path, file: Option<File>, resolved: Resolved, inherits: bool) -> Self {
        let names = Names {
            dir: dir.map(Path::to_path_buf),
            file,
            path: path.to_path_buf(),
            resolved,
            users: BTreeMap::new(),
        };
        if !inherits {
            names.sweep();
        }
        names
    }

    /// Takes servers of a realm, or lets them go. The device's number is `None` when it is gone.
    pub(crate) fn change(&mut self, change: &DnsChange, device: Option<u32>) -> io::Result<()> {
        let Some(dir) = self.dir.clone() else {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "there is no folder for what was before"));
        };
        let before = self.users.clone();
        if change.add {
            let DnsChange { device, servers, domains, .. } = change.clone();
            self.users.insert(change.realm.clone(), User { device, servers, domains });
        } else {
            self.users.remove(&change.realm);
        }
        let result = self.apply(&dir, &change.realm, (&change.device, device));
        if result.is_err() && change.add {
            self.users = before;
        }
        result
    }

    /// Lets all go; `index` tells the number of a device.
    pub(crate) fn clear(&mut self, index: impl Fn(&str) -> Option<u32>) {
        let Some(dir) = self.dir.clone() else { return };
        for (realm, user) in std::mem::take(&mut self.users) {
            if let Err(error) = self.apply(&dir, &realm, (&user.device, index(&user.device))) {
                tracing::warn!(%realm, %error, "name servers of a peer may be left behind");
            }
        }
    }

    fn apply(&self, dir: &Path, realm: &str, (name, device): (&str, Option<u32>)) -> io::Result<()> {
        self.write_snippet(dir, realm)?;
        if self.resolved.is_there() {
            // With the device it has forgotten what it knew of it.
            return device.map_or(Ok(()), |device| self.tell_resolved(name, device));
        }
        // Those for everything; the first ones first, and each once.
        let mut servers: Vec<IpAddr> = Vec::new();
        for user in self.users.values().filter(|user| user.domains.is_empty()) {
            for server in &user.servers {
                if !servers.contains(server) {
                    servers.push(*server);
                }
            }
        }
        if servers.is_empty() { self.put_back(dir) } else { self.put(dir, &servers) }
    }

    /// What all realms on a device have.
    fn tell_resolved(&self, name: &str, device: u32) -> io::Result<()> {
        let here = || self.users.values().filter(|user| *user.device == *name);
        if here().next().is_none() {
            return self.resolved.revert(device);
        }
        let servers: Vec<IpAddr> = here().flat_map(|user| &user.servers).copied().collect();
        // One that is for everything leaves no domain to the others.
        let all = here().any(|user| user.domains.is_empty());
        let domains = here().flat_map(|user| &user.domains).filter(|_| !all).cloned();
        self.resolved.tell(device, &servers, &domains.collect::<Vec<_>>())
    }

    fn write_snippet(&self, dir: &Path, realm: &str) -> io::Result<()> {
        let folder = dir.join("resolv.d");
        let path = folder.join(format!("{realm}.conf"));
        let Some(user) = self.users.get(realm) else { return remove(&path) };
        let mut text = String::new();
        for server in &user.servers {
            // Writing into a String cannot fail.
            let _ = match &user.domains[..] {
                [] => writeln!(text, "server={server}"),
                domains => writeln!(text, "server=/{}/{server}", domains.join("/")),
            };
        }
        std::fs::create_dir_all(&folder)?;
        std::fs::write(path, text)
    }

    fn put(&self, dir: &Path, servers: &[IpAddr]) -> io::Result<()> {
        let now = self.read()?;
        if !now.starts_with(MARK) {
            let backup = backup(dir);
            let new = backup.with_extension("new");
            std::fs::write(&new, &now)?;
            std::fs::File::open(&new)?.sync_all()?;
            std::fs::rename(&new, &backup)?;
        }
        let mut text = MARK.to_owned();
        for server in servers.iter().take(MAX_NAMED) {
            let _ = writeln!(text, "nameserver {server}");
        }
        // Search lists and options stay.
        let before = if now.starts_with(MARK) {
            std::fs::read_to_string(backup(dir)).unwrap_or_default()
        } else {
            now
        };
        for line in before.lines().filter(|line| !line.trim_start().starts_with("nameserver")) {
            text += line;
            text.push('\n');
        }
        self.write(&text)
    }

    /// The file of before, unless somebody else has written it since.
    fn put_back(&self, dir: &Path) -> io::Result<()> {
        let backup = backup(dir);
        let before = match std::fs::read_to_string(&backup) {
            Ok(before) => before,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        if self.read()?.starts_with(MARK) {
            self.write(&before)?;
        }
        remove(&backup)
    }

    fn sweep(&self) {
        let Some(dir) = &self.dir else { return };
        for entry in std::fs::read_dir(dir.join("resolv.d")).into_iter().flatten().flatten() {
            let _ = std::fs::remove_file(entry.path());
        }
        if let Err(error) = self.put_back(dir) {
            tracing::warn!(%error, "{} may still have the name servers of a peer", self.path.display());
        }
    }

    fn read(&self) -> io::Result<String> {
        let meta = self.file()?.metadata()?;
        if meta.len() > MAX_FILE {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut octets = vec![0; meta.len() as usize];
        self.file()?.read_exact_at(&mut octets, 0)?;
        String::from_utf8(octets).map_err(|_| io::ErrorKind::InvalidData.into())
    }

    /// The open file, if it still is the one that programs find.
    fn file(&self) -> io::Result<&File> {
        let gone = || io::Error::other(format!("{} cannot be written to", self.path.display()));
        let file = self.file.as_ref().ok_or_else(gone)?;
        let (open, there) = (file.metadata()?, std::fs::metadata(&self.path)?);
        if (open.dev(), open.ino()) == (there.dev(), there.ino()) { Ok(file) } else { Err(gone()) }
    }

    /// In its place and not by a new file: it may be a link, or mounted there. Whoever kills us in the middle of it leaves a whole file,
    /// with empty lines at its end.
    fn write(&self, text: &str) -> io::Result<()> {
        let file = self.file()?;
        let mut octets = text.as_bytes().to_vec();
        let before = file.metadata()?.len().min(MAX_FILE) as usize;
        octets.resize(octets.len().max(before), b'\n');
        file.write_all_at(&octets, 0)?;
        file.set_len(text.len() as u64)
    }
}

/// Opens a resolv.conf for somebody who will write to it later.
///
/// # Errors
/// What the system says.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    std::fs::OpenOptions::new().read(true).write(true).open(path)
}

fn backup(dir: &Path) -> PathBuf {
    dir.join("resolv.conf.before")
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Machine(PathBuf);

    impl Machine {
        fn new(name: &str) -> Machine {
            let dir = std::env::temp_dir().join(format!("tussock-names-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&dir).unwrap();
            let machine = Machine(dir);
            machine.write(BEFORE);
            machine
        }

        fn names(&self) -> Names {
            let path = self.0.join("resolv.conf");
            Names::at(Some(&self.0), &path, open(&path).ok(), Resolved::absent(&self.0), false)
        }

        fn write(&self, text: &str) {
            std::fs::write(self.0.join("resolv.conf"), text).unwrap();
        }

        fn file(&self) -> String {
            std::fs::read_to_string(self.0.join("resolv.conf")).unwrap()
        }

        fn snippet(&self, realm: &str) -> Option<String> {
            std::fs::read_to_string(self.0.join("resolv.d").join(format!("{realm}.conf"))).ok()
        }
    }

    impl Drop for Machine {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    const BEFORE: &str = "# mine\nsearch lab.test\nnameserver 192.0.2.53\noptions edns0\n";

    fn change(realm: &str, servers: &[&str], domains: &[&str], add: bool) -> DnsChange {
        DnsChange {
            realm: realm.into(),
            device: "ipsec0".into(),
            servers: servers.iter().map(|text| text.parse().unwrap()).collect(),
            domains: domains.iter().map(|text| (*text).to_owned()).collect(),
            add,
        }
    }

    #[test]
    fn the_file_of_before_comes_back_when_the_last_realm_is_down() {
        let machine = Machine::new("back");
        let mut names = machine.names();
        names.change(&change("a", &["10.1.0.1", "fec1::1"], &[], true), Some(1)).unwrap();
        let with_a = format!(
            "{MARK}nameserver 10.1.0.1\nnameserver fec1::1\n# mine\nsearch lab.test\noptions edns0\n"
        );
        assert_eq!(machine.file(), with_a);
        names.change(&change("b", &["10.2.0.1", "10.1.0.1"], &[], true), Some(1)).unwrap();
        assert_eq!(machine.file().matches("nameserver").count(), 3);
        names.change(&change("b", &[], &[], false), Some(1)).unwrap();
        assert_eq!(machine.file(), with_a);
        names.change(&change("a", &[], &[], false), Some(1)).unwrap();
        assert_eq!(machine.file(), BEFORE);
        assert!(machine.snippet("a").is_none() && !machine.0.join("resolv.conf.before").exists());
    }

    #[test]
    fn servers_for_some_domains_alone_stay_out_of_resolv_conf() {
        let machine = Machine::new("split");
        let mut names = machine.names();
        names.change(&change("a", &["10.1.0.1"], &["corp.example", "lab.example"], true), Some(1)).unwrap();
        assert_eq!(machine.file(), BEFORE);
        assert_eq!(machine.snippet("a").unwrap(), "server=/corp.example/lab.example/10.1.0.1\n");
        names.clear(|_| Some(1));
        assert!(machine.snippet("a").is_none());
    }

    #[test]
    fn what_a_killed_gateway_left_is_put_in_order_at_the_next_start() {
        let machine = Machine::new("killed");
        let mut names = machine.names();
        names.change(&change("a", &["10.1.0.1"], &[], true), Some(1)).unwrap();
        std::mem::forget(names);
        assert!(machine.file().starts_with(MARK));
        machine.names();
        assert_eq!(machine.file(), BEFORE);
        assert!(machine.snippet("a").is_none());
    }

    #[test]
    fn a_file_that_somebody_else_has_written_since_is_left_alone() {
        let machine = Machine::new("other");
        let mut names = machine.names();
        names.change(&change("a", &["10.1.0.1"], &[], true), Some(1)).unwrap();
        machine.write("nameserver 198.51.100.1\n");
        names.change(&change("a", &[], &[], false), Some(1)).unwrap();
        assert_eq!(machine.file(), "nameserver 198.51.100.1\n");
        assert!(!machine.0.join("resolv.conf.before").exists());
    }

    #[test]
    fn an_absurd_file_is_not_touched() {
        let machine = Machine::new("absurd");
        machine.write(&"x".repeat(MAX_FILE as usize + 1));
        let mut names = machine.names();
        assert!(names.change(&change("a", &["10.1.0.1"], &[], true), Some(1)).is_err());
        assert_eq!(machine.file().len(), MAX_FILE as usize + 1);
        assert!(
            Names::at(None, &machine.0, None, Resolved::absent(&machine.0), false)
                .change(&change("a", &["10.1.0.1"], &[], true), Some(1))
                .is_err()
        );
    }
}
