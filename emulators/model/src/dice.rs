//! Random choices that can be repeated.

use std::time::Duration;

/// A small generator (splitmix64); what it says follows from the seed alone, in every version. Not for keys.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// Dice for a seed.
    pub fn new(seed: u64) -> Self {
        Dice(seed)
    }

    /// The next number.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`; 0 when the limit is 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        if limit == 0 { 0 } else { self.roll() % limit }
    }

    /// True in one of so many cases: 0.0 never, 1.0 always.
    pub fn chance(&mut self, probability: f64) -> bool {
        // 53 bits are what a double holds exactly.
        let unit = (self.roll() >> 11) as f64 / (1u64 << 53) as f64;
        unit < probability
    }

    /// A duration up to `share` longer or shorter than `middle`.
    pub fn around(&mut self, middle: Duration, share: f64) -> Duration {
        let unit = (self.roll() >> 11) as f64 / (1u64 << 53) as f64;
        middle.mul_f64((1.0 + share.clamp(0.0, 1.0) * (2.0 * unit - 1.0)).max(0.0))
    }
}

#[cfg(test)]
mod tests {
    use super::Dice;

    #[test]
    fn the_same_seed_says_the_same() {
        let (mut one, mut other) = (Dice::new(7), Dice::new(7));
        assert!((0..100).all(|_| one.roll() == other.roll()));
        assert_ne!(Dice::new(1).roll(), Dice::new(2).roll());
    }

    #[test]
    fn chances_are_met_about_as_often_as_they_say() {
        let mut dice = Dice::new(1);
        let hits = (0..10_000).filter(|_| dice.chance(0.25)).count();
        assert!((2300..2700).contains(&hits), "{hits}");
        assert!((0..100).all(|_| !dice.chance(0.0) && dice.chance(1.0)));
    }
}
