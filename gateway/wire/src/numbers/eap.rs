//! EAP codes and methods.

use core::fmt;

registry! {
    /// EAP code (RFC 3748 section 4).
    EapCode(u8) {
        1 REQUEST "Request",
        2 RESPONSE "Response",
        3 SUCCESS "Success",
        4 FAILURE "Failure",
    }
}

registry! {
    /// EAP method type (RFC 3748 section 5), those a gateway meets.
    EapType(u8) {
        1 IDENTITY "Identity",
        2 NOTIFICATION "Notification",
        3 LEGACY_NAK "Legacy Nak",
        4 MD5_CHALLENGE "MD5-Challenge",
        5 OTP "One-Time Password (OTP)",
        6 GTC "Generic Token Card (GTC)",
        13 TLS "EAP-TLS",
        18 SIM "EAP-SIM",
        21 TTLS "EAP-TTLS",
        23 AKA "EAP-AKA",
        25 PEAP "PEAP",
        26 MSCHAPV2 "MS-EAP-Authentication",
        43 FAST "EAP-FAST",
        50 AKA_PRIME "EAP-AKA'",
        52 PWD "EAP-pwd",
        55 TEAP "TEAP",
        254 EXPANDED "Expanded Types",
    }
}
