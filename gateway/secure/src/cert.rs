//! One certificate, taken apart (RFC 5280): what path validation and identity matching look at, and nothing that was not
//! understood left unnoticed.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use policy::dn;
use spi::cert::{CertError, CertInfo};
use x509_cert::Version;
use x509_cert::certificate::{CertificateInner, Raw};
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::{Decode, Encode, Reader, SliceReader};
use x509_cert::ext::pkix::name::{DistributionPointName, GeneralName};
use x509_cert::ext::pkix::{
    AuthorityInfoAccessSyntax, AuthorityKeyIdentifier, BasicConstraints, CrlDistributionPoints,
    ExtendedKeyUsage, KeyUsage, NameConstraints, SubjectAltName, SubjectKeyIdentifier,
};

use crate::algorithm::Algorithm;
use crate::constraints::Constraints;

/// Longest certificate that is read, octets.
pub(crate) const MAX_CERT: usize = 32 * 1024;
/// Subject alternative names in one certificate.
const MAX_NAMES: usize = 256;
/// URLs that are kept of one certificate, of each kind.
const MAX_URLS: usize = 4;
/// Longest URL that is kept, octets.
const MAX_URL: usize = 1024;

const BASIC_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.19");
const KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.15");
const EXT_KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.37");
const SUBJECT_ALT_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.17");
const SUBJECT_KEY_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.14");
const AUTHORITY_KEY_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.35");
const NAME_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.30");
const CRL_POINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.31");
const AUTHORITY_INFO: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.1.1");
const OCSP_NO_CHECK: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.48.1.5");
const AD_OCSP: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.48.1");
// With the initial policy set `any-policy` and no policy asked for, policies change no verdict (RFC 5280 section 6.1).
const CERT_POLICIES: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.32");

/// A certificate.
#[derive(Clone, Debug)]
pub(crate) struct Cert {
    pub(crate) der: Vec<u8>,
    /// The serial number as DER has it, tag and length included: what revocation lists name it by.
    pub(crate) serial: Vec<u8>,
    /// What the issuer signed, octet for octet.
    pub(crate) tbs: Vec<u8>,
    pub(crate) algorithm: Option<Algorithm>,
    pub(crate) signature: Vec<u8>,
    pub(crate) issuer: Vec<u8>,
    pub(crate) subject: Vec<u8>,
    pub(crate) spki: Vec<u8>,
    pub(crate) not_before: SystemTime,
    pub(crate) not_after: SystemTime,
    /// Whether it is a CA's, and how many CAs may follow below it.
    pub(crate) ca: bool,
    pub(crate) path_len: Option<u8>,
    /// `None`: no restriction.
    pub(crate) key_usage: Option<Usage>,
    pub(crate) ext_key_usage: Option<Vec<ObjectIdentifier>>,
    pub(crate) key_id: Option<Vec<u8>>,
    pub(crate) authority_key_id: Option<Vec<u8>>,
    pub(crate) dns: Vec<String>,
    pub(crate) email: Vec<String>,
    pub(crate) addresses: Vec<IpAddr>,
    /// Whether it has names of other kinds: nothing to us, but name constraints may be about them.
    pub(crate) other_names: bool,
    /// Where lists of revoked certificates are to be had, as far as it is a URL.
    pub(crate) crl_urls: Vec<String>,
    /// Where its status can be asked for.
    pub(crate) ocsp_urls: Vec<String>,
    /// What names the certificates below it may have.
    pub(crate) constraints: Option<Constraints>,
    /// A critical extension we do not know, or name constraints of a kind that we do not process.
    pub(crate) obstacle: Option<String>,
    canonical_subject: OnceLock<Vec<u8>>,
}

/// The bits of KeyUsage that matter here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) signs: bool,
    pub(crate) signs_certs: bool,
    pub(crate) signs_crls: bool,
}

