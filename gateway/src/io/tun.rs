//! One queue of a TUN or TAP device: packets and superpackets, each with a `virtio_net_hdr` before it where the kernel has offloads
//! (`linux/virtio_net.h`; the ten octets without the number of buffers), one by one and bare where it has none.

use std::io::{self, IoSlice};
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::ethernet::{self, Frame};
use arrayvec::ArrayVec;
use esp::{InnerPackets, Joinable, Offload, SegmentKind, Segments, Train};
use ipc::TunOffload;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;

/// Octets of a `virtio_net_hdr`.
const HEADER: usize = 10;
/// Octets a buffer must have for whatever the kernel may hand over.
pub const LONGEST: usize = 65_536 + HEADER + ethernet::HEADER;

const F_NEEDS_CSUM: u8 = 1;
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
const GSO_ECN: u8 = 0x80;

/// Pieces in one write: the header, and each packet of a train.
const PIECES: usize = 72;

/// What a read gave.
#[derive(Debug, PartialEq, Eq)]
pub enum Read {
    /// One packet, or a superpacket with the way to cut it; where in the buffer.
    Packet(Range<usize>, Offload),
    /// A whole Ethernet frame that asks after a neighbour; where in the buffer.
    Question(Range<usize>),
    /// Something that is no packet, or work left to us that nobody granted.
    Odd,
    /// Nothing now.
    Nothing,
    /// Nothing ever again: somebody deleted the device. A sleeping place would report the descriptor without end.
    Gone,
}

/// What a queue carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TunTraffic {
    /// Packets the kernel gave us, and in how many reads.
    pub read: u64,
    /// See `read`.
    pub reads: u64,
    /// Packets we gave the kernel, and in how many writes.
    pub written: u64,
    /// See `written`.
    pub writes: u64,
    /// Packets the kernel did not take.
    pub refused: u64,
    /// Reads that gave something odd.
    pub odd: u64,
}

impl TunTraffic {
    /// Adds another queue's.
    pub fn add(&mut self, other: &TunTraffic) {
        self.read += other.read;
        self.reads += other.reads;
        self.written += other.written;
        self.writes += other.writes;
        self.refused += other.refused;
        self.odd += other.odd;
    }
}

/// One queue.
pub struct Tun {
    fd: OwnedFd,
    /// It is a TAP device.
    ethernet: bool,
    offload: TunOffload,
    can: Joinable,
    traffic: TunTraffic,
}

