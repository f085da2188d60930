//! Algorithms by their IANA numbers (registry "Internet Key Exchange Version 2 Parameters"), with the names operators use
//! and the lengths everybody needs.

use serde::{Deserialize, Serialize};

/// A hash function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Hash {
    /// SHA-1; 20 octets.
    Sha1,
    /// SHA2-256; 32 octets.
    Sha256,
    /// SHA2-384; 48 octets.
    Sha384,
    /// SHA2-512; 64 octets.
    Sha512,
    /// No hash: the scheme takes the message itself (RFC 8420).
    Identity,
}

impl Hash {
    /// Number in the "IKEv2 Hash Algorithms" registry (RFC 7427 section 7; RFC 8420 for Identity).
    pub const fn iana(self) -> u16 {
        match self {
            Hash::Sha1 => 1,
            Hash::Sha256 => 2,
            Hash::Sha384 => 3,
            Hash::Sha512 => 4,
            Hash::Identity => 5,
        }
    }

    /// The hash with that number, if we know it.
    pub const fn from_iana(number: u16) -> Option<Self> {
        match number {
            1 => Some(Hash::Sha1),
            2 => Some(Hash::Sha256),
            3 => Some(Hash::Sha384),
            4 => Some(Hash::Sha512),
            5 => Some(Hash::Identity),
            _ => None,
        }
    }

    /// Output length in octets; 0 for Identity.
    pub const fn len(self) -> usize {
        match self {
            Hash::Sha1 => 20,
            Hash::Sha256 => 32,
            Hash::Sha384 => 48,
            Hash::Sha512 => 64,
            Hash::Identity => 0,
        }
    }

    /// Whether the output is empty, as only that of Identity is.
    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }
}

/// How an encryption algorithm works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EncrKind {
    /// Combined mode: encrypts and authenticates (RFC 5116).
    Aead,
    /// Authenticates only, in AEAD form (RFC 4543).
    Gmac,
    /// Cipher block chaining.
    Cbc,
    /// Counter mode without authentication (RFC 3686).
    Ctr,
    /// No encryption (RFC 2410).
    Null,
}

/// An encryption transform: transform type 1 number and key size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Encr {
    /// Transform ID.
    pub id: u16,
    /// Key Length attribute in bits; 0 for algorithms whose key has one size.
    pub key_bits: u16,
}

/// Lengths and kind of an encryption transform.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncrInfo {
    /// Name as proposals write it, for example `aes128gcm16`.
    pub name: &'static str,
    /// How it works.
    pub kind: EncrKind,
    /// Octets of key, without the salt.
    pub key_len: usize,
    /// Octets of salt taken from the key material after the key.
    pub salt_len: usize,
    /// Octets of IV in each packet.
    pub iv_len: usize,
    /// Octets of ICV the algorithm itself makes; 0 unless combined mode.
    pub icv_len: usize,
    /// ESP pads the plaintext with its two trailer octets to a multiple of this; at least 4 (RFC 4303 section 2.4).
    pub block: usize,
}

impl EncrInfo {
    /// Whether it brings its own integrity.
    pub const fn is_aead(&self) -> bool {
        matches!(self.kind, EncrKind::Aead | EncrKind::Gmac)
    }
}

macro_rules! encr_table {
    ($($konst:ident = ($id:literal, $bits:literal) $name:literal $kind:ident key $key:literal salt $salt:literal iv $iv:literal icv $icv:literal block $block:literal;)*) => {
        impl Encr {
            $(#[doc = concat!("`", $name, "`: transform ", stringify!($id), ", ", stringify!($bits), " bits (0: one size).")]
            pub const $konst: Encr = Encr { id: $id, key_bits: $bits };)*

            /// Every transform in the table.
            pub const ALL: &'static [Encr] = &[$(Encr::$konst),*];

            /// Lengths and kind; `None` for a number or a key size that is not in the table.
            pub const fn info(self) -> Option<EncrInfo> {
                match (self.id, self.key_bits) {
                    $(($id, $bits) => Some(EncrInfo { name: $name, kind: EncrKind::$kind, key_len: $key, salt_len: $salt,
                        iv_len: $iv, icv_len: $icv, block: $block }),)*
                    _ => None,
                }
            }
        }
    };
}

