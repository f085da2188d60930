//! Handles: a table whose places are reused and whose handles are not.

use std::sync::Arc;

use spi::{Fault, FaultKind};

/// A bounded table from `(index, epoch)` to a shared value.
pub(crate) struct Table<T: ?Sized> {
    places: Vec<Place<T>>,
    free: Vec<u32>,
    cap: usize,
}

struct Place<T: ?Sized> {
    epoch: u32,
    what: Option<Arc<T>>,
}

impl<T: ?Sized> Table<T> {
    pub(crate) fn new(cap: usize) -> Self {
        Table { places: Vec::new(), free: Vec::new(), cap: cap.min(u32::MAX as usize) }
    }

    /// Takes a value in and returns its handle, which no earlier value ever had.
    pub(crate) fn insert(&mut self, what: Arc<T>) -> Result<(u32, u32), Fault> {
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
    pub(crate) fn find(&self, index: u32, epoch: u32) -> Option<&Arc<T>> {
        self.places.get(index as usize).filter(|place| place.epoch == epoch)?.what.as_ref()
    }

    /// Forgets a value; its handle is stale from now on.
    pub(crate) fn remove(&mut self, index: u32, epoch: u32) {
        if let Some(place) = self.places.get_mut(index as usize)
            && place.epoch == epoch
            && place.what.take().is_some()
        {
            place.retire(index, &mut self.free);
        }
    }

    /// Forgets everything; all handles are stale from now on.
    pub(crate) fn clear(&mut self) {
        for (index, place) in self.places.iter_mut().enumerate() {
            if place.what.take().is_some() {
                place.retire(index as u32, &mut self.free);
            }
        }
    }
}

impl<T: ?Sized> Place<T> {
    /// A place whose epochs are used up is never given out again: an old handle must not reach a new value.
    fn retire(&mut self, index: u32, free: &mut Vec<u32>) {
        if let Some(next) = self.epoch.checked_add(1) {
            self.epoch = next;
            free.push(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_handle_never_reaches_a_new_value() {
        let mut table = Table::new(2);
        let (index, epoch) = table.insert(Arc::new("a")).unwrap();
        table.remove(index, epoch);
        let (again, later) = table.insert(Arc::new("b")).unwrap();
        assert_eq!(again, index, "the place is reused");
        assert!(table.find(index, epoch).is_none());
        assert_eq!(**table.find(again, later).unwrap(), "b");
        table.remove(index, epoch);
        assert!(table.find(again, later).is_some(), "a stale handle removes nothing");
        table.clear();
        assert!(table.find(again, later).is_none());
        assert_eq!(table.free, [again]);
    }

    #[test]
    fn a_place_with_no_epochs_left_is_retired() {
        let mut table = Table::new(1);
        let (index, _) = table.insert(Arc::new(1)).unwrap();
        table.places[0].epoch = u32::MAX;
        table.remove(index, u32::MAX);
        assert!(table.insert(Arc::new(2)).is_err());
    }
}
