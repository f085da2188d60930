//! OCSP (RFC 6960): the question about one certificate, and the answer taken apart. What an answer is worth, that is who signed it and
//! how old it is, is for others to judge.

use std::time::SystemTime;

use der::asn1::{AnyRef, BitStringRef, GeneralizedTime, Int, Null, ObjectIdentifier, OctetString};
use der::{Choice, Decode, Encode, Enumerated, Reader, Sequence, SliceReader};
use policy::dn;
use spi::{Hash, ShortOps};
use x509_cert::ext::{Extension, Extensions};
use x509_cert::name::Name;
use x509_cert::spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfo};

use crate::algorithm::Algorithm;
use crate::cert::Cert;

/// Longest answer that is read, octets.
pub(crate) const MAX_RESPONSE: usize = 64 * 1024;
/// Certificates in an answer that are looked at.
const MAX_CERTS: usize = 4;
/// Certificates that one answer may be about.
const MAX_STATUSES: usize = 64;
/// Octets of a nonce (RFC 9654 section 2.1).
pub(crate) const NONCE: usize = 32;

const BASIC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.48.1.1");
const NONCE_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.48.1.2");
const SHA1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.14.3.2.26");
const SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1");

#[derive(Clone, Debug, PartialEq, Eq, Sequence)]
struct CertId {
    hash: AlgorithmIdentifierOwned,
    issuer_name: OctetString,
    issuer_key: OctetString,
    serial: Int,
}

#[derive(Sequence)]
struct Question {
    tbs: TbsQuestion,
}

#[derive(Sequence)]
struct TbsQuestion {
    list: Vec<One>,
    #[asn1(context_specific = "2", tag_mode = "EXPLICIT", optional = "true")]
    extensions: Option<Extensions>,
}

#[derive(Sequence)]
struct One {
    cert: CertId,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Enumerated)]
#[asn1(type = "ENUMERATED")]
#[repr(u32)]
enum ResponseStatus {
    Successful = 0,
    MalformedRequest = 1,
    InternalError = 2,
    TryLater = 3,
    SigRequired = 5,
    Unauthorized = 6,
}

#[derive(Sequence)]
struct Response {
    status: ResponseStatus,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    bytes: Option<ResponseBytes>,
}

#[derive(Sequence)]
struct ResponseBytes {
    kind: ObjectIdentifier,
    response: OctetString,
}

#[derive(Sequence)]
struct ResponseData {
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    version: Option<u8>,
    responder: ResponderId,
    produced_at: GeneralizedTime,
    responses: Vec<SingleResponse>,
    #[asn1(context_specific = "1", tag_mode = "EXPLICIT", optional = "true")]
    extensions: Option<Extensions>,
}

#[derive(Clone, Choice)]
enum ResponderId {
    #[asn1(context_specific = "1", tag_mode = "EXPLICIT", constructed = "true")]
    Name(Name),
    #[asn1(context_specific = "2", tag_mode = "EXPLICIT", constructed = "true")]
    Key(OctetString),
}

#[derive(Clone, Sequence)]
struct SingleResponse {
    cert: CertId,
    status: CertStatus,
    this_update: GeneralizedTime,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    next_update: Option<GeneralizedTime>,
    #[asn1(context_specific = "1", tag_mode = "EXPLICIT", optional = "true")]
    extensions: Option<Extensions>,
}

#[derive(Clone, Choice)]
enum CertStatus {
    #[asn1(context_specific = "0", tag_mode = "IMPLICIT")]
    Good(Null),
    #[asn1(context_specific = "1", tag_mode = "IMPLICIT", constructed = "true")]
    Revoked(RevokedInfo),
    #[asn1(context_specific = "2", tag_mode = "IMPLICIT")]
    Unknown(Null),
}

#[derive(Clone, Sequence)]
struct RevokedInfo {
    time: GeneralizedTime,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    reason: Option<Reason>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Enumerated)]
#[asn1(type = "ENUMERATED")]
#[repr(u32)]
#[allow(clippy::enum_variant_names)] // The names of RFC 5280.
enum Reason {
    Unspecified = 0,
    KeyCompromise = 1,
    CaCompromise = 2,
    AffiliationChanged = 3,
    Superseded = 4,
    CessationOfOperation = 5,
    CertificateHold = 6,
    RemoveFromCrl = 8,
    PrivilegeWithdrawn = 9,
    AaCompromise = 10,
}

