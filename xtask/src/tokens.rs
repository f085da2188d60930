//! PKCS #11 tokens for the gateways of a lab: SoftHSM, Kryoptic, and the emulated one. Their keys are made on the token and certified by
//! the lab's authority, all of it by `tussock pki token`, as an operator does it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::checkout;
use crate::kryoptic;
use crate::pki::{Pki, shown};
use crate::process;
use crate::tunnel::KeyType;
use crate::tussock::quoted;

/// Whose token.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Make {
    /// Debian's `softhsm2`.
    SoftHsm,
    /// Kryoptic, built from its crate.
    Kryoptic,
    /// Ours, which does what it is told.
    Emulated,
}

/// Kryoptic wants eight octets.
const PIN: &str = "12345678";
const LABEL: &str = "lab";

/// Users of `tussock-gateway` and `tussock-secure` where the machine has none of these names.
const GATEWAY: u32 = 0x7473_6701;
const SECURE: u32 = 0x7473_6702;

/// A token with a PIN and no keys yet.
pub struct Token {
    make: Make,
    module: PathBuf,
    folder: PathBuf,
    gateway: PathBuf,
}

impl Token {
    /// A fresh one in a folder of its own. `gateway` is our binary.
    pub fn new(make: Make, gateway: &Path, folder: &Path) -> Result<Token> {
        fs::remove_dir_all(folder).ok();
        fs::create_dir_all(folder.join("tokens"))?;
        let module = match make {
            Make::SoftHsm => PathBuf::from("/usr/lib/softhsm/libsofthsm2.so"),
            Make::Kryoptic => kryoptic::module()?,
            Make::Emulated => emulator()?,
        };
        let token = Token { make, module, folder: folder.to_owned(), gateway: gateway.to_owned() };
        fs::write(token.pin_file(), PIN)?;
        let mut only = Command::new("chmod");
        process::run(only.arg("600").arg(token.pin_file()))?;
        let tokens = token.folder.join("tokens");
        match make {
            Make::Emulated => token.control("")?,
            Make::SoftHsm | Make::Kryoptic => {
                let text = match make {
                    Make::SoftHsm => {
                        format!("directories.tokendir = {}\nlog.level = ERROR\n", tokens.display())
                    }
                    _ => format!(
                        "[[slots]]\nslot = 42\ndbtype = \"sqlite\"\ndbargs = \"{}/t.sql\"\n",
                        tokens.display()
                    ),
                };
                fs::write(token.folder.join("config"), text)?;
                token.tool(&[
                    "--init-token",
                    "--slot-index",
                    "0",
                    "--label",
                    LABEL,
                    "--so-pin",
                    "87654321",
                ])?;
                let user =
                    ["--init-pin", "--token-label", LABEL, "--login", "--login-type", "so", "--pin", PIN];
                token.tool(&[&user[..], &["--so-pin", "87654321"]].concat())?;
            }
        }
        token.hand_over()?;
        Ok(token)
    }

    /// What a process has to know that loads the module.
    pub fn environment(&self) -> (&'static str, PathBuf) {
        match self.make {
            Make::SoftHsm => ("SOFTHSM2_CONF", self.folder.join("config")),
            Make::Kryoptic => ("KRYOPTIC_CONF", self.folder.join("config")),
            Make::Emulated => ("TUSSOCK_TOKEN", self.folder.clone()),
        }
    }

