//! Public-key requests: a function, a table of inputs, a table of outputs. Numbers are big-endian and of a size that the
//! function fixes; results are written at full size.
//!
//! The arithmetic here takes a time that depends on its operands. That is no concern of an emulator, which serves tests;
//! nothing of it may be used for keys that matter.

mod dsa;
mod edwards;
mod functions;
mod montgomery;
mod number;
mod prime;
mod rsa;
mod sm2;
mod weierstrass;

use emu_model::Dma;
use num_bigint::BigUint;

use super::Trouble;
use super::message::Request;
use super::outcome::{Cost, Outcome};
use functions::{Function, Op};
use number::{power, to_octets};
use weierstrass::{Curve, Point};

/// Octets of a request.
const REQUEST_LEN: usize = 64;
/// Requests that may be chained to one.
const MAX_CHAIN: usize = 16;
/// Entries of a table.
const TABLE: usize = 8;

/// What a function comes to: its results, or that something was wrong with what it was to verify or compute.
type Computed = Result<Vec<BigUint>, Wrong>;

/// The function cannot be computed for these numbers, or what it verifies is not so. The device says the same for both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wrong;

/// Does a public-key request, and those that are chained to it.
pub(super) fn execute(request: &Request<'_>, memory: &dyn Dma) -> Outcome {
    let mut outcome = Outcome::new(request, "pke: unintelligible".to_string(), Cost::Numbers(0))
        .with_tables(request.u64(32), request.u64(40));
    if let Err(trouble) = run(request, memory, &mut outcome) {
        outcome.fail(trouble.into());
    }
    outcome
}

fn run(request: &Request<'_>, memory: &dyn Dma, outcome: &mut Outcome) -> Result<(), Trouble> {
    let mut next = one(request, memory, outcome)?;
    for _ in 0..MAX_CHAIN {
        let Some(address) = next else { return Ok(()) };
        let mut octets = [0; REQUEST_LEN];
        memory.read(address, &mut octets)?;
        next = one(&Request(&octets), memory, outcome)?;
    }
    match next {
        None => Ok(()),
        Some(_) => Err(Trouble::Invalid("a chain of more than 16 requests")),
    }
}

/// Does one request; returns the address of the next one, if there is one and this one did not fail.
fn one(request: &Request<'_>, memory: &dyn Dma, outcome: &mut Outcome) -> Result<Option<u64>, Trouble> {
    let function =
        Function::find(request.u32(20)).ok_or(Trouble::Refused("PKE function that is not known"))?;
    outcome.rename(function.name());
    outcome.weigh(function.weight());
    let (input_lens, output_lens) = function.shape();
    // The request says how many there are. More than the function takes do no harm.
    let outputs = usize::from(request.u8(48));
    let inputs = usize::from(request.u8(49));
    if inputs < input_lens.len() || outputs < output_lens.len() {
        return Err(Trouble::Invalid("fewer parameters than the function has"));
    }
    let mut numbers = Vec::new();
    for (address, len) in table(memory, request.u64(32), input_lens.len())?.into_iter().zip(input_lens) {
        let mut octets = vec![0; len];
        memory.read(address, &mut octets)?;
        numbers.push(octets);
    }
    let Ok(results) = compute(function, &numbers) else {
        outcome.mismatch();
        return Ok(None);
    };
    let addresses = table(memory, request.u64(40), output_lens.len())?;
    for ((address, len), result) in addresses.into_iter().zip(output_lens).zip(results) {
        let octets = to_octets(&result, len).ok_or(Trouble::Invalid("a result longer than its place"))?;
        outcome.write(address, octets);
        // The lowest bit: the number stays in its range, or nearly so.
        outcome.aim(len - 1);
    }
    Ok(Some(request.u64(56)).filter(|next| *next != 0))
}

/// The addresses in a table.
fn table(memory: &dyn Dma, address: u64, entries: usize) -> Result<Vec<u64>, Trouble> {
    let mut octets = vec![0; entries.min(TABLE) * 8];
    memory.read(address, &mut octets)?;
    Ok(octets.as_chunks::<8>().0.iter().map(|entry| u64::from_le_bytes(*entry)).collect())
}

