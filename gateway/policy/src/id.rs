//! Identities (RFC 7296 section 3.5) and what a realm accepts of them.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use wire::numbers::IdType;

use crate::dn::{self, DnError};
use crate::realm::RemoteAddress;

/// Longest identity in octets, without type and reserved octets. RFC 7296 sets no bound; a DN of twice the longest
/// e-mail address is still a DN, and anything longer is a peer that wants our memory.
pub const MAX_ID_LEN: usize = 520;

/// An identity, ours or a peer's. Two are equal when they name the same thing: names and mail domains compare without
/// regard to case, DNs by their attributes and not by their encoding.
#[derive(Clone, Debug, Serialize, Deserialize)]
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
    /// ID_NULL (RFC 7619): nobody in particular. The number is ours and never on the wire; it keeps one nobody apart from the
    /// next, so that neither takes the other's connections or addresses for its own. 0: not numbered.
    Anonymous(u64),
}

/// Why a text or a payload is no identity.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum IdError {
    /// Longer than [`MAX_ID_LEN`].
    #[error("identity of {0} octets, at most {MAX_ID_LEN} are accepted")]
    TooLong(usize),
    /// Nothing there.
    #[error("empty identity")]
    Empty,
    /// An address of the wrong length.
    #[error("{kind} of {len} octets")]
    BadLength {
        /// Its type.
        kind: IdType,
        /// Its length.
        len: usize,
    },
    /// A name with characters that no name has.
    #[error("`{0}` is not a domain name, an address, user@host, a distinguished name or keyid:hex")]
    BadName(String),
    /// A type we have no use for.
    #[error("identity type {0} is not supported")]
    Unsupported(IdType),
    /// Not the hex digits of a key ID.
    #[error("keyid: must be followed by pairs of hex digits")]
    BadHex,
    /// Not a distinguished name.
    #[error(transparent)]
    BadDn(#[from] DnError),
    /// `any` and suffixes where one identity is needed.
    #[error("`{0}` stands for many identities; here one is needed")]
    NotOne(String),
}

