//! The NIST curves, as operands for the card, and the check of what a peer sends: a point that is not on its curve never reaches
//! the card (RFC 5903 section 9, RFC 6989 section 2.3).

use std::sync::OnceLock;

use openssl::bn::{BigNum, BigNumContext};
use openssl::ec::{EcGroup, EcPoint, EcPointRef};
use openssl::nid::Nid;
use spi::alg::Curve;

use crate::fw::pke::{self, CurveFunctions};

/// A curve `y^2 = x^3 + ax + b` over p, and a point that generates n others; numbers as long as a coordinate.
pub(crate) struct CurveInfo {
    pub(crate) p: Vec<u8>,
    pub(crate) a: Vec<u8>,
    pub(crate) b: Vec<u8>,
    pub(crate) n: Vec<u8>,
    pub(crate) g: (Vec<u8>, Vec<u8>),
    group: EcGroup,
}

/// The curve; `None` only if the library does not know it.
pub(crate) fn info(curve: Curve) -> Option<&'static CurveInfo> {
    static ALL: [OnceLock<Option<CurveInfo>>; 3] = [const { OnceLock::new() }; 3];
    let (place, nid) = match curve {
        Curve::P256 => (0, Nid::X9_62_PRIME256V1),
        Curve::P384 => (1, Nid::SECP384R1),
        Curve::P521 => (2, Nid::SECP521R1),
    };
    ALL.get(place)?.get_or_init(|| read(nid, curve.coordinate_len())).as_ref()
}

/// What the card has for a curve.
pub(crate) fn functions(curve: Curve) -> &'static CurveFunctions {
    match curve {
        Curve::P256 => &pke::P256,
        Curve::P384 => &pke::P384,
        Curve::P521 => &pke::P521,
    }
}

fn read(nid: Nid, len: usize) -> Option<CurveInfo> {
    let group = EcGroup::from_curve_name(nid).ok()?;
    let mut context = BigNumContext::new().ok()?;
    let [mut p, mut a, mut b, mut n] =
        [BigNum::new().ok()?, BigNum::new().ok()?, BigNum::new().ok()?, BigNum::new().ok()?];
    group.components_gfp(&mut p, &mut a, &mut b, &mut context).ok()?;
    group.order(&mut n, &mut context).ok()?;
    let g = of_point(&group, group.generator_opt()?, len)?;
    let padded = |number: &BigNum| number.to_vec_padded(len as i32).ok();
    Some(CurveInfo { p: padded(&p)?, a: padded(&a)?, b: padded(&b)?, n: padded(&n)?, g, group })
}

/// The coordinates of a point.
pub(crate) fn coordinates(curve: Curve, point: &EcPointRef) -> Option<(Vec<u8>, Vec<u8>)> {
    of_point(&info(curve)?.group, point, curve.coordinate_len())
}

fn of_point(group: &EcGroup, point: &EcPointRef, len: usize) -> Option<(Vec<u8>, Vec<u8>)> {
    let mut context = BigNumContext::new().ok()?;
    let (mut x, mut y) = (BigNum::new().ok()?, BigNum::new().ok()?);
    point.affine_coordinates(group, &mut x, &mut y, &mut context).ok()?;
    Some((x.to_vec_padded(len as i32).ok()?, y.to_vec_padded(len as i32).ok()?))
}

/// The coordinates of a point that is on the curve and not at infinity, from the form with a first octet that says which
/// (SEC 1 section 2.3.4).
pub(crate) fn point(curve: Curve, octets: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let info = info(curve)?;
    let mut context = BigNumContext::new().ok()?;
    let point = EcPoint::from_bytes(&info.group, octets, &mut context).ok()?;
    if point.is_infinity(&info.group) || !point.is_on_curve(&info.group, &mut context).ok()? {
        return None;
    }
    of_point(&info.group, &point, curve.coordinate_len())
}

/// Whether `1 <= number < below`, both of the same length.
pub(crate) fn is_in_range(number: &[u8], below: &[u8]) -> bool {
    number.len() == below.len() && number < below && number.iter().any(|octet| *octet != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hex::unhex;

    #[test]
    fn curves_are_those_of_the_standard() {
        // FIPS 186-4 section D.1.2.3.
        let p256 = info(Curve::P256).unwrap();
        assert_eq!(p256.b, unhex("5ac635d8aa3a93e7b3ebbd55769886bc651d06b0cc53b0f63bce3c3e27d2604b"));
        assert_eq!(p256.n, unhex("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551"));
        assert_eq!(p256.g.0, unhex("6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296"));
        assert_eq!((info(Curve::P384).unwrap().p.len(), info(Curve::P521).unwrap().a.len()), (48, 66));
    }

    #[test]
    fn points_off_the_curve_and_at_infinity_are_none() {
        let info = info(Curve::P256).unwrap();
        let mut good = vec![4];
        good.extend(&info.g.0);
        good.extend(&info.g.1);
        assert_eq!(point(Curve::P256, &good).as_ref(), Some(&info.g));
        let mut bad = good.clone();
        bad[64] ^= 1;
        assert!(point(Curve::P256, &bad).is_none());
        assert!(point(Curve::P256, &[0]).is_none(), "infinity");
        assert!(point(Curve::P256, &good[..64]).is_none());
        assert!(point(Curve::P384, &good).is_none());
        // x and y of p or more.
        assert!(point(Curve::P256, &[vec![4], info.p.clone(), info.p.clone()].concat()).is_none());
    }

    #[test]
    fn ranges_leave_out_both_ends() {
        assert!(is_in_range(&[0, 1], &[0, 2]) && is_in_range(&[1, 0xff], &[2, 0]));
        assert!(
            !is_in_range(&[0, 0], &[0, 2]) && !is_in_range(&[0, 2], &[0, 2]) && !is_in_range(&[1], &[0, 2])
        );
    }
}
