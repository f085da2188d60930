//! Messages of vfio-user as octets, in the machine's own order: both ends are on it.

/// Octets of a header.
pub(super) const HEADER: usize = 16;
/// Octets of the longest message that is taken. Answers to what is asked here have some ten, a version some hundred.
pub(super) const LONGEST: usize = 8192;

/// Commands.
pub(super) mod command {
    pub(in super::super) const VERSION: u16 = 1;
    pub(in super::super) const DMA_MAP: u16 = 2;
    pub(in super::super) const DMA_UNMAP: u16 = 3;
    pub(in super::super) const GET_REGION_INFO: u16 = 5;
    pub(in super::super) const GET_IRQ_INFO: u16 = 7;
    pub(in super::super) const SET_IRQS: u16 = 8;
    pub(in super::super) const REGION_READ: u16 = 9;
    pub(in super::super) const REGION_WRITE: u16 = 10;
    pub(in super::super) const DEVICE_RESET: u16 = 13;
}

const TYPE: u32 = 0xf;
const REPLY: u32 = 1;
const NO_REPLY: u32 = 1 << 4;
const ERROR: u32 = 1 << 5;

/// A message under construction.
pub(super) struct Message {
    command: u16,
    octets: Vec<u8>,
}

impl Message {
    pub(super) fn new(command: u16) -> Self {
        let mut octets = Vec::with_capacity(64);
        octets.extend([0; HEADER]);
        Message { command, octets }
    }

    pub(super) fn command(&self) -> u16 {
        self.command
    }

    pub(super) fn u16(mut self, value: u16) -> Self {
        self.octets.extend(value.to_ne_bytes());
        self
    }

    pub(super) fn u32(mut self, value: u32) -> Self {
        self.octets.extend(value.to_ne_bytes());
        self
    }

    pub(super) fn u64(mut self, value: u64) -> Self {
        self.octets.extend(value.to_ne_bytes());
        self
    }

    pub(super) fn octets(mut self, octets: &[u8]) -> Self {
        self.octets.extend(octets);
        self
    }

    /// The whole, numbered; to be answered, or not.
    pub(super) fn finish(mut self, id: u16, answered: bool) -> Vec<u8> {
        let len = self.octets.len() as u32;
        let flags = if answered { 0 } else { NO_REPLY };
        self.octets[..2].copy_from_slice(&id.to_ne_bytes());
        self.octets[2..4].copy_from_slice(&self.command.to_ne_bytes());
        self.octets[4..8].copy_from_slice(&len.to_ne_bytes());
        self.octets[8..12].copy_from_slice(&flags.to_ne_bytes());
        self.octets
    }
}

/// What every message begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) id: u16,
    pub(super) command: u16,
    /// Octets that follow.
    pub(super) rest: usize,
    pub(super) is_reply: bool,
    /// What the server says went wrong.
    pub(super) error: Option<i32>,
}

impl Header {
    /// `None` when no message that is taken begins like this.
    pub(super) fn parse(octets: &[u8; HEADER]) -> Option<Header> {
        let mut fields = Fields(octets);
        let (id, command) = (fields.u16()?, fields.u16()?);
        let (len, flags, error) = (fields.u32()? as usize, fields.u32()?, fields.u32()?);
        let rest = len.checked_sub(HEADER).filter(|_| len <= LONGEST)?;
        let error = (flags & ERROR != 0).then_some(error as i32);
        Some(Header { id, command, rest, is_reply: flags & TYPE == REPLY, error })
    }
}

/// Fields in the order they come.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl Fields<'_> {
    pub(super) fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_ne_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_ne_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_ne_bytes)
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (octets, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*octets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_as_the_protocol_has_them() {
        let octets = Message::new(command::REGION_WRITE)
            .u64(0x100)
            .u32(2)
            .u32(4)
            .octets(&[1, 2, 3, 4])
            .finish(7, false);
        assert_eq!(octets.len(), 36);
        let header = Header::parse(octets.first_chunk().unwrap()).unwrap();
        assert_eq!((header.id, header.command, header.rest), (7, 10, 20));
        assert!(!header.is_reply && header.error.is_none());
        assert_eq!(octets[8..12], 0x10u32.to_ne_bytes(), "no answer is wanted");
    }

    #[test]
    fn lengths_that_cannot_be_are_refused() {
        let with_len = |len: u32| {
            let mut octets = [0; HEADER];
            octets[4..8].copy_from_slice(&len.to_ne_bytes());
            Header::parse(&octets).map(|header| header.rest)
        };
        assert_eq!(with_len(15), None);
        assert_eq!(with_len(16), Some(0));
        assert_eq!(with_len(LONGEST as u32 + 1), None);
        assert_eq!(with_len(u32::MAX), None);
    }
}
