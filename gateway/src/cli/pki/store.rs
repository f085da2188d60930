//! The folder of a small CA: its key and certificate, an index of what it issued, the certificates, and the list of those that were
//! revoked. Every change is made under a lock, and every file is replaced in one step, so that a command that dies half-way, or two at
//! once, leave the folder as it was before or after one of them.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// Longest index that is read, octets.
const MAX_INDEX: u64 = 64 << 20;

/// What the CA knows of itself and of what it issued.
#[derive(Serialize, Deserialize, Default, Debug, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(super) struct Index {
    /// Of this file.
    pub(super) version: u32,
    /// Number of the last list of revoked certificates.
    pub(super) crl_number: u64,
    /// Where that list is to be had, for new certificates.
    #[serde(default)]
    pub(super) crl_urls: Vec<String>,
    /// Who can be asked instead.
    #[serde(default)]
    pub(super) ocsp_urls: Vec<String>,
    pub(super) issued: Vec<Issued>,
}

/// A certificate that was issued.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(super) struct Issued {
    /// In hexadecimal.
    pub(super) serial: String,
    /// What it is filed under, and its first name.
    pub(super) name: String,
    /// The other names in it.
    pub(super) names: Vec<String>,
    pub(super) user: bool,
    /// Seconds since 1970.
    pub(super) not_after: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) revoked: Option<Revoked>,
}

/// That a certificate was revoked.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(super) struct Revoked {
    /// Seconds since 1970.
    pub(super) at: u64,
    pub(super) reason: super::ca::Reason,
}

impl Issued {
    /// Whether it would be believed at this time.
    pub(super) fn is_good(&self, now: u64) -> bool {
        self.revoked.is_none() && now <= self.not_after
    }
}

/// A CA's folder, locked.
pub(super) struct Store {
    dir: PathBuf,
    pub(super) index: Index,
    _lock: File,
}

impl Store {
    /// Makes the folder of a new CA.
    pub(super) fn create(dir: &Path) -> anyhow::Result<Store> {
        let folder = |path: &Path| {
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
            made.with_context(|| format!("cannot make the folder {}", path.display()))
        };
        folder(&dir.join("certs"))?;
        let lock = lock(dir)?;
        if dir.join("ca.key").exists() || dir.join("index.json").exists() {
            bail!(
                "there is a CA in {} already; issue from it, or name another folder with --dir",
                dir.display()
            );
        }
        Ok(Store { dir: dir.to_owned(), index: Index { version: 1, ..Index::default() }, _lock: lock })
    }

    /// Opens the folder of a CA.
    pub(super) fn open(dir: &Path) -> anyhow::Result<Store> {
        let file = dir.join("index.json");
        if !file.exists() {
            bail!(
                "there is no CA in {}; make one with `tussock pki init --dir {}`",
                dir.display(),
                dir.display()
            );
        }
        let lock = lock(dir)?;
        let mut text = String::new();
        File::open(&file)
            .and_then(|opened| opened.take(MAX_INDEX).read_to_string(&mut text))
            .with_context(|| format!("cannot read {}", file.display()))?;
        let index: Index = serde_json::from_str(&text)
            .with_context(|| format!("{} makes no sense; put back a copy of it", file.display()))?;
        if index.version != 1 {
            bail!("{} was written by a newer tussock (version {})", file.display(), index.version);
        }
        Ok(Store { dir: dir.to_owned(), index, _lock: lock })
    }

    /// Whether there is a CA in a folder.
    pub(super) fn exists(dir: &Path) -> bool {
        dir.join("index.json").exists()
    }

    /// Writes the index.
    pub(super) fn save(&self) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(&self.index)? + "\n";
        replace(&self.path("index.json"), text.as_bytes())
    }

    /// A file of the folder.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The certificate of a name.
    pub(super) fn cert(&self, name: &str) -> PathBuf {
        self.dir.join("certs").join(format!("{}.crt", file_name(name)))
    }

    /// The private key of a name.
    pub(super) fn key(&self, name: &str) -> PathBuf {
        self.dir.join("certs").join(format!("{}.key", file_name(name)))
    }

    /// The certificate that is good under this name, or the last one.
    pub(super) fn find(&self, name: &str) -> anyhow::Result<&Issued> {
        let now = now();
        let of = || self.index.issued.iter().rev().filter(|issued| issued.name == name);
        let found = of().find(|issued| issued.is_good(now)).or_else(|| of().next());
        found.with_context(|| {
            let known: BTreeSet<&str> = self.index.issued.iter().map(|issued| issued.name.as_str()).collect();
            let known: Vec<&str> = known.into_iter().take(20).collect();
            let known = if known.is_empty() { "nothing yet".to_owned() } else { known.join(", ") };
            format!("this CA has issued nothing called `{name}`; it has issued {known}")
        })
    }
}

fn lock(dir: &Path) -> anyhow::Result<File> {
    let path = dir.join("lock");
    let open = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
    let file = open.with_context(|| format!("cannot open {}", path.display()))?;
    flock(&file, FlockOperation::LockExclusive).with_context(|| format!("cannot lock {}", path.display()))?;
    Ok(file)
}

/// Puts a file in place in one step, for its owner only.
pub(super) fn replace(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    let half = half(path);
    let write = || {
        // One that was left behind may belong to anybody.
        match fs::remove_file(&half) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&half)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&half, path)?;
        File::open(folder_of(path))?.sync_all()
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// The folder that a file is in. A bare name has an empty one before it, which is no folder to anybody.
pub(super) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn half(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.new"))
}

/// Reads a file with a private key into memory that is wiped.
pub(super) fn secret(path: &Path) -> anyhow::Result<Zeroizing<String>> {
    let read = || {
        let file = File::open(path)?;
        let mut text = Zeroizing::new(String::with_capacity(64 * 1024));
        file.take(64 * 1024 - 1).read_to_string(&mut text)?;
        Ok::<_, std::io::Error>(text)
    };
    read().with_context(|| format!("cannot read {}", path.display()))
}

/// A name as it may stand in a folder.
pub(super) fn file_name(name: &str) -> String {
    let fits = |c: char| if c.is_ascii_alphanumeric() || "-_.@".contains(c) { c } else { '_' };
    let name: String = name.chars().map(fits).take(200).collect();
    name.trim_start_matches('.').to_owned()
}

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}
