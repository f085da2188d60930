//! Selectors that many children have in common are kept once. The shelf remembers some that were seen lately; it holds no more
//! than its places, whatever peers ask for.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use wire::TrafficSelector;

/// Lists remembered.
const PLACES: usize = 64;

/// See the module.
pub(crate) struct Shelf {
    places: [Option<Arc<[TrafficSelector]>>; PLACES],
    hasher: RandomState,
}

impl Shelf {
    pub(crate) fn new() -> Self {
        Shelf { places: [const { None }; PLACES], hasher: RandomState::new() }
    }

    /// The same list, perhaps one that is kept already.
    pub(crate) fn share(&mut self, list: Arc<[TrafficSelector]>) -> Arc<[TrafficSelector]> {
        let place = self.hasher.hash_one(&*list) as usize % PLACES;
        let Some(kept) = self.places.get_mut(place) else { return list };
        match kept {
            Some(kept) if **kept == *list => Arc::clone(kept),
            _ => Arc::clone(kept.insert(list)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_lists_become_one_and_the_shelf_stays_small() {
        let list = |n: u32| -> Arc<[TrafficSelector]> {
            Arc::new([TrafficSelector::host(std::net::Ipv4Addr::from(n).into())])
        };
        let mut shelf = Shelf::new();
        let first = shelf.share(list(1));
        assert!(Arc::ptr_eq(&first, &shelf.share(list(1))));
        for n in 0..10_000 {
            assert_eq!(shelf.share(list(n)), list(n));
        }
        assert_eq!(*shelf.share(list(1)), *first);
        assert!(shelf.places.iter().flatten().count() <= PLACES);
    }
}