impl Identity {
    /// Reads the operator's form: `moon.lab.test`, `user@host`, an IPv4 or IPv6 address, `C=CH, O=x, CN=y`, `keyid:hex`.
    ///
    /// # Errors
    /// [`IdError`]; `any` and suffix forms are [`IdError::NotOne`].
    pub fn parse(text: &str) -> Result<Self, IdError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(IdError::Empty);
        }
        if text.eq_ignore_ascii_case("any") || text == "%any" || text.starts_with('*') {
            return Err(IdError::NotOne(text.into()));
        }
        let id = if let Ok(address) = text.parse::<IpAddr>() {
            Identity::from(address)
        } else if let Some(hex) = strip_prefix_ignore_case(text, "keyid:") {
            Identity::KeyId(parse_hex(hex)?)
        } else if text.contains('=') {
            Identity::Dn(dn::parse(text)?)
        } else {
            // A leading `@` is how others force a name that looks like something else.
            let name = text.strip_prefix('@').unwrap_or(text);
            if !name.bytes().all(is_name_octet) {
                return Err(IdError::BadName(text.into()));
            }
            match name.split_once('@') {
                Some(("", _) | (_, "")) => return Err(IdError::BadName(text.into())),
                Some(_) => Identity::Email(name.into()),
                None => fqdn(name).ok_or_else(|| IdError::BadName(text.into()))?,
            }
        };
        let len = id.to_wire().1.len();
        if len > MAX_ID_LEN { Err(IdError::TooLong(len)) } else { Ok(id) }
    }

    /// Reads an ID payload's type and data.
    ///
    /// # Errors
    /// [`IdError`]: too long, empty, an address of the wrong length, a name with control or non-ASCII octets, DER that is
    /// no name, a type without a use here (RFC 7296 section 3.5 asks for the six we have).
    pub fn from_wire(kind: IdType, data: &[u8]) -> Result<Self, IdError> {
        if data.len() > MAX_ID_LEN {
            return Err(IdError::TooLong(data.len()));
        }
        let bad_length = IdError::BadLength { kind, len: data.len() };
        if kind == IdType::NULL {
            return if data.is_empty() { Ok(Identity::Anonymous(0)) } else { Err(bad_length) };
        }
        if data.is_empty() {
            return Err(IdError::Empty);
        }
        Ok(match kind {
            IdType::IPV4_ADDR => Identity::V4(<[u8; 4]>::try_from(data).map_err(|_| bad_length)?.into()),
            IdType::IPV6_ADDR => Identity::V6(<[u8; 16]>::try_from(data).map_err(|_| bad_length)?.into()),
            IdType::FQDN => {
                let name = name_text(data)?;
                fqdn(&name).ok_or(IdError::BadName(name))?
            }
            IdType::RFC822_ADDR => {
                let name = name_text(data)?;
                match name.split_once('@') {
                    Some((user, host)) if !user.is_empty() && !host.is_empty() => Identity::Email(name),
                    _ => return Err(IdError::BadName(name)),
                }
            }
            IdType::DER_ASN1_DN => {
                dn::check(data)?;
                Identity::Dn(data.to_vec())
            }
            IdType::KEY_ID => Identity::KeyId(data.to_vec()),
            other => return Err(IdError::Unsupported(other)),
        })
    }

    /// Type and data of the ID payload.
    pub fn to_wire(&self) -> (IdType, Vec<u8>) {
        match self {
            Identity::Fqdn(name) => (IdType::FQDN, name.clone().into_bytes()),
            Identity::Email(name) => (IdType::RFC822_ADDR, name.clone().into_bytes()),
            Identity::V4(address) => (IdType::IPV4_ADDR, address.octets().to_vec()),
            Identity::V6(address) => (IdType::IPV6_ADDR, address.octets().to_vec()),
            Identity::Dn(der) => (IdType::DER_ASN1_DN, der.clone()),
            Identity::KeyId(octets) => (IdType::KEY_ID, octets.clone()),
            Identity::Anonymous(_) => (IdType::NULL, Vec::new()),
        }
    }

    /// Whether it says nothing about who has it.
    pub fn is_anonymous(&self) -> bool {
        matches!(self, Identity::Anonymous(_))
    }

    /// Type number and the octets that decide equality.
    fn canonical(&self) -> (IdType, Vec<u8>) {
        let (kind, data) = self.to_wire();
        let data = match self {
            Identity::Fqdn(name) => name.to_ascii_lowercase().into_bytes(),
            // RFC 5321 section 2.4: the part before the @ may be case-sensitive, the domain is not.
            Identity::Email(name) => match name.rsplit_once('@') {
                Some((user, host)) => format!("{user}@{}", host.to_ascii_lowercase()).into_bytes(),
                None => data,
            },
            Identity::Dn(der) => dn::canonical(der),
            Identity::Anonymous(number) => number.to_be_bytes().to_vec(),
            _ => data,
        };
        (kind, data)
    }
}

impl From<IpAddr> for Identity {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Identity::V4(address),
            IpAddr::V6(address) => Identity::V6(address),
        }
    }
}

impl FromStr for Identity {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        Identity::parse(text)
    }
}

impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        self.canonical() == other.canonical()
    }
}

impl Eq for Identity {}

impl Hash for Identity {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.canonical().hash(state);
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Identity::Fqdn(name) | Identity::Email(name) => f.write_str(name),
            Identity::V4(address) => address.fmt(f),
            Identity::V6(address) => address.fmt(f),
            Identity::Dn(der) => f.write_str(&dn::to_text(der)),
            Identity::KeyId(octets) => {
                f.write_str("keyid:")?;
                octets.iter().try_for_each(|o| write!(f, "{o:02x}"))
            }
            Identity::Anonymous(0) => f.write_str("anonymous"),
            Identity::Anonymous(number) => write!(f, "anonymous-{number}"),
        }
    }
}

/// Octets of a domain name or a mail address: printable ASCII without spaces. Control characters would reach logs, and
/// NUL is the classic way to be two names at once.
fn is_name_octet(octet: u8) -> bool {
    octet.is_ascii_graphic() && !b"\"\\,=<>()[]".contains(&octet)
}

