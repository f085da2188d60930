//! What differs between the generations, as data: register offsets, the mailbox, which rings carry what.
//!
//! Not established from public material: power-on values of several registers, and whether a write to a ring's base or
//! configuration also resets its head and tail. The driver resets the function, or the ring pair, before it programs a ring, and
//! writes every register it relies on.

/// Vendor of every device here.
pub(crate) const INTEL: u16 = 0x8086;

/// BAR of the ring registers, and that of mailbox and interrupt registers.
pub(crate) const RINGS: u8 = 0;
pub(crate) const MISC: u8 = 2;

/// How virtual function and physical function talk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MailboxKind {
    /// One register of two halves, with a pattern that says "in use".
    Shared {
        /// The register.
        at: u32,
    },
    /// A register for each way.
    Split {
        /// Physical to virtual function.
        to_us: u32,
        /// Virtual to physical function.
        to_them: u32,
    },
}

/// What a ring pair is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Service {
    /// Packets: requests of 128 octets.
    Symmetric,
    /// Operations on large numbers: requests of 64 octets.
    Asymmetric,
}

impl Service {
    /// Octets of a request.
    pub(crate) const fn request_len(self) -> usize {
        match self {
            Service::Symmetric => 128,
            Service::Asymmetric => 64,
        }
    }
}

/// A ring pair by its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PairPlace {
    pub(crate) bank: u8,
    pub(crate) request_ring: u8,
    pub(crate) response_ring: u8,
    pub(crate) service: Service,
}

/// One generation.
#[derive(Debug)]
pub(crate) struct Generation {
    /// For people.
    pub(crate) name: &'static str,
    /// Banks of rings a virtual function has, and the octets from one to the next.
    pub(crate) banks: u8,
    pub(crate) bank_stride: u32,
    /// Rings of a bank.
    pub(crate) rings: u8,
    /// Offsets in a bank of the first ring's configuration and base; four octets more for each further ring.
    pub(crate) ring_config: u32,
    pub(crate) ring_base_low: u32,
    pub(crate) ring_base_high: u32,
    /// Bits the base is shifted to the right when it is written.
    pub(crate) base_shift: u8,
    /// Registers and values that say which event of a ring interrupts; taken over from what drivers write.
    pub(crate) sources: &'static [(u32, u32)],
    /// Coalescing timer: about 10 microseconds, in the generation's own unit.
    pub(crate) coalesce: u32,
    /// Interrupt sources of the banks and of the mailbox: register and bits.
    pub(crate) bank_source: (u32, u32),
    pub(crate) mail_source: (u32, u32),
    /// Mask registers, and what to write to let everything through.
    pub(crate) unmask: &'static [(u32, u32)],
    pub(crate) mailbox: MailboxKind,
    /// Least octets of the two BARs.
    pub(crate) bar_len: (u64, u64),
    /// Capability bits and map of ring pairs of a physical function that says neither (version 1).
    pub(crate) default_caps: u32,
    pub(crate) default_map: u16,
    /// Ring pairs can be reset one by one through the mailbox.
    pub(crate) resets_pairs: bool,
    /// Combined modes in one slice, ChaCha20-Poly1305, functions for P-256, P-384, X25519 and X448, and numbers up to 8192 bits.
    pub(crate) fourth: bool,
}

/// C3xxx, C62x.
static SECOND: Generation = Generation {
    name: "generation 2",
    banks: 1,
    bank_stride: 0x1000,
    rings: 16,
    ring_config: 0x000,
    ring_base_low: 0x040,
    ring_base_high: 0x080,
    base_shift: 6,
    sources: &[(0x174, 0x4444_444c), (0x178, 0x4444_4444)],
    coalesce: 0x27ff,
    bank_source: (0x204, 1),
    mail_source: (0x204, 2),
    unmask: &[(0x208, 0)],
    mailbox: MailboxKind::Shared { at: 0x200 },
    bar_len: (0x1000, 0x1000),
    // Symmetric, asymmetric, cipher, authentication.
    default_caps: 0x0f,
    default_map: 0x0409,
    resets_pairs: false,
    fourth: false,
};

/// 4xxx and its successors.
static FOURTH: Generation = Generation {
    name: "generation 4",
    banks: 4,
    bank_stride: 0x2000,
    rings: 2,
    ring_config: 0x1000,
    ring_base_low: 0x1040,
    ring_base_high: 0x1080,
    base_shift: 0,
    sources: &[(0x174, 0x44)],
    // Units of 256 ns.
    coalesce: 40,
    bank_source: (0x0000, 0xf),
    mail_source: (0x1000, 1),
    unmask: &[(0x0004, 0), (0x1004, 0)],
    mailbox: MailboxKind::Split { to_us: 0x1008, to_them: 0x100c },
    bar_len: (0x8000, 0x1010),
    default_caps: 0x0003_720f,
    default_map: 0x071c,
    resets_pairs: true,
    fourth: true,
};

