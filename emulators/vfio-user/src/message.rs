//! Messages as octets. The protocol uses the byte order of the machine, for both ends are on it.

use rustix::io::Errno;

/// Octets of a header.
pub const HEADER_LEN: usize = 16;
/// Octets of data that one message may carry or ask for.
pub const MAX_DATA: usize = 1 << 20;
/// Octets of the longest message: data, and what describes it.
pub const MAX_MESSAGE: usize = HEADER_LEN + 64 + MAX_DATA;
/// Descriptors that one message may carry.
pub const MAX_FDS: usize = 16;

/// Commands.
pub(crate) mod command {
    pub(crate) const VERSION: u16 = 1;
    pub(crate) const DMA_MAP: u16 = 2;
    pub(crate) const DMA_UNMAP: u16 = 3;
    pub(crate) const DEVICE_GET_INFO: u16 = 4;
    pub(crate) const GET_REGION_INFO: u16 = 5;
    pub(crate) const GET_REGION_IO_FDS: u16 = 6;
    pub(crate) const GET_IRQ_INFO: u16 = 7;
    pub(crate) const SET_IRQS: u16 = 8;
    pub(crate) const REGION_READ: u16 = 9;
    pub(crate) const REGION_WRITE: u16 = 10;
    pub(crate) const DEVICE_RESET: u16 = 13;
    pub(crate) const REGION_WRITE_MULTI: u16 = 15;
}

const TYPE_MASK: u32 = 0xf;
const TYPE_REPLY: u32 = 1;
const NO_REPLY: u32 = 1 << 4;
const ERROR: u32 = 1 << 5;

/// What every message begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The sender's number for it, which the reply repeats.
    pub id: u16,
    /// What is wanted.
    pub command: u16,
    /// Octets, header included.
    pub size: u32,
    /// Command or reply, and whether a reply is wanted.
    pub flags: u32,
}

impl Header {
    /// Reads a header. Any sixteen octets are one; whether it makes sense is another question.
    pub fn parse(octets: &[u8; HEADER_LEN]) -> Header {
        let mut fields = Fields(octets);
        // The array is as long as what is read from it.
        let mut header = || {
            let (id, command) = (fields.u16()?, fields.u16()?);
            Some(Header { id, command, size: fields.u32()?, flags: fields.u32()? })
        };
        header().unwrap_or(Header { id: 0, command: 0, size: 0, flags: 0 })
    }

    /// Whether it is a command, as opposed to a reply.
    pub fn is_command(&self) -> bool {
        self.flags & TYPE_MASK == 0
    }

    /// Whether a reply is wanted.
    pub fn wants_reply(&self) -> bool {
        self.flags & NO_REPLY == 0
    }
}

/// Appends a reply to `out`.
pub(crate) fn emit_reply(out: &mut Vec<u8>, to: &Header, body: &[u8]) {
    emit(out, to, TYPE_REPLY, 0, body);
}

/// Appends the reply to a command that failed to `out`.
pub(crate) fn emit_error(out: &mut Vec<u8>, to: &Header, error: Errno) {
    emit(out, to, TYPE_REPLY | ERROR, error.raw_os_error() as u32, &[]);
}

fn emit(out: &mut Vec<u8>, to: &Header, flags: u32, error: u32, body: &[u8]) {
    out.extend(to.id.to_ne_bytes());
    out.extend(to.command.to_ne_bytes());
    out.extend(((HEADER_LEN + body.len()) as u32).to_ne_bytes());
    out.extend(flags.to_ne_bytes());
    out.extend(error.to_ne_bytes());
    out.extend(body);
}

/// Fields in the order they come.
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_ne_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_ne_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_ne_bytes)
    }

    pub(crate) fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (chunk, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*chunk)
    }

    /// The next `len` octets.
    pub(crate) fn octets(&mut self, len: usize) -> Option<&'a [u8]> {
        let (octets, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(octets)
    }
}
