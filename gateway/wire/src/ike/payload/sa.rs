//! Security association payload: proposals, transforms, attributes (RFC 7296 section 3.3).

use crate::ike::error::ParseError;
use crate::ike::limits::{MAX_ATTRIBUTES, MAX_PROPOSALS, MAX_SUMMARY, MAX_TRANSFORMS};
use crate::ike::reader::Reader;
use crate::numbers::{AttributeType, EncrId, EsnId, IntegId, KeId, PrfId, ProtocolId, TransformType};
use alloc::vec::Vec;
use core::fmt;

/// What the sender offers, in order of preference, or the one proposal it chose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sa {
    /// The proposals; at least one.
    pub proposals: Vec<Proposal>,
}

/// One proposal: of each transform type it names, one transform is to be chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// Counted from 1 in an offer; repeated as is in the answer (RFC 7296 section 3.3.1).
    pub number: u8,
    /// The protocol of the SA.
    pub protocol: ProtocolId,
    /// The sender's inbound SPI: empty in the initial exchange, 8 octets for IKE rekeys, 4 for AH and ESP.
    pub spi: Vec<u8>,
    /// The transforms in order of preference within each type; unknown types are kept.
    pub transforms: Vec<Transform>,
    /// Reserved, as received.
    pub reserved: u8,
}

/// One algorithm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transform {
    /// What the algorithm is for.
    pub kind: TransformType,
    /// The algorithm: an [`EncrId`](crate::numbers::EncrId), [`PrfId`](crate::numbers::PrfId) and so on by `kind`.
    pub id: u16,
    /// Key length and attributes we do not know.
    pub attributes: Vec<Attribute>,
    /// The two reserved octets, as received.
    pub reserved: [u8; 2],
}

/// A transform attribute (RFC 7296 section 3.3.5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attribute {
    /// Short form: the value is two octets.
    Tv(AttributeType, u16),
    /// Long form: the value has its own length.
    Tlv(AttributeType, Vec<u8>),
}

impl Sa {
    /// An offer or a choice.
    pub fn new(proposals: Vec<Proposal>) -> Self {
        Sa { proposals }
    }

    pub(crate) fn parse(r: &mut Reader<'_>) -> Result<Self, ParseError> {
        let mut proposals = Vec::new();
        let mut room = MAX_TRANSFORMS;
        loop {
            if proposals.len() == MAX_PROPOSALS {
                return Err(r.too_many("proposals", MAX_PROPOSALS));
            }
            let (last, proposal) = Proposal::parse(r, &mut room)?;
            proposals.push(proposal);
            if last {
                break;
            }
        }
        r.finish("octets after the last proposal")?;
        Ok(Sa { proposals })
    }

    pub(crate) fn emit_into(&self, out: &mut Vec<u8>) {
        for (i, proposal) in self.proposals.iter().enumerate() {
            proposal.emit_into(i + 1 == self.proposals.len(), out);
        }
    }
}

impl Proposal {
    /// A proposal to send.
    pub fn new(number: u8, protocol: ProtocolId, spi: Vec<u8>, transforms: Vec<Transform>) -> Self {
        Proposal { number, protocol, spi, transforms, reserved: 0 }
    }

    /// The SPI of AH and ESP; `None` unless it has exactly 4 octets.
    pub fn child_spi(&self) -> Option<u32> {
        self.spi.as_slice().try_into().ok().map(u32::from_be_bytes)
    }

    /// The SPI of an IKE SA; `None` unless it has exactly 8 octets.
    pub fn ike_spi(&self) -> Option<crate::ike::Spi> {
        self.spi.as_slice().try_into().ok().map(crate::ike::Spi::from_bytes)
    }

    /// The transforms of one type, in order of preference.
    pub fn of_kind(&self, kind: TransformType) -> impl Iterator<Item = &Transform> {
        self.transforms.iter().filter(move |t| t.kind == kind)
    }

    fn parse(r: &mut Reader<'_>, room: &mut usize) -> Result<(bool, Self), ParseError> {
        let last = match r.u8()? {
            0 => true,
            2 => false,
            _ => return Err(r.syntax("proposal is neither last nor followed")),
        };
        let reserved = r.u8()?;
        let len = usize::from(r.u16()?).checked_sub(4).ok_or_else(|| r.syntax("proposal length below 4"))?;
        let mut r = r.sub(len)?;
        let number = r.u8()?;
        let protocol = ProtocolId(r.u8()?);
        let spi_size = r.u8()?;
        let count = r.u8()?;
        let spi = r.take(spi_size.into())?.into();
        *room = room.checked_sub(count.into()).ok_or_else(|| r.too_many("transforms", MAX_TRANSFORMS))?;
        let mut transforms = Vec::new();
        for left in (0..count).rev() {
            transforms.push(Transform::parse(&mut r, left == 0)?);
        }
        r.finish("transform count does not fit the length")?;
        Ok((last, Proposal { number, protocol, spi, transforms, reserved }))
    }

    fn emit_into(&self, last: bool, out: &mut Vec<u8>) {
        let spi = self.spi.get(..255).unwrap_or(&self.spi);
        let transforms = self.transforms.get(..255).unwrap_or(&self.transforms);
        let start = out.len();
        out.extend_from_slice(&[if last { 0 } else { 2 }, self.reserved, 0, 0]);
        out.extend_from_slice(&[self.number, self.protocol.0, spi.len() as u8, transforms.len() as u8]);
        out.extend_from_slice(spi);
        for (i, transform) in transforms.iter().enumerate() {
            transform.emit_into(i + 1 == transforms.len(), out);
        }
        patch_len(out, start);
    }
}

