//! Delete payload (RFC 7296 section 3.11).

use crate::ike::error::ParseError;
use crate::ike::limits::MAX_DELETE_SPIS;
use crate::ike::reader::Reader;
use crate::numbers::ProtocolId;
use alloc::vec::Vec;

/// SAs the sender has deleted: the IKE SA the message came over, or Child SAs by the sender's inbound SPIs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delete {
    /// The protocol of the SAs.
    pub protocol: ProtocolId,
    /// Octets per SPI: 0 for IKE, 4 for AH and ESP.
    pub spi_size: u8,
    /// How many SPIs there are.
    pub count: u16,
    /// The SPIs, `count` times `spi_size` octets.
    pub spis: Vec<u8>,
}

impl Delete {
    /// Deletes the IKE SA the message is sent over: no SPI.
    pub fn ike() -> Self {
        Delete { protocol: ProtocolId::IKE, spi_size: 0, count: 0, spis: Vec::new() }
    }

    /// Deletes Child SAs; SPIs past [`MAX_DELETE_SPIS`] are left out.
    pub fn children(protocol: ProtocolId, spis: &[u32]) -> Self {
        let spis = spis.get(..MAX_DELETE_SPIS).unwrap_or(spis);
        Delete {
            protocol,
            spi_size: 4,
            count: spis.len() as u16,
            spis: spis.iter().flat_map(|spi| spi.to_be_bytes()).collect(),
        }
    }

    /// Whether it deletes the IKE SA.
    pub fn is_ike(&self) -> bool {
        self.protocol == ProtocolId::IKE
    }

    /// The SPIs of AH and ESP SAs; nothing for any other protocol.
    pub fn child_spis(&self) -> impl Iterator<Item = u32> {
        let spis: &[u8] = if self.spi_size == 4 && !self.is_ike() { &self.spis } else { &[] };
        spis.as_chunks::<4>().0.iter().map(|spi| u32::from_be_bytes(*spi))
    }

    pub(crate) fn parse(r: &mut Reader<'_>) -> Result<Self, ParseError> {
        let protocol = ProtocolId(r.u8()?);
        let spi_size = r.u8()?;
        let count = r.u16()?;
        let size_fits = match protocol {
            // An IKE SA is named by the header. Some senders repeat its SPI, 8 octets, when they delete it.
            ProtocolId::IKE => matches!(spi_size, 0 | 8),
            ProtocolId::AH | ProtocolId::ESP => spi_size == 4,
            _ => true,
        };
        if !size_fits {
            return Err(r.syntax("SPI size does not fit the protocol"));
        }
        if usize::from(count) > MAX_DELETE_SPIS {
            return Err(r.too_many("SPIs", MAX_DELETE_SPIS));
        }
        if usize::from(count) * usize::from(spi_size) != r.len() {
            return Err(r.syntax("SPI count does not fit the length"));
        }
        Ok(Delete { protocol, spi_size, count, spis: r.rest().into() })
    }

    pub(crate) fn emit_into(&self, out: &mut Vec<u8>) {
        out.push(self.protocol.0);
        out.push(self.spi_size);
        out.extend_from_slice(&self.count.to_be_bytes());
        out.extend_from_slice(&self.spis);
    }
}
