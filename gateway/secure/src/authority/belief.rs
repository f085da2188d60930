//! Whom a realm believes: a key as it is, the first key, a CA; and what is said when it does not.

use std::sync::Arc;
use std::time::SystemTime;

use policy::{AuthPolicy, Claims, Identity, Realm};

use crate::key::KeyKind;
use crate::vault::Believed;
use crate::{identity, usage};

/// What a peer's certificates are judged by.
pub(super) enum Belief {
    /// These keys, believed as they are: SubjectPublicKeyInfo, kind, description.
    Keys(Vec<(Vec<u8>, KeyKind, String)>),
    /// This one, because there was none before.
    First((Vec<u8>, KeyKind, String)),
    /// A path to one of these CAs.
    Chain(Arc<[Vec<u8>]>),
}

/// Why they are not, in words.
pub(super) enum Disbelief {
    /// The realm knows nobody who would vouch for the peer; another one may.
    Unknown(String),
    /// It is no good.
    Refused(String),
}

impl Believed {
    /// Whether the key may speak for the identity: the operator wrote the two down together, or the certificate says so.
    pub(super) fn speaks_for(&self, at: SystemTime, realm: &Realm, id: &Identity) -> Result<(), String> {
        let named = realm.remote_id.the_one() == Some(id);
        match &self.cert {
            Some(cert) => {
                // The length of RSA keys was looked at when the certificate was read.
                usage::check_any(cert, at, 0)
                    .and_then(|()| usage::check_end_entity(cert))
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
