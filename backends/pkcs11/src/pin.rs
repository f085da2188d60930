//! Where a PIN comes from. Never from a command line, which every user of the machine can read; and it goes nowhere but to the token.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use spi::Secret;
use zeroize::Zeroizing;

use crate::trouble::{Trouble, What};

/// Longest PIN that is read, octets.
const MOST: u64 = 1024;

/// Where to find it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PinSource {
    /// Nowhere: the token needs none, or asks for it at its own keyboard.
    #[default]
    None,
    /// In a file, up to the end of its first line.
    File(PathBuf),
    /// In this variable of the environment.
    Env(String),
    /// Asked for at the terminal, once.
    Prompt,
}

impl PinSource {
    /// Reads it now. A file is read each time, so that a PIN that was wrong can be corrected while the gateway runs.
    pub(crate) fn read(&self, token: &str) -> Result<Option<Secret>, Trouble> {
        match self {
            PinSource::None => Ok(None),
            PinSource::File(path) => from_file(path).map(Some),
            PinSource::Env(name) => {
                let value = std::env::var_os(name)
                    .ok_or_else(|| no_pin(format!("the variable {name} is not set")))?;
                not_empty(Secret::from_slice(value.as_bytes()), || format!("the variable {name} is empty"))
                    .map(Some)
            }
            PinSource::Prompt => ask(token).map(Some),
        }
    }
}

fn no_pin(why: impl std::fmt::Display) -> Trouble {
    Trouble::new(What::NoPin, format!("there is no PIN for the token: {why}"))
}

fn not_empty(pin: Secret, why: impl Fn() -> String) -> Result<Secret, Trouble> {
    if pin.is_empty() { Err(no_pin(why())) } else { Ok(pin) }
}

fn from_file(path: &Path) -> Result<Secret, Trouble> {
    let failed = |error: std::io::Error| no_pin(format!("cannot read {}: {error}", path.display()));
    let file = File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.mode();
    if mode & 0o077 != 0 {
        tracing::warn!("{} may be read by others (mode {:o}); chmod 600 it", path.display(), mode & 0o777);
    }
    // All the room there can be, so that growing leaves no copy behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MOST as usize + 1));
    file.take(MOST).read_to_end(&mut bytes).map_err(failed)?;
    not_empty(first_line(&bytes), || format!("{} is empty", path.display()))
}

fn first_line(bytes: &[u8]) -> Secret {
    Secret::from_slice(bytes.split(|octet| matches!(octet, b'\n' | b'\r')).next().unwrap_or_default())
}

/// Asks at the terminal, and shows nothing of what is typed.
fn ask(token: &str) -> Result<Secret, Trouble> {
    let no_terminal =
        |error: std::io::Error| no_pin(format!("there is no terminal to ask at ({error}); use a file"));
    let mut terminal = OpenOptions::new().read(true).write(true).open("/dev/tty").map_err(no_terminal)?;
    let before = tcgetattr(&terminal).map_err(|error| no_terminal(error.into()))?;
    let mut quiet = before.clone();
    quiet.local_modes.remove(LocalModes::ECHO);
    quiet.local_modes.insert(LocalModes::ECHONL);
    let _ = write!(terminal, "PIN of token `{token}`: ").and_then(|()| terminal.flush());
    tcsetattr(&terminal, OptionalActions::Flush, &quiet).map_err(|error| no_terminal(error.into()))?;
    let mut line = Zeroizing::new(Vec::with_capacity(MOST as usize));
    let mut octet = Zeroizing::new([0u8]);
    let read = loop {
        match terminal.read(&mut octet[..]) {
            Ok(1) if octet[0] != b'\n' && line.len() < MOST as usize => line.push(octet[0]),
            Ok(_) => break Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => break Err(error),
        }
    };
    let _ = tcsetattr(&terminal, OptionalActions::Flush, &before);
    read.map_err(no_terminal)?;
    not_empty(first_line(&line), || "nothing was typed".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_ends_with_its_line() {
        let file = std::env::temp_dir().join(format!("tussock-pin-{}", std::process::id()));
        for (text, pin) in [("1234", "1234"), ("1234\n", "1234"), ("12 34\r\nmore\n", "12 34")] {
            std::fs::write(&file, text).unwrap();
            let read = PinSource::File(file.clone()).read("t").unwrap().unwrap();
            assert!(read.ct_eq(pin.as_bytes()), "{text:?}");
        }
        std::fs::write(&file, "\n").unwrap();
        assert!(PinSource::File(file.clone()).read("t").err().unwrap().text.contains("is empty"));
        std::fs::remove_file(&file).unwrap();
        assert!(
            PinSource::File(file.clone()).read("t").err().unwrap().text.contains(&*file.to_string_lossy())
        );
        let unset = PinSource::Env("TUSSOCK_NO_SUCH_PIN".into()).read("t").err().unwrap();
        assert!(unset.text.contains("TUSSOCK_NO_SUCH_PIN is not set"), "{unset}");
        assert!(PinSource::None.read("t").unwrap().is_none());
    }
}
