//! One gateway on everything at once: each device does what it declares, in the order of the configuration, and the next one the rest.

use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::{Place, Story};
use crate::cards::{self, Card};
use crate::checkout::Profile;
use crate::interop::course::Steps;
use crate::interop::scenario::SITES;
use crate::packages;
use crate::peer::{Peer, await_tunnel};
use crate::process;
use crate::strongswan::{Release, StrongSwan};
use crate::tokens::{Make, Token};
use crate::tunnel::{Auth, KeyType};
use crate::tussock::{SITE, quoted};

pub const STORIES: &[Story] = &[Story::ours(
    "mixed",
    "the key in SoftHSM, packets on an emulated QAT card, key exchanges on OpenSSL; the card is pulled out, and OpenSSL has the packets",
    mixed,
)
.cast("tussock -> strongSwan")];

/// Until an SA has moved.
const PATIENCE: Duration = Duration::from_secs(5);

fn mixed(place: &Place<'_>, steps: &mut Steps) -> Result<()> {
    packages::need(&[packages::TOKENS])?;
    steps.begin("a key is made in SoftHSM and certified");
    let token = Token::new(Make::SoftHsm, place.binary, &place.results.join("token"))?;
    let (key, _) = token.certify(KeyType::Ecdsa, "moon")?;
    let [mut end, mut far] = [SITES.moon(), SITES.far()];
    for end in [&mut end, &mut far] {
        (end.auth, end.peer_auth) = (Auth::Cert(KeyType::Ecdsa), Auth::Cert(KeyType::Ecdsa));
        // A card of generation 2 has no X25519.
        "aes128gcm16-prfsha256-x25519".clone_into(&mut end.ike);
        "aes128gcm16".clone_into(&mut end.esp);
    }
    let mut moon = place.tussock(&end)?;
    moon.environment(token.environment());
    let emulator = cards::build(Profile::Dev)?;
    let mut card = Card::insert_older(place.world, "moon", "qat0", &emulator, place.results)?;
    moon.append(&card.section())?;
    moon.append("[accel.ossl0]\ndriver = \"openssl\"\nprovider = \"default\"")?;
    moon.append(&token.section(""))?;
    let own = format!("{{ method = \"pubkey\", id = \"moon.lab.test\", key = {} }}", quoted(&key));
    moon.set(SITE, "local_auth", &own)?;
    let mut sun = StrongSwan::new(place.world, far, Release::Host, place.results)?;
    steps.begin("a tunnel with strongSwan comes up and carries");
    sun.start()?;
    moon.start()?;
    moon.up()?;
    let seen = await_tunnel(&moon, "one tunnel", |_| true)?;
    await_tunnel(&sun, "the same tunnel", |other| other.ike == seen.ike)?;
    place.pings()?;
    steps.begin("each device has done its part");
    let count = |name: &str, path: &str| moon.device_count(name, path);
    let told = || format!("{:#}", moon.json("accel").unwrap_or_default());
    if count("qat0", "/packets")? == 0 || count("ossl0", "/operations")? == 0 {
        bail!("the card has no packets, or OpenSSL no key exchange: {}", told());
    }
    if count("hsm:keys", "/counters/signatures")? != 1 || count("soft", "/packets")? > 0 {
        bail!("the token did not sign once, or software has packets: {}", told());
    }
    steps.begin("the card is pulled out, and OpenSSL carries the same SAs");
    let before = count("ossl0", "/packets")?;
    card.pull_out();
    let moved = process::until(PATIENCE, || Ok((count("ossl0", "/device/sas")? >= 2).then_some(())))?;
    moved.with_context(|| format!("the SAs are not on OpenSSL: {}", told()))?;
    place.pings()?;
    if count("ossl0", "/packets")? <= before || count("soft", "/packets")? > 0 {
        bail!("OpenSSL does not carry, or software does: {}", told());
    }
    let after = await_tunnel(&moon, "the tunnel", |_| true)?;
    if (after.ike, after.child) != (seen.ike, seen.child) {
        bail!("the SAs are not the same");
    }
    moon.down()
}
