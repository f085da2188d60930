//! Curves y^2 = x^3 + a x + b over the numbers modulo a prime, and ECDSA on them (FIPS 186-5 section 6).

use num_bigint::BigUint;
use num_traits::{One, Zero};

use super::number::{hex, inverse, subtract};
use super::{Computed, Wrong};

/// A curve.
pub(super) struct Curve {
    pub(super) p: BigUint,
    pub(super) a: BigUint,
    pub(super) b: BigUint,
}

/// A point that is not at infinity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Point {
    x: BigUint,
    y: BigUint,
}

impl Point {
    pub(super) fn new(x: BigUint, y: BigUint) -> Self {
        Point { x, y }
    }
}

impl From<Point> for Vec<BigUint> {
    fn from(point: Point) -> Self {
        vec![point.x, point.y]
    }
}

/// A point as x / z^2 and y / z^3; at infinity z is zero.
#[derive(Clone)]
struct Jacobian {
    x: BigUint,
    y: BigUint,
    z: BigUint,
}

impl Curve {
    /// Whether a point is on the curve.
    pub(super) fn check(&self, point: &Point) -> Result<(), Wrong> {
        let Point { x, y } = point;
        if self.p <= BigUint::from(3u8) || x >= &self.p || y >= &self.p {
            return Err(Wrong);
        }
        let right = (x * x + &self.a) * x + &self.b;
        if y * y % &self.p == right % &self.p { Ok(()) } else { Err(Wrong) }
    }

    /// k times a point of the curve.
    pub(super) fn multiply(&self, k: &BigUint, point: &Point) -> Result<Point, Wrong> {
        self.check(point)?;
        self.affine(&self.multiply_jacobian(k, point))
    }

    fn multiply_jacobian(&self, k: &BigUint, point: &Point) -> Jacobian {
        let point = Jacobian { x: point.x.clone(), y: point.y.clone(), z: BigUint::one() };
        let mut sum = Jacobian { x: BigUint::one(), y: BigUint::one(), z: BigUint::ZERO };
        for bit in (0..k.bits()).rev() {
            sum = self.double(&sum);
            if k.bit(bit) {
                sum = self.add(&sum, &point);
            }
        }
        sum
    }

    fn double(&self, point: &Jacobian) -> Jacobian {
        let p = &self.p;
        let Jacobian { x, y, z } = point;
        let yy = y * y % p;
        let s = ((x * &yy) << 2u8) % p;
        let zz = z * z % p;
        let m = (x * x * 3u8 + &self.a * (&zz * &zz % p)) % p;
        let next_x = subtract(&(&m * &m % p), &((&s << 1u8) % p), p);
        let next_y = subtract(&(&m * subtract(&s, &next_x, p) % p), &(((&yy * &yy) << 3u8) % p), p);
        Jacobian { x: next_x, y: next_y, z: ((y * z) << 1u8) % p }
    }

    fn add(&self, one: &Jacobian, other: &Jacobian) -> Jacobian {
        if one.z.is_zero() {
            return other.clone();
        }
        if other.z.is_zero() {
            return one.clone();
        }
        let p = &self.p;
        let (zz1, zz2) = (&one.z * &one.z % p, &other.z * &other.z % p);
        let (u1, u2) = (&one.x * &zz2 % p, &other.x * &zz1 % p);
        let s1 = &one.y * (&other.z * &zz2 % p) % p;
        let s2 = &other.y * (&one.z * &zz1 % p) % p;
        let (h, r) = (subtract(&u2, &u1, p), subtract(&s2, &s1, p));
        if h.is_zero() {
            if r.is_zero() {
                return self.double(one);
            }
            return Jacobian { x: BigUint::one(), y: BigUint::one(), z: BigUint::ZERO };
        }
        let hh = &h * &h % p;
        let hhh = &h * &hh % p;
        let v = u1 * hh % p;
        let x = subtract(&subtract(&(&r * &r % p), &hhh, p), &((&v << 1u8) % p), p);
        let y = subtract(&(r * subtract(&v, &x, p) % p), &(s1 * hhh % p), p);
        Jacobian { x, y, z: &one.z * &other.z % p * h % p }
    }

