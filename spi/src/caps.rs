//! What a device can do, as data: routing is decided when an SA is set up, and the support matrix is printed from this.

use crate::alg::{Encr, Group, Integ, Prf, SignScheme};

bitflags::bitflags! {
    /// Properties that are there or not.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Traits: u32 {
        /// Bursts of one packet queue come back in the order of submission. Says nothing about operations.
        const IN_ORDER = 1 << 0;
        /// The device can be reset and used again without being opened anew.
        const RECOVERS = 1 << 1;
        /// Work is done elsewhere: `submit` returns before it is finished.
        const ASYNCHRONOUS = 1 << 2;
        /// The device insists on counting sequence numbers itself; a reset then means a new key.
        const OWNS_SEQUENCE = 1 << 3;
        /// Runs validated code only (FIPS 140).
        const FIPS = 1 << 4;
        /// The device writes and reads only registered memory.
        const DMA = 1 << 5;
    }
}

/// One ESP transform a device carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EspCap {
    /// Encryption.
    pub encr: Encr,
    /// Integrity; [`Integ::NONE`] with combined modes.
    pub integ: Integ,
    /// Whether extended sequence numbers work too.
    pub esn: bool,
}

/// Everything a device can do.
#[derive(Clone, Debug)]
pub struct Caps {
    /// ESP transforms.
    pub esp: Vec<EspCap>,
    /// Key exchange methods.
    pub dh: Vec<Group>,
    /// Schemes it signs with, given a key.
    pub sign: Vec<SignScheme>,
    /// Schemes it verifies.
    pub verify: Vec<SignScheme>,
    /// PRFs, for devices that also offer [`ShortOps`](crate::ShortOps).
    pub prf: Vec<Prf>,
    /// Properties.
    pub traits: Traits,
    /// Jobs one ring holds at most.
    pub ring: usize,
    /// SAs installed at one time.
    pub max_sas: usize,
    /// Longest packet in octets, ESP header to ICV.
    pub max_len: usize,
}

impl Caps {
    /// What can be said of a device before it is asked.
    pub const fn unknown(traits: Traits) -> Caps {
        Caps {
            esp: Vec::new(),
            dh: Vec::new(),
            sign: Vec::new(),
            verify: Vec::new(),
            prf: Vec::new(),
            traits,
            ring: 0,
            max_sas: 0,
            max_len: 0,
        }
    }

    /// Whether an SA with these transforms can be installed.
    pub fn carries(&self, encr: Encr, integ: Integ, esn: bool) -> bool {
        self.esp.iter().any(|c| c.encr == encr && c.integ == integ && (c.esn || !esn))
    }
}
