//! Who a certificate is for, as text (RFC 5216 section 5.2).

use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use crate::account::name;

/// Names looked at.
const MAX_NAMES: usize = 32;

/// The e-mail addresses, then the host names among the subjectAltNames; then the subject, as RFC 4514 writes it.
pub(crate) fn names(certificate: &[u8]) -> Vec<String> {
    let Ok(certificate) = Certificate::from_der(certificate) else { return Vec::new() };
    let alternatives = match certificate.tbs_certificate().get_extension::<SubjectAltName>() {
        Ok(Some((_, alternatives))) => alternatives.0,
        _ => Vec::new(),
    };
    let mail = alternatives.iter().filter_map(|name| match name {
        GeneralName::Rfc822Name(mail) => Some(mail.as_str()),
        _ => None,
    });
    let hosts = alternatives.iter().filter_map(|name| match name {
        GeneralName::DnsName(host) => Some(host.as_str()),
        _ => None,
    });
    let subject = certificate.tbs_certificate().subject().to_string();
    let found = mail.chain(hosts).take(MAX_NAMES).chain([subject.as_str()]);
    found.filter_map(|text| name(text.as_bytes())).map(str::to_string).collect()
}
