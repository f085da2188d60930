//! Tests whether a number is prime. None of them proves it; drivers combine them.

use num_bigint::BigUint;
use num_integer::Integer;
use num_traits::{One, Zero};

use super::{Computed, Wrong};

/// Two to the power of m - 1 is one.
pub(super) fn fermat(m: &BigUint) -> Computed {
    if m.is_even() || m <= &BigUint::one() {
        return Err(Wrong);
    }
    holds(BigUint::from(2u8).modpow(&(m - 1u8), m).is_one())
}

/// No small prime divides it.
pub(super) fn small_factors(m: &BigUint) -> Computed {
    const LIMIT: u32 = 1000;
    if m <= &BigUint::one() {
        return Err(Wrong);
    }
    holds((2..LIMIT).all(|factor| !(m % factor).is_zero() || *m == BigUint::from(factor)))
}

/// The test of Miller and Rabin with base x.
pub(super) fn miller_rabin(x: &BigUint, m: &BigUint) -> Computed {
    if m.is_even() || m <= &BigUint::from(3u8) {
        return Err(Wrong);
    }
    let minus_one = m - 1u8;
    let twos = minus_one.trailing_zeros().unwrap_or(0);
    let mut power = x.modpow(&(&minus_one >> twos), m);
    if power.is_one() || power == minus_one {
        return Ok(Vec::new());
    }
    for _ in 1..twos {
        power = &power * &power % m;
        if power == minus_one {
            return Ok(Vec::new());
        }
    }
    Err(Wrong)
}

/// The test of Lucas (FIPS 186-4 appendix C.3.3).
pub(super) fn lucas(m: &BigUint) -> Computed {
    if m.is_even() || m <= &BigUint::from(3u8) {
        return Err(Wrong);
    }
    // Every Jacobi symbol of a square is one, or zero; no discriminant would be found.
    let root = m.sqrt();
    if &root * &root == *m {
        return Err(Wrong);
    }
    // 5, -7, 9, -11, ...
    for size in (5u32..).step_by(2).take(10_000) {
        let negative = size % 4 == 3;
        let d = if negative { m - BigUint::from(size) % m } else { BigUint::from(size) % m };
        match jacobi(&d, m) {
            1 => {}
            0 if BigUint::from(size) % m != BigUint::ZERO => return Err(Wrong),
            0 => {}
            _ => return holds(lucas_u_is_zero(&d, m)),
        }
    }
    Err(Wrong)
}

/// Whether U(m + 1) of the sequence with P = 1 and this discriminant is zero.
fn lucas_u_is_zero(d: &BigUint, m: &BigUint) -> bool {
    let k = m + 1u8;
    let half = |number: BigUint| if number.is_odd() { (number + m) >> 1u8 } else { number >> 1u8 };
    let (mut u, mut v) = (BigUint::one(), BigUint::one());
    for at in (0..k.bits().saturating_sub(1)).rev() {
        let (next_u, next_v) = (&u * &v % m, half((&v * &v + d * (&u * &u % m)) % m));
        (u, v) = (next_u, next_v);
        if k.bit(at) {
            let (next_u, next_v) = (half((&u + &v) % m), half((&v + d * &u) % m));
            (u, v) = (next_u, next_v);
        }
    }
    (u % m).is_zero()
}

/// The Jacobi symbol.
fn jacobi(a: &BigUint, n: &BigUint) -> i8 {
    let (mut a, mut n, mut sign) = (a % n, n.clone(), 1);
    while !a.is_zero() {
        let twos = a.trailing_zeros().unwrap_or(0);
        a >>= twos;
        let eighth = (&n % 8u8).to_u32_digits().first().copied().unwrap_or(0);
        if twos % 2 == 1 && matches!(eighth, 3 | 5) {
            sign = -sign;
        }
        if a.bit(0) && a.bit(1) && eighth % 4 == 3 {
            sign = -sign;
        }
        std::mem::swap(&mut a, &mut n);
        a %= &n;
    }
    if n.is_one() { sign } else { 0 }
}

fn holds(test: bool) -> Computed {
    if test { Ok(Vec::new()) } else { Err(Wrong) }
}
