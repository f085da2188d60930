//! Lists kept in the state folder, so that a restart does not have to wait for servers. What lies there is believed no more than what
//! comes from a server: its issuer's signature is verified like any other.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use spi::{Hash, ShortOps};

use crate::crl::{Crl, MAX_CRL};
use crate::revocation::MAX_AGE;

/// Lists kept.
const MOST: usize = 64;

pub(super) struct Disk {
    dir: PathBuf,
    short: Arc<dyn ShortOps>,
}

impl Disk {
    pub(super) fn new(dir: PathBuf, short: Arc<dyn ShortOps>) -> Disk {
        Disk { dir, short }
    }

    /// A list that was fetched not long ago, and is valid.
    pub(super) fn young(&self, url: &str) -> Option<Crl> {
        let age = fs::metadata(self.file(url)?).ok()?.modified().ok()?.elapsed().ok()?;
        if age < MAX_AGE { self.valid(url) } else { None }
    }

    /// A list that is valid, however old.
    pub(super) fn valid(&self, url: &str) -> Option<Crl> {
        let mut octets = Vec::new();
        let file = File::open(self.file(url)?).ok()?;
        file.take(MAX_CRL as u64 + 1).read_to_end(&mut octets).ok()?;
        Crl::parse(octets).ok().filter(|crl| crl.next_update.is_some_and(|until| SystemTime::now() < until))
    }

    /// Keeps a list. That it cannot be kept is worth a word and no more.
    pub(super) fn keep(&self, url: &str, crl: &Crl) {
        let Some(file) = self.file(url) else { return };
        let write = || {
            fs::create_dir_all(&self.dir)?;
            self.make_room()?;
            let half = file.with_extension("new");
            let mut out =
                OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&half)?;
            out.write_all(crl.der())?;
            out.sync_data()?;
            fs::rename(&half, &file)
        };
        if let Err(error) = write() {
            tracing::warn!(%url, dir = %self.dir.display(), %error, "a CRL could not be kept");
        }
    }

    fn make_room(&self) -> std::io::Result<()> {
        let mut kept = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            let age = entry.metadata()?.modified()?.elapsed().unwrap_or(Duration::ZERO);
            kept.push((age, entry.path()));
        }
        kept.sort();
        for (_, old) in kept.iter().skip(MOST - 1) {
            fs::remove_file(old)?;
        }
        Ok(())
    }

    fn file(&self, url: &str) -> Option<PathBuf> {
        let hash = self.short.hash(Hash::Sha256, &[url.as_bytes()]).ok()?;
        let name: String = hash.iter().map(|octet| format!("{octet:02x}")).collect();
        Some(self.dir.join(format!("{name}.crl")))
    }
}
