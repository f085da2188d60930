//! Which Child SA pair of the engine is which child of the data path.
//!
//! To the engine every pair is a child of its own; to the data path a child is a *line* of pairs that follow each other by
//! rekeying, so that what waits, counts and policies stay with it. Each configured child has a line of its own, which a trap
//! policy can name before there is any SA; further peers of the same realm get further lines.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::sync::Arc;

use wire::TrafficSelector;

/// A route this worker wants: destination with prefix length, and device.
pub(super) type RouteKey = ((std::net::IpAddr, u8), Arc<str>);

/// An installed Child SA pair.
pub(super) struct Pair {
    pub(super) line: esp::ChildId,
    /// The lane that has it.
    pub(super) lane: u16,
    pub(super) spi_in: u32,
    pub(super) spi_out: u32,
    pub(super) routes: Box<[RouteKey]>,
    pub(super) likeness: Likeness,
}

/// What a pair has in common with the pair that a peer sets up in its place by a new IKE SA (reauthentication): we are not told
/// that it replaces anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Likeness(u64);

/// Realm and child, kept once for all lines of the child.
type Names = Arc<(Arc<str>, Arc<str>)>;

/// A line of pairs.
struct Line {
    names: Names,
    pairs: u32,
    configured: bool,
}

/// All pairs and lines.
#[derive(Default)]
pub(super) struct Book {
    pairs: HashMap<ike::ChildId, Pair>,
    by_spi_in: HashMap<u32, ike::ChildId>,
    by_spi_out: HashMap<(esp::ChildId, u32), ike::ChildId>,
    lines: HashMap<esp::ChildId, Line>,
    configured: HashMap<Names, esp::ChildId>,
    /// The line the youngest pair of its kind is on, and how many there are of the kind.
    alike: HashMap<Likeness, (esp::ChildId, u32)>,
    hasher: RandomState,
    last: u64,
}

impl Book {
    /// The line of a configured child; made when it is asked for.
    pub(super) fn configured(&mut self, realm: &Arc<str>, child: &Arc<str>) -> esp::ChildId {
        self.configured_line(&(Arc::clone(realm), Arc::clone(child))).0
    }

    fn configured_line(&mut self, names: &(Arc<str>, Arc<str>)) -> (esp::ChildId, Names) {
        if let Some((names, line)) = self.configured.get_key_value(names) {
            return (*line, Arc::clone(names));
        }
        let names = Arc::new(names.clone());
        let line = self.new_line(&names, true);
        self.configured.insert(Arc::clone(&names), line);
        (line, names)
    }

    /// Forgets the lines of configured children that are not `kept`; what is installed on them stays until it is removed.
    pub(super) fn retain_configured(&mut self, kept: impl Fn(&str, &str) -> bool) {
        let gone = self.configured.iter().filter(|(names, _)| !kept(&names.0, &names.1));
        let gone: Vec<_> = gone.map(|(names, line)| (Arc::clone(names), *line)).collect();
        for (key, id) in gone {
            self.configured.remove(&key);
            if let Some(line) = self.lines.get_mut(&id) {
                line.configured = false;
            }
            self.drop_idle(id);
        }
    }

    /// What pairs of this child, peer and selectors have in common.
    pub(super) fn likeness(
        &self,
        names: (&str, &str),
        peer: SocketAddr,
        selectors: (&[TrafficSelector], &[TrafficSelector]),
    ) -> Likeness {
        Likeness(self.hasher.hash_one((names, peer, selectors)))
    }

    /// The line a new pair belongs to: that of its `kin`, the pair that it replaces or is beside, or of one that is like it; else
    /// the configured child's if nobody uses it; else a new one.
    pub(super) fn line_for(
        &mut self,
        realm: &Arc<str>,
        child: &Arc<str>,
        kin: Option<ike::ChildId>,
        likeness: Likeness,
    ) -> esp::ChildId {
        if let Some(old) = kin.and_then(|old| self.pairs.get(&old)) {
            return old.line;
        }
        // Lines end before their kind does when pairs of one kind came to different lines.
        if let Some((line, _)) = self.alike.get(&likeness).filter(|(line, _)| self.lines.contains_key(line)) {
            return *line;
        }
        let (line, names) = self.configured_line(&(Arc::clone(realm), Arc::clone(child)));
        if self.lines.get(&line).is_some_and(|line| line.pairs == 0) {
            return line;
        }
        self.new_line(&names, false)
    }

