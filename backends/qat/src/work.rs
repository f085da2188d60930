//! What an operation is made of: requests to the card, and what is checked before and after.
//!
//! | module | what it holds |
//! |---|---|
//! | `dh` | key exchange: MODP, NIST curves, X25519, X448 |
//! | `rsa` | RSA signatures; what was signed is verified before it leaves |
//! | `ecdsa` | ECDSA signatures, likewise |
//! | `padding` | PKCS#1 v1.5 and PSS |

pub(crate) mod dh;
mod ecdsa;
pub(crate) mod padding;
pub(crate) mod rsa;

use spi::{CryptoOp, CryptoOutput, DhPrivate, Fault, FaultKind, Outcome, Reject, SignScheme};
use zeroize::Zeroizing;

use crate::card::Card;
use crate::der;
use crate::fw::pke::{self, Function};
use crate::fw::response::Answer;
use crate::keys::Kind;
use crate::ring::{Extra, NUMBER_EXTRA};

/// Octets that must not be seen, and that go when nobody needs them any more.
pub(crate) type Octets = Zeroizing<Vec<u8>>;

pub(crate) const BAD_INPUT: Outcome = Outcome::Rejected(Reject::BadPublicInput);
pub(crate) const BAD_SIGNATURE: Outcome = Outcome::Rejected(Reject::BadSignature);
pub(crate) const INTERNAL: Outcome = failed(FaultKind::Internal);
pub(crate) const UNSUPPORTED: Outcome = failed(FaultKind::Unsupported);

const fn failed(kind: FaultKind) -> Outcome {
    Outcome::Failed(Fault::new(kind))
}

/// An operation under way.
pub(crate) trait Work: Send {
    /// The last request was answered: what next?
    fn go_on(&mut self, reply: Reply) -> Step;
}

/// What comes next.
pub(crate) enum Step {
    /// Another request.
    Call(Call),
    /// It is done.
    Done(CryptoOutput),
    /// It has ended otherwise.
    Ended(Outcome),
    /// The card gave a result that is not right.
    Wrong,
}

/// The answer to a request, and the numbers that came out, one behind the other at [`Call::stride`].
pub(crate) struct Reply {
    pub(crate) answer: Answer,
    pub(crate) output: Octets,
}

impl Reply {
    /// The numbers; `Err` with how the operation ends when the card did not do it.
    pub(crate) fn numbers<const N: usize>(&self, size: usize) -> Result<[&[u8]; N], Outcome> {
        if !self.answer.is_good() {
            return Err(Outcome::Failed(Fault { kind: FaultKind::Internal, vendor: self.answer.vendor() }));
        }
        let mut numbers = [&[][..]; N];
        for (n, number) in numbers.iter_mut().enumerate() {
            let at = n * stride(size);
            *number = self.output.get(at..at + size).ok_or(INTERNAL)?;
        }
        Ok(numbers)
    }
}

/// A request on numbers.
pub(crate) struct Call {
    id: u32,
    inputs: Vec<Octets>,
    outputs: usize,
    size: usize,
}

/// From one number to the next in the card's memory.
fn stride(size: usize) -> usize {
    size.next_multiple_of(64)
}

impl Call {
    /// A function, with so many numbers coming out, of the function's own size.
    pub(crate) fn new(function: Function, outputs: usize) -> Self {
        Call { id: function.id, inputs: Vec::with_capacity(pke::MOST_NUMBERS), outputs, size: function.size }
    }

    /// A number that goes in, filled up with zeroes in front to the function's size.
    pub(crate) fn with(self, number: &[u8]) -> Self {
        let size = self.size;
        self.with_len(number, size)
    }

    /// One of another size.
    pub(crate) fn with_len(mut self, number: &[u8], size: usize) -> Self {
        debug_assert!(number.len() <= size, "numbers are checked before");
        let mut padded = Octets::new(vec![0; size]);
        let start = size.saturating_sub(number.len());
        padded[start..].iter_mut().zip(number).for_each(|(to, from)| *to = *from);
        self.inputs.push(padded);
        self
    }

