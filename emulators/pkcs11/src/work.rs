//! What the token does with keys, by OpenSSL.

use cryptoki_sys::*;
use openssl::bn::BigNum;
use openssl::derive::Deriver;
use openssl::ec::{EcGroup, EcKey, EcPoint, PointConversionForm};
use openssl::ecdsa::EcdsaSig;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{Id, PKey, Private, Public};
use openssl::rsa::{Padding, Rsa};
use openssl::sign::{RsaPssSaltlen, Signer};

use crate::object::{Attributes, Object, octets};

/// What a mechanism is called with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parameter {
    /// Nothing.
    None,
    /// Of `CKM_RSA_PKCS_PSS` and its like: hash, mask, length of the salt.
    Pss {
        /// `CKM_SHA256` and its like.
        hash: CK_ULONG,
        /// `CKG_MGF1_SHA256` and its like.
        mgf: CK_ULONG,
        /// Octets.
        salt: CK_ULONG,
    },
    /// Of `CKM_ECDH1_DERIVE`: the function that is applied, the peer's value.
    Ecdh {
        /// `CKD_NULL`.
        kdf: CK_ULONG,
        /// A point, or the octets of a Montgomery curve.
        public: Vec<u8>,
    },
}

/// What the token can do.
pub const MECHANISMS: &[(CK_MECHANISM_TYPE, CK_FLAGS)] = &[
    (CKM_RSA_PKCS_KEY_PAIR_GEN, CKF_GENERATE_KEY_PAIR),
    (CKM_RSA_PKCS, CKF_SIGN),
    (CKM_SHA1_RSA_PKCS, CKF_SIGN),
    (CKM_SHA256_RSA_PKCS, CKF_SIGN),
    (CKM_SHA384_RSA_PKCS, CKF_SIGN),
    (CKM_SHA512_RSA_PKCS, CKF_SIGN),
    (CKM_RSA_PKCS_PSS, CKF_SIGN),
    (CKM_SHA256_RSA_PKCS_PSS, CKF_SIGN),
    (CKM_SHA384_RSA_PKCS_PSS, CKF_SIGN),
    (CKM_SHA512_RSA_PKCS_PSS, CKF_SIGN),
    (CKM_EC_KEY_PAIR_GEN, CKF_GENERATE_KEY_PAIR),
    (CKM_ECDSA, CKF_SIGN),
    (CKM_EC_EDWARDS_KEY_PAIR_GEN, CKF_GENERATE_KEY_PAIR),
    (CKM_EDDSA, CKF_SIGN),
    (CKM_EC_MONTGOMERY_KEY_PAIR_GEN, CKF_GENERATE_KEY_PAIR),
    (CKM_ECDH1_DERIVE, CKF_DERIVE),
];

type Result<T> = std::result::Result<T, CK_RV>;

/// OpenSSL's own trouble is the device's.
fn device<T>(result: std::result::Result<T, openssl::error::ErrorStack>) -> Result<T> {
    result.map_err(|_| CKR_DEVICE_ERROR)
}

/// Length of a signature by this key: an upper bound that does not depend on what is signed.
pub fn signature_len(key: &Object) -> Result<usize> {
    let key = private(key)?;
    Ok(match key.id() {
        Id::RSA => key.size(),
        Id::EC => 2 * device(key.ec_key())?.group().degree().div_ceil(8) as usize,
        Id::ED25519 => 64,
        Id::ED448 => 114,
        _ => return Err(CKR_KEY_TYPE_INCONSISTENT),
    })
}

/// Whether a mechanism is for this kind of key.
///
/// # Errors
/// `CKR_KEY_TYPE_INCONSISTENT`, `CKR_MECHANISM_INVALID`, `CKR_MECHANISM_PARAM_INVALID`.
pub fn check_sign(mechanism: CK_MECHANISM_TYPE, parameter: &Parameter, key: &Object) -> Result<()> {
    let kind = match mechanism {
        CKM_RSA_PKCS | CKM_SHA1_RSA_PKCS | CKM_SHA256_RSA_PKCS | CKM_SHA384_RSA_PKCS
        | CKM_SHA512_RSA_PKCS => CKK_RSA,
        CKM_RSA_PKCS_PSS | CKM_SHA256_RSA_PKCS_PSS | CKM_SHA384_RSA_PKCS_PSS | CKM_SHA512_RSA_PKCS_PSS => {
            let Parameter::Pss { hash, mgf, .. } = parameter else { return Err(CKR_MECHANISM_PARAM_INVALID) };
            let fits =
                [(CKM_SHA256, CKG_MGF1_SHA256), (CKM_SHA384, CKG_MGF1_SHA384), (CKM_SHA512, CKG_MGF1_SHA512)];
            if !fits.contains(&(*hash, *mgf)) {
                return Err(CKR_MECHANISM_PARAM_INVALID);
            }
            CKK_RSA
        }
        CKM_ECDSA => CKK_EC,
        CKM_EDDSA => CKK_EC_EDWARDS,
        _ => return Err(CKR_MECHANISM_INVALID),
    };
    match key.number(CKA_KEY_TYPE) == Some(kind) {
        true => Ok(()),
        false => Err(CKR_KEY_TYPE_INCONSISTENT),
    }
}

