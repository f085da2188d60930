//! Operations of the key exchange: what the plug-in gets, and what must be true of an answer.

use std::sync::atomic::Ordering;

use spi::alg::GroupKind;
use spi::{
    CryptoDone, CryptoJob, CryptoOp, CryptoOutput, DhPrivate, Fault, FaultKind, Outcome, Reject, Secret,
    Token,
};

use crate::abi;
use crate::device::Shared;
use crate::lie::Lie;
use crate::ring::{Kind, Landed, Look, RUN};
use crate::sys::{Loaded, Octets, RawQueue};

/// Octets for a private half, which has the format of the plug-in's choice.
const PRIVATE: usize = 2048;
/// Random octets at once.
const RANDOM: usize = 65_536;

/// Operations of the key exchange.
pub(crate) struct Operations;

/// What the plug-in is asked for.
pub(crate) struct Shape {
    what: u32,
    group: u16,
    secret: usize,
    out: usize,
}

/// An operation that is out.
pub(crate) struct Flight {
    job: CryptoJob,
    shape: Shape,
    secret: Octets,
    out: Octets,
    input: Octets,
}

impl Kind for Operations {
    const CODE: u32 = abi::OPERATIONS;
    type Job = CryptoJob;
    type Done = CryptoDone;
    type Flight = Flight;
    type Given = Shape;
    type Verdict = Outcome;
    type Said = abi::OpDone;
    type Memory = ();

    fn look(shared: &Shared, job: &CryptoJob) -> Look<Outcome, Shape> {
        let unsupported = Look::Decided(Outcome::Failed(FaultKind::Unsupported.into()));
        match &job.op {
            CryptoOp::Random { len } if (1..=RANDOM).contains(len) && shared.random => {
                Look::Give(Shape { what: abi::RANDOM, group: 0, secret: 0, out: *len })
            }
            CryptoOp::DhGenerate { group } if shared.caps.dh.contains(group) => match group.info() {
                Some(info) => Look::Give(Shape {
                    what: abi::GENERATE,
                    group: group.0,
                    secret: PRIVATE,
                    out: info.public_len,
                }),
                None => unsupported,
            },
            CryptoOp::DhDerive { group, ours: DhPrivate::Bytes(ours), theirs }
                if shared.caps.dh.contains(group) =>
            {
                match group.info() {
                    Some(info) if theirs.len() == info.public_len => Look::Give(Shape {
                        what: abi::DERIVE,
                        group: group.0,
                        secret: ours.len(),
                        out: info.secret_len,
                    }),
                    Some(_) => Look::Decided(Outcome::Rejected(Reject::BadPublicInput)),
                    None => unsupported,
                }
            }
            _ => unsupported,
        }
    }

    fn decide(job: CryptoJob, outcome: Outcome) -> CryptoDone {
        CryptoDone { token: job.token, outcome, output: CryptoOutput::None }
    }

    fn depart(job: CryptoJob, shape: Shape, _: &mut Vec<()>) -> Flight {
        let (secret, input) = match &job.op {
            CryptoOp::DhDerive { ours: DhPrivate::Bytes(ours), theirs, .. } => {
                (Octets::new(ours.expose()), Octets::new(theirs))
            }
            _ => (Octets::zeroes(shape.secret), Octets::zeroes(0)),
        };
        let out = Octets::zeroes(shape.out);
        Flight { job, shape, secret, out, input }
    }

    fn undo(flight: Flight) -> CryptoJob {
        flight.job
    }

    fn submit(loaded: &Loaded, queue: &mut RawQueue, run: &[(Token, &Flight)]) -> u32 {
        let mut ops = Vec::with_capacity(RUN);
        ops.extend(run.iter().map(|(token, flight)| abi::Op {
            token: token.0,
            secret: flight.secret.at(),
            out: flight.out.at(),
            input: flight.input.at(),
            what: flight.shape.what,
            group: flight.shape.group.into(),
            secret_len: flight.secret.len() as u32,
            out_len: flight.out.len() as u32,
            in_len: flight.input.len() as u32,
            zero: 0,
        }));
        loaded.op_submit(queue, &ops)
    }

    fn fetch(loaded: &Loaded, queue: &mut RawQueue, said: &mut [abi::OpDone]) -> u32 {
        loaded.op_poll(queue, said)
    }

    fn token(said: &abi::OpDone) -> Token {
        Token(said.token)
    }

    fn land(shared: &Shared, flight: Flight, said: &abi::OpDone) -> Landed<Operations> {
        match judge(&flight, said) {
            Err(lie) => Landed::Lied(flight, lie),
            Ok((outcome, output)) => {
                let aborted = outcome == Outcome::Failed(FaultKind::Aborted.into());
                let counts = &shared.counts;
                if aborted { &counts.aborted } else { &counts.operations }.fetch_add(1, Ordering::Relaxed);
                Landed::Good(CryptoDone { token: flight.job.token, outcome, output }, None)
            }
        }
    }
}

fn judge(flight: &Flight, said: &abi::OpDone) -> Result<(Outcome, CryptoOutput), Lie> {
    let failed = |kind| Ok((Outcome::Failed(Fault::new(kind)), CryptoOutput::None));
    match said.status {
        abi::DONE => {}
        abi::BAD_INPUT if flight.shape.what == abi::DERIVE => {
            return Ok((Outcome::Rejected(Reject::BadPublicInput), CryptoOutput::None));
        }
        abi::ABORTED => return failed(FaultKind::Aborted),
        abi::UNSUPPORTED => return failed(FaultKind::Unsupported),
        abi::EXHAUSTED => return failed(FaultKind::Exhausted),
        abi::FAILED => return failed(FaultKind::Internal),
        status => return Err(Lie::WrongStatus(status)),
    }
    let wrong = |expected: usize, said: u32| Lie::WrongLen { expected, said: said as usize };
    if said.out_len as usize != flight.out.len() {
        return Err(wrong(flight.out.len(), said.out_len));
    }
    let out = flight.out.copy(flight.out.len());
    let output = match flight.shape.what {
        abi::GENERATE => {
            let len = said.secret_len as usize;
            if len == 0 || len > flight.secret.len() {
                return Err(wrong(flight.secret.len(), said.secret_len));
            }
            CryptoOutput::DhPair(DhPrivate::Bytes(Secret::new(flight.secret.copy(len))), out)
        }
        _ => {
            let secret = Secret::new(out);
            let montgomery = spi::Group(flight.shape.group)
                .info()
                .is_some_and(|info| info.kind == GroupKind::Montgomery && flight.shape.what == abi::DERIVE);
            // RFC 7748 section 6: nothing but zeroes means a public value of small order.
            if montgomery && secret.ct_eq(&vec![0; secret.len()]) {
                return Ok((Outcome::Rejected(Reject::BadPublicInput), CryptoOutput::None));
            }
            CryptoOutput::Secret(secret)
        }
    };
    Ok((Outcome::Done, output))
}
