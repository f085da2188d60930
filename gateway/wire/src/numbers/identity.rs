//! Numbers of identities, certificates, authentication, configuration and traffic selectors.

use core::fmt;

registry! {
    /// Identification type (RFC 7296 section 3.5).
    IdType(u8) {
        1 IPV4_ADDR "ID_IPV4_ADDR",
        2 FQDN "ID_FQDN",
        3 RFC822_ADDR "ID_RFC822_ADDR",
        5 IPV6_ADDR "ID_IPV6_ADDR",
        9 DER_ASN1_DN "ID_DER_ASN1_DN",
        10 DER_ASN1_GN "ID_DER_ASN1_GN",
        11 KEY_ID "ID_KEY_ID",
        12 FC_NAME "ID_FC_NAME",
        13 NULL "ID_NULL",
    }
}

registry! {
    /// Certificate encoding (RFC 7296 section 3.6).
    CertEncoding(u8) {
        1 PKCS7_WRAPPED_X509 "PKCS #7 wrapped X.509 certificate",
        2 PGP "PGP Certificate",
        3 DNS_SIGNED_KEY "DNS Signed Key",
        4 X509_SIGNATURE "X.509 Certificate - Signature",
        6 KERBEROS_TOKEN "Kerberos Token",
        7 CRL "Certificate Revocation List (CRL)",
        8 ARL "Authority Revocation List (ARL)",
        9 SPKI "SPKI Certificate",
        10 X509_ATTRIBUTE "X.509 Certificate - Attribute",
        11 RAW_RSA_KEY "Deprecated (was Raw RSA Key)",
        12 HASH_AND_URL_X509 "Hash and URL of X.509 certificate",
        13 HASH_AND_URL_BUNDLE "Hash and URL of X.509 bundle",
        14 OCSP_CONTENT "OCSP Content",
        15 RAW_PUBLIC_KEY "Raw Public Key",
    }
}

registry! {
    /// Authentication method of the AUTH payload (RFC 7296 section 3.8).
    AuthMethod(u8) {
        1 RSA_SIGNATURE "RSA Digital Signature",
        2 SHARED_KEY_MIC "Shared Key Message Integrity Code",
        3 DSS_SIGNATURE "DSS Digital Signature",
        9 ECDSA_256 "ECDSA with SHA-256 on the P-256 curve",
        10 ECDSA_384 "ECDSA with SHA-384 on the P-384 curve",
        11 ECDSA_512 "ECDSA with SHA-512 on the P-521 curve",
        12 SECURE_PASSWORD "Generic Secure Password Authentication Method",
        13 NULL "NULL Authentication",
        14 DIGITAL_SIGNATURE "Digital Signature",
    }
}

registry! {
    /// Configuration payload type (RFC 7296 section 3.15).
    CfgType(u8) {
        1 REQUEST "CFG_REQUEST",
        2 REPLY "CFG_REPLY",
        3 SET "CFG_SET",
        4 ACK "CFG_ACK",
    }
}

registry! {
    /// Configuration attribute type, 15 bits (RFC 7296 section 3.15.1).
    CfgAttrType(u16) {
        1 INTERNAL_IP4_ADDRESS "INTERNAL_IP4_ADDRESS",
        2 INTERNAL_IP4_NETMASK "INTERNAL_IP4_NETMASK",
        3 INTERNAL_IP4_DNS "INTERNAL_IP4_DNS",
        4 INTERNAL_IP4_NBNS "INTERNAL_IP4_NBNS",
        6 INTERNAL_IP4_DHCP "INTERNAL_IP4_DHCP",
        7 APPLICATION_VERSION "APPLICATION_VERSION",
        8 INTERNAL_IP6_ADDRESS "INTERNAL_IP6_ADDRESS",
        10 INTERNAL_IP6_DNS "INTERNAL_IP6_DNS",
        12 INTERNAL_IP6_DHCP "INTERNAL_IP6_DHCP",
        13 INTERNAL_IP4_SUBNET "INTERNAL_IP4_SUBNET",
        14 SUPPORTED_ATTRIBUTES "SUPPORTED_ATTRIBUTES",
        15 INTERNAL_IP6_SUBNET "INTERNAL_IP6_SUBNET",
        16 MIP6_HOME_PREFIX "MIP6_HOME_PREFIX",
        17 INTERNAL_IP6_LINK "INTERNAL_IP6_LINK",
        18 INTERNAL_IP6_PREFIX "INTERNAL_IP6_PREFIX",
        19 HOME_AGENT_ADDRESS "HOME_AGENT_ADDRESS",
        20 P_CSCF_IP4_ADDRESS "P_CSCF_IP4_ADDRESS",
        21 P_CSCF_IP6_ADDRESS "P_CSCF_IP6_ADDRESS",
        22 FTT_KAT "FTT_KAT",
        23 EXTERNAL_SOURCE_IP4_NAT_INFO "EXTERNAL_SOURCE_IP4_NAT_INFO",
        24 TIMEOUT_PERIOD_FOR_LIVENESS_CHECK "TIMEOUT_PERIOD_FOR_LIVENESS_CHECK",
        25 INTERNAL_DNS_DOMAIN "INTERNAL_DNS_DOMAIN",
        26 INTERNAL_DNSSEC_TA "INTERNAL_DNSSEC_TA",
        27 ENCDNS_IP4 "ENCDNS_IP4",
        28 ENCDNS_IP6 "ENCDNS_IP6",
        29 ENCDNS_DIGEST_INFO "ENCDNS_DIGEST_INFO",
    }
}

registry! {
    /// Traffic selector type (RFC 7296 section 3.13.1).
    TsType(u8) {
        7 IPV4_ADDR_RANGE "TS_IPV4_ADDR_RANGE",
        8 IPV6_ADDR_RANGE "TS_IPV6_ADDR_RANGE",
        9 FC_ADDR_RANGE "TS_FC_ADDR_RANGE",
        10 SECLABEL "TS_SECLABEL",
    }
}

registry! {
    /// How REDIRECT and REDIRECTED_FROM name a gateway, one octet (RFC 5685 section 8).
    GatewayIdType(u8) {
        1 IPV4 "IPv4 address of the VPN gateway",
        2 IPV6 "IPv6 address of the VPN gateway",
        3 FQDN "FQDN of the VPN gateway",
    }
}

registry! {
    /// How PPK_IDENTITY names a post-quantum preshared key, one octet (RFC 8784 section 5.1).
    PpkIdType(u8) {
        1 OPAQUE "PPK_ID_OPAQUE",
        2 FIXED "PPK_ID_FIXED",
    }
}
