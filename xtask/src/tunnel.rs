//! One end of a tunnel, described in nobody's syntax: what both our TOML and swanctl.conf are written from.

/// How an end proves who it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Auth {
    /// The shared secret.
    Psk,
    /// A certificate from the lab's authority of this key type.
    Cert(KeyType),
}

/// Which authority, and so which signature algorithm.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyType {
    /// RSA, 3072 bits.
    Rsa,
    /// ECDSA on P-256.
    Ecdsa,
    /// Ed25519.
    Ed25519,
}

impl KeyType {
    /// Its folder in the PKI, and its name in scenario names.
    pub fn name(self) -> &'static str {
        match self {
            KeyType::Rsa => "rsa",
            KeyType::Ecdsa => "ecdsa",
            KeyType::Ed25519 => "ed25519",
        }
    }
}

/// How ESP travels.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Encap {
    /// As NAT detection finds.
    Auto,
    /// In UDP whatever NAT detection finds.
    Udp,
    /// As IP protocol 50.
    Raw,
}

/// What makes the tunnel come up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Start {
    /// A command, or the other end.
    Manual,
    /// The first packet that wants through.
    Traffic,
}

/// When the first Child SA is negotiated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FirstChild {
    /// Together with IKE_AUTH.
    WithAuth,
    /// By CREATE_CHILD_SA after a childless IKE_AUTH (RFC 6023).
    Later,
}

/// Virtual addresses (configuration payload).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lease {
    /// None: selectors are what they say.
    None,
    /// This end asks for an IPv4 address.
    Request,
    /// This end hands addresses out from this prefix.
    Pool(&'static str),
}

/// One end, complete.
#[derive(Clone, Debug)]
pub struct End {
    /// The lab host it runs on; also names its certificate and key.
    pub host: &'static str,
    /// Its address on the outside, or `None` for whatever the route gives.
    pub address: Option<&'static str>,
    /// The other end's address, or `None` for anybody's.
    pub peer_address: Option<&'static str>,
    /// Who it says it is.
    pub id: String,
    /// Who it expects.
    pub peer_id: String,
    /// How it proves itself.
    pub auth: Auth,
    /// How the other end has to.
    pub peer_auth: Auth,
    /// The shared secret, if either proof is by one.
    pub secret: String,
    /// IKE proposal, in the syntax both implementations share.
    pub ike: String,
    /// ESP proposal, likewise.
    pub esp: String,
    /// Local traffic selectors; empty for its own (virtual) address.
    pub local: Vec<&'static str>,
    /// Remote traffic selectors; empty for the peer's (virtual) address.
    pub remote: Vec<&'static str>,
    /// Virtual addresses.
    pub lease: Lease,
    /// How ESP travels.
    pub encap: Encap,
    /// When the Child SA comes.
    pub first_child: FirstChild,
    /// What brings it up.
    pub start: Start,
    /// IKE fragmentation size in bytes, if not the default.
    pub fragment_size: Option<u16>,
}

/// What the connection or realm is called on either side.
pub const REALM: &str = "site";
/// What its one child is called.
pub const CHILD: &str = "net";