/// A virtual function this driver knows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Model {
    /// PCI device number.
    pub(crate) device: u16,
    /// Product.
    pub(crate) name: &'static str,
    pub(crate) generation: &'static Generation,
    /// Whether the kernel's vfio-pci refuses it unless told otherwise.
    pub(crate) denylisted: bool,
}

/// Every virtual function this driver knows.
pub(crate) static MODELS: [Model; 6] = [
    Model { device: 0x4941, name: "4xxx", generation: &FOURTH, denylisted: false },
    Model { device: 0x4943, name: "401xx", generation: &FOURTH, denylisted: false },
    Model { device: 0x4945, name: "402xx", generation: &FOURTH, denylisted: false },
    Model { device: 0x4947, name: "420xx", generation: &FOURTH, denylisted: false },
    Model { device: 0x37c9, name: "C62x", generation: &SECOND, denylisted: true },
    Model { device: 0x19e3, name: "C3xxx", generation: &SECOND, denylisted: true },
];

/// Physical functions, which the kernel's own driver has to keep: what to say when one is bound to vfio-pci by mistake.
pub(crate) static PHYSICAL: [u16; 6] = [0x4940, 0x4942, 0x4944, 0x4946, 0x37c8, 0x19e2];

/// The model of a vendor and device number.
pub(crate) fn model(vendor: u16, device: u16) -> Option<&'static Model> {
    MODELS.iter().find(|model| vendor == INTEL && model.device == device)
}

/// Codes of the map of ring pairs, three bits each.
const CRYPTO: u16 = 1;
const SYMMETRIC: u16 = 3;
const ASYMMETRIC: u16 = 4;

impl Generation {
    /// The ring pairs that a map says are for us, in order.
    pub(crate) fn pairs(&self, map: u16) -> Vec<PairPlace> {
        let code = |pair: u8| map >> (3 * pair) & 7;
        let mut all = Vec::new();
        for pair in 0..4 {
            if self.banks > 1 {
                // Each pair is a bank of its own, with one service.
                let service = match code(pair) {
                    SYMMETRIC => Service::Symmetric,
                    ASYMMETRIC => Service::Asymmetric,
                    _ => continue,
                };
                all.push(PairPlace { bank: pair, request_ring: 0, response_ring: 1, service });
                continue;
            }
            // One bank: rings 0 and 1 are asymmetric, 2 and 3 symmetric, whichever of the first two fields of the map says
            // that there is crypto; their responses come eight rings further up.
            let (service, carried) = match pair {
                0 => (Service::Asymmetric, [CRYPTO, ASYMMETRIC]),
                1 => (Service::Symmetric, [CRYPTO, SYMMETRIC]),
                _ => continue,
            };
            if carried.contains(&code(pair)) {
                for ring in [2 * pair, 2 * pair + 1] {
                    all.push(PairPlace { bank: 0, request_ring: ring, response_ring: ring + 8, service });
                }
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_maps_give_two_pairs_for_each_service() {
        for (device, map) in [(0x4941, 0x071c), (0x37c9, 0x0409)] {
            let pairs = model(INTEL, device).unwrap().generation.pairs(map);
            for service in [Service::Symmetric, Service::Asymmetric] {
                assert_eq!(pairs.iter().filter(|pair| pair.service == service).count(), 2, "{device:#x}");
            }
        }
        let fourth = model(INTEL, 0x4945).unwrap().generation;
        assert_eq!(fourth.pairs(0x06db).len(), 4, "all symmetric");
        assert_eq!(fourth.pairs(0x08db).iter().filter(|p| p.service == Service::Asymmetric).count(), 1);
        assert!(fourth.pairs(0).is_empty());
        let second = model(INTEL, 0x37c9).unwrap().generation.pairs(0x0409);
        let rings: Vec<_> = second.iter().map(|pair| (pair.request_ring, pair.response_ring)).collect();
        assert_eq!(rings, [(0, 8), (1, 9), (2, 10), (3, 11)]);
    }

    #[test]
    fn only_what_is_in_the_table_is_known() {
        assert!(model(INTEL, 0x4940).is_none(), "a physical function");
        assert!(model(0x1af4, 0x4941).is_none(), "another vendor");
        assert!(MODELS.iter().all(|model| PHYSICAL.contains(&(model.device - 1))));
    }
}
