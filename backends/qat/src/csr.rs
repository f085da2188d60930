//! The registers of one bank of rings.

use std::sync::Arc;

use crate::generation::{Generation, RINGS};
use crate::pci::PciFunction;

/// Offsets in a bank that all generations share.
const HEAD: u32 = 0x0c0;
const TAIL: u32 = 0x100;
const FLAG_ENABLE: u32 = 0x16c;
const COALESCED_ENABLE: u32 = 0x17c;
const COALESCED_CONTROL: u32 = 0x180;
const FLAG_AND_COALESCED: u32 = 0x184;
const ARBITER: u32 = 0x19c;

/// Size code of a ring: 64 octets, doubled so many times.
const SIZE_UNIT: usize = 64;
/// Watermark of a response ring in its configuration: 512 octets from full.
const NEAR_FULL: u32 = 8 << 10;
const COALESCE: u32 = 1 << 31;

/// One bank, to be read and written.
#[derive(Clone)]
pub(crate) struct Csr {
    function: Arc<dyn PciFunction>,
    generation: &'static Generation,
    base: u32,
}

impl Csr {
    pub(crate) fn new(function: &Arc<dyn PciFunction>, generation: &'static Generation, bank: u8) -> Self {
        let base = u32::from(bank) * generation.bank_stride;
        Csr { function: Arc::clone(function), generation, base }
    }

    /// Programs a request ring, which begins at `iova` and has `len` octets.
    pub(crate) fn set_requests(&self, ring: u8, iova: u64, len: usize) {
        self.set_ring(ring, iova, len, size_code(len));
    }

    /// Programs a response ring.
    pub(crate) fn set_responses(&self, ring: u8, iova: u64, len: usize) {
        self.set_ring(ring, iova, len, size_code(len) | NEAR_FULL);
    }

    fn set_ring(&self, ring: u8, iova: u64, len: usize, config: u32) {
        let base = (iova & !(len as u64 - 1)) >> self.generation.base_shift;
        self.write(self.generation.ring_base_low + 4 * u32::from(ring), base as u32);
        self.write(self.generation.ring_base_high + 4 * u32::from(ring), (base >> 32) as u32);
        self.write(self.generation.ring_config + 4 * u32::from(ring), config);
    }

    /// Makes a ring none.
    pub(crate) fn clear_ring(&self, ring: u8) {
        self.write(self.generation.ring_config + 4 * u32::from(ring), 0);
        self.write(self.generation.ring_base_low + 4 * u32::from(ring), 0);
        self.write(self.generation.ring_base_high + 4 * u32::from(ring), 0);
    }

    /// Everything before the first ring is programmed: no ring, no interrupt, no arbiter.
    pub(crate) fn start(&self) {
        self.write(ARBITER, 0);
        self.write(FLAG_AND_COALESCED, 0);
        self.write(COALESCED_ENABLE, 0);
        self.write(FLAG_ENABLE, 0);
        for ring in 0..self.generation.rings {
            self.clear_ring(ring);
        }
        for (at, value) in self.generation.sources {
            self.write(*at, *value);
        }
    }

    /// New requests lie before this offset. What was stored before is there when the device looks.
    pub(crate) fn set_tail(&self, ring: u8, at: u32) {
        self.write(TAIL + 4 * u32::from(ring), at);
    }

    /// Responses before this offset are done with.
    pub(crate) fn set_head(&self, ring: u8, at: u32) {
        self.write(HEAD + 4 * u32::from(ring), at);
    }

    /// Which request rings are served, one bit each.
    pub(crate) fn set_arbiter(&self, rings: u32) {
        self.write(ARBITER, rings);
        // Reading back makes sure that it has arrived.
        self.read(ARBITER);
    }

    /// Switches interrupts by response rings on, which are then armed one by one.
    pub(crate) fn start_interrupts(&self, rings: u32) {
        self.write(COALESCED_ENABLE, rings);
        self.write(COALESCED_CONTROL, COALESCE | self.generation.coalesce);
    }

    /// Which response rings interrupt; needed where a bank has several.
    pub(crate) fn set_interrupting(&self, rings: u32) {
        self.write(COALESCED_ENABLE, rings);
    }

    /// Arms these response rings: one interrupt, at once if one of them is not empty. None: no interrupt.
    pub(crate) fn arm(&self, rings: u32) {
        self.write(FLAG_AND_COALESCED, rings);
    }

    fn write(&self, at: u32, value: u32) {
        self.function.write(RINGS, self.base + at, value);
    }

    fn read(&self, at: u32) -> u32 {
        self.function.read(RINGS, self.base + at)
    }
}

fn size_code(len: usize) -> u32 {
    (len / SIZE_UNIT).max(1).ilog2()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::Fake;
    use crate::generation::{INTEL, model};

    fn writes(device: u16, bank: u8, iova: u64) -> Vec<(u32, u32)> {
        let fake = Arc::new(Fake::default());
        let function = Arc::clone(&fake) as Arc<dyn PciFunction>;
        let csr = Csr::new(&function, model(INTEL, device).unwrap().generation, bank);
        csr.set_requests(0, iova, 256 * 128);
        csr.set_responses(1, iova, 256 * 32);
        csr.set_tail(0, 128);
        csr.set_head(1, 32);
        fake.take_writes()
            .into_iter()
            .map(|(bar, at, value)| (at + 0x10_0000 * u32::from(bar), value))
            .collect()
    }

    #[test]
    fn rings_are_programmed_as_each_generation_wants_it() {
        assert_eq!(
            writes(0x37c9, 0, 0x1_2340_0000),
            [
                (0x040, 0x048d_0000),
                (0x080, 0),
                (0x000, 0x0000_0009),
                (0x044, 0x048d_0000),
                (0x084, 0),
                (0x004, 0x0000_2007),
                (0x100, 128),
                (0x0c4, 32)
            ]
        );
        assert_eq!(
            writes(0x4941, 2, 0x1_2340_0000),
            [
                (0x5040, 0x2340_0000),
                (0x5080, 1),
                (0x5000, 0x0000_0009),
                (0x5044, 0x2340_0000),
                (0x5084, 1),
                (0x5004, 0x0000_2007),
                (0x4100, 128),
                (0x40c4, 32)
            ]
        );
    }

    #[test]
    fn sizes_have_their_codes() {
        let codes = [(128, 1), (4096, 6), (16 * 1024, 8), (4 << 20, 16)];
        assert!(codes.iter().all(|(len, code)| size_code(*len) == *code));
    }
}
