//! What a guest boots into: busybox, the script that is to be run, kernel modules, programs with their libraries.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::cpio::Archive;
use super::modules::Modules;
use super::place::Place;
use crate::process;

const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";
const LINKER: &str = "usr/lib64/ld-linux-x86-64.so.2";

/// The scripts of the guests, by name.
const SCRIPTS: &[(&str, &str)] = &[
    ("linux", include_str!("guest/linux.sh")),
    ("dpdk", include_str!("guest/dpdk.sh")),
    ("qatlib", include_str!("guest/qatlib.sh")),
    ("driver", include_str!("guest/driver.sh")),
    ("tunnel", include_str!("guest/tunnel.sh")),
];

/// A first file system under construction.
pub struct Initrd<'a> {
    archive: Archive,
    place: &'a Place,
}

impl<'a> Initrd<'a> {
    /// One with busybox and the scripts.
    pub fn new(place: &'a Place) -> Result<Initrd<'a>> {
        let mut archive = Archive::new();
        archive.copy("bin/busybox", &place.busybox())?;
        archive.link("bin/sh", "busybox");
        archive.file("init", 0o755, include_bytes!("guest/init.sh"));
        for (name, text) in SCRIPTS {
            archive.file(&format!("rig/{name}.sh"), 0o644, text.as_bytes());
        }
        Ok(Initrd { archive, place })
    }

    /// Kernel modules with all that they need, as a list that the script loads by its name.
    pub fn modules(mut self, list: &str, wanted: &[&str]) -> Result<Initrd<'a>> {
        let modules = Modules::of(&self.place.modules()?)?.in_order(wanted)?;
        let names: String = modules.iter().map(|module| format!("{}\n", module.name)).collect();
        self.archive.file(&format!("lib/m/{list}.list"), 0o644, names.as_bytes());
        for module in modules {
            self.archive.file(&format!("lib/m/{}.ko", module.name), 0o644, &module.content);
        }
        Ok(self)
    }

    /// Files of the guests' Debian, with the libraries they need.
    pub fn debian(mut self, files: &[&str]) -> Result<Initrd<'a>> {
        let root = self.place.guest_root();
        let libraries = root.join(LIBRARIES);
        for file in files {
            let path = root.join(file);
            self.archive.copy(file, &path)?;
            // The package's own linker, for the machine's may be too old for its libraries.
            let linker = root.join(LINKER);
            self.libraries(&linker, Some(&libraries), &path)?;
        }
        self.linker(&root.join(LINKER))?;
        Ok(self)
    }

    /// A program of this machine with the libraries it needs, in `/bin` under a name.
    pub fn program(mut self, name: &str, path: &Path) -> Result<Initrd<'a>> {
        self.archive.copy(&format!("bin/{name}"), path)?;
        let linker = Path::new("/lib64/ld-linux-x86-64.so.2");
        if is_dynamic(path)? {
            self.libraries(linker, None, path)?;
            self.linker(linker)?;
        }
        Ok(self)
    }

    /// The finished archive.
    pub fn finish(self) -> Vec<u8> {
        self.archive.finish()
    }

    fn linker(&mut self, from: &Path) -> Result<()> {
        self.archive.copy(LINKER, from)?;
        self.archive.link("lib64", "usr/lib64");
        Ok(())
    }

    /// The libraries of a file, as its dynamic linker finds them.
    fn libraries(&mut self, linker: &Path, path: Option<&Path>, file: &Path) -> Result<()> {
        let mut command = Command::new(linker);
        if let Some(path) = path {
            command.arg("--library-path").arg(path);
        }
        let said = process::run(command.arg("--list").arg(file))?;
        for line in said.lines() {
            // `libz.so.1 => /usr/lib/x86_64-linux-gnu/libz.so.1 (0x00007f…)`
            let Some((name, rest)) = line.trim().split_once(" => ") else { continue };
            if rest.starts_with("not found") {
                bail!("{} needs {name}, which is not there", file.display());
            }
            let from = PathBuf::from(rest.split_whitespace().next().context("an odd line of the linker")?);
            if !name.contains('/') {
                self.archive.copy(&format!("{LIBRARIES}/{name}"), &from)?;
            }
        }
        Ok(())
    }
}

/// Whether a program is a binary that asks for a dynamic linker: its file names one.
fn is_dynamic(path: &Path) -> Result<bool> {
    let bytes = std::fs::read(path)?;
    let wanted = b"/lib64/ld-linux-x86-64.so.2\0";
    Ok(bytes.starts_with(b"\x7fELF") && bytes.windows(wanted.len()).any(|window| window == wanted))
}
