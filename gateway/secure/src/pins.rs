//! Keys that were believed because nobody came first under that name ("leap of faith", `trust = "first-use"`): which key each
//! identity had, remembered in a file for as long as an operator does not remove it.
//!
//! One line for each: realm, identity, fingerprint, seconds since 1970, between tabs. The file is read again for each question, for
//! an operator may have removed a line, and written anew as a whole, so that it is the old or the new one after a crash.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use policy::Identity;
use rustix::fs::{FlockOperation, flock};
use thiserror::Error;

/// Name of the file in the state directory.
pub const FILE: &str = "pins";
/// Pins at most, and longest file, octets: whoever may come first under any name must not fill the disk.
pub const MAX_PINS: usize = 10_000;
const MAX_FILE: u64 = 16 << 20;
/// What a fingerprint begins with.
const HASH: &str = "SHA256:";

/// A key that was remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    /// For which realm.
    pub realm: String,
    /// For whom.
    pub peer: Identity,
    /// SHA-256 of the SubjectPublicKeyInfo, as it is shown.
    pub fingerprint: String,
    /// Since when.
    pub since: SystemTime,
}

/// Why keys cannot be looked up or remembered.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PinError {
    /// The file cannot be read or written.
    #[error("{path}: {error}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// A line that nobody wrote here.
    #[error("{path}:{line}: not a pin")]
    Broken {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// More than [`MAX_PINS`].
    #[error("{0} holds {MAX_PINS} keys already")]
    Full(PathBuf),
    /// An identity that has no text.
    #[error("`{0}` cannot be written down")]
    Unwritable(String),
}

/// The remembered keys of one state directory.
#[derive(Clone, Debug)]
pub struct Pins {
    path: PathBuf,
}

impl Pins {
    /// Those of this directory. Nothing is read yet.
    pub fn of(state_dir: &Path) -> Self {
        Pins { path: state_dir.join(FILE) }
    }

    /// Remembers a key for an identity that has none yet.
    ///
    /// # Errors
    /// [`PinError`]; nothing is remembered then.
    pub(crate) fn remember(&self, pin: Pin) -> Result<(), PinError> {
        // What is read back must be the same identity, or the next key would be the first again.
        let writable = Identity::parse(&pin.peer.to_string()).is_ok_and(|read| read == pin.peer);
        if !writable || pin.realm.contains(['\t', '\n']) {
            return Err(PinError::Unwritable(pin.peer.to_string()));
        }
        let _lock = self.lock()?;
        let mut all = self.all()?;
        if all.len() >= MAX_PINS {
            return Err(PinError::Full(self.path.clone()));
        }
        all.push(pin);
        self.write(&all)
    }

    /// Forgets the key of an identity; of all realms unless one is named. Returns how many were there.
    ///
    /// # Errors
    /// [`PinError`].
    pub fn forget(&self, realm: Option<&str>, peer: &Identity) -> Result<usize, PinError> {
        let _lock = self.lock()?;
        let mut all = self.all()?;
        let before = all.len();
        all.retain(|pin| pin.peer != *peer || realm.is_some_and(|realm| realm != pin.realm));
        let gone = before - all.len();
        if gone > 0 {
            self.write(&all)?;
        }
        Ok(gone)
    }

    /// The key that is remembered for an identity.
    ///
    /// # Errors
    /// [`PinError`].
    pub(crate) fn find(&self, realm: &str, peer: &Identity) -> Result<Option<Pin>, PinError> {
        Ok(self.all()?.into_iter().find(|pin| pin.realm == realm && pin.peer == *peer))
    }

    /// All of them, in the order in which they came.
    ///
    /// # Errors
    /// [`PinError`]; without a file there are none.
    pub fn all(&self) -> Result<Vec<Pin>, PinError> {
        let mut text = String::new();
        match File::open(&self.path) {
            Ok(file) => file.take(MAX_FILE).read_to_string(&mut text).map_err(|e| self.failed(e))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(self.failed(error)),
        };
        let broken = |line| PinError::Broken { path: self.path.clone(), line: line + 1 };
        text.lines().enumerate().map(|(n, line)| parse(line).ok_or_else(|| broken(n))).collect()
    }

