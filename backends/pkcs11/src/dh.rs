//! Key exchanges in the token: the private half is made there, stays there, and goes with the session at the latest. The shared
//! secret comes out, because IKE computes with it.

use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::elliptic_curve::{EcKdf, Ecdh1DeriveParams};
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;
use cryptoki::types::Ulong;
use spi::alg::Curve;
use spi::{Group, Reject, Secret};
use zeroize::Zeroize;

use crate::find::value;
use crate::point;
use crate::public::{CURVES, ec_point};
use crate::trouble::{Failure, Trouble, What};

/// id-X25519 and id-X448 (RFC 8410 section 3).
const X25519: &[u8] = &[6, 3, 0x2b, 0x65, 0x6e];
const X448: &[u8] = &[6, 3, 0x2b, 0x65, 0x6f];

/// A curve that keys are exchanged on.
#[derive(Clone, Copy)]
enum On {
    Nist(Curve),
    Montgomery { parameters: &'static [u8], len: usize },
}

fn on(group: Group) -> Option<On> {
    Some(match group {
        Group::ECP256 => On::Nist(Curve::P256),
        Group::ECP384 => On::Nist(Curve::P384),
        Group::ECP521 => On::Nist(Curve::P521),
        Group::X25519 => On::Montgomery { parameters: X25519, len: 32 },
        Group::X448 => On::Montgomery { parameters: X448, len: 56 },
        _ => return None,
    })
}

/// The groups of a token with these mechanisms.
pub(crate) fn groups(mechanisms: &[MechanismType]) -> Vec<Group> {
    if !mechanisms.contains(&MechanismType::ECDH1_DERIVE) {
        return Vec::new();
    }
    let made_by = |group: &Group| match on(*group) {
        Some(On::Nist(_)) => mechanisms.contains(&MechanismType::ECC_KEY_PAIR_GEN),
        Some(On::Montgomery { .. }) => mechanisms.contains(&MechanismType::ECC_MONTGOMERY_KEY_PAIR_GEN),
        None => false,
    };
    Group::ALL.iter().copied().filter(made_by).collect()
}

/// Whether the token really has the group, which its list of mechanisms does not say of single curves: a pair is made and thrown away.
pub(crate) fn works(session: &Session, group: Group) -> bool {
    match generate(session, group) {
        Ok((private, _)) => session.destroy_object(private).is_ok(),
        Err(_) => false,
    }
}

/// Makes a pair: the private half, and the public value for the KE payload.
pub(crate) fn generate(session: &Session, group: Group) -> Result<(ObjectHandle, Vec<u8>), Failure> {
    let on = on(group).ok_or_else(|| unsupported(group))?;
    let (mechanism, parameters) = match on {
        On::Nist(curve) => (Mechanism::EccKeyPairGen, parameters(curve)),
        On::Montgomery { parameters, .. } => (Mechanism::EccMontgomeryKeyPairGen, parameters),
    };
    let public =
        [Attribute::Token(false), Attribute::Private(false), Attribute::EcParams(parameters.to_vec())];
    let private = [
        Attribute::Token(false),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Derive(true),
    ];
    let (public, private) = session.generate_key_pair(&mechanism, &public, &private)?;
    let told = session.get_attributes(public, &[AttributeType::EcPoint]);
    // What is left in the session goes with it.
    let _ = session.destroy_object(public);
    let point = told?.into_iter().find_map(|attribute| match attribute {
        Attribute::EcPoint(point) => Some(point),
        _ => None,
    });
    let nonsense = || {
        let _ = session.destroy_object(private);
        Trouble::new(What::Nonsense, format!("the token made a pair for {group} without a public value"))
    };
    let point = point.ok_or_else(nonsense)?;
    let value = match on {
        On::Nist(curve) => ec_point(&point, 1 + 2 * curve.coordinate_len())
            .filter(|point| point::is_on(curve, point))
            .and_then(|point| point.get(1..)),
        On::Montgomery { len, .. } => ec_point(&point, len),
    };
    Ok((private, value.ok_or_else(nonsense)?.to_vec()))
}

/// Brings a private half that was made elsewhere into the session.
pub(crate) fn import(session: &Session, group: Group, ours: &Secret) -> Result<ObjectHandle, Failure> {
    let on = on(group).ok_or_else(|| unsupported(group))?;
    let (kind, parameters) = match on {
        On::Nist(curve) => (KeyType::EC, parameters(curve)),
        On::Montgomery { parameters, .. } => (KeyType::EC_MONTGOMERY, parameters),
    };
    let mut template = [
        Attribute::Value(ours.expose().to_vec()),
        Attribute::Class(ObjectClass::PRIVATE_KEY),
        Attribute::KeyType(kind),
        Attribute::Token(false),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Derive(true),
        Attribute::EcParams(parameters.to_vec()),
    ];
    let made = session.create_object(&template);
    if let [Attribute::Value(copy), ..] = &mut template {
        copy.zeroize();
    }
    Ok(made?)
}

/// The shared secret.
pub(crate) fn derive(
    session: &Session,
    group: Group,
    ours: ObjectHandle,
    theirs: &[u8],
) -> Result<Secret, Failure> {
    let on = on(group).ok_or_else(|| unsupported(group))?;
    let len = group.info().map_or(0, |info| info.secret_len);
    let public = check(on, theirs).ok_or(Failure::Reject(Reject::BadPublicInput))?;
    let mechanism = Mechanism::Ecdh1Derive(Ecdh1DeriveParams::new(EcKdf::null(), &public));
    let template = [
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(KeyType::GENERIC_SECRET),
        Attribute::Token(false),
        Attribute::Private(true),
        Attribute::Sensitive(false),
        Attribute::Extractable(true),
        Attribute::ValueLen(Ulong::new(len as u64)),
    ];
    let secret = session.derive_key(&mechanism, ours, &template).map_err(|error| match error {
        // Said of the peer's value, which is all that is foreign here.
        Error::Pkcs11(RvError::MechanismParamInvalid | RvError::PublicKeyInvalid, _) => {
            Failure::Reject(Reject::BadPublicInput)
        }
        error => Failure::Token(error),
    })?;
    let read = value(session, secret);
    let _ = session.destroy_object(secret);
    let nonsense = |what: &str| {
        Failure::Trouble(Trouble::new(What::Nonsense, format!("{group}: the token gave {what}")))
    };
    let secret = Secret::new(read?.ok_or_else(|| nonsense("no secret that can be read"))?);
    if secret.len() != len {
        return Err(nonsense("a secret of a wrong length"));
    }
    // RFC 7748 section 6: nothing but zeroes is the work of a value of small order. (On the NIST curves it is a point like others.)
    if matches!(on, On::Montgomery { .. }) && secret.ct_eq(&vec![0; len]) {
        return Err(Failure::Reject(Reject::BadPublicInput));
    }
    Ok(secret)
}

/// The peer's value as the token takes it, if it may be used.
fn check(on: On, theirs: &[u8]) -> Option<Vec<u8>> {
    match on {
        On::Nist(curve) => {
            let point = [&[4], theirs].concat();
            point::is_on(curve, &point).then_some(point)
        }
        On::Montgomery { len, .. } => {
            (theirs.len() == len && !is_of_small_order(theirs)).then(|| theirs.to_vec())
        }
    }
}

/// Whether a value of a Montgomery curve is 0, 1 or -1, which lead to nothing but zeroes. Tokens answer them in many ways. The other
/// values of small order are found by what they lead to.
fn is_of_small_order(value: &[u8]) -> bool {
    let Some((first, rest)) = value.split_first() else { return true };
    let zero_or_one = *first <= 1 && rest.iter().all(|octet| *octet == 0);
    // 2^255 - 20, little-endian; and 2^448 - 2^224 - 2.
    let minus_one_255 = *first == 0xec
        && rest
            .split_last()
            .is_some_and(|(last, middle)| last & 0x7f == 0x7f && middle.iter().all(|o| *o == 0xff));
    let minus_one_448 = *first == 0xfe
        && rest.iter().enumerate().all(|(place, octet)| *octet == if place == 27 { 0xfe } else { 0xff });
    zero_or_one || (value.len() == 32 && minus_one_255) || (value.len() == 56 && minus_one_448)
}

fn parameters(curve: Curve) -> &'static [u8] {
    CURVES.iter().find(|(_, of)| *of == curve).map_or(&[], |(der, _)| *der)
}

