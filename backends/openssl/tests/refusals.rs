//! What cannot be opened says what was tried, why it does not work, and what to do.
#![allow(clippy::unwrap_used)]

mod support;

use std::path::PathBuf;

use ossl::Config;
use spi::Driver;
use support::{driver, file, module, pausing};

fn why(config: &Config) -> String {
    ossl::open("ossl0", config).err().expect("it must not open")
}

fn provider(name: &str) -> Config {
    let mut config = Config::default();
    config.provider = name.into();
    config
}

#[test]
fn a_provider_that_is_not_there_is_named_with_its_file_and_openssls_own_reason() {
    let mut config = provider("abacus");
    config.modules = Some(PathBuf::from("/opt/nowhere"));
    let why = why(&config);
    for part in ["tried /opt/nowhere/abacus.so, which is not there", "OpenSSL says: ", "`modules = …`"] {
        assert!(why.contains(part), "{part} is not in: {why}");
    }
    let why = self::why(&provider("abacus"));
    assert!(why.contains("ossl-modules/abacus.so, which is not there"), "{why}");
}

#[test]
fn a_file_that_is_no_provider_says_so() {
    let text = file("text.so", "this is no module\n");
    let why = why(&provider(text.to_str().unwrap()));
    assert!(why.contains("which is there") && why.contains("OpenSSL says: "), "{why}");
    let why = self::why(&provider("/usr/lib/x86_64-linux-gnu/libcrypto.so.3"));
    assert!(why.contains("does not load"), "{why}");
}

#[test]
fn a_query_that_finds_nothing_says_what_the_algorithms_have() {
    let mut config = provider("default");
    config.properties = Some("provider=abacus".into());
    let why = why(&config);
    assert!(why.contains("properties = \"provider=abacus\"") && why.contains("`provider=default`"), "{why}");
    config.properties = Some("provider=".into());
    assert!(self::why(&config).contains("properties"), "a query that is none");
}

#[test]
fn a_configuration_that_is_not_there_is_named() {
    let mut config = provider("default");
    config.config = Some(PathBuf::from("/nowhere/openssl.cnf"));
    let why = why(&config);
    assert!(why.contains("/nowhere/openssl.cnf") && why.contains("no such file"), "{why}");
}

#[test]
fn a_provider_that_refuses_its_parameters_does_not_open() {
    let config = pausing("1ms", "[[fault]]\nkind = \"unplug\"\n");
    assert!(why(&config).contains("pausing"));
}

/// By its path, without any configuration file.
#[test]
fn a_provider_is_found_by_its_file() {
    let device = ossl::open("ossl0", &provider(module().to_str().unwrap())).unwrap();
    assert!(!device.desc().caps.esp.is_empty());
    assert!(device.stats().unwrap().identity.contains("tussock pausing provider"));
}

#[test]
fn the_driver_remembers_why_a_device_did_not_open() {
    let driver = driver(provider("abacus"));
    let found = driver.probe();
    assert!(driver.open(&found[0]).is_err());
    assert!(driver.unusable()[0].why.contains("abacus.so"));
}

#[test]
fn engines_are_refused_with_what_is_in_the_way() {
    let mut config = Config::default();
    config.engine = Some("abacus".into());
    let why = why(&config);
    if !ossl::has_engines() {
        return assert!(why.contains("no engines any more") && why.contains("provider"), "{why}");
    }
    assert!(why.contains("the engine `abacus` does not open"), "{why}");
    // Part of every OpenSSL 3 that has engines: there is no VIA processor here.
    config.engine = Some("padlock".into());
    let via = std::fs::read_to_string("/proc/cpuinfo").unwrap();
    if via.contains("CentaurHauls") || via.contains("Shanghai") {
        return eprintln!("SKIPPED: this machine has PadLock");
    }
    assert!(self::why(&config).contains("the engine `padlock` does not open"));
    config.commands = vec!["VERBOSE".into()];
    assert!(self::why(&config).contains("COMMAND=value"));
}

#[test]
fn a_pin_that_cannot_be_read_is_no_pin() {
    let mut config = Config::default();
    config.engine = Some("pkcs11".into());
    config.pin_file = Some(PathBuf::from("/nowhere/pin"));
    assert!(why(&config).contains("/nowhere/pin"));
    config.pin_file = Some(file("pin", "\n"));
    assert!(why(&config).contains("it is empty"));
    config.pin_file = Some(file("pin", &"1".repeat(300)));
    assert!(why(&config).contains("it is too long"));
}

/// Debian has it for 13 and newer, and `cargo xtask test` gets that; nothing is assumed of where it is.
#[test]
fn the_fips_provider_opens_where_it_is_installed() {
    let mut config = provider("fips");
    config.modules = std::env::var_os("TUSSOCK_OSSL_MODULES").map(PathBuf::from);
    match std::env::var_os("TUSSOCK_FIPS_CONFIG") {
        Some(file) => config.config = Some(file.into()),
        None => eprintln!(
            "SKIPPED unless it needs no configuration: set TUSSOCK_FIPS_CONFIG to a file that includes fipsmodule.cnf"
        ),
    }
    match ossl::open("fips", &config) {
        Ok(device) => {
            let caps = &device.desc().caps;
            assert!(caps.traits.contains(spi::caps::Traits::FIPS));
            assert!(caps.carries(spi::Encr::AES128_GCM16, spi::Integ::NONE, true));
            assert!(
                !caps.carries(spi::Encr::CHACHA20_POLY1305, spi::Integ::NONE, true),
                "that is not validated"
            );
        }
        Err(why) if config.config.is_some() => panic!("{why}"),
        Err(why) => {
            eprintln!("SKIPPED: {why}");
            assert!(
                why.contains("fips.so") && why.contains("fipsinstall") | why.contains("install the FIPS"),
                "{why}"
            );
        }
    }
}
