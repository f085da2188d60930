//! Packets (RFC 2865 section 3) and what proves them: the two authenticators of each direction.
//!
//! RADIUS proves a reply by MD5 over it and the shared secret, which somebody on the path can forge where attributes of
//! their choice are echoed (CVE-2024-3596, "Blast-RADIUS"). Message-Authenticator (RFC 3579 section 3.2), an HMAC, is not to
//! be forged that way. So whatever says yes or no carries one, in both directions, and we put ours first.

use hmac::{Hmac, KeyInit, Mac};
use md5::{Digest, Md5};
use spi::Secret;
use subtle::ConstantTimeEq;

use crate::attribute::{Attributes, Kind, Written};

/// Longest packet, octets (RFC 2865 section 3).
pub const MAX_PACKET: usize = 4096;
/// Octets before the attributes.
const HEADER: usize = 20;
/// Octets of a Message-Authenticator with its head.
const SIGNATURE: usize = 18;

/// What a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Code(pub u8);

impl Code {
    /// May this one come in?
    pub const ACCESS_REQUEST: Code = Code(1);
    /// Yes.
    pub const ACCESS_ACCEPT: Code = Code(2);
    /// No.
    pub const ACCESS_REJECT: Code = Code(3);
    /// This came, went on, or ended.
    pub const ACCOUNTING_REQUEST: Code = Code(4);
    /// Written down.
    pub const ACCOUNTING_RESPONSE: Code = Code(5);
    /// Say more.
    pub const ACCESS_CHALLENGE: Code = Code(11);
    /// Are you there? (RFC 5997)
    pub const STATUS_SERVER: Code = Code(12);
    /// Send that one away (RFC 5176).
    pub const DISCONNECT_REQUEST: Code = Code(40);
    /// Done.
    pub const DISCONNECT_ACK: Code = Code(41);
    /// Not done.
    pub const DISCONNECT_NAK: Code = Code(42);
    /// Change what that one may.
    pub const COA_REQUEST: Code = Code(43);
    /// Done.
    pub const COA_ACK: Code = Code(44);
    /// Not done.
    pub const COA_NAK: Code = Code(45);
}

/// Octets that are no packet; they are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PacketError {
    /// Fewer octets than a header has, or than the length says.
    #[error("truncated")]
    Truncated,
    /// A length below 20 or above 4096.
    #[error("a length that cannot be")]
    Length,
    /// An attribute with a length below two, or that runs past the end.
    #[error("an attribute's length is wrong")]
    Attribute,
}

/// Why a packet is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unproven {
    /// It has no Message-Authenticator.
    #[error("no Message-Authenticator")]
    Missing,
    /// It has one that is wrong, or more than one.
    #[error("wrong Message-Authenticator")]
    Wrong,
    /// The authenticator of the header is wrong.
    #[error("wrong authenticator")]
    Authenticator,
}

/// A packet, borrowed. Nothing about it is proven yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// What it is.
    pub code: Code,
    /// Ties a reply to its request.
    pub identifier: u8,
    /// Request Authenticator or Response Authenticator.
    pub authenticator: [u8; 16],
    /// What it says.
    pub attributes: Attributes<'a>,
}

