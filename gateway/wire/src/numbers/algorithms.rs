//! Transform types and the algorithm numbers of each, and the hash numbers of RFC 7427.

use core::fmt;

registry! {
    /// Transform type inside a proposal (RFC 7296 section 3.3.2, RFC 9370 for the additional key exchanges).
    TransformType(u8) {
        1 ENCR "ENCR",
        2 PRF "PRF",
        3 INTEG "INTEG",
        4 KE "KE",
        5 SN "SN",
        6 ADDKE1 "ADDKE1",
        7 ADDKE2 "ADDKE2",
        8 ADDKE3 "ADDKE3",
        9 ADDKE4 "ADDKE4",
        10 ADDKE5 "ADDKE5",
        11 ADDKE6 "ADDKE6",
        12 ADDKE7 "ADDKE7",
        13 KWA "KWA",
        14 GCAUTH "GCAUTH",
    }
}

impl TransformType {
    /// The name this type had before RFC 9370.
    pub const DH: TransformType = TransformType::KE;
    /// The name this type had before RFC 9827.
    pub const ESN: TransformType = TransformType::SN;
}

registry! {
    /// Transform attribute type, 15 bits (RFC 7296 section 3.3.5).
    AttributeType(u16) {
        14 KEY_LENGTH "Key Length (in bits)",
        18 SIGNATURE_ALGORITHM_IDENTIFIER "Signature Algorithm Identifier",
    }
}

registry! {
    /// Transform type 1: encryption, with or without integrity.
    EncrId(u16) {
        1 DES_IV64 "ENCR_DES_IV64",
        2 DES "ENCR_DES",
        3 TRIPLE_DES "ENCR_3DES",
        4 RC5 "ENCR_RC5",
        5 IDEA "ENCR_IDEA",
        6 CAST "ENCR_CAST",
        7 BLOWFISH "ENCR_BLOWFISH",
        8 TRIPLE_IDEA "ENCR_3IDEA",
        9 DES_IV32 "ENCR_DES_IV32",
        11 NULL "ENCR_NULL",
        12 AES_CBC "ENCR_AES_CBC",
        13 AES_CTR "ENCR_AES_CTR",
        14 AES_CCM_8 "ENCR_AES_CCM_8",
        15 AES_CCM_12 "ENCR_AES_CCM_12",
        16 AES_CCM_16 "ENCR_AES_CCM_16",
        18 AES_GCM_8 "ENCR_AES_GCM_8",
        19 AES_GCM_12 "ENCR_AES_GCM_12",
        20 AES_GCM_16 "ENCR_AES_GCM_16",
        21 NULL_AUTH_AES_GMAC "ENCR_NULL_AUTH_AES_GMAC",
        23 CAMELLIA_CBC "ENCR_CAMELLIA_CBC",
        24 CAMELLIA_CTR "ENCR_CAMELLIA_CTR",
        25 CAMELLIA_CCM_8 "ENCR_CAMELLIA_CCM_8",
        26 CAMELLIA_CCM_12 "ENCR_CAMELLIA_CCM_12",
        27 CAMELLIA_CCM_16 "ENCR_CAMELLIA_CCM_16",
        28 CHACHA20_POLY1305 "ENCR_CHACHA20_POLY1305",
        29 AES_CCM_8_IIV "ENCR_AES_CCM_8_IIV",
        30 AES_GCM_16_IIV "ENCR_AES_GCM_16_IIV",
        31 CHACHA20_POLY1305_IIV "ENCR_CHACHA20_POLY1305_IIV",
        32 KUZNYECHIK_MGM_KTREE "ENCR_KUZNYECHIK_MGM_KTREE",
        33 MAGMA_MGM_KTREE "ENCR_MAGMA_MGM_KTREE",
        34 KUZNYECHIK_MGM_MAC_KTREE "ENCR_KUZNYECHIK_MGM_MAC_KTREE",
        35 MAGMA_MGM_MAC_KTREE "ENCR_MAGMA_MGM_MAC_KTREE",
    }
}

registry! {
    /// Transform type 2: pseudorandom function.
    PrfId(u16) {
        1 HMAC_MD5 "PRF_HMAC_MD5",
        2 HMAC_SHA1 "PRF_HMAC_SHA1",
        3 HMAC_TIGER "PRF_HMAC_TIGER",
        4 AES128_XCBC "PRF_AES128_XCBC",
        5 HMAC_SHA2_256 "PRF_HMAC_SHA2_256",
        6 HMAC_SHA2_384 "PRF_HMAC_SHA2_384",
        7 HMAC_SHA2_512 "PRF_HMAC_SHA2_512",
        8 AES128_CMAC "PRF_AES128_CMAC",
        9 HMAC_STREEBOG_512 "PRF_HMAC_STREEBOG_512",
    }
}

