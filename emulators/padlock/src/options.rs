//! What an emulator may be told, also by an environment variable.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use crate::emulator::Units;

/// Options. The default: all units, enabled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Units that are there.
    pub units: Units,
    /// Those of them that are not enabled.
    pub asleep: Units,
    /// Where the counters are written when the process ends.
    pub stats: Option<PathBuf>,
    /// When all units go away, as in a guest that is moved to another host.
    pub vanish: Option<SystemTime>,
    /// When a bit of every result of XCRYPT begins to be wrong.
    pub flips: Option<Duration>,
}

impl Default for Options {
    fn default() -> Self {
        Options { units: Units::all(), asleep: Units::empty(), stats: None, vanish: None, flips: None }
    }
}

/// A word that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is none of: units=rng+ace+ace2+phe+pmm, asleep=…, on, stats=PATH, vanish=SECONDS-SINCE-1970, flips=SECONDS"
)]
pub struct BadOption(String);

impl Options {
    /// Words with commas between, for example `units=ace+phe,stats=/tmp/padlock.json`. None: the default.
    ///
    /// # Errors
    /// The first word that is none.
    pub fn parse(text: &str) -> Result<Options, BadOption> {
        let mut options = Options::default();
        for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            let bad = || BadOption(word.to_owned());
            match word.split_once('=') {
                Some(("units", list)) => options.units = units(list).ok_or_else(bad)?,
                Some(("asleep", list)) => options.asleep = units(list).ok_or_else(bad)?,
                Some(("stats", path)) if !path.is_empty() => options.stats = Some(path.into()),
                Some(("flips", seconds)) => {
                    options.flips = Some(Duration::from_secs(seconds.parse().map_err(|_| bad())?));
                }
                // For processes that are started again later, too.
                Some(("vanish", seconds)) => {
                    let after = Duration::from_secs(seconds.parse().map_err(|_| bad())?);
                    options.vanish = Some(SystemTime::UNIX_EPOCH.checked_add(after).ok_or_else(bad)?);
                }
                // The variable has to be there; this says nothing more.
                None if word == "on" => {}
                _ => return Err(bad()),
            }
        }
        Ok(options)
    }
}

fn units(list: &str) -> Option<Units> {
    let names = list.split('+').filter(|name| !name.is_empty());
    names
        .map(|name| Units::from_name(&name.to_ascii_uppercase()))
        .collect::<Option<Vec<_>>>()
        .map(|all| all.into_iter().fold(Units::empty(), |all, unit| all | unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_understood_and_others_are_named() {
        assert_eq!(Options::parse("on"), Ok(Options::default()));
        let options = Options::parse("units=ace+phe, asleep=rng,stats=/tmp/x").unwrap();
        assert_eq!((options.units, options.asleep), (Units::ACE | Units::PHE, Units::RNG));
        assert_eq!(options.stats, Some("/tmp/x".into()));
        let later = Options::parse("vanish=9,flips=4").unwrap();
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(9);
        assert_eq!((later.vanish, later.flips), (Some(at), Some(Duration::from_secs(4))));
        for bad in ["units=mmx", "unit=ace", "stats=", "watch", "vanish=soon"] {
            assert!(Options::parse(bad).unwrap_err().to_string().starts_with(&format!("`{bad}`")));
        }
    }
}
