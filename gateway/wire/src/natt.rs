//! What arrives on UDP port 4500 (RFC 3948 section 2): IKE behind four zero octets, ESP, or a keepalive.

use crate::{esp, ike};

/// Stands before IKE on port 4500 where ESP would have its SPI.
pub const NON_ESP_MARKER: [u8; 4] = [0; 4];
/// The whole of a NAT keepalive.
pub const KEEPALIVE: [u8; 1] = [0xff];

/// A datagram of port 4500 by what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Datagram<'a> {
    /// Keeps a NAT binding open, means nothing else; not to be answered.
    Keepalive,
    /// An IKE message, marker removed; at least as long as its header.
    Ike(&'a [u8]),
    /// An ESP packet, at least as long as its header; the SPI is not zero.
    Esp(&'a [u8]),
    /// Neither; to be dropped.
    Garbage,
}

/// Sorts a datagram of port 4500.
pub fn classify(datagram: &[u8]) -> Datagram<'_> {
    match datagram {
        [0xff] => Datagram::Keepalive,
        [0, 0, 0, 0, ike @ ..] if ike.len() >= ike::HEADER_LEN => Datagram::Ike(ike),
        [0, 0, 0, 0, ..] => Datagram::Garbage,
        packet if packet.len() >= esp::HEADER_LEN => Datagram::Esp(packet),
        _ => Datagram::Garbage,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_4500_is_sorted_by_its_first_octets() {
        let mut ike = [0u8; 32];
        ike[4] = 1;
        assert_eq!(classify(&[0xff]), Datagram::Keepalive);
        assert_eq!(classify(&ike), Datagram::Ike(&ike[4..]));
        assert_eq!(classify(&[0, 0, 1, 0, 0, 0, 0, 1, 9]), Datagram::Esp(&[0, 0, 1, 0, 0, 0, 0, 1, 9]));
    }

    #[test]
    fn short_datagrams_are_garbage() {
        assert_eq!(classify(&[]), Datagram::Garbage);
        assert_eq!(classify(&[0xff, 0xff]), Datagram::Garbage);
        assert_eq!(classify(&[0; 31]), Datagram::Garbage);
        assert_eq!(classify(&[1, 2, 3, 4, 5, 6, 7]), Datagram::Garbage);
    }
}
