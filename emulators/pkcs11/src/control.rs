//! `control.toml`: how the token behaves, changed while it is in use.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// What the file may say. Everything has a default, so a file that is missing or empty is a quick, healthy token with PIN `1234`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Control {
    /// Whether the token is in its slot. Taking it out ends all sessions.
    pub present: bool,
    /// Its label.
    pub label: String,
    /// Its serial number.
    pub serial: String,
    /// The user's PIN.
    pub pin: String,
    /// Wrong PINs before it locks.
    pub tries: u32,
    /// Operations with keys that run at one time; others wait.
    pub parallel: usize,
    /// How long a signature takes, milliseconds.
    pub sign_ms: u64,
    /// How long making a key or deriving a secret takes, milliseconds.
    pub derive_ms: u64,
    /// How long a login takes, milliseconds.
    pub login_ms: u64,
    /// Sessions there may be; 0: any number.
    pub max_sessions: usize,
    /// Whenever this number changes all sessions are gone, as after a reset of the token.
    pub lose_sessions: u64,
    /// Whenever this number changes the user is logged out.
    pub log_out: u64,
    /// Every so many signatures one fails; 0: none does.
    pub fail_every: u64,
    /// What a failed one returns.
    pub fail_with: u64,
    /// Mechanisms it does not have, by number.
    pub without: Vec<u64>,
}

impl Default for Control {
    fn default() -> Control {
        Control {
            present: true,
            label: "emulated".into(),
            serial: "0001".into(),
            pin: "1234".into(),
            tries: 3,
            parallel: 4,
            sign_ms: 0,
            derive_ms: 0,
            login_ms: 0,
            max_sessions: 0,
            lose_sessions: 0,
            log_out: 0,
            fail_every: 0,
            fail_with: cryptoki_sys::CKR_DEVICE_ERROR,
            without: Vec::new(),
        }
    }
}

/// The file, and what it said last.
pub struct Watched {
    file: PathBuf,
    seen: Option<(u64, i64, i64, u64)>,
    control: Control,
}

impl Watched {
    /// The file in this folder.
    pub fn new(folder: &Path) -> Watched {
        Watched { file: folder.join("control.toml"), seen: None, control: Control::default() }
    }

    /// What it says now. A file that makes no sense changes nothing, and is complained about.
    pub fn look(&mut self) -> &Control {
        // Inode, time and length: a file that was renamed into place is seen to be another within one tick of the clock.
        let stamp = std::fs::metadata(&self.file).ok().map(|m| (m.ino(), m.mtime(), m.mtime_nsec(), m.len()));
        if stamp != self.seen {
            self.seen = stamp;
            let text = std::fs::read_to_string(&self.file).unwrap_or_default();
            match toml::from_str(&text) {
                Ok(control) => self.control = control,
                Err(error) => eprintln!("{}: {error}", self.file.display()),
            }
        }
        &self.control
    }
}