fn name_text(data: &[u8]) -> Result<String, IdError> {
    if !data.iter().copied().all(is_name_octet) {
        return Err(IdError::BadName(String::from_utf8_lossy(data).escape_default().to_string()));
    }
    Ok(data.iter().map(|&o| char::from(o)).collect())
}

fn fqdn(name: &str) -> Option<Identity> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let labels = name.split('.').all(|label| !label.is_empty());
    (labels && !name.contains(['@', '/', ':', '*'])).then(|| Identity::Fqdn(name.into()))
}

fn strip_prefix_ignore_case<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let head = text.get(..prefix.len())?;
    if head.eq_ignore_ascii_case(prefix) { text.get(prefix.len()..) } else { None }
}

fn parse_hex(text: &str) -> Result<Vec<u8>, IdError> {
    let digits: Option<Vec<u8>> = text
        .chars()
        .filter(|c| *c != ':')
        .map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok()))
        .collect();
    let digits = digits.filter(|d| !d.is_empty() && d.len() % 2 == 0).ok_or(IdError::BadHex)?;
    Ok(digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

/// A pattern for identities.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum IdMatch {
    /// Every authenticated identity; ID_NULL is none.
    Any,
    /// This one.
    Exact(Identity),
    /// Names that end in this, for example `.lab.test` (written `*.lab.test`).
    FqdnSuffix(String),
    /// Addresses that end in this, for example `@lab.test` (written `*@lab.test`).
    EmailSuffix(String),
    /// IP addresses of this network: address and length in bits (written `10.1.0.0/16`).
    Prefix(IpAddr, u8),
}

impl IdMatch {
    /// Reads `any`, `*.lab.test`, `*@lab.test`, `10.1.0.0/16` or one identity.
    ///
    /// # Errors
    /// [`IdError`] as [`Identity::parse`] gives it.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        let text = text.trim();
        if text.eq_ignore_ascii_case("any") || text == "%any" || text == "*" {
            return Ok(IdMatch::Any);
        }
        if let Some((address, length)) = text.split_once('/')
            && let Ok(address) = address.parse::<IpAddr>()
        {
            let most = if address.is_ipv4() { 32 } else { 128 };
            let length = length.parse().ok().filter(|length| *length <= most);
            return Ok(IdMatch::Prefix(address, length.ok_or_else(|| IdError::BadName(text.into()))?));
        }
        let Some(suffix) = text.strip_prefix('*') else { return Identity::parse(text).map(IdMatch::Exact) };
        let bad = || IdError::BadName(text.into());
        let domain = suffix.get(1..).ok_or_else(bad)?;
        // The rest has to be a name by itself, so that `*.` and `*.*.test` are mistakes and not patterns.
        let Some(Identity::Fqdn(domain)) = fqdn(domain).filter(|_| domain.bytes().all(is_name_octet)) else {
            return Err(bad());
        };
        match suffix.as_bytes().first() {
            Some(b'.') => Ok(IdMatch::FqdnSuffix(format!(".{domain}"))),
            Some(b'@') => Ok(IdMatch::EmailSuffix(format!("@{domain}"))),
            _ => Err(bad()),
        }
    }

    /// Whether the identity is accepted. A suffix wants something before it: `*.lab.test` is not `lab.test`.
    pub fn matches(&self, id: &Identity) -> bool {
        match (self, id) {
            (_, Identity::Anonymous(_)) => false,
            (IdMatch::Any, _) => true,
            (IdMatch::Exact(exact), id) => exact == id,
            (IdMatch::Prefix(network, length), Identity::V4(address)) => {
                RemoteAddress::Prefix(*network, *length).contains(IpAddr::V4(*address))
            }
            (IdMatch::Prefix(network, length), Identity::V6(address)) => {
                RemoteAddress::Prefix(*network, *length).contains(IpAddr::V6(*address))
            }
            (IdMatch::FqdnSuffix(suffix), Identity::Fqdn(name))
            | (IdMatch::EmailSuffix(suffix), Identity::Email(name)) => ends_with_ignore_case(name, suffix),
            _ => false,
        }
    }

    /// How narrow it is: 0 for any, more for a longer suffix or prefix, [`u32::MAX`] for one identity. Comparable between any two
    /// that match the same identity.
    pub fn specificity(&self) -> u32 {
        match self {
            IdMatch::Any => 0,
            IdMatch::FqdnSuffix(suffix) | IdMatch::EmailSuffix(suffix) => suffix.len() as u32,
            // One more, so that a network of everything is narrower than `any`: it is of one family.
            IdMatch::Prefix(_, length) => u32::from(*length) + 1,
            IdMatch::Exact(_) => u32::MAX,
        }
    }

    /// Whether some identity is accepted by both.
    pub fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (IdMatch::Any, _) | (_, IdMatch::Any) => true,
            (IdMatch::Exact(id), pattern) | (pattern, IdMatch::Exact(id)) => pattern.matches(id),
            (IdMatch::FqdnSuffix(a), IdMatch::FqdnSuffix(b))
            | (IdMatch::EmailSuffix(a), IdMatch::EmailSuffix(b)) => {
                let (a, b) = (a.to_ascii_lowercase(), b.to_ascii_lowercase());
                a.ends_with(&b) || b.ends_with(&a)
            }
            (IdMatch::Prefix(a, la), IdMatch::Prefix(b, lb)) => {
                RemoteAddress::Prefix(*a, *la).overlaps(&RemoteAddress::Prefix(*b, *lb))
            }
            _ => false,
        }
    }
}

