//! The two rings. Packets are done in `poll`, on the worker's thread, for that is where the instructions are; powers of numbers
//! take milliseconds and go to helper threads.

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Weak};

use spi::inline::Inline;
use spi::offthread::OffThread;
use spi::{
    Closed, Completions, CryptoDone, CryptoJob, CryptoOp, CryptoOutput, CryptoQueue, DhPrivate, EspBurst,
    EspQueue, FaultKind, Outcome, Polled, Queue, SaId, Secret,
};

use crate::blocks::Work;
use crate::detect::Units;
use crate::device::Shared;
use crate::esp::{Ivs, Sa, fail};
use crate::modp;

/// Longest random output, octets.
const MAX_RANDOM: usize = 65_536;

/// Helper threads of a ring for operations: one long power does not hold up another.
const HELPERS: usize = 2;

/// A ring for packets; `None` when there is no randomness for its IVs.
pub(crate) fn packets(shared: &Arc<Shared>, depth: usize) -> Option<Box<EspQueue>> {
    let mut work = Work::new();
    let mut ivs = Ivs::new(&shared.entropy, &mut work)?;
    let here = Arc::clone(shared);
    // The SA of the burst before, which is mostly that of the next one, too. The link is weak, so that a removed SA's keys go
    // at once, and its handle finds nothing here either.
    let mut last: Option<(SaId, Weak<Sa>)> = None;
    let inline = Inline::new(depth, move |(stamp, mut burst): (u64, EspBurst)| {
        if here.resets() != stamp {
            fail(&mut burst, FaultKind::Aborted);
            return burst;
        }
        let known = last.as_ref().filter(|(id, _)| *id == burst.sa).and_then(|(_, sa)| sa.upgrade());
        match known.or_else(|| here.find(burst.sa)) {
            Some(sa) => {
                sa.run(&mut burst, &mut work, &mut ivs);
                last = Some((burst.sa, Arc::downgrade(&sa)));
            }
            None => fail(&mut burst, FaultKind::StaleHandle),
        }
        burst
    });
    Some(Box::new(Stamped::new(inline, shared)))
}

/// A ring for operations; `None` when there is no thread or descriptor to be had.
pub(crate) fn operations(shared: &Arc<Shared>, depth: usize) -> Option<Box<CryptoQueue>> {
    let sessions = (0..HELPERS).map(|_| (Arc::clone(shared), Work::new())).collect();
    let run = |(shared, work): &mut (Arc<Shared>, Box<Work>), (stamp, job): (u64, CryptoJob)| {
        let CryptoJob { token, op } = job;
        let aborted = (Outcome::Failed(FaultKind::Aborted.into()), CryptoOutput::None);
        let (outcome, output) = if shared.resets() != stamp {
            aborted
        } else {
            match operation(shared, op, work) {
                _ if shared.resets() != stamp => aborted,
                Ok(output) => (Outcome::Done, output),
                Err(outcome) => (outcome, CryptoOutput::None),
            }
        };
        CryptoDone { token, outcome, output }
    };
    let queue = OffThread::new(depth, sessions, run).ok()?;
    Some(Box::new(Stamped::new(queue, shared)))
}

fn operation(shared: &Shared, op: CryptoOp, work: &mut Work) -> Result<CryptoOutput, Outcome> {
    let failed = |kind: FaultKind| Outcome::Failed(kind.into());
    let multiplies = shared.units.contains(Units::PMM);
    match op {
        CryptoOp::DhGenerate { group } if multiplies && modp::GROUPS.contains(&group) => {
            let mut exponent = vec![0; modp::exponent_len(group)];
            shared.entropy.fill(&mut exponent, work).map_err(|_| failed(FaultKind::Internal))?;
            let exponent = Secret::new(exponent);
            let public = modp::public(group, &exponent)?;
            Ok(CryptoOutput::DhPair(DhPrivate::Bytes(exponent), public))
        }
        CryptoOp::DhDerive { group, ours, theirs } if multiplies && modp::GROUPS.contains(&group) => {
            // No handle of a private half was ever given out here.
            let DhPrivate::Bytes(ours) = ours else { return Err(failed(FaultKind::StaleHandle)) };
            modp::derive(group, &ours, &theirs).map(CryptoOutput::Secret)
        }
        CryptoOp::Random { len } if (1..=MAX_RANDOM).contains(&len) && shared.units.contains(Units::RNG) => {
            let mut octets = vec![0; len];
            let filled = shared.entropy.fill_from_unit(&mut octets, work);
            filled.map_err(|_| failed(FaultKind::Internal))?;
            Ok(CryptoOutput::Secret(Secret::new(octets)))
        }
        _ => Err(failed(FaultKind::Unsupported)),
    }
}

/// Puts a stamp on each job at `submit`. What was submitted before a reset is known by it, and comes back as aborted; what is
/// submitted afterwards with an old handle is merely stale.
struct Stamped<J, Q> {
    inner: Q,
    shared: Arc<Shared>,
    // Kept so that submit allocates nothing.
    stamped: VecDeque<(u64, J)>,
}

impl<J, Q> Stamped<J, Q> {
    fn new(inner: Q, shared: &Arc<Shared>) -> Self {
        Stamped { inner, shared: Arc::clone(shared), stamped: VecDeque::new() }
    }
}

impl<J: Send, Q: Queue<Job = (u64, J)>> Queue for Stamped<J, Q> {
    type Job = J;
    type Done = Q::Done;

    fn submit(&mut self, jobs: &mut VecDeque<J>) -> Result<usize, Closed> {
        let stamp = self.shared.resets();
        let fits = self.inner.room().min(jobs.len());
        self.stamped.extend(jobs.drain(..fits).map(|job| (stamp, job)));
        // As many as there is room for: all of them are taken.
        self.inner.submit(&mut self.stamped)
    }

    fn poll(&mut self, budget: usize, to: &mut dyn Completions<Q::Done>) -> Polled {
        self.inner.poll(budget, to)
    }

    fn room(&self) -> usize {
        self.inner.room()
    }

    fn in_flight(&self) -> usize {
        self.inner.in_flight()
    }

    fn doorbell(&self) -> Option<BorrowedFd<'_>> {
        self.inner.doorbell()
    }
}
