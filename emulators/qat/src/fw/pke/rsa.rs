//! RSA (RFC 8017): both directions, and the making of keys from primes.

use num_bigint::BigUint;
use num_integer::Integer;
use num_traits::{One, Zero};

use super::number::{inverse, power, subtract};
use super::{Computed, Wrong};

/// A number to the power of either exponent.
pub(super) fn apply(number: &BigUint, exponent: &BigUint, modulus: &BigUint) -> Computed {
    if number >= modulus {
        return Err(Wrong);
    }
    Ok(vec![power(number, exponent, modulus)?])
}

/// The private direction by the Chinese remainders (section 5.1.2): p, q, dP, dQ, qInv.
pub(super) fn apply_crt(number: &BigUint, key: [BigUint; 5]) -> Computed {
    let [p, q, dp, dq, q_inverse] = key;
    if *number >= &p * &q {
        return Err(Wrong);
    }
    let one = power(number, &dp, &p)?;
    let two = power(number, &dq, &q)?;
    let h = subtract(&one, &(&two % &p), &p) * q_inverse % &p;
    Ok(vec![two + h * q])
}

/// n and d from primes and e, and on request dP, dQ and qInv.
pub(super) fn key(p: &BigUint, q: &BigUint, e: &BigUint, remainders: bool) -> Computed {
    if p <= &BigUint::one() || q <= &BigUint::one() || e.is_zero() {
        return Err(Wrong);
    }
    let (p1, q1) = (p - 1u8, q - 1u8);
    let d = inverse(e, &p1.lcm(&q1))?;
    let mut key = vec![p * q, d.clone()];
    if remainders {
        key.extend([&d % p1, &d % q1, inverse(q, p)?]);
    }
    Ok(key)
}
