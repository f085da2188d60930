//! One job, on the thread that owns the seat.

use std::sync::atomic::{AtomicU64, Ordering};

use cryptoki::object::ObjectHandle;
use spi::{
    CryptoDone, CryptoJob, CryptoOp, CryptoOutput, DhPrivate, Fault, FaultKind, Group, KeyId, Outcome,
    Secret, SignScheme,
};

use crate::dh;
use crate::seat::Seat;
use crate::sign;
use crate::token::Dh;

/// Octets of random numbers that are asked for at a time.
const CHUNK: usize = 1024;
/// Most that are given.
const MOST: usize = 65_536;

/// Carries a job out. It was submitted when there had been so many resets.
pub(crate) fn carry_out(seat: &mut Seat, stamp: u64, job: CryptoJob) -> CryptoDone {
    let CryptoJob { token, op } = job;
    let current = |seat: &Seat| seat.shared.resets.load(Ordering::Acquire) == stamp;
    let aborted = || CryptoDone {
        token,
        outcome: Outcome::Failed(FaultKind::Aborted.into()),
        output: CryptoOutput::None,
    };
    if !current(seat) {
        return aborted();
    }
    // A panic in a binding must cost one job, not the thread and all that wait for it.
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(seat, op)));
    let result = result.unwrap_or(Err(Outcome::Failed(FaultKind::Internal.into())));
    if !current(seat) {
        return aborted();
    }
    match result {
        Ok(output) => CryptoDone { token, outcome: Outcome::Done, output },
        Err(outcome) => CryptoDone { token, outcome, output: CryptoOutput::None },
    }
}

fn run(seat: &mut Seat, op: CryptoOp) -> Result<CryptoOutput, Outcome> {
    match op {
        CryptoOp::Sign { key, scheme, octets } => sign(seat, key, scheme, &octets),
        CryptoOp::DhGenerate { group } if has(seat, group) => generate(seat, group),
        CryptoOp::DhDerive { group, ours, theirs } if has(seat, group) => derive(seat, group, ours, &theirs),
        CryptoOp::Random { len: len @ 1..=MOST } => random(seat, len),
        _ => Err(failed(FaultKind::Unsupported)),
    }
}

fn sign(seat: &mut Seat, id: KeyId, scheme: SignScheme, octets: &[u8]) -> Result<CryptoOutput, Outcome> {
    let key = seat.shared.keys().find(id.index, id.epoch).cloned();
    let key = key.ok_or(failed(FaultKind::StaleHandle))?;
    if !key.schemes.contains(&scheme) {
        return Err(failed(FaultKind::Unsupported));
    }
    let signature = seat.run(|open| {
        let handle = open.key(id, &key)?;
        sign::sign(&open.session, handle, key.kind, &key.mechanisms, scheme, octets)
    })?;
    count(&seat.shared.counters.signatures);
    Ok(CryptoOutput::Signature(signature))
}

fn generate(seat: &mut Seat, group: Group) -> Result<CryptoOutput, Outcome> {
    let (object, public) = seat.run(|open| dh::generate(&open.session, group))?;
    let id = seat.keep(object, group).map_err(|_| failed(FaultKind::Exhausted))?;
    count(&seat.shared.counters.pairs);
    Ok(CryptoOutput::DhPair(DhPrivate::Handle(id), public))
}

fn derive(seat: &mut Seat, group: Group, ours: DhPrivate, theirs: &[u8]) -> Result<CryptoOutput, Outcome> {
    let secret = match ours {
        DhPrivate::Handle(id) => {
            let ephemeral = seat.shared.take_ephemeral(id).filter(|ephemeral| ephemeral.group == group);
            let ephemeral = ephemeral.ok_or(failed(FaultKind::StaleHandle))?;
            // The object is another session's, perhaps, which all of this process see. If that is lost there is nothing to repeat.
            let mut first = true;
            seat.run(|open| {
                if !std::mem::replace(&mut first, false) {
                    return Err(crate::trouble::Failure::Stale);
                }
                let secret = dh::derive(&open.session, group, ephemeral.object, theirs);
                let _ = open.session.destroy_object(ephemeral.object);
                secret
            })?
        }
        DhPrivate::Bytes(ours) => derive_imported(seat, group, &ours, theirs)?,
        _ => return Err(failed(FaultKind::Unsupported)),
    };
    count(&seat.shared.counters.secrets);
    Ok(CryptoOutput::Secret(secret))
}

fn derive_imported(seat: &mut Seat, group: Group, ours: &Secret, theirs: &[u8]) -> Result<Secret, Outcome> {
    seat.run(|open| {
        let object: ObjectHandle = dh::import(&open.session, group, ours)?;
        let secret = dh::derive(&open.session, group, object, theirs);
        let _ = open.session.destroy_object(object);
        secret
    })
}

fn random(seat: &mut Seat, len: usize) -> Result<CryptoOutput, Outcome> {
    let octets = seat.run(|open| {
        // All the room at once, so that growing leaves no copy behind.
        let mut octets = vec![0; len];
        for chunk in octets.chunks_mut(CHUNK) {
            open.session.generate_random_slice(chunk)?;
        }
        Ok(Secret::new(octets))
    })?;
    count(&seat.shared.counters.random);
    Ok(CryptoOutput::Secret(octets))
}

fn has(seat: &Seat, group: Group) -> bool {
    seat.shared.token.site.dh == Dh::Token && group.info().is_some()
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

const fn failed(kind: FaultKind) -> Outcome {
    Outcome::Failed(Fault::new(kind))
}
