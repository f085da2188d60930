//! systemd-resolved on a host of the lab, with a system bus and polkit of its own. The machine needs no systemd: the program is taken out of
//! Debian's package, which is not installed, since that would change the machine's own resolver.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::checkout;
use crate::debian;
use crate::process::{self, Daemon};
use crate::world::World;

/// What is installed besides.
pub const PACKAGES: &[&str] = &["dbus-daemon", "polkitd"];
/// What is unpacked only. The second is a library of exactly the same version.
const UNPACKED: [&str; 2] = ["systemd-resolved", "libsystemd-shared"];
/// Numbers that nobody has; the last two are those that the gateway takes where it finds no users.
const USERS: [(&str, u32); 3] = [
    ("systemd-resolve", 1_953_720_067),
    ("tussock-gateway", 1_953_720_065),
    ("tussock-secure", 1_953_720_066),
];
const PATIENCE: Duration = Duration::from_secs(20);

/// The rule that lets our key side tell it; what operators have is beside the documentation.
const RULE: &str = include_str!("../../docs/polkit/50-tussock.rules");

/// A host with one.
pub struct Resolved<'w> {
    world: &'w World,
    host: &'static str,
    /// Folders that stand in the place of the machine's.
    room: PathBuf,
    programs: PathBuf,
    bus: Daemon,
    polkit: Daemon,
    resolved: Daemon,
}

impl<'w> Resolved<'w> {
    /// Starts one. `etc` is the folder of files in the place of those in /etc.
    pub fn start(world: &'w World, host: &'static str, etc: &Path, results: &Path) -> Result<Resolved<'w>> {
        let programs = unpacked()?;
        let room = results.join("resolved").canonicalize().or_else(|_| {
            fs::create_dir_all(results.join("resolved"))?;
            results.join("resolved").canonicalize()
        })?;
        add_users(etc)?;
        for folder in ["dbus", "resolve", "rules.d", "actions"] {
            fs::create_dir_all(room.join(folder))?;
            fs::set_permissions(room.join(folder), fs::Permissions::from_mode(0o755))?;
        }
        chown(room.join("resolve"), Some(USERS[0].1), Some(USERS[0].1))?;
        for from in [Path::new("/usr/share/polkit-1/actions"), &programs.join("usr/share/polkit-1/actions")] {
            for action in fs::read_dir(from)?.flatten() {
                fs::copy(action.path(), room.join("actions").join(action.file_name()))?;
            }
        }
        fs::write(room.join("bus.conf"), bus_conf(&programs))?;
        let bus = Resolved::begin(world, host, &room, "bus", &bus_line(&room))?;
        awaits(&room.join("dbus/system_bus_socket"))?;
        let polkit = Resolved::polkit(world, host, &room)?;
        let resolved = Resolved::begin(world, host, &room, "resolved", &resolved_line(&programs)?)?;
        awaits(&room.join("resolve/io.systemd.Resolve"))?;
        Ok(Resolved { world, host, room, programs, bus, polkit, resolved })
    }

    fn begin(world: &World, host: &str, room: &Path, name: &str, line: &str) -> Result<Daemon> {
        let mut shell = world.on(host, "sh");
        let mounts = "mount --bind \"$1/actions\" /usr/share/polkit-1/actions; \
                      mount --bind \"$1/rules.d\" /etc/polkit-1/rules.d";
        shell.args(["-ec", &format!("{}; {mounts}; exec {line}", mounts_of(room)), "sh"]).arg(room);
        Daemon::start(&mut shell, &room.join(format!("{name}.log")))
    }

    /// Our program as it has to be started to find this bus: a script around it.
    pub fn wrapped(&self, binary: &Path) -> Result<PathBuf> {
        let path = self.room.join("tussock");
        let binary = binary.canonicalize()?;
        let script = format!(
            "#!/bin/sh\nexec unshare --mount sh -ec '{}; exec {} \"$@\"' sh \"$@\"\n",
            mounts_of(&self.room),
            binary.display()
        );
        fs::write(&path, script)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        Ok(path)
    }

    /// Has polkit let our key side tell it.
    pub fn allow(&mut self) -> Result<()> {
        fs::write(self.room.join("rules.d/50-tussock.rules"), RULE)?;
        self.polkit.kill();
        self.polkit = Resolved::polkit(self.world, self.host, &self.room)?;
        Ok(())
    }

    fn polkit(world: &World, host: &str, room: &Path) -> Result<Daemon> {
        let log = room.join("polkit.log");
        fs::remove_file(&log).ok();
        let daemon = Resolved::begin(world, host, room, "polkit", "/usr/lib/polkit-1/polkitd")?;
        let says = || fs::read_to_string(&log).unwrap_or_default();
        let there = process::until(PATIENCE, || Ok(says().contains("Acquired the name").then_some(())))?;
        there.with_context(|| format!("polkitd does not come: {:?}", says()))?;
        Ok(daemon)
    }

    /// What `resolvectl` says.
    pub fn resolvectl(&self, arguments: &[&str]) -> Result<String> {
        let mut shell = self.world.on(self.host, "sh");
        let program = self.programs.join("usr/bin/resolvectl");
        let library = library(&self.programs)?;
        let line = format!("{}; exec {} --no-pager \"$@\"", mounts_of(&self.room), program.display());
        shell.args(["-ec", &line, "sh"]).args(arguments).env("LD_LIBRARY_PATH", library);
        process::run(&mut shell)
    }

    /// Ends it.
    pub fn stop(mut self) {
        for daemon in [&mut self.resolved, &mut self.polkit, &mut self.bus] {
            daemon.kill();
        }
    }
}

