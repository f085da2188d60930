//! Where a PIN comes from. Never from a command line, which every user of the machine can read; and it goes nowhere but to the token.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::process::{Signal, getpid, kill_process};
use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, SpecialCodes, Termios, tcgetattr, tcsetattr,
};
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
    let terminal = OpenOptions::new().read(true).write(true).open("/dev/tty").map_err(no_terminal)?;
    let before = tcgetattr(&terminal).map_err(|error| no_terminal(error.into()))?;
    let keys = Keys::of(&before.special_codes);
    loop {
        let _ = write!(&terminal, "PIN of token `{token}`: ").and_then(|()| (&terminal).flush());
        let typed = {
            let _quiet = Quiet::of(&terminal, &before).map_err(no_terminal)?;
            type_in(&terminal, &keys)
        };
        let _ = writeln!(&terminal);
        match typed.map_err(no_terminal)? {
            Typed::Line(line) => return not_empty(first_line(&line), || "nothing was typed".to_owned()),
            // The terminal is as it was by now. Where the signal does not end this process, somebody ends it with more care.
            Typed::Signal(signal) => {
                // A process that is shut in may not send any.
                let sent = kill_process(getpid(), signal);
                if signal != Signal::TSTP || sent.is_err() {
                    return Err(no_pin("interrupted"));
                }
            }
        }
    }
}

/// A terminal that shows nothing and raises no signals: what would raise one is read, so that the terminal can be put right before. Who
/// is killed in the middle of a question leaves a shell that does not show what is typed.
struct Quiet<'t> {
    terminal: &'t File,
    before: &'t Termios,
}

impl<'t> Quiet<'t> {
    fn of(terminal: &'t File, before: &'t Termios) -> std::io::Result<Quiet<'t>> {
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO | LocalModes::ISIG | LocalModes::ICANON);
        quiet.special_codes[SpecialCodeIndex::VMIN] = 1;
        quiet.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(terminal, OptionalActions::Flush, &quiet)?;
        Ok(Quiet { terminal, before })
    }
}

impl Drop for Quiet<'_> {
    fn drop(&mut self) {
        // Nothing can be done about a terminal that has gone.
        let _ = tcsetattr(self.terminal, OptionalActions::Flush, self.before);
    }
}

/// What the terminal would have done itself.
struct Keys {
    signals: [(u8, Signal); 3],
    erase: u8,
    kill: u8,
    end: u8,
}

impl Keys {
    fn of(codes: &SpecialCodes) -> Keys {
        let signals = [
            (codes[SpecialCodeIndex::VINTR], Signal::INT),
            (codes[SpecialCodeIndex::VQUIT], Signal::QUIT),
            (codes[SpecialCodeIndex::VSUSP], Signal::TSTP),
        ];
        let [erase, kill, end] = [SpecialCodeIndex::VERASE, SpecialCodeIndex::VKILL, SpecialCodeIndex::VEOF]
            .map(|index| codes[index]);
        Keys { signals, erase, kill, end }
    }
}

/// How a question ended.
enum Typed {
    Line(Zeroizing<Vec<u8>>),
    Signal(Signal),
}

fn type_in(mut terminal: &File, keys: &Keys) -> std::io::Result<Typed> {
    let mut line = Zeroizing::new(Vec::with_capacity(MOST as usize));
    let mut octet = Zeroizing::new([0u8]);
    loop {
        match terminal.read(&mut octet[..]) {
            Ok(0) => return Ok(Typed::Line(line)),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        if let Some((_, signal)) = keys.signals.iter().find(|(code, _)| *code == octet[0] && *code != 0) {
            return Ok(Typed::Signal(*signal));
        }
        match octet[0] {
            // The code of keys that are switched off.
            0 => {}
            b'\n' | b'\r' => return Ok(Typed::Line(line)),
            key if key == keys.end => return Ok(Typed::Line(line)),
            key if key == keys.kill => line.clear(),
            key if key == keys.erase || key == 8 || key == 127 => {
                line.pop();
            }
            key if line.len() < MOST as usize => line.push(key),
            _ => {}
        }
    }
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
