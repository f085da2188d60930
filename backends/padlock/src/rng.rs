//! Random octets of XSTORE, and whether to believe in them.
//!
//! A source that has got stuck or biased looks like one that works. So every octet goes through the two continuous tests of
//! SP 800-90B section 4.4, with cutoffs for four bits of entropy in an octet and a false alarm in 2^40. One alarm, and the unit
//! is not asked again until its device is opened anew.

use std::sync::atomic::{AtomicU64, Ordering};

use zeroize::Zeroize;

use crate::sys::isa;

/// The slowest and best of four: one octet at a time.
const QUALITY: u32 = 3;

/// Times that the unit is asked for the next octets before it is given up.
const PATIENCE: usize = 10_000;

/// So many equal octets one behind the other are an alarm: 1 + 40 / 4.
const REPEATED: u32 = 11;

/// So many octets make a window, and so many of them equal to its first are an alarm.
const WINDOW: u32 = 512;
const FREQUENT: u32 = 82;

/// Octets that are looked at before the first is given out.
const BEGIN: usize = 1024;

/// Why a unit gives nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sick {
    /// It has nothing to give, however often it is asked.
    Dry,
    /// It gives more octets at once than there are.
    Odd,
    /// The same octet again and again.
    Stuck,
    /// One octet too often.
    Biased,
}

/// What was counted.
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) octets: AtomicU64,
    pub(crate) waits: AtomicU64,
    pub(crate) alarms: AtomicU64,
}

/// The unit, and what the tests have seen of it.
pub(crate) struct Rng {
    health: Health,
    begun: bool,
    sick: Option<Sick>,
}

impl Rng {
    pub(crate) fn new() -> Rng {
        Rng { health: Health::default(), begun: false, sick: None }
    }

    /// Fills `out`.
    ///
    /// # Errors
    /// What is wrong with the unit, now and ever after; `out` is then zeroes.
    pub(crate) fn fill(&mut self, out: &mut [u8], counts: &Counts) -> Result<(), Sick> {
        if !self.begun {
            let mut first = [0; BEGIN];
            self.draw(&mut first, counts)?;
            first.zeroize();
            self.begun = true;
        }
        self.draw(out, counts)
    }

    fn draw(&mut self, out: &mut [u8], counts: &Counts) -> Result<(), Sick> {
        if self.sick.is_none() {
            self.sick = self.try_to(out, counts).err();
            if self.sick.is_some() {
                counts.alarms.fetch_add(1, Ordering::Relaxed);
            }
        }
        match self.sick {
            Some(sick) => {
                out.zeroize();
                Err(sick)
            }
            None => Ok(()),
        }
    }

    fn try_to(&mut self, out: &mut [u8], counts: &Counts) -> Result<(), Sick> {
        let (mut at, mut asked) = (0, 0);
        let mut fresh = [0; 16];
        while at < out.len() {
            let stored = isa::xstore(&mut fresh, QUALITY) & 0xf;
            if stored == 0 {
                counts.waits.fetch_add(1, Ordering::Relaxed);
                asked += 1;
                if asked == PATIENCE {
                    return Err(Sick::Dry);
                }
                std::hint::spin_loop();
                continue;
            }
            let got = fresh.get(..stored as usize).filter(|got| got.len() <= 8).ok_or(Sick::Odd)?;
            for octet in got {
                self.health.see(*octet)?;
            }
            counts.octets.fetch_add(u64::from(stored), Ordering::Relaxed);
            let take = got.len().min(out.len() - at);
            out[at..at + take].copy_from_slice(&got[..take]);
            (at, asked) = (at + take, 0);
        }
        fresh.zeroize();
        Ok(())
    }
}

/// The two tests.
#[derive(Default)]
struct Health {
    last: Option<u8>,
    run: u32,
    first: u8,
    seen: u32,
    same: u32,
}

impl Health {
    fn see(&mut self, octet: u8) -> Result<(), Sick> {
        self.run = if self.last == Some(octet) { self.run + 1 } else { 1 };
        self.last = Some(octet);
        if self.seen == 0 {
            (self.first, self.same) = (octet, 0);
        }
        self.same += u32::from(octet == self.first);
        self.seen = (self.seen + 1) % WINDOW;
        match (self.run >= REPEATED, self.same >= FREQUENT) {
            (true, _) => Err(Sick::Stuck),
            (_, true) => Err(Sick::Biased),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(octets: impl Iterator<Item = u8>) -> Result<(), Sick> {
        let mut health = Health::default();
        octets.into_iter().try_for_each(|octet| health.see(octet))
    }

    #[test]
    fn octets_that_repeat_or_prevail_are_noticed_and_even_ones_are_not() {
        assert_eq!(judge([7; 10].into_iter()), Ok(()));
        assert_eq!(judge([7; 11].into_iter()), Err(Sick::Stuck));
        assert_eq!(judge((0..5000u32).map(|n| if n % 6 == 0 { 7 } else { n as u8 })), Err(Sick::Biased));
        assert_eq!(judge((0..100_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)), Ok(()));
    }
}
