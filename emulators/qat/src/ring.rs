//! One ring: where it is, and how far each side has come.

/// Octets of a response.
pub(crate) const RESPONSE_LEN: u32 = 32;

/// The registers of one ring.
#[derive(Clone, Debug)]
pub(crate) struct Ring {
    /// Size code and watermarks, as written.
    pub(crate) config: u32,
    /// Both base registers, as written.
    pub(crate) base: u64,
    /// How far the reader has come, in octets.
    pub(crate) head: u32,
    /// How far the writer has come.
    pub(crate) tail: u32,
    /// Fetching failed; nothing is fetched until the driver writes to the ring again.
    pub(crate) halted: bool,
    base_shift: u32,
}

impl Ring {
    pub(crate) fn new(base_shift: u32) -> Self {
        Ring { config: 0, base: 0, head: 0, tail: 0, halted: false, base_shift }
    }

    /// A new configuration: the ring begins at its beginning. What silicon does is not published; drivers write the
    /// configuration once and count from zero.
    pub(crate) fn configure(&mut self, config: u32) {
        self.config = config;
        self.restart();
    }

    /// A new base address, likewise.
    pub(crate) fn rebase(&mut self, base: u64) {
        self.base = base;
        self.restart();
    }

    fn restart(&mut self) {
        self.head = 0;
        self.tail = 0;
        self.halted = false;
    }

    /// Octets; none if the ring is off or its size code does not exist.
    pub(crate) fn len(&self) -> Option<u32> {
        match self.config & 0x1f {
            code @ 1..=16 => Some(64 << code),
            _ => None,
        }
    }

    /// The address of an offset; none if the ring is off.
    pub(crate) fn address(&self, offset: u32) -> Option<u64> {
        let len = u64::from(self.len()?);
        // A ring is aligned to its size, so lower bits of the base mean nothing.
        ((self.base << self.base_shift) & !(len - 1)).checked_add(u64::from(offset))
    }

    /// An offset in the ring.
    pub(crate) fn wrap(&self, offset: u32) -> u32 {
        self.len().map_or(0, |len| offset & (len - 1))
    }

    /// Octets that were written and not read.
    pub(crate) fn filled(&self) -> u32 {
        self.wrap(self.tail.wrapping_sub(self.head))
    }

    /// Octets that can be written; one response less than is free, or full and empty would look the same.
    pub(crate) fn room(&self) -> Option<u32> {
        self.len()?.checked_sub(self.filled())?.checked_sub(RESPONSE_LEN)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.head == self.tail
    }

    pub(crate) fn is_full(&self) -> bool {
        self.room().is_some_and(|room| room < RESPONSE_LEN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(code: u32) -> Ring {
        let mut ring = Ring::new(0);
        ring.configure(code);
        ring
    }

    #[test]
    fn sizes_are_those_of_the_codes() {
        assert_eq!(ring(0x0009).len(), Some(32 << 10));
        assert_eq!(ring(0x2007).len(), Some(8 << 10));
        assert_eq!(ring(0x10).len(), Some(4 << 20));
        assert_eq!([ring(0).len(), ring(0x11).len(), ring(0x1f).len()], [None; 3]);
    }

    #[test]
    fn lower_bits_of_the_base_mean_nothing() {
        let mut ring = ring(9);
        ring.rebase(0x1_2340_0fff);
        assert_eq!(ring.address(0), Some(0x1_2340_0000));
        ring.rebase(u64::MAX);
        assert_eq!(ring.address(0x7fff), Some(u64::MAX));
    }

    #[test]
    fn offsets_wrap_at_the_size_of_the_ring() {
        let mut ring = ring(1);
        ring.head = ring.wrap(96);
        ring.tail = ring.wrap(128 + 32);
        assert_eq!((ring.tail, ring.filled(), ring.room()), (32, 64, Some(32)));
        assert!(!ring.is_full());
        ring.tail = ring.wrap(64);
        assert!(ring.is_full());
        // A tail that is written while the ring is off leads nowhere.
        assert_eq!(Ring::new(6).wrap(u32::MAX), 0);
    }
}
