//! Memory for content descriptors: cells of one size, in blocks that the card reaches. Keys lie here in the clear, for the card to
//! read; a cell is wiped when it is given back.

use std::sync::{Arc, Mutex, PoisonError};

use crate::dma::Space;
use crate::fw::descriptor::LONGEST;
use crate::pci::PciError;
use crate::sys::mem::Block;

/// Octets of a cell, and of a block of them.
const CELL: usize = LONGEST;
const BLOCK: usize = 512 * 1024;

/// Where the cells are.
pub(crate) struct Vault {
    space: Arc<Space>,
    free: Mutex<Vec<Place>>,
}

struct Place {
    block: Arc<Block>,
    at: usize,
    iova: u64,
}

impl Vault {
    pub(crate) fn new(space: Arc<Space>) -> Arc<Self> {
        Arc::new(Vault { space, free: Mutex::default() })
    }

    /// A cell with these octets, at most [`LONGEST`].
    ///
    /// # Errors
    /// [`PciError`] when there is no memory.
    pub(crate) fn put(self: &Arc<Self>, octets: &[u8]) -> Result<Cell, PciError> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        if free.is_empty() {
            let (block, iova) = self.space.block(BLOCK, CELL)?;
            let cells = (0..block.len() / CELL).rev();
            free.extend(cells.map(|n| Place {
                block: Arc::clone(&block),
                at: n * CELL,
                iova: iova + (n * CELL) as u64,
            }));
        }
        let Some(place) = free.pop() else {
            return Err(PciError::Protocol("a block without cells".into()));
        };
        place.block.copy_in(place.at, octets);
        Ok(Cell { place: Some(place), vault: Arc::clone(self) })
    }
}

/// One cell, wiped and given back when it is dropped.
pub(crate) struct Cell {
    place: Option<Place>,
    vault: Arc<Vault>,
}

impl Cell {
    /// The card's address of it.
    pub(crate) fn iova(&self) -> u64 {
        self.place.as_ref().map_or(0, |place| place.iova)
    }
}

impl Drop for Cell {
    fn drop(&mut self) {
        if let Some(place) = self.place.take() {
            place.block.fill(place.at, CELL, 0);
            self.vault.free.lock().unwrap_or_else(PoisonError::into_inner).push(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::Fake;

    #[test]
    fn cells_are_apart_wiped_and_used_again() {
        let fake = Arc::new(Fake { ranges: vec![0..=u64::MAX], ..Fake::default() });
        let vault = Vault::new(Arc::new(Space::new(fake)));
        let cells: Vec<Cell> = (0..5).map(|n| vault.put(&[n + 1; CELL]).unwrap()).collect();
        let mut addresses: Vec<u64> = cells.iter().map(Cell::iova).collect();
        addresses.sort_unstable();
        assert!(addresses.windows(2).all(|pair| pair[1] - pair[0] >= CELL as u64));
        assert!(addresses.iter().all(|iova| iova % 64 == 0));
        let block = Arc::clone(&cells[0].place.as_ref().unwrap().block);
        let at = cells[0].place.as_ref().unwrap().at;
        drop(cells);
        let mut octets = [1; CELL];
        block.copy_out(at, &mut octets);
        assert_eq!(octets, [0; CELL], "a key stays behind");
        assert!(addresses.contains(&vault.put(&[1]).unwrap().iova()));
    }
}
