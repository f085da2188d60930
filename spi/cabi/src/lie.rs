//! What a plug-in may be shut out for.

use std::fmt;

/// Something a plug-in has said or done that is not so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lie {
    /// It took more jobs than it was given.
    TookTooMany { given: usize, took: u32 },
    /// It gave more completions than there was room for.
    GaveTooMany { room: usize, gave: u32 },
    /// A token that names nothing that is out: late, doubled or invented.
    FalseToken(u64),
    /// The burst is of another SA.
    WrongSa { submitted: u32, said: u32 },
    /// The burst had another number of packets.
    WrongCount { submitted: usize, said: u32 },
    /// A length that the result cannot have.
    WrongLen { expected: usize, said: usize },
    /// A status that is no status, or makes no sense there.
    WrongStatus(u32),
    /// A sealed packet begins with another SPI or sequence number.
    WrongHeader,
    /// A sealed packet has another IV than its sequence number. Under a counter mode that gives the key away.
    WrongIv,
    /// The same SA handle twice.
    DoubledHandle(u32),
    /// Something came although everything was home, after `queue_stop`.
    AfterStop(u32),
    /// What was out did not come back after `queue_stop`.
    Hoards(usize),
}

impl fmt::Display for Lie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Lie::TookTooMany { given, took } => write!(f, "it took {took} jobs of {given}"),
            Lie::GaveTooMany { room, gave } => write!(f, "it gave {gave} completions where {room} fit"),
            Lie::FalseToken(token) => {
                write!(f, "it completed {token:#x}, which is not out: late, doubled or invented")
            }
            Lie::WrongSa { submitted, said } => {
                write!(f, "it completed a burst of its SA {submitted} as one of SA {said}")
            }
            Lie::WrongCount { submitted, said } => {
                write!(f, "it completed {said} packets of a burst of {submitted}")
            }
            Lie::WrongLen { expected, said } => {
                write!(f, "it gave a length of {said} where it can only be {expected}")
            }
            Lie::WrongStatus(status) => write!(f, "it gave the status {status}, which makes no sense there"),
            Lie::WrongHeader => f.write_str("it sealed a packet under another SPI or sequence number"),
            Lie::WrongIv => {
                f.write_str("it sealed a packet under another IV than the 64-bit sequence number")
            }
            Lie::DoubledHandle(sa) => write!(f, "it gave the handle {sa} to two SAs"),
            Lie::AfterStop(count) => {
                write!(f, "it gave {count} completions after queue_stop, when everything was back")
            }
            Lie::Hoards(count) => write!(f, "{count} jobs have not come back after queue_stop"),
        }
    }
}