encr_table! {
    NULL = (11, 0) "null" Null key 0 salt 0 iv 0 icv 0 block 4;
    AES128_CBC = (12, 128) "aes128" Cbc key 16 salt 0 iv 16 icv 0 block 16;
    AES192_CBC = (12, 192) "aes192" Cbc key 24 salt 0 iv 16 icv 0 block 16;
    AES256_CBC = (12, 256) "aes256" Cbc key 32 salt 0 iv 16 icv 0 block 16;
    AES128_CTR = (13, 128) "aes128ctr" Ctr key 16 salt 4 iv 8 icv 0 block 4;
    AES192_CTR = (13, 192) "aes192ctr" Ctr key 24 salt 4 iv 8 icv 0 block 4;
    AES256_CTR = (13, 256) "aes256ctr" Ctr key 32 salt 4 iv 8 icv 0 block 4;
    AES128_CCM8 = (14, 128) "aes128ccm8" Aead key 16 salt 3 iv 8 icv 8 block 4;
    AES192_CCM8 = (14, 192) "aes192ccm8" Aead key 24 salt 3 iv 8 icv 8 block 4;
    AES256_CCM8 = (14, 256) "aes256ccm8" Aead key 32 salt 3 iv 8 icv 8 block 4;
    AES128_CCM12 = (15, 128) "aes128ccm12" Aead key 16 salt 3 iv 8 icv 12 block 4;
    AES192_CCM12 = (15, 192) "aes192ccm12" Aead key 24 salt 3 iv 8 icv 12 block 4;
    AES256_CCM12 = (15, 256) "aes256ccm12" Aead key 32 salt 3 iv 8 icv 12 block 4;
    AES128_CCM16 = (16, 128) "aes128ccm16" Aead key 16 salt 3 iv 8 icv 16 block 4;
    AES192_CCM16 = (16, 192) "aes192ccm16" Aead key 24 salt 3 iv 8 icv 16 block 4;
    AES256_CCM16 = (16, 256) "aes256ccm16" Aead key 32 salt 3 iv 8 icv 16 block 4;
    AES128_GCM8 = (18, 128) "aes128gcm8" Aead key 16 salt 4 iv 8 icv 8 block 4;
    AES192_GCM8 = (18, 192) "aes192gcm8" Aead key 24 salt 4 iv 8 icv 8 block 4;
    AES256_GCM8 = (18, 256) "aes256gcm8" Aead key 32 salt 4 iv 8 icv 8 block 4;
    AES128_GCM12 = (19, 128) "aes128gcm12" Aead key 16 salt 4 iv 8 icv 12 block 4;
    AES192_GCM12 = (19, 192) "aes192gcm12" Aead key 24 salt 4 iv 8 icv 12 block 4;
    AES256_GCM12 = (19, 256) "aes256gcm12" Aead key 32 salt 4 iv 8 icv 12 block 4;
    AES128_GCM16 = (20, 128) "aes128gcm16" Aead key 16 salt 4 iv 8 icv 16 block 4;
    AES192_GCM16 = (20, 192) "aes192gcm16" Aead key 24 salt 4 iv 8 icv 16 block 4;
    AES256_GCM16 = (20, 256) "aes256gcm16" Aead key 32 salt 4 iv 8 icv 16 block 4;
    AES128_GMAC = (21, 128) "aes128gmac" Gmac key 16 salt 4 iv 8 icv 16 block 4;
    AES192_GMAC = (21, 192) "aes192gmac" Gmac key 24 salt 4 iv 8 icv 16 block 4;
    AES256_GMAC = (21, 256) "aes256gmac" Gmac key 32 salt 4 iv 8 icv 16 block 4;
    CHACHA20_POLY1305 = (28, 0) "chacha20poly1305" Aead key 32 salt 4 iv 8 icv 16 block 4;
}

/// An integrity transform (transform type 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Integ(pub u16);

/// Lengths of an integrity transform.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IntegInfo {
    /// Name as proposals write it.
    pub name: &'static str,
    /// Octets of key.
    pub key_len: usize,
    /// Octets of ICV, truncated.
    pub icv_len: usize,
}

/// A pseudo-random function (transform type 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Prf(pub u16);

/// Lengths of a PRF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrfInfo {
    /// Name as proposals write it.
    pub name: &'static str,
    /// Preferred key length in octets: that of SK_d, SK_pi, SK_pr (RFC 7296 section 2.14).
    pub key_len: usize,
    /// Output length in octets.
    pub out_len: usize,
    /// Whether the key has this one size, so that nonces are cut when they key it (RFC 7296 section 2.14).
    pub fixed_key: bool,
}

/// A key exchange method (transform type 4): a Diffie-Hellman group or a KEM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Group(pub u16);

