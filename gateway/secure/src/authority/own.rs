//! Our own proof by signature: with which key and which certificates, and again after a device was reset.

use std::sync::Arc;
use std::time::SystemTime;

use ipc::{CertData, Offered, Refusal, Reply};
use policy::Realm;
use spi::{CryptoDone, CryptoOp, CryptoOutput, FaultKind, KeyId, Outcome, Token};

use super::{Authority, Stage};
use crate::devices::Place;
use crate::method;
use crate::usage;

/// How often a signature is begun again after a device was reset.
const MAX_TRIES: usize = 3;

/// A proof of ours that is being made.
pub(super) struct Signing {
    pub(super) token: Token,
    pub(super) realm: Arc<str>,
    place: Place,
    key: KeyId,
    spki: Vec<u8>,
    chosen: method::Chosen,
    pub(super) octets: Vec<u8>,
    pub(super) certs: Vec<CertData>,
    /// The OCSP responder of the configuration, for our own certificate.
    pub(super) responder: Option<String>,
    tries: usize,
}

impl Authority {
    pub(super) fn sign(
        &mut self,
        at: SystemTime,
        token: Token,
        realm: &Realm,
        octets: Vec<u8>,
        offered: &Offered,
    ) -> Result<(), Refusal> {
        if self.vault.own_for(&realm.name, &[]).is_none() {
            self.vault.try_again(realm, &self.devices, at).map_err(Refusal::NoCredential)?;
        }
        let own = self.vault.own_for(&realm.name, &offered.authorities).ok_or_else(|| {
            Refusal::NoCredential(format!("realm `{}` has no usable private key", realm.name))
        })?;
        let chosen = method::choose(&own.info.schemes, &offered.hashes, self.vault.rules)
            .map_err(Refusal::NoCredential)?;
        // Ours to say, and the peer's to judge: its clock may be the right one.
        let bits = self.vault.rules.min_rsa_bits;
        if let Some(what) = own.chain.iter().find_map(|cert| usage::check_any(cert, at, bits).err()) {
            tracing::warn!(realm = %realm.name, %what, "our own certificate will be refused");
        }
        let certs = own.payloads(offered, &**self.devices.short());
        let (place, key, spki) = (own.place, own.info.id, own.info.spki.clone());
        let issued = offered.ocsp.then(|| own.issued.clone()).flatten();
        let responder = self.vault.believes(&realm.name).and_then(|b| b.revocation.as_ref()?.ocsp.clone());
        let signing = Box::new(Signing {
            token,
            realm: realm.name.clone(),
            place,
            key,
            spki,
            chosen,
            octets,
            certs,
            responder,
            tries: 1,
        });
        // RFC 4806: the answer about our certificate goes along where the peer asks for it, and somebody can be asked.
        let signing = match issued {
            Some(issued) if signing.responder.is_some() || !issued.cert.ocsp_urls.is_empty() => {
                self.staple(signing, issued, at)
            }
            _ => Some(signing),
        };
        if let Some(signing) = signing {
            self.begin_signing(signing);
        }
        Ok(())
    }

    pub(super) fn begin_signing(&mut self, signing: Box<Signing>) {
        let (token, place) = (signing.token, signing.place);
        let op = CryptoOp::Sign {
            key: signing.key,
            scheme: signing.chosen.scheme,
            octets: signing.octets.clone(),
        };
        if let Err(refusal) = self.begin(Stage::Sign(signing), place, op) {
            self.replies.push_back((token, Reply::Refused(refusal)));
        }
    }

    pub(super) fn on_signed(&mut self, mut signing: Signing, done: CryptoDone) {
        let token = signing.token;
        let fault = match (done.outcome, done.output) {
            (Outcome::Done, CryptoOutput::Signature(signature)) => {
                let mut data = signing.chosen.prefix;
                data.extend_from_slice(&signature);
                let method = signing.chosen.method.0;
                self.replies.push_back((token, Reply::Proof { method, data, certs: signing.certs }));
                return;
            }
            (Outcome::Failed(fault), _) => fault,
            _ => FaultKind::Internal.into(),
        };
        let why = self.devices.explain(signing.place, fault);
        // Nothing went out yet: after a reset the signature is begun again, with the same key, opened anew.
        let again =
            matches!(fault.kind, FaultKind::Aborted | FaultKind::StaleHandle) && signing.tries < MAX_TRIES;
        if again && let Some((place, key)) = self.same_key(&signing) {
            signing.tries += 1;
            (signing.place, signing.key) = (place, key);
            let op = CryptoOp::Sign { key, scheme: signing.chosen.scheme, octets: signing.octets.clone() };
            if self.begin(Stage::Sign(Box::new(signing)), place, op).is_ok() {
                return;
            }
        }
        // Never another key in its place: a key that lives in a device is there for a reason.
        let refusal = Refusal::NoCredential(format!("the device with the private key failed: {why}"));
        self.replies.push_back((token, Reply::Refused(refusal)));
    }

    fn same_key(&mut self, signing: &Signing) -> Option<(Place, KeyId)> {
        if self.vault.own(&signing.realm, &signing.spki)?.info.id == signing.key {
            self.vault.reopen(&signing.realm, &signing.spki, &self.devices).ok()?;
        }
        let own = self.vault.own(&signing.realm, &signing.spki)?;
        Some((own.place, own.info.id))
    }
}
