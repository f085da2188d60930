//! ECDSA signatures. The nonce is made here and goes to the card as an operand. What was signed is verified before it leaves, by
//! the card itself in a second request: a fault that comes and goes is caught by it, and this processor is spared what would
//! cost it more than the signature.

use std::sync::Arc;

use spi::alg::Curve;
use spi::{CryptoOutput, Outcome, SignScheme};

use super::dh::scalar;
use super::{BAD_INPUT, BAD_SIGNATURE, Call, INTERNAL, Octets, Reply, Step, UNSUPPORTED, Work, padding};
use crate::curve::{self, is_in_range};
use crate::der::{self, PublicKey};
use crate::keys::{Kind, PrivateKey};

/// The request for a signature.
pub(super) fn sign(
    key: Arc<PrivateKey>,
    scheme: SignScheme,
    octets: &[u8],
    fourth: bool,
) -> Result<(Box<dyn Work>, Call), Outcome> {
    if !key.schemes().contains(&scheme) {
        return Err(UNSUPPORTED);
    }
    let signing = Signing { digest: shortened(scheme, octets)?, key, scheme, fourth, signature: None };
    let call = signing.call()?;
    Ok((Box::new(signing), call))
}

struct Signing {
    key: Arc<PrivateKey>,
    scheme: SignScheme,
    digest: Vec<u8>,
    fourth: bool,
    /// r and s, once they are there.
    signature: Option<(Vec<u8>, Vec<u8>)>,
}

impl Signing {
    fn call(&self) -> Result<Call, Outcome> {
        let Kind::Ec { curve, scalar: private, .. } = &self.key.kind else { return Err(UNSUPPORTED) };
        let nonce: Octets = scalar(*curve)?;
        let functions = curve::functions(*curve);
        if let Some(fixed) = functions.fixed.filter(|_| self.fourth) {
            let call = Call::new(fixed.sign, 2);
            return Ok(call.with(&nonce).with(&self.digest).with(private.expose()));
        }
        let info = curve::info(*curve).ok_or(INTERNAL)?;
        Ok(Call::new(functions.sign, 2).with_all(&[
            private.expose(),
            &self.digest,
            &nonce,
            &info.b,
            &info.a,
            &info.p,
            &info.n,
            &info.g.1,
            &info.g.0,
        ]))
    }

    fn take(&mut self, reply: &Reply) -> Result<Step, Outcome> {
        let Kind::Ec { curve, point, .. } = &self.key.kind else { return Err(UNSUPPORTED) };
        let (len, n) = (curve.coordinate_len(), &curve::info(*curve).ok_or(INTERNAL)?.n);
        let functions = curve::functions(*curve);
        let size =
            functions.fixed.filter(|_| self.fourth).map_or(functions.sign.size, |fixed| fixed.sign.size);
        let numbers: [&[u8]; 2] = reply.numbers(size)?;
        let mut parts = numbers.into_iter().map(|number| {
            let (front, part) = number.split_at_checked(size - len)?;
            (front.iter().all(|octet| *octet == 0) && is_in_range(part, n)).then(|| part.to_vec())
        });
        let (Some(Some(r)), Some(Some(s))) = (parts.next(), parts.next()) else { return Ok(Step::Wrong) };
        let call = verification(*curve, point, &r, &s, &self.digest)?;
        self.signature = Some((r, s));
        Ok(Step::Call(call))
    }
}

impl Work for Signing {
    fn go_on(&mut self, reply: Reply) -> Step {
        let Some((r, s)) = self.signature.take() else {
            return self.take(&reply).unwrap_or_else(Step::Ended);
        };
        if reply.answer.is_refusal() {
            return Step::Wrong;
        }
        if let Err(outcome) = reply.numbers::<0>(0) {
            return Step::Ended(outcome);
        }
        let signature = match self.scheme {
            SignScheme::EcdsaDer(..) => der::signature(&r, &s),
            _ => [r, s].concat(),
        };
        Step::Done(CryptoOutput::Signature(signature))
    }
}

/// The request that verifies a signature.
pub(super) fn verify(
    key: PublicKey,
    scheme: SignScheme,
    octets: &[u8],
    signature: &[u8],
) -> Result<(Box<dyn Work>, Call), Outcome> {
    let (SignScheme::EcdsaDer(wanted, _) | SignScheme::EcdsaPlain(wanted, _)) = scheme else {
        return Err(UNSUPPORTED);
    };
    let PublicKey::Ec { curve, point } = key else { return Err(BAD_INPUT) };
    if curve != wanted {
        return Err(BAD_INPUT);
    }
    let point = curve::point(curve, &point).ok_or(BAD_INPUT)?;
    let len = curve.coordinate_len();
    let parts = match scheme {
        SignScheme::EcdsaDer(..) => der::split_signature(signature, len),
        _ => signature.split_at_checked(len).map(|(r, s)| (r.to_vec(), s.to_vec())),
    };
    let (r, s) = parts.ok_or(BAD_SIGNATURE)?;
    let n = &curve::info(curve).ok_or(INTERNAL)?.n;
    if !is_in_range(&r, n) || !is_in_range(&s, n) {
        return Err(BAD_SIGNATURE);
    }
    let call = verification(curve, &point, &r, &s, &shortened(scheme, octets)?)?;
    Ok((Box::new(Verifying), call))
}

struct Verifying;

impl Work for Verifying {
    fn go_on(&mut self, reply: Reply) -> Step {
        if reply.answer.is_refusal() {
            return Step::Ended(BAD_SIGNATURE);
        }
        match reply.numbers::<0>(0) {
            Ok(_) => Step::Done(CryptoOutput::None),
            Err(outcome) => Step::Ended(outcome),
        }
    }
}

fn verification(
    curve: Curve,
    point: &(Vec<u8>, Vec<u8>),
    r: &[u8],
    s: &[u8],
    digest: &[u8],
) -> Result<Call, Outcome> {
    let info = curve::info(curve).ok_or(INTERNAL)?;
    let all =
        [&info.p, &info.b, &info.a, &point.1, &point.0, &info.g.1, &info.g.0, &info.n].map(Vec::as_slice);
    let all: Vec<&[u8]> = all.into_iter().chain([r, s, digest]).collect();
    Ok(Call::new(curve::functions(curve).verify, 0).with_all(&all))
}

/// The digest, cut to the bits of n (FIPS 186-4 section 6.4): octets will do, since only P-521 has bits beyond them, and no hash
/// is as long.
fn shortened(scheme: SignScheme, octets: &[u8]) -> Result<Vec<u8>, Outcome> {
    let (SignScheme::EcdsaDer(curve, hash) | SignScheme::EcdsaPlain(curve, hash)) = scheme else {
        return Err(UNSUPPORTED);
    };
    let mut digest = padding::digest(hash, &[octets])?;
    digest.truncate(curve.coordinate_len());
    Ok(digest)
}