impl FromStr for IdMatch {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        IdMatch::parse(text)
    }
}

impl fmt::Display for IdMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IdMatch::Any => f.write_str("any"),
            IdMatch::Exact(id) => id.fmt(f),
            IdMatch::FqdnSuffix(suffix) | IdMatch::EmailSuffix(suffix) => write!(f, "*{suffix}"),
            IdMatch::Prefix(address, length) => write!(f, "{address}/{length}"),
        }
    }
}

fn ends_with_ignore_case(name: &str, suffix: &str) -> bool {
    let (name, suffix) = (name.as_bytes(), suffix.as_bytes());
    name.len() > suffix.len() && name[name.len() - suffix.len()..].eq_ignore_ascii_case(suffix)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> Identity {
        Identity::parse(text).unwrap()
    }

    #[test]
    fn every_form_goes_round_by_text_and_by_wire() {
        for (text, kind) in [
            ("moon.lab.test", IdType::FQDN),
            ("carol@lab.test", IdType::RFC822_ADDR),
            ("192.168.0.1", IdType::IPV4_ADDR),
            ("fec0::1", IdType::IPV6_ADDR),
            ("C=CH, O=Lab, CN=moon", IdType::DER_ASN1_DN),
            ("keyid:00ff10", IdType::KEY_ID),
        ] {
            let id = id(text);
            assert_eq!(id.to_string(), text);
            let (got, data) = id.to_wire();
            assert_eq!(got, kind);
            assert_eq!(Identity::from_wire(kind, &data).unwrap(), id);
        }
        assert_eq!(id("@moon.lab.test").to_string(), "moon.lab.test");
        assert_eq!(id("moon.lab.test."), id("moon.lab.test"));
        assert_eq!(id("KEYID:00:FF"), id("keyid:00ff"));
    }

    #[test]
    fn case_of_names_does_not_matter_and_case_of_users_does() {
        assert_eq!(id("Moon.Lab.Test"), id("moon.lab.test"));
        assert_eq!(id("carol@LAB.test"), id("carol@lab.test"));
        assert_ne!(id("Carol@lab.test"), id("carol@lab.test"));
        assert_ne!(id("10.0.0.1"), Identity::Fqdn("10.0.0.1".into()), "the type counts");
        assert_eq!(id("C=CH, CN=Moon"), id("C=ch, CN=moon"));
        let set: std::collections::HashSet<_> = [id("MOON.test"), id("moon.test")].into();
        assert_eq!(set.len(), 1);
    }

    #[test]
    fn text_that_is_no_single_identity_is_refused() {
        assert_eq!(Identity::parse(" "), Err(IdError::Empty));
        assert!(matches!(Identity::parse("any"), Err(IdError::NotOne(_))));
        assert!(matches!(Identity::parse("*.lab.test"), Err(IdError::NotOne(_))));
        assert_eq!(Identity::parse("keyid:0"), Err(IdError::BadHex));
        assert_eq!(Identity::parse("keyid:"), Err(IdError::BadHex));
        for bad in ["a b", "a..b", "x@", "@@x", "a/b", "höst", "10.0.0.0/8"] {
            assert!(matches!(Identity::parse(bad), Err(IdError::BadName(_))), "{bad}");
        }
        assert!(matches!(Identity::parse("CN"), Ok(Identity::Fqdn(_))), "a bare word is a name");
        assert!(matches!(Identity::parse("XX=1"), Err(IdError::BadDn(_))));
        assert!(matches!(Identity::parse(&"a".repeat(521)), Err(IdError::TooLong(521))));
    }

    #[test]
    fn payloads_of_impossible_length_or_content_are_refused() {
        for (kind, data) in [
            (IdType::IPV4_ADDR, &[1u8, 2, 3][..]),
            (IdType::IPV4_ADDR, &[1; 16]),
            (IdType::IPV6_ADDR, &[1; 4]),
            (IdType::FQDN, b""),
            (IdType::FQDN, b"moon\0.lab.test"),
            (IdType::FQDN, b"moon\n"),
            (IdType::FQDN, b"user@host"),
            (IdType::RFC822_ADDR, b"host"),
            (IdType::DER_ASN1_DN, b"\x30\x05"),
            (IdType::NULL, b"x"),
            (IdType::DER_ASN1_GN, b"x"),
        ] {
            assert!(Identity::from_wire(kind, data).is_err(), "{kind} {data:?}");
        }
        assert_eq!(Identity::from_wire(IdType::KEY_ID, &[0; MAX_ID_LEN + 1]), Err(IdError::TooLong(521)));
        assert!(Identity::from_wire(IdType::KEY_ID, &[0; MAX_ID_LEN]).is_ok());
    }

    #[test]
    fn matches_are_ordered_from_any_to_one() {
        let (any, wide, narrow, one) = (
            IdMatch::parse("any").unwrap(),
            IdMatch::parse("*.test").unwrap(),
            IdMatch::parse("*.lab.test").unwrap(),
            IdMatch::parse("moon.lab.test").unwrap(),
        );
        let moon = id("MOON.lab.test");
        for m in [&any, &wide, &narrow, &one] {
            assert!(m.matches(&moon), "{m}");
            assert_eq!(IdMatch::parse(&m.to_string()).unwrap(), *m);
        }
        assert!(any.specificity() < wide.specificity());
        assert!(wide.specificity() < narrow.specificity());
        assert!(narrow.specificity() < one.specificity());
    }

    #[test]
    fn suffixes_match_whole_labels_of_their_own_type_only() {
        let names = IdMatch::parse("*.lab.test").unwrap();
        assert!(!names.matches(&id("lab.test")));
        assert!(!names.matches(&id("xlab.test")));
        assert!(!names.matches(&id("carol@moon.lab.test")));
        let mails = IdMatch::parse("*@lab.test").unwrap();
        assert!(mails.matches(&id("carol@LAB.test")));
        assert!(!mails.matches(&id("carol@sub.lab.test")));
        for bad in ["*", "*."] {
            assert_eq!(IdMatch::parse(bad).is_ok(), bad == "*");
        }
        assert!(IdMatch::parse("*lab.test").is_err());
        assert!(IdMatch::parse("*.*.test").is_err());
    }

    #[test]
    fn overlap_sees_that_one_peer_fits_both() {
        let m = |t| IdMatch::parse(t).unwrap();
        assert!(m("any").overlaps(&m("x.test")));
        assert!(m("*.test").overlaps(&m("*.lab.test")));
        assert!(!m("*.lab.test").overlaps(&m("*.home.test")));
        assert!(!m("*@lab.test").overlaps(&m("*.lab.test")));
        assert!(m("*.test").overlaps(&m("a.test")));
        assert!(!m("a.test").overlaps(&m("b.test")));
    }
}
