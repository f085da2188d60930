//! The ToS octet across the tunnel: DSCP (RFC 4301 section 5.1.2, RFC 2983) and ECN (RFC 6040).

use wire::ip::update_checksum;

use crate::sa::{DscpPolicy, EcnPolicy};

/// Congestion experienced.
const CE: u8 = 3;

/// The outer octet for an inner one.
pub(crate) fn encapsulate(inner: u8, dscp: DscpPolicy, ecn: EcnPolicy) -> u8 {
    let dscp = match dscp {
        DscpPolicy::Copy => inner & 0xfc,
        DscpPolicy::Fixed(value) => value << 2,
    };
    let ecn = match ecn {
        // RFC 6040 section 4.1: normal mode copies, CE included.
        EcnPolicy::Copy => inner & 3,
        EcnPolicy::Clear => 0,
    };
    dscp | ecn
}

/// The inner ECN field after decapsulation, from the inner and outer ones; `None` drops the packet
/// (RFC 6040 section 4.2, figure 4).
pub(crate) fn decapsulate(inner: u8, outer: u8) -> Option<u8> {
    match (inner & 3, outer & 3) {
        // The sender does not understand marks, so a drop is the only way left to tell it.
        (0, CE) => None,
        (0, _) => Some(0),
        (CE, _) => Some(CE),
        (_, CE) => Some(CE),
        // Of the two ECT marks the one outside wins if it is ECT(1), the stronger.
        (_, 1) => Some(1),
        (inner, _) => Some(inner),
    }
}

/// Writes an ECN field into an IP packet and puts the header checksum right.
pub(crate) fn set(packet: &mut [u8], ecn: u8) {
    let Some(header) = packet.first_chunk_mut::<12>() else { return };
    if header[0] >> 4 == 6 {
        header[1] = header[1] & 0xcf | (ecn & 3) << 4;
        return;
    }
    let old = u16::from_be_bytes([header[0], header[1]]);
    header[1] = header[1] & 0xfc | ecn & 3;
    let new = u16::from_be_bytes([header[0], header[1]]);
    let sum = update_checksum(u16::from_be_bytes([header[10], header[11]]), old, new);
    header[10..].copy_from_slice(&sum.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::tests::{v4, v6};
    use wire::ip::{IpHeader, checksum};

    #[test]
    fn decapsulation_follows_the_table_of_rfc_6040() {
        const NOT: u8 = 0;
        const ECT1: u8 = 1;
        const ECT0: u8 = 2;
        let table = [
            (NOT, [Some(NOT), Some(NOT), Some(NOT), None]),
            (ECT0, [Some(ECT0), Some(ECT0), Some(ECT1), Some(CE)]),
            (ECT1, [Some(ECT1), Some(ECT1), Some(ECT1), Some(CE)]),
            (CE, [Some(CE), Some(CE), Some(CE), Some(CE)]),
        ];
        for (inner, row) in table {
            for (outer, expected) in [NOT, ECT0, ECT1, CE].into_iter().zip(row) {
                assert_eq!(decapsulate(inner, outer), expected, "inner {inner} outer {outer}");
            }
        }
    }

    #[test]
    fn entry_copies_or_hides() {
        assert_eq!(encapsulate(0xbb, DscpPolicy::Copy, EcnPolicy::Copy), 0xbb);
        assert_eq!(encapsulate(0xbb, DscpPolicy::Fixed(0), EcnPolicy::Copy), 3);
        assert_eq!(encapsulate(0xbb, DscpPolicy::Fixed(46), EcnPolicy::Clear), 46 << 2);
    }

    #[test]
    fn a_mark_leaves_the_header_checksum_right() {
        let mut p = v4([1, 2, 3, 4], [5, 6, 7, 8], 17, &[0; 8]);
        set(&mut p, CE);
        assert_eq!(IpHeader::parse(&p).map(|p| p.tos), Ok(3));
        assert_eq!(checksum(&p[..20]), 0);
        let mut p = v6(1, 2, 17, &[0; 8]);
        set(&mut p, CE);
        assert_eq!(IpHeader::parse(&p).map(|p| p.tos), Ok(3));
    }
}
