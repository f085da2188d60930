//! A token to check the backend on: made, initialised, with a PIN.

use std::path::{Path, PathBuf};
use std::process::Command;

use pkcs11::{Desk, Dh, PinSource, Pkcs11, Side, Site, Uri};
use serde_json::Value;
use spi::{Device, Driver};

/// Whose token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Ours, emulated.
    Emulated,
    /// SoftHSM 2.
    SoftHsm,
    /// Kryoptic.
    Kryoptic,
}

impl Kind {
    /// All of them.
    pub(crate) const ALL: &[Kind] = &[Kind::Emulated, Kind::SoftHsm, Kind::Kryoptic];

    fn module(self) -> Result<PathBuf, String> {
        let beside = std::env::current_exe().unwrap();
        let candidates: Vec<PathBuf> = match self {
            Kind::Emulated => vec![beside.with_file_name("libtussock_pkcs11_emulator.so")],
            Kind::SoftHsm => vec!["/usr/lib/softhsm/libsofthsm2.so".into()],
            Kind::Kryoptic => {
                let built =
                    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/kryoptic/libkryoptic_pkcs11.so");
                std::env::var_os("TUSSOCK_KRYOPTIC").map(PathBuf::from).into_iter().chain([built]).collect()
            }
        };
        let found = candidates.iter().find(|path| path.exists()).cloned();
        let hint = match self {
            Kind::Emulated => "build the workspace's tussock-pkcs11-emulator",
            Kind::SoftHsm => "apt-get install softhsm2 opensc",
            Kind::Kryoptic => "cargo xtask test builds it",
        };
        found.ok_or_else(|| format!("{} is not there; {hint}", candidates[0].display()))
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Kind::Emulated => "emulated",
            Kind::SoftHsm => "softhsm",
            Kind::Kryoptic => "kryoptic",
        })
    }
}

/// The PIN of every token here; Kryoptic wants eight octets.
pub(crate) const PIN: &str = "12345678";

/// A token in a folder.
pub(crate) struct Place {
    pub(crate) kind: Kind,
    pub(crate) folder: PathBuf,
    pub(crate) module: PathBuf,
}

