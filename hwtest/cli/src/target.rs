//! Which device is meant: a plug-in's, or one of a driver that the gateway has, said with the same keys as in its configuration.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use clap::Args;
use registry::accel::{self, Accel, Form, Value};
use spi::{Device, Driver, SignScheme};

/// Which device.
#[derive(Args, Clone, Debug)]
#[command(group = clap::ArgGroup::new("which").required(true).args(["plugin", "driver"]))]
pub(crate) struct Target {
    /// A vendor's shared library, written against accel.h.
    #[arg(long, value_name = "LIBRARY")]
    plugin: Option<PathBuf>,
    /// A driver of the gateway's: `soft`, `qat`, or what else `driver = "…"` may be.
    #[arg(long)]
    driver: Option<String>,
    /// The driver's key `device`, for example a PCI address; of a plug-in, one of its devices.
    #[arg(long)]
    device: Option<String>,
    /// The driver's key `socket`.
    #[arg(long, conflicts_with = "plugin")]
    socket: Option<PathBuf>,
    /// Another key of the driver's, as in a section [accel.NAME].
    #[arg(long = "set", value_name = "KEY=VALUE", conflicts_with = "plugin")]
    set: Vec<String>,
    /// A private key that stays in the device, for checks that sign: a URI such as `pkcs11:object=rsa`. Several times for several; one of
    /// each kind that the device signs with.
    #[arg(long = "key", value_name = "URI")]
    keys: Vec<String>,
}

/// A device that cannot be used, and why.
#[derive(Debug)]
pub(crate) struct Absent(String);

impl std::fmt::Display for Absent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Absent {}

fn absent(why: impl Into<String>) -> anyhow::Error {
    Absent(why.into()).into()
}

/// An open device, and where it comes from.
pub(crate) struct Opened {
    pub(crate) driver: String,
    pub(crate) device: Arc<dyn Device>,
    /// Schemes that the device declares, and that none of the keys which were named signs with.
    pub(crate) without_key: Vec<SignScheme>,
}

impl Opened {
    /// What it says it is, in a line.
    pub(crate) fn identity(&self) -> String {
        self.device
            .stats()
            .map(|stats| stats.identity)
            .filter(|text| !text.is_empty())
            .unwrap_or_else(|| "-".into())
    }
}

impl Target {
    /// A driver by its name, and keys of its, as `KEY=VALUE`.
    pub(crate) fn of<'a>(driver: &str, keys: impl Iterator<Item = &'a str>) -> Result<Target> {
        let mut target = Target {
            plugin: None,
            driver: None,
            device: None,
            socket: None,
            set: Vec::new(),
            keys: Vec::new(),
        };
        for key in keys {
            match key.split_once('=') {
                Some(("library", library)) if driver == "plugin" => target.plugin = Some(library.into()),
                Some(_) => target.set.push(key.to_owned()),
                None => bail!("{key} is not KEY=VALUE"),
            }
        }
        target.driver = target.plugin.is_none().then(|| driver.to_owned());
        Ok(target)
    }

    /// Opens every device that is meant.
    pub(crate) fn open(&self) -> Result<Vec<Opened>> {
        let driver = self.driver()?;
        let found: Vec<_> = driver.probe();
        let wanted = self.plugin.as_ref().and(self.device.as_deref());
        let named =
            |id: &str| wanted.is_none_or(|wanted| id == wanted || id.ends_with(&format!("/{wanted}")));
        let mut all = Vec::new();
        for desc in found.iter().filter(|desc| named(&desc.id)) {
            let device = driver.open(desc).map_err(|fault| {
                let told = driver.unusable().into_iter().find(|device| device.id == desc.id);
                absent(
                    told.map_or_else(|| format!("{} does not open: {fault}", desc.id), |device| device.why),
                )
            })?;
            let driver = driver.name().to_owned();
            if self.keys.is_empty() {
                all.push(Opened { driver, device, without_key: Vec::new() });
                continue;
            }
            let keyed = hwtest::Layer::<hwtest::Keyed>::new(device, self.keys.clone()).map_err(absent)?;
            all.push(Opened { driver, without_key: keyed.without_key(), device: Arc::new(keyed) });
        }
        if all.is_empty() {
            let names: Vec<&str> = found.iter().map(|desc| desc.id.as_str()).collect();
            return Err(absent(match wanted {
                Some(wanted) => format!("there is no device {wanted}; there is: {}", names.join(", ")),
                None => format!("{} finds no device", driver.name()),
            }));
        }
        Ok(all)
    }

    fn driver(&self) -> Result<Box<dyn Driver>> {
        if let Some(library) = &self.plugin {
            let library = std::path::absolute(library)?;
            let plugin = cabi::Plugin::load("plugin", &library).map_err(|error| absent(error.to_string()))?;
            return Ok(Box::new(plugin));
        }
        let name = self.driver.as_deref().unwrap_or("soft");
        let mut config = registry::Config::default();
        if name != "soft" {
            let section = self.section(name)?;
            accel::check(std::slice::from_ref(&section)).map_err(|error| absent(error.what))?;
            config.accel = vec![section];
        }
        let mut all = registry::network_drivers(&config);
        all.extend(registry::key_drivers(&config));
        let found = all.into_iter().find(|driver| driver.name() == name);
        found.ok_or_else(|| absent(format!("there is no driver `{name}` in this build")))
    }

    /// The section that a configuration would have for it.
    fn section(&self, driver: &str) -> Result<Accel> {
        let mut section = Accel::new("device").of(driver);
        if let Some(device) = &self.device {
            section = section.with("device", device.as_str());
        }
        if let Some(socket) = &self.socket {
            section = section.with("socket", std::path::absolute(socket)?);
        }
        for set in &self.set {
            let (key, text) = set.split_once('=').with_context(|| format!("--set {set} is not KEY=VALUE"))?;
            let form = accel::kind(driver).and_then(|kind| kind.form(key)).unwrap_or(Form::Text);
            let value = match form {
                Form::Text => Value::Text(text.to_owned()),
                Form::Path | Form::File => Value::Path(std::path::absolute(text)?),
                Form::Flag => {
                    Value::Flag(text.parse().with_context(|| format!("--set {key}: true or false"))?)
                }
                Form::Number => {
                    Value::Number(text.parse().with_context(|| format!("--set {key}: a number"))?)
                }
            };
            section = section.with(key, value);
        }
        Ok(section)
    }
}
