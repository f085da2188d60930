//! What the tests of this crate share.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "each test file uses its own part, and may panic"
)]

use ossl::{Config, OpenSsl, Site};

pub fn driver(config: Config) -> OpenSsl {
    OpenSsl::new(vec![Site { name: "ossl0".into(), config }])
}

pub fn default_provider() -> Config {
    Config::default()
}
