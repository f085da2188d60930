//! What a queue has met of a device's table, so that the table is locked once for each SA and not for each burst. Links are weak, so that
//! the keys of an SA that was removed go as soon as nothing of it is out.

use std::sync::{Arc, Weak};

use spi::SaId;

/// SAs by place, each with the epoch of its handle.
pub(crate) struct Near<T>(Vec<Option<(u32, Weak<T>)>>);

impl<T> Default for Near<T> {
    fn default() -> Self {
        Near(Vec::new())
    }
}

impl<T> Near<T> {
    /// The SA of a handle that is not stale; `look` looks into the table.
    pub(crate) fn find(
        &mut self,
        id: SaId,
        is_retired: fn(&T) -> bool,
        look: impl FnOnce() -> Option<Arc<T>>,
    ) -> Option<Arc<T>> {
        let index = id.index as usize;
        if let Some(Some((epoch, sa))) = self.0.get(index)
            && *epoch == id.epoch
        {
            return sa.upgrade().filter(|sa| !is_retired(sa));
        }
        let sa = look()?;
        if self.0.len() <= index {
            // No longer than the table, which knows this index.
            self.0.resize_with(index + 1, || None);
        }
        self.0[index] = Some((id.epoch, Arc::downgrade(&sa)));
        Some(sa)
    }
}
