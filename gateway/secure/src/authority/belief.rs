//! Whom a realm believes: a key as it is, the first key, a CA; and what is said when it does not.

use std::sync::Arc;
use std::time::SystemTime;

use ipc::{AuthInput, CertData, PeerProof};
use policy::{AuthPolicy, Claims, Identity, Realm};
use spi::cert::Usages;
use wire::numbers::CertEncoding;

use super::Authority;
use super::check::Peer;
use crate::cert::Cert;
use crate::key::KeyKind;
use crate::vault::Believed;
use crate::{identity, psk, usage};

/// Keys that are tried when a peer sends no certificate.
const MAX_KEYS_TRIED: usize = 16;

/// What a peer's certificates are judged by.
pub(super) enum Belief {
    /// These keys, believed as they are: SubjectPublicKeyInfo, kind, description.
    Keys(Vec<(Vec<u8>, KeyKind, String)>),
    /// This one, because there was none before.
    First((Vec<u8>, KeyKind, String)),
    /// A path to one of these CAs, perhaps over some of the others, for these usages.
    Chain(Arc<[Vec<u8>]>, Vec<Vec<u8>>, Usages),
}

/// Why they are not, in words.
pub(super) enum Disbelief {
    /// The realm knows nobody who would vouch for the peer; another one may.
    Unknown(String),
    /// It is no good.
    Refused(String),
}

impl Authority {
    /// Whether the peer knows the secret that it shares with us.
    pub(super) fn check_psk(
        &self,
        peer: &Peer,
        input: &AuthInput,
        octets: &[u8],
        proof: &PeerProof,
    ) -> Result<(), String> {
        let own_id = peer.realms.own_id();
        let psk = self.vault.psk(&peer.realm().name, own_id, Some(&peer.id));
        // The same work without a key as with a wrong one, so that time does not tell which identities are known.
        let secret = psk.map_or(&b"no key"[..], |psk| psk.secret.expose());
        let expected = psk::proof(&**self.devices.short(), input.prf, secret, octets)
            .map_err(|f| format!("PRF: {f}"))?;
        let right = expected.ct_eq(&proof.data);
        match psk {
            Err(_) => Err(format!("no pre-shared key for `{own_id}` and `{}`", peer.id)),
            Ok(_) if !right => Err(format!("`{}` has another pre-shared key", peer.id)),
            Ok(_) => Ok(()),
        }
    }

    /// What the peer's certificates are to be judged by.
    pub(super) fn believed(
        &self,
        at: SystemTime,
        peer: &Peer,
        certs: &[CertData],
    ) -> Result<Belief, Disbelief> {
        let unknown = |what: &str| Disbelief::Unknown(what.to_owned());
        let realm = peer.realm();
        let believes =
            self.vault.believes(&realm.name).ok_or_else(|| unknown("the realm believes nobody"))?;
        if believes.first_use {
            return self.remembered(peer, certs);
        }
        let named = |b: &&Believed| b.speaks_for(at, realm, &peer.id).is_ok();
        let as_key = |b: &Believed| (b.spki.clone(), b.kind, b.describe());
        let Some(first) = certs.first() else {
            // RFC 7296 section 3.6: a peer whose key we have need not send it.
            let keys: Vec<_> = believes.keys.iter().filter(named).take(MAX_KEYS_TRIED).map(as_key).collect();
            return match keys.is_empty() {
                false => Ok(Belief::Keys(keys)),
                true => Err(unknown("the peer sent no certificate, and none is known for it")),
            };
        };
        let raw = first.encoding == CertEncoding::RAW_PUBLIC_KEY.0;
        let pinned = believes.keys.iter().find(|b| match &b.cert {
            Some(cert) if !raw => cert.der == first.data,
            _ if raw => b.spki == first.data,
            _ => false,
        });
        // A certificate around a raw key that is believed: the key counts, the paper does not.
        let pinned = pinned.or_else(|| {
            if raw || believes.keys.iter().all(|b| b.cert.is_some()) {
                return None;
            }
            let spki = Cert::parse(&first.data).ok()?.spki;
            believes.keys.iter().find(|b| b.cert.is_none() && b.spki == spki)
        });
        match pinned {
            Some(b) => {
                b.speaks_for(at, realm, &peer.id).map_err(Disbelief::Refused)?;
                Ok(Belief::Keys(vec![as_key(b)]))
            }
            None if raw => Err(unknown("the raw public key of the peer is not one the realm believes")),
            None if believes.anchors.is_empty() => {
                Err(unknown("the certificate of the peer is not one the realm believes"))
            }
            None => {
                Ok(Belief::Chain(Arc::clone(&believes.anchors), believes.between.clone(), believes.usages))
            }
        }
    }
}

impl Believed {
    /// Whether the key may speak for the identity: the operator wrote the two down together, or the certificate says so.
    pub(super) fn speaks_for(&self, at: SystemTime, realm: &Realm, id: &Identity) -> Result<(), String> {
        let named = realm.remote_id.the_one() == Some(id);
        match &self.cert {
            Some(cert) => {
                // The length of RSA keys was looked at when the certificate was read.
                usage::check_any(cert, at, 0)
                    .and_then(|()| usage::check_end_entity(cert, Usages::all()))
                    .map_err(|e| e.to_string())?;
                let info = cert.info();
                let claims = Claims { cert: Some(&info), ..Claims::of(id, AuthPolicy::Pubkey) };
                if realm.rank(&claims).is_none() {
                    return Err(format!(
                        "the certificate of {} fits no rule of the realm",
                        identity::spoken_for(&info)
                    ));
                }
                if !named && !identity::covers(&info, id) {
                    return Err(format!(
                        "the certificate speaks for {}, not for `{id}`",
                        identity::spoken_for(&info)
                    ));
                }
                Ok(())
            }
            None if named => Ok(()),
            None => {
                Err("a raw public key cannot say whose it is, and the realm accepts many identities".into())
            }
        }
    }

    pub(super) fn describe(&self) -> String {
        match &self.cert {
            Some(cert) => format!("pinned certificate of {}", cert.subject_text()),
            None => format!("public key {}", self.name),
        }
    }
}

/// Which signatures a realm takes instead of the one that came.
pub(super) fn untaken(realm: &Realm, came: &str) -> String {
    let names: Vec<&str> = realm.methods.iter().map(|method| method.name()).collect();
    format!("the peer signed with {came}, and realm `{}` takes only {}", realm.name, names.join(", "))
}