fn unsupported(group: Group) -> Trouble {
    Trouble::new(What::Unsupported, format!("{group} is not exchanged in tokens"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_follow_the_mechanisms() {
        use MechanismType as M;
        assert_eq!(groups(&[M::ECC_KEY_PAIR_GEN]), []);
        assert_eq!(
            groups(&[M::ECDH1_DERIVE, M::ECC_KEY_PAIR_GEN]),
            [Group::ECP256, Group::ECP384, Group::ECP521]
        );
        assert_eq!(groups(&[M::ECDH1_DERIVE, M::ECC_MONTGOMERY_KEY_PAIR_GEN]), [Group::X25519, Group::X448]);
    }

    #[test]
    fn values_that_must_not_be_used_are_known() {
        let x25519 = on(Group::X25519).unwrap();
        let with = |first: u8, rest: u8, len: usize| [vec![first], vec![rest; len - 1]].concat();
        assert!(check(x25519, &with(9, 0, 32)).is_some());
        for bad in [with(0, 0, 32), with(1, 0, 32), with(0xec, 0xff, 32), with(9, 0, 31), vec![]] {
            assert!(check(x25519, &bad).is_none(), "{bad:?}");
        }
        assert!(check(on(Group::ECP256).unwrap(), &[9; 64]).is_none());
        assert!(on(Group::MODP2048).is_none());
    }
}