/// Signs.
pub fn sign(
    mechanism: CK_MECHANISM_TYPE,
    parameter: &Parameter,
    key: &Object,
    data: &[u8],
) -> Result<Vec<u8>> {
    let key = private(key)?;
    let digest = match mechanism {
        CKM_SHA1_RSA_PKCS => Some(MessageDigest::sha1()),
        CKM_SHA256_RSA_PKCS | CKM_SHA256_RSA_PKCS_PSS => Some(MessageDigest::sha256()),
        CKM_SHA384_RSA_PKCS | CKM_SHA384_RSA_PKCS_PSS => Some(MessageDigest::sha384()),
        CKM_SHA512_RSA_PKCS | CKM_SHA512_RSA_PKCS_PSS => Some(MessageDigest::sha512()),
        _ => None,
    };
    match (mechanism, parameter, digest) {
        // The caller has hashed and wrapped the hash already (RFC 8017 section 9.2).
        (CKM_RSA_PKCS, ..) => {
            let rsa = device(key.rsa())?;
            let mut out = vec![0; rsa.size() as usize];
            let len = rsa.private_encrypt(data, &mut out, Padding::PKCS1).map_err(|_| CKR_DATA_LEN_RANGE)?;
            out.truncate(len);
            Ok(out)
        }
        (CKM_ECDSA, ..) => {
            let ec = device(key.ec_key())?;
            let len = ec.group().degree().div_ceil(8) as i32;
            let signature = EcdsaSig::sign(data, &ec).map_err(|_| CKR_DATA_LEN_RANGE)?;
            Ok([device(signature.r().to_vec_padded(len))?, device(signature.s().to_vec_padded(len))?]
                .concat())
        }
        (CKM_EDDSA, ..) => {
            device(Signer::new_without_digest(&key).and_then(|mut s| s.sign_oneshot_to_vec(data)))
        }
        (CKM_RSA_PKCS_PSS, Parameter::Pss { hash, salt, .. }, None) => {
            pss_of_digest(&key, *hash, *salt, data)
        }
        (_, Parameter::Pss { salt, .. }, Some(digest)) => {
            let mut signer = device(Signer::new(digest, &key))?;
            device(signer.set_rsa_padding(Padding::PKCS1_PSS))?;
            device(signer.set_rsa_mgf1_md(digest))?;
            device(signer.set_rsa_pss_saltlen(RsaPssSaltlen::custom(*salt as i32)))?;
            device(signer.sign_oneshot_to_vec(data))
        }
        (_, _, Some(digest)) => {
            device(Signer::new(digest, &key).and_then(|mut s| s.sign_oneshot_to_vec(data)))
        }
        _ => Err(CKR_MECHANISM_INVALID),
    }
}

fn pss_of_digest(key: &PKey<Private>, hash: CK_ULONG, salt: CK_ULONG, digest: &[u8]) -> Result<Vec<u8>> {
    let (md, mgf) = match hash {
        CKM_SHA256 => (openssl::md::Md::sha256(), 32),
        CKM_SHA384 => (openssl::md::Md::sha384(), 48),
        CKM_SHA512 => (openssl::md::Md::sha512(), 64),
        _ => return Err(CKR_MECHANISM_PARAM_INVALID),
    };
    if digest.len() != mgf {
        return Err(CKR_DATA_LEN_RANGE);
    }
    let mut context = device(openssl::pkey_ctx::PkeyCtx::new(key))?;
    device(context.sign_init())?;
    device(context.set_rsa_padding(Padding::PKCS1_PSS))?;
    device(context.set_signature_md(md))?;
    device(context.set_rsa_mgf1_md(md))?;
    device(context.set_rsa_pss_saltlen(RsaPssSaltlen::custom(salt as i32)))?;
    let mut out = Vec::new();
    device(context.sign_to_vec(digest, &mut out))?;
    Ok(out)
}