    /// Adds a pair.
    pub(super) fn add(&mut self, id: ike::ChildId, pair: Pair) {
        self.by_spi_in.insert(pair.spi_in, id);
        self.by_spi_out.insert((pair.line, pair.spi_out), id);
        if let Some(line) = self.lines.get_mut(&pair.line) {
            line.pairs += 1;
        }
        let (line, count) = self.alike.entry(pair.likeness).or_insert((pair.line, 0));
        (*line, *count) = (pair.line, *count + 1);
        self.pairs.insert(id, pair);
    }

    /// A line that [`line_for`](Book::line_for) gave was not used after all.
    pub(super) fn unused(&mut self, line: esp::ChildId) {
        self.drop_idle(line);
    }

    /// Takes a pair out. The second value says whether policies must be made anew: the configured child's line is
    /// another one now.
    pub(super) fn remove(&mut self, id: ike::ChildId) -> Option<(Pair, bool)> {
        let pair = self.pairs.remove(&id)?;
        if self.by_spi_in.get(&pair.spi_in) == Some(&id) {
            self.by_spi_in.remove(&pair.spi_in);
        }
        if self.by_spi_out.get(&(pair.line, pair.spi_out)) == Some(&id) {
            self.by_spi_out.remove(&(pair.line, pair.spi_out));
        }
        if let Some(line) = self.lines.get_mut(&pair.line) {
            line.pairs = line.pairs.saturating_sub(1);
        }
        if let Some((_, count)) = self.alike.get_mut(&pair.likeness) {
            *count -= 1;
            if *count == 0 {
                self.alike.remove(&pair.likeness);
            }
        }
        let moved = self.hand_over(pair.line);
        self.drop_idle(pair.line);
        Some((pair, moved))
    }

    /// The pair of that name.
    pub(super) fn pair(&self, id: ike::ChildId) -> Option<&Pair> {
        self.pairs.get(&id)
    }

    /// The pair with this inbound SPI.
    pub(super) fn by_spi_in(&self, spi: u32) -> Option<ike::ChildId> {
        self.by_spi_in.get(&spi).copied()
    }

    /// The pair of a line with this outbound SPI.
    pub(super) fn by_spi_out(&self, line: esp::ChildId, spi: u32) -> Option<ike::ChildId> {
        self.by_spi_out.get(&(line, spi)).copied()
    }

    /// Realm and child of a line.
    pub(super) fn names(&self, line: esp::ChildId) -> Option<(&str, &str)> {
        self.lines.get(&line).map(|line| (&*line.names.0, &*line.names.1))
    }

    fn new_line(&mut self, names: &Names, configured: bool) -> esp::ChildId {
        self.last += 1;
        let id = esp::ChildId(self.last);
        self.lines.insert(id, Line { names: Arc::clone(names), pairs: 0, configured });
        id
    }

    /// When the configured child's line has run dry and another line of the same child has pairs, that one takes its
    /// place: a trap policy would otherwise ask for an SA that is there.
    fn hand_over(&mut self, from: esp::ChildId) -> bool {
        let Some(line) = self.lines.get(&from).filter(|line| line.configured && line.pairs == 0) else {
            return false;
        };
        let key = Arc::clone(&line.names);
        let same = |other: &Line| !other.configured && other.pairs > 0 && other.names == key;
        let Some(to) = self.lines.iter().filter(|(_, line)| same(line)).map(|(id, _)| *id).min() else {
            return false;
        };
        for (id, configured) in [(from, false), (to, true)] {
            if let Some(line) = self.lines.get_mut(&id) {
                line.configured = configured;
            }
        }
        self.configured.insert(key, to);
        true
    }