impl Transform {
    /// An algorithm without attributes.
    pub fn new(kind: TransformType, id: impl Into<u16>) -> Self {
        Transform { kind, id: id.into(), attributes: Vec::new(), reserved: [0; 2] }
    }

    /// An algorithm with a key length in bits.
    pub fn with_key_bits(kind: TransformType, id: impl Into<u16>, bits: u16) -> Self {
        let attributes = alloc::vec![Attribute::Tv(AttributeType::KEY_LENGTH, bits)];
        Transform { kind, id: id.into(), attributes, reserved: [0; 2] }
    }

    /// The key length in bits, `None` where the transform has no such attribute.
    pub fn key_bits(&self) -> Option<u16> {
        self.attributes.iter().find_map(|a| match a {
            Attribute::Tv(AttributeType::KEY_LENGTH, bits) => Some(*bits),
            _ => None,
        })
    }

    /// Whether there is an attribute other than one key length: such a transform must not be chosen
    /// (RFC 7296 section 3.3.6).
    pub fn has_unknown_attribute(&self) -> bool {
        !matches!(self.attributes.as_slice(), [] | [Attribute::Tv(AttributeType::KEY_LENGTH, _)])
    }

    fn parse(r: &mut Reader<'_>, last: bool) -> Result<Self, ParseError> {
        if r.u8()? != if last { 0 } else { 3 } {
            return Err(r.syntax("transform count and last-transform mark differ"));
        }
        let first = r.u8()?;
        let len = usize::from(r.u16()?).checked_sub(4).ok_or_else(|| r.syntax("transform length below 4"))?;
        let mut r = r.sub(len)?;
        let kind = TransformType(r.u8()?);
        let second = r.u8()?;
        let id = r.u16()?;
        let mut attributes = Vec::new();
        while !r.is_empty() {
            if attributes.len() == MAX_ATTRIBUTES {
                return Err(r.too_many("attributes", MAX_ATTRIBUTES));
            }
            attributes.push(Attribute::parse(&mut r)?);
        }
        Ok(Transform { kind, id, attributes, reserved: [first, second] })
    }

    fn emit_into(&self, last: bool, out: &mut Vec<u8>) {
        let start = out.len();
        let [first, second] = self.reserved;
        out.extend_from_slice(&[if last { 0 } else { 3 }, first, 0, 0, self.kind.0, second]);
        out.extend_from_slice(&self.id.to_be_bytes());
        self.attributes.iter().for_each(|a| a.emit_into(out));
        patch_len(out, start);
    }
}

impl fmt::Display for Transform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.kind {
            TransformType::ENCR => EncrId(self.id).name(),
            TransformType::PRF => PrfId(self.id).name(),
            TransformType::INTEG => IntegId(self.id).name(),
            TransformType::KE => KeId(self.id).name(),
            TransformType::SN => EsnId(self.id).name(),
            TransformType(6..=12) => KeId(self.id).name(),
            _ => None,
        };
        match name {
            Some(name) => f.write_str(name)?,
            None => write!(f, "{}({})", self.kind, self.id)?,
        }
        match self.key_bits() {
            Some(bits) => write!(f, "_{bits}"),
            None => Ok(()),
        }
    }
}

/// One line, bounded: `2 ESP ENCR_AES_CBC_128/AUTH_HMAC_SHA2_256_128`.
impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.number, self.protocol)?;
        for (i, transform) in self.transforms.iter().take(MAX_SUMMARY).enumerate() {
            write!(f, "{}{transform}", if i == 0 { ' ' } else { '/' })?;
        }
        match self.transforms.len().checked_sub(MAX_SUMMARY) {
            Some(more @ 1..) => write!(f, "/… {more} more"),
            _ => Ok(()),
        }
    }
}

impl Attribute {
    const SHORT: u16 = 0x8000;

    fn parse(r: &mut Reader<'_>) -> Result<Self, ParseError> {
        let word = r.u16()?;
        let second = r.u16()?;
        let kind = AttributeType(word & !Self::SHORT);
        if word & Self::SHORT != 0 {
            return Ok(Attribute::Tv(kind, second));
        }
        Ok(Attribute::Tlv(kind, r.take(second.into())?.into()))
    }

    fn emit_into(&self, out: &mut Vec<u8>) {
        match self {
            Attribute::Tv(kind, value) => {
                out.extend_from_slice(&(kind.0 | Self::SHORT).to_be_bytes());
                out.extend_from_slice(&value.to_be_bytes());
            }
            Attribute::Tlv(kind, value) => {
                let value = value.get(..0xffff).unwrap_or(value);
                out.extend_from_slice(&(kind.0 & !Self::SHORT).to_be_bytes());
                out.extend_from_slice(&(value.len() as u16).to_be_bytes());
                out.extend_from_slice(value);
            }
        }
    }
}

/// Writes the length of the substructure that began at `start` into its octets 2 and 3. A structure past 65535
/// octets saturates: the payload around it is then too long as well, which is where it is reported.
fn patch_len(out: &mut [u8], start: usize) {
    let len = u16::try_from(out.len() - start).unwrap_or(u16::MAX);
    if let Some(field) = out.get_mut(start + 2..start + 4) {
        field.copy_from_slice(&len.to_be_bytes());
    }
}
