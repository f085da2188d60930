//! Traffic selector payload (RFC 7296 section 3.13).

use crate::ike::error::ParseError;
use crate::ike::reader::Reader;
use crate::numbers::TsType;
use crate::ts::TrafficSelector;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// One side's traffic selectors. At most 255 are emitted, all the count octet can say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TsPayload {
    /// Reserved, as received.
    pub reserved: [u8; 3],
    /// The selectors in order; the first may be the packet that asked (RFC 7296 section 2.9).
    pub entries: Vec<TsEntry>,
}

/// One selector substructure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TsEntry {
    /// An IPv4 or IPv6 range.
    Ip(TrafficSelector),
    /// Another type, such as a security label (RFC 9478), verbatim from the octet after the type on, the two
    /// length octets left out.
    Other {
        /// The type.
        kind: TsType,
        /// The octet after the type: a protocol for ranges, reserved for labels.
        second: u8,
        /// What follows the length.
        data: Vec<u8>,
    },
}

impl TsPayload {
    /// A payload of address ranges to send.
    pub fn new(selectors: impl IntoIterator<Item = TrafficSelector>) -> Self {
        TsPayload { reserved: [0; 3], entries: selectors.into_iter().map(TsEntry::Ip).collect() }
    }

    /// The address ranges, in order.
    pub fn selectors(&self) -> impl Iterator<Item = &TrafficSelector> {
        self.entries.iter().filter_map(|e| match e {
            TsEntry::Ip(ts) => Some(ts),
            TsEntry::Other { .. } => None,
        })
    }

    pub(crate) fn parse(r: &mut Reader<'_>) -> Result<Self, ParseError> {
        let count = r.u8()?;
        let reserved = r.array()?;
        let mut entries = Vec::new();
        for _ in 0..count {
            entries.push(TsEntry::parse(r)?);
        }
        r.finish("selector count does not fit the length")?;
        Ok(TsPayload { reserved, entries })
    }

    pub(crate) fn emit_into(&self, out: &mut Vec<u8>) {
        let entries = self.entries.get(..255).unwrap_or(&self.entries);
        out.push(entries.len() as u8);
        out.extend_from_slice(&self.reserved);
        entries.iter().for_each(|e| e.emit_into(out));
    }
}

impl TsEntry {
    fn parse(r: &mut Reader<'_>) -> Result<Self, ParseError> {
        let kind = TsType(r.u8()?);
        let second = r.u8()?;
        let len = usize::from(r.u16()?);
        // The length is fixed by the type: believing another one is how address octets get read from beyond.
        let fits = match kind {
            TsType::IPV4_ADDR_RANGE => len == 16,
            TsType::IPV6_ADDR_RANGE => len == 40,
            _ => len >= 4,
        };
        if !fits {
            return Err(r.syntax("selector length does not fit its type"));
        }
        let mut r = r.sub(len - 4)?;
        let entry = match kind {
            TsType::IPV4_ADDR_RANGE => TsEntry::Ip(TrafficSelector {
                protocol: second,
                start_port: r.u16()?,
                end_port: r.u16()?,
                start: IpAddr::V4(Ipv4Addr::from(r.array::<4>()?)),
                end: IpAddr::V4(Ipv4Addr::from(r.array::<4>()?)),
            }),
            TsType::IPV6_ADDR_RANGE => TsEntry::Ip(TrafficSelector {
                protocol: second,
                start_port: r.u16()?,
                end_port: r.u16()?,
                start: IpAddr::V6(Ipv6Addr::from(r.array::<16>()?)),
                end: IpAddr::V6(Ipv6Addr::from(r.array::<16>()?)),
            }),
            kind => TsEntry::Other { kind, second, data: r.rest().into() },
        };
        Ok(entry)
    }

    fn emit_into(&self, out: &mut Vec<u8>) {
        match self {
            TsEntry::Ip(ts) => {
                let (kind, len) = match ts.start {
                    IpAddr::V4(_) => (TsType::IPV4_ADDR_RANGE, 16u16),
                    IpAddr::V6(_) => (TsType::IPV6_ADDR_RANGE, 40),
                };
                out.push(kind.0);
                out.push(ts.protocol);
                out.extend_from_slice(&len.to_be_bytes());
                out.extend_from_slice(&ts.start_port.to_be_bytes());
                out.extend_from_slice(&ts.end_port.to_be_bytes());
                emit_address(ts.start, ts.start, out);
                emit_address(ts.start, ts.end, out);
            }
            TsEntry::Other { kind, second, data } => {
                let data = data.get(..0xffff - 4).unwrap_or(data);
                out.push(kind.0);
                out.push(*second);
                out.extend_from_slice(&(data.len() as u16 + 4).to_be_bytes());
                out.extend_from_slice(data);
            }
        }
    }
}

/// Appends `address` in the family of `family`; a selector whose ends are of two families holds nothing, and its
/// end goes out as the unspecified address of the first family.
fn emit_address(family: IpAddr, address: IpAddr, out: &mut Vec<u8>) {
    match (family, address) {
        (IpAddr::V4(_), IpAddr::V4(a)) => out.extend_from_slice(&a.octets()),
        (IpAddr::V4(_), IpAddr::V6(_)) => out.extend_from_slice(&[0; 4]),
        (IpAddr::V6(_), IpAddr::V6(a)) => out.extend_from_slice(&a.octets()),
        (IpAddr::V6(_), IpAddr::V4(_)) => out.extend_from_slice(&[0; 16]),
    }
}