impl<'a> Packet<'a> {
    /// Reads one. Octets past its length are padding (RFC 2865 section 3).
    ///
    /// # Errors
    /// See [`PacketError`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, PacketError> {
        let (head, _) = bytes.split_first_chunk::<HEADER>().ok_or(PacketError::Truncated)?;
        let [code, identifier, high, low, authenticator @ ..] = head;
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        if !(HEADER..=MAX_PACKET).contains(&length) {
            return Err(PacketError::Length);
        }
        let attributes = bytes.get(HEADER..length).ok_or(PacketError::Truncated)?;
        let attributes = Attributes::parse(attributes)?;
        Ok(Packet { code: Code(*code), identifier: *identifier, authenticator: *authenticator, attributes })
    }

    /// Whether this is the reply of one who knows the secret to the request with that authenticator; `signed`: it must have
    /// a Message-Authenticator.
    ///
    /// # Errors
    /// It is not.
    pub fn prove_reply(&self, request: &[u8; 16], secret: &Secret, signed: bool) -> Result<(), Unproven> {
        self.prove_signature(request, secret, signed)?;
        self.prove_digest(request, secret)
    }

    /// Whether this is a request of one who knows the secret, of those whose authenticator is a digest of them: accounting
    /// (RFC 2866 section 3), Disconnect and CoA (RFC 5176 section 2.3).
    ///
    /// # Errors
    /// It is not.
    pub fn prove_request(&self, secret: &Secret, signed: bool) -> Result<(), Unproven> {
        self.prove_signature(&[0; 16], secret, signed)?;
        self.prove_digest(&[0; 16], secret)
    }

    /// The MD5 of RFC 2865 section 3, with `in_place` where the packet has its own authenticator.
    fn prove_digest(&self, in_place: &[u8; 16], secret: &Secret) -> Result<(), Unproven> {
        let mut hash = Md5::new();
        hash.update(self.head());
        hash.update(in_place);
        hash.update(self.attributes.as_bytes());
        hash.update(secret.expose());
        let right: bool = hash.finalize().as_slice().ct_eq(&self.authenticator).into();
        if right { Ok(()) } else { Err(Unproven::Authenticator) }
    }

    /// The HMAC of RFC 3579 section 3.2.
    fn prove_signature(&self, in_place: &[u8; 16], secret: &Secret, needed: bool) -> Result<(), Unproven> {
        let mut found = self.attributes.all(Kind::MESSAGE_AUTHENTICATOR);
        let given: [u8; 16] = match (found.next(), found.next()) {
            (None, _) if needed => return Err(Unproven::Missing),
            (None, _) => return Ok(()),
            (Some(one), None) => one.value.try_into().map_err(|_| Unproven::Wrong)?,
            (Some(_), Some(_)) => return Err(Unproven::Wrong),
        };
        let mut mac = keyed(secret);
        mac.update(&self.head());
        mac.update(in_place);
        for attribute in self.attributes.iter() {
            let length = (attribute.value.len() + 2) as u8;
            mac.update(&[attribute.kind.0, length]);
            match attribute.kind {
                Kind::MESSAGE_AUTHENTICATOR => mac.update(&[0; 16]),
                _ => mac.update(attribute.value),
            }
        }
        let right: bool = mac.finalize().into_bytes().as_slice().ct_eq(&given).into();
        if right { Ok(()) } else { Err(Unproven::Wrong) }
    }

    fn head(&self) -> [u8; 4] {
        let [high, low] = ((HEADER + self.attributes.as_bytes().len()) as u16).to_be_bytes();
        [self.code.0, self.identifier, high, low]
    }
}

/// A packet does not fit into 4096 octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a packet of {0} octets, of which there may be 4096")]
pub struct TooLarge(pub usize);

/// Whether attributes fit into a packet, with a Message-Authenticator before them.
///
/// # Errors
/// They do not.
pub fn fits(attributes: &Written) -> Result<(), TooLarge> {
    let length = HEADER + SIGNATURE + attributes.len();
    if length <= MAX_PACKET { Ok(()) } else { Err(TooLarge(length)) }
}

/// An Access-Request or a Status-Server: `authenticator` is random, a Message-Authenticator comes first.
///
/// # Errors
/// The attributes do not fit.
pub fn access_request(
    code: Code,
    identifier: u8,
    authenticator: [u8; 16],
    attributes: &Written,
    secret: &Secret,
) -> Result<Vec<u8>, TooLarge> {
    let mut packet = lay_out(code, identifier, authenticator, attributes, true)?;
    sign(&mut packet, secret);
    Ok(packet)
}

/// A request whose authenticator is a digest of it: accounting, which has no Message-Authenticator (RFC 2869 section 5.19),
/// and, `signed`, those of RFC 5176.
///
/// # Errors
/// The attributes do not fit.
pub fn digested_request(
    code: Code,
    identifier: u8,
    attributes: &Written,
    secret: &Secret,
    signed: bool,
) -> Result<Vec<u8>, TooLarge> {
    let mut packet = lay_out(code, identifier, [0; 16], attributes, signed)?;
    if signed {
        sign(&mut packet, secret);
    }
    digest(&mut packet, secret);
    Ok(packet)
}

/// The reply to the request with that identifier and authenticator, a Message-Authenticator first.
///
/// # Errors
/// The attributes do not fit.
pub fn reply(
    code: Code,
    identifier: u8,
    request: [u8; 16],
    attributes: &Written,
    secret: &Secret,
) -> Result<Vec<u8>, TooLarge> {
    let mut packet = lay_out(code, identifier, request, attributes, true)?;
    sign(&mut packet, secret);
    digest(&mut packet, secret);
    Ok(packet)
}