impl Tun {
    /// Takes over a descriptor of the device.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn new(fd: OwnedFd, ethernet: bool, offload: TunOffload) -> io::Result<Tun> {
        fcntl_setfl(&fd, fcntl_getfl(&fd)? | OFlags::NONBLOCK)?;
        // What the kernel can be left with it says by what it grants: both are the same code.
        let can = Joinable { tcp: offload.header && offload.tcp, udp: offload.header && offload.udp };
        Ok(Tun { fd, ethernet, offload, can, traffic: TunTraffic::default() })
    }

    /// Reads one packet into a buffer of [`LONGEST`] octets.
    pub fn read(&mut self, buffer: &mut [u8]) -> Read {
        let length = match rustix::io::retry_on_intr(|| rustix::io::read(&self.fd, &mut *buffer)) {
            Ok(length) => length,
            Err(Errno::BADFD) => return Read::Gone,
            Err(_) => return Read::Nothing,
        };
        self.traffic.reads += 1;
        let read = self.understand(buffer.get(..length).unwrap_or_default());
        self.traffic.odd += u64::from(read == Read::Odd);
        read
    }

    fn understand(&mut self, octets: &[u8]) -> Read {
        let start = if self.offload.header { HEADER } else { 0 };
        let Some((header, frame)) = octets.split_at_checked(start) else { return Read::Odd };
        let Some((offload, packets)) = describe(header, frame.len()) else { return Read::Odd };
        let (start, offload) = match self.ethernet.then(|| ethernet::look(frame)) {
            None if !frame.is_empty() => (start, offload),
            Some(Frame::Packet) => match behind_ethernet(offload) {
                Some(offload) => (start + ethernet::HEADER, offload),
                None => return Read::Odd,
            },
            Some(Frame::Question) => return Read::Question(start..octets.len()),
            _ => return Read::Odd,
        };
        self.traffic.read += packets;
        Read::Packet(start..octets.len(), offload)
    }

    /// Writes a whole Ethernet frame.
    pub fn write_frame(&mut self, frame: &[u8]) {
        let header = [0; HEADER];
        let mut pieces: ArrayVec<IoSlice<'_>, 2> = ArrayVec::new();
        if self.offload.header {
            pieces.push(IoSlice::new(&header));
        }
        pieces.push(IoSlice::new(frame));
        if rustix::io::retry_on_intr(|| rustix::io::writev(&self.fd, &pieces)).is_err() {
            self.traffic.refused += 1;
        }
    }

    /// What may be joined to a train for this device.
    pub fn joins(&self) -> Joinable {
        self.can
    }

    /// Writes a packet or a train, whose pieces lie in these bursts. What the kernel does not take is counted and gone, as on
    /// any wire.
    pub fn write(&mut self, bursts: &[InnerPackets], train: &Train) {
        let pieces = train.octets(bursts);
        match self.emit(train.offload, train.head, pieces) {
            Ok(()) => self.traffic.written += train.pieces.len() as u64,
            // A kernel that cuts UDP for others need not take it from us.
            Err(Errno::INVAL) if train.offload.segments.is_some() => self.write_apart(bursts, train),
            Err(_) => self.traffic.refused += train.pieces.len() as u64,
        }
    }

    fn write_apart(&mut self, bursts: &[InnerPackets], train: &Train) {
        match train.offload.segments.map(|segments| segments.kind) {
            Some(SegmentKind::Udp) => self.can.udp = false,
            _ => self.can.tcp = false,
        }
        tracing::warn!(kind = ?train.offload.segments, "the kernel does not take superpackets; packets go one by one");
        let whole: Vec<u8> = train.octets(bursts).flatten().copied().collect();
        esp::cut(&whole, train.offload, |packet| match self.emit(Offload::default(), 0, [packet]) {
            Ok(()) => self.traffic.written += 1,
            Err(_) => self.traffic.refused += 1,
        });
    }

    /// Writes pieces as one.
    fn emit<'p>(
        &mut self,
        offload: Offload,
        head: usize,
        octets: impl IntoIterator<Item = &'p [u8]>,
    ) -> Result<(), Errno> {
        let mut octets = octets.into_iter().peekable();
        let first = octets.peek().and_then(|piece| piece.first()).copied().unwrap_or_default();
        let link = if self.ethernet { ethernet::HEADER } else { 0 };
        let (header, ethernet) = (header(first, offload, head, link), ethernet::header(first));
        let mut pieces: ArrayVec<IoSlice<'_>, PIECES> = ArrayVec::new();
        if self.offload.header {
            pieces.push(IoSlice::new(&header));
        }
        if self.ethernet {
            pieces.push(IoSlice::new(&ethernet));
        }
        for piece in octets {
            if pieces.try_push(IoSlice::new(piece)).is_err() {
                break;
            }
        }
        rustix::io::retry_on_intr(|| rustix::io::writev(&self.fd, &pieces))?;
        self.traffic.writes += 1;
        Ok(())
    }

    /// What the kernel granted.
    pub fn offload(&self) -> TunOffload {
        self.offload
    }

    /// What it carried.
    pub fn traffic(&self) -> TunTraffic {
        self.traffic
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// What the kernel left to us, and how many packets it stands for; `None`: more than was ever granted.
fn describe(header: &[u8], length: usize) -> Option<(Offload, u64)> {
    let Some(header) = header.first_chunk::<HEADER>() else { return Some((Offload::default(), 1)) };
    let word = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
    let (head, size, start, offset) = (word(2), word(4), word(6), word(8));
    let checksum = (header[0] & F_NEEDS_CSUM != 0).then_some((start, offset));
    let kind = match header[1] & !GSO_ECN {
        GSO_NONE => return Some((Offload { checksum, segments: None }, 1)),
        GSO_TCPV4 | GSO_TCPV6 => SegmentKind::Tcp,
        GSO_UDP_L4 => SegmentKind::Udp,
        _ => return None,
    };
    let payload = length.saturating_sub(head.into());
    let packets = payload.div_ceil(usize::from(size).max(1)).max(1) as u64;
    Some((Offload { checksum, segments: Some(Segments { kind, size }) }, packets))
}

/// What the kernel left to us, counted from behind the Ethernet header.
fn behind_ethernet(offload: Offload) -> Option<Offload> {
    let checksum = match offload.checksum {
        Some((start, offset)) => Some((start.checked_sub(ethernet::HEADER as u16)?, offset)),
        None => None,
    };
    Some(Offload { checksum, ..offload })
}

/// The `virtio_net_hdr` of a train whose first octet is `first`, with so many octets of IP and transport headers, and so many of
/// link header before them.
fn header(first: u8, offload: Offload, head: usize, link: usize) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    let Offload { checksum: Some((start, offset)), segments: Some(segments) } = offload else {
        return header;
    };
    header[0] = F_NEEDS_CSUM;
    header[1] = match (segments.kind, first >> 4 == 6) {
        (SegmentKind::Tcp, false) => GSO_TCPV4,
        (SegmentKind::Tcp, true) => GSO_TCPV6,
        (SegmentKind::Udp, _) => GSO_UDP_L4,
    };
    let (head, start) = ((head + link) as u16, start + link as u16);
    for (at, word) in [(2, head), (4, segments.size), (6, start), (8, offset)] {
        header[at..at + 2].copy_from_slice(&word.to_ne_bytes());
    }
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_leaves_to_us_is_read_as_it_stands() {
        let tcp = Segments { kind: SegmentKind::Tcp, size: 1400 };
        let mut octets = [0; HEADER];
        octets[..2].copy_from_slice(&[F_NEEDS_CSUM, GSO_TCPV4 | GSO_ECN]);
        for (at, word) in [(2, 52u16), (4, 1400), (6, 20), (8, 16)] {
            octets[at..at + 2].copy_from_slice(&word.to_ne_bytes());
        }
        let offload = Offload { checksum: Some((20, 16)), segments: Some(tcp) };
        assert_eq!(describe(&octets, 52 + 4300), Some((offload, 4)));
        octets[1] = 3;
        assert_eq!(describe(&octets, 4352), None, "UDP fragmentation was never granted");
        assert_eq!(describe(&[0; HEADER], 100), Some((Offload::default(), 1)));
        assert_eq!(describe(&[], 100), Some((Offload::default(), 1)), "no header, nothing left to us");
        octets[1] = GSO_UDP_L4;
        octets[4..6].fill(0);
        assert!(describe(&octets, 10).is_some(), "sizes are looked at by whoever cuts");
    }

    #[test]
    fn what_we_leave_to_the_kernel_reads_the_same() {
        for (kind, first) in [(SegmentKind::Tcp, 0x45u8), (SegmentKind::Tcp, 0x60), (SegmentKind::Udp, 0x60)]
        {
            let offload = Offload { checksum: Some((40, 16)), segments: Some(Segments { kind, size: 1200 }) };
            assert_eq!(describe(&header(first, offload, 60, 0), 60 + 2400), Some((offload, 2)));
            let (read, packets) = describe(&header(first, offload, 60, 14), 14 + 60 + 2400).unwrap();
            assert_eq!((behind_ethernet(read), packets), (Some(offload), 2), "behind Ethernet");
        }
        assert_eq!(header(0x45, Offload::default(), 0, 14), [0; HEADER]);
    }
}
