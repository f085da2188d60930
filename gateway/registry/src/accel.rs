//! Accelerators by configuration: what a section `[accel.NAME]` may say, and whether it makes sense. What a device can do is its own
//! business; what may be written about it is decided here, so that nobody else has to know a backend.

use std::collections::BTreeSet;
use std::path::PathBuf;

/// One section `[accel.NAME]`, as it was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Accel {
    /// The operator's name for it.
    pub name: String,
    /// Which driver; none: `qat`.
    pub driver: Option<String>,
    /// PCI address of a function that is bound to vfio-pci.
    pub device: Option<String>,
    /// Socket of a vfio-user server.
    pub socket: Option<PathBuf>,
    /// Whether it interrupts; without, it is polled whenever work is out. None: yes.
    pub interrupts: Option<bool>,
}

impl Accel {
    /// A section of which nothing but the name is known.
    pub fn new(name: impl Into<String>) -> Self {
        Accel { name: name.into(), ..Accel::default() }
    }
}

/// What is wrong with a section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccelError {
    /// Which section.
    pub name: String,
    /// What is wrong, and what was expected.
    pub what: String,
}

impl std::fmt::Display for AccelError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "accel.{}: {}", self.name, self.what)
    }
}

impl std::error::Error for AccelError {}

/// Checks all sections together.
///
/// # Errors
/// The first [`AccelError`].
pub fn check(sections: &[Accel]) -> Result<(), AccelError> {
    let mut names = BTreeSet::new();
    let mut places = BTreeSet::new();
    for section in sections {
        let error = |what: String| Err(AccelError { name: section.name.clone(), what });
        let fits = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        if section.name.is_empty() || section.name.len() > 32 || !section.name.bytes().all(fits) {
            return error("a name has 1 to 32 letters, digits, - and _".into());
        }
        if !names.insert(&section.name) {
            return error("there are two of this name".into());
        }
        match section.driver.as_deref() {
            None | Some("qat") if cfg!(feature = "qat") => {}
            None | Some("qat") => return error("this build is without the feature `qat`".into()),
            Some(other) => {
                return error(format!("there is no driver `{other}` for accelerators; there is: qat"));
            }
        }
        let place = match (&section.device, &section.socket) {
            (Some(device), None) if !is_pci_address(device) => {
                return error(format!("device = {device:?} is no PCI address: they look like 0000:6b:00.1"));
            }
            (None, Some(socket)) if !socket.is_absolute() => {
                return error(format!("socket = {:?} is no absolute path", socket.display()));
            }
            (Some(device), None) => device.clone(),
            (None, Some(socket)) => socket.display().to_string(),
            (Some(_), Some(_)) => {
                return error("has device and socket: one of the two says where it is".into());
            }
            (None, None) => {
                return error("has neither device (a PCI address) nor socket (of a vfio-user server)".into());
            }
        };
        if !places.insert(place) {
            return error("another section has the same device".into());
        }
    }
    Ok(())
}

#[cfg(feature = "qat")]
use qat::is_pci_address;

/// Without a driver nobody knows.
#[cfg(not(feature = "qat"))]
fn is_pci_address(_: &str) -> bool {
    true
}

/// The driver of all sections that are for it.
#[cfg(feature = "qat")]
pub(crate) fn qat(sections: &[Accel]) -> Option<qat::Qat> {
    let site = |section: &Accel| {
        let place = match (&section.device, &section.socket) {
            (Some(device), _) => qat::Place::Pci(device.clone()),
            (None, Some(socket)) => qat::Place::Socket(socket.clone()),
            (None, None) => return None,
        };
        let mut config = qat::Config::default();
        config.interrupts = section.interrupts.unwrap_or(config.interrupts);
        Some(qat::Site { name: section.name.clone(), place, config })
    };
    let sites: Vec<qat::Site> = sections.iter().filter_map(site).collect();
    (!sites.is_empty()).then(|| qat::Qat::new(sites))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(name: &str, device: &str) -> Accel {
        Accel { device: Some(device.into()), ..Accel::new(name) }
    }

    fn error(sections: &[Accel]) -> String {
        check(sections).unwrap_err().to_string()
    }

    #[cfg(feature = "qat")]
    #[test]
    fn sections_that_make_sense_make_a_driver() {
        let socket =
            Accel { socket: Some("/run/qat.sock".into()), driver: Some("qat".into()), ..Accel::new("qat1") };
        let sections = [device("qat0", "0000:6b:01.0"), socket];
        assert_eq!(check(&sections), Ok(()));
        let found = spi::Driver::probe(&qat(&sections).unwrap());
        let names: Vec<&str> = found.iter().map(|desc| desc.id.as_str()).collect();
        assert_eq!(names, ["qat0", "qat1"]);
        assert!(qat(&[]).is_none());
    }

    #[cfg(feature = "qat")]
    #[test]
    fn what_makes_no_sense_is_named() {
        let neither = Accel::new("a");
        assert!(error(std::slice::from_ref(&neither)).starts_with("accel.a: has neither device"));
        let both = Accel { socket: Some("/x".into()), ..device("a", "0000:6b:01.0") };
        assert!(error(&[both]).contains("one of the two"));
        for bad in ["6b:01.0", "0000:6b:01", "0000:6b.01.0", "0000:6B:01.0", ""] {
            assert!(error(&[device("a", bad)]).contains("is no PCI address"), "{bad}");
        }
        let relative = Accel { socket: Some("qat.sock".into()), ..Accel::new("a") };
        assert!(error(&[relative]).contains("absolute"));
        let twice = [device("a", "0000:6b:01.0"), device("b", "0000:6b:01.0")];
        assert_eq!(error(&twice), "accel.b: another section has the same device");
        let same = [device("a", "0000:6b:01.0"), device("a", "0000:6b:01.1")];
        assert_eq!(error(&same), "accel.a: there are two of this name");
        assert!(error(&[device("a b", "0000:6b:01.0")]).contains("a name has"));
        let other = Accel { driver: Some("padlock".into()), ..device("a", "0000:6b:01.0") };
        assert!(error(&[other]).contains("no driver `padlock`"));
    }

    #[cfg(not(feature = "qat"))]
    #[test]
    fn a_build_without_the_driver_says_so() {
        assert!(error(&[device("a", "0000:6b:01.0")]).contains("without the feature `qat`"));
    }
}