registry! {
    /// Transform type 3: integrity.
    IntegId(u16) {
        0 NONE "NONE",
        1 HMAC_MD5_96 "AUTH_HMAC_MD5_96",
        2 HMAC_SHA1_96 "AUTH_HMAC_SHA1_96",
        3 DES_MAC "AUTH_DES_MAC",
        4 KPDK_MD5 "AUTH_KPDK_MD5",
        5 AES_XCBC_96 "AUTH_AES_XCBC_96",
        6 HMAC_MD5_128 "AUTH_HMAC_MD5_128",
        7 HMAC_SHA1_160 "AUTH_HMAC_SHA1_160",
        8 AES_CMAC_96 "AUTH_AES_CMAC_96",
        9 AES_128_GMAC "AUTH_AES_128_GMAC",
        10 AES_192_GMAC "AUTH_AES_192_GMAC",
        11 AES_256_GMAC "AUTH_AES_256_GMAC",
        12 HMAC_SHA2_256_128 "AUTH_HMAC_SHA2_256_128",
        13 HMAC_SHA2_384_192 "AUTH_HMAC_SHA2_384_192",
        14 HMAC_SHA2_512_256 "AUTH_HMAC_SHA2_512_256",
    }
}

registry! {
    /// Transform types 4 and 6-12: key exchange method, also the number in the KE payload.
    KeId(u16) {
        0 NONE "NONE",
        1 MODP_768 "768-bit MODP Group",
        2 MODP_1024 "1024-bit MODP Group",
        5 MODP_1536 "1536-bit MODP Group",
        14 MODP_2048 "2048-bit MODP Group",
        15 MODP_3072 "3072-bit MODP Group",
        16 MODP_4096 "4096-bit MODP Group",
        17 MODP_6144 "6144-bit MODP Group",
        18 MODP_8192 "8192-bit MODP Group",
        19 ECP_256 "256-bit random ECP group",
        20 ECP_384 "384-bit random ECP group",
        21 ECP_521 "521-bit random ECP group",
        22 MODP_1024_160 "1024-bit MODP Group with 160-bit Prime Order Subgroup",
        23 MODP_2048_224 "2048-bit MODP Group with 224-bit Prime Order Subgroup",
        24 MODP_2048_256 "2048-bit MODP Group with 256-bit Prime Order Subgroup",
        25 ECP_192 "192-bit Random ECP Group",
        26 ECP_224 "224-bit Random ECP Group",
        27 BRAINPOOL_P224R1 "brainpoolP224r1",
        28 BRAINPOOL_P256R1 "brainpoolP256r1",
        29 BRAINPOOL_P384R1 "brainpoolP384r1",
        30 BRAINPOOL_P512R1 "brainpoolP512r1",
        31 CURVE25519 "Curve25519",
        32 CURVE448 "Curve448",
        33 GOST3410_2012_256 "GOST3410_2012_256",
        34 GOST3410_2012_512 "GOST3410_2012_512",
        35 ML_KEM_512 "ml-kem-512",
        36 ML_KEM_768 "ml-kem-768",
        37 ML_KEM_1024 "ml-kem-1024",
    }
}

/// The name [`KeId`] had before RFC 9370.
pub type DhId = KeId;

registry! {
    /// Transform type 5: sequence numbers (RFC 7296 section 3.3.2, renamed by RFC 9827).
    EsnId(u16) {
        0 NO_ESN "32-bit Sequential Numbers",
        1 ESN "Partially Transmitted 64-bit Sequential Numbers",
        2 UNSPECIFIED_32 "32-bit Unspecified Numbers",
    }
}

registry! {
    /// IPComp transform of the IPCOMP_SUPPORTED notification (RFC 7296 section 3.10.1).
    IpcompId(u8) {
        1 OUI "IPCOMP_OUI",
        2 DEFLATE "IPCOMP_DEFLATE",
        3 LZS "IPCOMP_LZS",
        4 LZJH "IPCOMP_LZJH",
    }
}

registry! {
    /// Hash algorithm of SIGNATURE_HASH_ALGORITHMS, two octets each (RFC 7427 section 7).
    HashId(u16) {
        1 SHA1 "SHA1",
        2 SHA2_256 "SHA2-256",
        3 SHA2_384 "SHA2-384",
        4 SHA2_512 "SHA2-512",
        5 IDENTITY "Identity",
        6 STREEBOG_256 "STREEBOG_256",
        7 STREEBOG_512 "STREEBOG_512",
    }
}
