//! PCI configuration space.

use crate::personality::Personality;

const LEN: usize = 4096;

const COMMAND: usize = 0x04;
const BUS_MASTER: u8 = 1 << 2;
const BAR: usize = 0x10;
/// Capabilities begin behind 0x50: drivers read the fuses of generation 4 between 0x40 and 0x50, and zero says that
/// nothing is disabled.
const MSI: usize = 0x50;
const EXPRESS: usize = 0x80;
const DEVICE_CONTROL: usize = EXPRESS + 8;

/// Configuration space: what is there, and which bits can be written.
pub(crate) struct ConfigSpace {
    octets: [u8; LEN],
    writable: [u8; LEN],
}

/// What a write to configuration space brings about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    None,
    /// A function-level reset was ordered.
    Reset,
    /// Bus mastering was switched on.
    Mastering,
}

impl ConfigSpace {
    pub(crate) fn new(personality: Personality) -> Self {
        let mut space = ConfigSpace { octets: [0; LEN], writable: [0; LEN] };
        let layout = personality.layout();
        space.put(0x00, &0x8086u16.to_le_bytes());
        space.put(0x02, &personality.device_id().to_le_bytes());
        // Memory, bus master, parity, SERR, and the switch for the interrupt wire, which there is none of.
        space.allow(COMMAND, &[0x46, 0x05]);
        // There is a list of capabilities.
        space.put(0x06, &[0x10, 0]);
        // Revision and class: a co-processor.
        space.put(0x08, &[layout.revision, 0, 0x40, 0x0b]);
        space.put(0x2c, &0x8086u16.to_le_bytes());
        space.put(0x34, &[MSI as u8]);
        for (bar, len) in [0, 2].into_iter().zip(layout.bar_len) {
            let at = BAR + 4 * bar;
            // 64-bit, prefetchable; the writable bits say how long it is.
            space.put(at, &[0x0c]);
            space.allow(at, &(!(len - 1)).to_le_bytes());
        }
        // MSI: one vector, 64-bit address.
        space.put(MSI, &[0x05, EXPRESS as u8, 0x80, 0]);
        space.allow(MSI + 2, &[0x01]);
        space.allow(MSI + 4, &[0xfc, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
        // PCI Express: version 2, an endpoint, 256 octets of payload, role-based errors, function-level reset.
        space.put(EXPRESS, &[0x10, 0, 0x02, 0, 0x01, 0x80, 0x00, 0x10]);
        space.allow(DEVICE_CONTROL, &[0xff, 0x7f]);
        // A link of sixteen lanes at 8 GT/s.
        space.put(EXPRESS + 0x0c, &[0x03, 0x01, 0, 0]);
        space.put(EXPRESS + 0x12, &[0x03, 0x01]);
        space
    }

    /// Reads; `offset` and length were checked by the caller, and what is beyond reads as zero.
    pub(crate) fn read(&self, offset: usize, into: &mut [u8]) {
        for (octet, at) in into.iter_mut().zip(offset..) {
            *octet = self.octets.get(at).copied().unwrap_or(0);
        }
    }

    /// Writes what can be written, and says what that brings about.
    pub(crate) fn write(&mut self, offset: usize, from: &[u8]) -> Effect {
        let mastered = self.bus_master();
        let mut reset = false;
        for (octet, at) in from.iter().zip(offset..) {
            // The bit that orders a reset reads as zero.
            reset |= at == DEVICE_CONTROL + 1 && octet & 0x80 != 0;
            if let (Some(old), Some(mask)) = (self.octets.get_mut(at), self.writable.get(at)) {
                *old = (*old & !mask) | (octet & mask);
            }
        }
        match (reset, self.bus_master() && !mastered) {
            (true, _) => Effect::Reset,
            (_, true) => Effect::Mastering,
            _ => Effect::None,
        }
    }

    /// After a reset everything that could be written is as it was in the beginning: zero.
    pub(crate) fn reset(&mut self) {
        for (octet, mask) in self.octets.iter_mut().zip(&self.writable) {
            *octet &= !mask;
        }
    }

    /// Whether the device may reach memory, and send MSIs, which is the same thing.
    pub(crate) fn bus_master(&self) -> bool {
        self.octets.get(COMMAND).is_some_and(|octet| octet & BUS_MASTER != 0)
    }

    fn put(&mut self, at: usize, octets: &[u8]) {
        for (slot, octet) in self.octets.iter_mut().skip(at).zip(octets) {
            *slot = *octet;
        }
    }

    fn allow(&mut self, at: usize, mask: &[u8]) {
        for (slot, octet) in self.writable.iter_mut().skip(at).zip(mask) {
            *slot = *octet;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(space: &ConfigSpace, at: usize) -> u32 {
        let mut octets = [0; 4];
        space.read(at, &mut octets);
        u32::from_le_bytes(octets)
    }

    #[test]
    fn a_bar_tells_its_length_when_it_is_asked() {
        let mut space = ConfigSpace::new(Personality::Vf4941);
        assert_eq!(word(&space, 0), 0x4941_8086);
        for (at, len) in [(0x10, 0x8000), (0x18, 0x2000)] {
            space.write(at, &[0xff; 8]);
            let value = u64::from(word(&space, at)) | u64::from(word(&space, at + 4)) << 32;
            assert_eq!(value & 0xf, 0xc, "64 bits, prefetchable");
            assert_eq!(!(value & !0xf) + 1, len);
        }
        space.write(0x20, &[0xff; 8]);
        assert_eq!(word(&space, 0x20), 0, "there is no third");
    }

    #[test]
    fn the_list_of_capabilities_is_msi_and_express_with_reset() {
        let space = ConfigSpace::new(Personality::Vf37c9);
        assert_eq!(word(&space, 0x34) & 0xff, 0x50);
        assert_eq!(word(&space, 0x50), 0x0080_8005);
        assert_eq!(word(&space, 0x80) & 0xffff, 0x0010);
        assert_eq!(word(&space, 0x84) >> 28 & 1, 1, "function-level reset");
        for fuse in [0x40, 0x44, 0x4c, 0x1c4, 0x1c8] {
            assert_eq!(word(&space, fuse), 0);
        }
    }

    #[test]
    fn a_reset_is_ordered_by_a_bit_that_does_not_stay() {
        let mut space = ConfigSpace::new(Personality::Vf4941);
        assert_eq!(space.write(0x04, &[0x06, 0]), Effect::Mastering);
        assert_eq!(space.write(0x04, &[0x06, 0]), Effect::None);
        space.write(0x52, &[1, 0]);
        assert_eq!(space.write(0x88, &[0x10, 0x80]), Effect::Reset);
        assert_eq!(word(&space, 0x88), 0x10);
        space.reset();
        assert!(!space.bus_master());
        assert_eq!(word(&space, 0x50), 0x0080_8005, "MSI is off again");
        assert_eq!(space.write(0, &[0; 4]), Effect::None);
        assert_eq!(word(&space, 0), 0x4941_8086, "who it is cannot be written");
    }
}