fn lay_out(
    code: Code,
    identifier: u8,
    authenticator: [u8; 16],
    attributes: &Written,
    signed: bool,
) -> Result<Vec<u8>, TooLarge> {
    fits(attributes)?;
    let signature = if signed { SIGNATURE } else { 0 };
    let length = HEADER + signature + attributes.len();
    let mut packet = Vec::with_capacity(length);
    packet.extend_from_slice(&[code.0, identifier]);
    packet.extend_from_slice(&(length as u16).to_be_bytes());
    packet.extend_from_slice(&authenticator);
    if signed {
        packet.extend_from_slice(&[Kind::MESSAGE_AUTHENTICATOR.0, SIGNATURE as u8]);
        packet.extend_from_slice(&[0; 16]);
    }
    packet.extend_from_slice(attributes.read().as_bytes());
    Ok(packet)
}

/// Fills in the Message-Authenticator that stands first.
fn sign(packet: &mut [u8], secret: &Secret) {
    let mac = keyed(secret).chain_update(&*packet).finalize().into_bytes();
    packet[HEADER + 2..HEADER + SIGNATURE].copy_from_slice(&mac);
}

/// Fills in the header's authenticator; what stands there takes part.
fn digest(packet: &mut [u8], secret: &Secret) {
    let hash = Md5::new().chain_update(&*packet).chain_update(secret.expose()).finalize();
    packet[4..HEADER].copy_from_slice(&hash);
}