/// Makes a pair: the public and the private half, with the attributes that belong to the key itself.
pub fn generate(mechanism: CK_MECHANISM_TYPE, public: &Attributes) -> Result<(Object, Object)> {
    let parameters = || public.get(&CKA_EC_PARAMS).map(Vec::as_slice).ok_or(CKR_TEMPLATE_INCOMPLETE);
    match mechanism {
        CKM_RSA_PKCS_KEY_PAIR_GEN => {
            let bits = public.get(&CKA_MODULUS_BITS).and_then(|b| crate::object::number(b));
            let bits = bits.filter(|bits| (1024..=8192).contains(bits)).ok_or(CKR_TEMPLATE_INCOMPLETE)?;
            pair(&device(Rsa::generate(bits as u32).and_then(PKey::from_rsa))?)
        }
        CKM_EC_KEY_PAIR_GEN => {
            let nid = curve(parameters()?)?;
            let group = device(EcGroup::from_curve_name(nid))?;
            pair(&device(EcKey::generate(&group).and_then(PKey::from_ec_key))?)
        }
        CKM_EC_EDWARDS_KEY_PAIR_GEN if parameters()? == ED25519 => pair(&device(PKey::generate_ed25519())?),
        CKM_EC_EDWARDS_KEY_PAIR_GEN if parameters()? == ED448 => pair(&device(PKey::generate_ed448())?),
        CKM_EC_MONTGOMERY_KEY_PAIR_GEN if parameters()? == X25519 => pair(&device(PKey::generate_x25519())?),
        CKM_EC_MONTGOMERY_KEY_PAIR_GEN if parameters()? == X448 => pair(&device(PKey::generate_x448())?),
        CKM_EC_EDWARDS_KEY_PAIR_GEN | CKM_EC_MONTGOMERY_KEY_PAIR_GEN => Err(CKR_CURVE_NOT_SUPPORTED),
        _ => Err(CKR_MECHANISM_INVALID),
    }
}

/// A private key from outside: `CKA_VALUE` and `CKA_EC_PARAMS`, or the numbers of an RSA key.
pub fn import(attributes: &Attributes) -> Result<Vec<u8>> {
    let of = |attribute| attributes.get(&attribute).map(Vec::as_slice).ok_or(CKR_TEMPLATE_INCOMPLETE);
    let number = |attribute| of(attribute).and_then(|octets| device(BigNum::from_slice(octets)));
    let kind = attributes.get(&CKA_KEY_TYPE).and_then(|kind| crate::object::number(kind));
    let key = match kind {
        Some(CKK_RSA) => device(
            Rsa::from_private_components(
                number(CKA_MODULUS)?,
                number(CKA_PUBLIC_EXPONENT)?,
                number(CKA_PRIVATE_EXPONENT)?,
                number(CKA_PRIME_1)?,
                number(CKA_PRIME_2)?,
                number(CKA_EXPONENT_1)?,
                number(CKA_EXPONENT_2)?,
                number(CKA_COEFFICIENT)?,
            )
            .and_then(PKey::from_rsa),
        )?,
        Some(CKK_EC) => {
            let group = device(EcGroup::from_curve_name(curve(of(CKA_EC_PARAMS)?)?))?;
            let secret = number(CKA_VALUE)?;
            let mut public = device(EcPoint::new(&group))?;
            let mut context = device(openssl::bn::BigNumContext::new())?;
            device(public.mul_generator2(&group, &secret, &mut context))?;
            device(EcKey::from_private_components(&group, &secret, &public).and_then(PKey::from_ec_key))?
        }
        Some(CKK_EC_EDWARDS | CKK_EC_MONTGOMERY) => {
            let id = raw_id(of(CKA_EC_PARAMS)?)?;
            PKey::private_key_from_raw_bytes(of(CKA_VALUE)?, id).map_err(|_| CKR_ATTRIBUTE_VALUE_INVALID)?
        }
        _ => return Err(CKR_ATTRIBUTE_VALUE_INVALID),
    };
    device(key.private_key_to_pkcs8())
}

/// The agreed value.
pub fn derive(parameter: &Parameter, key: &Object) -> Result<Vec<u8>> {
    let Parameter::Ecdh { kdf, public } = parameter else { return Err(CKR_MECHANISM_PARAM_INVALID) };
    if *kdf != CKD_NULL {
        return Err(CKR_MECHANISM_PARAM_INVALID);
    }
    let ours = private(key)?;
    let theirs = match ours.id() {
        Id::EC => {
            let ec = device(ours.ec_key())?;
            let mut context = device(openssl::bn::BigNumContext::new())?;
            let point = EcPoint::from_bytes(ec.group(), public, &mut context)
                .map_err(|_| CKR_MECHANISM_PARAM_INVALID)?;
            EcKey::from_public_key(ec.group(), &point)
                .and_then(PKey::from_ec_key)
                .map_err(|_| CKR_MECHANISM_PARAM_INVALID)?
        }
        id @ (Id::X25519 | Id::X448) => {
            PKey::public_key_from_raw_bytes(public, id).map_err(|_| CKR_MECHANISM_PARAM_INVALID)?
        }
        _ => return Err(CKR_KEY_TYPE_INCONSISTENT),
    };
    let mut deriver = device(Deriver::new(&ours))?;
    deriver.set_peer(&theirs).and_then(|()| deriver.derive_to_vec()).map_err(|_| CKR_MECHANISM_PARAM_INVALID)
}