impl Place {
    /// Makes one, or says what is missing.
    pub(crate) fn make(kind: Kind, name: &str) -> Result<Place, String> {
        let module = kind.module()?;
        let folder = std::env::temp_dir().join(format!("tussock-{kind}-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(folder.join("tokens")).unwrap();
        let place = Place { kind, folder, module };
        std::fs::write(place.pin_file(), format!("{PIN}\n")).unwrap();
        match kind {
            Kind::Emulated => place.control(""),
            Kind::SoftHsm | Kind::Kryoptic => {
                let tokens = place.folder.join("tokens");
                let softhsm = format!("directories.tokendir = {}\nlog.level = ERROR\n", tokens.display());
                let kryoptic = format!(
                    "[[slots]]\nslot = 42\ndbtype = \"sqlite\"\ndbargs = \"{}/t.sql\"\n",
                    tokens.display()
                );
                std::fs::write(
                    place.folder.join("config"),
                    if kind == Kind::SoftHsm { softhsm } else { kryoptic },
                )
                .unwrap();
                let so = ["--so-pin", "87654321"];
                place.tool(&[&["--init-token", "--slot-index", "0", "--label", "lab"][..], &so].concat())?;
                let user =
                    ["--init-pin", "--token-label", "lab", "--login", "--login-type", "so", "--pin", PIN];
                place.tool(&[&user[..], &so].concat())?;
            }
        }
        Ok(place)
    }

    /// The one the parent made.
    pub(crate) fn inherited() -> Place {
        let of = |name| PathBuf::from(std::env::var_os(name).unwrap());
        let kind = std::env::var("TUSSOCK_CHECK_KIND").unwrap();
        let kind = *Kind::ALL.iter().find(|known| known.to_string() == kind).unwrap();
        Place { kind, folder: of("TUSSOCK_CHECK_FOLDER"), module: of("TUSSOCK_CHECK_MODULE") }
    }

    /// What the module and the child have to know.
    pub(crate) fn environment(&self) -> Vec<(&'static str, PathBuf)> {
        let token = match self.kind {
            Kind::Emulated => ("TUSSOCK_TOKEN", self.folder.clone()),
            Kind::SoftHsm => ("SOFTHSM2_CONF", self.folder.join("config")),
            Kind::Kryoptic => ("KRYOPTIC_CONF", self.folder.join("config")),
        };
        vec![
            token,
            ("TUSSOCK_CHECK_KIND", self.kind.to_string().into()),
            ("TUSSOCK_CHECK_FOLDER", self.folder.clone()),
            ("TUSSOCK_CHECK_MODULE", self.module.clone()),
        ]
    }

    /// The tools of OpenSC at this token.
    pub(crate) fn tool(&self, arguments: &[&str]) -> Result<(), String> {
        let mut command = Command::new("pkcs11-tool");
        command.arg("--module").arg(&self.module).args(arguments).envs(self.environment());
        let done =
            command.output().map_err(|error| format!("pkcs11-tool: {error}; apt-get install opensc"))?;
        match done.status.success() {
            true => Ok(()),
            false => Err(format!("{command:?}: {}", String::from_utf8_lossy(&done.stderr))),
        }
    }

    pub(crate) fn pin_file(&self) -> PathBuf {
        self.folder.join("pin")
    }

    /// How the emulated token behaves from now on.
    pub(crate) fn control(&self, text: &str) {
        let fresh = self.folder.join("control.new");
        std::fs::write(&fresh, format!("label = \"lab\"\npin = \"{PIN}\"\n{text}\n")).unwrap();
        std::fs::rename(fresh, self.folder.join("control.toml")).unwrap();
    }

    /// What the emulated token has counted.
    pub(crate) fn count(&self, what: &str) -> u64 {
        let text = std::fs::read(self.folder.join("counts.json")).unwrap_or_default();
        let all: Value = serde_json::from_slice(&text).unwrap_or_default();
        all.pointer(&format!("/calls/{what}")).or(all.get(what)).and_then(Value::as_u64).unwrap_or(0)
    }

    /// Changes an attribute of what was stored last on the emulated token.
    pub(crate) fn edit_last_object(&self, attribute: &str, value: &[u8]) {
        let objects = std::fs::read_dir(self.folder.join("objects")).unwrap();
        let number = |path: &PathBuf| path.file_stem().unwrap().to_str().unwrap().parse::<u64>().unwrap();
        let last = objects.map(|file| file.unwrap().path()).max_by_key(number).unwrap();
        let mut object: Value = serde_json::from_slice(&std::fs::read(&last).unwrap()).unwrap();
        object["attributes"][attribute] = value.into();
        std::fs::write(last, object.to_string()).unwrap();
    }

    pub(crate) fn site(&self) -> Site {
        let token = Uri::parse("pkcs11:token=lab").unwrap();
        Site { token, pin: PinSource::File(self.pin_file()), ..Site::new("lab", &self.module) }
    }

    pub(crate) fn desk(&self) -> Desk {
        Desk::new(&self.module, self.site().token, self.site().pin)
    }

    pub(crate) fn keys(&self, site: Site) -> std::sync::Arc<dyn Device> {
        open(&Pkcs11::new(vec![site], Side::Keys)).unwrap()
    }

    pub(crate) fn exchanges(&self) -> Pkcs11 {
        Pkcs11::new(vec![Site { dh: Dh::Token, sessions: 2, ..self.site() }], Side::Exchanges)
    }

    pub(crate) fn remove(self) {
        let _ = std::fs::remove_dir_all(self.folder);
    }
}

/// The one device of a driver, or why not.
pub(crate) fn open(driver: &Pkcs11) -> Result<std::sync::Arc<dyn Device>, String> {
    let desc = driver.probe().remove(0);
    driver.open(&desc).map_err(|_| driver.unusable().remove(0).why)
}
