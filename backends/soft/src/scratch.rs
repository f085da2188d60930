//! What a ring for packets keeps for itself, so that SAs need not have it each.

use spi::{Fault, FaultKind};
use zeroize::Zeroize;

use crate::sys::mac::AesBlock;

/// State of one ring.
pub(crate) struct Scratch {
    pub(crate) ivs: Ivs,
    #[cfg(feature = "ipsec-mb")]
    pub(crate) imb: crate::imb::Kept,
}

impl Scratch {
    pub(crate) fn new() -> Result<Self, Fault> {
        Ok(Scratch {
            ivs: Ivs::new()?,
            #[cfg(feature = "ipsec-mb")]
            imb: crate::imb::Kept::default(),
        })
    }
}

/// Where the IVs of packets come from.
pub(crate) struct Ivs {
    key: AesBlock,
    next: u128,
}

impl Ivs {
    fn new() -> Result<Self, Fault> {
        let mut key = [0; 16];
        aws_lc_rs::rand::fill(&mut key).map_err(|_| FaultKind::Internal)?;
        let ivs = Ivs { key: AesBlock::new(&key), next: 0 };
        key.zeroize();
        Ok(ivs)
    }

    /// Writes the IV of a packet. CBC must be `unpredictable` (RFC 3602 section 3): a counter encrypted under a key of the
    /// ring's own cannot be foretold and does not repeat, whichever SA it goes to. For the others it is the sequence number,
    /// which never repeats under a key (RFC 3686 section 3.1); NULL has no IV to write.
    pub(crate) fn write(&mut self, unpredictable: bool, seq: u64, iv: &mut [u8]) {
        if !unpredictable {
            iv.iter_mut().zip(seq.to_be_bytes()).for_each(|(to, from)| *to = from);
            return;
        }
        let mut block = self.next.to_be_bytes();
        self.next += 1;
        self.key.encrypt(&mut block);
        iv.iter_mut().zip(block).for_each(|(to, from)| *to = from);
    }
}
