//! Vocabulary 1: bursts of ESP packets.
//!
//! A burst is one owned [`PacketBuf`] with up to [`MAX_OPS`] packets in it, all of one SA and one direction. It is moved
//! in by `submit` and comes back whole in exactly one completion, each operation with an outcome of its own. Nothing is
//! allocated per packet.
//!
//! # Layout of one operation
//!
//! ```text
//! Seal, submitted:  at → |  8 + iv_len octets, free  | payload, padding, pad length, next header |  icv_len octets, free |
//!                                                     '---------- len ---------------------------'
//! Seal, done:       at → | SPI | seq | IV | ciphertext                                            | ICV |
//!                        '---------- len ---------------------------------------------------------------'
//! Open, submitted:  at → | SPI | seq | IV | ciphertext | ICV |      len = all of it
//! Open, done:                              at → | payload, padding, pad length, next header |  len = all of it
//! ```
//!
//! The caller pads (RFC 4303 section 2.4) to the algorithm's [`block`](crate::alg::EncrInfo::block) and strips padding after
//! opening. The device writes SPI, the low half of `seq` and the IV. For AEAD and counter modes the IV is the 64-bit
//! sequence number, which never repeats under a key; for CBC it is unpredictable (RFC 3602 section 3).
//! With ESN the high half of `seq` goes into the ICV as RFC 4303 section 2.2.1 and the algorithm's own document say.
//!
//! An operation that reaches outside its buffer (with what is free around it, as above), a packet too short for header, IV
//! and ICV, one that would be longer than 65535 octets, and CBC text that is not whole blocks are refused as
//! [`Reject::BadLength`](crate::Reject::BadLength), each for itself: the rest of the burst is carried out. A refused
//! operation keeps its `at` and `len`; the octets between are then undefined. A handle of another direction, or one that is
//! stale, fails the burst's operations all alike.

use crate::alg::{Encr, Integ};
use crate::buf::PacketBuf;
use crate::inflight::Token;
use crate::outcome::{Misuse, Outcome};
use crate::queue::Queue;
use crate::secret::Secret;

/// Operations that one burst may hold.
pub const MAX_OPS: usize = 64;

/// Octets of the ESP header before the IV: SPI and sequence number.
pub const HEADER_LEN: usize = 8;

/// A ring for packets.
pub type EspQueue = dyn Queue<Job = EspBurst, Done = EspBurst>;

/// Which way a packet goes through an SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Encrypt and add the ICV.
    Seal,
    /// Check the ICV and decrypt.
    Open,
}

/// A device's handle of an installed SA. Stale after a reset, by construction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SaId {
    /// Place in the device's table.
    pub index: u32,
    /// Epoch of the device (or of the slot) when the SA was installed.
    pub epoch: u32,
}

/// One packet of a burst; see the module's picture for what `at` and `len` mean before and after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EspOp {
    /// Full 64-bit sequence number; without ESN the high half is zero.
    pub seq: u64,
    /// Offset in the buffer, octets.
    pub at: u32,
    /// Length, octets.
    pub len: u16,
    /// Caller's mark for this packet; carried, never looked at.
    pub mark: u16,
    /// How it ended; [`Outcome::Pending`] when submitted.
    pub outcome: Outcome,
}

impl EspOp {
    /// An operation to submit.
    pub fn new(at: u32, len: u16, seq: u64) -> Self {
        EspOp { seq, at, len, mark: 0, outcome: Outcome::Pending }
    }
}

/// A burst: the unit that is submitted and that completes.
pub struct EspBurst {
    /// The caller's name for it.
    pub token: Token,
    /// The SA all packets belong to.
    pub sa: SaId,
    /// Seal or open.
    pub dir: Direction,
    /// The packets and, in [`PacketBuf::ops`], one operation for each.
    pub buf: PacketBuf,
}

/// What a device must know to carry an SA.
pub struct SaParams {
    /// The SPI that stands in the packets, host order. 1-255 are reserved (RFC 4303 section 2.1).
    pub spi: u32,
    /// Seal for an outbound SA, open for an inbound one.
    pub dir: Direction,
    /// Encryption algorithm and key size.
    pub encr: Encr,
    /// Integrity algorithm; [`Integ::NONE`] with combined-mode ciphers.
    pub integ: Integ,
    /// Encryption key followed by the salt, where the algorithm has one (RFC 4106 section 8.1).
    pub encr_key: Secret,
    /// Integrity key; empty with combined-mode ciphers.
    pub integ_key: Secret,
    /// Whether 64-bit extended sequence numbers are in use.
    pub esn: bool,
}

impl SaParams {
    /// Checks that the algorithms exist together and that the keys have the lengths they need.
    ///
    /// # Errors
    /// [`Misuse::UnknownAlgorithm`] or [`Misuse::KeyLength`].
    pub fn check(&self) -> Result<(), Misuse> {
        let encr = self.encr.info().ok_or(Misuse::UnknownAlgorithm)?;
        let integ = self.integ.info().ok_or(Misuse::UnknownAlgorithm)?;
        // Combined modes bring their own ICV; everything else needs one from outside (RFC 4303 section 3.2).
        if encr.is_aead() != (self.integ == Integ::NONE) {
            return Err(Misuse::UnknownAlgorithm);
        }
        if self.encr_key.len() != encr.key_len + encr.salt_len || self.integ_key.len() != integ.key_len {
            return Err(Misuse::KeyLength);
        }
        Ok(())
    }

    /// Octets of ICV at the end of every packet.
    pub fn icv_len(&self) -> usize {
        let encr = self.encr.info().map_or(0, |i| i.icv_len);
        encr + self.integ.info().map_or(0, |i| i.icv_len)
    }
}
