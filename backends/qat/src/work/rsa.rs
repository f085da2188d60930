//! RSA signatures. A fault while a card works by the Chinese remainder theorem gives a signature from which anybody can work out
//! the key (Boneh, DeMillo, Lipton 1997). So every signature is verified before it leaves, and by this processor, since a card
//! that is at fault cannot be asked whether it is: with the usual exponent that takes some microseconds.

use std::sync::Arc;

use openssl::bn::{BigNum, BigNumContext};
use spi::{CryptoOutput, Outcome, SignScheme};
use subtle::ConstantTimeEq;

use super::{BAD_INPUT, BAD_SIGNATURE, Call, INTERNAL, Reply, Step, UNSUPPORTED, Work, padding};
use crate::der::PublicKey;
use crate::fw::pke::{self, Function};
use crate::keys::{Kind, PrivateKey, Rsa};

/// Sizes of a modulus whose signatures are believed, bits.
const LEAST: usize = 1024;
const MOST: usize = 8192;

/// The request for a signature.
pub(super) fn sign(
    key: Arc<PrivateKey>,
    scheme: SignScheme,
    octets: &[u8],
    fourth: bool,
) -> Result<(Box<dyn Work>, Call), Outcome> {
    let Kind::Rsa(rsa) = &key.kind else { return Err(UNSUPPORTED) };
    let len = rsa.n.len();
    let padded = match scheme {
        SignScheme::RsaPkcs1(hash) if key.schemes().contains(&scheme) => padding::pkcs1(hash, octets, len)?,
        SignScheme::RsaPss(hash) if key.schemes().contains(&scheme) => padding::pss(hash, octets, 8 * len)?,
        _ => return Err(UNSUPPORTED),
    };
    let call = match &rsa.crt {
        Some(parts) => {
            let function = pke::rsa_private_crt(len, fourth).ok_or(UNSUPPORTED)?;
            let call = Call::new(function, 1).with(&padded);
            parts.iter().fold(call, |call, part| call.with_len(part.expose(), len / 2))
        }
        None => {
            let function = pke::rsa_private(len, fourth).ok_or(UNSUPPORTED)?;
            Call::new(function, 1).with(&padded).with(rsa.d.expose()).with(&rsa.n)
        }
    };
    Ok((Box::new(Signing { key: Arc::clone(&key), padded }), call))
}

struct Signing {
    key: Arc<PrivateKey>,
    padded: Vec<u8>,
}

impl Work for Signing {
    fn go_on(&mut self, reply: Reply) -> Step {
        let Kind::Rsa(rsa) = &self.key.kind else { return Step::Ended(INTERNAL) };
        let signature = match reply.numbers(rsa.n.len()) {
            Ok([signature]) => signature,
            Err(outcome) => return Step::Ended(outcome),
        };
        match opens_to(rsa, signature, &self.padded) {
            Some(true) => Step::Done(CryptoOutput::Signature(signature.to_vec())),
            Some(false) => Step::Wrong,
            None => Step::Ended(INTERNAL),
        }
    }
}

/// Whether `signature^e mod n` is what was to be signed.
pub(crate) fn opens_to(rsa: &Rsa, signature: &[u8], padded: &[u8]) -> Option<bool> {
    let (n, e) = (BigNum::from_slice(&rsa.n).ok()?, BigNum::from_slice(&rsa.e).ok()?);
    let signature = BigNum::from_slice(signature).ok()?;
    if signature >= n {
        return Some(false);
    }
    let mut opened = BigNum::new().ok()?;
    let mut context = BigNumContext::new().ok()?;
    opened.mod_exp(&signature, &e, &n, &mut context).ok()?;
    Some(opened.to_vec_padded(rsa.n.len() as i32).ok()?.ct_eq(padded).into())
}

/// The request that opens a signature.
pub(super) fn verify(
    key: PublicKey,
    scheme: SignScheme,
    octets: &[u8],
    signature: &[u8],
    fourth: bool,
) -> Result<(Box<dyn Work>, Call), Outcome> {
    let PublicKey::Rsa { n, e } = key else { return Err(BAD_INPUT) };
    let bits = is_believed(&n, &e).ok_or(BAD_INPUT)?;
    // RFC 8017 sections 8.1.2 and 8.2.2: as long as the modulus, and below it.
    if signature.len() != n.len() || signature >= &*n {
        return Err(BAD_SIGNATURE);
    }
    let exact = pke::rsa_public(n.len(), fourth).filter(|_| bits == 8 * n.len());
    let (call, size) = match exact {
        Some(function) => (Call::new(function, 1).with(signature).with(&e).with(&n), function.size),
        // No function of that size: a power will do.
        None => {
            let function: Function = pke::any_power(n.len(), fourth).ok_or(UNSUPPORTED)?;
            (Call::new(function, 1).with(signature).with(&e).with(&n), function.size)
        }
    };
    let expected = match scheme {
        SignScheme::RsaPkcs1(hash) => {
            Expected::Exactly(padding::pkcs1(hash, octets, n.len()).map_err(|_| BAD_SIGNATURE)?)
        }
        _ => Expected::Pss { scheme, octets: octets.to_vec(), bits },
    };
    Ok((Box::new(Verifying { expected, len: n.len(), size }), call))
}

/// Bits of the modulus, if signatures under this key are believed.
pub(crate) fn is_believed(n: &[u8], e: &[u8]) -> Option<usize> {
    let bits = 8 * n.len() - n.first().map_or(0, |first| first.leading_zeros() as usize);
    let odd = |number: &[u8]| number.last().is_some_and(|last| last & 1 == 1);
    let good = (LEAST..=MOST).contains(&bits) && odd(n) && odd(e) && e != [1] && e.len() <= n.len();
    good.then_some(bits)
}

struct Verifying {
    expected: Expected,
    /// Octets of the modulus, and of the function's numbers.
    len: usize,
    size: usize,
}

enum Expected {
    Exactly(Vec<u8>),
    Pss { scheme: SignScheme, octets: Vec<u8>, bits: usize },
}

impl Work for Verifying {
    fn go_on(&mut self, reply: Reply) -> Step {
        let number = match reply.numbers(self.size) {
            Ok([number]) => number,
            Err(outcome) => return Step::Ended(outcome),
        };
        let Some((front, padded)) = number.split_at_checked(self.size - self.len) else {
            return Step::Ended(INTERNAL);
        };
        if front.iter().any(|octet| *octet != 0) {
            return Step::Wrong;
        }
        let good = match &self.expected {
            Expected::Exactly(expected) => Ok(padded.ct_eq(expected).into()),
            Expected::Pss { scheme, octets, bits } => padding::is_pss(scheme.hash(), octets, *bits, padded),
        };
        match good {
            Ok(true) => Step::Done(CryptoOutput::None),
            Ok(false) => Step::Ended(BAD_SIGNATURE),
            Err(outcome) => Step::Ended(outcome),
        }
    }
}
