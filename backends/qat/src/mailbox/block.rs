//! Tables of the physical function: read octet by octet, each in a message of its own, with a checksum at the end.

use crate::pci::PciError;

/// Request for an octet, or for the checksum, of a table of at most 32 octets; and the answer to it.
pub(super) const SMALL_REQUEST: u8 = 9;
pub(super) const RESPONSE: u8 = 3;

/// Longest table of that kind, its two octets of header included.
const LONGEST: usize = 32;
const WANT_CHECKSUM: u32 = 1 << 9;

/// Kinds of answer.
const OCTET: u32 = 0;
const CHECKSUM: u32 = 1;

/// A table: version, length, and so many octets.
pub(super) struct Block(Vec<u8>);

impl Block {
    /// Reads it; `ask` sends the data of a request and gives that of the answer.
    pub(super) fn read(
        kind: u8,
        mut ask: impl FnMut(u32) -> Result<u32, PciError>,
    ) -> Result<Block, PciError> {
        let mut get = |at: usize, extra: u32, wanted: u32| {
            let answer = ask(u32::from(kind) | (at as u32) << 4 | extra)?;
            match answer & 3 {
                got if got == wanted => Ok((answer >> 2) as u8),
                _ => Err(PciError::Protocol(format!(
                    "table {kind} of the physical function cannot be read: error {}",
                    answer >> 2 & 0xff
                ))),
            }
        };
        let mut octets = vec![get(0, 0, OCTET)?, get(1, 0, OCTET)?];
        let len = usize::from(octets[1]) + 2;
        if octets[0] == 0 || len == 2 || len > LONGEST {
            return Err(PciError::Protocol(format!(
                "table {kind} has version {} and length {}",
                octets[0],
                len - 2
            )));
        }
        for at in 2..len {
            octets.push(get(at, 0, OCTET)?);
        }
        let (theirs, ours) = (get(len - 1, WANT_CHECKSUM, CHECKSUM)?, crc8(&octets));
        if theirs != ours {
            return Err(PciError::Protocol(format!(
                "table {kind} of the physical function arrives damaged: checksum {theirs:#04x} instead of {ours:#04x}"
            )));
        }
        Ok(Block(octets))
    }

    /// The capability mask: the second word, from version 2 on.
    pub(super) fn caps(&self) -> Result<u32, PciError> {
        match self.0.get(6..10).and_then(|word| <[u8; 4]>::try_from(word).ok()) {
            Some(word) if self.0[0] >= 2 => Ok(u32::from_le_bytes(word)),
            _ => Err(PciError::Unusable(
                "the host's driver of the physical function does not say what the device can do: update the host's kernel"
                    .into(),
            )),
        }
    }

    /// The map of ring pairs.
    pub(super) fn map(&self) -> Result<u16, PciError> {
        let word = self.0.get(2..4).and_then(|word| <[u8; 2]>::try_from(word).ok());
        word.map(u16::from_le_bytes)
            .ok_or_else(|| PciError::Protocol("the map of ring pairs is too short".into()))
    }
}

/// Polynomial 0x97, highest bit first, beginning with all ones.
pub(super) fn crc8(octets: &[u8]) -> u8 {
    octets.iter().fold(0xff, |crc, octet| {
        (0..8).fold(crc ^ octet, |crc, _| if crc & 0x80 != 0 { crc << 1 ^ 0x97 } else { crc << 1 })
    })
}
