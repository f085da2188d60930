//! What a realm says of EAP. Methods and credentials are the key side's; this is what both sides have to know.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::Identity;

/// How EAP is done in a realm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EapPolicy {
    /// Methods, preferred first: what a server offers and what a client takes. Empty: none but what RADIUS decides.
    pub methods: Vec<EapMethod>,
    /// The responder proves itself by the EAP method alone (RFC 5998), where both sides say so. Otherwise it has a key of its
    /// own.
    pub only: bool,
    /// Methods are accepted that give no key, so that AUTH ties the two sides to the exchange and not to each other (RFC 7296
    /// section 2.16).
    pub keyless: bool,
    /// How long authentication may take in all, with somebody looking for a password.
    pub time: Duration,
    /// The EAP identity we have as a client; `None`: the one of IKE.
    pub identity: Option<String>,
    /// Whether a server asks for an EAP identity. If it does not, IDi is the identity.
    pub ask_identity: bool,
}

impl EapPolicy {
    /// Bounds of [`time`](EapPolicy::time).
    pub const TIME: std::ops::RangeInclusive<Duration> = Duration::from_secs(10)..=Duration::from_secs(600);
}

impl Default for EapPolicy {
    fn default() -> Self {
        EapPolicy {
            methods: Vec::new(),
            only: false,
            keyless: false,
            time: Duration::from_secs(120),
            identity: None,
            ask_identity: true,
        }
    }
}

/// An EAP method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum EapMethod {
    /// MD5-Challenge (RFC 3748 section 5.4): no key.
    Md5,
    /// Generic Token Card (RFC 3748 section 5.6): the password as it is, no key.
    Gtc,
    /// EAP-MSCHAPv2.
    MsChapV2,
    /// EAP-TLS (RFC 5216, RFC 9190).
    Tls,
    /// EAP-TTLS (RFC 5281).
    Ttls,
    /// PEAP.
    Peap,
}

impl EapMethod {
    /// All, with the names that configurations use.
    pub const NAMES: [(&str, EapMethod); 6] = [
        ("mschapv2", EapMethod::MsChapV2),
        ("tls", EapMethod::Tls),
        ("ttls", EapMethod::Ttls),
        ("peap", EapMethod::Peap),
        ("md5", EapMethod::Md5),
        ("gtc", EapMethod::Gtc),
    ];

    /// Its name in configurations.
    pub fn name(self) -> &'static str {
        EapMethod::NAMES.iter().find(|(_, method)| *method == self).map_or("", |(name, _)| name)
    }

    /// Whether it gives a key.
    pub fn is_keyed(self) -> bool {
        !matches!(self, EapMethod::Md5 | EapMethod::Gtc)
    }

    /// Whether it authenticates the server too and keeps a listener from guessing passwords, so that nothing else need
    /// authenticate the responder (RFC 5998 section 4).
    pub fn is_safe_alone(self) -> bool {
        matches!(self, EapMethod::Tls | EapMethod::Ttls | EapMethod::Peap)
    }

    /// Whether the client needs a password.
    pub fn needs_password(self) -> bool {
        self != EapMethod::Tls
    }
}

/// The identity an EAP server speaks of, as one of IKE: a mail address or a name if it looks like one, else its octets.
pub fn identity_of_user(user: &str) -> Identity {
    match Identity::parse(user) {
        Ok(id @ (Identity::Fqdn(_) | Identity::Email(_))) => id,
        _ => Identity::KeyId(user.as_bytes().to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_names_or_octets_and_never_addresses() {
        assert_eq!(identity_of_user("carol"), Identity::Fqdn("carol".into()));
        assert_eq!(identity_of_user("carol@lab.test"), Identity::Email("carol@lab.test".into()));
        for odd in ["10.0.0.1", "LAB\\carol", "*", "any", "CN=carol", "keyid:00", ""] {
            assert_eq!(identity_of_user(odd), Identity::KeyId(odd.as_bytes().to_vec()), "{odd}");
        }
    }

    #[test]
    fn nothing_without_a_key_or_open_to_guessing_is_safe_alone() {
        for (name, method) in EapMethod::NAMES {
            assert_eq!(method.name(), name);
            assert!(!method.is_safe_alone() || method.is_keyed(), "{name}");
        }
        assert!(!EapMethod::MsChapV2.is_safe_alone());
    }
}