    fn write(&self, all: &[Pin]) -> Result<(), PinError> {
        let text: String = all.iter().map(line).collect();
        let fresh = self.path.with_extension("new");
        let write = || -> io::Result<()> {
            let mut file =
                OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
            self.give(&file);
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&fresh, &self.path)?;
            // The new name is on the disk, too.
            self.path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
        };
        write().map_err(|error| {
            // What is left of a full disk's file is in the way of nothing, but of no use either.
            let _ = fs::remove_file(&fresh);
            self.failed(error)
        })
    }

    /// Held while the file is read and written: the command line may remove a line at the same time.
    fn lock(&self) -> Result<File, PinError> {
        let path = self.path.with_extension("lock");
        let lock = || -> io::Result<File> {
            let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path)?;
            self.give(&file);
            flock(&file, FlockOperation::LockExclusive)?;
            Ok(file)
        };
        lock().map_err(|error| PinError::File { path: path.clone(), error })
    }

    /// Files belong to whom the folder belongs to: the operator's command must leave none that the key side cannot open.
    fn give(&self, file: &File) {
        use std::os::unix::fs::MetadataExt;
        if let Some(Ok(folder)) = self.path.parent().map(fs::metadata) {
            // Only root can, and only root need.
            let _ = std::os::unix::fs::fchown(file, Some(folder.uid()), Some(folder.gid()));
        }
    }

    fn failed(&self, error: io::Error) -> PinError {
        PinError::File { path: self.path.clone(), error }
    }
}

/// How a key is shown, from the SHA-256 of its SubjectPublicKeyInfo.
pub(crate) fn fingerprint(hash: &[u8]) -> String {
    let hex: String = hash.iter().map(|octet| format!("{octet:02x}")).collect();
    format!("{HASH}{hex}")
}

fn line(pin: &Pin) -> String {
    let since = pin.since.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    format!("{}\t{}\t{}\t{since}\n", pin.realm, pin.peer, pin.fingerprint)
}