/// What a responder says of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Good,
    Revoked { since: SystemTime, reason: u8 },
    Unknown,
}

/// An answer about one certificate.
pub(crate) struct Answer {
    pub(crate) status: Status,
    pub(crate) this_update: SystemTime,
    pub(crate) next_update: Option<SystemTime>,
    pub(crate) nonce: Option<Vec<u8>>,
    /// What was signed, by which algorithm.
    pub(crate) tbs: Vec<u8>,
    pub(crate) algorithm: Option<Algorithm>,
    pub(crate) signature: Vec<u8>,
    signer: ResponderId,
    /// Certificates the responder sent along.
    pub(crate) certs: Vec<Cert>,
}

/// The question about a certificate: certificates are named by SHA-1 there, which every responder knows and nothing is protected by.
///
/// # Errors
/// A device that does not hash.
pub(crate) fn question(
    cert: &Cert,
    issuer: &Cert,
    nonce: &[u8],
    short: &dyn ShortOps,
) -> Result<Vec<u8>, String> {
    let fail = |_: der::Error| "the certificate cannot be named in an OCSP request".to_owned();
    let (name, key) = names(cert, issuer, Hash::Sha1, short)?;
    let cert = CertId {
        hash: AlgorithmIdentifierOwned { oid: SHA1, parameters: Some(der::Any::null()) },
        issuer_name: OctetString::new(name).map_err(fail)?,
        issuer_key: OctetString::new(key).map_err(fail)?,
        serial: Int::from_der(&cert.serial).map_err(fail)?,
    };
    let value = OctetString::new(nonce).and_then(|nonce| nonce.to_der()).map_err(fail)?;
    let nonce =
        Extension { extn_id: NONCE_ID, critical: false, extn_value: OctetString::new(value).map_err(fail)? };
    let tbs = TbsQuestion { list: vec![One { cert }], extensions: Some(vec![nonce]) };
    Question { tbs }.to_der().map_err(fail)
}

impl Answer {
    /// Takes an answer apart and finds in it what it says of this certificate.
    ///
    /// # Errors
    /// Why there is nothing in it, in words.
    pub(crate) fn parse(
        der: &[u8],
        cert: &Cert,
        issuer: &Cert,
        short: &dyn ShortOps,
    ) -> Result<Answer, String> {
        let broken = |_: der::Error| "not an OCSP response".to_owned();
        if der.len() > MAX_RESPONSE {
            return Err(format!("an OCSP response of more than {MAX_RESPONSE} octets"));
        }
        let response = Response::from_der(der).map_err(broken)?;
        let bytes = match (response.status, response.bytes) {
            (ResponseStatus::Successful, Some(bytes)) => bytes,
            (ResponseStatus::Successful, None) => return Err("an OCSP response without content".into()),
            (status, _) => return Err(format!("the OCSP responder says {}", error_text(status))),
        };
        if bytes.kind != BASIC {
            return Err("an OCSP response of an unknown kind".into());
        }
        let (tbs, algorithm, signature, certs) = basic(bytes.response.as_bytes()).map_err(broken)?;
        let data = ResponseData::from_der(tbs).map_err(broken)?;
        // RFC 6960 section 4.2.1: version 1 is written as 0, or left out.
        if data.version.is_some_and(|version| version != 0) {
            return Err("an OCSP response of an unknown version".into());
        }
        if data.responses.len() > MAX_STATUSES {
            return Err(format!("an OCSP response about more than {MAX_STATUSES} certificates"));
        }
        let one = data.responses.iter().find(|one| one.cert.names(cert, issuer, short));
        let one = one.ok_or("an OCSP response about another certificate")?;
        let mut nonce = None;
        for extension in data.extensions.iter().flatten().chain(one.extensions.iter().flatten()) {
            match extension.extn_id {
                NONCE_ID => {
                    let value = extension.extn_value.as_bytes();
                    // Old responders put the octets there bare.
                    nonce = Some(
                        OctetString::from_der(value)
                            .map_or_else(|_| value.to_vec(), |n| n.as_bytes().to_vec()),
                    );
                }
                other if extension.critical => {
                    return Err(format!("an OCSP response with the unknown critical extension {other}"));
                }
                _ => {}
            }
        }
        let status = match &one.status {
            CertStatus::Good(_) => Status::Good,
            CertStatus::Revoked(info) => Status::Revoked {
                since: info.time.to_system_time(),
                reason: info.reason.map_or(0, |reason| reason as u8),
            },
            CertStatus::Unknown(_) => Status::Unknown,
        };
        Ok(Answer {
            status,
            this_update: one.this_update.to_system_time(),
            next_update: one.next_update.map(|at| at.to_system_time()),
            nonce,
            tbs: tbs.to_vec(),
            algorithm: Algorithm::from_der(algorithm),
            signature,
            signer: data.responder.clone(),
            certs: certs.iter().filter_map(|der| Cert::parse(der).ok()).collect(),
        })
    }

