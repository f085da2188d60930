//! edwards25519 and edwards448 (RFC 8032): points times numbers. Nothing is decoded; numbers are taken as they are.

use num_bigint::BigUint;
use num_traits::{One, Zero};

use super::number::{hex, inverse, subtract};
use super::{Computed, Wrong};

/// A curve a x^2 + y^2 = 1 + d x^2 y^2.
pub(super) struct Curve {
    p: BigUint,
    a: BigUint,
    d: BigUint,
    pub(super) base: (BigUint, BigUint),
}

/// A point as x / z and y / z.
#[derive(Clone)]
struct Projective {
    x: BigUint,
    y: BigUint,
    z: BigUint,
}

/// edwards448 for 448, and edwards25519.
pub(super) fn curve(bits: u32) -> Curve {
    if bits == 448 {
        let p = hex(
            "fffffffffffffffffffffffffffffffffffffffffffffffffffffffeffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        );
        return Curve {
            a: BigUint::one(),
            d: &p - 39081u32,
            p,
            base: (
                hex(
                    "4f1970c66bed0ded221d15a622bf36da9e146570470f1767ea6de324a3d3a46412ae1af72ab66511433b80e18b00938e2626a82bc70cc05e",
                ),
                hex(
                    "693f46716eb6bc248876203756c9c7624bea73736ca3984087789c1e05a0c2d73ad3ff1ce67c39c4fdbd132c4ed7c8ad9808795bf230fa14",
                ),
            ),
        };
    }
    let p = hex("7fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffed");
    Curve {
        a: &p - 1u8,
        d: hex("52036cee2b6ffe738cc740797779e89800700a4d4141d8ab75eb4dca135978a3"),
        p,
        base: (
            hex("216936d3cd6e53fec0a4e231fdd6dc5c692cc7609525a7b2c9562d608f25d51a"),
            hex("6666666666666666666666666666666666666666666666666666666666666658"),
        ),
    }
}

impl Curve {
    /// k times a point of the curve.
    pub(super) fn multiply(&self, k: &BigUint, point: &(BigUint, BigUint)) -> Computed {
        let (x, y) = point;
        let p = &self.p;
        if x >= p || y >= p {
            return Err(Wrong);
        }
        let (xx, yy) = (x * x % p, y * y % p);
        if (&self.a * &xx + &yy) % p != (BigUint::one() + &self.d * (xx * yy % p)) % p {
            return Err(Wrong);
        }
        let point = Projective { x: x.clone(), y: y.clone(), z: BigUint::one() };
        let mut sum = Projective { x: BigUint::ZERO, y: BigUint::one(), z: BigUint::one() };
        for bit in (0..k.bits()).rev() {
            sum = self.add(&sum, &sum);
            if k.bit(bit) {
                sum = self.add(&sum, &point);
            }
        }
        if sum.z.is_zero() {
            return Err(Wrong);
        }
        let z = inverse(&sum.z, p)?;
        Ok(vec![&sum.x * &z % p, sum.y * z % p])
    }

    /// The addition is complete: doubling is the same.
    fn add(&self, one: &Projective, other: &Projective) -> Projective {
        let p = &self.p;
        let a = &one.z * &other.z % p;
        let b = &a * &a % p;
        let c = &one.x * &other.x % p;
        let d = &one.y * &other.y % p;
        let e = &self.d * (&c * &d % p) % p;
        let (f, g) = (subtract(&b, &e, p), (&b + &e) % p);
        let cross = (&one.x + &one.y) * (&other.x + &other.y) % p;
        let mixed = subtract(&subtract(&cross, &c, p), &d, p);
        let x = &a * &f % p * mixed % p;
        let y = a * &g % p * subtract(&d, &(&self.a * c % p), p) % p;
        Projective { x, y, z: f * g % p }
    }
}