impl Cert {
    /// Takes a certificate apart.
    pub(crate) fn parse(der: &[u8]) -> Result<Self, CertError> {
        if der.len() > MAX_CERT {
            return Err(malformed(format!("{} octets, at most {MAX_CERT} are read", der.len())));
        }
        let broken = |_: x509_cert::der::Error| malformed("not an X.509 certificate".into());
        // The profile without RFC 5280's limits on serial numbers and dates: old CAs break them, and they harm nobody.
        let parsed = CertificateInner::<Raw>::from_der(der).map_err(broken)?;
        let mut tbs = &[][..];
        let mut reader = SliceReader::new(der).map_err(broken)?;
        reader
            .sequence(|r| {
                tbs = r.tlv_bytes()?;
                r.tlv_bytes()?;
                r.tlv_bytes()
            })
            .map_err(broken)?;
        let serial = serial(tbs).map_err(broken)?;
        let t = parsed.tbs_certificate();
        // RFC 5280 section 4.1.1.2: the algorithm is in there twice, and the signed one has to be the same.
        if t.signature() != parsed.signature_algorithm() {
            return Err(malformed("two different signature algorithms".into()));
        }
        let algorithm = parsed.signature_algorithm().to_der().map_err(broken)?;
        let mut cert = Cert {
            der: der.to_vec(),
            serial,
            tbs: tbs.to_vec(),
            algorithm: Algorithm::from_der(&algorithm),
            signature: parsed
                .signature()
                .as_bytes()
                .ok_or_else(|| malformed("signature of odd bits".into()))?
                .to_vec(),
            issuer: t.issuer().to_der().map_err(broken)?,
            subject: t.subject().to_der().map_err(broken)?,
            spki: t.subject_public_key_info().to_der().map_err(broken)?,
            not_before: t.validity().not_before.to_system_time(),
            not_after: t.validity().not_after.to_system_time(),
            ca: false,
            path_len: None,
            key_usage: None,
            ext_key_usage: None,
            key_id: None,
            authority_key_id: None,
            dns: Vec::new(),
            email: Vec::new(),
            addresses: Vec::new(),
            other_names: false,
            crl_urls: Vec::new(),
            ocsp_urls: Vec::new(),
            constraints: None,
            obstacle: None,
            canonical_subject: OnceLock::new(),
        };
        let extensions = t.extensions().map(Vec::as_slice).unwrap_or_default();
        if !extensions.is_empty() && t.version() != Version::V3 {
            return Err(malformed("extensions before version 3".into()));
        }
        for (i, extension) in extensions.iter().enumerate() {
            // RFC 5280 section 4.2: at most one of each; two would leave to chance which one counts.
            if extensions.iter().take(i).any(|e| e.extn_id == extension.extn_id) {
                return Err(malformed(format!("extension {} twice", extension.extn_id)));
            }
            cert.take(extension.extn_id, extension.critical, extension.extn_value.as_bytes())?;
        }
        Ok(cert)
    }

    fn take(&mut self, oid: ObjectIdentifier, critical: bool, value: &[u8]) -> Result<(), CertError> {
        let broken = |_: x509_cert::der::Error| malformed(format!("extension {oid} does not parse"));
        match oid {
            BASIC_CONSTRAINTS => {
                let constraints = BasicConstraints::from_der(value).map_err(broken)?;
                (self.ca, self.path_len) = (constraints.ca, constraints.path_len_constraint);
            }
            KEY_USAGE => {
                let usage = KeyUsage::from_der(value).map_err(broken)?;
                // RFC 4945 section 5.1.3.2: either bit lets a key sign IKE's AUTH.
                let signs = usage.digital_signature() || usage.non_repudiation();
                self.key_usage =
                    Some(Usage { signs, signs_certs: usage.key_cert_sign(), signs_crls: usage.crl_sign() });
            }
            EXT_KEY_USAGE => self.ext_key_usage = Some(ExtendedKeyUsage::from_der(value).map_err(broken)?.0),
            SUBJECT_ALT_NAME => {
                let names = SubjectAltName::from_der(value).map_err(broken)?.0;
                if names.len() > MAX_NAMES {
                    return Err(malformed(format!("more than {MAX_NAMES} names")));
                }
                names.iter().for_each(|name| self.take_name(name));
            }
            // Hints for finding the issuer, never a reason to refuse.
            SUBJECT_KEY_ID => {
                self.key_id = SubjectKeyIdentifier::from_der(value).ok().map(|id| id.0.as_bytes().to_vec());
            }
            AUTHORITY_KEY_ID => {
                let id = AuthorityKeyIdentifier::from_der(value).ok().and_then(|id| id.key_identifier);
                self.authority_key_id = id.map(|id| id.as_bytes().to_vec());
            }
            // Where to ask is a hint, too; that nothing is found there is for the realm's policy to judge.
            CRL_POINTS => {
                self.crl_urls = CrlDistributionPoints::from_der(value).map(crl_urls).unwrap_or_default()
            }
            AUTHORITY_INFO => {
                self.ocsp_urls =
                    AuthorityInfoAccessSyntax::from_der(value).map(ocsp_urls).unwrap_or_default();
            }
            CERT_POLICIES | OCSP_NO_CHECK => {}
            // Critical or not: a CA that is limited to some names would be believed for all (RFC 5280 section 4.2.1.10).
            NAME_CONSTRAINTS => match Constraints::new(&NameConstraints::from_der(value).map_err(broken)?) {
                Ok(constraints) => self.constraints = Some(constraints),
                Err(why) => self.obstacle = Some(why),
            },
            _ if critical => self.obstacle = Some(format!("the unknown critical extension {oid}")),
            _ => {}
        }
        Ok(())
    }

