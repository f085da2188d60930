//! Handles: a table whose places are reused and whose handles are not.

use std::sync::Arc;

use spi::{Fault, FaultKind, SaId};

use crate::esp::Sa;

/// SAs at one time.
pub(crate) const MAX_SAS: usize = 1 << 18;

/// The installed SAs.
#[derive(Default)]
pub(crate) struct Table {
    places: Vec<Place>,
    free: Vec<u32>,
}

struct Place {
    epoch: u32,
    sa: Option<Arc<Sa>>,
}

impl Table {
    /// Takes an SA in and returns its handle, which no earlier one ever had.
    pub(crate) fn insert(&mut self, sa: Sa) -> Result<SaId, Fault> {
        let sa = Some(Arc::new(sa));
        if let Some(index) = self.free.pop()
            && let Some(place) = self.places.get_mut(index as usize)
        {
            place.sa = sa;
            return Ok(SaId { index, epoch: place.epoch });
        }
        if self.places.len() >= MAX_SAS {
            return Err(FaultKind::Exhausted.into());
        }
        self.places.push(Place { epoch: 1, sa });
        Ok(SaId { index: self.places.len() as u32 - 1, epoch: 1 })
    }

    /// The SA, if the handle is the present one of its place.
    pub(crate) fn find(&self, id: SaId) -> Option<Arc<Sa>> {
        self.places.get(id.index as usize).filter(|place| place.epoch == id.epoch)?.sa.clone()
    }

    /// Forgets an SA; its handle is stale from now on.
    pub(crate) fn remove(&mut self, id: SaId) {
        if let Some(place) = self.places.get_mut(id.index as usize).filter(|place| place.epoch == id.epoch) {
            place.retire(id.index, &mut self.free);
        }
    }

    /// Forgets all of them.
    pub(crate) fn clear(&mut self) {
        for (index, place) in self.places.iter_mut().enumerate() {
            place.retire(index as u32, &mut self.free);
        }
    }
}

impl Place {
    /// A place whose epochs are used up is never given out again: an old handle must not reach a new SA.
    fn retire(&mut self, index: u32, free: &mut Vec<u32>) {
        if self.sa.take().is_none() {
            return;
        }
        if let Some(next) = self.epoch.checked_add(1) {
            self.epoch = next;
            free.push(index);
        }
    }
}
