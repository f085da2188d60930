//! What one certificate must be, by itself: valid now, of a fit key, usable for IKE or for signing certificates.

use std::time::{SystemTime, UNIX_EPOCH};

use spi::cert::{CertError, Usages};
use x509_cert::der::asn1::{GeneralizedTime, ObjectIdentifier};

use crate::cert::Cert;
use crate::key;

/// Extended key usages that let a certificate authenticate an IKE peer (RFC 4945 section 5.1.3.12, and what the field has), as far
/// as the realm takes them: anyExtendedKeyUsage always, ipsecEndSystem, ipsecTunnel, ipsecUser, ipsecIKE, iKEIntermediate,
/// serverAuth, clientAuth.
const IKE_USAGES: [(ObjectIdentifier, Usages); 8] = [
    (ObjectIdentifier::new_unwrap("2.5.29.37.0"), Usages::all()),
    (ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.5"), Usages::IPSEC),
    (ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.6"), Usages::IPSEC),
    (ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.7"), Usages::IPSEC),
    (ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.17"), Usages::IPSEC),
    (ObjectIdentifier::new_unwrap("1.3.6.1.5.5.8.2.2"), Usages::IPSEC),
    (ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.1"), Usages::SERVER),
    (ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.2"), Usages::CLIENT),
];

/// Whether the certificate may be used at all: validity, key, nothing critical that is not understood.
pub(crate) fn check_any(cert: &Cert, at: SystemTime, min_rsa_bits: usize) -> Result<(), CertError> {
    let who = || cert.subject_text();
    if at < cert.not_before {
        let when = date(cert.not_before);
        let who = who();
        return Err(CertError::NotValidNow(format!("the certificate of {who} is not valid before {when}")));
    }
    if at > cert.not_after {
        return Err(CertError::NotValidNow(format!(
            "the certificate of {} expired on {}",
            who(),
            date(cert.not_after)
        )));
    }
    if let Some(obstacle) = &cert.obstacle {
        return Err(CertError::Malformed(format!("the certificate of {} has {obstacle}", who())));
    }
    match key::inspect(&cert.spki, min_rsa_bits) {
        Ok(_) => Ok(()),
        Err(e) => Err(CertError::WrongUsage(format!("the certificate of {} has {e}", who()))),
    }
}

/// Whether the certificate may authenticate an IKE peer.
pub(crate) fn check_end_entity(cert: &Cert, usages: Usages) -> Result<(), CertError> {
    let wrong =
        |why: &str| Err(CertError::WrongUsage(format!("the certificate of {} {why}", cert.subject_text())));
    if cert.key_usage.is_some_and(|usage| !usage.signs) {
        return wrong("has a key usage without digitalSignature");
    }
    let fits = |oid: &ObjectIdentifier| {
        IKE_USAGES
            .iter()
            .any(|(known, usage)| known == oid && (usages.intersects(*usage) || *usage == Usages::all()))
    };
    if cert.ext_key_usage.as_ref().is_some_and(|list| !list.iter().any(fits)) {
        return wrong("has an extended key usage without one for IKE that the realm takes");
    }
    Ok(())
}

/// Whether the certificate is that of a CA that may have `below` CAs under it on this path, self-issued ones not counted
/// (RFC 5280 section 6.1.4).
pub(crate) fn check_authority(cert: &Cert, below: usize) -> Result<(), CertError> {
    let wrong =
        |why: String| Err(CertError::WrongUsage(format!("the certificate of {} {why}", cert.subject_text())));
    if !cert.ca {
        return wrong("is not a CA's".into());
    }
    if cert.key_usage.is_some_and(|usage| !usage.signs_certs) {
        return wrong("may not sign certificates (key usage without keyCertSign)".into());
    }
    match cert.path_len {
        Some(limit) if below > usize::from(limit) => {
            wrong(format!("allows {limit} CAs below it, here there are {below}"))
        }
        _ => Ok(()),
    }
}

/// A moment, for people.
pub(crate) fn date(at: SystemTime) -> String {
    let text = at
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|since| GeneralizedTime::from_unix_duration(since).ok())
        .map(|time| time.to_date_time().to_string());
    text.unwrap_or_else(|| "a date out of range".into())
}
