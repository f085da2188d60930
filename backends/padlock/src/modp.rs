//! Key exchange in the MODP groups (RFC 3526) by MONTMUL.
//!
//! An exponent goes through a fixed window: four squarings and one multiplication for each four bits, whatever they are, and the
//! factor is gathered from the whole table. The order of the instructions, and the addresses they are given, do not depend on
//! the exponent. Whether the time of one MONTMUL depends on its operands nobody has published; exponents are used for one
//! exchange only.

use std::sync::OnceLock;

use openssl::bn::BigNum;
use spi::{FaultKind, Group, Outcome, Reject, Secret};
use zeroize::{Zeroize, Zeroizing};

use crate::number;
use crate::sys::isa;
use crate::sys::low::Low;

const BAD: Outcome = Outcome::Rejected(Reject::BadPublicInput);
const INTERNAL: Outcome = Outcome::Failed(spi::Fault::new(FaultKind::Internal));
const UNSUPPORTED: Outcome = Outcome::Failed(spi::Fault::new(FaultKind::Unsupported));

/// The groups.
pub(crate) const GROUPS: [Group; 5] =
    [Group::MODP2048, Group::MODP3072, Group::MODP4096, Group::MODP6144, Group::MODP8192];

/// Octets of our exponents: what RFC 3526 section 8 estimates for the strength of the group, the higher column. Longer ones
/// cost time and add nothing in a group over a safe prime.
pub(crate) fn exponent_len(group: Group) -> usize {
    match group {
        Group::MODP2048 => 40,
        Group::MODP3072 => 53,
        Group::MODP4096 => 60,
        Group::MODP6144 => 68,
        _ => 78,
    }
}

/// The public value of an exponent.
pub(crate) fn public(group: Group, exponent: &Secret) -> Result<Vec<u8>, Outcome> {
    let modulus = prime(group).ok_or(UNSUPPORTED)?;
    let mut two = vec![0; modulus.len()];
    two[0] = 2;
    let power = power(modulus, &two, exponent.expose()).ok_or(INTERNAL)?;
    Ok(number::to_octets(&power))
}

/// The shared secret, at full length (RFC 7296 section 2.14).
pub(crate) fn derive(group: Group, exponent: &Secret, theirs: &[u8]) -> Result<Secret, Outcome> {
    let modulus = prime(group).ok_or(UNSUPPORTED)?;
    if theirs.len() != modulus.len() * 4 {
        return Err(BAD);
    }
    let theirs = number::from_octets(theirs, modulus.len()).ok_or(BAD)?;
    // RFC 6989 section 2.1: more than one and less than p - 1, which is all that a group over a safe prime needs. The prime is
    // odd, so one less differs in the lowest word only.
    let mut last = modulus.to_vec();
    last[0] -= 1;
    let small = theirs[1..].iter().all(|word| *word == 0) && theirs[0] <= 1;
    if small || number::subtract(&theirs, &last).1 == 0 {
        return Err(BAD);
    }
    let power = Zeroizing::new(power(modulus, &theirs, exponent.expose()).ok_or(INTERNAL)?);
    Ok(Secret::new(number::to_octets(&power)))
}

/// The primes, by words.
fn prime(group: Group) -> Option<&'static [u32]> {
    static PRIMES: [OnceLock<Option<Vec<u32>>>; 5] = [const { OnceLock::new() }; 5];
    let make: fn() -> Result<BigNum, openssl::error::ErrorStack> = match group {
        Group::MODP2048 => BigNum::get_rfc3526_prime_2048,
        Group::MODP3072 => BigNum::get_rfc3526_prime_3072,
        Group::MODP4096 => BigNum::get_rfc3526_prime_4096,
        Group::MODP6144 => BigNum::get_rfc3526_prime_6144,
        Group::MODP8192 => BigNum::get_rfc3526_prime_8192,
        _ => return None,
    };
    let place = GROUPS.iter().position(|one| *one == group)?;
    let words = PRIMES.get(place)?.get_or_init(|| {
        let octets = make().ok()?.to_vec();
        number::from_octets(&octets, octets.len() / 4)
    });
    words.as_deref()
}

