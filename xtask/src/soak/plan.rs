//! What goes wrong when, at random, and from the same seed the same.
//!
//! Faults come in two sorts. Light ones disturb some requests, and come every other second. Those that a card does not survive
//! without a reset, and cards that are pulled out, come so seldom that a card gets well in between: a gateway has less and less
//! confidence in one that falls ill again and again, and a card that nobody uses has no faults.
//!
//! Each sort is a deck that is shuffled and dealt, and shuffled again when it is empty, so that everything comes up.

use std::time::Duration;

/// Light ones.
const LIGHT: [&str; 9] = [
    "kind = \"delay\"\nby = \"20ms\"\ntimes = 10",
    "kind = \"reorder\"\njobs = 3\ntimes = 10",
    "kind = \"doubled-completion\"\ntimes = 3",
    "kind = \"flip-bit\"\nservice = \"sym\"",
    "kind = \"engine-error\"\nservice = \"sym\"",
    "kind = \"ring-full\"\nfor = \"50ms\"\nservice = \"sym\"",
    "kind = \"slow\"\nfactor = 20.0\nfor = \"500ms\"",
    "kind = \"lost-interrupt\"\ntimes = 5",
    "kind = \"spurious-interrupt\"\ntimes = 5",
];

/// Heavy ones. `None`: pulled out.
const HEAVY: [Option<&[&str]>; 12] = [
    Some(&["kind = \"uncorrectable\""]),
    Some(&["kind = \"uncorrectable\"", "kind = \"slow-reset\"\nfor = \"700ms\""]),
    Some(&["kind = \"uncorrectable\"", "kind = \"mailbox-silent\""]),
    Some(&["kind = \"uncorrectable\"", "kind = \"mailbox-bad-checksum\""]),
    Some(&["kind = \"uncorrectable\"", "kind = \"mailbox-incompatible\""]),
    Some(&["kind = \"restart\"\ngrace = \"100ms\"\naway = \"500ms\""]),
    Some(&["kind = \"silence\""]),
    Some(&["kind = \"lost-completion\"\nservice = \"sym\""]),
    Some(&["kind = \"wrong-cookie\"\nservice = \"sym\""]),
    Some(&[UNPLUG]),
    None,
    None,
];

const UNPLUG: &str = "kind = \"unplug\"";

/// Seconds between two of a sort, on any card: from, to.
const LIGHTLY: (f64, f64) = (1.0, 3.0);
const HEAVILY: (f64, f64) = (8.0, 14.0);
/// Seconds that a card is out.
const OUT: (f64, f64) = (1.0, 6.0);
/// Nothing goes wrong in the first and in the last seconds.
pub const QUIET_AT_FIRST: Duration = Duration::from_secs(12);
const QUIET_AT_LAST: Duration = Duration::from_secs(5);

/// Something that is done to a card by hand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hand {
    /// It is pulled out.
    Out,
    /// It is put in.
    In,
}

/// What goes wrong with one card.
#[derive(Clone, Default, PartialEq, Debug)]
pub struct Course {
    /// Faults by their times.
    faults: Vec<(f64, &'static str)>,
    /// When it is pulled out and put in.
    pub hands: Vec<(f64, Hand)>,
}

/// What goes wrong with so many cards in so long.
pub fn courses(cards: usize, length: Duration, seed: u64) -> Vec<Course> {
    let mut dice = Dice(seed);
    let mut courses = vec![Course::default(); cards];
    let begin = QUIET_AT_FIRST.as_secs_f64();
    let end = length.saturating_sub(QUIET_AT_LAST).as_secs_f64();
    let (mut deck, mut at) = (Vec::new(), begin);
    while at < end {
        let fault = deal(&mut deck, &LIGHT, &mut dice);
        courses[dice.below(cards)].faults.push((at, fault));
        at += dice.between(LIGHTLY);
    }
    // Cards take turns, in an order that is random, too.
    let (mut deck, mut turns, mut at) = (Vec::new(), Vec::new(), begin);
    let all: Vec<usize> = (0..cards).collect();
    while at < end {
        let course = &mut courses[deal(&mut turns, &all, &mut dice)];
        let gone = match deal(&mut deck, &HEAVY, &mut dice) {
            Some(faults) => {
                course.faults.extend(faults.iter().map(|fault| (at, *fault)));
                faults.contains(&UNPLUG)
            }
            None => {
                course.hands.push((at, Hand::Out));
                true
            }
        };
        if gone {
            course.hands.push((at + dice.between(OUT), Hand::In));
        }
        at += dice.between(HEAVILY);
    }
    courses.iter_mut().for_each(Course::sort);
    courses
}

impl Course {
    fn sort(&mut self) {
        self.faults.sort_by(|one, other| one.0.total_cmp(&other.0));
        self.hands.sort_by(|one, other| one.0.total_cmp(&other.0));
    }

