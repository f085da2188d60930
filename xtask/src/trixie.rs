//! A younger strongSwan than the machine's own: Debian 13's. Debian 12's sends user-space ESP in UDP only; raw ESP came
//! later. It takes about ten seconds and 150 MB.

use std::path::PathBuf;

use anyhow::Result;

use crate::aside::Aside;

const STRONGSWAN: Aside = Aside {
    name: "strongswan",
    suite: "trixie",
    // swanctl for the control socket's plugin, which comes with it.
    packages: &[
        "strongswan-charon",
        "strongswan-swanctl",
        "libcharon-extra-plugins",
        "libstrongswan-extra-plugins",
    ],
};

/// The folder the packages are unpacked into.
pub fn root() -> PathBuf {
    STRONGSWAN.root()
}

/// Make sure that it is there.
pub fn need() -> Result<()> {
    STRONGSWAN.need()
}
