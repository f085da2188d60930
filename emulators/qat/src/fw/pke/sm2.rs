//! SM2 (ISO/IEC 14888-3, GB/T 32918): signatures on its curve. What is hashed for them, the driver hashes.

use num_bigint::BigUint;
use num_traits::Zero;

use super::number::{hex, inverse, subtract};
use super::weierstrass::{Curve, Group, Point};
use super::{Computed, Wrong};

/// Its curve.
pub(super) fn group() -> Group {
    Group {
        curve: Curve {
            p: hex("fffffffeffffffffffffffffffffffffffffffff00000000ffffffffffffffff"),
            a: hex("fffffffeffffffffffffffffffffffffffffffff00000000fffffffffffffffc"),
            b: hex("28e9fa9e9d9f5e344d5a9e4bcf6509a7f39789f515ab8f92ddbcbd414d940e93"),
        },
        order: hex("fffffffeffffffffffffffffffffffff7203df6b21c6052b53bbf40939d54123"),
        generator: Point::new(
            hex("32c4ae2c1f1981195f9904466a39c9948fe30bbff2660be1715a4589334c74c7"),
            hex("bc3736a2f4f6779c59bdcee36b692153d0a9877cc62a474002df32e52139f0a0"),
        ),
    }
}

/// Signs a digest `e` with the key `d` and the secret number `k`.
pub(super) fn sign(k: &BigUint, e: &BigUint, d: &BigUint) -> Computed {
    let group = group();
    let n = &group.order;
    let r = (e + group.x_of(k)?) % n;
    if r.is_zero() || &r + k == *n {
        return Err(Wrong);
    }
    let s = inverse(&(d + 1u8), n)? * subtract(&(k % n), &(&r * d % n), n) % n;
    if s.is_zero() { Err(Wrong) } else { Ok(vec![r, s]) }
}

/// Verifies a signature.
pub(super) fn verify(e: &BigUint, r: &BigUint, s: &BigUint, key: &Point) -> Computed {
    let group = group();
    let n = &group.order;
    group.curve.check(key)?;
    if r.is_zero() || s.is_zero() || r >= n || s >= n {
        return Err(Wrong);
    }
    let t = (r + s) % n;
    if t.is_zero() {
        return Err(Wrong);
    }
    let x = group.sum(s, &t, key)?.into_x();
    if (e + x) % n == *r { Ok(Vec::new()) } else { Err(Wrong) }
}
