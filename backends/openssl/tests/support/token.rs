//! A token of SoftHSM's with two keys in it, which are also in hwtest's folder; and those files in other forms.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::file;

/// The token's PIN; it must not be in any output.
pub const PIN: &str = "tussock-test-pin-4711";

/// Where packages put things, on the architectures that Debian has them for.
pub fn find(files: &[&str]) -> Option<PathBuf> {
    let found = files.iter().map(PathBuf::from).find(|file| file.exists());
    if found.is_none() {
        eprintln!("SKIPPED: none of {files:?} is there; install softhsm2 and libengine-pkcs11-openssl");
    }
    found
}

/// The token `tussock`: its module, and the settings that lead to it.
pub fn softhsm() -> Option<(PathBuf, PathBuf)> {
    let module = find(&[
        "/usr/lib/softhsm/libsofthsm2.so",
        "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
        "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
    ])?;
    let tool = find(&["/usr/bin/softhsm2-util"])?;
    let dir = file("tokens", "");
    std::fs::remove_file(&dir).unwrap();
    std::fs::create_dir(&dir).unwrap();
    let settings = file("softhsm2.conf", &format!("directories.tokendir = {}\n", dir.display()));
    let run = |arguments: &[&str]| {
        let output = Command::new(&tool).env("SOFTHSM2_CONF", &settings).args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    run(&["--init-token", "--free", "--label", "tussock", "--pin", PIN, "--so-pin", "so-pin-0815"]);
    for (label, id, key) in [("rsa", "01", "rsa2048.p8"), ("ec", "02", "p256.p8")] {
        let pem = pem(key);
        let path = pem.to_str().unwrap();
        run(&["--import", path, "--token", "tussock", "--label", label, "--id", id, "--pin", PIN]);
    }
    Some((module, settings))
}

/// One of hwtest's keys as a file that people have.
pub fn pem(name: &str) -> PathBuf {
    file("key.pem", &String::from_utf8(private(name).private_key_to_pem_pkcs8().unwrap()).unwrap())
}

/// The public half of one of hwtest's keys.
pub fn public(name: &str) -> Vec<u8> {
    private(name).public_key_to_der().unwrap()
}

/// One of hwtest's keys.
pub fn private(name: &str) -> openssl::pkey::PKey<openssl::pkey::Private> {
    let keys = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../hwtest/testdata");
    openssl::pkey::PKey::private_key_from_der(&std::fs::read(keys.join(name)).unwrap()).unwrap()
}
