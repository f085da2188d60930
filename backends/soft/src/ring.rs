//! The two rings: packets are done in `poll` on the worker's thread, operations on helper threads.

use std::sync::{Arc, Weak};

use spi::inline::Inline;
use spi::offthread::OffThread;
use spi::{CryptoDone, CryptoJob, CryptoOutput, CryptoQueue, EspBurst, EspQueue, FaultKind, Outcome, SaId};

use crate::device::Shared;
use crate::esp::{Sa, fail};
use crate::op;
use crate::stamped::Stamped;

/// A ring for packets.
pub(crate) fn packets(shared: &Arc<Shared>, depth: usize) -> Box<EspQueue> {
    let mut near = Near { shared: Arc::clone(shared), sas: Vec::new() };
    let work = move |(stamp, mut burst): (u64, EspBurst)| {
        if near.shared.resets.since(stamp) {
            fail(&mut burst, FaultKind::Aborted);
        } else if let Some(sa) = near.find(burst.sa) {
            sa.run(&mut burst);
        } else {
            fail(&mut burst, FaultKind::StaleHandle);
        }
        burst
    };
    Box::new(Stamped::new(Inline::new(depth, work), shared.resets.clone()))
}

/// A ring for operations; `None` when there is no thread or descriptor to be had.
pub(crate) fn operations(shared: &Arc<Shared>, depth: usize, helpers: usize) -> Option<Box<CryptoQueue>> {
    let sessions = vec![Arc::clone(shared); helpers.max(1)];
    let work = |shared: &mut Arc<Shared>, (stamp, job): (u64, CryptoJob)| {
        let CryptoJob { token, op } = job;
        let aborted = || (Outcome::Failed(FaultKind::Aborted.into()), CryptoOutput::None);
        let (outcome, output) = if shared.resets.since(stamp) {
            aborted()
        } else {
            match op::run(shared, op) {
                _ if shared.resets.since(stamp) => aborted(),
                Ok(output) => (Outcome::Done, output),
                Err(outcome) => (outcome, CryptoOutput::None),
            }
        };
        CryptoDone { token, outcome, output }
    };
    let queue = OffThread::new(depth, sessions, work).ok()?;
    Some(Box::new(Stamped::new(queue, shared.resets.clone())))
}

/// The SAs this ring has met: the device's table is locked once per SA, not once per burst. The links are weak, so that
/// a removed SA's keys go at once, and its handle finds nothing here either.
struct Near {
    shared: Arc<Shared>,
    sas: Vec<(u32, Weak<Sa>)>,
}

impl Near {
    fn find(&mut self, id: SaId) -> Option<Arc<Sa>> {
        let index = id.index as usize;
        if let Some((epoch, sa)) = self.sas.get(index)
            && *epoch == id.epoch
        {
            return sa.upgrade();
        }
        let sa = self.shared.find_sa(id)?;
        if self.sas.len() <= index {
            // No longer than the device's table, which knows this index.
            self.sas.resize_with(index + 1, || (0, Weak::new()));
        }
        self.sas[index] = (id.epoch, Arc::downgrade(&sa));
        Some(sa)
    }
}
