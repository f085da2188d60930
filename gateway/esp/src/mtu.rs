//! How large a packet may be, and what to do with one that is larger (RFC 4301 section 8).
//!
//! A packet that may not be fragmented is dropped and its sender told. One that may be is cut **before** it is sealed
//! (RFC 4303 section 3.3.4 allows it in tunnel mode): the receiving gateway then never reassembles, and NATs and
//! firewalls on the way never see outer fragments. Where selectors look at ports the pieces would be refused at the
//! other end, so there, and in transport mode, the sealed packet goes out whole with DF clear and IP fragments it.

use std::net::IpAddr;

use spi::{Encr, Integ};
use wire::esp::{HEADER_LEN, TRAILER_LEN};
use wire::ip::{IPV4_LEN, IPV6_LEN, UDP_LEN, checksum};

/// Least MTU of IPv6: smaller packets are carried, whatever the path says (RFC 8200 section 5).
pub(crate) const MIN_V6: usize = 1280;

/// Lengths ESP adds, by the SA's algorithms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Framing {
    pub(crate) iv: usize,
    pub(crate) icv: usize,
    /// What payload, padding and trailer together are a multiple of; a power of two, at least 4.
    pub(crate) block: usize,
}

impl Framing {
    /// `None`: algorithms that are not in the table or do not go together (RFC 4303 section 3.2).
    pub(crate) fn of(encr: Encr, integ: Integ) -> Option<Framing> {
        let (e, i) = (encr.info()?, integ.info()?);
        if e.is_aead() != (integ == Integ::NONE) {
            return None;
        }
        Some(Framing { iv: e.iv_len, icv: e.icv_len + i.icv_len, block: e.block.max(4) })
    }

    /// Octets before the payload.
    pub(crate) fn head(&self) -> usize {
        HEADER_LEN + self.iv
    }

    /// Octets of payload, padding and trailer for a payload of `len`.
    pub(crate) fn padded(&self, len: usize) -> usize {
        (len + TRAILER_LEN).next_multiple_of(self.block)
    }

    /// Octets from SPI to ICV for a payload of `len`.
    pub(crate) fn sealed(&self, len: usize) -> usize {
        self.head() + self.padded(len) + self.icv
    }

    /// The largest payload whose outer IP packet has at most `path_mtu` octets; 0 when there is none.
    pub(crate) fn max_payload(&self, path_mtu: usize, remote: IpAddr, udp: bool) -> usize {
        let ip = if remote.is_ipv4() { IPV4_LEN } else { IPV6_LEN };
        let around = ip + if udp { UDP_LEN } else { 0 } + self.head() + self.icv;
        let room = path_mtu.saturating_sub(around);
        (room / self.block * self.block).saturating_sub(TRAILER_LEN)
    }
}

