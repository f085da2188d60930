//! A section tried out: its device is opened, says what it is, and is let go again. Nothing is asked of it that could cost something: a token
//! is looked at without its PIN.

use super::Accel;
use crate::Config;

/// Opens what a section is about, and returns what it says it is.
///
/// # Errors
/// What is in the way, and what to do about it.
pub fn try_out(section: &Accel) -> Result<String, String> {
    #[cfg(feature = "pkcs11")]
    if section.driver == super::pkcs11::KIND.driver {
        return super::pkcs11::look(section);
    }
    let config = Config { accel: vec![section.clone()], ..Config::default() };
    // What is for keys only is not among those for packets.
    let mut drivers = crate::network_drivers(&config);
    drivers.extend(crate::key_drivers(&config));
    drivers.retain(|driver| driver.name() == section.driver);
    drivers.truncate(1);
    let (opened, unopened) = crate::open_all(&drivers);
    if let Some(device) = unopened.into_iter().next() {
        return Err(device.why);
    }
    let Some(opened) = opened.into_iter().next() else {
        return Err(format!("the driver `{}` finds no device", section.driver));
    };
    let health = opened.device.health();
    if health != spi::Health::Ready {
        return Err(format!("it opens, and is not ready: {health:?}"));
    }
    let identity = opened.device.stats().map(|stats| stats.identity);
    Ok(identity.filter(|text| !text.is_empty()).unwrap_or_else(|| section.place()))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[cfg(feature = "openssl")]
    #[test]
    fn a_device_that_opens_says_what_it_is_and_one_that_does_not_says_why() {
        let provider = |name: &str| Accel::new("a").of("openssl").with("provider", name);
        assert!(try_out(&provider("default")).unwrap().contains("OpenSSL"));
        let why = try_out(&provider("nonexistent")).unwrap_err();
        assert!(why.contains("the provider `nonexistent` does not load"), "{why}");
    }

    #[cfg(feature = "plugin")]
    #[test]
    fn what_is_no_library_is_no_plug_in() {
        let file = std::env::temp_dir().join(format!("tussock-trial-{}", std::process::id()));
        std::fs::write(&file, "no library").unwrap();
        let why = try_out(&Accel::new("v").of("plugin").with("library", file.clone())).unwrap_err();
        std::fs::remove_file(&file).unwrap();
        assert!(why.contains(&*file.to_string_lossy()), "{why}");
    }

    #[cfg(feature = "pkcs11")]
    #[test]
    fn a_module_that_is_not_there_or_is_none_is_named() {
        let module = |path: &str| Accel::new("hsm").of("pkcs11").with("module", PathBuf::from(path));
        let why = try_out(&module("/nonexistent/p11.so")).unwrap_err();
        assert!(why.contains("cannot be found"), "{why}");
        let why = try_out(&module("/etc/passwd")).unwrap_err();
        assert!(why.contains("is it a PKCS #11 module?"), "{why}");
    }
}
