//! A gateway on emulated PadLock: the emulator is loaded into the process that carries the packets, and carries out the
//! instructions where they trap.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::checkout::{self, Profile};
use crate::tussock::Tussock;

/// What its configuration has to say.
pub const SECTION: &str = "[accel.via]\ndriver = \"padlock\"\nmontmul = true\nemulated = true";

/// What the emulator counts, of which a gateway uses all.
const COUNTED: [&str; 5] = ["xstore", "xcrypt", "xsha1", "xsha256", "montmul"];

/// A gateway that takes the emulator for its processor, and the emulator.
pub struct Emulated {
    /// The gateway, of a build that can be told to.
    pub gateway: PathBuf,
    library: PathBuf,
}

impl Emulated {
    /// Build both.
    pub fn build(profile: Profile) -> Result<Emulated> {
        let built = checkout::build("tussock", profile, &["padlock-emulated".to_owned()])?;
        let folder = built.parent().context("a binary lies in a folder")?.join("padlock");
        fs::create_dir_all(&folder)?;
        for program in checkout::PROGRAMS {
            let copy = folder.join(program);
            // One that runs cannot be written to.
            fs::remove_file(&copy).ok();
            fs::copy(built.with_file_name(program), &copy)?;
        }
        let gateway = folder.join("tussock");
        // The usual one goes back to its place, for whoever comes next.
        checkout::build_gateway(profile)?;
        Ok(Emulated { gateway, library: library(profile)? })
    }

    /// Has a gateway's process take the emulator for its processor, from the next start on.
    pub fn put_into(&self, gateway: &mut Tussock<'_>) {
        self.put_into_with(gateway, "");
    }

    /// The same with more words for the emulator, each behind a comma.
    pub fn put_into_with(&self, gateway: &mut Tussock<'_>, words: &str) {
        gateway.preset(vec![
            format!("TUSSOCK_PADLOCK_PRELOAD={}", self.library.display()),
            format!("TUSSOCK_PADLOCK_EMULATOR=stats={}{words}", stats(gateway.state()).display()),
        ]);
    }

    /// How many instructions of each kind were carried out, in a line; the gateway with this state folder has ended by now.
    pub fn served(&self, state: &Path, wanted: &[&str]) -> Result<String> {
        let text = fs::read_to_string(stats(state)).context("the emulator has not said what it did")?;
        let counts: Value = serde_json::from_str(&text)?;
        let count = |name: &str| counts.get(name).and_then(Value::as_u64).unwrap_or(0);
        if let Some(name) = wanted.iter().find(|name| count(name) == 0) {
            bail!("no {name} was executed: {text}");
        }
        Ok(COUNTED.iter().map(|name| format!("{} {name}", count(name))).collect::<Vec<_>>().join(", "))
    }
}

/// Where the process that carries the packets may write.
fn stats(state: &Path) -> PathBuf {
    state.join("gateway/padlock.json")
}

/// The emulator as a library to load into a process, built.
pub fn library(profile: Profile) -> Result<PathBuf> {
    checkout::build_library("tussock-padlock-emulator", profile, "libtussock_padlock_emulator.so")
}