    /// Whether the answer says that this is who signed it.
    pub(crate) fn is_by(&self, cert: &Cert, short: &dyn ShortOps) -> bool {
        match &self.signer {
            ResponderId::Name(name) => {
                name.to_der().is_ok_and(|der| dn::canonical(&der) == cert.canonical_subject())
            }
            ResponderId::Key(hash) => key_bits(&cert.spki)
                .and_then(|key| short.hash(Hash::Sha1, &[&key]).ok())
                .is_some_and(|have| have == hash.as_bytes()),
        }
    }
}

impl CertId {
    fn names(&self, cert: &Cert, issuer: &Cert, short: &dyn ShortOps) -> bool {
        let hash = match self.hash.oid {
            SHA1 => Hash::Sha1,
            SHA256 => Hash::Sha256,
            _ => return false,
        };
        let Ok((name, key)) = names(cert, issuer, hash, short) else { return false };
        self.issuer_name.as_bytes() == name
            && self.issuer_key.as_bytes() == key
            && self.serial.to_der().is_ok_and(|serial| serial == cert.serial)
    }
}

/// What the parts of a BasicOCSPResponse are: signed octets, algorithm, signature, certificates.
type Parts<'a> = (&'a [u8], &'a [u8], Vec<u8>, Vec<&'a [u8]>);

fn basic(der: &[u8]) -> Result<Parts<'_>, der::Error> {
    let mut reader = SliceReader::new(der)?;
    let parts = reader.sequence(|r| {
        let tbs = r.tlv_bytes()?;
        let algorithm = r.tlv_bytes()?;
        let signature: BitStringRef<'_> = r.decode()?;
        let signature = signature.as_bytes().ok_or(der::ErrorKind::Failed)?.to_vec();
        let mut certs = Vec::new();
        if !r.is_finished() {
            let field: AnyRef<'_> = r.decode()?;
            let mut inside = SliceReader::new(field.value())?;
            inside.sequence(|list| {
                while !list.is_finished() {
                    let cert = list.tlv_bytes()?;
                    if certs.len() < MAX_CERTS {
                        certs.push(cert);
                    }
                }
                Ok::<_, der::Error>(())
            })?;
            inside.finish()?;
        }
        Ok::<_, der::Error>((tbs, algorithm, signature, certs))
    })?;
    reader.finish()?;
    Ok(parts)
}

/// Hashes of the issuer's name, as the certificate has it, and key.
fn names(cert: &Cert, issuer: &Cert, hash: Hash, short: &dyn ShortOps) -> Result<(Vec<u8>, Vec<u8>), String> {
    let fault = |fault: spi::Fault| format!("hash: {fault}");
    let key = key_bits(&issuer.spki).ok_or("a public key that does not parse")?;
    Ok((short.hash(hash, &[&cert.issuer]).map_err(fault)?, short.hash(hash, &[&key]).map_err(fault)?))
}

/// The key inside a SubjectPublicKeyInfo, without algorithm, tag and length.
fn key_bits(spki: &[u8]) -> Option<Vec<u8>> {
    let spki = SubjectPublicKeyInfo::<AnyRef<'_>, BitStringRef<'_>>::from_der(spki).ok()?;
    Some(spki.subject_public_key.as_bytes()?.to_vec())
}

fn error_text(status: ResponseStatus) -> &'static str {
    match status {
        ResponseStatus::Successful => "nothing",
        ResponseStatus::MalformedRequest => "that it does not understand the request",
        ResponseStatus::InternalError => "that it has an internal error",
        ResponseStatus::TryLater => "that it be tried later",
        ResponseStatus::SigRequired => "that it answers signed requests only",
        ResponseStatus::Unauthorized => "that it does not answer for this certificate (unauthorized)",
    }
}