    /// The keys of a section that is for it.
    pub fn keys(&self) -> [(&'static str, String); 3] {
        [
            ("module", shown(&self.module)),
            ("token", format!("pkcs11:token={LABEL}")),
            ("pin_file", shown(&self.pin_file())),
        ]
    }

    /// What a gateway has to know of it, with more keys of the section.
    pub fn section(&self, more: &str) -> String {
        let keys = self.keys().map(|(key, value)| format!("{key} = {}\n", quoted(&value)));
        format!("[accel.hsm]\ndriver = \"pkcs11\"\n{}{more}\n", keys.concat())
    }

    /// A key is made on the token and certified for a host by the lab's authority, and the certificate put beside it. Returns the
    /// key's URI, and the certificate's file.
    pub fn certify(&self, kind: KeyType, host: &str) -> Result<(String, PathBuf)> {
        let pki = Pki::of(kind)?;
        let made = match kind {
            KeyType::Rsa => "rsa3072",
            KeyType::Ecdsa => "p256",
            KeyType::Ed25519 => "ed25519",
        };
        let key = self.order(&["generate", "--label", host, "--kind", made])?;
        let [request, extensions, cert] =
            ["csr", "ext", "crt"].map(|ending| self.folder.join(format!("{host}.{ending}")));
        let name = format!("{host}.lab.test");
        let subject = format!("C=CH, O=Lab, CN={name}");
        self.order(&[
            "csr",
            "--key",
            &key,
            "--subject",
            &subject,
            "--san",
            &name,
            "--out",
            &shown(&request),
        ])?;
        let mut verify = Command::new("openssl");
        process::run(verify.args(["req", "-verify", "-noout", "-in"]).arg(&request))
            .context("the request is not signed by its key")?;
        fs::write(&extensions, "keyUsage=critical,digitalSignature\nbasicConstraints=critical,CA:FALSE\n")?;
        let mut sign = Command::new("openssl");
        sign.args(["x509", "-req", "-days", "30", "-copy_extensions", "copy", "-set_serial", "4711", "-in"]);
        sign.arg(&request).arg("-CA").arg(pki.ca()).arg("-CAkey").arg(pki.key("ca"));
        process::run(sign.arg("-extfile").arg(&extensions).arg("-out").arg(&cert))?;
        self.order(&["import", "--key", &key, "--cert", &shown(&cert)])?;
        let there = self.order(&["list"])?;
        self.hand_over()?;
        if !there.contains("private key") || !there.contains("certificate") || !there.contains(&name) {
            bail!("the token lists\n{there}");
        }
        Ok((key, cert))
    }

    /// `tussock pki token …`
    pub fn order(&self, arguments: &[&str]) -> Result<String> {
        let (name, value) = self.environment();
        let mut command = Command::new(&self.gateway);
        command.args(["pki", "token"]).args(arguments).arg("--module").arg(&self.module);
        command.args(["--token", &format!("pkcs11:token={LABEL}")]).arg("--pin-file").arg(self.pin_file());
        Ok(process::run(command.env(name, value))?.trim().to_owned())
    }

    /// The token's files become those of the process that holds the keys, and of the gateway's, which may have it do key
    /// exchanges; each as a gateway of the lab runs them.
    fn hand_over(&self) -> Result<()> {
        let owners = format!("{SECURE}:{GATEWAY}");
        process::run(Command::new("chown").args(["-R", &owners]).arg(&self.folder))?;
        process::run(Command::new("chmod").args(["-R", "u+rwX,g+rwX,o-rwx"]).arg(&self.folder)).map(drop)
    }

    /// How the emulated token behaves from now on.
    pub fn control(&self, text: &str) -> Result<()> {
        let fresh = self.folder.join("control.new");
        fs::write(&fresh, format!("label = \"{LABEL}\"\npin = \"{PIN}\"\n{text}\n"))?;
        Ok(fs::rename(fresh, self.folder.join("control.toml"))?)
    }

    /// What the emulated token has counted in the process that used it last.
    pub fn counts(&self) -> Result<Value> {
        Ok(serde_json::from_slice(&fs::read(self.folder.join("counts.json"))?)?)
    }

    /// The file with its PIN.
    pub fn pin_file(&self) -> PathBuf {
        self.folder.join("pin")
    }

    fn tool(&self, arguments: &[&str]) -> Result<()> {
        let (name, value) = self.environment();
        let mut command = Command::new("pkcs11-tool");
        process::run(command.arg("--module").arg(&self.module).args(arguments).env(name, value)).map(drop)
    }
}

/// The emulated token's module, built.
fn emulator() -> Result<PathBuf> {
    let mut command = checkout::cargo();
    if !process::status(command.args(["build", "--quiet", "--package", "tussock-pkcs11-emulator"]))? {
        bail!("tussock-pkcs11-emulator does not build");
    }
    Ok(checkout::target().join("debug/libtussock_pkcs11_emulator.so"))
}