/// Family of a key exchange method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GroupKind {
    /// Modular exponentiation (RFC 3526).
    Modp,
    /// NIST curve; public value is `x | y`, the secret is `x` (RFC 5903).
    Ecp,
    /// Montgomery curve (RFC 8031).
    Montgomery,
    /// Key encapsulation: the responder answers with a ciphertext.
    Kem,
}

/// Lengths of a key exchange method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupInfo {
    /// Name as proposals write it.
    pub name: &'static str,
    /// Family.
    pub kind: GroupKind,
    /// Octets of the initiator's KE data.
    pub public_len: usize,
    /// Octets of the responder's KE data; differs for KEMs only.
    pub response_len: usize,
    /// Octets of the shared secret.
    pub secret_len: usize,
}

macro_rules! number_table {
    ($type:ident, $info:ident, $what:literal { $($konst:ident = $id:literal { $($field:ident: $value:expr),* $(,)? };)* }) => {
        impl $type {
            $(#[doc = concat!("Transform ID ", stringify!($id), ".")]
            pub const $konst: $type = $type($id);)*

            #[doc = concat!("Every ", $what, " in the table.")]
            pub const ALL: &'static [$type] = &[$($type::$konst),*];

            /// Lengths; `None` for a number that is not in the table.
            pub const fn info(self) -> Option<$info> {
                match self.0 {
                    $($id => Some($info { $($field: $value),* }),)*
                    _ => None,
                }
            }
        }
    };
}

number_table! { Integ, IntegInfo, "integrity transform" {
    NONE = 0 { name: "none", key_len: 0, icv_len: 0 };
    HMAC_SHA1_96 = 2 { name: "sha1", key_len: 20, icv_len: 12 };
    AES_XCBC_96 = 5 { name: "aesxcbc", key_len: 16, icv_len: 12 };
    AES_CMAC_96 = 8 { name: "aescmac", key_len: 16, icv_len: 12 };
    HMAC_SHA2_256_128 = 12 { name: "sha256", key_len: 32, icv_len: 16 };
    HMAC_SHA2_384_192 = 13 { name: "sha384", key_len: 48, icv_len: 24 };
    HMAC_SHA2_512_256 = 14 { name: "sha512", key_len: 64, icv_len: 32 };
} }

number_table! { Prf, PrfInfo, "PRF" {
    HMAC_SHA1 = 2 { name: "prfsha1", key_len: 20, out_len: 20, fixed_key: false };
    AES128_XCBC = 4 { name: "prfaesxcbc", key_len: 16, out_len: 16, fixed_key: true };
    HMAC_SHA2_256 = 5 { name: "prfsha256", key_len: 32, out_len: 32, fixed_key: false };
    HMAC_SHA2_384 = 6 { name: "prfsha384", key_len: 48, out_len: 48, fixed_key: false };
    HMAC_SHA2_512 = 7 { name: "prfsha512", key_len: 64, out_len: 64, fixed_key: false };
    AES128_CMAC = 8 { name: "prfaescmac", key_len: 16, out_len: 16, fixed_key: true };
} }

number_table! { Group, GroupInfo, "key exchange method" {
    NONE = 0 { name: "none", kind: GroupKind::Modp, public_len: 0, response_len: 0, secret_len: 0 };
    MODP2048 = 14 { name: "modp2048", kind: GroupKind::Modp, public_len: 256, response_len: 256, secret_len: 256 };
    MODP3072 = 15 { name: "modp3072", kind: GroupKind::Modp, public_len: 384, response_len: 384, secret_len: 384 };
    MODP4096 = 16 { name: "modp4096", kind: GroupKind::Modp, public_len: 512, response_len: 512, secret_len: 512 };
    MODP6144 = 17 { name: "modp6144", kind: GroupKind::Modp, public_len: 768, response_len: 768, secret_len: 768 };
    MODP8192 = 18 { name: "modp8192", kind: GroupKind::Modp, public_len: 1024, response_len: 1024, secret_len: 1024 };
    ECP256 = 19 { name: "ecp256", kind: GroupKind::Ecp, public_len: 64, response_len: 64, secret_len: 32 };
    ECP384 = 20 { name: "ecp384", kind: GroupKind::Ecp, public_len: 96, response_len: 96, secret_len: 48 };
    ECP521 = 21 { name: "ecp521", kind: GroupKind::Ecp, public_len: 132, response_len: 132, secret_len: 66 };
    X25519 = 31 { name: "x25519", kind: GroupKind::Montgomery, public_len: 32, response_len: 32, secret_len: 32 };
    X448 = 32 { name: "x448", kind: GroupKind::Montgomery, public_len: 56, response_len: 56, secret_len: 56 };
    MLKEM512 = 35 { name: "mlkem512", kind: GroupKind::Kem, public_len: 800, response_len: 768, secret_len: 32 };
    MLKEM768 = 36 { name: "mlkem768", kind: GroupKind::Kem, public_len: 1184, response_len: 1088, secret_len: 32 };
    MLKEM1024 = 37 { name: "mlkem1024", kind: GroupKind::Kem, public_len: 1568, response_len: 1568, secret_len: 32 };
} }