/// Cuts an IPv4 packet into fragments of at most `mtu` octets (RFC 791 section 3.2): calls `each` with header and payload
/// of every one, until it returns an error. The packet must be as long as its header says.
pub(crate) fn fragment<E>(
    packet: &[u8],
    header_len: usize,
    mtu: usize,
    mut each: impl FnMut(&[u8], &[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let mut head = [0_u8; 60];
    let (Some(original), Some(payload)) = (packet.get(..header_len), packet.get(header_len..)) else {
        return Ok(());
    };
    let Some(first) = head.get_mut(..header_len).filter(|_| header_len >= IPV4_LEN) else { return Ok(()) };
    first.copy_from_slice(original);
    let mut head_len = header_len;
    let field = u16::from_be_bytes([original[6], original[7]]);
    let (more, start) = (field & 0x2000, usize::from(field & 0x1fff));
    let mut at = 0;
    while at < payload.len() {
        let step = (mtu.saturating_sub(head_len) / 8 * 8).max(8).min(payload.len() - at);
        let last = at + step == payload.len();
        let flags = if last { more } else { 0x2000 } | (start + at / 8) as u16 & 0x1fff;
        head[2..4].copy_from_slice(&((head_len + step) as u16).to_be_bytes());
        head[6..8].copy_from_slice(&flags.to_be_bytes());
        head[10..12].fill(0);
        let sum = checksum(&head[..head_len]);
        head[10..12].copy_from_slice(&sum.to_be_bytes());
        each(&head[..head_len], &payload[at..at + step])?;
        if at == 0 {
            head_len = keep_copied_options(&mut head, head_len);
        }
        at += step;
    }
    Ok(())
}

/// Leaves in the header only what later fragments repeat: options with the copied flag (RFC 791 section 3.1).
fn keep_copied_options(head: &mut [u8; 60], header_len: usize) -> usize {
    let (mut from, mut to) = (IPV4_LEN, IPV4_LEN);
    while from < header_len {
        let len = match head[from] {
            0 => break,
            1 => 1,
            _ => head.get(from + 1).map_or(0, |len| usize::from(*len)),
        };
        if len == 0 || from + len > header_len || (head[from] != 1 && len < 2) {
            break;
        }
        if head[from] & 0x80 != 0 {
            head.copy_within(from..from + len, to);
            to += len;
        }
        from += len;
    }
    let end = to.next_multiple_of(4);
    head[to..end].fill(0);
    head[0] = 0x40 | (end / 4) as u8;
    end
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use wire::ip::IpHeader;

    use super::*;
    use crate::packet::tests::v4;

    #[test]
    fn largest_payload_fills_the_path_and_one_more_does_not_fit() {
        for (encr, integ) in [
            (Encr::AES128_GCM16, Integ::NONE),
            (Encr::AES256_CBC, Integ::HMAC_SHA2_256_128),
            (Encr::NULL, Integ::HMAC_SHA1_96),
            (Encr::AES128_CCM8, Integ::NONE),
        ] {
            let framing = Framing::of(encr, integ).unwrap();
            for mtu in [576, 1280, 1399, 1400, 1500, 9000] {
                for (remote, ip) in [("1.2.3.4", 20), ("::1", 40)] {
                    for (udp, extra) in [(false, 0), (true, 8)] {
                        let max = framing.max_payload(mtu, remote.parse().unwrap(), udp);
                        assert!(ip + extra + framing.sealed(max) <= mtu, "{encr} {mtu}");
                        assert!(ip + extra + framing.sealed(max + 1) > mtu, "{encr} {mtu}");
                    }
                }
            }
        }
    }

    #[test]
    fn combinations_without_integrity_have_no_framing() {
        assert!(Framing::of(Encr::AES128_CBC, Integ::NONE).is_none());
        assert!(Framing::of(Encr::AES128_GCM16, Integ::HMAC_SHA1_96).is_none());
    }

    #[test]
    fn later_fragments_keep_copied_options_only() {
        let mut packet = v4([1, 2, 3, 4], [5, 6, 7, 8], 17, &[7; 108]);
        // Two options of four octets stand where payload was: record route (not copied) and router alert (copied).
        packet[0] = 0x47;
        packet[6] = 0;
        packet[20..28].copy_from_slice(&[7, 4, 4, 0, 0x94, 4, 0, 0]);
        let mut heads = Vec::new();
        let _ = fragment(&packet, 28, 76, |head, _| {
            heads.push(head.to_vec());
            Ok::<_, ()>(())
        });
        assert_eq!(heads[0].len(), 28);
        assert_eq!(heads[1].len(), 24);
        assert_eq!(heads[1][20..], [0x94, 4, 0, 0]);
        assert!(heads.iter().all(|h| checksum(h) == 0));
    }

    proptest! {
        #[test]
        fn fragments_fit_and_together_are_the_packet(len in 1usize..3000, mtu in 68usize..1500) {
            let payload: Vec<u8> = (0..len).map(|i| i as u8).collect();
            let mut packet = v4([1, 2, 3, 4], [5, 6, 7, 8], 17, &payload);
            packet[6] = 0;
            let mut found = vec![0; len];
            let mut count = 0;
            let mut ended = false;
            fragment(&packet, 20, mtu, |head, body| {
                let whole = [head, body].concat();
                let header = IpHeader::parse(&whole).unwrap();
                prop_assert_eq!(checksum(head), 0);
                prop_assert!(whole.len() <= mtu && header.total_len == whole.len());
                let at = usize::from(header.fragment_offset) * 8;
                found[at..at + body.len()].copy_from_slice(body);
                count += body.len();
                ended |= !header.more_fragments;
                prop_assert_eq!(header.more_fragments, at + body.len() < len);
                Ok(())
            })?;
            prop_assert_eq!((found, count, ended), (payload, len, true));
        }

        #[test]
        fn any_options_are_cut_without_harm(options in prop::collection::vec(any::<u8>(), 40), words in 5u8..16) {
            let mut packet = v4([1, 2, 3, 4], [5, 6, 7, 8], 17, &[options, vec![0; 600]].concat());
            packet[0] = 0x40 | words;
            let _ = fragment(&packet, usize::from(words) * 4, 200, |head, _| {
                assert!(head.len() >= 20 && head.len() % 4 == 0);
                Ok::<_, ()>(())
            });
        }
    }
}
