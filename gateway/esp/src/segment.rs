//! Superpackets: what an interface with segmentation offload hands over in one read is cut into real packets here.

use wire::ip::{IPV6_LEN, IpHeader, Sum, checksum, protocol};

use crate::esp::{Offload, SegmentKind, Segments};

/// Longest IP and transport header that is repeated.
const MAX_HEAD: usize = 256;
const FIN_PSH: u8 = 0x09;
const CWR: u8 = 0x80;

/// Cuts one superpacket, piece by piece.
pub(crate) struct Cutter<'a> {
    payload: &'a [u8],
    head: [u8; MAX_HEAD],
    head_len: usize,
    /// Offset of the transport header.
    upper: usize,
    v4: bool,
    kind: SegmentKind,
    size: usize,
    at: usize,
    /// TCP: first sequence number and the flags of the whole.
    seq: u32,
    flags: u8,
    id: u16,
    /// Sums of what is the same in the headers of all pieces: of IPv4, and of the pseudo header and the transport header.
    ip_sum: Sum,
    upper_sum: Sum,
}

impl<'a> Cutter<'a> {
    /// `None` when the description does not fit the packet.
    pub(crate) fn new(packet: &'a [u8], header: &IpHeader, segments: Segments) -> Option<Cutter<'a>> {
        let packet = packet.get(..header.total_len)?;
        let upper = packet.get(header.payload_offset..)?;
        let (wanted, upper_len) = match segments.kind {
            SegmentKind::Tcp => (protocol::TCP, usize::from(upper.get(12)? >> 4) * 4),
            SegmentKind::Udp => (protocol::UDP, 8),
        };
        let least = if wanted == protocol::TCP { 20 } else { 8 };
        let head_len = header.payload_offset + upper_len;
        let fits = header.protocol == wanted
            && !header.is_fragment()
            && upper_len >= least
            && head_len <= MAX_HEAD
            && segments.size > 0;
        if !fits {
            return None;
        }
        let (front, payload) = packet.split_at_checked(head_len)?;
        let mut head = [0; MAX_HEAD];
        head[..head_len].copy_from_slice(front);
        let (upper, v4) = (header.payload_offset, header.version() == 4);
        let word = |at: usize| u16::from_be_bytes([front[at], front[at + 1]]);
        let seq = u32::from(word(upper + 4)) << 16 | u32::from(word(upper + 6));
        let (id, flags) = (word(4), if upper_len > 13 { front[upper + 13] } else { 0 });
        // What differs from piece to piece counts as zero here, and is added for each.
        let (mut same_ip, mut same_upper) = (head, head);
        same_ip[2..6].fill(0);
        same_ip[10..12].fill(0);
        let differs: &[(usize, usize)] = match segments.kind {
            SegmentKind::Tcp => &[(4, 8), (13, 14), (16, 18)],
            SegmentKind::Udp => &[(4, 8)],
        };
        for (from, to) in differs {
            same_upper[upper + from..upper + to].fill(0);
        }
        let upper_sum = Sum::new().pseudo(header.src, header.dst, header.protocol, 0);
        Some(Cutter {
            payload,
            head,
            head_len,
            upper,
            v4,
            kind: segments.kind,
            size: usize::from(segments.size),
            at: 0,
            seq,
            flags,
            id,
            ip_sum: Sum::new().octets(&same_ip[..upper]),
            upper_sum: upper_sum.octets(&same_upper[upper..head_len]),
        })
    }

    /// Octets of the longest packet it makes.
    pub(crate) fn longest(&self) -> usize {
        self.head_len + self.size.min(self.payload.len())
    }

    /// Header and payload of the next packet.
    pub(crate) fn next(&mut self) -> Option<(&[u8], &'a [u8])> {
        if self.at >= self.payload.len() {
            return None;
        }
        let first = self.at == 0;
        let end = (self.at + self.size).min(self.payload.len());
        let body = &self.payload[self.at..end];
        let last = end == self.payload.len();
        let total = self.head_len + body.len();
        let upper = self.upper;
        if self.v4 {
            let id = self.id.wrapping_add((self.at / self.size) as u16);
            let sum = self.ip_sum.word(total as u16).word(id).finish();
            self.write(2, total as u16);
            self.write(4, id);
            self.write(10, sum);
        } else {
            self.write(4, (total - IPV6_LEN) as u16);
        }
        let len = (total - upper) as u16;
        let (sum, sum_at) = match self.kind {
            SegmentKind::Tcp => {
                let seq = self.seq.wrapping_add(self.at as u32);
                // FIN and PSH belong to the end; CWR answers one mark and is said once (RFC 3168 section 6.1.2).
                let drop = if last { 0 } else { FIN_PSH } | if first { 0 } else { CWR };
                let flags = self.flags & !drop;
                self.head[upper + 4..upper + 8].copy_from_slice(&seq.to_be_bytes());
                self.head[upper + 13] = flags;
                (self.upper_sum.word((seq >> 16) as u16).word(seq as u16).word(flags.into()), upper + 16)
            }
            SegmentKind::Udp => {
                self.write(upper + 4, len);
                (self.upper_sum.word(len), upper + 6)
            }
        };
        let sum = sum.word(len).octets(body).finish();
        // In UDP an all-zero field means "no checksum" (RFC 768).
        let sum = if sum == 0 && self.kind == SegmentKind::Udp { 0xffff } else { sum };
        self.write(sum_at, sum);
        self.at = end;
        Some((&self.head[..self.head_len], body))
    }

    fn write(&mut self, at: usize, word: u16) {
        self.head[at..at + 2].copy_from_slice(&word.to_be_bytes());
    }
}

/// The packets that a packet or superpacket of an interface stands for, whole and with their checksums; for those who have to
/// hand them on one by one. `each` gets nothing when the description does not fit the octets.
pub fn cut(packet: &[u8], offload: Offload, mut each: impl FnMut(&[u8])) {
    let Ok(header) = IpHeader::parse(packet) else { return };
    let mut whole = Vec::with_capacity(packet.len());
    match offload.segments {
        Some(segments) => {
            let Some(mut cutter) = Cutter::new(packet, &header, segments) else { return };
            while let Some((head, body)) = cutter.next() {
                whole.clear();
                whole.extend_from_slice(head);
                whole.extend_from_slice(body);
                each(&whole);
            }
        }
        None => {
            whole.extend_from_slice(packet);
            if let Some((start, offset)) = offload.checksum
                && finish_checksum(&mut whole, start.into(), offset.into(), header.protocol).is_none()
            {
                return;
            }
            each(&whole);
        }
    }
}

/// Finishes a checksum the kernel left to us: over the octets from `start`, stored at `start + offset`.
pub(crate) fn finish_checksum(packet: &mut [u8], start: usize, offset: usize, protocol: u8) -> Option<()> {
    let sum = checksum(packet.get(start..)?);
    let sum = if sum == 0 && protocol == protocol::UDP { 0xffff } else { sum };
    packet.get_mut(start + offset..start + offset + 2)?.copy_from_slice(&sum.to_be_bytes());
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::tests::{v4, v6};

    fn pieces(packet: &[u8], kind: SegmentKind, size: u16) -> Vec<Vec<u8>> {
        let header = IpHeader::parse(packet).unwrap();
        let mut cutter = Cutter::new(packet, &header, Segments { kind, size }).unwrap();
        let mut all = Vec::new();
        while let Some((head, body)) = cutter.next() {
            all.push([head, body].concat());
        }
        all
    }

    fn right(packet: &[u8]) -> bool {
        let h = IpHeader::parse(packet).unwrap();
        let upper = &packet[h.payload_offset..];
        let sum = Sum::new().pseudo(h.src, h.dst, h.protocol, upper.len()).octets(upper).finish();
        sum == 0 && h.total_len == packet.len() && (h.version() == 6 || checksum(&packet[..20]) == 0)
    }

    #[test]
    fn tcp_is_cut_into_whole_segments() {
        let mut tcp = vec![0; 20];
        tcp[4..8].copy_from_slice(&0xffff_ff00_u32.to_be_bytes());
        tcp[12] = 0x50;
        tcp[13] = 0x19 | CWR;
        tcp.extend((0..3000).map(|i| i as u8));
        for packet in [v4([10, 0, 0, 1], [10, 0, 0, 2], 6, &tcp), v6(1, 2, 6, &tcp)] {
            let all = pieces(&packet, SegmentKind::Tcp, 1400);
            let head = packet.len() - 3000;
            let lens: Vec<_> = all.iter().map(|p| p.len() - head).collect();
            assert_eq!(lens, [1400, 1400, 200]);
            assert!(all.iter().all(|p| right(p)));
            let flags: Vec<_> = all.iter().map(|p| p[head - 7]).collect();
            assert_eq!(flags, [0x10 | CWR, 0x10, 0x19]);
            let seq: Vec<_> = all.iter().map(|p| p[head - 16..head - 12].to_vec()).collect();
            assert_eq!(seq[1], 0xffff_ff00_u32.wrapping_add(1400).to_be_bytes());
            let body: Vec<u8> = all.iter().flat_map(|p| p[head..].to_vec()).collect();
            assert_eq!(body, &tcp[20..]);
        }
    }

    #[test]
    fn udp_is_cut_into_datagrams() {
        let mut udp = vec![0x30, 0x39, 0, 53, 0, 0, 0, 0];
        udp.extend([9; 250]);
        let all = pieces(&v4([10, 0, 0, 1], [10, 0, 0, 2], 17, &udp), SegmentKind::Udp, 100);
        assert_eq!(all.iter().map(Vec::len).collect::<Vec<_>>(), [128, 128, 78]);
        assert!(all.iter().all(|p| right(p)));
    }

    #[test]
    fn packets_are_handed_on_whole() {
        let mut udp = vec![0x30, 0x39, 0, 53, 0, 0, 0, 0];
        udp.extend([9; 250]);
        let packet = v4([10, 0, 0, 1], [10, 0, 0, 2], 17, &udp);
        let all = |offload| {
            let mut lens = Vec::new();
            cut(&packet, offload, |packet| {
                assert!(offload == Offload::default() || right(packet));
                lens.push(packet.len());
            });
            lens
        };
        let segments = Some(Segments { kind: SegmentKind::Udp, size: 100 });
        assert_eq!(all(Offload { checksum: Some((20, 6)), segments }), [128, 128, 78]);
        assert_eq!(all(Offload::default()), [278]);
        assert_eq!(all(Offload { checksum: Some((20, 600)), segments: None }), [0; 0]);
    }

    #[test]
    fn a_description_that_does_not_fit_is_refused() {
        let udp = v4([10, 0, 0, 1], [10, 0, 0, 2], 17, &[0; 40]);
        let header = IpHeader::parse(&udp).unwrap();
        let cut = |kind, size| Cutter::new(&udp, &header, Segments { kind, size }).is_some();
        assert!(cut(SegmentKind::Udp, 10));
        assert!(!cut(SegmentKind::Tcp, 10) && !cut(SegmentKind::Udp, 0));
        let tcp = v4([10, 0, 0, 1], [10, 0, 0, 2], 6, &[0xff; 40]);
        let header = IpHeader::parse(&tcp).unwrap();
        assert!(Cutter::new(&tcp, &header, Segments { kind: SegmentKind::Tcp, size: 9 }).is_none());
    }

    #[test]
    fn a_checksum_left_to_us_is_finished() {
        let mut packet = v4([10, 0, 0, 1], [10, 0, 0, 2], 17, &[0, 1, 0, 2, 0, 12, 0, 0, 1, 2, 3, 4]);
        let h = IpHeader::parse(&packet).unwrap();
        let pseudo = !Sum::new().pseudo(h.src, h.dst, 17, 12).finish();
        packet[26..28].copy_from_slice(&pseudo.to_be_bytes());
        finish_checksum(&mut packet, 20, 6, 17).unwrap();
        assert!(right(&packet));
        assert!(finish_checksum(&mut packet, 20, 60, 17).is_none());
    }
}