    /// Several numbers in one piece of memory, each filled up to the function's size.
    pub(crate) fn with_all(mut self, numbers: &[&[u8]]) -> Self {
        let mut all = Octets::new(Vec::with_capacity(numbers.len() * self.size));
        for number in numbers {
            let end = all.len() + self.size;
            all.resize(end - number.len(), 0);
            all.extend_from_slice(number);
        }
        self.inputs.push(all);
        self
    }

    /// Lays everything out in the memory of a request, and makes the request.
    ///
    /// ```text
    /// | 8 addresses of what goes in | 8 addresses of what comes out | what goes in | what comes out |
    /// ```
    pub(crate) fn put(self, cookie: u64, extra: &mut Extra<'_>) -> [u8; pke::LEN] {
        let mut at = 2 * pke::LEN;
        for (n, input) in self.inputs.iter().enumerate() {
            extra.put(8 * n, &(extra.iova + at as u64).to_le_bytes());
            extra.put(at, input);
            at += stride(input.len());
        }
        let results = at;
        for n in 0..self.outputs {
            extra.put(pke::LEN + 8 * n, &(extra.iova + at as u64).to_le_bytes());
            at += stride(self.size);
        }
        assert!(at <= NUMBER_EXTRA && self.inputs.len() <= pke::MOST_NUMBERS, "no function is larger");
        extra.set_dirty(at);
        extra.set_output(results, at - results);
        let tables = [extra.iova, extra.iova + pke::LEN as u64];
        pke::request(self.id, cookie, tables, self.inputs.len() as u8, self.outputs as u8)
    }
}

/// The first request of an operation, and what follows; `Err` when it has ended already.
pub(crate) fn begin(card: &Card, op: CryptoOp) -> Result<(Box<dyn Work>, Call), Outcome> {
    let fourth = card.model.generation.fourth;
    match op {
        CryptoOp::DhGenerate { group } | CryptoOp::DhDerive { group, .. }
            if !card.caps.dh.contains(&group) =>
        {
            Err(UNSUPPORTED)
        }
        CryptoOp::DhGenerate { group } => dh::generate(group, fourth),
        CryptoOp::DhDerive { group, ours: DhPrivate::Bytes(ours), theirs } => {
            dh::derive(group, fourth, &ours, &theirs)
        }
        // No handle of a private half was ever given out here.
        CryptoOp::DhDerive { .. } => Err(failed(FaultKind::StaleHandle)),
        CryptoOp::Sign { key, scheme, octets } => {
            let key = card.find_key(key).ok_or(failed(FaultKind::StaleHandle))?;
            match (&key.kind, scheme) {
                (Kind::Rsa(_), SignScheme::RsaPkcs1(_) | SignScheme::RsaPss(_)) => {
                    rsa::sign(key, scheme, &octets, fourth)
                }
                (Kind::Ec { curve, .. }, SignScheme::EcdsaDer(of, _) | SignScheme::EcdsaPlain(of, _))
                    if *curve == of =>
                {
                    ecdsa::sign(key, scheme, &octets, fourth)
                }
                _ => Err(UNSUPPORTED),
            }
        }
        CryptoOp::Verify { scheme, .. } if !card.caps.verify.contains(&scheme) => Err(UNSUPPORTED),
        CryptoOp::Verify { spki, scheme, octets, signature } => {
            let key = der::public_key(&spki).ok_or(BAD_INPUT)?;
            match scheme {
                SignScheme::RsaPkcs1(_) | SignScheme::RsaPss(_) => {
                    rsa::verify(key, scheme, &octets, &signature, fourth)
                }
                _ => ecdsa::verify(key, scheme, &octets, &signature),
            }
        }
        _ => Err(UNSUPPORTED),
    }
}
