//! Handles: a table whose places are used again and whose handles are not.

use std::sync::Arc;

use spi::{Fault, FaultKind};

/// From place and epoch to a value that is shared with what is out.
pub(crate) struct Table<T> {
    places: Vec<(u32, Option<Arc<T>>)>,
    free: Vec<u32>,
    cap: usize,
}

impl<T> Table<T> {
    pub(crate) fn new(cap: usize) -> Self {
        Table { places: Vec::new(), free: Vec::new(), cap }
    }

    /// Takes a value in; its handle is one that no earlier value had.
    ///
    /// # Errors
    /// [`FaultKind::Exhausted`] when the table is full.
    pub(crate) fn insert(&mut self, value: Arc<T>) -> Result<(u32, u32), Fault> {
        if self.free.is_empty() {
            if self.places.len() >= self.cap {
                return Err(FaultKind::Exhausted.into());
            }
            self.free.push(self.places.len() as u32);
            self.places.push((1, None));
        }
        let index = self.free.pop().ok_or(FaultKind::Exhausted)?;
        let (epoch, place) = self.places.get_mut(index as usize).ok_or(FaultKind::Internal)?;
        *place = Some(value);
        Ok((index, *epoch))
    }

    /// The value of a handle that is not stale.
    pub(crate) fn find(&self, index: u32, epoch: u32) -> Option<&Arc<T>> {
        let (now, value) = self.places.get(index as usize)?;
        value.as_ref().filter(|_| *now == epoch)
    }

    /// Takes a value out; its handle is stale from now on.
    pub(crate) fn remove(&mut self, index: u32, epoch: u32) -> Option<Arc<T>> {
        let (now, value) = self.places.get_mut(index as usize).filter(|(now, _)| *now == epoch)?;
        let value = value.take()?;
        // A place whose epochs are used up is never given out again.
        if let Some(next) = now.checked_add(1) {
            *now = next;
            self.free.push(index);
        }
        Some(value)
    }

    /// Takes everything out; all handles are stale from now on.
    pub(crate) fn clear(&mut self) -> Vec<Arc<T>> {
        let handles: Vec<(u32, u32)> =
            self.places.iter().enumerate().map(|(index, (epoch, _))| (index as u32, *epoch)).collect();
        handles.into_iter().filter_map(|(index, epoch)| self.remove(index, epoch)).collect()
    }

    /// Values there are.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.places.iter().filter(|(_, value)| value.is_some()).count()
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
        assert_eq!(table.find(again, later).map(|value| **value), Some('b'));
        table.insert(Arc::new('c')).unwrap();
        assert_eq!(table.insert(Arc::new('d')).map_err(|fault| fault.kind), Err(FaultKind::Exhausted));
        assert_eq!(table.clear().len(), 2);
        assert!(table.find(again, later).is_none() && table.len() == 0);
        assert!(table.insert(Arc::new('e')).is_ok());
    }

    #[test]
    fn a_place_with_no_epochs_left_is_not_given_out_again() {
        let mut table = Table::new(1);
        let (index, _) = table.insert(Arc::new(())).unwrap();
        table.places[0].0 = u32::MAX;
        assert!(table.remove(index, u32::MAX).is_some());
        assert!(table.insert(Arc::new(())).is_err());
    }
}
