//! Sequence numbers of an outbound SA (RFC 4303 section 3.3.3), and how much an SA may carry.
//!
//! A packet's place is reserved when the packet is taken; its number is given when its burst goes to the device. So no
//! number is spent on a packet that never leaves, and none is promised that does not exist.

use crate::sa::Limits;

/// Numbers left when re-keying is asked for, whatever the limits say.
const WARN_BEFORE: u64 = 1 << 20;

/// The counter.
#[derive(Debug)]
pub(crate) struct Sequence {
    last: u64,
    reserved: u64,
    max: u64,
}

impl Sequence {
    /// A new counter; the first number will be 1.
    pub(crate) fn new(esn: bool) -> Self {
        Sequence { last: 0, reserved: 0, max: if esn { u64::MAX } else { u64::from(u32::MAX) } }
    }

    /// Takes a place. False: the numbers are used up, and it would wrap.
    pub(crate) fn reserve(&mut self) -> bool {
        let room = self.max - self.last > self.reserved;
        self.reserved += u64::from(room);
        room
    }

    /// Gives places back that were never numbered.
    pub(crate) fn release(&mut self, places: u64) {
        self.reserved = self.reserved.saturating_sub(places);
    }

    /// The next number, for a place that was reserved.
    pub(crate) fn next(&mut self) -> u64 {
        debug_assert!(self.reserved > 0, "a place is reserved first");
        self.reserved = self.reserved.saturating_sub(1);
        self.last += 1;
        self.last
    }

    /// Whether few numbers are left: ask for re-keying.
    pub(crate) fn runs_out(&self) -> bool {
        self.max - self.last - self.reserved < WARN_BEFORE.min(self.max / 16)
    }

    /// Last number given.
    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    #[cfg(test)]
    pub(crate) fn set_last(&mut self, last: u64) {
        self.last = last;
    }
}

/// What an SA has carried, against what it may.
#[derive(Debug)]
pub(crate) struct Usage {
    /// Packets.
    pub(crate) packets: u64,
    /// Payload octets.
    pub(crate) bytes: u64,
    limits: Limits,
    soft_told: bool,
    hard_told: bool,
}

/// What to tell about an SA's usage; each is said once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    /// Nothing new.
    None,
    /// Ask for re-keying.
    Soft,
    /// It is over.
    Hard,
}

impl Usage {
    pub(crate) fn new(limits: Limits) -> Self {
        Usage { packets: 0, bytes: 0, limits, soft_told: false, hard_told: false }
    }

    /// Whether nothing more may be carried.
    pub(crate) fn is_over(&self) -> bool {
        self.packets >= self.limits.hard_packets || self.bytes >= self.limits.hard_bytes
    }

    /// Counts one packet of `bytes` octets.
    pub(crate) fn count(&mut self, bytes: usize) {
        self.packets += 1;
        self.bytes = self.bytes.saturating_add(bytes as u64);
    }

    /// What should be told now, given whether the sequence numbers run out.
    pub(crate) fn notice(&mut self, runs_out: bool) -> Notice {
        if self.is_over() && !self.hard_told {
            self.hard_told = true;
            self.soft_told = true;
            return Notice::Hard;
        }
        let soft =
            runs_out || self.packets >= self.limits.soft_packets || self.bytes >= self.limits.soft_bytes;
        if soft && !self.soft_told {
            self.soft_told = true;
            return Notice::Soft;
        }
        Notice::None
    }

    /// Says once that it is over, for a reason of the caller's.
    pub(crate) fn expire(&mut self) -> Notice {
        if std::mem::replace(&mut self.hard_told, true) { Notice::None } else { Notice::Hard }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_start_at_one_and_never_wrap() {
        let mut seq = Sequence::new(false);
        assert!(seq.reserve());
        assert_eq!(seq.next(), 1);
        seq.set_last(u64::from(u32::MAX) - 2);
        assert!(seq.runs_out());
        assert!(seq.reserve() && seq.reserve());
        assert!(!seq.reserve(), "two numbers, two places");
        seq.release(1);
        assert!(seq.reserve());
        assert_eq!((seq.next(), seq.next()), (u64::from(u32::MAX) - 1, u64::from(u32::MAX)));
        assert!(!seq.reserve());
    }

    #[test]
    fn extended_numbers_pass_the_32_bit_border_and_stop_at_the_64_bit_one() {
        let mut seq = Sequence::new(true);
        seq.set_last(u64::from(u32::MAX));
        assert!(!seq.runs_out());
        assert!(seq.reserve());
        assert_eq!(seq.next(), 1 << 32);
        seq.set_last(u64::MAX);
        assert!(!seq.reserve());
    }

    #[test]
    fn each_limit_is_told_once() {
        let limits = Limits { soft_packets: 2, hard_packets: 3, ..Limits::default() };
        let mut usage = Usage::new(limits);
        let mut said = Vec::new();
        for _ in 0..5 {
            if !usage.is_over() {
                usage.count(100);
            }
            said.push(usage.notice(false));
        }
        assert_eq!(said, [Notice::None, Notice::Soft, Notice::Hard, Notice::None, Notice::None]);
        assert_eq!((usage.packets, usage.bytes), (3, 300));
    }
}
