//! `driver = "plugin"`: a vendor's shared library, written against `spi/cabi/include/accel.h`.

use super::kind::Wrong;
use super::{Accel, Form, Kind};

pub(crate) const KIND: Kind = Kind {
    driver: "plugin",
    built: cfg!(feature = "plugin"),
    // `device`: one of the library's devices, by the library's name for it; needed where it has several.
    keys: &[("library", Form::File), ("device", Form::Text)],
    check,
};

fn check(section: &Accel) -> Result<String, Wrong> {
    let Some(library) = section.path("library") else {
        return Err((None, "has no library: the path of the vendor's .so".into()));
    };
    if !library.is_absolute() {
        return Err((Some("library"), format!("library = {:?} is no absolute path", library.display())));
    }
    // Whether it is there is found out when it is loaded: the file may come later, and gateways start without it.
    match section.text("device") {
        Some("") => Err((Some("device"), "device is empty; leave it out for the only one".into())),
        Some(device) => Ok(format!("{} in {}", device, library.display())),
        None => Ok(library.display().to_string()),
    }
}

/// The driver of all sections that are for it.
#[cfg(feature = "plugin")]
pub(crate) fn driver(sections: &[Accel]) -> Option<cabi::Plugin> {
    let site = |section: &Accel| {
        Some(cabi::Site {
            name: section.name.clone(),
            library: section.path("library")?.to_owned(),
            device: section.text("device").map(str::to_owned),
        })
    };
    let ours = sections.iter().filter(|section| section.driver == KIND.driver);
    let sites: Vec<cabi::Site> = ours.filter_map(site).collect();
    (!sites.is_empty()).then(|| cabi::Plugin::new(sites))
}

#[cfg(test)]
#[cfg(feature = "plugin")]
mod tests {
    use std::path::PathBuf;

    use super::super::check;
    use super::*;

    fn section(name: &str) -> Accel {
        Accel::new(name).of("plugin")
    }

    fn library(name: &str, path: &str) -> Accel {
        section(name).with("library", PathBuf::from(path))
    }

    #[test]
    fn sections_that_make_sense_make_a_driver_even_if_the_library_is_missing() {
        let sections = [
            library("a", "/opt/vendor/lib.so").with("device", "card0"),
            library("b", "/opt/vendor/lib.so").with("device", "card1"),
        ];
        assert_eq!(check(&sections), Ok(()));
        let driver = driver(&sections).unwrap();
        let found = spi::Driver::probe(&driver);
        assert_eq!(found.iter().map(|desc| desc.id.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert!(spi::Driver::open(&driver, &found[0]).is_err());
        let why = &spi::Driver::unusable(&driver)[0].why;
        assert!(why.contains("/opt/vendor/lib.so") && why.contains("there is no such file"), "{why}");
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        let error = |sections: &[Accel]| check(sections).unwrap_err().to_string();
        assert!(error(&[section("a")]).contains("has no library"));
        assert!(error(&[library("a", "lib.so")]).contains("no absolute path"));
        assert!(error(&[library("a", "/x").with("device", "")]).contains("device is empty"));
        assert!(
            error(&[library("a", "/x"), library("b", "/x")]).contains("another section has the same device")
        );
    }
}