fn parse(line: &str) -> Option<Pin> {
    let mut words = line.split('\t');
    let (realm, peer, fingerprint, since) = (words.next()?, words.next()?, words.next()?, words.next()?);
    let hex = fingerprint.strip_prefix(HASH)?;
    let whole =
        words.next().is_none() && hex.len() == 64 && hex.bytes().all(|octet| octet.is_ascii_hexdigit());
    whole.then_some(())?;
    Some(Pin {
        realm: realm.into(),
        peer: Identity::parse(peer).ok()?,
        fingerprint: fingerprint.into(),
        since: UNIX_EPOCH.checked_add(Duration::from_secs(since.parse().ok()?))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str) -> Dir {
            let dir = std::env::temp_dir().join(format!("tussock-pins-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&dir);
            fs::create_dir_all(&dir).unwrap();
            Dir(dir)
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn pin(realm: &str, peer: &str, octet: u8) -> Pin {
        Pin {
            realm: realm.into(),
            peer: Identity::parse(peer).unwrap(),
            fingerprint: fingerprint(&[octet; 32]),
            since: UNIX_EPOCH + Duration::from_secs(1_795_600_000),
        }
    }

    #[test]
    fn pins_are_found_again_by_realm_and_identity_and_removed() {
        let dir = Dir::new("go-round");
        let pins = Pins::of(&dir.0);
        assert_eq!(pins.all().unwrap(), []);
        for (n, peer) in ["sun.lab.test", "carol@lab.test", "10.0.0.1", "keyid:00ff", "C=CH, O=a\\,b, CN=x"]
            .into_iter()
            .enumerate()
        {
            pins.remember(pin("a", peer, n as u8)).unwrap();
            pins.remember(pin("b", peer, 100 + n as u8)).unwrap();
            let peer = Identity::parse(peer).unwrap();
            assert_eq!(
                pins.find("b", &peer).unwrap().unwrap().fingerprint,
                fingerprint(&[100 + n as u8; 32])
            );
        }
        let sun = Identity::parse("SUN.lab.test").unwrap();
        assert!(pins.find("a", &sun).unwrap().is_some(), "another spelling");
        assert!(pins.find("c", &sun).unwrap().is_none());
        assert_eq!(pins.forget(Some("a"), &sun).unwrap(), 1);
        assert!(pins.find("a", &sun).unwrap().is_none() && pins.find("b", &sun).unwrap().is_some());
        assert_eq!(pins.forget(None, &sun).unwrap(), 1);
        assert_eq!(pins.forget(None, &sun).unwrap(), 0);
        assert_eq!(pins.all().unwrap().len(), 8);
        assert_eq!(fs::metadata(dir.0.join(FILE)).unwrap().permissions(), {
            use std::os::unix::fs::PermissionsExt;
            fs::Permissions::from_mode(0o100_600)
        });
    }

    #[test]
    fn what_cannot_be_written_is_an_error_and_leaves_what_was() {
        let dir = Dir::new("unwritable");
        let pins = Pins::of(&dir.0);
        pins.remember(pin("a", "sun.lab.test", 1)).unwrap();
        // A directory in the place of the new file: as good as a disk that takes nothing, also for root.
        fs::create_dir(dir.0.join("pins.new")).unwrap();
        let error = pins.remember(pin("a", "moon.lab.test", 2)).unwrap_err().to_string();
        assert!(error.contains("pins: ") && error.contains("directory"), "{error}");
        assert_eq!(pins.all().unwrap().len(), 1);
        let nowhere = Pins::of(&dir.0.join("nowhere"));
        assert!(
            nowhere.remember(pin("a", "moon.lab.test", 2)).unwrap_err().to_string().contains("No such file")
        );
        // A name that looks like an address would be read back as one.
        let odd = Pin { peer: Identity::Fqdn("10.0.0.1".into()), ..pin("a", "sun.lab.test", 1) };
        assert!(matches!(pins.remember(odd), Err(PinError::Unwritable(_))));
    }

    #[test]
    fn a_full_disk_is_an_error() {
        // Every write to it fails with ENOSPC.
        let dir = Dir::new("full");
        std::os::unix::fs::symlink("/dev/full", dir.0.join("pins.new")).unwrap();
        let pins = Pins::of(&dir.0);
        let error = pins.remember(pin("a", "moon.lab.test", 2)).unwrap_err().to_string();
        assert!(error.contains("No space left"), "{error}");
        assert_eq!(pins.all().unwrap(), []);
        assert!(!dir.0.join("pins.new").exists(), "nothing half-written is left");
    }

    #[test]
    fn a_broken_file_is_named_with_its_line_and_believed_in_nothing() {
        let dir = Dir::new("broken");
        let pins = Pins::of(&dir.0);
        pins.remember(pin("a", "sun.lab.test", 1)).unwrap();
        let good = fs::read_to_string(dir.0.join(FILE)).unwrap();
        for bad in ["a\tsun.lab.test\tSHA256:00\t1\n", "a\tsun.lab.test\n", "\n", "a\t*.x\tSHA256:\t1\n"] {
            fs::write(dir.0.join(FILE), format!("{good}{bad}")).unwrap();
            let error = pins.find("a", &Identity::parse("x.test").unwrap()).unwrap_err().to_string();
            assert!(error.contains("pins:2: not a pin"), "{error}");
            assert!(pins.remember(pin("a", "moon.lab.test", 2)).is_err());
        }
    }

    #[test]
    fn there_are_only_so_many() {
        let dir = Dir::new("many");
        let all: Vec<Pin> = (0..MAX_PINS).map(|n| pin("a", &format!("p{n}.test"), 1)).collect();
        let pins = Pins::of(&dir.0);
        pins.write(&all).unwrap();
        assert!(matches!(pins.remember(pin("a", "one.more.test", 2)), Err(PinError::Full(_))));
        assert_eq!(pins.forget(None, &Identity::parse("p7.test").unwrap()).unwrap(), 1);
        pins.remember(pin("a", "one.more.test", 2)).unwrap();
    }
}
