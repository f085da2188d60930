//! The first file system of a guest: an archive in the format `newc`, as the kernel unpacks it.
//!
//! Whoever builds one need not be root: owners, modes and devices are but numbers in it.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};

const DIRECTORY: u32 = 0o040_755;
const FILE: u32 = 0o100_000;
const LINK: u32 = 0o120_777;
const CONSOLE: u32 = 0o020_600;

/// An archive being written.
#[derive(Default)]
pub struct Archive {
    bytes: Vec<u8>,
    inodes: u32,
    /// What is there already; the first of two wins.
    names: BTreeSet<String>,
}

impl Archive {
    /// One with the folders and the device that a kernel wants before anything runs.
    pub fn new() -> Archive {
        let mut archive = Archive::default();
        for folder in ["proc", "sys", "dev", "tmp", "run", "etc", "var", "root"] {
            archive.folder(folder);
        }
        archive.entry("dev/console", CONSOLE, (5, 1), &[]);
        archive
    }

    /// A file.
    pub fn file(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.folders_above(name);
        if self.names.insert(name.to_owned()) {
            self.entry(name, FILE | mode, (0, 0), content);
        }
    }

    /// A copy of a file; of what it points to, if it is a link.
    pub fn copy(&mut self, name: &str, from: &Path) -> Result<()> {
        let content = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        let mode = fs::metadata(from)?.permissions().mode() & 0o777;
        self.file(name, mode, &content);
        Ok(())
    }

    /// A symbolic link.
    pub fn link(&mut self, name: &str, to: &str) {
        self.folders_above(name);
        if self.names.insert(name.to_owned()) {
            self.entry(name, LINK, (0, 0), to.as_bytes());
        }
    }

    /// The finished archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, (0, 0), &[]);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        self.bytes
    }

    fn folders_above(&mut self, name: &str) {
        if let Some((folder, _)) = name.rsplit_once('/') {
            self.folder(folder);
        }
    }

    fn folder(&mut self, name: &str) {
        if self.names.contains(name) {
            return;
        }
        self.folders_above(name);
        self.names.insert(name.to_owned());
        self.entry(name, DIRECTORY, (0, 0), &[]);
    }

    fn entry(&mut self, name: &str, mode: u32, device: (u32, u32), content: &[u8]) {
        self.inodes += 1;
        let (inode, size, name_size) = (self.inodes, content.len() as u32, name.len() as u32 + 1);
        let fields = [inode, mode, 0, 0, 1, 0, size, 0, 0, device.0, device.1, name_size, 0]
            .map(|n| format!("{n:08X}"));
        self.bytes.extend(b"070701");
        self.bytes.extend(fields.concat().as_bytes());
        self.bytes.extend(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_can_be_read_back() {
        let mut archive = Archive::default();
        archive.file("lib/m/a.ko", 0o644, b"module");
        archive.link("lib/m/b", "a.ko");
        archive.file("lib/m/a.ko", 0o644, b"the first one stays");
        let bytes = archive.finish();
        assert_eq!(bytes.len() % 512, 0);
        let mut found = Vec::new();
        let mut at = 0;
        loop {
            assert_eq!(&bytes[at..at + 6], b"070701");
            let field = |n: usize| {
                let text = std::str::from_utf8(&bytes[at + 6 + 8 * n..at + 14 + 8 * n]).unwrap();
                usize::from_str_radix(text, 16).unwrap()
            };
            let (mode, size, name_size) = (field(1), field(6), field(11));
            let name = String::from_utf8(bytes[at + 110..at + 109 + name_size].to_vec()).unwrap();
            let content = (at + 110 + name_size).next_multiple_of(4);
            if name == "TRAILER!!!" {
                break;
            }
            found.push((name, mode, bytes[content..content + size].to_vec()));
            at = (content + size).next_multiple_of(4);
        }
        let expected = [
            ("lib", 0o040_755, ""),
            ("lib/m", 0o040_755, ""),
            ("lib/m/a.ko", 0o100_644, "module"),
            ("lib/m/b", 0o120_777, "a.ko"),
        ];
        let expected: Vec<_> = expected
            .into_iter()
            .map(|(name, mode, content)| (name.to_owned(), mode, content.as_bytes().to_vec()))
            .collect();
        assert_eq!(found, expected);
    }
}
