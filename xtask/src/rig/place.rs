//! What the rig is made of, in the user's cache: QEMU for this machine; a kernel, busybox, DPDK and Intel's library for
//! the guests. About 230 MB of downloads and 1 GB on disk, kept from run to run.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::checkout;
use crate::debian::{self, Apt};

/// The suite that the guests are made of. Its kernel (6.12) has everything that is needed as a module; its QEMU is too old.
const SUITE: &str = "trixie";
/// The suite that has a QEMU with a vfio-user client (10.1 or later).
const NEWER: &str = "trixie-backports";
const QEMU: &[&str] = &["qemu-system-x86"];
/// `dpdk-dev` has the test program; the rest are the drivers that it loads.
const GUEST: &[&str] = &[
    "dpdk-dev",
    "librte-common-qat25",
    "librte-crypto-openssl25",
    "librte-mempool-ring25",
    "qatlib-examples",
    "qatlib-service",
];
/// Changes when what is unpacked does, so that an old cache is not taken for a new one.
const EDITION: &str = "2";
/// Packages whose versions a reader of results wants to know, besides the kernel's.
const TOLD: &[&str] = &["qemu-system-x86", "dpdk-dev", "qatlib-examples"];

/// Where things are.
pub struct Place {
    home: PathBuf,
}

impl Place {
    /// Makes sure that everything is there. `fresh` throws away what was.
    pub fn need(fresh: bool) -> Result<Place> {
        if !cfg!(target_arch = "x86_64") {
            bail!("the rig's packages are for x86_64");
        }
        let place = Place { home: checkout::cache().join("rig") };
        let done = place.home.join("complete");
        if fresh {
            fs::remove_dir_all(&place.home).ok();
        }
        if fs::read_to_string(&done).is_ok_and(|edition| edition == EDITION) {
            println!("rig   all packages are in {}", place.home.display());
            return Ok(place);
        }
        place.fetch().context("the rig's packages cannot be had")?;
        fs::write(done, EDITION)?;
        Ok(place)
    }

    fn fetch(&self) -> Result<()> {
        let began = Instant::now();
        let say = |what: &str| println!("rig   {:6.1} s  {what}", began.elapsed().as_secs_f64());
        println!("rig   fetching about 230 MB of packages of Debian {SUITE} into {}", self.home.display());
        fs::create_dir_all(&self.home)?;
        let apt = Apt::begin(&self.home, &[SUITE, NEWER])?;
        say("package lists");
        let (qemu, guest, kernel) =
            (self.home.join("debs/qemu"), self.home.join("debs/guest"), self.home.join("debs/kernel"));
        apt.download(&qemu, Some(NEWER), QEMU)?;
        say("QEMU downloaded");
        apt.download(&guest, None, GUEST)?;
        say("DPDK and Intel's library downloaded");
        let image = apt.dependency("linux-image-amd64", "linux-image")?;
        apt.download_only(&kernel, &[&image, "busybox-static"])?;
        say(&format!("{image} and busybox downloaded"));
        for (archives, root) in
            [(&qemu, self.qemu_root()), (&guest, self.guest_root()), (&kernel, self.kernel_root())]
        {
            fs::remove_dir_all(&root).ok();
            // Headers and static libraries are a third of it all.
            debian::unpack(archives, &root, |name| !name.starts_with("libdpdk-dev_"))?;
        }
        say("unpacked");
        fs::write(self.home.join("versions"), versions(&[&qemu, &guest, &kernel])?)?;
        apt.end()?;
        fs::remove_dir_all(self.home.join("debs"))?;
        Ok(())
    }

    fn qemu_root(&self) -> PathBuf {
        self.home.join("qemu")
    }

    /// The root that programs for guests are taken from.
    pub fn guest_root(&self) -> PathBuf {
        self.home.join("guest")
    }

    fn kernel_root(&self) -> PathBuf {
        self.home.join("kernel")
    }

    /// The kernel's image.
    pub fn kernel(&self) -> Result<PathBuf> {
        first(&self.kernel_root().join("boot"), "vmlinuz-")
    }

    /// The folder of its modules.
    pub fn modules(&self) -> Result<PathBuf> {
        first(&self.kernel_root().join("usr/lib/modules"), "")
    }

    /// The versions of its main packages.
    pub fn versions(&self) -> Result<Vec<(String, String)>> {
        let text = fs::read_to_string(self.home.join("versions")).context("no list of versions")?;
        Ok(text
            .lines()
            .filter_map(|line| line.split_once(' '))
            .map(|(a, b)| (a.to_owned(), b.to_owned()))
            .collect())
    }

    /// busybox, linked statically.
    pub fn busybox(&self) -> PathBuf {
        self.kernel_root().join("usr/bin/busybox")
    }

    /// What runs QEMU: its own dynamic linker with its own libraries, for it needs a younger C library than this machine
    /// may have.
    pub fn qemu(&self) -> Vec<String> {
        let root = self.qemu_root();
        let path = |part: &str| root.join(part).display().to_string();
        let libraries = path("usr/lib/x86_64-linux-gnu");
        vec![
            path("usr/lib64/ld-linux-x86-64.so.2"),
            "--library-path".to_owned(),
            format!("{libraries}:{libraries}/pulseaudio"),
            path("usr/bin/qemu-system-x86_64"),
            "-L".to_owned(),
            path("usr/share/qemu"),
            "-L".to_owned(),
            path("usr/share/seabios"),
        ]
    }
}

/// A line with name and version for each package that is worth telling, from the names of the files: `name_version_arch.deb`.
fn versions(archives: &[&Path]) -> Result<String> {
    let mut lines = String::new();
    for folder in archives {
        for entry in fs::read_dir(folder)? {
            let file = entry?.file_name().to_string_lossy().replace("%3a", ":");
            let mut parts = file.split('_');
            let (Some(name), Some(version)) = (parts.next(), parts.next()) else { continue };
            // A kernel's package has its version in its name.
            if TOLD.contains(&name) || name.starts_with("linux-image-") {
                lines.push_str(&format!("{name} {version}\n"));
            }
        }
    }
    Ok(lines)
}

/// The first entry of a folder whose name begins with `prefix`.
fn first(folder: &Path, prefix: &str) -> Result<PathBuf> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut found: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    found.retain(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix)));
    found.sort();
    found.into_iter().next().with_context(|| format!("nothing called {prefix}… in {}", folder.display()))
}
