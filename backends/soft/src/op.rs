//! Carries out one operation of the key exchange, on whatever thread it is called.

use spi::{CryptoOp, CryptoOutput, DhPrivate, FaultKind, Outcome, Secret};

use crate::device::Shared;
use crate::{dh, sign};

/// Longest random output, octets.
const MAX_RANDOM: usize = 65_536;

pub(crate) fn run(shared: &Shared, op: CryptoOp) -> Result<CryptoOutput, Outcome> {
    match op {
        CryptoOp::DhGenerate { group } => {
            let (ours, public) = dh::generate(group)?;
            Ok(CryptoOutput::DhPair(DhPrivate::Bytes(ours), public))
        }
        CryptoOp::DhDerive { group, ours: DhPrivate::Bytes(ours), theirs } => {
            dh::derive(group, &ours, &theirs).map(CryptoOutput::Secret)
        }
        // No handle of a private half was ever given out here.
        CryptoOp::DhDerive { .. } => Err(failed(FaultKind::StaleHandle)),
        CryptoOp::KemEncapsulate { group, theirs } => {
            let (ciphertext, secret) = dh::encapsulate(group, &theirs)?;
            Ok(CryptoOutput::Encapsulated(ciphertext, secret))
        }
        CryptoOp::Sign { key, scheme, octets } => {
            let key = shared.find_key(key).ok_or(failed(FaultKind::StaleHandle))?;
            key.sign(scheme, &octets).map(CryptoOutput::Signature)
        }
        CryptoOp::Verify { spki, scheme, octets, signature } => {
            sign::verify(&spki, scheme, &octets, &signature).map(|()| CryptoOutput::None)
        }
        CryptoOp::Random { len } if (1..=MAX_RANDOM).contains(&len) => {
            let mut bytes = vec![0; len];
            aws_lc_rs::rand::fill(&mut bytes).map_err(|_| failed(FaultKind::Internal))?;
            Ok(CryptoOutput::Secret(Secret::new(bytes)))
        }
        _ => Err(failed(FaultKind::Unsupported)),
    }
}

pub(crate) const fn failed(kind: FaultKind) -> Outcome {
    Outcome::Failed(spi::Fault::new(kind))
}
