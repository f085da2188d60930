//! What a conversation is made with: methods, users, passwords.

use std::fmt;
use std::sync::Arc;

use spi::Secret;

use crate::tls::{TlsClient, TlsServer};

/// Fills a buffer with random octets fit for challenges.
pub type Random = Arc<dyn Fn(&mut [u8]) + Send + Sync>;

/// The methods there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MethodKind {
    /// EAP-MD5-Challenge (RFC 3748 section 5.4): proves a password to the server, and nothing to the peer. No key.
    Md5,
    /// EAP-GTC (RFC 3748 section 5.6): sends the password as it is. No key.
    Gtc,
    /// EAP-MSCHAPv2 (RFC 2759): both prove that they know the password.
    MsChapV2,
    /// EAP-TLS (RFC 5216, RFC 9190): certificates on both sides.
    Tls,
    /// EAP-TTLS (RFC 5281): a certificate of the server's, and a password inside.
    Ttls,
    /// PEAP version 0: a certificate of the server's, and EAP inside.
    Peap,
}

impl MethodKind {
    /// Every method.
    pub const ALL: [MethodKind; 6] = [
        MethodKind::Md5,
        MethodKind::Gtc,
        MethodKind::MsChapV2,
        MethodKind::Tls,
        MethodKind::Ttls,
        MethodKind::Peap,
    ];

    /// The number in the packet.
    pub fn number(self) -> u8 {
        match self {
            MethodKind::Md5 => 4,
            MethodKind::Gtc => 6,
            MethodKind::Tls => 13,
            MethodKind::Ttls => 21,
            MethodKind::Peap => 25,
            MethodKind::MsChapV2 => 26,
        }
    }

    /// The method with this number.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.number() == number)
    }

    /// Whether it leaves a key behind.
    pub fn derives_key(self) -> bool {
        !matches!(self, MethodKind::Md5 | MethodKind::Gtc)
    }

    /// Whether it runs in TLS.
    pub fn needs_tls(self) -> bool {
        matches!(self, MethodKind::Tls | MethodKind::Ttls | MethodKind::Peap)
    }
}

impl fmt::Display for MethodKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            MethodKind::Md5 => "EAP-MD5",
            MethodKind::Gtc => "EAP-GTC",
            MethodKind::MsChapV2 => "EAP-MSCHAPv2",
            MethodKind::Tls => "EAP-TLS",
            MethodKind::Ttls => "EAP-TTLS",
            MethodKind::Peap => "PEAP",
        })
    }
}

/// What runs inside a tunnel of EAP-TTLS or PEAP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Inner {
    /// The password as it is, protected by the tunnel alone (RFC 5281 section 11.2.5). Not in PEAP.
    Pap,
    /// MSCHAPv2 without EAP, its challenge taken from the tunnel (RFC 5281 section 11.2.4). Not in PEAP.
    MsChapV2,
    /// EAP once more. Not with the methods that need TLS.
    Eap(MethodKind),
}

impl fmt::Display for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Inner::Pap => f.write_str("PAP"),
            Inner::MsChapV2 => f.write_str("MSCHAPv2"),
            Inner::Eap(kind) => kind.fmt(f),
        }
    }
}

/// Who has which password.
pub trait Users: Send + Sync {
    /// The password of this user; `None` for nobody. Should take as long for the one as for the other.
    fn password(&self, name: &str) -> Option<Secret>;
}

/// What a server is, for all its conversations.
pub struct ServerConfig {
    /// What it calls itself in MSCHAPv2 and MD5 challenges; peers may show it.
    pub name: String,
    /// Methods, the one offered first in front.
    pub methods: Vec<MethodKind>,
    /// What may run inside EAP-TTLS and PEAP, in the order in which PEAP offers it.
    pub inner: Vec<Inner>,
    /// Who has which password.
    pub users: Arc<dyn Users>,
    /// Certificates, for the methods that need TLS.
    pub tls: Option<Arc<TlsServer>>,
    /// Ask for the identity, also if the lower layer said one.
    pub ask_identity: bool,
    /// Let methods pass that leave no key (outside a tunnel).
    pub allow_keyless: bool,
}

