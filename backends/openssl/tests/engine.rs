//! An engine at work: keys that stay in SoftHSM2, through the engine `pkcs11`. Skipped, loudly, where one of them is not there.
#![allow(clippy::unwrap_used)]

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use ossl::Config;
use soft::Soft;
use spi::alg::Curve;
use spi::{FaultKind, Hash, KeySource, Outcome, SignScheme};
use support::token::{PIN, find, public, softhsm};
use support::{Ops, device, file};

/// A token with two keys, and the engine that leads to it: the module, and the settings.
fn token() -> Option<(PathBuf, PathBuf)> {
    if !ossl::has_engines() {
        eprintln!("SKIPPED: {} has no engines", ossl::version());
        return None;
    }
    find(&[
        "/usr/lib/x86_64-linux-gnu/engines-3/pkcs11.so",
        "/usr/lib/aarch64-linux-gnu/engines-3/pkcs11.so",
    ])?;
    softhsm()
}

fn config(module: &Path) -> Config {
    let mut config = Config::default();
    config.engine = Some("pkcs11".into());
    config.commands = vec![format!("MODULE_PATH={}", module.display())];
    config.pin_file = Some(file("pin", &format!("{PIN}\n")));
    config
}

/// SoftHSM finds its token by an environment variable, so the test runs once more as a process that has it.
#[test]
fn keys_that_stay_in_a_token_sign_through_an_engine() {
    if let Some(module) = std::env::var_os("TUSSOCK_TEST_MODULE") {
        return sign(Path::new(&module));
    }
    let Some((module, settings)) = token() else { return };
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "keys_that_stay_in_a_token_sign_through_an_engine", "--nocapture"])
        .env("TUSSOCK_TEST_MODULE", module)
        .env("SOFTHSM2_CONF", settings)
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("60 signatures by the engine"), "{text}");
    // The engine says so itself whenever it tries.
    assert_eq!(text.matches("Login failed").count(), 1, "a wrong PIN is tried once: {text}");
    assert!(!text.contains("Enter"), "nobody is asked: {text}");
    assert!(!text.contains(PIN), "the PIN is nowhere in the output");
}

fn sign(module: &Path) {
    let mut wrong = config(module);
    wrong.pin_file = Some(file("wrong-pin", "0000-wrong\n"));
    let mistaken = device(&wrong);
    for _ in 0..3 {
        let key = mistaken.open_key(KeySource::Uri("pkcs11:token=tussock;object=rsa;type=private".into()));
        assert_eq!(key.map(|_| ()).map_err(|fault| fault.kind), Err(FaultKind::Unsupported));
    }
    drop(mistaken);
    let device = device(&config(module));
    let identity = device.stats().unwrap().identity;
    assert!(identity.contains("keys of the engine pkcs11"), "{identity}");
    assert!(device.desc().caps.esp.is_empty() && device.desc().caps.dh.is_empty(), "an engine is for keys");
    let open = |uri: &str| device.open_key(KeySource::Uri(uri.into()));
    let (rsa, ec) = (
        open("pkcs11:token=tussock;object=rsa;type=private"),
        open("pkcs11:token=tussock;id=%02;type=private"),
    );
    let (rsa, ec) = (rsa.unwrap(), ec.unwrap());
    let nowhere = open("pkcs11:token=tussock;object=nobody;type=private").map(|_| ());
    assert_eq!(nowhere.map_err(|fault| fault.kind), Err(FaultKind::Unsupported));
    assert_eq!(rsa.spki, public("rsa2048.p8"));
    assert_eq!(ec.spki, public("p256.p8"));
    // Software does not trust what an engine says of itself.
    let software = Soft::default().device();
    let (ops, judge) = (Ops::new(&*device), Ops::new(&*software));
    let mut count = 0;
    for key in [&rsa, &ec] {
        for scheme in key.schemes.iter().copied() {
            for n in 0..5u8 {
                let octets = vec![n; usize::from(n) * 100];
                let signature = ops.sign(key.id, scheme, &octets).unwrap();
                assert_eq!(judge.verify(&key.spki, scheme, &octets, &signature), Ok(()), "{scheme:?}");
                count += 1;
            }
        }
    }
    assert!(rsa.schemes.contains(&SignScheme::RsaPkcs1(Hash::Sha256)));
    assert!(ec.schemes.contains(&SignScheme::EcdsaPlain(Curve::P256, Hash::Sha256)));
    device.close_key(rsa.id);
    let stale = ops.sign(rsa.id, SignScheme::RsaPkcs1(Hash::Sha256), b"octets");
    assert_eq!(stale, Err(Outcome::Failed(FaultKind::StaleHandle.into())));
    println!("{count} signatures by the engine");
}