    fn drop_idle(&mut self, id: esp::ChildId) {
        if self.lines.get(&id).is_some_and(|line| line.pairs == 0 && !line.configured) {
            self.lines.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OTHER: Likeness = Likeness(1);

    fn pair(line: esp::ChildId, spi: u32) -> Pair {
        pair_like(line, spi, Likeness(u64::from(spi)))
    }

    fn pair_like(line: esp::ChildId, spi: u32, likeness: Likeness) -> Pair {
        let routes = Box::default();
        Pair { line, lane: 0, spi_in: spi, spi_out: spi + 1, routes, likeness }
    }

    #[test]
    fn a_rekeyed_pair_stays_on_its_line_and_another_peer_gets_its_own() {
        let mut book = Book::default();
        let trap = book.configured(&"r".into(), &"c".into());
        let first = book.line_for(&"r".into(), &"c".into(), None, OTHER);
        assert_eq!(first, trap, "the configured child's line is used first");
        book.add(ike::ChildId(1), pair(first, 1000));
        assert_eq!(book.line_for(&"r".into(), &"c".into(), Some(ike::ChildId(1)), OTHER), first);
        let second = book.line_for(&"r".into(), &"c".into(), None, OTHER);
        assert_ne!(second, first);
        book.add(ike::ChildId(2), pair(second, 2000));
        assert_eq!(
            (book.by_spi_in(2000), book.by_spi_out(second, 2001)),
            (Some(ike::ChildId(2)), Some(ike::ChildId(2)))
        );
        assert_eq!(book.by_spi_out(first, 2001), None);
    }

    #[test]
    fn a_line_that_was_not_used_leaves_nothing() {
        let mut book = Book::default();
        let first = book.line_for(&"r".into(), &"c".into(), None, OTHER);
        book.add(ike::ChildId(1), pair(first, 1000));
        for _ in 0..100 {
            let line = book.line_for(&"r".into(), &"c".into(), None, OTHER);
            book.unused(line);
        }
        book.unused(first);
        assert_eq!(book.lines.len(), 1);
    }

    #[test]
    fn a_trap_follows_to_the_line_that_has_sas() {
        let mut book = Book::default();
        let first = book.line_for(&"r".into(), &"c".into(), None, OTHER);
        book.add(ike::ChildId(1), pair(first, 1000));
        let second = book.line_for(&"r".into(), &"c".into(), None, OTHER);
        book.add(ike::ChildId(2), pair(second, 2000));
        let (_, moved) = book.remove(ike::ChildId(1)).unwrap();
        assert!(moved);
        assert_eq!(book.configured(&"r".into(), &"c".into()), second);
        assert_eq!(book.names(first), None, "nobody needs it any more");
        let (_, moved) = book.remove(ike::ChildId(2)).unwrap();
        assert!(!moved);
        assert_eq!(book.line_for(&"r".into(), &"c".into(), None, OTHER), second, "a configured line stays");
    }

    #[test]
    fn a_pair_like_another_is_its_successor() {
        let mut book = Book::default();
        let (one, two) = (Likeness(7), Likeness(8));
        let first = book.line_for(&"r".into(), &"c".into(), None, one);
        book.add(ike::ChildId(1), pair_like(first, 1000, one));
        let second = book.line_for(&"r".into(), &"c".into(), None, two);
        assert_ne!(second, first);
        book.add(ike::ChildId(2), pair_like(second, 2000, two));
        assert_eq!(book.line_for(&"r".into(), &"c".into(), None, two), second);
        book.add(ike::ChildId(3), pair_like(second, 3000, two));
        book.remove(ike::ChildId(2));
        assert_eq!(book.line_for(&"r".into(), &"c".into(), None, two), second);
        book.remove(ike::ChildId(3));
        book.remove(ike::ChildId(1));
        assert!(book.alike.is_empty() && book.lines.len() == 1);
        // A line that has ended is not come back to.
        let line = book.line_for(&"r".into(), &"c".into(), None, two);
        book.add(ike::ChildId(4), pair_like(line, 4000, two));
        let other = book.line_for(&"r".into(), &"c".into(), None, one);
        book.add(ike::ChildId(5), pair_like(other, 5000, two));
        book.remove(ike::ChildId(5));
        assert_ne!(book.line_for(&"r".into(), &"c".into(), None, two), other);
    }
}
