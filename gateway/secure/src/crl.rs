//! A list of revoked certificates (RFC 5280 section 5), taken apart and kept small: the octets as they came, and where each serial
//! number lies in them. Whether its issuer signed it is for others to find out.
//!
//! Understood are whole lists by the CA itself. Delta CRLs, lists by somebody else (indirect) and lists for some reasons only are
//! refused, for they say less than a verdict needs.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use der::asn1::{AnyRef, BitStringRef, ObjectIdentifier};
use der::{Decode, Reader, SliceReader, Tag, Tagged};
use policy::dn;
use x509_cert::ext::Extensions;
use x509_cert::ext::pkix::crl::IssuingDistributionPoint;
use x509_cert::ext::pkix::name::{DistributionPointName, GeneralName};
use x509_cert::time::Time;

use crate::algorithm::Algorithm;

/// Longest list that is read, octets. With 40 octets an entry it names 200,000 certificates.
pub(crate) const MAX_CRL: usize = 8 << 20;

/// Keys that are remembered to have signed it, or not.
const MAX_KEYS: usize = 8;

const REASON: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.21");
const CERTIFICATE_ISSUER: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.29");
const DISTRIBUTION_POINT: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.28");
const DELTA: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.27");

/// A list.
pub(crate) struct Crl {
    der: Vec<u8>,
    tbs: Range<usize>,
    pub(crate) algorithm: Option<Algorithm>,
    pub(crate) signature: Vec<u8>,
    /// Who issued it, in canonical form.
    pub(crate) issuer: Vec<u8>,
    pub(crate) this_update: SystemTime,
    pub(crate) next_update: Option<SystemTime>,
    /// About end entities or CAs only.
    pub(crate) scope: Scope,
    /// The distribution points it is one of; empty: it is the whole list of its issuer.
    pub(crate) points: Vec<String>,
    /// By serial number.
    entries: Vec<Entry>,
    /// Keys its signature was tried with.
    tried: Mutex<Vec<(Vec<u8>, bool)>>,
}

/// Which certificates a list is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    All,
    EndEntities,
    Authorities,
}

/// Where the serial number of a revoked certificate lies, as DER; its date follows.
#[derive(Clone, Copy)]
struct Entry {
    at: u32,
    len: u8,
    reason: u8,
}

/// That a certificate was revoked, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Revoked {
    pub(crate) since: Option<SystemTime>,
    pub(crate) reason: u8,
}

impl Crl {
    /// Takes a list apart. Takes a while with a long one, so never on a thread that others wait for.
    ///
    /// # Errors
    /// What is wrong with it, or not supported, in words.
    pub(crate) fn parse(der: Vec<u8>) -> Result<Crl, String> {
        if der.len() > MAX_CRL {
            return Err(format!("a CRL of more than {MAX_CRL} octets"));
        }
        let head = head(&der).map_err(|_| "not a CRL".to_owned())?;
        let mut crl = Crl {
            tbs: head.tbs,
            algorithm: Algorithm::from_der(&head.algorithm),
            signature: head.signature,
            issuer: dn::canonical(&head.issuer),
            this_update: head.this_update,
            next_update: head.next_update,
            scope: Scope::All,
            points: Vec::new(),
            entries: Vec::new(),
            tried: Mutex::default(),
            der: Vec::new(),
        };
        if let Some(extensions) = &head.extensions {
            crl.take_extensions(extensions)?;
        }
        if let Some(list) = head.revoked {
            crl.entries = entries(&der, list)?;
        }
        crl.entries.sort_unstable_by(|a, b| serial(&der, *a).cmp(serial(&der, *b)));
        crl.der = der;
        Ok(crl)
    }

    /// What the issuer signed.
    pub(crate) fn tbs(&self) -> &[u8] {
        self.der.get(self.tbs.clone()).unwrap_or_default()
    }

    /// All of it.
    pub(crate) fn der(&self) -> &[u8] {
        &self.der
    }

    /// Whether a certificate of this serial number (DER, with tag and length) is on the list.
    pub(crate) fn find(&self, wanted: &[u8]) -> Option<Revoked> {
        let place = self.entries.binary_search_by(|entry| serial(&self.der, *entry).cmp(wanted)).ok()?;
        let entry = self.entries.get(place)?;
        let after = self.der.get(entry.at as usize + usize::from(entry.len)..)?;
        let date = SliceReader::new(after).ok().and_then(|mut reader| reader.decode::<Time>().ok());
        Some(Revoked { since: date.map(|date| date.to_system_time()), reason: entry.reason })
    }

