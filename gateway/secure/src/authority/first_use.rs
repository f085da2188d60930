//! Realms that believe the first key a peer comes with: what is looked up before its signature is verified, and what is written down
//! after.

use std::time::SystemTime;

use ipc::CertData;
use spi::Hash;
use wire::numbers::CertEncoding;

use super::Authority;
use super::belief::{Belief, Disbelief};
use super::check::Peer;
use crate::cert::Cert;
use crate::{key, pins};

impl Authority {
    /// The key of a peer in a realm that believes the first one: the one it sent, if it had no other before. What a certificate
    /// around it says is of no interest; anybody can have made it.
    pub(super) fn remembered(&self, peer: &Peer, certs: &[CertData]) -> Result<Belief, Disbelief> {
        let pins = self.vault.pins().map_err(Disbelief::Refused)?;
        let first = certs.first().ok_or_else(|| {
            Disbelief::Refused("the peer sent no certificate or public key that could be remembered".into())
        })?;
        let spki = match CertEncoding(first.encoding) {
            CertEncoding::RAW_PUBLIC_KEY => first.data.clone(),
            _ => Cert::parse(&first.data).map_err(|e| Disbelief::Refused(e.to_string()))?.spki,
        };
        let kind = key::inspect(&spki, self.vault.rules.min_rsa_bits)
            .map_err(|e| Disbelief::Refused(e.to_string()))?;
        let print = self.fingerprint(&spki).map_err(Disbelief::Refused)?;
        let realm = &peer.realm().name;
        match pins
            .find(realm, &peer.id)
            .map_err(|e| Disbelief::Refused(format!("its key cannot be looked up: {e}")))?
        {
            Some(pin) if pin.fingerprint == print => {
                Ok(Belief::Keys(vec![(spki, kind, format!("remembered key {print}"))]))
            }
            Some(pin) => Err(Disbelief::Refused(format!(
                "`{}` has another key than the one that was remembered for it: it came with {print}, and had {}; if it was given a new \
                 one, `tussock pki pins --remove {realm}/{}` lets it in",
                peer.id, pin.fingerprint, peer.id
            ))),
            None => {
                let described = format!("first use of key {print}");
                Ok(Belief::First((spki, kind, described)))
            }
        }
    }

    fn fingerprint(&self, spki: &[u8]) -> Result<String, String> {
        let hash =
            self.devices.short().hash(Hash::Sha256, &[spki]).map_err(|fault| format!("SHA-256: {fault}"))?;
        Ok(pins::fingerprint(&hash))
    }

    /// Remembers the key of a peer that has just shown that it has it.
    pub(super) fn remember(&self, peer: &Peer, spki: &[u8], at: SystemTime) -> Result<(), String> {
        let fingerprint = self.fingerprint(spki)?;
        let pins = self.vault.pins()?;
        let realm = peer.realm().name.to_string();
        let pin = pins::Pin { realm, peer: peer.id.clone(), fingerprint, since: at };
        tracing::warn!(
            realm = %peer.realm().name, peer = %peer.id, fingerprint = %pin.fingerprint,
            "first use: nobody vouches for this key, and from now on it is the peer's; compare the fingerprint"
        );
        pins.remember(pin).map_err(|e| format!("its key cannot be remembered, so it is not let in: {e}"))
    }
}
