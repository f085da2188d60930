//! Key exchange: MODP, NIST curves, X25519, X448 and ML-KEM.
//!
//! Everything the peer sends is judged here (RFC 6989, RFC 7748 section 6): a value of the wrong length, out of range, off the
//! curve or of small order is refused as [`Reject::BadPublicInput`]. Secrets come out at full length, leading zeroes and
//! all (RFC 7296 section 2.14).

use aws_lc_rs::agreement::{self, PrivateKey};
use aws_lc_rs::encoding::{AsBigEndian, EcPrivateKeyBin};
use aws_lc_rs::kem::{self, DecapsulationKey, EncapsulationKey};
use openssl::derive::Deriver;
use openssl::pkey::{Id, PKey};
use spi::alg::{Curve, GroupKind};
use spi::{FaultKind, Group, Outcome, Reject, Secret};

use crate::op::failed;
use crate::sys::{agree, modp};

const UNSUPPORTED: Outcome = failed(FaultKind::Unsupported);
const INTERNAL: Outcome = failed(FaultKind::Internal);
const BAD: Outcome = Outcome::Rejected(Reject::BadPublicInput);

/// A fresh key pair: private half and KE data.
pub(crate) fn generate(group: Group) -> Result<(Secret, Vec<u8>), Outcome> {
    let info = group.info().filter(|_| group != Group::NONE).ok_or(UNSUPPORTED)?;
    match info.kind {
        GroupKind::Modp => modp_generate(group),
        GroupKind::Kem => kem_generate(group),
        GroupKind::Montgomery if group == Group::X448 => x448_generate(),
        GroupKind::Ecp | GroupKind::Montgomery => curve_generate(group),
    }
}

/// The shared secret of our half and the peer's KE data (for a KEM: its ciphertext).
pub(crate) fn derive(group: Group, ours: &Secret, theirs: &[u8]) -> Result<Secret, Outcome> {
    let info = group.info().filter(|_| group != Group::NONE).ok_or(UNSUPPORTED)?;
    let expected = if info.kind == GroupKind::Kem { info.response_len } else { info.public_len };
    if theirs.len() != expected {
        return Err(BAD);
    }
    match info.kind {
        GroupKind::Modp => modp_derive(group, ours, theirs),
        GroupKind::Kem => kem_derive(group, ours, theirs),
        GroupKind::Montgomery if group == Group::X448 => x448_derive(ours, theirs),
        GroupKind::Ecp | GroupKind::Montgomery => curve_derive(group, ours, theirs),
    }
}

/// A fresh secret for the peer's encapsulation key: ciphertext and secret.
pub(crate) fn encapsulate(group: Group, theirs: &[u8]) -> Result<(Vec<u8>, Secret), Outcome> {
    let algorithm = kem_algorithm(group)?;
    // FIPS 203 section 7.2: the length is checked here, the encoding of the key by AWS-LC before it is used.
    let key = EncapsulationKey::new(algorithm, theirs).map_err(|_| BAD)?;
    let (ciphertext, secret) = key.encapsulate().map_err(|_| BAD)?;
    Ok((ciphertext.as_ref().to_vec(), Secret::from_slice(secret.as_ref())))
}

/// Exponents are random and as long as RFC 3526 section 8 estimates for the strength of the group (the higher column),
/// in octets: longer ones cost time and add nothing in a group over a safe prime.
fn exponent_len(group: Group) -> usize {
    match group {
        Group::MODP2048 => 40,
        Group::MODP3072 => 53,
        Group::MODP4096 => 60,
        Group::MODP6144 => 68,
        _ => 78,
    }
}

fn modp_generate(group: Group) -> Result<(Secret, Vec<u8>), Outcome> {
    let mut exponent = vec![0; exponent_len(group)];
    aws_lc_rs::rand::fill(&mut exponent).map_err(|_| INTERNAL)?;
    let exponent = Secret::new(exponent);
    let public = modp::power(group, &[2], &exponent).ok_or(INTERNAL)?;
    Ok((exponent, public))
}

fn modp_derive(group: Group, ours: &Secret, theirs: &[u8]) -> Result<Secret, Outcome> {
    // RFC 6989 section 2.1.
    if !modp::in_range(group, theirs).ok_or(INTERNAL)? {
        return Err(BAD);
    }
    modp::power(group, theirs, ours).map(Secret::new).ok_or(INTERNAL)
}

