//! Accelerators by configuration: what a section `[accel.NAME]` may say, and whether it makes sense. What a device can do is its own
//! business; what may be written about it is decided here, so that nobody else has to know a backend.
//!
//! Each driver has a file of its own below this one: its [`Kind`], which says what its sections may hold and checks them, and how its
//! driver is made of them. The list is [`KINDS`].

mod dpdk;
mod kind;
mod openssl;
mod padlock;
mod pkcs11;
mod plugin;
mod qat;
mod trial;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use kind::{Form, Kind, Value, Wrong};
pub use trial::try_out;

#[cfg(feature = "pkcs11")]
pub(crate) use self::pkcs11::driver as tokens;
#[cfg(feature = "dpdk")]
pub(crate) use dpdk::driver as dpdk;
#[cfg(feature = "openssl")]
pub(crate) use openssl::driver as openssl;
#[cfg(feature = "padlock")]
pub(crate) use padlock::driver as padlock;
#[cfg(feature = "plugin")]
pub(crate) use plugin::driver as plugin;
#[cfg(feature = "qat")]
pub(crate) use qat::driver as qat;

/// All drivers that sections can be for, the default one first.
pub const KINDS: &[Kind] =
    &[qat::KIND, dpdk::KIND, openssl::KIND, self::pkcs11::KIND, padlock::KIND, plugin::KIND];

/// One section `[accel.NAME]`, as it was written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Accel {
    /// The operator's name for it.
    pub name: String,
    /// Which driver.
    pub driver: String,
    /// The driver's own keys; paths are absolute.
    pub values: BTreeMap<String, Value>,
}

impl Accel {
    /// A section of which nothing but the name is known: for the default driver.
    pub fn new(name: impl Into<String>) -> Self {
        Accel { name: name.into(), driver: KINDS[0].driver.into(), values: BTreeMap::new() }
    }

    /// The same with one key more.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.values.insert(key.into(), value.into());
        self
    }

    /// The same for another driver.
    #[must_use]
    pub fn of(mut self, driver: &str) -> Self {
        self.driver = driver.into();
        self
    }

    /// Where the device is, for people.
    pub fn place(&self) -> String {
        let place = kind(&self.driver).and_then(|kind| (kind.check)(self).ok());
        place.unwrap_or_default()
    }

    /// A word.
    pub fn text(&self, key: &str) -> Option<&str> {
        match self.values.get(key)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A path.
    pub fn path(&self, key: &str) -> Option<&Path> {
        match self.values.get(key)? {
            Value::Path(path) => Some(path),
            _ => None,
        }
    }

    /// Yes or no.
    pub fn flag(&self, key: &str) -> Option<bool> {
        match self.values.get(key)? {
            Value::Flag(flag) => Some(*flag),
            _ => None,
        }
    }

    /// A number.
    pub fn number(&self, key: &str) -> Option<u64> {
        match self.values.get(key)? {
            Value::Number(number) => Some(*number),
            _ => None,
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::Text(text.into())
    }
}

impl From<PathBuf> for Value {
    fn from(path: PathBuf) -> Value {
        Value::Path(path)
    }
}

/// What is wrong with a section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccelError {
    /// Which section.
    pub name: String,
    /// At which key, where it is one key's fault.
    pub key: Option<&'static str>,
    /// What is wrong, and what was expected.
    pub what: String,
}

impl std::fmt::Display for AccelError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "accel.{}: {}", self.name, self.what)
    }
}

impl std::error::Error for AccelError {}

/// What sections for a driver may hold, if there is such a driver.
pub fn kind(driver: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.driver == driver)
}

/// Checks all sections together.
///
/// # Errors
/// The first [`AccelError`].
pub fn check(sections: &[Accel]) -> Result<(), AccelError> {
    let mut names = BTreeSet::new();
    let mut places = BTreeSet::new();
    for section in sections {
        let error = |key, what: String| Err(AccelError { name: section.name.clone(), key, what });
        let fits = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        if section.name.is_empty() || section.name.len() > 32 || !section.name.bytes().all(fits) {
            return error(None, "a name has 1 to 32 letters, digits, - and _".into());
        }
        if !names.insert(&section.name) {
            return error(None, "there are two of this name".into());
        }
        let driver = &section.driver;
        let Some(kind) = kind(driver) else {
            let known: Vec<&str> = KINDS.iter().map(|kind| kind.driver).collect();
            let known = known.join(", ");
            return error(
                Some("driver"),
                format!("there is no driver `{driver}` for accelerators; there is: {known}"),
            );
        };
        if !kind.built {
            return error(Some("driver"), format!("this build is without the feature `{driver}`"));
        }
        for key in section.values.keys() {
            if kind.form(key).is_none() {
                return error(None, format!("unknown key `{key}` for the driver `{driver}`"));
            }
        }
        match (kind.check)(section) {
            Ok(place) => {
                if !places.insert((driver, place)) {
                    return error(None, "another section has the same device".into());
                }
            }
            Err((key, what)) => return error(key, what),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_driver_would_take_is_named() {
        let error = |section: Accel| check(&[section]).unwrap_err().to_string();
        let device = |name: &str| Accel::new(name).with("device", "0000:6b:01.0");
        let unknown = error(device("a").of("abacus"));
        assert!(unknown.starts_with("accel.a: there is no driver `abacus` for accelerators; there is: qat"));
        assert!(error(device("a b")).contains("a name has"));
        #[cfg(feature = "qat")]
        {
            assert!(error(device("a").with("colour", "red")).contains("unknown key `colour`"));
            let same = [device("a"), Accel::new("a").with("device", "0000:6b:01.1")];
            assert_eq!(check(&same).unwrap_err().to_string(), "accel.a: there are two of this name");
            let twice = [device("a"), device("b")];
            let said = check(&twice).unwrap_err().to_string();
            assert_eq!(said, "accel.b: another section has the same device");
        }
    }

    #[test]
    fn no_two_drivers_and_no_two_keys_of_one_have_the_same_name() {
        let mut drivers = BTreeSet::new();
        for kind in KINDS {
            assert!(drivers.insert(kind.driver), "{}", kind.driver);
            let mut keys = BTreeSet::from(["driver"]);
            assert!(kind.keys.iter().all(|(key, _)| keys.insert(key)), "{}", kind.driver);
        }
    }

    #[test]
    fn a_build_without_a_driver_says_so() {
        for kind in KINDS.iter().filter(|kind| !kind.built) {
            let said = check(&[Accel::new("a").of(kind.driver)]).unwrap_err().to_string();
            assert!(said.contains(&format!("without the feature `{}`", kind.driver)), "{said}");
        }
    }
}