fn compute(function: Function, inputs: &[Vec<u8>]) -> Computed {
    let number = |at: usize| inputs.get(at).map(|octets| BigUint::from_bytes_be(octets)).unwrap_or_default();
    let len = function.len();
    // Of one input that is several numbers, one after the other.
    let part = |at: usize| {
        let all = inputs.first().map(Vec::as_slice).unwrap_or_default();
        BigUint::from_bytes_be(all.get(at * len..(at + 1) * len).unwrap_or_default())
    };
    match function.op {
        Op::Init => Ok(vec![number(0)]),
        Op::Dh | Op::ModExp => Ok(vec![power(&number(0), &number(1), &number(2))?]),
        Op::DhTwo => Ok(vec![power(&BigUint::from(2u8), &number(0), &number(1))?]),
        Op::ModInv => Ok(vec![number::inverse(&number(0), &number(1))?]),
        Op::RsaPublic | Op::RsaPrivate => rsa::apply(&number(0), &number(1), &number(2)),
        Op::RsaPrivateCrt => {
            rsa::apply_crt(&number(0), [number(1), number(2), number(3), number(4), number(5)])
        }
        Op::RsaKey => rsa::key(&number(0), &number(1), &number(2), false),
        Op::RsaKeyCrt => rsa::key(&number(0), &number(1), &number(2), true),
        Op::Fermat => prime::fermat(&number(0)),
        Op::GcdTest => prime::small_factors(&number(0)),
        Op::MillerRabin => prime::miller_rabin(&number(0), &number(1)),
        Op::Lucas => prime::lucas(&number(0)),
        Op::DsaGenerator { .. } => dsa::generator(&number(0), &number(1), &number(2)),
        Op::DsaPublic { .. } => Ok(vec![power(&number(1), &number(2), &number(0))?]),
        Op::DsaSign { .. } => {
            let (r, p, q, g) = (number(1), number(2), number(3), number(4));
            let r_value = dsa::sign_r(&r, &p, &q, &g)?;
            let s = dsa::sign_s(&number(0), &r, &q, &r_value, &number(5))?;
            Ok(vec![r_value, s])
        }
        Op::DsaSignR { .. } => Ok(vec![dsa::sign_r(&number(0), &number(1), &number(2), &number(3))?]),
        Op::DsaSignS => Ok(vec![dsa::sign_s(&number(0), &number(1), &number(2), &number(3), &number(4))?]),
        Op::DsaVerify { .. } => {
            let key = [number(3), number(4), number(5), number(6)];
            dsa::verify(&number(0), &number(1), &number(2), &key)
        }
        Op::EcMultiply => {
            let curve = Curve { p: number(5), a: number(3), b: number(4) };
            let cofactor = number(6);
            let k = if cofactor == BigUint::ZERO { number(0) } else { number(0) * cofactor };
            Ok(curve.multiply(&k, &Point::new(number(1), number(2)))?.into())
        }
        Op::EcVerifyPoint => {
            let curve = Curve { p: number(2), a: number(3), b: number(4) };
            curve.check(&Point::new(number(0), number(1))).map(|()| Vec::new())
        }
        Op::EcdsaSign => {
            let group = weierstrass::Group {
                curve: Curve { b: part(3), a: part(4), p: part(5) },
                order: part(6),
                generator: Point::new(part(8), part(7)),
            };
            group.sign(&part(0), &part(1), &part(2))
        }
        Op::EcdsaSignR => {
            let group = weierstrass::Group {
                curve: Curve { p: number(3), a: number(4), b: number(5) },
                order: number(2),
                generator: Point::new(number(0), number(1)),
            };
            Ok(vec![group.sign_r(&number(6))?])
        }
        Op::EcdsaSignS => {
            Ok(vec![weierstrass::sign_s(&number(0), &number(1), &number(2), &number(3), &number(4))?])
        }
        Op::EcdsaVerify => {
            let group = weierstrass::Group {
                curve: Curve { p: part(0), b: part(1), a: part(2) },
                order: part(7),
                generator: Point::new(part(6), part(5)),
            };
            group.verify(&Point::new(part(4), part(3)), &part(8), &part(9), &part(10))
        }
        Op::NistMultiply => {
            let group = weierstrass::nist(function.bits);
            Ok(group.curve.multiply(&number(2), &Point::new(number(0), number(1)))?.into())
        }
        Op::NistGenerator => {
            let group = weierstrass::nist(function.bits);
            Ok(group.curve.multiply(&number(0), &group.generator)?.into())
        }
        Op::NistSign => weierstrass::nist(function.bits).sign(&number(2), &number(1), &number(0)),
        Op::MontgomeryMultiply => Ok(vec![montgomery::curve(function.bits).multiply(&number(0), &number(1))]),
        Op::MontgomeryGenerator => {
            let curve = montgomery::curve(function.bits);
            Ok(vec![curve.multiply(&curve.base, &number(0))])
        }
        Op::EdwardsMultiply => edwards::curve(function.bits).multiply(&number(2), &(number(0), number(1))),
        Op::EdwardsGenerator => {
            let curve = edwards::curve(function.bits);
            curve.multiply(&number(0), &curve.base)
        }
        Op::Sm2Sign => sm2::sign(&number(0), &number(1), &number(2)),
        Op::Sm2Verify => sm2::verify(&number(0), &number(1), &number(2), &Point::new(number(3), number(4))),
        Op::Sm2Encrypt => {
            let group = sm2::group();
            let k = number(0);
            let mut both: Vec<BigUint> = group.curve.multiply(&k, &group.generator)?.into();
            both.extend(Vec::from(group.curve.multiply(&k, &Point::new(number(1), number(2)))?));
            Ok(both)
        }
        Op::Sm2Decrypt | Op::Sm2Multiply => {
            Ok(sm2::group().curve.multiply(&number(0), &Point::new(number(1), number(2)))?.into())
        }
        Op::Sm2Generator => {
            let group = sm2::group();
            Ok(group.curve.multiply(&number(0), &group.generator)?.into())
        }
        Op::Sm2VerifyPoint => {
            sm2::group().curve.check(&Point::new(number(0), number(1))).map(|()| Vec::new())
        }
    }
}
