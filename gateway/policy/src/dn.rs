//! Distinguished names (ID_DER_ASN1_DN): the text operators write, its DER, and when two of them are the same name.

use std::fmt::Write;
use std::str::FromStr;

use thiserror::Error;
use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::der::asn1::{Any, ObjectIdentifier, SetOfVec};
use x509_cert::der::{Decode, Encode, Tag, Tagged};
use x509_cert::name::{RdnSequence, RelativeDistinguishedName};

/// Attributes in one name. Real names have fewer than ten.
const MAX_ATTRIBUTES: usize = 32;

/// Attribute types by the names operators write; the first name of an OID is the one we print.
const TYPES: [(&str, &str); 21] = [
    ("C", "2.5.4.6"),
    ("ST", "2.5.4.8"),
    ("S", "2.5.4.8"),
    ("L", "2.5.4.7"),
    ("STREET", "2.5.4.9"),
    ("O", "2.5.4.10"),
    ("OU", "2.5.4.11"),
    ("CN", "2.5.4.3"),
    ("SN", "2.5.4.5"),
    ("serialNumber", "2.5.4.5"),
    ("surname", "2.5.4.4"),
    ("G", "2.5.4.42"),
    ("givenName", "2.5.4.42"),
    ("T", "2.5.4.12"),
    ("title", "2.5.4.12"),
    ("D", "2.5.4.13"),
    ("dnQualifier", "2.5.4.46"),
    ("UID", "0.9.2342.19200300.100.1.1"),
    ("DC", "0.9.2342.19200300.100.1.25"),
    ("E", "1.2.840.113549.1.9.1"),
    ("emailAddress", "1.2.840.113549.1.9.1"),
];

const COUNTRY: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.6");
const EMAIL: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.1");
const DOMAIN_COMPONENT: ObjectIdentifier = ObjectIdentifier::new_unwrap("0.9.2342.19200300.100.1.25");

/// Why a text or DER is not a name.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DnError {
    /// A part without `=`.
    #[error("`{0}` is no attribute: write `C=CH, O=Example, CN=gateway`")]
    NoAttribute(String),
    /// An attribute type nobody knows.
    #[error("unknown attribute type `{0}`: use a name such as C, ST, L, O, OU, CN, DC, E, or a dotted OID")]
    UnknownType(String),
    /// A value that cannot be encoded.
    #[error("the value of `{0}` cannot be encoded")]
    BadValue(String),
    /// More attributes than [`MAX_ATTRIBUTES`].
    #[error("a name of more than {MAX_ATTRIBUTES} attributes")]
    TooMany,
    /// Not the DER of a name.
    #[error("not the DER of a distinguished name")]
    BadDer,
}

/// DER of the name written as `C=CH, O=Example, CN=gateway`: attributes in the order of the encoding, separated by commas
/// (or slashes, when the text starts with one), `+` joining attributes of one RDN, `\` escaping the next character.
///
/// # Errors
/// [`DnError`] naming the part at fault.
pub fn parse(text: &str) -> Result<Vec<u8>, DnError> {
    let (text, separator) = match text.strip_prefix('/') {
        Some(rest) => (rest, '/'),
        None => (text, ','),
    };
    let mut rdns = Vec::new();
    let mut count = 0;
    for part in split(text, separator) {
        let mut set = SetOfVec::new();
        for attribute in split(part, '+') {
            count += 1;
            if count > MAX_ATTRIBUTES {
                return Err(DnError::TooMany);
            }
            let attribute = parse_attribute(attribute.trim())?;
            let name = type_name(&attribute.oid);
            set.insert(attribute).map_err(|_| DnError::BadValue(name))?;
        }
        rdns.push(RelativeDistinguishedName::from(set));
    }
    let mut sequence = RdnSequence::default();
    for rdn in rdns {
        sequence.push(rdn);
    }
    sequence.to_der().map_err(|_| DnError::BadDer)
}

fn parse_attribute(text: &str) -> Result<AttributeTypeAndValue, DnError> {
    let (kind, value) = text.split_once('=').ok_or_else(|| DnError::NoAttribute(text.into()))?;
    let (kind, value) = (kind.trim(), unescape(value.trim()));
    let known = TYPES.iter().find(|(name, _)| name.eq_ignore_ascii_case(kind));
    let oid = known.map_or_else(|| kind.strip_prefix("OID.").unwrap_or(kind), |(_, oid)| oid);
    let oid = ObjectIdentifier::from_str(oid).map_err(|_| DnError::UnknownType(kind.into()))?;
    // RFC 5280 section 4.1.2.4 and appendix A.1: PrintableString or UTF8String, IA5String for the two Internet types.
    // Which of the first two a certificate has is its maker's choice, and the comparison does not look at it.
    let tag = match oid {
        EMAIL | DOMAIN_COMPONENT => Tag::Ia5String,
        COUNTRY => Tag::PrintableString,
        _ if value.bytes().all(is_printable) => Tag::PrintableString,
        _ => Tag::Utf8String,
    };
    let fits = match tag {
        Tag::Ia5String => value.is_ascii(),
        Tag::PrintableString => value.bytes().all(is_printable),
        _ => true,
    };
    let value = Any::new(tag, value.as_bytes()).ok().filter(|_| fits && !value.is_empty());
    Ok(AttributeTypeAndValue { oid, value: value.ok_or_else(|| DnError::BadValue(kind.into()))? })
}

