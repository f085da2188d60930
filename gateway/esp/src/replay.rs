//! The anti-replay window (RFC 4303 section 3.4.3, appendix A), as a ring of words like RFC 6479 has it: moving the
//! window clears whole words and shifts nothing.
//!
//! A packet is looked at twice. [`Window::peek`] runs before decryption and turns away what is certainly old, at no
//! cost. [`Window::commit`] runs after the ICV has verified, and is a test-and-set: with a device that works
//! asynchronously two copies of one packet can both have passed `peek`, and exactly one may pass `commit`.

/// Smallest window RFC 4303 section 3.4.3 allows.
pub(crate) const MIN_WINDOW: u32 = 32;
/// Largest window we keep.
pub(crate) const MAX_WINDOW: u32 = 65_536;

/// Why a sequence number is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// It was accepted before.
    Seen,
    /// It is left of the window, or zero, or cannot exist.
    Stale,
}

/// Which sequence numbers one inbound SA has accepted.
pub(crate) struct Window {
    /// Bit `n % 64` of word `(n / 64) % len` belongs to sequence number `n`. Empty when protection is off.
    words: Box<[u64]>,
    /// Numbers the window spans.
    size: u64,
    /// Highest number accepted.
    top: u64,
    esn: bool,
}

impl Window {
    /// A window of `size` numbers, 0 for none at all. The size must have been checked.
    pub(crate) fn new(size: u32, esn: bool) -> Self {
        // One word more than the window needs, so that the word being cleared for the future never holds its past.
        let words = if size == 0 { 0 } else { (size as usize / 64 + 2).next_power_of_two() };
        Window { words: vec![0; words].into_boxed_slice(), size: u64::from(size), top: 0, esn }
    }

    /// The full sequence number behind the 32 bits in a packet, or why it cannot be a new one.
    pub(crate) fn peek(&self, low: u32) -> Result<u64, Refused> {
        let seq = self.infer(low).ok_or(Refused::Stale)?;
        self.test(seq)?;
        Ok(seq)
    }

    /// Marks `seq` as accepted; call it when the ICV has verified. `Ok(true)`: it is the highest so far.
    pub(crate) fn commit(&mut self, seq: u64) -> Result<bool, Refused> {
        self.test(seq)?;
        let newest = seq > self.top;
        if self.words.is_empty() {
            self.top = self.top.max(seq);
            return Ok(newest);
        }
        let mask = self.words.len() - 1;
        if newest {
            let (old, new) = (self.top / 64, seq / 64);
            let steps = (new - old).min(self.words.len() as u64);
            for i in 1..=steps {
                self.words[(old + i) as usize & mask] = 0;
            }
            self.top = seq;
        }
        self.words[(seq / 64) as usize & mask] |= 1 << (seq % 64);
        Ok(newest)
    }

    /// Highest number accepted.
    pub(crate) fn top(&self) -> u64 {
        self.top
    }

    fn test(&self, seq: u64) -> Result<(), Refused> {
        if self.words.is_empty() {
            return Ok(());
        }
        // The first packet of an SA has number 1 (RFC 4303 section 3.3.3).
        if seq == 0 {
            return Err(Refused::Stale);
        }
        if seq > self.top {
            return Ok(());
        }
        if self.top - seq >= self.size {
            return Err(Refused::Stale);
        }
        let word = self.words[(seq / 64) as usize & (self.words.len() - 1)];
        if word >> (seq % 64) & 1 == 1 { Err(Refused::Seen) } else { Ok(()) }
    }

