//! Identities (RFC 7296 section 3.5) and what a realm accepts of them.

use std::net::{Ipv4Addr, Ipv6Addr};

/// An identity, ours or a peer's.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Identity {
    /// ID_FQDN, without a trailing dot; compared without regard to case.
    Fqdn(String),
    /// ID_RFC822_ADDR; the domain is compared without regard to case.
    Email(String),
    /// ID_IPV4_ADDR.
    V4(Ipv4Addr),
    /// ID_IPV6_ADDR.
    V6(Ipv6Addr),
    /// ID_DER_ASN1_DN: DER of the name.
    Dn(Vec<u8>),
    /// ID_KEY_ID: opaque octets.
    KeyId(Vec<u8>),
}

/// Which identities a realm accepts from its peers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum IdMatch {
    /// Every authenticated identity.
    Any,
    /// This one.
    Exact(Identity),
    /// Names that end in this, for example `.lab.test` (written `*.lab.test`).
    FqdnSuffix(String),
    /// Addresses that end in this, for example `@lab.test` (written `*@lab.test`).
    EmailSuffix(String),
}