fn curve(group: Group) -> Result<(&'static agreement::Algorithm, Curve), Outcome> {
    Ok(match group {
        Group::ECP256 => (&agreement::ECDH_P256, Curve::P256),
        Group::ECP384 => (&agreement::ECDH_P384, Curve::P384),
        Group::ECP521 => (&agreement::ECDH_P521, Curve::P521),
        _ => return Err(UNSUPPORTED),
    })
}

fn curve_generate(group: Group) -> Result<(Secret, Vec<u8>), Outcome> {
    if group == Group::X25519 {
        let (private, public) = agree::x25519_generate();
        return Ok((private, public.to_vec()));
    }
    let key = PrivateKey::generate(curve(group)?.0).map_err(|_| INTERNAL)?;
    let public = key.compute_public_key().map_err(|_| INTERNAL)?;
    let scalar: EcPrivateKeyBin<'_> = key.as_be_bytes().map_err(|_| INTERNAL)?;
    // RFC 5903 section 7: the coordinates alone, without the octet that says "uncompressed".
    let (_, point) = public.as_ref().split_first().ok_or(INTERNAL)?;
    Ok((Secret::from_slice(scalar.as_ref()), point.to_vec()))
}

fn curve_derive(group: Group, ours: &Secret, theirs: &[u8]) -> Result<Secret, Outcome> {
    if group == Group::X25519 {
        if ours.len() != theirs.len() {
            return Err(INTERNAL);
        }
        return agree::x25519(ours.expose(), theirs).ok_or(BAD);
    }
    let (_, curve) = curve(group)?;
    // A scalar of ours that is none is no fault of the peer's.
    if ours.len() != curve.coordinate_len() || ours.ct_eq(&vec![0; ours.len()]) {
        return Err(INTERNAL);
    }
    let mut point = Vec::with_capacity(theirs.len() + 1);
    point.push(4);
    point.extend_from_slice(theirs);
    agree::ecdh(curve, ours.expose(), &point).ok_or(BAD)
}

fn x448_generate() -> Result<(Secret, Vec<u8>), Outcome> {
    let key = PKey::generate_x448().map_err(|_| INTERNAL)?;
    let scalar = key.raw_private_key().map_err(|_| INTERNAL)?;
    let public = key.raw_public_key().map_err(|_| INTERNAL)?;
    Ok((Secret::new(scalar), public))
}

fn x448_derive(ours: &Secret, theirs: &[u8]) -> Result<Secret, Outcome> {
    let key = PKey::private_key_from_raw_bytes(ours.expose(), Id::X448).map_err(|_| INTERNAL)?;
    let peer = PKey::public_key_from_raw_bytes(theirs, Id::X448).map_err(|_| BAD)?;
    let mut deriver = Deriver::new(&key).map_err(|_| INTERNAL)?;
    deriver.set_peer(&peer).map_err(|_| BAD)?;
    // OpenSSL refuses a result of all zeroes (RFC 7748 section 6.2).
    let secret = Secret::new(deriver.derive_to_vec().map_err(|_| BAD)?);
    if secret.len() != theirs.len() || secret.ct_eq(&[0; 56]) {
        return Err(BAD);
    }
    Ok(secret)
}

fn kem_algorithm(group: Group) -> Result<&'static kem::Algorithm, Outcome> {
    Ok(match group {
        Group::MLKEM512 => &kem::ML_KEM_512,
        Group::MLKEM768 => &kem::ML_KEM_768,
        Group::MLKEM1024 => &kem::ML_KEM_1024,
        _ => return Err(UNSUPPORTED),
    })
}

fn kem_generate(group: Group) -> Result<(Secret, Vec<u8>), Outcome> {
    let key = DecapsulationKey::generate(kem_algorithm(group)?).map_err(|_| INTERNAL)?;
    let private = key.key_bytes().map_err(|_| INTERNAL)?;
    let public = key.encapsulation_key().and_then(|public| public.key_bytes()).map_err(|_| INTERNAL)?;
    Ok((Secret::from_slice(private.as_ref()), public.as_ref().to_vec()))
}

fn kem_derive(group: Group, ours: &Secret, theirs: &[u8]) -> Result<Secret, Outcome> {
    let key = DecapsulationKey::new(kem_algorithm(group)?, ours.expose()).map_err(|_| INTERNAL)?;
    let secret = key.decapsulate(theirs.into()).map_err(|_| BAD)?;
    Ok(Secret::from_slice(secret.as_ref()))
}
