//! The fixed IKE header (RFC 7296 section 3.1).

use super::error::{ErrorKind, ParseError};
use crate::numbers::{ExchangeType, PayloadType};
use alloc::vec::Vec;
use core::fmt;

/// Octets of the fixed header.
pub const HEADER_LEN: usize = 28;

/// The security parameter index of one side of an IKE SA; zero means not chosen yet.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Spi(pub u64);

/// The same, where an ESP SPI is near.
pub type IkeSpi = Spi;

impl Spi {
    /// Not chosen yet: the responder's SPI in the first request.
    pub const ZERO: Spi = Spi(0);

    /// Whether no SPI has been chosen.
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// Network order, 8 octets.
    pub const fn to_bytes(self) -> [u8; 8] {
        self.0.to_be_bytes()
    }

    /// From network order, 8 octets.
    pub const fn from_bytes(bytes: [u8; 8]) -> Self {
        Spi(u64::from_be_bytes(bytes))
    }
}

impl fmt::Display for Spi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for Spi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The header's flag octet; reserved bits are kept as received and mean nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Flags(pub u8);

impl Flags {
    /// Sent by the original initiator of the IKE SA, in both directions of exchanges.
    pub const INITIATOR: Flags = Flags(0x08);
    /// The sender could speak a higher major version.
    pub const VERSION: Flags = Flags(0x10);
    /// The message answers a request of the same message ID.
    pub const RESPONSE: Flags = Flags(0x20);

    /// Whether every bit of `other` is set.
    pub const fn contains(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both sets of bits.
    pub const fn union(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }
}

impl core::ops::BitOr for Flags {
    type Output = Flags;
    fn bitor(self, other: Flags) -> Flags {
        self.union(other)
    }
}

/// The fixed header. `next_payload` and `length` describe a received message; emission computes them afresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Header {
    /// SPI of the side that began the IKE SA; never zero in a valid message.
    pub spi_i: Spi,
    /// SPI of the other side; zero in the first request.
    pub spi_r: Spi,
    /// Type of the first payload.
    pub next_payload: PayloadType,
    /// Major version, 4 bits; 2 for everything this crate parses.
    pub major: u8,
    /// Minor version, 4 bits; sent as 0 and ignored (RFC 7296 section 2.5).
    pub minor: u8,
    /// Which exchange the message belongs to.
    pub exchange: ExchangeType,
    /// Initiator, version and response flags.
    pub flags: Flags,
    /// Message ID: one counter per direction of requests.
    pub message_id: u32,
    /// Octets of the whole message, header included.
    pub length: u32,
}

impl Header {
    /// A version 2.0 header to emit with.
    pub const fn new(spi_i: Spi, spi_r: Spi, exchange: ExchangeType, flags: Flags, message_id: u32) -> Self {
        Header {
            spi_i,
            spi_r,
            next_payload: PayloadType::NONE,
            major: 2,
            minor: 0,
            exchange,
            flags,
            message_id,
            length: 0,
        }
    }

    /// The header of a response to this request: same SPIs, exchange and message ID, both direction flags turned.
    pub const fn response(&self) -> Self {
        let flags = Flags((!self.flags.0 & Flags::INITIATOR.0) | Flags::RESPONSE.0);
        Self::new(self.spi_i, self.spi_r, self.exchange, flags, self.message_id)
    }

    /// Whether the sender began this IKE SA.
    pub const fn is_initiator(&self) -> bool {
        self.flags.contains(Flags::INITIATOR)
    }

    /// Whether the message is a response.
    pub const fn is_response(&self) -> bool {
        self.flags.contains(Flags::RESPONSE)
    }

    /// The SPI the receiver of this message chose (zero in the first request).
    pub const fn receiver_spi(&self) -> Spi {
        if self.is_initiator() { self.spi_r } else { self.spi_i }
    }

    /// Appends the 28 octets, with `next_payload` and `length` as they stand.
    pub fn emit_into(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.spi_i.to_bytes());
        out.extend_from_slice(&self.spi_r.to_bytes());
        out.push(self.next_payload.0);
        out.push(self.major << 4 | self.minor & 0x0f);
        out.push(self.exchange.0);
        out.push(self.flags.0);
        out.extend_from_slice(&self.message_id.to_be_bytes());
        out.extend_from_slice(&self.length.to_be_bytes());
    }
}

/// Reads the fixed header without allocation, for dispatch by SPI. Succeeds on any version so that a higher one
/// can be answered; [`Message::parse`](super::Message::parse) and [`sk_split`](super::sk_split) check version and length.
///
/// # Errors
/// [`ErrorKind::NotIke`] when there are fewer than 28 octets.
pub fn peek_header(datagram: &[u8]) -> Result<Header, ParseError> {
    let short = ParseError::header(ErrorKind::NotIke, datagram.len());
    let (fixed, _) = datagram.split_first_chunk::<HEADER_LEN>().ok_or(short)?;
    let [
        a,
        b,
        c,
        d,
        e,
        f,
        g,
        h,
        i,
        j,
        k,
        l,
        m,
        n,
        o,
        p,
        next,
        version,
        exchange,
        flags,
        m0,
        m1,
        m2,
        m3,
        l0,
        l1,
        l2,
        l3,
    ] = *fixed;
    Ok(Header {
        spi_i: Spi::from_bytes([a, b, c, d, e, f, g, h]),
        spi_r: Spi::from_bytes([i, j, k, l, m, n, o, p]),
        next_payload: PayloadType(next),
        major: version >> 4,
        minor: version & 0x0f,
        exchange: ExchangeType(exchange),
        flags: Flags(flags),
        message_id: u32::from_be_bytes([m0, m1, m2, m3]),
        length: u32::from_be_bytes([l0, l1, l2, l3]),
    })
}

/// The header, after the checks every message must pass before its payloads are looked at.
pub(crate) fn check_header(datagram: &[u8]) -> Result<Header, ParseError> {
    let header = peek_header(datagram)?;
    if header.major != 2 {
        return Err(ParseError::header(ErrorKind::MajorVersion(header.major), 17));
    }
    if header.length as usize != datagram.len() {
        return Err(ParseError::header(ErrorKind::InvalidSyntax("length is not that of the datagram"), 24));
    }
    Ok(header)
}
