//! Keys by URI out of a provider's store: OpenSSL's own, which reads files, and the provider `pkcs11`, whose keys stay in a token.
#![allow(clippy::unwrap_used)]

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use ossl::Config;
use soft::Soft;
use spi::crypto::KeyInfo;
use spi::{Device, Fault, FaultKind, KeySource, Outcome, SignScheme};
use support::token::{PIN, pem, private, public, softhsm};
use support::{Ops, default_provider, device, file};

fn open(device: &dyn Device, uri: &str) -> Result<KeyInfo, Fault> {
    device.open_key(KeySource::Uri(uri.into()))
}

/// Signs with every scheme of a key, and has software judge; returns how many signatures there were.
fn sign(device: &dyn Device, key: &KeyInfo) -> usize {
    let software = Soft::default().device();
    let (ops, judge) = (Ops::new(device), Ops::new(&*software));
    for scheme in key.schemes.iter().copied() {
        let signature = ops.sign(key.id, scheme, b"octets").unwrap();
        if scheme == SignScheme::Ed448 {
            // Software has none; OpenSSL has made it of the same key.
            assert_eq!(signature.len(), 114);
        } else {
            assert_eq!(judge.verify(&key.spki, scheme, b"octets", &signature), Ok(()), "{scheme:?}");
        }
    }
    device.close_key(key.id);
    let stale = ops.sign(key.id, key.schemes[0], b"octets");
    assert_eq!(stale, Err(Outcome::Failed(FaultKind::StaleHandle.into())));
    key.schemes.len()
}

#[test]
fn a_key_in_a_file_is_opened_by_its_uri_and_signs() {
    let device = device(&default_provider());
    for name in ["rsa2048.p8", "p256.p8", "p384.p8", "p521.p8", "ed25519.p8", "ed448.p8"] {
        let key = open(&*device, &format!("file:{}", pem(name).display())).unwrap();
        assert_eq!(key.spki, public(name), "{name}");
        assert!(sign(&*device, &key) > 0);
    }
}

#[test]
fn a_uri_without_a_private_key_is_refused_and_nobody_is_asked_for_a_passphrase() {
    let device = device(&default_provider());
    let key = private("p256.p8");
    let locked =
        key.private_key_to_pem_pkcs8_passphrase(openssl::symm::Cipher::aes_256_cbc(), b"secret").unwrap();
    let text = |pem: Vec<u8>| file("other.pem", &String::from_utf8(pem).unwrap());
    for uri in [
        "file:/nowhere/key.pem".to_owned(),
        format!("file:{}", text(key.public_key_to_pem().unwrap()).display()),
        format!("file:{}", text(locked).display()),
        format!("file:{}", file("text.pem", "this is no key\n").display()),
        "abacus:key".to_owned(),
        "pkcs11:token=tussock;object=rsa".to_owned(),
        String::new(),
        "file:\0".to_owned(),
    ] {
        let refused = open(&*device, &uri).map(|_| ()).map_err(|fault| fault.kind);
        assert_eq!(refused, Err(FaultKind::Unsupported), "{uri:?}");
    }
}

/// The provider `pkcs11`: where its modules are, which `cargo xtask test` says, or Debian 13's own folder.
fn modules() -> Option<PathBuf> {
    let told = std::env::var_os("TUSSOCK_OSSL_MODULES").map(PathBuf::from);
    let usual =
        ["x86_64", "aarch64"].map(|arch| PathBuf::from(format!("/usr/lib/{arch}-linux-gnu/ossl-modules")));
    let found = told.into_iter().chain(usual).find(|folder| folder.join("pkcs11.so").exists());
    if found.is_none() {
        eprintln!("SKIPPED: there is no provider pkcs11; Debian 13 has it in the package pkcs11-provider");
    }
    found
}

fn config(modules: &Path, module: &Path, pin: &str) -> Config {
    let pin = file("pin", &format!("{pin}\n"));
    let text = format!(
        "openssl_conf = init\n[init]\nproviders = all\n[all]\npkcs11 = pkcs11\n[pkcs11]\nmodule = {}/pkcs11.so\n\
         pkcs11-module-path = {}\npkcs11-module-token-pin = file:{}\nactivate = 1\n",
        modules.display(),
        module.display(),
        pin.display()
    );
    let mut config = Config::default();
    config.provider = "pkcs11".into();
    config.config = Some(file("pkcs11.cnf", &text));
    config
}

/// SoftHSM finds its token by an environment variable, so the test runs once more as a process that has it.
#[test]
fn keys_that_stay_in_a_token_sign_through_the_provider_pkcs11() {
    const NAME: &str = "keys_that_stay_in_a_token_sign_through_the_provider_pkcs11";
    let Some(modules) = modules() else { return };
    if let Some(module) = std::env::var_os("TUSSOCK_TEST_MODULE") {
        return sign_in_token(&modules, Path::new(&module));
    }
    let Some((module, settings)) = softhsm() else { return };
    let mut again = Command::new(std::env::current_exe().unwrap());
    again
        .args(["--exact", NAME, "--nocapture"])
        .env("TUSSOCK_TEST_MODULE", module)
        .env("SOFTHSM2_CONF", settings);
    let output = again.output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    // Not the exit code: with SoftHSM 2.6 in it a process, also `openssl` itself, may crash in the very end, when both libraries have
    // taken themselves apart.
    assert!(text.contains("12 signatures, all right"), "{}: {text}", output.status);
    assert!(!text.contains(PIN), "the PIN is nowhere in the output");
}

fn sign_in_token(modules: &Path, module: &Path) {
    let device = device(&config(modules, module, PIN));
    let identity = device.stats().unwrap().identity;
    assert!(identity.contains("PKCS#11 Provider"), "{identity}");
    let mut count = 0;
    for (uri, name) in [
        ("pkcs11:token=tussock;object=rsa;type=private", "rsa2048.p8"),
        ("pkcs11:token=tussock;id=%02;type=private", "p256.p8"),
    ] {
        let key = open(&*device, uri).unwrap();
        assert_eq!(key.spki, public(name), "{name}");
        count += sign(&*device, &key);
    }
    assert_eq!(count, 12);
    let nobody = open(&*device, "pkcs11:token=tussock;object=nobody;type=private").map(|_| ());
    assert_eq!(nobody.map_err(|fault| fault.kind), Err(FaultKind::Unsupported));
    println!("12 signatures, all right");
}
