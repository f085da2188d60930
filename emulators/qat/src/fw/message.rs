//! Requests as octets: the part that all services have.

/// Services, in the header of a message.
pub(crate) mod service {
    pub(crate) const NULL: u8 = 0;
    pub(crate) const PKE: u8 = 3;
    pub(crate) const LA: u8 = 4;
}

const VALID: u8 = 0x80;

/// One element of a request ring. What is beyond its end reads as zero.
#[derive(Clone, Copy)]
pub(crate) struct Request<'a>(pub(crate) &'a [u8]);

impl Request<'_> {
    pub(crate) fn command(&self) -> u8 {
        self.u8(1)
    }

    pub(crate) fn service(&self) -> u8 {
        self.u8(2)
    }

    pub(crate) fn is_valid(&self) -> bool {
        self.u8(3) & VALID != 0
    }

    /// What the driver wants to find in the response.
    pub(crate) fn opaque(&self) -> u64 {
        self.u64(24)
    }

    pub(crate) fn u8(&self, at: usize) -> u8 {
        self.0.get(at).copied().unwrap_or(0)
    }

    pub(crate) fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes(self.array(at))
    }

    pub(crate) fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.array(at))
    }

    pub(crate) fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.array(at))
    }

    pub(crate) fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        self.0.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or([0; N])
    }
}
