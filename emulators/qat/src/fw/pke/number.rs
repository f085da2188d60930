//! Numbers modulo another.

use num_bigint::BigUint;
use num_traits::Zero;

use super::Wrong;

/// `base` to the power of `exponent`.
pub(super) fn power(base: &BigUint, exponent: &BigUint, modulus: &BigUint) -> Result<BigUint, Wrong> {
    if modulus.is_zero() {
        return Err(Wrong);
    }
    Ok(base.modpow(exponent, modulus))
}

/// The inverse.
pub(super) fn inverse(number: &BigUint, modulus: &BigUint) -> Result<BigUint, Wrong> {
    if modulus.is_zero() {
        return Err(Wrong);
    }
    (number % modulus).modinv(modulus).ok_or(Wrong)
}

/// `one - other`, of numbers below the modulus.
pub(super) fn subtract(one: &BigUint, other: &BigUint, modulus: &BigUint) -> BigUint {
    if one >= other { one - other } else { modulus - (other - one) }
}

/// The number at full length; none if it is longer.
pub(super) fn to_octets(number: &BigUint, len: usize) -> Option<Vec<u8>> {
    let digits = if number.is_zero() { Vec::new() } else { number.to_bytes_be() };
    let mut octets = vec![0; len.checked_sub(digits.len())?];
    octets.extend(digits);
    Some(octets)
}

/// A number from its hexadecimal digits.
pub(super) fn hex(digits: &str) -> BigUint {
    BigUint::parse_bytes(digits.as_bytes(), 16).unwrap_or_default()
}
