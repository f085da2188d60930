//! What a backend keeps its SAs and keys in: a table whose places are used again and whose handles are not. A handle is a place and the
//! epoch of that place, as in [`SaId`](crate::SaId) and [`KeyId`](crate::crypto::KeyId).

use std::sync::Arc;

use crate::outcome::{Fault, FaultKind};

/// A bounded table from `(index, epoch)` to a value that is shared with what is out.
pub struct Table<T: ?Sized> {
    places: Vec<Place<T>>,
    free: Vec<u32>,
    cap: usize,
}

struct Place<T: ?Sized> {
    epoch: u32,
    what: Option<Arc<T>>,
}

impl<T: ?Sized> Table<T> {
    /// An empty one for so many values at one time.
    pub fn new(cap: usize) -> Self {
        Table { places: Vec::new(), free: Vec::new(), cap: cap.min(u32::MAX as usize) }
    }

    /// Takes a value in and returns its handle, which no earlier value ever had.
    ///
    /// # Errors
    /// [`FaultKind::Exhausted`] when the table is full.
    pub fn insert(&mut self, what: Arc<T>) -> Result<(u32, u32), Fault> {
        let what = Some(what);
        if let Some(index) = self.free.pop()
            && let Some(place) = self.places.get_mut(index as usize)
        {
            place.what = what;
            return Ok((index, place.epoch));
        }
        if self.places.len() >= self.cap {
            return Err(FaultKind::Exhausted.into());
        }
        self.places.push(Place { epoch: 1, what });
        Ok((self.places.len() as u32 - 1, 1))
    }

    /// The value, if the handle is the present one of its place.
    pub fn find(&self, index: u32, epoch: u32) -> Option<&Arc<T>> {
        self.places.get(index as usize).filter(|place| place.epoch == epoch)?.what.as_ref()
    }

    /// Takes a value out; its handle is stale from now on.
    pub fn remove(&mut self, index: u32, epoch: u32) -> Option<Arc<T>> {
        let place = self.places.get_mut(index as usize).filter(|place| place.epoch == epoch)?;
        place.empty(index, &mut self.free)
    }

    /// Takes everything out; all handles are stale from now on.
    pub fn clear(&mut self) -> Vec<Arc<T>> {
        let free = &mut self.free;
        let places = self.places.iter_mut().enumerate();
        places.filter_map(|(index, place)| place.empty(index as u32, free)).collect()
    }
}

impl<T: ?Sized> Place<T> {
    /// A place whose epochs are used up is never given out again: an old handle must not reach a new value.
    fn empty(&mut self, index: u32, free: &mut Vec<u32>) -> Option<Arc<T>> {
        let what = self.what.take()?;
        if let Some(next) = self.epoch.checked_add(1) {
            self.epoch = next;
            free.push(index);
        }
        Some(what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_handle_never_reaches_a_new_value() {
        let mut table = Table::new(2);
        let (index, epoch) = table.insert(Arc::new('a')).unwrap();
        assert_eq!(table.remove(index, epoch).as_deref(), Some(&'a'));
        let (again, later) = table.insert(Arc::new('b')).unwrap();
        assert_eq!(again, index, "the place is used again");
        assert!(table.find(index, epoch).is_none() && table.remove(index, epoch).is_none());
        assert_eq!(
            table.find(again, later).map(|value| **value),
            Some('b'),
            "a stale handle removes nothing"
        );
        table.insert(Arc::new('c')).unwrap();
        assert_eq!(table.insert(Arc::new('d')).map_err(|fault| fault.kind), Err(FaultKind::Exhausted));
        assert_eq!(table.clear().len(), 2);
        assert!(table.find(again, later).is_none() && table.clear().is_empty());
        assert!(table.insert(Arc::new('e')).is_ok());
    }

    #[test]
    fn a_place_with_no_epochs_left_is_not_given_out_again() {
        let mut table = Table::new(1);
        let (index, _) = table.insert(Arc::new(())).unwrap();
        table.places[0].epoch = u32::MAX;
        assert!(table.remove(index, u32::MAX).is_some());
        assert!(table.insert(Arc::new(())).is_err());
    }
}
