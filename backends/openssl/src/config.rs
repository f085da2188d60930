//! What a device may be told.

use std::path::PathBuf;
use std::time::Duration;

/// A device that is configured.
#[derive(Clone, Debug)]
pub struct Site {
    /// The operator's name for it.
    pub name: String,
    /// Its settings.
    pub config: Config,
}

/// Settings; what is not said has a default that suits every provider.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// Name of a provider, or the path of its module.
    pub provider: String,
    /// Where modules of providers are; none: where the library was built to look.
    pub modules: Option<PathBuf>,
    /// With which properties algorithms are fetched; none: those of the provider, and no other's.
    pub properties: Option<String>,
    /// A configuration file of OpenSSL's, read into the context before the provider is loaded.
    pub config: Option<PathBuf>,
    /// An engine that has keys. Packets and key exchanges are not its business.
    pub engine: Option<String>,
    /// What the engine is told before it starts, each as `COMMAND=value`.
    pub commands: Vec<String>,
    /// A file with the engine's PIN.
    pub pin_file: Option<PathBuf>,
    /// Jobs of one queue that may be under way at one time; each has a stack of 32 KiB.
    pub jobs: usize,
    /// How long a job may be paused before its device is said to have lost it.
    pub patience: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            provider: "default".into(),
            modules: None,
            properties: None,
            config: None,
            engine: None,
            commands: Vec::new(),
            pin_file: None,
            jobs: 512,
            patience: Duration::from_secs(2),
        }
    }
}
