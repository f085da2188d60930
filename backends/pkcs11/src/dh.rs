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

/// The two values of order 8 on Curve25519.
const OF_ORDER_8: [[u8; 32]; 2] = [
    [
        0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4, 0x6a, 0xda,
        0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49, 0xb8, 0x00,
    ],
    [
        0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55, 0x9c, 0x83, 0xef, 0x5b, 0x04,
        0x44, 0x5c, 0xc4, 0x58, 0x1c, 0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd, 0xd0, 0x9f, 0x11, 0x57,
    ],
];

/// Whether a value of a Montgomery curve leads to nothing but zeroes, in any of its spellings. Tokens answer these in many ways.
fn is_of_small_order(value: &[u8]) -> bool {
    let Some((first, rest)) = value.split_first() else { return true };
    let zero_or_one = *first <= 1 && rest.iter().all(|octet| *octet == 0);
    match value.len() {
        32 => {
            // The highest bit means nothing (RFC 7748 section 5).
            let mut value: [u8; 32] = std::array::from_fn(|place| value[place]);
            value[31] &= 0x7f;
            let zero_or_one = value[0] <= 1 && value[1..].iter().all(|octet| *octet == 0);
            // p - 1, p and p + 1, where p is 2^255 - 19.
            let around_p = matches!(value[0], 0xec..=0xee)
                && value[1..31].iter().all(|octet| *octet == 0xff)
                && value[31] == 0x7f;
            zero_or_one || around_p || OF_ORDER_8.contains(&value)
        }
        56 => {
            // p - 1 and p, where p is 2^448 - 2^224 - 1; and p + 1.
            let below = *first >= 0xfe
                && rest
                    .iter()
                    .enumerate()
                    .all(|(place, octet)| *octet == if place == 27 { 0xfe } else { 0xff });
            let above =
                value[..28].iter().all(|octet| *octet == 0) && value[28..].iter().all(|octet| *octet == 0xff);
            zero_or_one || below || above
        }
        _ => zero_or_one,
    }
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