/// The alphabet of PrintableString (X.680 section 41.4).
fn is_printable(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || b" '()+,-./:=?".contains(&octet)
}

/// Parts between separators that are not escaped.
fn split(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let mut escaped = false;
    text.split(move |c: char| {
        let here = c == separator && !escaped;
        escaped = c == '\\' && !escaped;
        here
    })
}

fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        out.push(if c == '\\' { chars.next().unwrap_or(c) } else { c });
    }
    out
}

/// Checks that the octets are the DER of a name of bounded size.
///
/// # Errors
/// [`DnError::BadDer`], [`DnError::TooMany`].
pub fn check(der: &[u8]) -> Result<(), DnError> {
    attributes(der).map(|_| ())
}

/// The name as operators write it: `C=CH, O=Example, CN=gateway`. DER that is no name is printed in hex.
pub fn to_text(der: &[u8]) -> String {
    let Ok(rdns) = attributes(der) else {
        let mut out = String::from("#");
        for octet in der {
            let _ = write!(out, "{octet:02x}");
        }
        return out;
    };
    let mut out = String::new();
    for (i, rdn) in rdns.iter().enumerate() {
        if i > 0 {
            out.push_str(", ");
        }
        for (j, (oid, value)) in rdn.iter().enumerate() {
            if j > 0 {
                out.push('+');
            }
            let _ = write!(out, "{}=", type_name(oid));
            for c in text_of(value).chars() {
                // A name from a certificate goes into logs: no control characters, no fake separators.
                match c {
                    ',' | '+' | '\\' => {
                        out.push('\\');
                        out.push(c);
                    }
                    c if c.is_control() => out.push('?'),
                    c => out.push(c),
                }
            }
        }
    }
    out
}

/// The form two spellings of one name share, for comparing and hashing: types by OID, values folded as RFC 5280 section
/// 7.1 asks at least (letter case, leading, trailing and repeated spaces, string type). Octets that are no name
/// stand for themselves.
pub fn canonical(der: &[u8]) -> Vec<u8> {
    let Ok(rdns) = attributes(der) else { return der.to_vec() };
    let mut out = Vec::with_capacity(der.len());
    for rdn in rdns {
        // A set has no order; DER sorts by the encoding, which folding may change.
        let mut parts: Vec<Vec<u8>> = rdn
            .iter()
            .map(|(oid, value)| {
                let mut part = oid.as_bytes().to_vec();
                part.push(0);
                part.extend_from_slice(&fold(value));
                part
            })
            .collect();
        parts.sort();
        for part in parts {
            out.extend_from_slice(&(part.len() as u32).to_be_bytes());
            out.extend_from_slice(&part);
        }
        out.extend_from_slice(&u32::MAX.to_be_bytes());
    }
    out
}

/// Attributes by RDN, each by the octets of its type's OID and its value folded as [`canonical`] does.
pub(crate) fn folded(der: &[u8]) -> Result<Vec<Vec<(Vec<u8>, Vec<u8>)>>, DnError> {
    let pair = |(oid, value): &(ObjectIdentifier, Any)| (oid.as_bytes().to_vec(), fold(value));
    Ok(attributes(der)?.iter().map(|rdn| rdn.iter().map(pair).collect()).collect())
}

type Rdn = Vec<(ObjectIdentifier, Any)>;

fn attributes(der: &[u8]) -> Result<Vec<Rdn>, DnError> {
    let sequence = RdnSequence::from_der(der).map_err(|_| DnError::BadDer)?;
    let mut rdns = Vec::new();
    let mut count = 0;
    for rdn in sequence.iter() {
        let set: Rdn = rdn.iter().map(|a| (a.oid, a.value.clone())).collect();
        count += set.len();
        if count > MAX_ATTRIBUTES {
            return Err(DnError::TooMany);
        }
        rdns.push(set);
    }
    Ok(rdns)
}

fn type_name(oid: &ObjectIdentifier) -> String {
    let dotted = oid.to_string();
    TYPES.iter().find(|(_, known)| *known == dotted).map_or(dotted, |(name, _)| (*name).into())
}

fn is_text(value: &Any) -> bool {
    matches!(
        value.tag(),
        Tag::PrintableString
            | Tag::Utf8String
            | Tag::Ia5String
            | Tag::TeletexString
            | Tag::VisibleString
            | Tag::BmpString
    )
}