    fn take_name(&mut self, name: &GeneralName) {
        match name {
            GeneralName::DnsName(name) => self.dns.push(name.as_str().into()),
            GeneralName::Rfc822Name(name) => self.email.push(name.as_str().into()),
            GeneralName::IpAddress(octets) => {
                if let Ok(v4) = <[u8; 4]>::try_from(octets.as_bytes()) {
                    self.addresses.push(v4.into());
                } else if let Ok(v6) = <[u8; 16]>::try_from(octets.as_bytes()) {
                    self.addresses.push(v6.into());
                }
            }
            // No identity of IKE is any of the other kinds.
            _ => self.other_names = true,
        }
    }

    /// The subject in a form in which equal names are equal octets. Many certificates are compared with one of a CA's.
    pub(crate) fn canonical_subject(&self) -> &[u8] {
        self.canonical_subject.get_or_init(|| dn::canonical(&self.subject))
    }

    /// The subject, for people.
    pub(crate) fn subject_text(&self) -> String {
        let text = dn::to_text(&self.subject);
        match (text.is_empty(), self.dns.first().or(self.email.first())) {
            (true, Some(name)) => name.chars().filter(|c| !c.is_control()).take(255).collect(),
            (true, None) => "(no name)".into(),
            _ => text,
        }
    }

    /// Whether subject and issuer are one name.
    pub(crate) fn is_self_issued(&self) -> bool {
        dn::canonical(&self.subject) == dn::canonical(&self.issuer)
    }

    /// What a verdict hands on.
    pub(crate) fn info(&self) -> CertInfo {
        CertInfo {
            spki: self.spki.clone(),
            subject: self.subject.clone(),
            dns: self.dns.clone(),
            email: self.email.clone(),
            addresses: self.addresses.clone(),
            not_after: self.not_after,
            path: Arc::default(),
        }
    }
}

/// The serial number of a TBSCertificate: its first field, or the second where the version comes before it.
fn serial(tbs: &[u8]) -> Result<Vec<u8>, x509_cert::der::Error> {
    let mut reader = SliceReader::new(tbs)?;
    let field = reader.sequence(|r| {
        let mut field = r.tlv_bytes()?;
        if field.first() == Some(&0xa0) {
            field = r.tlv_bytes()?;
        }
        r.read_slice(r.remaining_len())?;
        Ok::<_, x509_cert::der::Error>(field)
    })?;
    Ok(field.to_vec())
}

/// The URLs of base lists by the issuer itself. Lists by others, or for some reasons only, say less than all.
fn crl_urls(points: CrlDistributionPoints) -> Vec<String> {
    let whole = points.0.into_iter().filter(|point| point.reasons.is_none() && point.crl_issuer.is_none());
    let names = whole.filter_map(|point| point.distribution_point);
    let names = names.filter_map(|name| match name {
        DistributionPointName::FullName(names) => Some(names),
        DistributionPointName::NameRelativeToCRLIssuer(_) => None,
    });
    urls(names.flatten())
}

fn ocsp_urls(access: AuthorityInfoAccessSyntax) -> Vec<String> {
    urls(access.0.into_iter().filter(|a| a.access_method == AD_OCSP).map(|a| a.access_location))
}

fn urls(names: impl Iterator<Item = GeneralName>) -> Vec<String> {
    let urls = names.filter_map(|name| match name {
        GeneralName::UniformResourceIdentifier(url) if url.as_str().len() <= MAX_URL => Some(url.to_string()),
        _ => None,
    });
    urls.take(MAX_URLS).collect()
}

fn malformed(what: String) -> CertError {
    CertError::Malformed(what)
}