/// The bus and what resolved keeps, in the place of the machine's. What is made where the machine has neither is empty and harmless.
fn mounts_of(room: &Path) -> String {
    let room = room.display();
    format!(
        "mkdir -p /run/dbus /run/systemd/resolve; mount --bind {room}/dbus /run/dbus; \
         mount --bind {room}/resolve /run/systemd/resolve"
    )
}

fn bus_line(room: &Path) -> String {
    format!("dbus-daemon --config-file={} --nofork --nopidfile", room.join("bus.conf").display())
}

fn resolved_line(programs: &Path) -> Result<String> {
    let program = programs.join("usr/lib/systemd/systemd-resolved");
    let program = if program.exists() { program } else { programs.join("lib/systemd/systemd-resolved") };
    Ok(format!("env LD_LIBRARY_PATH={} {}", library(programs)?.display(), program.display()))
}

/// The folder of the library that systemd's programs share.
fn library(programs: &Path) -> Result<PathBuf> {
    let mut places = Vec::new();
    for lib in [programs.join("usr/lib"), programs.join("lib")] {
        places.extend(
            fs::read_dir(lib).into_iter().flatten().flatten().map(|entry| entry.path().join("systemd")),
        );
    }
    let has = |place: &PathBuf| {
        let mut files = fs::read_dir(place).into_iter().flatten().flatten();
        files.any(|file| file.file_name().to_string_lossy().starts_with("libsystemd-shared"))
    };
    places.into_iter().find(has).context("no libsystemd-shared in Debian's package")
}

/// A system bus as Debian's, without services that it would start.
fn bus_conf(programs: &Path) -> String {
    let system = "usr/share/dbus-1/system.d";
    let allow = |what: &str| format!("<allow {what}/>\n");
    let policy: String = [
        "user=\"*\"",
        "send_type=\"signal\"",
        "send_requested_reply=\"true\" send_type=\"method_return\"",
        "send_requested_reply=\"true\" send_type=\"error\"",
        "receive_type=\"method_call\"",
        "receive_type=\"method_return\"",
        "receive_type=\"error\"",
        "receive_type=\"signal\"",
        "send_destination=\"org.freedesktop.DBus\"",
    ]
    .map(allow)
    .concat();
    format!(
        "<busconfig>\n<type>system</type>\n<listen>unix:path=/run/dbus/system_bus_socket</listen>\n<auth>EXTERNAL</auth>\n\
         <policy context=\"default\">\n<deny own=\"*\"/>\n<deny send_type=\"method_call\"/>\n{policy}</policy>\n\
         <include>{}/{system}/org.freedesktop.resolve1.conf</include>\n\
         <include>/{system}/org.freedesktop.PolicyKit1.conf</include>\n</busconfig>\n",
        programs.display()
    )
}

fn add_users(etc: &Path) -> Result<()> {
    for (file, more) in [("passwd", "::/:/usr/sbin/nologin"), ("group", "")] {
        let mut text = fs::read_to_string(Path::new("/etc").join(file))?;
        for (name, number) in USERS {
            if text.lines().any(|line| line.starts_with(&format!("{name}:"))) {
                continue;
            }
            let line = match file {
                "passwd" => format!("{name}:x:{number}:{number}{more}\n"),
                _ => format!("{name}:x:{number}:\n"),
            };
            text += &line;
        }
        fs::write(etc.join(file), text)?;
    }
    Ok(())
}

fn awaits(path: &Path) -> Result<()> {
    let there = process::until(PATIENCE, || Ok(path.exists().then_some(())))?;
    there.with_context(|| format!("{} does not come", path.display()))
}

/// The package as this machine's distribution has it.
fn unpacked() -> Result<PathBuf> {
    let home = checkout::cache().join("systemd-resolved");
    let (root, done) = (home.join("root"), home.join("complete"));
    if !done.exists() {
        eprintln!("unpacking systemd-resolved into {}", home.display());
        fs::remove_dir_all(&home).ok();
        let archives = home.join("archives");
        fs::create_dir_all(&archives)?;
        let download = || {
            let mut apt = Command::new("apt-get");
            apt.current_dir(&archives).args(["-qq", "download"]).args(UNPACKED);
            process::finish(&mut apt, Duration::from_secs(300))
        };
        if !download()?.status.success() {
            process::run(Command::new("apt-get").args(["-qq", "update"]))?;
            let again = download()?;
            if !again.status.success() {
                bail!("systemd-resolved cannot be downloaded: {}", again.text());
            }
        }
        debian::unpack(&archives, &root, |_| true)?;
        fs::remove_dir_all(archives)?;
        fs::write(done, "")?;
    }
    Ok(root)
}
