//! Which card this is: identity, and where its registers are.

use std::fmt;
use std::str::FromStr;

/// A virtual function of Intel QuickAssist that can be emulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Personality {
    /// 8086:4941, of the 4xxx in Sapphire Rapids and later Xeons (generation 4).
    Vf4941,
    /// 8086:4943, of the 401xx.
    Vf4943,
    /// 8086:4945, of the 402xx.
    Vf4945,
    /// 8086:4947, of the 420xx, without its wireless slice.
    Vf4947,
    /// 8086:37c9, of the C62x chip set and the 8960/8970 cards (generation 2).
    Vf37c9,
}

/// All of them, in the order they are listed to people.
pub const PERSONALITIES: [Personality; 5] =
    [Personality::Vf4941, Personality::Vf4943, Personality::Vf4945, Personality::Vf4947, Personality::Vf37c9];

/// What differs between generations, as far as it can be said in numbers.
#[derive(Debug)]
pub(crate) struct Layout {
    pub(crate) generation: Generation,
    /// Ring banks of the function.
    pub(crate) banks: usize,
    /// Octets from one bank to the next.
    pub(crate) bank_stride: u64,
    /// Rings of a bank; the upper half answers to the lower half.
    pub(crate) rings: usize,
    /// Where the configuration of ring 0 is, in a bank; the base address registers follow at 0x40 and 0x80.
    pub(crate) ring_config: u64,
    /// Base registers hold the address without so many low bits.
    pub(crate) base_shift: u32,
    /// Octets of base address registers 0 (rings) and 2 (mailbox).
    pub(crate) bar_len: [u64; 2],
    pub(crate) revision: u8,
    /// What the mailbox says the device can do, unless told otherwise.
    pub(crate) capabilities: u32,
    /// What the mailbox says the rings are for, unless told otherwise.
    pub(crate) ring_map: u16,
    /// Nanoseconds of one tick of the interrupt timer, and the bits of its value.
    pub(crate) tick: u64,
    pub(crate) tick_mask: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Generation {
    Two,
    Four,
}

/// BAR sizes and revisions of the silicon are not published; these hold all registers that drivers use and are whole
/// pages, which is what drivers check.
static GENERATION_2: Layout = Layout {
    generation: Generation::Two,
    banks: 1,
    bank_stride: 0x1000,
    rings: 16,
    ring_config: 0x000,
    base_shift: 6,
    bar_len: [0x4000, 0x1000],
    revision: 0x04,
    // Symmetric, asymmetric, cipher, authentication. Bit 26 (AES version 2) would change formats that this generation
    // does not have; bit 5 (compression) would make Linux test what is not here.
    capabilities: 0x0000_000f,
    ring_map: 0x0409,
    tick: 4,
    tick_mask: 0x000f_ffff,
};

static GENERATION_4: Layout = Layout {
    generation: Generation::Four,
    banks: 4,
    bank_stride: 0x2000,
    rings: 2,
    ring_config: 0x1000,
    base_shift: 0,
    bar_len: [0x8000, 0x2000],
    revision: 0x40,
    // The four above, SHA-3, HKDF, Edwards and Montgomery curves, chaining, single-pass GCM, ChaCha20-Poly1305.
    capabilities: 0x0003_720f,
    ring_map: 0x071c,
    tick: 256,
    tick_mask: 0x0000_ffff,
};

impl Personality {
    /// The PCI device number.
    pub fn device_id(self) -> u16 {
        match self {
            Personality::Vf4941 => 0x4941,
            Personality::Vf4943 => 0x4943,
            Personality::Vf4945 => 0x4945,
            Personality::Vf4947 => 0x4947,
            Personality::Vf37c9 => 0x37c9,
        }
    }

    pub(crate) fn layout(self) -> &'static Layout {
        match self {
            Personality::Vf37c9 => &GENERATION_2,
            _ => &GENERATION_4,
        }
    }
}

impl fmt::Display for Personality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}", self.device_id())
    }
}

impl FromStr for Personality {
    type Err = String;

    /// From the device number, with or without `8086:`.
    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.strip_prefix("8086:").unwrap_or(text);
        PERSONALITIES.into_iter().find(|p| p.to_string() == number.to_ascii_lowercase()).ok_or_else(|| {
            let known = PERSONALITIES.map(|p| p.to_string()).join(", ");
            format!("there is no emulation of {text}; there are: {known}")
        })
    }
}

impl Layout {
    /// What the rings of a pair are for, by the ring-to-service map. `tx` is the number of the request ring.
    pub(crate) fn ring_use(&self, map: u16, bank: usize, tx: usize) -> RingUse {
        match self.generation {
            // Fixed: asymmetric 0 and 1, symmetric 2 and 3, compression 6 and 7.
            Generation::Two => match tx {
                0 | 1 => RingUse::Asymmetric,
                2 | 3 => RingUse::Symmetric,
                6 | 7 => RingUse::Compression,
                _ => RingUse::None,
            },
            Generation::Four => match (map >> (3 * bank.min(3))) & 7 {
                3 => RingUse::Symmetric,
                4 => RingUse::Asymmetric,
                2 | 5 => RingUse::Compression,
                // One pair of rings cannot be both.
                _ => RingUse::None,
            },
        }
    }
}

/// What a ring pair is for. The device is not told the length of its requests; this decides it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RingUse {
    Symmetric,
    Asymmetric,
    Compression,
    None,
}

impl RingUse {
    /// Octets of a request.
    pub(crate) fn request_len(self) -> usize {
        match self {
            RingUse::Asymmetric => 64,
            _ => 128,
        }
    }

    /// Its place in [`SERVICES`].
    pub(crate) fn service(self) -> Option<usize> {
        match self {
            RingUse::Symmetric => Some(0),
            RingUse::Asymmetric => Some(1),
            _ => None,
        }
    }
}

/// What a fault plan calls the services.
pub const SERVICES: [&str; 2] = ["sym", "asym"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn personalities_are_named_by_their_device_number() {
        for personality in PERSONALITIES {
            assert_eq!(personality.to_string().parse(), Ok(personality));
        }
        assert_eq!("8086:4941".parse(), Ok(Personality::Vf4941));
        let error = Personality::from_str("4940").unwrap_err();
        assert_eq!(error, "there is no emulation of 4940; there are: 4941, 4943, 4945, 4947, 37c9");
    }

    #[test]
    fn the_map_says_what_rings_are_for() {
        let four = Personality::Vf4941.layout();
        let uses: Vec<_> = (0..4).map(|bank| four.ring_use(0x071c, bank, 0)).collect();
        use RingUse::{Asymmetric, Compression, None, Symmetric};
        assert_eq!(uses, [Asymmetric, Symmetric, Asymmetric, Symmetric]);
        let uses: Vec<_> = (0..4).map(|bank| four.ring_use(0x08db, bank, 0)).collect();
        assert_eq!(uses, [Symmetric, Symmetric, Symmetric, Asymmetric]);
        let two = Personality::Vf37c9.layout();
        let uses: Vec<_> = (0..8).map(|ring| two.ring_use(0x0409, 0, ring)).collect();
        let (a, s, c) = (Asymmetric, Symmetric, Compression);
        assert_eq!(uses, [a, a, s, s, None, None, c, c]);
    }
}
