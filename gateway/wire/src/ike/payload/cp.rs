//! Configuration payload (RFC 7296 section 3.15).

use crate::ike::error::ParseError;
use crate::ike::limits::MAX_CFG_ATTRIBUTES;
use crate::ike::reader::Reader;
use crate::numbers::{CfgAttrType, CfgType};
use alloc::vec::Vec;
use core::net::{Ipv4Addr, Ipv6Addr};

/// Configuration asked for or handed out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cp {
    /// Request, reply, set or acknowledge.
    pub kind: CfgType,
    /// Reserved, as received.
    pub reserved: [u8; 3],
    /// The attributes in order; a type may occur more than once.
    pub attributes: Vec<CfgAttr>,
}

/// One configuration attribute; an empty value in a request asks for any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CfgAttr {
    /// What is configured, 15 bits.
    pub kind: CfgAttrType,
    /// The reserved top bit, as received.
    pub reserved: bool,
    /// The value.
    pub value: Vec<u8>,
}

impl Cp {
    /// A payload to send.
    pub fn new(kind: CfgType, attributes: Vec<CfgAttr>) -> Self {
        Cp { kind, reserved: [0; 3], attributes }
    }

    /// The attributes of one type, in order.
    pub fn all(&self, kind: CfgAttrType) -> impl Iterator<Item = &CfgAttr> {
        self.attributes.iter().filter(move |a| a.kind == kind)
    }

    pub(crate) fn parse(r: &mut Reader<'_>) -> Result<Self, ParseError> {
        let kind = CfgType(r.u8()?);
        let reserved = r.array()?;
        let mut attributes = Vec::new();
        while !r.is_empty() {
            if attributes.len() == MAX_CFG_ATTRIBUTES {
                return Err(r.too_many("configuration attributes", MAX_CFG_ATTRIBUTES));
            }
            let word = r.u16()?;
            let len = r.u16()?;
            let value = r.take(len.into())?.into();
            attributes.push(CfgAttr {
                kind: CfgAttrType(word & 0x7fff),
                reserved: word & 0x8000 != 0,
                value,
            });
        }
        Ok(Cp { kind, reserved, attributes })
    }

    pub(crate) fn emit_into(&self, out: &mut Vec<u8>) {
        out.push(self.kind.0);
        out.extend_from_slice(&self.reserved);
        for a in &self.attributes {
            let value = a.value.get(..0xffff).unwrap_or(&a.value);
            out.extend_from_slice(&(a.kind.0 & 0x7fff | u16::from(a.reserved) << 15).to_be_bytes());
            out.extend_from_slice(&(value.len() as u16).to_be_bytes());
            out.extend_from_slice(value);
        }
    }
}

impl CfgAttr {
    /// An attribute with a value.
    pub fn new(kind: CfgAttrType, value: Vec<u8>) -> Self {
        CfgAttr { kind, reserved: false, value }
    }

    /// An attribute that asks for any value.
    pub fn any(kind: CfgAttrType) -> Self {
        Self::new(kind, Vec::new())
    }

    /// An IPv4 address: INTERNAL_IP4_ADDRESS, _NETMASK, _DNS and the like.
    pub fn from_ipv4(kind: CfgAttrType, address: Ipv4Addr) -> Self {
        Self::new(kind, address.octets().into())
    }

    /// An IPv6 address, with its prefix length where the type has one (INTERNAL_IP6_ADDRESS, INTERNAL_IP6_SUBNET).
    pub fn from_ipv6(kind: CfgAttrType, address: Ipv6Addr, prefix_len: Option<u8>) -> Self {
        Self::new(kind, address.octets().into_iter().chain(prefix_len).collect())
    }

    /// INTERNAL_IP4_SUBNET; a prefix length past 32 counts as 32.
    pub fn from_ipv4_subnet(address: Ipv4Addr, prefix_len: u8) -> Self {
        let mask = !u32::MAX.checked_shr(prefix_len.into()).unwrap_or(0);
        let value = [address.octets(), mask.to_be_bytes()].concat();
        Self::new(CfgAttrType::INTERNAL_IP4_SUBNET, value)
    }

    /// The value as an IPv4 address; `None` unless it has exactly 4 octets.
    pub fn ipv4(&self) -> Option<Ipv4Addr> {
        <[u8; 4]>::try_from(self.value.as_slice()).ok().map(Ipv4Addr::from)
    }

    /// The value as an IPv6 address and, with 17 octets, a prefix length of at most 128 (RFC 7296 section 3.15.1);
    /// `None` at any other length.
    pub fn ipv6(&self) -> Option<(Ipv6Addr, Option<u8>)> {
        let (address, rest) = self.value.split_first_chunk::<16>()?;
        match rest {
            [] => Some(((*address).into(), None)),
            [len @ 0..=128] => Some(((*address).into(), Some(*len))),
            _ => None,
        }
    }

    /// The value as INTERNAL_IP4_SUBNET: address and netmask; `None` unless it has exactly 8 octets.
    pub fn ipv4_subnet(&self) -> Option<(Ipv4Addr, Ipv4Addr)> {
        match self.value.as_chunks::<4>() {
            ([address, mask], []) => Some(((*address).into(), (*mask).into())),
            _ => None,
        }
    }
}
