//! `driver = "qat"`: Intel QuickAssist, by PCI address or at a vfio-user socket.

use super::kind::Wrong;
use super::{Accel, Form, Kind};

pub(crate) const KIND: Kind = Kind {
    driver: "qat",
    built: cfg!(feature = "qat"),
    // `interrupts`: whether it interrupts; without, it is polled whenever work is out.
    keys: &[("device", Form::Text), ("socket", Form::Path), ("interrupts", Form::Flag)],
    check,
};

fn check(section: &Accel) -> Result<String, Wrong> {
    match (section.text("device"), section.path("socket")) {
        (Some(device), None) if !is_pci_address(device) => {
            let what = format!("device = {device:?} is no PCI address: they look like 0000:6b:00.1");
            Err((Some("device"), what))
        }
        (None, Some(socket)) if !socket.is_absolute() => {
            Err((Some("socket"), format!("socket = {:?} is no absolute path", socket.display())))
        }
        (Some(device), None) => Ok(device.to_owned()),
        (None, Some(socket)) => Ok(socket.display().to_string()),
        (Some(_), Some(_)) => Err((None, "has device and socket: one of the two says where it is".into())),
        (None, None) => {
            Err((None, "has neither device (a PCI address) nor socket (of a vfio-user server)".into()))
        }
    }
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
pub(crate) fn driver(sections: &[Accel]) -> Option<qat::Qat> {
    let site = |section: &Accel| {
        let place = match (section.text("device"), section.path("socket")) {
            (Some(device), _) => qat::Place::Pci(device.to_owned()),
            (None, Some(socket)) => qat::Place::Socket(socket.to_owned()),
            (None, None) => return None,
        };
        let mut config = qat::Config::default();
        config.interrupts = section.flag("interrupts").unwrap_or(config.interrupts);
        Some(qat::Site { name: section.name.clone(), place, config })
    };
    let ours = sections.iter().filter(|section| section.driver == KIND.driver);
    let sites: Vec<qat::Site> = ours.filter_map(site).collect();
    (!sites.is_empty()).then(|| qat::Qat::new(sites))
}

#[cfg(test)]
#[cfg(feature = "qat")]
mod tests {
    use std::path::PathBuf;

    use super::super::check;
    use super::*;

    fn device(name: &str, device: &str) -> Accel {
        Accel::new(name).with("device", device)
    }

    fn error(section: &Accel) -> String {
        check(std::slice::from_ref(section)).unwrap_err().to_string()
    }

    #[test]
    fn sections_that_make_sense_make_a_driver() {
        let socket = Accel::new("qat1").with("socket", PathBuf::from("/run/qat.sock"));
        let sections = [device("qat0", "0000:6b:01.0"), socket];
        assert_eq!(check(&sections), Ok(()));
        let found = spi::Driver::probe(&driver(&sections).unwrap());
        let names: Vec<&str> = found.iter().map(|desc| desc.id.as_str()).collect();
        assert_eq!(names, ["qat0", "qat1"]);
        assert!(driver(&[]).is_none() && driver(&[device("a", "0000:6b:01.0").of("other")]).is_none());
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        assert!(error(&Accel::new("a")).starts_with("accel.a: has neither device"));
        let both = device("a", "0000:6b:01.0").with("socket", PathBuf::from("/x"));
        assert!(error(&both).contains("one of the two"));
        for bad in ["6b:01.0", "0000:6b:01", "0000:6b.01.0", "0000:6B:01.0", ""] {
            assert!(error(&device("a", bad)).contains("is no PCI address"), "{bad}");
        }
        let relative = Accel::new("a").with("socket", PathBuf::from("qat.sock"));
        assert!(error(&relative).contains("absolute"));
    }
}