/// The characters of a string type; other types as `#` and hex.
fn text_of(value: &Any) -> String {
    let octets = value.value();
    match value.tag() {
        Tag::BmpString => {
            let units = octets.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
            char::decode_utf16(units).map(|c| c.unwrap_or('\u{fffd}')).collect()
        }
        _ if is_text(value) => match std::str::from_utf8(octets) {
            Ok(text) => text.into(),
            // TeletexString is Latin-1 in practice.
            Err(_) => octets.iter().map(|&o| char::from(o)).collect(),
        },
        _ => octets.iter().fold(String::from("#"), |mut out, o| {
            let _ = write!(out, "{o:02x}");
            out
        }),
    }
}

/// What RFC 4518 section 2.2 maps to nothing, but for control characters that are spaces.
fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{6dd}' | '\u{70f}' | '\u{1806}' | '\u{180b}'..='\u{180e}' | '\u{200b}'..='\u{200f}'
        | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2063}' | '\u{206a}'..='\u{206f}' | '\u{fe00}'..='\u{fe0f}'
        | '\u{feff}' | '\u{fff9}'..='\u{fffc}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0001}' | '\u{e0020}'..='\u{e007f}')
        || (c.is_control() && !c.is_whitespace())
}

fn fold(value: &Any) -> Vec<u8> {
    if !is_text(value) {
        // Marked, so that a string cannot spell the hex of something that is none.
        let mut out = vec![0];
        out.extend_from_slice(value.value());
        return out;
    }
    let text: String = text_of(value).chars().filter(|c| !is_invisible(*c)).collect();
    text.to_lowercase().split_whitespace().collect::<Vec<_>>().join(" ").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_der_go_round() {
        for text in [
            "C=CH, O=strongSwan Project, CN=moon",
            "DC=lab, DC=test, OU=a+CN=b",
            "CN=x\\,y",
            "E=a@b.c",
            "CN=Zürich",
        ] {
            let der = parse(text).unwrap();
            assert_eq!(parse(&to_text(&der)).unwrap(), der, "{text}");
        }
        assert_eq!(to_text(&parse("/C=CH/CN=moon").unwrap()), "C=CH, CN=moon");
        assert_eq!(to_text(&parse("c=CH,cn=moon").unwrap()), "C=CH, CN=moon");
        assert_eq!(to_text(&parse("2.5.4.3=moon").unwrap()), "CN=moon");
        assert_eq!(to_text(&parse("OID.2.5.4.3=moon").unwrap()), "CN=moon");
        assert_eq!(to_text(&parse("1.3.9=moon").unwrap()), "1.3.9=moon");
    }

    #[test]
    fn der_is_what_other_tools_write() {
        // C=CH, O=Lab, CN=moon with PrintableStrings, as strongSwan's pki writes it.
        let expected = "302a310b30090603550406130243483\
                        10c300a060355040a13034c6162310d300b060355040313046d6f6f6e";
        let hex: String = parse("C=CH, O=Lab, CN=moon").unwrap().iter().map(|o| format!("{o:02x}")).collect();
        assert_eq!(hex, expected);
    }

    #[test]
    fn spelling_does_not_matter_and_content_does() {
        let a = parse("C=CH, O=Lab  Net, CN=Moon").unwrap();
        let b = parse("C=CH, O=lab net, CN=moon").unwrap();
        assert_ne!(a, b);
        assert_eq!(canonical(&a), canonical(&b));
        assert_ne!(canonical(&a), canonical(&parse("C=CH, CN=moon, O=lab net").unwrap()), "order counts");
        assert_ne!(canonical(&parse("CN=a, CN=b").unwrap()), canonical(&parse("CN=a+CN=b").unwrap()));
        // UTF8String and PrintableString of the same text.
        let utf8 = [0x30, 0x0c, 0x31, 0x0a, 0x30, 0x08, 6, 3, 0x55, 4, 3, 0x0c, 1, b'x'];
        assert_eq!(canonical(&utf8), canonical(&parse("CN=X").unwrap()));
    }

    #[test]
    fn errors_say_which_part() {
        assert_eq!(parse("C=CH, moon"), Err(DnError::NoAttribute("moon".into())));
        assert_eq!(parse("XX=CH"), Err(DnError::UnknownType("XX".into())));
        assert_eq!(parse("C=Zü"), Err(DnError::BadValue("C".into())));
        assert_eq!(parse("CN="), Err(DnError::BadValue("CN".into())));
        assert_eq!(parse(&vec!["CN=a"; 33].join(",")), Err(DnError::TooMany));
    }

    #[test]
    fn garbage_is_refused_and_printed_without_panic() {
        assert_eq!(check(&[0x30, 0x80]), Err(DnError::BadDer));
        assert_eq!(to_text(&[0x30, 0x80]), "#3080");
        let name = parse("CN=a").unwrap();
        for cut in 0..name.len() {
            assert!(check(&name[..cut]).is_err());
        }
        let evil = [0x30, 0x0c, 0x31, 0x0a, 0x30, 0x08, 6, 3, 0x55, 4, 3, 0x0c, 1, b'\n'];
        assert_eq!(to_text(&evil), "CN=?");
    }
}
