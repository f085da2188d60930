//! DSA (FIPS 186-4 section 4).

use num_bigint::BigUint;
use num_traits::{One, Zero};

use super::number::{inverse, power};
use super::{Computed, Wrong};

/// g = h^((p - 1) / q).
pub(super) fn generator(p: &BigUint, q: &BigUint, h: &BigUint) -> Computed {
    if p.is_zero() || q.is_zero() {
        return Err(Wrong);
    }
    let g = power(h, &((p - 1u8) / q), p)?;
    if g <= BigUint::one() { Err(Wrong) } else { Ok(vec![g]) }
}

pub(super) fn sign_r(k: &BigUint, p: &BigUint, q: &BigUint, g: &BigUint) -> Result<BigUint, Wrong> {
    if q.is_zero() {
        return Err(Wrong);
    }
    not_zero(power(g, k, p)? % q)
}

/// From digest, secret number, order, r and private key.
pub(super) fn sign_s(
    m: &BigUint,
    k: &BigUint,
    q: &BigUint,
    r: &BigUint,
    x: &BigUint,
) -> Result<BigUint, Wrong> {
    not_zero(inverse(k, q)? * (m + x * r) % q)
}

/// With p, q, g and the public key.
pub(super) fn verify(r: &BigUint, s: &BigUint, m: &BigUint, key: &[BigUint; 4]) -> Computed {
    let [p, q, g, y] = key;
    if r.is_zero() || s.is_zero() || r >= q || s >= q {
        return Err(Wrong);
    }
    let w = inverse(s, q)?;
    let (one, two) = (m * &w % q, r * &w % q);
    let v = power(g, &one, p)? * power(y, &two, p)? % p % q;
    if v == *r { Ok(Vec::new()) } else { Err(Wrong) }
}

fn not_zero(number: BigUint) -> Result<BigUint, Wrong> {
    if number.is_zero() { Err(Wrong) } else { Ok(number) }
}
