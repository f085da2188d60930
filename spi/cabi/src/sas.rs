//! SAs on a plug-in's device: handles of ours, which turn stale without the plug-in being asked.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use spi::alg::EncrKind;
use spi::esp::HEADER_LEN;
use spi::{Direction, EspOp, Fault, FaultKind, SaId, SaParams};

use crate::abi;
use crate::device::Opened;
use crate::lie::Lie;

/// An SA in the plug-in. It is removed there when nobody has it any more: not while a burst of it is out.
pub(crate) struct Sa {
    opened: Arc<Opened>,
    /// The plug-in's name for it.
    pub(crate) handle: u32,
    pub(crate) dir: Direction,
    pub(crate) spi: u32,
    /// Octets before the text of a packet, and after it.
    pub(crate) head: usize,
    pub(crate) icv: usize,
    /// Whether text is whole blocks of 16 octets.
    pub(crate) blocks: bool,
    /// Longest packet.
    max_len: usize,
}

impl Sa {
    /// Installs an SA that the device has declared.
    pub(crate) fn install(opened: &Arc<Opened>, sa: &SaParams, max_len: usize) -> Result<Sa, Fault> {
        let encr = sa.encr.info().ok_or(FaultKind::Unsupported)?;
        let raw = abi::Sa {
            size: size_of::<abi::Sa>() as u32,
            spi: sa.spi,
            encr: sa.encr.id,
            key_bits: sa.encr.key_bits,
            integ: sa.integ.0,
            dir: if sa.dir == Direction::Seal { abi::SEAL } else { abi::OPEN },
            esn: sa.esn.into(),
            encr_key_len: sa.encr_key.len() as u32,
            integ_key_len: sa.integ_key.len() as u32,
            encr_key: sa.encr_key.expose().as_ptr(),
            integ_key: sa.integ_key.expose().as_ptr(),
        };
        let (status, handle) = opened.loaded.sa_install(opened.raw, &raw).ok_or(FaultKind::Internal)?;
        match status {
            abi::DONE => {}
            abi::UNSUPPORTED => return Err(FaultKind::Unsupported.into()),
            abi::EXHAUSTED => return Err(FaultKind::Exhausted.into()),
            status => return Err(Fault { kind: FaultKind::Internal, vendor: status }),
        }
        if !opened.handles().insert(handle) {
            opened.loaded.shut_out(Lie::DoubledHandle(handle));
            return Err(FaultKind::Internal.into());
        }
        Ok(Sa {
            opened: Arc::clone(opened),
            handle,
            dir: sa.dir,
            spi: sa.spi,
            head: HEADER_LEN + encr.iv_len,
            icv: sa.icv_len(),
            blocks: encr.kind == EncrKind::Cbc,
            max_len,
        })
    }

    /// Length of what comes out of an operation; `None` when it cannot be carried out in a buffer of so many octets.
    pub(crate) fn result_len(&self, op: &EspOp, capacity: usize) -> Option<usize> {
        let (at, len) = (op.at as usize, usize::from(op.len));
        let (packet, text) = match self.dir {
            Direction::Seal => (self.head + len + self.icv, len),
            Direction::Open => (len, len.checked_sub(self.head + self.icv)?),
        };
        let fits = packet <= self.max_len && at.checked_add(packet).is_some_and(|end| end <= capacity);
        let whole = !self.blocks || text % 16 == 0;
        (fits && whole).then_some(if self.dir == Direction::Seal { packet } else { text })
    }

    /// What stands before the text of a sealed packet, as far as it is known beforehand.
    pub(crate) fn is_header(&self, seq: u64, octets: &[u8]) -> Result<(), Lie> {
        let (header, iv) = octets.split_at_checked(HEADER_LEN).ok_or(Lie::WrongHeader)?;
        let low = (seq as u32).to_be_bytes();
        if header[..4] != self.spi.to_be_bytes() || header[4..] != low {
            return Err(Lie::WrongHeader);
        }
        // Of a CBC chain nothing can be known: its IV must not be foreseen (RFC 3602 section 3).
        let counter = !self.blocks && self.head > HEADER_LEN;
        match iv.get(..self.head - HEADER_LEN) {
            Some(iv) if counter && *iv != seq.to_be_bytes() => Err(Lie::WrongIv),
            Some(_) => Ok(()),
            None => Err(Lie::WrongHeader),
        }
    }
}

impl Drop for Sa {
    fn drop(&mut self) {
        // Out of the list first: the plug-in may give the handle away again as soon as it is told.
        self.opened.handles().remove(&self.handle);
        self.opened.loaded.sa_remove(self.opened.raw, self.handle);
    }
}

/// The device's table of SAs.
pub(crate) struct Table {
    places: Mutex<Places>,
    most: usize,
}

#[derive(Default)]
struct Places {
    all: Vec<(u32, Option<Arc<Sa>>)>,
    free: Vec<u32>,
}

impl Table {
    pub(crate) fn new(most: usize) -> Table {
        Table { places: Mutex::default(), most }
    }

    pub(crate) fn is_full(&self) -> bool {
        let places = self.places();
        places.free.is_empty() && places.all.len() >= self.most
    }

    pub(crate) fn insert(&self, sa: Arc<Sa>) -> Result<SaId, Fault> {
        let mut places = self.places();
        let index = match places.free.pop() {
            Some(index) => index,
            None if places.all.len() >= self.most => return Err(FaultKind::Exhausted.into()),
            None => {
                places.all.push((1, None));
                (places.all.len() - 1) as u32
            }
        };
        let (epoch, place) = &mut places.all[index as usize];
        *place = Some(sa);
        Ok(SaId { index, epoch: *epoch })
    }

    pub(crate) fn find(&self, id: SaId) -> Option<Arc<Sa>> {
        match self.places().all.get(id.index as usize) {
            Some((epoch, place)) if *epoch == id.epoch => place.clone(),
            _ => None,
        }
    }

    pub(crate) fn remove(&self, id: SaId) {
        let mut places = self.places();
        let sa = match places.all.get_mut(id.index as usize) {
            Some((epoch, place)) if *epoch == id.epoch && place.is_some() => {
                *epoch = epoch.wrapping_add(1);
                place.take()
            }
            _ => None,
        };
        if sa.is_some() {
            places.free.push(id.index);
        }
        // The plug-in is told outside the lock: the data path looks up here.
        drop(places);
        drop(sa);
    }

    /// All handles turn stale.
    pub(crate) fn clear(&self) {
        let mut places = self.places();
        let mut gone = Vec::new();
        let mut freed = Vec::new();
        for (index, (epoch, place)) in places.all.iter_mut().enumerate() {
            if let Some(sa) = place.take() {
                *epoch = epoch.wrapping_add(1);
                gone.push(sa);
                freed.push(index as u32);
            }
        }
        places.free.extend(freed);
        drop(places);
        drop(gone);
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Handles that the plug-in has given out and was not told to remove.
pub(crate) type Handles = HashSet<u32>;