fn keyed(secret: &Secret) -> Hmac<Md5> {
    <Hmac<Md5> as KeyInit>::new_from_slice(secret.expose()).expect("HMAC takes keys of any length")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        let text: String = text.split_whitespace().collect();
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    }

    /// RFC 2865 section 7.1: a user logs in by telnet.
    const REQUEST: &str = "01 00 00 38 0f 40 3f 94 73 97 80 57 bd 83 d5 cb
        98 f4 22 7a 01 06 6e 65 6d 6f 02 12 0d be 70 8d
        93 d4 13 ce 31 96 e4 3f 78 2a 0a ee 04 06 c0 a8
        01 10 05 06 00 00 00 03";
    const ACCEPT: &str = "02 00 00 26 86 fe 22 0e 76 24 ba 2a 10 05 f6 bf
        9b 55 e0 b2 06 06 00 00 00 01 0f 06 00 00 00 00
        0e 06 c0 a8 01 03";

    fn secret() -> Secret {
        Secret::from_slice(b"xyzzy5461")
    }

    #[test]
    fn the_example_of_rfc_2865_section_7_1_is_read_and_proven() {
        let (request, accept) = (hex(REQUEST), hex(ACCEPT));
        let request = Packet::parse(&request).unwrap();
        assert_eq!((request.code, request.identifier), (Code::ACCESS_REQUEST, 0));
        assert_eq!(request.attributes.first(Kind::USER_NAME).unwrap().value, b"nemo");
        assert_eq!(
            request.attributes.first(Kind::NAS_IP_ADDRESS).unwrap().address(),
            Some("192.168.1.16".parse().unwrap())
        );
        assert_eq!(request.attributes.first(Kind::NAS_PORT).unwrap().number(), Some(3));
        let accept = Packet::parse(&accept).unwrap();
        assert_eq!(accept.code, Code::ACCESS_ACCEPT);
        assert_eq!(accept.prove_reply(&request.authenticator, &secret(), false), Ok(()));
        // As good as that was in 2000: it is not believed by us.
        assert_eq!(accept.prove_reply(&request.authenticator, &secret(), true), Err(Unproven::Missing));
        assert_eq!(accept.prove_reply(&[0; 16], &secret(), false), Err(Unproven::Authenticator));
        let other = Secret::from_slice(b"xyzzy5462");
        assert_eq!(accept.prove_reply(&request.authenticator, &other, false), Err(Unproven::Authenticator));
    }

    /// RFC 2865 section 7.2: with CHAP, and a longer answer.
    #[test]
    fn the_example_of_rfc_2865_section_7_2_is_read_and_proven() {
        let request = hex("01 01 00 47 2a ee 86 f0 8d 0d 55 96 9c a5 97 8e
            0d 33 67 a2 01 08 66 6c 6f 70 73 79 03 13 16 e9
            75 57 c3 16 18 58 95 f2 93 ff 63 44 07 72 75 04
            06 c0 a8 01 10 05 06 00 00 00 14 06 06 00 00 00
            02 07 06 00 00 00 01");
        let accept = hex("02 01 00 38 15 ef bc 7d ab 26 cf a3 dc 34 d9 c0
            3c 86 01 a4 06 06 00 00 00 02 07 06 00 00 00 01
            08 06 ff ff ff fe 0a 06 00 00 00 02 0d 06 00 00
            00 01 0c 06 00 00 05 dc");
        let request = Packet::parse(&request).unwrap();
        let accept = Packet::parse(&accept).unwrap();
        assert_eq!(request.attributes.first(Kind::SERVICE_TYPE).unwrap().number(), Some(2));
        assert_eq!(accept.attributes.first(Kind::FRAMED_MTU).unwrap().number(), Some(1500));
        assert_eq!(accept.prove_reply(&request.authenticator, &secret(), false), Ok(()));
    }

    #[test]
    fn what_we_write_is_proven_by_the_other_side_and_no_octet_may_change() {
        let mut attributes = Written::new();
        attributes.text(Kind::USER_NAME, "alice");
        attributes.eap(&[1, 2, 0, 4]);
        let authenticator = [7; 16];
        let packet = reply(Code::ACCESS_CHALLENGE, 9, authenticator, &attributes, &secret()).unwrap();
        assert_eq!(packet[20..22], [80, 18], "the Message-Authenticator is first");
        let read = Packet::parse(&packet).unwrap();
        assert_eq!(read.prove_reply(&authenticator, &secret(), true), Ok(()));
        for at in 0..packet.len() {
            let mut packet = packet.clone();
            packet[at] ^= 1;
            let believed =
                Packet::parse(&packet).is_ok_and(|p| p.prove_reply(&authenticator, &secret(), true).is_ok());
            assert!(!believed, "octet {at}");
        }
    }

    #[test]
    fn two_signatures_are_none() {
        let mut attributes = Written::new();
        attributes.push(Kind::MESSAGE_AUTHENTICATOR, &[0; 16]).unwrap();
        let packet = digested_request(Code::COA_REQUEST, 9, &attributes, &secret(), true).unwrap();
        assert_eq!(Packet::parse(&packet).unwrap().prove_request(&secret(), false), Err(Unproven::Wrong));
    }

    #[test]
    fn requests_with_a_digest_are_proven() {
        let mut attributes = Written::new();
        attributes.text(Kind::ACCT_SESSION_ID, "a1");
        for signed in [false, true] {
            let packet =
                digested_request(Code::ACCOUNTING_REQUEST, 9, &attributes, &secret(), signed).unwrap();
            let read = Packet::parse(&packet).unwrap();
            assert_eq!(read.prove_request(&secret(), false), Ok(()));
            assert_eq!(read.prove_request(&secret(), true).is_ok(), signed);
            assert!(read.prove_request(&Secret::from_slice(b"other"), false).is_err());
        }
    }

    #[test]
    fn lengths_that_lie_are_refused() {
        let packet = hex(ACCEPT);
        for short in 0..packet.len() {
            assert_eq!(Packet::parse(&packet[..short]), Err(PacketError::Truncated), "{short}");
        }
        for length in [0u16, 19, 4097, 65535] {
            let mut packet = packet.clone();
            packet[2..4].copy_from_slice(&length.to_be_bytes());
            packet.resize(70_000, 0);
            assert_eq!(Packet::parse(&packet), Err(PacketError::Length), "{length}");
        }
        let mut padded = packet.clone();
        padded.extend_from_slice(b"padding");
        assert_eq!(Packet::parse(&padded), Packet::parse(&packet));
    }

    #[test]
    fn what_does_not_fit_is_not_written() {
        let mut attributes = Written::new();
        attributes.eap(&[0; 4100]);
        assert!(access_request(Code::ACCESS_REQUEST, 0, [0; 16], &attributes, &secret()).is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_octets_upset_the_parser(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            if let Ok(packet) = Packet::parse(&bytes) {
                let _ = packet.prove_reply(&[0; 16], &secret(), true);
                let _ = packet.attributes.vendor(crate::attribute::MICROSOFT, 16).count();
                let _ = packet.attributes.eap();
            }
        }
    }
}