    fn affine(&self, point: &Jacobian) -> Result<Point, Wrong> {
        if point.z.is_zero() {
            return Err(Wrong);
        }
        let z = inverse(&point.z, &self.p)?;
        let zz = &z * &z % &self.p;
        Ok(Point { x: &point.x * &zz % &self.p, y: &point.y * (zz * z % &self.p) % &self.p })
    }
}

/// A curve and the subgroup that is used.
pub(super) struct Group {
    pub(super) curve: Curve,
    pub(super) order: BigUint,
    pub(super) generator: Point,
}

impl Group {
    /// Signs a digest `e` with the key `d` and the secret number `k`.
    pub(super) fn sign(&self, d: &BigUint, e: &BigUint, k: &BigUint) -> Computed {
        let r = self.sign_r(k)?;
        let s = sign_s(e, d, &r, k, &self.order)?;
        Ok(vec![r, s])
    }

    /// The first half of a signature.
    pub(super) fn sign_r(&self, k: &BigUint) -> Result<BigUint, Wrong> {
        if k.is_zero() || k >= &self.order {
            return Err(Wrong);
        }
        let r = self.curve.multiply(k, &self.generator)?.x % &self.order;
        if r.is_zero() { Err(Wrong) } else { Ok(r) }
    }

    /// Verifies a signature.
    pub(super) fn verify(&self, key: &Point, r: &BigUint, s: &BigUint, e: &BigUint) -> Computed {
        let n = &self.order;
        self.curve.check(key)?;
        self.curve.check(&self.generator)?;
        if r.is_zero() || s.is_zero() || r >= n || s >= n {
            return Err(Wrong);
        }
        let w = inverse(s, n)?;
        let sum = self.sum(&(e * &w % n), &(r * &w % n), key)?;
        if sum.x % n == *r { Ok(Vec::new()) } else { Err(Wrong) }
    }

    /// So many generators and so many of another point.
    pub(super) fn sum(&self, generators: &BigUint, others: &BigUint, other: &Point) -> Result<Point, Wrong> {
        let one = self.curve.multiply_jacobian(generators, &self.generator);
        let two = self.curve.multiply_jacobian(others, other);
        self.curve.affine(&self.curve.add(&one, &two))
    }

    /// The first coordinate of a point, for those who need no more.
    pub(super) fn x_of(&self, k: &BigUint) -> Result<BigUint, Wrong> {
        Ok(self.curve.multiply(k, &self.generator)?.x)
    }
}

impl Point {
    pub(super) fn into_x(self) -> BigUint {
        self.x
    }
}

/// The second half of a signature.
pub(super) fn sign_s(
    e: &BigUint,
    d: &BigUint,
    r: &BigUint,
    k: &BigUint,
    n: &BigUint,
) -> Result<BigUint, Wrong> {
    let s = inverse(k, n)? * (e + d * r) % n;
    if s.is_zero() { Err(Wrong) } else { Ok(s) }
}

/// P-384 for 384, and P-256 (FIPS 186-5).
pub(super) fn nist(bits: u32) -> Group {
    if bits == 384 {
        return Group {
            curve: Curve {
                p: hex(
                    "fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffeffffffff0000000000000000ffffffff",
                ),
                a: hex(
                    "fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffeffffffff0000000000000000fffffffc",
                ),
                b: hex(
                    "b3312fa7e23ee7e4988e056be3f82d19181d9c6efe8141120314088f5013875ac656398d8a2ed19d2a85c8edd3ec2aef",
                ),
            },
            order: hex(
                "ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973",
            ),
            generator: Point::new(
                hex(
                    "aa87ca22be8b05378eb1c71ef320ad746e1d3b628ba79b9859f741e082542a385502f25dbf55296c3a545e3872760ab7",
                ),
                hex(
                    "3617de4a96262c6f5d9e98bf9292dc29f8f41dbd289a147ce9da3113b5f0b8c00a60b1ce1d7e819d7a431d7c90ea0e5f",
                ),
            ),
        };
    }
    Group {
        curve: Curve {
            p: hex("ffffffff00000001000000000000000000000000ffffffffffffffffffffffff"),
            a: hex("ffffffff00000001000000000000000000000000fffffffffffffffffffffffc"),
            b: hex("5ac635d8aa3a93e7b3ebbd55769886bc651d06b0cc53b0f63bce3c3e27d2604b"),
        },
        order: hex("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551"),
        generator: Point::new(
            hex("6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296"),
            hex("4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5"),
        ),
    }
}
