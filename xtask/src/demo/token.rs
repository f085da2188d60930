//! The demo with a token: moon's private key is made in SoftHSM and stays there, and so do its halves of the key exchanges. Packets are
//! software's.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::packages;
use crate::process;
use crate::tokens::{Make, Token};
use crate::tunnel::{Auth, End, KeyType};
use crate::tussock::{SITE, Tussock, quoted};
use crate::world::World;

/// Curves that SoftHSM exchanges keys on.
const IKE: &str = "aes128gcm16-prfsha256-ecp256";

/// Moon's token.
pub struct InToken {
    token: Token,
    key: String,
    binary: PathBuf,
    socket: PathBuf,
}

impl InToken {
    /// A fresh token with a certified key.
    pub fn make(world: &World, gateway: &Path, results: &Path) -> Result<InToken> {
        packages::need(&[packages::TOKENS])?;
        let token = Token::new(Make::SoftHsm, gateway, &results.join("token"))?;
        let (key, _) = token.certify(KeyType::Ecdsa, "moon")?;
        let socket = world.state("moon")?.join("control.sock");
        Ok(InToken { token, key, binary: gateway.to_path_buf(), socket })
    }

    /// The key's URI.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Sun believes moon by its certificate.
    pub fn ends((mut moon, mut sun): (End, End)) -> (End, End) {
        moon.auth = Auth::Cert(KeyType::Ecdsa);
        sun.peer_auth = Auth::Cert(KeyType::Ecdsa);
        for end in [&mut moon, &mut sun] {
            IKE.clone_into(&mut end.ike);
        }
        (moon, sun)
    }

    /// What moon has to know.
    pub fn tell(&self, moon: &mut Tussock<'_>) -> Result<()> {
        moon.environment(self.token.environment());
        moon.append(&self.token.section("dh = \"token\"\nsessions = 2\n"))?;
        let own = format!("{{ method = \"pubkey\", id = \"moon.lab.test\", key = {} }}", quoted(&self.key));
        moon.set(SITE, "local_auth", &own)
    }

    /// What it has done, in a line; an error if that is nothing.
    pub fn line(&self) -> Result<String> {
        let mut command = Command::new(&self.binary);
        command.args(["accel", "--json", "--socket"]).arg(&self.socket);
        let all: Value = serde_json::from_str(&process::run(&mut command)?)?;
        let list = all.get("devices").and_then(Value::as_array).context("moon tells of no devices")?;
        let count = |device: &str, path: &str| {
            let found =
                list.iter().find(|one| one.pointer("/device/name").is_some_and(|name| name == device));
            found.and_then(|one| one.pointer(path)?.as_u64()).unwrap_or(0)
        };
        let signed = count("hsm:keys", "/counters/signatures");
        let (pairs, secrets) = (count("hsm", "/counters/pairs"), count("hsm", "/counters/secrets"));
        let packets = count("soft", "/packets");
        let line = format!(
            "token: {signed} signatures, {pairs} pairs and {secrets} secrets of key exchanges; software: {packets} packets"
        );
        if signed == 0 || pairs == 0 || secrets == 0 || packets == 0 {
            bail!("not everybody has done his part: {line}");
        }
        Ok(line)
    }
}
