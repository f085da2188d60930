//! How a job ended. A verdict on the input, a mistake of the caller and trouble with the device are three types,
//! because they call for three different answers: drop the packet, fix the program, switch the device.

use std::fmt;

/// How one operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Submitted and not decided yet; never seen in a completion.
    Pending,
    /// Carried out.
    Done,
    /// The input was judged and refused. The device is well.
    Rejected(Reject),
    /// The device could not do it. Says nothing about the input.
    Failed(Fault),
}

/// A verdict on the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reject {
    /// The integrity check value does not match (RFC 4303 section 3.4.4).
    BadIcv,
    /// A public value that may not be used: off the curve, out of range, wrong length, all-zero result
    /// (RFC 6989, RFC 7748 section 6).
    BadPublicInput,
    /// The signature does not verify, or is not one.
    BadSignature,
    /// Too short or too long to be what it claims to be.
    BadLength,
}

/// Trouble with the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fault {
    /// What the caller can do about it.
    pub kind: FaultKind,
    /// The vendor's own code, for the log; 0 when there is none.
    pub vendor: u32,
}

/// Faults, named by what can be done about them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FaultKind {
    /// The device was reset under the job: an operation may be issued again, a packet is lost.
    Aborted,
    /// The handle belongs to an earlier epoch: install again.
    StaleHandle,
    /// The device never could: a routing mistake, found by looking at [`Caps`](crate::Caps).
    Unsupported,
    /// A table or ring of the device is full: another device, or later.
    Exhausted,
    /// Anything else.
    Internal,
}

impl Fault {
    /// A fault without a vendor code.
    pub const fn new(kind: FaultKind) -> Self {
        Fault { kind, vendor: 0 }
    }
}

impl From<FaultKind> for Fault {
    fn from(kind: FaultKind) -> Self {
        Fault::new(kind)
    }
}

/// A mistake of the caller: the program is wrong, not the peer and not the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Misuse {
    /// A key, salt or IV of the wrong length for its algorithm.
    KeyLength,
    /// An operation that points outside its buffer.
    OutOfBounds,
    /// An algorithm number that is not in the table.
    UnknownAlgorithm,
}

impl fmt::Display for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reject::BadIcv => "integrity check failed",
            Reject::BadPublicInput => "unusable public value",
            Reject::BadSignature => "signature does not verify",
            Reject::BadLength => "impossible length",
        })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            FaultKind::Aborted => "aborted by a device reset",
            FaultKind::StaleHandle => "handle of an earlier epoch",
            FaultKind::Unsupported => "not supported by the device",
            FaultKind::Exhausted => "device out of room",
            FaultKind::Internal => "device error",
        };
        match self.vendor {
            0 => f.write_str(what),
            code => write!(f, "{what} (vendor code {code:#x})"),
        }
    }
}

impl fmt::Display for Misuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Misuse::KeyLength => "key of the wrong length",
            Misuse::OutOfBounds => "operation outside its buffer",
            Misuse::UnknownAlgorithm => "unknown algorithm",
        })
    }
}

impl std::error::Error for Reject {}
impl std::error::Error for Fault {}
impl std::error::Error for Misuse {}
