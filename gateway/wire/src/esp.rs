//! ESP header and trailer (RFC 4303 section 2). IV and ICV lie between and after; their lengths are the algorithm's.

use core::fmt;

/// Octets of SPI and sequence number.
pub const HEADER_LEN: usize = 8;
/// Octets of pad length and next header.
pub const TRAILER_LEN: usize = 2;
/// Next header of dummy packets, to be dropped after the ICV has verified (RFC 4303 section 2.6).
pub const NO_NEXT_HEADER: u8 = 59;

/// The security parameter index of an ESP or AH SA.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct EspSpi(pub u32);

impl EspSpi {
    /// Whether the value may not name an SA: 0 is local use, 1 to 255 are reserved (RFC 4303 section 2.1).
    pub const fn is_reserved(self) -> bool {
        self.0 < 256
    }
}

impl fmt::Display for EspSpi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

impl fmt::Debug for EspSpi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The clear part of an ESP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EspHeader {
    /// Which SA.
    pub spi: EspSpi,
    /// Low 32 bits of the sequence number.
    pub seq: u32,
}

impl EspHeader {
    /// Reads the first 8 octets of an ESP packet; `None` when there are fewer.
    pub fn peek(packet: &[u8]) -> Option<EspHeader> {
        let ([a, b, c, d, e, f, g, h], _) = packet.split_first_chunk::<HEADER_LEN>()?;
        let spi = EspSpi(u32::from_be_bytes([*a, *b, *c, *d]));
        Some(EspHeader { spi, seq: u32::from_be_bytes([*e, *f, *g, *h]) })
    }

    /// The 8 octets.
    pub const fn emit(&self) -> [u8; HEADER_LEN] {
        let [a, b, c, d] = self.spi.0.to_be_bytes();
        let [e, f, g, h] = self.seq.to_be_bytes();
        [a, b, c, d, e, f, g, h]
    }
}

/// What the end of an opened packet says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trailer {
    /// Octets before the padding: payload data, with TFC padding if the sender added any.
    pub payload_len: usize,
    /// Octets of padding.
    pub pad_len: u8,
    /// What the payload is: 4 or 41 for a tunnelled packet, a protocol in transport mode, 59 for a dummy.
    pub next_header: u8,
}

/// Why the end of an opened packet makes no sense although its ICV was right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrailerError {
    /// No room for pad length and next header.
    Truncated,
    /// More padding than there are octets.
    PadLength,
    /// Padding that does not count 1, 2, 3.
    Padding,
}

impl fmt::Display for TrailerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TrailerError::Truncated => "no room for an ESP trailer",
            TrailerError::PadLength => "ESP pad length exceeds the packet",
            TrailerError::Padding => "ESP padding does not count up from 1",
        })
    }
}

impl core::error::Error for TrailerError {}

impl Trailer {
    /// Reads the trailer from the end of a decrypted packet (everything between IV and ICV).
    ///
    /// # Errors
    /// See [`TrailerError`]. RFC 4303 section 2.4 wants the padding looked at when it counts up, which it does in
    /// every algorithm in use.
    pub fn parse(plaintext: &[u8]) -> Result<Trailer, TrailerError> {
        let (before, [pad_len, next_header]) =
            plaintext.split_last_chunk::<TRAILER_LEN>().ok_or(TrailerError::Truncated)?;
        let payload_len = before.len().checked_sub((*pad_len).into()).ok_or(TrailerError::PadLength)?;
        let padding = before.get(payload_len..).unwrap_or_default();
        if !padding.iter().zip(1..=255u8).all(|(found, expected)| *found == expected) {
            return Err(TrailerError::Padding);
        }
        Ok(Trailer { payload_len, pad_len: *pad_len, next_header: *next_header })
    }
}

/// Octets of padding that bring `payload_len`, the padding and the two octets after it to a multiple of `align`:
/// the cipher's block, at least 4 (RFC 4303 section 2.4). Less than `align`; `align` above 256 counts as 256.
pub const fn pad_len(payload_len: usize, align: usize) -> u8 {
    let align = match align {
        0..=4 => 4,
        5..=256 => align,
        _ => 256,
    };
    let over = (payload_len % align + TRAILER_LEN) % align;
    ((align - over) % align) as u8
}

/// Writes padding, pad length and next header into `out`, which holds exactly the trailer: 2 to 257 octets. Returns
/// whether the length was one of these; nothing is written otherwise.
pub fn emit_trailer(out: &mut [u8], next_header: u8) -> bool {
    let Some((padding, end)) = out.split_last_chunk_mut::<TRAILER_LEN>() else { return false };
    let Ok(pad_len) = u8::try_from(padding.len()) else { return false };
    padding.iter_mut().zip(1..=255u8).for_each(|(octet, n)| *octet = n);
    *end = [pad_len, next_header];
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_is_read_and_written_alike() {
        let header = EspHeader { spi: EspSpi(0x0102_0304), seq: 0x0506_0708 };
        assert_eq!(header.emit(), [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(EspHeader::peek(&[1, 2, 3, 4, 5, 6, 7, 8, 9]), Some(header));
        assert_eq!(EspHeader::peek(&[1, 2, 3, 4, 5, 6, 7]), None);
    }

    #[test]
    fn padding_aligns_every_length_and_is_least() {
        for align in [1, 4, 8, 16, 256] {
            for len in 0..600 {
                let pad = usize::from(pad_len(len, align));
                assert_eq!((len + pad + 2) % align.max(4), 0);
                assert!(pad < align.max(4));
            }
        }
    }

    #[test]
    fn trailer_is_read_and_written_alike_at_every_length() {
        let mut packet = [0xaau8; 8 + 257];
        for len in 2..=257 {
            assert!(emit_trailer(&mut packet[8..8 + len], 41));
            let found = Trailer::parse(&packet[..8 + len]).unwrap();
            assert_eq!(found, Trailer { payload_len: 8, pad_len: (len - 2) as u8, next_header: 41 });
        }
        assert!(!emit_trailer(&mut packet[..1], 41));
        assert!(!emit_trailer(&mut packet[..258], 41));
    }

    #[test]
    fn trailer_that_contradicts_its_packet_is_refused() {
        assert_eq!(Trailer::parse(&[4]), Err(TrailerError::Truncated));
        assert_eq!(Trailer::parse(&[1, 2, 4]), Err(TrailerError::PadLength));
        assert_eq!(Trailer::parse(&[9, 1, 3, 2, 4]), Err(TrailerError::Padding));
        assert_eq!(Trailer::parse(&[0, 59]).unwrap().payload_len, 0);
    }
}
