//! Operations of the key exchange: each is a job and a task at once.

use std::sync::Arc;

use spi::{
    CryptoDone, CryptoJob, CryptoOp, CryptoOutput, DhPrivate, FaultKind, Group, Outcome, Secret, SignScheme,
    Token,
};

use crate::lane::{Kind, Part};
use crate::shared::{Counters, Shared};
use crate::sys::context::Context;
use crate::sys::job::Task;
use crate::sys::pkey::Key;
use crate::{dh, keys};

/// Longest random output, octets.
const MAX_RANDOM: usize = 65_536;

const UNSUPPORTED: Outcome = Outcome::Failed(spi::Fault::new(FaultKind::Unsupported));
const STALE: Outcome = Outcome::Failed(spi::Fault::new(FaultKind::StaleHandle));
const INTERNAL: Outcome = Outcome::Failed(spi::Fault::new(FaultKind::Internal));

/// What is to be done, with everything looked up and read that needs no provider's hardware.
enum Work {
    Generate(Group),
    Derive(Group, Secret, Vec<u8>),
    Sign(Arc<keys::SigningKey>, SignScheme, Vec<u8>),
    Verify(Key, SignScheme, Vec<u8>, Vec<u8>),
    Random(usize),
}

/// One operation.
pub(crate) struct OperationTask {
    number: usize,
    work: Work,
    result: Result<CryptoOutput, Outcome>,
    /// Behind all that is made from it, so that it goes last.
    context: Arc<Context>,
}

impl Task for OperationTask {
    fn run(&mut self) {
        let context = &self.context;
        self.result = match &self.work {
            Work::Generate(group) => dh::generate(context, *group)
                .map(|(ours, public)| CryptoOutput::DhPair(DhPrivate::Bytes(ours), public)),
            Work::Derive(group, ours, theirs) => {
                dh::derive(context, *group, ours, theirs).map(CryptoOutput::Secret)
            }
            Work::Sign(key, scheme, octets) => {
                key.sign(context, *scheme, octets).map(CryptoOutput::Signature)
            }
            Work::Verify(key, scheme, octets, signature) => {
                keys::verify(context, key, *scheme, octets, signature).map(|()| CryptoOutput::None)
            }
            Work::Random(len) => {
                let mut octets = vec![0; *len];
                let good = context.random(&mut octets);
                let octets = Secret::new(octets);
                if good { Ok(CryptoOutput::Secret(octets)) } else { Err(INTERNAL) }
            }
        };
    }
}

impl Part for OperationTask {
    fn whole(&self) -> usize {
        self.number
    }
}

/// An operation that was begun.
pub(crate) struct BegunOperation {
    token: Token,
    work: Option<Work>,
    result: Result<CryptoOutput, Outcome>,
}

/// Operations.
pub(crate) struct Operations;

impl Operations {
    fn prepare(shared: &Shared, op: CryptoOp) -> Result<Work, Outcome> {
        let found = &shared.found;
        match op {
            CryptoOp::DhGenerate { group } if found.dh.contains(&group) => Ok(Work::Generate(group)),
            CryptoOp::DhDerive { group, ours: DhPrivate::Bytes(ours), theirs }
                if found.dh.contains(&group) =>
            {
                Ok(Work::Derive(group, ours, theirs))
            }
            // No handle of a private half was ever given out here.
            CryptoOp::DhDerive { ours: DhPrivate::Handle(_), .. } => Err(STALE),
            CryptoOp::Sign { key, scheme, octets } => {
                Ok(Work::Sign(shared.find_key(key).ok_or(STALE)?, scheme, octets))
            }
            CryptoOp::Verify { spki, scheme, octets, signature } if found.verify.contains(&scheme) => {
                let key = keys::public(&shared.context, &spki, scheme)?;
                Ok(Work::Verify(key, scheme, octets, signature))
            }
            CryptoOp::Random { len } if (1..=MAX_RANDOM).contains(&len) => Ok(Work::Random(len)),
            _ => Err(UNSUPPORTED),
        }
    }
}

impl Kind for Operations {
    type Job = CryptoJob;
    type Done = CryptoDone;
    type Whole = BegunOperation;
    type Task = OperationTask;

    fn begin(&mut self, shared: &Shared, job: CryptoJob) -> Result<BegunOperation, CryptoDone> {
        let token = job.token;
        match Self::prepare(shared, job.op) {
            Ok(work) => Ok(BegunOperation { token, work: Some(work), result: Err(INTERNAL) }),
            Err(outcome) => Err(CryptoDone { token, outcome, output: CryptoOutput::None }),
        }
    }

    fn next(
        &mut self,
        shared: &Shared,
        begun: &mut BegunOperation,
        number: usize,
    ) -> Option<Box<OperationTask>> {
        let work = begun.work.take()?;
        let context = Arc::clone(&shared.context);
        Some(Box::new(OperationTask { number, work, result: Err(INTERNAL), context }))
    }

    fn absorb(&mut self, shared: &Shared, begun: &mut BegunOperation, mut task: Box<OperationTask>) {
        begun.result = std::mem::replace(&mut task.result, Err(INTERNAL));
        if matches!(begun.result, Err(Outcome::Failed(_))) {
            Counters::add(&shared.counters.refused, 1);
        }
    }

    fn end(&mut self, begun: BegunOperation) -> CryptoDone {
        let (outcome, output) = match begun.result {
            Ok(output) => (Outcome::Done, output),
            Err(outcome) => (outcome, CryptoOutput::None),
        };
        CryptoDone { token: begun.token, outcome, output }
    }

    fn abort(&mut self, begun: BegunOperation) -> CryptoDone {
        aborted(begun.token)
    }

    fn abort_job(&mut self, job: CryptoJob) -> CryptoDone {
        aborted(job.token)
    }
}

fn aborted(token: Token) -> CryptoDone {
    CryptoDone { token, outcome: Outcome::Failed(FaultKind::Aborted.into()), output: CryptoOutput::None }
}