    /// Whether this key signed it, if that was tried.
    pub(crate) fn verified_by(&self, spki: &[u8]) -> Option<bool> {
        let tried = self.tried.lock().unwrap_or_else(PoisonError::into_inner);
        tried.iter().find(|(key, _)| key == spki).map(|(_, good)| *good)
    }

    /// Notes whether this key signed it.
    pub(crate) fn note(&self, spki: &[u8], good: bool) {
        let mut tried = self.tried.lock().unwrap_or_else(PoisonError::into_inner);
        // A CA has few keys; and what is forgotten is tried again.
        if tried.len() >= MAX_KEYS {
            tried.remove(0);
        }
        tried.push((spki.to_vec(), good));
    }

    /// Certificates on the list.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    fn take_extensions(&mut self, der: &[u8]) -> Result<(), String> {
        let extensions =
            Extensions::from_der(der).map_err(|_| "a CRL with extensions that do not parse".to_owned())?;
        for extension in extensions {
            let value = extension.extn_value.as_bytes();
            match extension.extn_id {
                DELTA => return Err("a delta CRL, which is not supported; name the complete one".into()),
                DISTRIBUTION_POINT => {
                    let point = IssuingDistributionPoint::from_der(value)
                        .map_err(|_| "a CRL with a distribution point that does not parse".to_owned())?;
                    self.take_point(point)?;
                }
                other if extension.critical => {
                    return Err(format!("a CRL with the unknown critical extension {other}"));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn take_point(&mut self, point: IssuingDistributionPoint) -> Result<(), String> {
        if point.indirect_crl {
            return Err("an indirect CRL, which is not supported".into());
        }
        if point.only_some_reasons.is_some() || point.only_contains_attribute_certs {
            return Err(
                "a CRL for some reasons or for attribute certificates only, which is not supported".into()
            );
        }
        self.scope = match (point.only_contains_user_certs, point.only_contains_ca_certs) {
            (false, false) => Scope::All,
            (true, false) => Scope::EndEntities,
            (false, true) => Scope::Authorities,
            (true, true) => return Err("a CRL for end entities only and for CAs only".into()),
        };
        match point.distribution_point {
            None => {}
            Some(DistributionPointName::FullName(names)) => {
                let urls = names.into_iter().filter_map(|name| match name {
                    GeneralName::UniformResourceIdentifier(url) => Some(url.to_string()),
                    _ => None,
                });
                self.points = urls.take(64).collect();
                if self.points.is_empty() {
                    return Err("a CRL of a distribution point without a URL".into());
                }
            }
            Some(DistributionPointName::NameRelativeToCRLIssuer(_)) => {
                return Err("a CRL of a distribution point without a URL".into());
            }
        }
        Ok(())
    }
}

/// Why certificates are revoked (RFC 5280 section 5.3.1).
pub(crate) fn reason_text(reason: u8) -> &'static str {
    match reason {
        1 => "key compromise",
        2 => "CA compromise",
        3 => "affiliation changed",
        4 => "superseded",
        5 => "cessation of operation",
        6 => "on hold",
        8 => "removed from CRL",
        9 => "privilege withdrawn",
        10 => "AA compromise",
        _ => "no reason given",
    }
}

fn serial(der: &[u8], entry: Entry) -> &[u8] {
    let at = entry.at as usize;
    der.get(at..at + usize::from(entry.len)).unwrap_or_default()
}

struct Head {
    tbs: Range<usize>,
    algorithm: Vec<u8>,
    signature: Vec<u8>,
    issuer: Vec<u8>,
    this_update: SystemTime,
    next_update: Option<SystemTime>,
    /// The content of the list of revoked certificates.
    revoked: Option<Range<usize>>,
    extensions: Option<Vec<u8>>,
}

/// Where the next TLV begins and its content, and both end.
fn next<'a>(
    reader: &mut SliceReader<'a>,
    base: usize,
) -> Result<(Range<usize>, Range<usize>, AnyRef<'a>), der::Error> {
    let start = base + usize::try_from(reader.position())?;
    let any: AnyRef<'a> = reader.decode()?;
    let end = base + usize::try_from(reader.position())?;
    Ok((start..end, end - any.value().len()..end, any))
}

fn head(der: &[u8]) -> Result<Head, der::Error> {
    let mut outer = SliceReader::new(der)?;
    let (_, inside, list) = next(&mut outer, 0)?;
    list.tag().assert_eq(Tag::Sequence)?;
    outer.finish()?;
    let mut reader = SliceReader::new(list.value())?;
    let (tbs, tbs_inside, body) = next(&mut reader, inside.start)?;
    body.tag().assert_eq(Tag::Sequence)?;
    let algorithm = reader.tlv_bytes()?.to_vec();
    let signature: BitStringRef<'_> = reader.decode()?;
    reader.finish()?;
    let broken = || der::Error::from(der::ErrorKind::Failed);
    let signature = signature.as_bytes().ok_or_else(broken)?.to_vec();

    let mut reader = SliceReader::new(body.value())?;
    if Tag::peek(&reader)? == Tag::Integer {
        // RFC 5280 section 5.1.2.1: version 2, written as 1.
        let version: u8 = reader.decode()?;
        if version != 1 {
            return Err(broken());
        }
    }
    // The signed algorithm has to be the one outside.
    if reader.tlv_bytes()? != algorithm {
        return Err(broken());
    }
    let issuer = reader.tlv_bytes()?.to_vec();
    let this_update = reader.decode::<Time>()?.to_system_time();
    let (mut next_update, mut revoked, mut extensions) = (None, None, None);
    let is_time = |tag: Tag| matches!(tag, Tag::UtcTime | Tag::GeneralizedTime);
    if !reader.is_finished() && is_time(Tag::peek(&reader)?) {
        next_update = Some(reader.decode::<Time>()?.to_system_time());
    }
    if !reader.is_finished() && Tag::peek(&reader)? == Tag::Sequence {
        revoked = Some(next(&mut reader, tbs_inside.start)?.1);
    }
    if !reader.is_finished() {
        let (_, _, field) = next(&mut reader, tbs_inside.start)?;
        field.tag().assert_eq(Tag::ContextSpecific { constructed: true, number: der::TagNumber(0) })?;
        extensions = Some(field.value().to_vec());
    }
    reader.finish()?;
    Ok(Head { tbs, algorithm, signature, issuer, this_update, next_update, revoked, extensions })
}

fn entries(der: &[u8], list: Range<usize>) -> Result<Vec<Entry>, String> {
    let broken = |_: der::Error| "a CRL with an entry that does not parse".to_owned();
    let content = der.get(list.clone()).unwrap_or_default();
    let mut reader = SliceReader::new(content).map_err(broken)?;
    let mut entries = Vec::new();
    while !reader.is_finished() {
        let (_, inside, entry) = next(&mut reader, list.start).map_err(broken)?;
        let mut fields = SliceReader::new(entry.value()).map_err(broken)?;
        let (number, _, any) = next(&mut fields, inside.start).map_err(broken)?;
        any.tag().assert_eq(Tag::Integer).map_err(broken)?;
        fields.decode::<Time>().map_err(broken)?;
        let mut reason = 0;
        if !fields.is_finished() {
            reason = entry_reason(fields.tlv_bytes().map_err(broken)?)?;
        }
        fields.finish().map_err(broken)?;
        let long = |_| "a CRL with a serial number of impossible length".to_owned();
        let at = u32::try_from(number.start).map_err(long)?;
        let len = u8::try_from(number.len()).map_err(long)?;
        entries.push(Entry { at, len, reason });
    }
    entries.shrink_to_fit();
    Ok(entries)
}

fn entry_reason(der: &[u8]) -> Result<u8, String> {
    let extensions = Extensions::from_der(der)
        .map_err(|_| "a CRL with an entry whose extensions do not parse".to_owned())?;
    let mut reason = 0;
    for extension in extensions {
        match extension.extn_id {
            REASON => match extension.extn_value.as_bytes() {
                // ENUMERATED of one octet.
                [0x0a, 1, code] => reason = *code,
                _ => return Err("a CRL with a reason that makes no sense".into()),
            },
            CERTIFICATE_ISSUER => return Err("an indirect CRL, which is not supported".into()),
            other if extension.critical => {
                return Err(format!("a CRL with an entry with the unknown critical extension {other}"));
            }
            _ => {}
        }
    }
    Ok(reason)
}