impl ServerConfig {
    /// Whether every method in it can run.
    ///
    /// # Errors
    /// What is missing or contradicts, for the one who wrote it.
    pub fn check(&self) -> Result<(), String> {
        if self.methods.is_empty() {
            return Err("no EAP method is allowed".into());
        }
        for kind in &self.methods {
            if kind.needs_tls() && self.tls.is_none() {
                return Err(format!("{kind} needs a certificate of the server"));
            }
            if *kind == MethodKind::Tls && !self.tls.as_ref().is_some_and(|tls| tls.takes_clients()) {
                return Err("EAP-TLS needs CAs that the certificates of peers are verified with".into());
            }
            check_method(*kind, self.allow_keyless, &self.inner)?;
        }
        Ok(())
    }
}

/// Where a peer's password is.
pub enum Password {
    /// There is none.
    None,
    /// Here.
    Known(Secret),
    /// With somebody who is asked when it is needed.
    Ask(Arc<dyn Prompt>),
}

impl Password {
    pub(crate) fn duplicate(&self) -> Self {
        match self {
            Password::None => Password::None,
            Password::Known(password) => Password::Known(password.duplicate()),
            Password::Ask(prompt) => Password::Ask(Arc::clone(prompt)),
        }
    }
}

/// Somebody to ask for a password.
pub trait Prompt: Send + Sync {
    /// Asks for the password of `identity`, or looks whether the answer has come: called again with every
    /// [`poll`](crate::Conversation::poll) until it is no longer [`Answer::Pending`]. `question` is the server's own
    /// text, if the method has one: printable, at most 256 octets, and not to be believed.
    fn ask(&self, identity: &str, question: Option<&str>) -> Answer;
}

/// What somebody asked says.
pub enum Answer {
    /// Nothing yet.
    Pending,
    /// This is it.
    Given(Secret),
    /// There will be no password.
    Refused,
}

/// What a peer is.
pub struct PeerConfig {
    /// Who we are.
    pub identity: String,
    /// Who we say we are before a tunnel is up: `anonymous@example.org`, of which only the realm is true.
    pub anonymous: Option<String>,
    /// Our password, for the methods that need one.
    pub password: Password,
    /// Methods we take part in, the one we like best in front.
    pub methods: Vec<MethodKind>,
    /// What we do inside a tunnel: the first of them in EAP-TTLS; what the server asks for of those that are EAP, in
    /// PEAP.
    pub inner: Vec<Inner>,
    /// Certificates, for the methods that need TLS.
    pub tls: Option<Arc<TlsClient>>,
    /// Take part in methods that leave no key (outside a tunnel).
    pub allow_keyless: bool,
}

impl PeerConfig {
    /// Whether every method in it can run.
    ///
    /// # Errors
    /// What is missing or contradicts, for the one who wrote it.
    pub fn check(&self) -> Result<(), String> {
        if self.methods.is_empty() {
            return Err("no EAP method is allowed".into());
        }
        for kind in &self.methods {
            if kind.needs_tls() && self.tls.is_none() {
                return Err(format!("{kind} needs CAs that the server's certificate is verified with"));
            }
            if *kind == MethodKind::Tls && !self.tls.as_ref().is_some_and(|tls| tls.has_certificate()) {
                return Err("EAP-TLS needs a certificate of our own".into());
            }
            if *kind != MethodKind::Tls && matches!(self.password, Password::None) {
                return Err(format!("{kind} needs a password"));
            }
            check_method(*kind, self.allow_keyless, &self.inner)?;
        }
        Ok(())
    }
}

fn check_method(kind: MethodKind, allow_keyless: bool, inner: &[Inner]) -> Result<(), String> {
    if !kind.derives_key() && !allow_keyless {
        return Err(format!("{kind} leaves no key, and is allowed inside a tunnel only"));
    }
    if let Some(Inner::Eap(nested)) =
        inner.iter().find(|inner| matches!(inner, Inner::Eap(kind) if kind.needs_tls()))
    {
        return Err(format!("{nested} inside a tunnel is not supported"));
    }
    let is_eap = |inner: &Inner| matches!(inner, Inner::Eap(_));
    match kind {
        MethodKind::Ttls if inner.is_empty() => Err("EAP-TTLS has nothing to run inside".into()),
        MethodKind::Peap if !inner.iter().any(is_eap) => Err("PEAP has no EAP method to run inside".into()),
        _ => Ok(()),
    }
}
