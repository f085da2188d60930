//! Points of the NIST curves: a token may take anything for one, so it is looked at here (RFC 6989 section 2.3).

use openssl::bn::BigNumContext;
use openssl::ec::{EcGroup, EcPoint};
use openssl::nid::Nid;
use spi::alg::Curve;

/// Whether these octets, with the first that says that both coordinates follow, are a point of the curve and not at infinity.
pub(crate) fn is_on(curve: Curve, octets: &[u8]) -> bool {
    let nid = match curve {
        Curve::P256 => Nid::X9_62_PRIME256V1,
        Curve::P384 => Nid::SECP384R1,
        Curve::P521 => Nid::SECP521R1,
    };
    if octets.len() != 1 + 2 * curve.coordinate_len() || octets.first() != Some(&4) {
        return false;
    }
    let looked = || {
        let group = EcGroup::from_curve_name(nid)?;
        let mut context = BigNumContext::new()?;
        let point = EcPoint::from_bytes(&group, octets, &mut context)?;
        Ok::<_, openssl::error::ErrorStack>(
            !point.is_infinity(&group) && point.is_on_curve(&group, &mut context)?,
        )
    };
    looked().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use openssl::ec::{EcKey, PointConversionForm};

    #[test]
    fn a_point_is_one_until_an_octet_is_changed() {
        let group = EcGroup::from_curve_name(Nid::SECP521R1).unwrap();
        let key = EcKey::generate(&group).unwrap();
        let mut context = BigNumContext::new().unwrap();
        let form = PointConversionForm::UNCOMPRESSED;
        let mut point = key.public_key().to_bytes(&group, form, &mut context).unwrap();
        assert!(is_on(Curve::P521, &point));
        assert!(!is_on(Curve::P256, &point));
        *point.last_mut().unwrap() ^= 1;
        assert!(!is_on(Curve::P521, &point));
        assert!(!is_on(Curve::P256, &[0]) && !is_on(Curve::P256, &[]) && !is_on(Curve::P256, &[4; 65]));
    }
}
