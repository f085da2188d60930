//! Exchange, payload and protocol numbers.

use core::fmt;

registry! {
    /// IKEv2 exchange type, one octet of the header (RFC 7296 section 3.1).
    ExchangeType(u8) {
        34 IKE_SA_INIT "IKE_SA_INIT",
        35 IKE_AUTH "IKE_AUTH",
        36 CREATE_CHILD_SA "CREATE_CHILD_SA",
        37 INFORMATIONAL "INFORMATIONAL",
        38 IKE_SESSION_RESUME "IKE_SESSION_RESUME",
        39 GSA_AUTH "GSA_AUTH",
        40 GSA_REGISTRATION "GSA_REGISTRATION",
        41 GSA_REKEY "GSA_REKEY",
        42 GSA_INBAND_REKEY "GSA_INBAND_REKEY",
        43 IKE_INTERMEDIATE "IKE_INTERMEDIATE",
        44 IKE_FOLLOWUP_KE "IKE_FOLLOWUP_KE",
    }
}

registry! {
    /// IKEv2 payload type, the "next payload" octet (RFC 7296 section 3.2). Names are the registry's notation.
    PayloadType(u8) {
        0 NONE "NONE",
        33 SA "SA",
        34 KE "KE",
        35 IDI "IDi",
        36 IDR "IDr",
        37 CERT "CERT",
        38 CERTREQ "CERTREQ",
        39 AUTH "AUTH",
        40 NONCE "No",
        41 NOTIFY "N",
        42 DELETE "D",
        43 VENDOR "V",
        44 TSI "TSi",
        45 TSR "TSr",
        46 SK "SK",
        47 CP "CP",
        48 EAP "EAP",
        49 GSPM "GSPM",
        50 IDG "IDg",
        51 GSA "GSA",
        52 KD "KD",
        53 SKF "SKF",
        54 PS "PS",
    }
}

registry! {
    /// Security protocol identifier of proposals, notifications and deletions (RFC 7296 section 3.3.1).
    ProtocolId(u8) {
        0 NONE "NONE",
        1 IKE "IKE",
        2 AH "AH",
        3 ESP "ESP",
        4 FC_ESP_HEADER "FC_ESP_HEADER",
        5 FC_CT_AUTHENTICATION "FC_CT_AUTHENTICATION",
        6 GIKE_UPDATE "GIKE_UPDATE",
    }
}
