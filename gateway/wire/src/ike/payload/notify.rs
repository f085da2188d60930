//! Notify payload (RFC 7296 section 3.10).

use crate::ike::error::ParseError;
use crate::ike::reader::Reader;
use crate::numbers::{HashId, NotifyType, ProtocolId};
use alloc::vec::Vec;
use core::net::IpAddr;

/// An error report or a status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notify {
    /// The protocol of the SA it is about; NONE where there is no SPI.
    pub protocol: ProtocolId,
    /// The type.
    pub kind: NotifyType,
    /// The SPI it is about, at most 255 octets; empty for the IKE SA itself.
    pub spi: Vec<u8>,
    /// Data whose meaning depends on the type.
    pub data: Vec<u8>,
}

impl Notify {
    /// A notification about nothing but the IKE SA or the message, without data.
    pub fn new(kind: NotifyType) -> Self {
        Self::with_data(kind, Vec::new())
    }

    /// The same with data.
    pub fn with_data(kind: NotifyType, data: Vec<u8>) -> Self {
        Notify { protocol: ProtocolId::NONE, kind, spi: Vec::new(), data }
    }

    /// A notification about one Child SA.
    pub fn about_child(kind: NotifyType, protocol: ProtocolId, spi: u32) -> Self {
        Notify { protocol, kind, spi: spi.to_be_bytes().into(), data: Vec::new() }
    }

    /// REKEY_SA: the SPI is the one the sender expects on inbound packets (RFC 7296 section 1.3.3).
    pub fn rekey_sa(protocol: ProtocolId, spi: u32) -> Self {
        Self::about_child(NotifyType::REKEY_SA, protocol, spi)
    }

    /// The Child SA it is about; `None` unless the protocol is AH or ESP and the SPI has exactly 4 octets.
    pub fn child_spi(&self) -> Option<(ProtocolId, u32)> {
        if self.protocol != ProtocolId::AH && self.protocol != ProtocolId::ESP {
            return None;
        }
        let spi: [u8; 4] = self.spi.as_slice().try_into().ok()?;
        Some((self.protocol, u32::from_be_bytes(spi)))
    }

    /// The data as one big-endian `u16`, for INVALID_KE_PAYLOAD and the like; `None` at any other length.
    pub fn data_u16(&self) -> Option<u16> {
        self.data.as_slice().try_into().ok().map(u16::from_be_bytes)
    }

    /// The data as one big-endian `u32`, for SET_WINDOW_SIZE, AUTH_LIFETIME; `None` at any other length.
    pub fn data_u32(&self) -> Option<u32> {
        self.data.as_slice().try_into().ok().map(u32::from_be_bytes)
    }

    /// The data as a list of big-endian `u16`, for SIGNATURE_HASH_ALGORITHMS; an odd last octet is left out.
    pub fn data_u16s(&self) -> impl Iterator<Item = u16> {
        self.data.as_chunks::<2>().0.iter().map(|pair| u16::from_be_bytes(*pair))
    }

    /// The data as one address, for ADDITIONAL_IP4_ADDRESS and ADDITIONAL_IP6_ADDRESS (RFC 4555 section 4.2);
    /// `None` unless it has 4 or 16 octets.
    pub fn data_address(&self) -> Option<IpAddr> {
        match self.data.len() {
            4 => <[u8; 4]>::try_from(self.data.as_slice()).ok().map(IpAddr::from),
            16 => <[u8; 16]>::try_from(self.data.as_slice()).ok().map(IpAddr::from),
            _ => None,
        }
    }

    /// SIGNATURE_HASH_ALGORITHMS (RFC 7427 section 4).
    pub fn hash_algorithms(hashes: &[HashId]) -> Self {
        let data = hashes.iter().flat_map(|h| h.0.to_be_bytes()).collect();
        Self::with_data(NotifyType::SIGNATURE_HASH_ALGORITHMS, data)
    }

    pub(crate) fn parse(r: &mut Reader<'_>) -> Result<Self, ParseError> {
        let protocol = ProtocolId(r.u8()?);
        let spi_size = r.u8()?;
        let kind = NotifyType(r.u16()?);
        if usize::from(spi_size) > r.len() {
            return Err(r.syntax("SPI size exceeds the payload"));
        }
        Ok(Notify { protocol, kind, spi: r.take(spi_size.into())?.into(), data: r.rest().into() })
    }

    pub(crate) fn emit_into(&self, out: &mut Vec<u8>) {
        let spi = self.spi.get(..255).unwrap_or(&self.spi);
        out.push(self.protocol.0);
        out.push(spi.len() as u8);
        out.extend_from_slice(&self.kind.0.to_be_bytes());
        out.extend_from_slice(spi);
        out.extend_from_slice(&self.data);
    }
}
