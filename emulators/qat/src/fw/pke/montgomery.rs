//! X25519 and X448 (RFC 7748). Drivers hand over the numbers of the RFC turned around, for here everything is big-endian;
//! the decoding of scalar and coordinate is the device's.

use num_bigint::BigUint;
use num_traits::One;

use super::number::{hex, subtract};

/// A curve.
pub(super) struct Curve {
    p: BigUint,
    /// (A - 2) / 4.
    a24: u32,
    bits: u32,
    /// The coordinate of the base point.
    pub(super) base: BigUint,
}

/// curve448 for 448, and curve25519.
pub(super) fn curve(bits: u32) -> Curve {
    if bits == 448 {
        let p = "fffffffffffffffffffffffffffffffffffffffffffffffffffffffeffffffffffffffffffffffffffffffffffffffffffffffffffffffff";
        return Curve { p: hex(p), a24: 39081, bits, base: BigUint::from(5u8) };
    }
    let p = "7fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffed";
    Curve { p: hex(p), a24: 121_665, bits, base: BigUint::from(9u8) }
}

impl Curve {
    /// The coordinate of k times the point with coordinate u (section 5).
    pub(super) fn multiply(&self, u: &BigUint, k: &BigUint) -> BigUint {
        let p = &self.p;
        let (k, u) = (self.decode_scalar(k), self.decode_coordinate(u) % p);
        let (mut x2, mut z2) = (BigUint::one(), BigUint::ZERO);
        let (mut x3, mut z3) = (u.clone(), BigUint::one());
        let mut swapped = false;
        for at in (0..u64::from(self.bits)).rev() {
            if k.bit(at) != swapped {
                std::mem::swap(&mut x2, &mut x3);
                std::mem::swap(&mut z2, &mut z3);
                swapped = !swapped;
            }
            let (a, b) = ((&x2 + &z2) % p, subtract(&x2, &z2, p));
            let (aa, bb) = (&a * &a % p, &b * &b % p);
            let e = subtract(&aa, &bb, p);
            let (c, d) = ((&x3 + &z3) % p, subtract(&x3, &z3, p));
            let (da, cb) = (d * a % p, c * b % p);
            let sum = (&da + &cb) % p;
            let difference = subtract(&da, &cb, p);
            x3 = &sum * &sum % p;
            z3 = &u * (&difference * &difference % p) % p;
            x2 = &aa * bb % p;
            z2 = &e * ((aa + &e * self.a24) % p) % p;
        }
        if swapped {
            std::mem::swap(&mut x2, &mut x3);
            std::mem::swap(&mut z2, &mut z3);
        }
        // To the power of p - 2 is the inverse, and zero stays zero: so does the RFC.
        x2 * z2.modpow(&(p - 2u8), p) % p
    }

    fn decode_scalar(&self, k: &BigUint) -> BigUint {
        let mut k = k.clone();
        if self.bits == 448 {
            k.set_bit(0, false);
            k.set_bit(1, false);
            k.set_bit(447, true);
        } else {
            (0..3).for_each(|bit| k.set_bit(bit, false));
            k.set_bit(255, false);
            k.set_bit(254, true);
        }
        k
    }

    fn decode_coordinate(&self, u: &BigUint) -> BigUint {
        let mut u = u.clone();
        if self.bits == 255 {
            u.set_bit(255, false);
        }
        u
    }
}