/// `base ^ exponent mod modulus`; the modulus is odd, its highest bit is set, and `base` is below it. `None`: no memory.
pub(crate) fn power(modulus: &[u32], base: &[u32], exponent: &[u8]) -> Option<Vec<u32>> {
    let mut unit = Unit::new(modulus)?;
    // R mod M, which stands for one; doubled as often as R has bits it is R^2 mod M, which makes operands of numbers.
    let (one, _) = number::subtract(&vec![0; modulus.len()], modulus);
    let mut square = one.clone();
    for _ in 0..modulus.len() * 32 {
        number::double(&mut square, modulus);
    }
    unit.set(TABLE, &one);
    unit.set(LEFT, base);
    unit.set(RIGHT, &square);
    unit.multiply(LEFT, RIGHT, TABLE + 1);
    for n in 2..16 {
        unit.multiply(TABLE + n - 1, TABLE + 1, TABLE + n);
    }
    unit.set(LEFT, &one);
    for octet in exponent {
        for four in [octet >> 4, octet & 15] {
            for _ in 0..4 {
                unit.multiply(LEFT, LEFT, LEFT);
            }
            unit.gather(four.into());
            unit.multiply(LEFT, RIGHT, LEFT);
        }
    }
    let mut plain_one = vec![0; modulus.len()];
    plain_one[0] = 1;
    unit.set(RIGHT, &plain_one);
    unit.multiply(LEFT, RIGHT, LEFT);
    Some(unit.take(LEFT))
}

/// Places for operands, behind those of modulus and result.
const MODULUS: usize = 0;
const RESULT: usize = 1;
const LEFT: usize = 2;
const RIGHT: usize = 3;
const TABLE: usize = 4;
const PLACES: usize = TABLE + 16;

/// The operand block is at the beginning, and the scratch behind it.
const SCRATCH: usize = 32;
const OPERANDS: usize = 64;

/// One modulus, and places for operands.
struct Unit<'m> {
    low: Low,
    modulus: &'m [u32],
    /// Octets of a place: the number, and 16 of zeroes.
    stride: usize,
}

impl<'m> Unit<'m> {
    fn new(modulus: &'m [u32]) -> Option<Unit<'m>> {
        let stride = modulus.len() * 4 + 16;
        let low = Low::map(OPERANDS + PLACES * stride)?;
        let mut unit = Unit { low, modulus, stride };
        unit.set(MODULUS, modulus);
        unit.low.set_word(0, number::negative_inverse(modulus[0]));
        let (address, modulus) = (unit.low.address(), unit.place(MODULUS));
        for (field, at) in [(12, unit.place(RESULT)), (16, modulus), (20, SCRATCH)] {
            // Low memory has addresses of 32 bits.
            unit.low.set_word(field, (address + at) as u32);
        }
        Some(unit)
    }

    fn place(&self, number: usize) -> usize {
        OPERANDS + number * self.stride
    }

    fn set(&mut self, to: usize, words: &[u32]) {
        let at = self.place(to);
        for (n, word) in words.iter().enumerate() {
            self.low.set_word(at + 4 * n, *word);
        }
    }

    fn take(&self, from: usize) -> Vec<u32> {
        let at = self.place(from);
        (0..self.modulus.len()).map(|n| self.low.word(at + 4 * n)).collect()
    }

    /// `left * right / R mod M` into `to`.
    fn multiply(&mut self, left: usize, right: usize, to: usize) {
        let address = self.low.address();
        for (field, place) in [(4, left), (8, right)] {
            let at = self.place(place);
            self.low.set_word(field, (address + at) as u32);
        }
        let (result, stride) = (self.place(RESULT), self.stride);
        self.low.bytes_mut()[result..result + stride].fill(0);
        isa::montmul(&mut self.low, 0, self.modulus.len() * 32);
        let carry = self.low.word(result + self.modulus.len() * 4);
        let mut words = self.take(RESULT);
        number::reduce(&mut words, carry, self.modulus);
        self.set(to, &words);
        words.zeroize();
    }

    /// The factor for four bits of the exponent into the right place. Every entry of the table is read.
    fn gather(&mut self, wanted: u32) {
        let mut words = vec![0; self.modulus.len()];
        for n in 0..16 {
            let apart = wanted ^ n as u32;
            // 1 if they are equal: what is below 16 borrows from 16 only if it is zero.
            let equal = (apart.wrapping_sub(1) >> 31) & 1;
            let mut entry = self.take(TABLE + n);
            number::choose(&mut words, &entry, equal);
            entry.zeroize();
        }
        self.set(RIGHT, &words);
        words.zeroize();
    }
}