/// Random octets.
pub fn random(out: &mut [u8]) -> Result<()> {
    device(openssl::rand::rand_bytes(out))
}

const ED25519: &[u8] = &[6, 3, 0x2b, 0x65, 0x70];
const ED448: &[u8] = &[6, 3, 0x2b, 0x65, 0x71];
const X25519: &[u8] = &[6, 3, 0x2b, 0x65, 0x6e];
const X448: &[u8] = &[6, 3, 0x2b, 0x65, 0x6f];
const CURVES: [(&[u8], Nid); 3] = [
    (&[6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7], Nid::X9_62_PRIME256V1),
    (&[6, 5, 0x2b, 0x81, 4, 0, 0x22], Nid::SECP384R1),
    (&[6, 5, 0x2b, 0x81, 4, 0, 0x23], Nid::SECP521R1),
];

fn curve(parameters: &[u8]) -> Result<Nid> {
    CURVES.iter().find(|(der, _)| *der == parameters).map(|(_, nid)| *nid).ok_or(CKR_CURVE_NOT_SUPPORTED)
}

fn raw_id(parameters: &[u8]) -> Result<Id> {
    let ids = [(ED25519, Id::ED25519), (ED448, Id::ED448), (X25519, Id::X25519), (X448, Id::X448)];
    ids.iter().find(|(der, _)| *der == parameters).map(|(_, id)| *id).ok_or(CKR_CURVE_NOT_SUPPORTED)
}

fn private(object: &Object) -> Result<PKey<Private>> {
    let der = object.private.as_deref().ok_or(CKR_KEY_HANDLE_INVALID)?;
    device(PKey::private_key_from_der(der))
}

fn pair(key: &PKey<Private>) -> Result<(Object, Object)> {
    let own = own_attributes(key)?;
    let public = Object { attributes: own.clone(), private: None };
    let mut attributes = own;
    // The point is the public half's; tokens do not repeat it.
    attributes.remove(&CKA_EC_POINT);
    Ok((public, Object { attributes, private: Some(device(key.private_key_to_pkcs8())?) }))
}

fn own_attributes(key: &PKey<Private>) -> Result<Attributes> {
    let mut own = Attributes::new();
    let octet_string = |point: Vec<u8>| {
        let len = point.len() as u8;
        let head = if len < 128 { vec![4, len] } else { vec![4, 0x81, len] };
        [head, point].concat()
    };
    match key.id() {
        Id::RSA => {
            let rsa = device(key.rsa())?;
            own.insert(CKA_KEY_TYPE, octets(CKK_RSA));
            own.insert(CKA_MODULUS, rsa.n().to_vec());
            own.insert(CKA_PUBLIC_EXPONENT, rsa.e().to_vec());
            own.insert(CKA_MODULUS_BITS, octets(rsa.n().num_bits() as CK_ULONG));
        }
        Id::EC => {
            let ec = device(key.ec_key())?;
            let nid = ec.group().curve_name().ok_or(CKR_CURVE_NOT_SUPPORTED)?;
            let der = CURVES.iter().find(|(_, of)| *of == nid).ok_or(CKR_CURVE_NOT_SUPPORTED)?.0;
            let mut context = device(openssl::bn::BigNumContext::new())?;
            let point = ec.public_key().to_bytes(ec.group(), PointConversionForm::UNCOMPRESSED, &mut context);
            own.insert(CKA_KEY_TYPE, octets(CKK_EC));
            own.insert(CKA_EC_PARAMS, der.to_vec());
            own.insert(CKA_EC_POINT, octet_string(device(point)?));
        }
        id => {
            let (kind, der) = match id {
                Id::ED25519 => (CKK_EC_EDWARDS, ED25519),
                Id::ED448 => (CKK_EC_EDWARDS, ED448),
                Id::X25519 => (CKK_EC_MONTGOMERY, X25519),
                Id::X448 => (CKK_EC_MONTGOMERY, X448),
                _ => return Err(CKR_KEY_TYPE_INCONSISTENT),
            };
            let public = device(PKey::<Public>::public_key_from_der(&device(key.public_key_to_der())?))?;
            own.insert(CKA_KEY_TYPE, octets(kind));
            own.insert(CKA_EC_PARAMS, der.to_vec());
            own.insert(CKA_EC_POINT, octet_string(device(public.raw_public_key())?));
        }
    }
    Ok(own)
}
