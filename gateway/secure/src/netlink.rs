//! A small speaker of rtnetlink: requests with an acknowledgement, and dumps. One socket, one thread, one request at a time.
//!
//! Formats: `linux/netlink.h`, `linux/rtnetlink.h`; everything is in the machine's own byte order.

use std::io;
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink};

const HEADER: usize = 16;
/// Octets of one datagram from the kernel; it sends at most 32 KiB at a time.
const BUFFER: usize = 64 * 1024;
/// Messages of one answer that are looked at: a full routing table of the Internet, twice.
const MAX_MESSAGES: usize = 1 << 21;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 0x001;
const NLM_F_ACK: u16 = 0x004;
const NLM_F_DUMP: u16 = 0x300;

/// A request being written.
pub(crate) struct Writer {
    kind: u16,
    flags: u16,
    body: Vec<u8>,
}

impl Writer {
    /// A request of this type, with flags besides the usual, and its fixed header.
    pub(crate) fn new(kind: u16, flags: u16, fixed: &[u8]) -> Self {
        Writer { kind, flags, body: fixed.to_vec() }
    }

    /// Appends an attribute.
    pub(crate) fn attribute(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        let len = (4 + value.len()) as u16;
        self.body.extend_from_slice(&len.to_ne_bytes());
        self.body.extend_from_slice(&kind.to_ne_bytes());
        self.body.extend_from_slice(value);
        self.body.resize(self.body.len().next_multiple_of(4), 0);
        self
    }
}

/// A socket to the kernel.
pub(crate) struct Netlink {
    socket: OwnedFd,
    sequence: u32,
    buffer: Box<[u8]>,
}

impl Netlink {
    pub(crate) fn new() -> io::Result<Self> {
        let socket = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            // NETLINK_ROUTE is protocol 0.
            None,
        )?;
        rustix::net::connect(&socket, &netlink::SocketAddrNetlink::new(0, 0))?;
        // The kernel answers at once; whatever keeps it from doing so must not keep the keys from working.
        let limit = Some(std::time::Duration::from_secs(5));
        rustix::net::sockopt::set_socket_timeout(&socket, rustix::net::sockopt::Timeout::Recv, limit)?;
        Ok(Netlink { socket, sequence: 0, buffer: vec![0; BUFFER].into() })
    }

    /// Carries a request out.
    ///
    /// # Errors
    /// What the kernel says.
    pub(crate) fn execute(&mut self, request: &Writer) -> io::Result<()> {
        self.send(request, NLM_F_REQUEST | NLM_F_ACK)?;
        self.answers(|_, _| ())
    }

    /// Asks for everything of a kind; gives the type and body of each.
    pub(crate) fn dump(&mut self, request: &Writer, each: impl FnMut(u16, &[u8])) -> io::Result<()> {
        self.send(request, NLM_F_REQUEST | NLM_F_DUMP)?;
        self.answers(each)
    }

    fn send(&mut self, request: &Writer, flags: u16) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut message = Vec::with_capacity(HEADER + request.body.len());
        message.extend_from_slice(&((HEADER + request.body.len()) as u32).to_ne_bytes());
        message.extend_from_slice(&request.kind.to_ne_bytes());
        message.extend_from_slice(&(request.flags | flags).to_ne_bytes());
        message.extend_from_slice(&self.sequence.to_ne_bytes());
        message.extend_from_slice(&[0; 4]);
        message.extend_from_slice(&request.body);
        let sent = rustix::net::send(&self.socket, &message, SendFlags::empty())?;
        if sent == message.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }

    /// Reads until the acknowledgement, the error or the end of the dump that belongs to the last request.
    fn answers(&mut self, mut each: impl FnMut(u16, &[u8])) -> io::Result<()> {
        let mut seen = 0;
        loop {
            let (_, len) = rustix::net::recv(&self.socket, &mut self.buffer[..], RecvFlags::TRUNC)?;
            let mut rest = self.buffer.get(..len).ok_or(io::ErrorKind::InvalidData)?;
            if rest.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            while let Some((header, body, after)) = split_message(rest) {
                rest = after;
                seen += 1;
                if seen > MAX_MESSAGES {
                    return Err(io::ErrorKind::InvalidData.into());
                }
                // An answer to an earlier request, one that was given up.
                if header.sequence != self.sequence {
                    continue;
                }
                match header.kind {
                    NLMSG_DONE => return Ok(()),
                    NLMSG_ERROR => {
                        let code = body.first_chunk().map_or(0, |c| i32::from_ne_bytes(*c));
                        return if code == 0 {
                            Ok(())
                        } else {
                            Err(io::Error::from_raw_os_error(code.wrapping_neg()))
                        };
                    }
                    kind => each(kind, body),
                }
            }
        }
    }
}

struct Header {
    kind: u16,
    sequence: u32,
}

/// The first message of a datagram, and what follows it.
fn split_message(data: &[u8]) -> Option<(Header, &[u8], &[u8])> {
    let len = u32::from_ne_bytes(*data.first_chunk()?) as usize;
    let message = data.get(..len)?;
    let kind = u16::from_ne_bytes(*message.get(4..)?.first_chunk()?);
    let sequence = u32::from_ne_bytes(*message.get(8..)?.first_chunk()?);
    let body = message.get(HEADER..)?;
    let after = data.get(len.next_multiple_of(4)..).unwrap_or_default();
    Some((Header { kind, sequence }, body, after))
}

/// The attributes behind a fixed header: type and value. Ends at the first that does not fit.
pub(crate) fn attributes(mut data: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let len = usize::from(u16::from_ne_bytes(*data.first_chunk()?));
        let kind = u16::from_ne_bytes(*data.get(2..)?.first_chunk()?);
        let value = data.get(4..len)?;
        data = data.get(len.next_multiple_of(4)..).unwrap_or_default();
        // The two highest bits are flags: nested, network byte order.
        Some((kind & 0x3fff, value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_when_written_and_found_when_read() {
        let mut w = Writer::new(1, 0, &[]);
        w.attribute(3, b"lo\0").attribute(4, &[1, 0, 0, 0]).attribute(9, &[]);
        assert_eq!(w.body.len(), 8 + 8 + 4);
        let read: Vec<_> = attributes(&w.body).collect();
        assert_eq!(read, [(3, &b"lo\0"[..]), (4, &[1, 0, 0, 0]), (9, &[])]);
    }

    #[test]
    fn cut_and_lying_messages_end_the_reading() {
        let mut w = Writer::new(1, 0, &[]);
        w.attribute(3, b"abc").attribute(4, &[1, 0, 0, 0]);
        for cut in 0..w.body.len() {
            assert!(attributes(&w.body[..cut]).count() < 2);
        }
        assert_eq!(attributes(&[3, 0, 1, 0]).count(), 0, "shorter than its own header");
        assert!(split_message(&[8, 0, 0, 0, 0, 0, 0, 0]).is_none());
        assert!(split_message(&[0xff; 16]).is_none());
    }
}