/// A NIST curve for signatures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Curve {
    /// secp256r1.
    P256,
    /// secp384r1.
    P384,
    /// secp521r1.
    P521,
}

impl Curve {
    /// Octets of one coordinate, and of `r` and of `s` in a plain signature.
    pub const fn coordinate_len(self) -> usize {
        match self {
            Curve::P256 => 32,
            Curve::P384 => 48,
            Curve::P521 => 66,
        }
    }
}

/// A signature scheme: algorithm, padding or encoding, and hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum SignScheme {
    /// RSASSA-PKCS1-v1_5 (RFC 8017 section 8.2).
    RsaPkcs1(Hash),
    /// RSASSA-PSS, MGF1 with the same hash, salt as long as the hash (RFC 8017 section 8.1).
    RsaPss(Hash),
    /// ECDSA, signature is `r | s`, each as long as the coordinate (RFC 4754 section 7).
    EcdsaPlain(Curve, Hash),
    /// ECDSA, signature is the DER sequence (RFC 7427 section A.3, RFC 3279 section 2.2.3).
    EcdsaDer(Curve, Hash),
    /// Ed25519 over the message itself (RFC 8420).
    Ed25519,
    /// Ed448 over the message itself (RFC 8420).
    Ed448,
}

impl SignScheme {
    /// Those of an RSA key with SHA-2, best first.
    pub fn of_rsa() -> Vec<SignScheme> {
        let sha2 = [Hash::Sha256, Hash::Sha384, Hash::Sha512];
        sha2.map(SignScheme::RsaPss).into_iter().chain(sha2.map(SignScheme::RsaPkcs1)).collect()
    }

    /// Those of a key on a curve, best first: with the hash of the curve's strength, as RFC 4754 section 3 pairs them.
    pub fn of_curve(curve: Curve) -> Vec<SignScheme> {
        let hashes = match curve {
            Curve::P256 => [Hash::Sha256, Hash::Sha384, Hash::Sha512],
            Curve::P384 => [Hash::Sha384, Hash::Sha256, Hash::Sha512],
            Curve::P521 => [Hash::Sha512, Hash::Sha384, Hash::Sha256],
        };
        let der = hashes.map(|hash| SignScheme::EcdsaDer(curve, hash));
        der.into_iter().chain(hashes.map(|hash| SignScheme::EcdsaPlain(curve, hash))).collect()
    }

    /// The hash the scheme applies.
    pub const fn hash(self) -> Hash {
        match self {
            SignScheme::RsaPkcs1(h) | SignScheme::RsaPss(h) => h,
            SignScheme::EcdsaPlain(_, h) | SignScheme::EcdsaDer(_, h) => h,
            SignScheme::Ed25519 | SignScheme::Ed448 => Hash::Identity,
        }
    }
}

impl std::fmt::Display for Encr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.info() {
            Some(info) => f.write_str(info.name),
            None => write!(f, "encr{}/{}", self.id, self.key_bits),
        }
    }
}

macro_rules! display_by_name {
    ($($type:ident $prefix:literal),*) => { $(
        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                match self.info() {
                    Some(info) => f.write_str(info.name),
                    None => write!(f, concat!($prefix, "{}"), self.0),
                }
            }
        }
    )* };
}

display_by_name!(Integ "integ", Prf "prf", Group "group");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_found_by_its_own_number() {
        for encr in Encr::ALL {
            let info = encr.info().unwrap();
            assert!(info.block >= 4 && info.block.is_power_of_two(), "{encr}");
            assert_eq!(encr.to_string(), info.name);
        }
        assert!(Encr { id: 20, key_bits: 100 }.info().is_none());
        assert!(Group(2).info().is_none(), "MODP-1024 is not offered");
        for group in Group::ALL {
            assert_eq!(group.to_string(), group.info().unwrap().name);
        }
    }

    #[test]
    fn hash_numbers_round_trip() {
        for n in 0..9 {
            if let Some(h) = Hash::from_iana(n) {
                assert_eq!(h.iana(), n);
            }
        }
    }
}