    /// RFC 4303 appendix A2.1: the high half is that of the window, unless the low half says that it has wrapped.
    fn infer(&self, low: u32) -> Option<u64> {
        if !self.esn {
            return Some(u64::from(low));
        }
        let (high, top_low) = (self.top >> 32, self.top as u32);
        let size = self.size as u32;
        let bottom = top_low.wrapping_sub(size.wrapping_sub(1));
        let high = if top_low >= size.wrapping_sub(1) {
            // Case A: the window lies within one subspace.
            if low >= bottom { high } else { high.checked_add(1).filter(|h| *h <= u64::from(u32::MAX))? }
        } else {
            // Case B: the window began in the subspace before.
            if low >= bottom { high.checked_sub(1)? } else { high }
        };
        Some(high << 32 | u64::from(low))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn first_packet_is_one_and_zero_never_is() {
        let mut w = Window::new(64, false);
        assert_eq!(w.peek(0), Err(Refused::Stale));
        assert_eq!(w.peek(1), Ok(1));
        assert_eq!(w.commit(1), Ok(true));
        assert_eq!(w.peek(1), Err(Refused::Seen));
    }

    #[test]
    fn peek_leaves_no_trace() {
        let mut w = Window::new(64, false);
        assert_eq!(w.peek(1_000_000), Ok(1_000_000), "a forged number");
        assert_eq!(w.commit(1), Ok(true), "does not silence the SA");
    }

    #[test]
    fn of_two_twins_past_peek_one_commits() {
        let mut w = Window::new(1024, false);
        let (a, b) = (w.peek(7).unwrap(), w.peek(7).unwrap());
        assert_eq!(w.commit(a), Ok(true));
        assert_eq!(w.commit(b), Err(Refused::Seen));
    }

    #[test]
    fn without_protection_everything_passes() {
        let mut w = Window::new(0, false);
        assert_eq!(w.commit(5), Ok(true));
        assert_eq!(w.commit(5), Ok(false));
        assert_eq!(w.peek(0), Ok(0));
    }

    #[test]
    fn extended_numbers_cross_the_border_both_ways() {
        let mut w = Window::new(1024, true);
        let border = 1_u64 << 32;
        for seq in [1, border - 10_000, border - 500] {
            // Jumps of less than 2^31 are inferred from the low half alone; the first is set by hand.
            w.commit(seq).unwrap();
        }
        assert_eq!(w.peek((border - 3) as u32), Ok(border - 3));
        assert_eq!(w.peek(5), Ok(border + 5), "case A: the low half has wrapped");
        w.commit(border + 5).unwrap();
        assert_eq!(
            w.peek((border - 3) as u32),
            Ok(border - 3),
            "case B: still in the window, one subspace before"
        );
        w.commit(border - 3).unwrap();
        assert_eq!(w.peek((border - 3) as u32), Err(Refused::Seen));
        assert_eq!(w.peek(6), Ok(border + 6));
    }

    #[test]
    fn nothing_exists_before_the_first_subspace_nor_after_the_last() {
        let w = Window::new(64, true);
        assert_eq!(w.peek(u32::MAX), Err(Refused::Stale));
        let mut w = Window::new(64, true);
        w.top = u64::MAX - 1;
        w.commit(u64::MAX).unwrap();
        assert_eq!(w.peek(3), Err(Refused::Stale));
    }

    /// The rule in its plainest form: a set of all numbers ever accepted.
    struct Naive {
        seen: BTreeSet<u64>,
        size: u64,
    }

    impl Naive {
        fn accepts(&self, seq: u64) -> bool {
            let top = self.seen.last().copied().unwrap_or(0);
            seq != 0 && seq + self.size > top && !self.seen.contains(&seq)
        }
    }

    proptest! {
        #[test]
        fn window_agrees_with_a_set_of_all_numbers(
            size in prop::sample::select(vec![32u32, 33, 63, 64, 65, 100, 128, 1024, 1000]),
            start in prop::sample::select(vec![0u64, 1, 60, 4000]),
            steps in prop::collection::vec((-1500i64..1500, any::<bool>()), 1..400),
        ) {
            let mut w = Window::new(size, false);
            let mut naive = Naive { seen: BTreeSet::new(), size: u64::from(size) };
            let mut at = start as i64;
            for (step, small) in steps {
                at = (at + if small { step % 70 } else { step }).max(0);
                let seq = at as u64;
                let expected = naive.accepts(seq);
                prop_assert_eq!(w.peek(seq as u32).is_ok(), expected, "peek {}", seq);
                let newest = naive.seen.last().is_none_or(|top| seq > *top);
                match w.commit(seq) {
                    Ok(n) => { prop_assert!(expected); prop_assert_eq!(n, newest); naive.seen.insert(seq); }
                    Err(_) => prop_assert!(!expected, "commit {}", seq),
                }
            }
        }

        #[test]
        fn inference_finds_any_number_near_the_top(
            top in prop_oneof![1u64..1 << 20, (1u64 << 32) - 3000..(1u64 << 32) + 3000, (7u64 << 32) - 3000..(7u64 << 32) + 3000],
            size in prop::sample::select(vec![32u32, 64, 1024, 65_536]),
            ahead in 0u64..1 << 31,
            back in 0u64..70_000,
        ) {
            let mut w = Window::new(size, true);
            w.top = top;
            // Whatever lies inside the window or up to 2^32 - size ahead of it is told apart.
            let behind = top.saturating_sub(back % u64::from(size)).max(1);
            prop_assert_eq!(w.infer(behind as u32), Some(behind));
            prop_assert_eq!(w.infer((top + ahead) as u32), Some(top + ahead));
        }
    }
}
