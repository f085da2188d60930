//! The devices of the support matrix, each set up as it needs: emulated cards started, tokens filled with keys, libraries built, and the
//! environment in which each is found.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::checkout::{self, Profile};
use crate::modules::Modules;
use crate::packages;
use crate::padlock;
use crate::plugins;
use crate::process::{self, Daemon};
use crate::providers;
use crate::tokens::{Make, Token};

/// One table of the page, and the program that opens its devices.
pub struct Columns {
    /// What the page marks the table with.
    pub mark: &'static str,
    /// The devices, in the order of the columns.
    pub devices: Vec<Column>,
    program: PathBuf,
    environment: Vec<(OsString, OsString)>,
}

/// One device.
pub struct Column {
    /// What the page calls it.
    pub title: &'static str,
    driver: &'static str,
    /// The keys of a section of the configuration, and their values.
    set: Vec<(&'static str, String)>,
    /// Keys to sign with that are in it.
    keys: Vec<String>,
}

impl Columns {
    /// The kit's program, in its environment.
    pub fn program(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }
}

impl Column {
    fn new(title: &'static str, driver: &'static str, set: &[(&'static str, String)]) -> Column {
        Column { title, driver, set: set.to_vec(), keys: Vec::new() }
    }

    /// As `tussock-hwtest matrix` wants it.
    pub fn as_column(&self) -> String {
        let mut text = format!("{}={}", self.title, self.driver);
        self.set.iter().for_each(|(key, value)| text += &format!(",{key}={value}"));
        text
    }

    /// As `tussock-hwtest run` wants it.
    pub fn as_target(&self) -> Vec<String> {
        if let ("plugin", [(_, library)]) = (self.driver, &self.set[..]) {
            return vec!["--plugin".to_owned(), library.clone()];
        }
        let mut arguments = vec!["--driver".to_owned(), self.driver.to_owned()];
        for (key, value) in &self.set {
            arguments.extend(["--set".to_owned(), format!("{key}={value}")]);
        }
        for key in &self.keys {
            arguments.extend(["--key".to_owned(), key.clone()]);
        }
        arguments
    }
}

/// Where devices are set up; emulated cards end with it.
pub struct Stage {
    folder: PathBuf,
    emulator: PathBuf,
    gateway: PathBuf,
    running: std::cell::RefCell<Vec<Daemon>>,
}

/// The emulated cards: what the page calls them, and the emulator.
const CARDS: [(&str, &str); 2] = [("QAT generation 4", "4941"), ("QAT generation 2", "37c9")];

impl Stage {
    /// Nothing yet but a folder and programs.
    pub fn set() -> Result<Stage> {
        packages::need(&[packages::TOKENS])?;
        let folder = checkout::target().join("matrix");
        std::fs::create_dir_all(&folder)?;
        let emulator = checkout::build("tussock-qat-emulator", Profile::Dev, &[])?;
        let gateway = checkout::build_gateway(Profile::Dev)?;
        Ok(Stage { folder, emulator, gateway, running: std::cell::RefCell::default() })
    }

    /// What every machine can have.
    pub fn usual(&self) -> Result<Columns> {
        let text = |text: &str| text.to_owned();
        let mut devices = vec![Column::new("software", "soft", &[])];
        devices.push(Column::new("OpenSSL's default provider", "openssl", &[("provider", text("default"))]));
        devices.push(self.pausing()?);
        for (title, device) in CARDS {
            devices.push(self.card(title, device)?);
        }
        devices.push(Column::new(
            "PadLock (emulated)",
            "padlock",
            &[("emulated", text("true")), ("montmul", text("true"))],
        ));
        let library = plugins::example(&self.folder)?.display().to_string();
        devices.push(Column::new("the example in C", "plugin", &[("library", library)]));
        // The emulator is in the whole process: where no PadLock is used it changes nothing.
        let mut environment: Vec<(OsString, OsString)> = vec![
            ("LD_PRELOAD".into(), padlock::library(Profile::Dev)?.into()),
            ("TUSSOCK_PADLOCK_EMULATOR".into(), "on".into()),
        ];
        for (titles, make) in [
            (["SoftHSM 2: keys", "SoftHSM 2: exchanges"], Make::SoftHsm),
            (["Kryoptic: keys", "Kryoptic: exchanges"], Make::Kryoptic),
        ] {
            let (columns, variable) = self.token(titles, make)?;
            devices.extend(columns);
            environment.push(variable);
        }
        Ok(Columns {
            mark: "capabilities: cargo xtask matrix",
            devices,
            program: program("padlock-emulated")?,
            environment,
        })
    }

    /// What not every machine can have: DPDK's software devices, and OpenSSL's FIPS provider. What is not to be had is named.
    pub fn others(&self) -> Result<Columns> {
        let mut devices = Vec::new();
        let mut feature = None;
        match Modules::need() {
            Ok(Modules { folder, fips }) => {
                let set = [
                    ("provider", "fips".to_owned()),
                    ("modules", folder.display().to_string()),
                    ("config", fips.display().to_string()),
                ];
                devices.push(Column::new("OpenSSL's FIPS provider", "openssl", &set));
            }
            Err(error) => println!("skip  OpenSSL's FIPS provider, whose rows go from the page: {error:#}"),
        }
        match packages::may_have(packages::DPDK) {
            Ok(()) => {
                feature = Some("dpdk");
                for (title, vdev) in
                    [("DPDK crypto_openssl", "crypto_openssl"), ("DPDK crypto_aesni_mb", "crypto_aesni_mb")]
                {
                    devices.push(Column::new(title, "dpdk", &[("vdev", vdev.to_owned())]));
                }
            }
            Err(error) => println!("skip  DPDK's devices, whose rows go from the page: {error:#}"),
        }
        Ok(Columns {
            mark: "capabilities: cargo xtask matrix --run",
            devices,
            program: program(feature.unwrap_or("padlock-emulated"))?,
            environment: Vec::new(),
        })
    }

    /// A provider that pauses every job.
    fn pausing(&self) -> Result<Column> {
        let config =
            providers::config("pausing", &providers::build(Profile::Dev)?, &self.folder, "50us", None)?;
        let set = [("provider", "pausing".to_owned()), ("config", config.display().to_string())];
        Ok(Column::new("a provider that pauses", "openssl", &set))
    }

    fn card(&self, title: &'static str, device: &str) -> Result<Column> {
        let socket = self.folder.join(format!("{device}.sock"));
        std::fs::remove_file(&socket).ok();
        let mut card = Command::new(&self.emulator);
        card.arg("--socket").arg(&socket).args(["--device", device, "--log", "warn"]);
        let log = self.folder.join(format!("{device}.log"));
        self.running.borrow_mut().push(Daemon::start(&mut card, &log)?);
        let there = process::until(Duration::from_secs(10), || Ok(socket.exists().then_some(())))?;
        there.with_context(|| format!("the emulated card {device} does not come"))?;
        Ok(Column::new(title, "qat", &[("socket", socket.display().to_string())]))
    }

    /// A token with a key of each kind that it can make, as a device for keys and as one for key exchanges.
    fn token(&self, titles: [&'static str; 2], make: Make) -> Result<(Vec<Column>, (OsString, OsString))> {
        let token = Token::new(make, &self.gateway, &self.folder.join(format!("{make:?}")))?;
        let mut keys = Vec::new();
        for kind in ["rsa2048", "p256", "p384", "p521", "ed25519"] {
            match token.order(&["generate", "--label", kind, "--kind", kind]) {
                Ok(uri) => keys.push(uri),
                // What it then declares and has no key for, the kit finds.
                Err(error) if kind == "ed25519" => println!("{}: {error:#}", titles[0]),
                Err(error) => return Err(error),
            }
        }
        let set = token.keys();
        let columns = titles.into_iter().zip([false, true]).map(|(title, exchanges)| {
            let mut column = Column::new(title, "pkcs11", &set);
            match exchanges {
                true => column.set.push(("dh", "token".to_owned())),
                false => column.keys.clone_from(&keys),
            }
            column
        });
        let (name, value) = token.environment();
        Ok((columns.collect(), (name.into(), value.into())))
    }
}

/// The kit's program with a feature more, kept where the next build does not replace it.
fn program(feature: &str) -> Result<PathBuf> {
    let mut build = checkout::cargo();
    build.args(["build", "--quiet", "--package", "tussock-hwtest-cli", "--features", feature]);
    if !process::status(&mut build)? {
        bail!("tussock-hwtest does not build with {feature}");
    }
    let built = checkout::target().join("debug/tussock-hwtest");
    let kept = checkout::target().join("matrix").join(format!("tussock-hwtest-{feature}"));
    // One that runs cannot be written to.
    std::fs::remove_file(&kept).ok();
    std::fs::copy(&built, &kept).with_context(|| format!("no copy of {}", built.display()))?;
    Ok(kept)
}