    /// The plan of a card that is put in at a time, until it is put in again: its clock begins then.
    pub fn plan(&self, since: f64, seed: u64) -> String {
        let later = self.hands.iter().find(|(at, hand)| *hand == Hand::In && *at > since);
        let until = later.map_or(f64::INFINITY, |(at, _)| *at);
        let mut text = format!("seed = {}\n", seed & 0xffff_ffff);
        for (at, fault) in self.faults.iter().filter(|(at, _)| (since..until).contains(at)) {
            text += &format!("\n[[fault]]\n{fault}\nat = \"{:.0}ms\"\n", (at - since) * 1e3);
        }
        text
    }

    /// What happens, each in a word, with its time.
    pub fn words(&self) -> impl Iterator<Item = (f64, String)> {
        let faults = self.faults.iter().map(|(at, fault)| {
            let kind = fault.lines().next().and_then(|line| line.split('"').nth(1));
            (*at, kind.unwrap_or(fault).to_owned())
        });
        let hands = self.hands.iter().map(|(at, hand)| {
            let word = if *hand == Hand::Out { "pulled out" } else { "put in" };
            (*at, word.to_owned())
        });
        faults.chain(hands)
    }
}

/// The next of a deck; a shuffled one if there is none.
fn deal<T: Copy>(deck: &mut Vec<T>, all: &[T], dice: &mut Dice) -> T {
    if deck.is_empty() {
        deck.extend_from_slice(all);
        for last in (1..deck.len()).rev() {
            deck.swap(last, dice.below(last + 1));
        }
    }
    deck.pop().expect("a deck that was filled above")
}

/// SplitMix64: good enough for mischief, and the same everywhere.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    fn between(&mut self, (from, to): (f64, f64)) -> f64 {
        from + (to - from) * (self.next() as f64 / u64::MAX as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_same_seed_gives_the_same_course_and_everything_comes_up() {
        let ten = Duration::from_secs(600);
        let all = courses(4, ten, 7);
        assert_eq!(all, courses(4, ten, 7));
        assert_ne!(all, courses(4, ten, 8));
        let words: BTreeSet<String> = all.iter().flat_map(Course::words).map(|(_, word)| word).collect();
        // Nineteen kinds, but silence for a while is no other than silence until a reset here; and two for hands.
        assert_eq!(words.len(), 19 + 2, "{words:?}");
        assert!(all.iter().all(|course| course.words().all(|(at, _)| (12.0..610.0).contains(&at))));
    }

    #[test]
    fn a_card_that_is_put_in_again_has_what_is_left_of_its_course() {
        let course = Course {
            faults: vec![(6.0, "kind = \"silence\""), (20.5, UNPLUG), (30.0, "kind = \"delay\"")],
            hands: vec![(10.0, Hand::Out), (12.0, Hand::In), (25.0, Hand::In)],
        };
        let (first, second, third) = (course.plan(0.0, 1), course.plan(12.0, 1), course.plan(25.0, 1));
        assert!(first.contains("silence") && !first.contains("unplug"), "{first}");
        assert!(second.contains("at = \"8500ms\"") && !second.contains("delay"), "{second}");
        assert!(third.contains("at = \"5000ms\""), "{third}");
    }
}
