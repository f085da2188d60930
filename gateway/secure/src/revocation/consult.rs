//! What one source says of one certificate.

use std::sync::Arc;
use std::time::SystemTime;

use der::asn1::ObjectIdentifier;
use spi::{CryptoOp, Hash, SignScheme, Token};

use super::{Check, Checks, Issued, Key, MAX_AGE, SKEW, Said, Source, Waits};
use crate::algorithm::Algorithm;
use crate::cert::Cert;
use crate::crl::{Crl, Revoked, Scope, reason_text};
use crate::fetch::{Reach, What};
use crate::key;
use crate::ocsp::{self, Answer, NONCE, Status};
use crate::usage::{self, date};

/// Lets a certificate sign OCSP answers for its CA (RFC 6960 section 4.2.2.2).
const OCSP_SIGNING: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.9");

/// An OCSP answer on its way to being believed.
pub(super) struct Evidence {
    answer: Answer,
    octets: Arc<[u8]>,
    /// Who signed it, if that is neither the CA nor named by the operator: the CA's signature on its certificate comes first.
    delegate: Option<Cert>,
}

impl Checks {
    pub(super) fn consult(&mut self, token: Token, check: &Check, issued: &Issued, source: Source) -> Said {
        let at = check.question.at;
        match source {
            Source::Known => match self.responses.status(issued, at) {
                Some(Status::Good) => Said::Good,
                Some(Status::Revoked { since, reason }) => revoked(issued, Some(since), reason),
                Some(Status::Unknown) | None => Said::Silence,
            },
            Source::Stapled(octets) => {
                match Answer::parse(&octets, &issued.cert, &issued.issuer, &*self.short) {
                    Ok(_) => self.weigh_answer(token, check, issued, &octets.into(), None),
                    // A peer sends answers about all of its certificates; this one may be about another.
                    Err(why) => Said::Nothing(format!("the peer sent {why}")),
                }
            }
            Source::List(crl) => self.weigh_list(token, check, issued, &crl),
            Source::Responder(url, reach) => self.ask(token, check, issued, url, reach),
            Source::ListAt(url, reach) => {
                if let Some(crl) = self.crls.fresh(&url, at) {
                    return self.weigh_list(token, check, issued, &crl);
                }
                if let Some(why) = self.failed_lately(&url) {
                    return match self.crls.any(&url) {
                        Some(old) => self.weigh_list(token, check, issued, &old),
                        None => Said::Nothing(why),
                    };
                }
                let what = What::Crl { url: url.clone(), fresh: self.crls.has(&url) };
                self.fetch(Key::Crl(url), what, reach, check.deadline, Vec::new(), token);
                Said::Wait(Waits::Fetch)
            }
        }
    }

    /// What an answer of before says of a certificate, if that is that it was revoked.
    pub(crate) fn revoked(&self, issued: &Issued, at: SystemTime) -> Option<String> {
        match self.responses.status(issued, at)? {
            Status::Revoked { since, reason } => Some(revoked_text(issued, Some(since), reason)),
            Status::Good | Status::Unknown => None,
        }
    }

    fn ask(&mut self, token: Token, check: &Check, issued: &Issued, url: String, reach: Reach) -> Said {
        if let Some(why) = self.failed_lately(&url) {
            return Said::Nothing(why);
        }
        let mut nonce = vec![0; NONCE];
        self.short.random(&mut nonce);
        let question = match ocsp::question(&issued.cert, &issued.issuer, &nonce, &*self.short) {
            Ok(question) => question,
            Err(why) => return Said::Nothing(why),
        };
        let key = Key::Ocsp(url.clone(), issued.issuer.spki.clone(), issued.cert.serial.clone());
        self.fetch(key, What::Ocsp { url, question }, reach, check.deadline, nonce, token);
        Said::Wait(Waits::Fetch)
    }

    /// What a list says, if it is about this certificate; its signature first, unless that was verified before.
    pub(super) fn weigh_list(
        &mut self,
        token: Token,
        check: &Check,
        issued: &Issued,
        crl: &Arc<Crl>,
    ) -> Said {
        let Issued { cert, issuer } = issued;
        if crl.issuer != issuer.canonical_subject() {
            return Said::Nothing("a CRL of another CA".into());
        }
        match (crl.scope, cert.ca) {
            (Scope::EndEntities, true) => return Said::Nothing("a CRL about end entities only".into()),
            (Scope::Authorities, false) => return Said::Nothing("a CRL about CAs only".into()),
            _ => {}
        }
        if !crl.points.is_empty() && !crl.points.iter().any(|point| cert.crl_urls.contains(point)) {
            return Said::Nothing("a CRL of another distribution point".into());
        }
        if issuer.key_usage.is_some_and(|usage| !usage.signs_crls) {
            return Said::Nothing("a CRL of a CA whose key usage has no cRLSign".into());
        }
        match crl.verified_by(&issuer.spki) {
            Some(true) => judge_list(crl, issued, check.question.at),
            Some(false) => Said::Nothing("a CRL whose signature is wrong".into()),
            None => {
                let octets = crl.tbs().to_vec();
                let op = operation(
                    crl.algorithm,
                    &issuer.spki,
                    octets,
                    crl.signature.clone(),
                    check.question.policy.min_rsa_bits,
                );
                self.verify(token, op, "a CRL", Waits::ListSignature(Arc::clone(crl)))
            }
        }
    }

    /// Whether the current issuer signed a list.
    pub(super) fn list_signed(&mut self, check: &Check, crl: &Arc<Crl>, good: Result<bool, String>) -> Said {
        let Some(issued) = &check.current else { return Said::Nothing("nothing was asked".into()) };
        match good {
            Ok(good) => {
                crl.note(&issued.issuer.spki, good);
                match good {
                    true => judge_list(crl, issued, check.question.at),
                    false => Said::Nothing("a CRL whose signature is wrong".into()),
                }
            }
            Err(why) => Said::Nothing(format!("a CRL whose signature could not be verified: {why}")),
        }
    }

    /// What an OCSP answer says; signatures first. `nonce` is what was sent to whom it came from.
    pub(super) fn weigh_answer(
        &mut self,
        token: Token,
        check: &Check,
        issued: &Issued,
        octets: &Arc<[u8]>,
        nonce: Option<&[u8]>,
    ) -> Said {
        let Issued { cert, issuer } = issued;
        let mut answer = match Answer::parse(octets, cert, issuer, &*self.short) {
            Ok(answer) => answer,
            Err(why) => return Said::Nothing(why),
        };
        // RFC 6960 section 4.4.1: many responders leave the nonce out, since they sign beforehand; a wrong one is an old answer.
        if let (Some(sent), Some(got)) = (nonce, &answer.nonce)
            && sent != got.as_slice()
        {
            return Said::Nothing("an OCSP response to another question".into());
        }
        let octets = Arc::clone(octets);
        let bits = check.question.policy.min_rsa_bits;
        let short = Arc::clone(&self.short);
        if answer.is_by(issuer, &*short) {
            return self.verify_answer(
                token,
                Evidence { answer, octets, delegate: None },
                &issuer.spki,
                bits,
            );
        }
        if let Some(signer) =
            check.question.policy.signers.iter().find(|signer| answer.is_by(signer, &*short))
        {
            return self.verify_answer(
                token,
                Evidence { answer, octets, delegate: None },
                &signer.spki,
                bits,
            );
        }
        let certs = std::mem::take(&mut answer.certs);
        let Some(delegate) = certs.into_iter().find(|cert| answer.is_by(cert, &*short)) else {
            return Said::Nothing("an OCSP response by somebody unknown".into());
        };
        if let Err(why) = may_answer(&delegate, issuer, check.question.at, bits) {
            return Said::Nothing(format!("an OCSP response by {}, {why}", delegate.subject_text()));
        }
        let op = operation(
            delegate.algorithm,
            &issuer.spki,
            delegate.tbs.clone(),
            delegate.signature.clone(),
            bits,
        );
        let evidence = Evidence { answer, octets, delegate: Some(delegate) };
        self.verify(token, op, "the certificate of an OCSP responder", Waits::Signature(Box::new(evidence)))
    }

    /// Whether the signature was good that was verified last for an answer.
    pub(super) fn answer_signed(
        &mut self,
        token: Token,
        check: &Check,
        evidence: Evidence,
        good: Result<bool, String>,
    ) -> Said {
        let Some(issued) = &check.current else { return Said::Nothing("nothing was asked".into()) };
        match good {
            Ok(true) => {}
            Ok(false) => return Said::Nothing("an OCSP response whose signature is wrong".into()),
            Err(why) => {
                return Said::Nothing(format!(
                    "an OCSP response whose signature could not be verified: {why}"
                ));
            }
        }
        let Evidence { answer, octets, delegate } = evidence;
        if let Some(delegate) = delegate {
            let evidence = Evidence { answer, octets, delegate: None };
            return self.verify_answer(token, evidence, &delegate.spki, check.question.policy.min_rsa_bits);
        }
        let at = check.question.at;
        let said = judge_answer(&answer, issued, at);
        if matches!(said, Said::Good | Said::Revoked(_)) {
            self.responses.keep(issued, answer.status, octets, answer.next_update, at);
        }
        said
    }

    fn verify_answer(&mut self, token: Token, evidence: Evidence, spki: &[u8], min_rsa_bits: usize) -> Said {
        let Answer { algorithm, tbs, signature, .. } = &evidence.answer;
        let op = operation(*algorithm, spki, tbs.clone(), signature.clone(), min_rsa_bits);
        self.verify(token, op, "an OCSP response", Waits::Signature(Box::new(evidence)))
    }

    fn verify(
        &mut self,
        token: Token,
        op: Result<(SignScheme, CryptoOp), &str>,
        what: &str,
        then: Waits,
    ) -> Said {
        match op {
            Ok((scheme, op)) => {
                self.operations.push((token, scheme, op));
                Said::Wait(then)
            }
            Err(why) => Said::Nothing(format!("{what} that {why}")),
        }
    }
}

fn judge_list(crl: &Crl, issued: &Issued, at: SystemTime) -> Said {
    if crl.this_update > at + SKEW {
        return Said::Nothing(format!("a CRL of the future ({})", date(crl.this_update)));
    }
    if let Some(Revoked { since, reason }) = crl.find(&issued.cert.serial) {
        return revoked(issued, since, reason);
    }
    match crl.next_update {
        Some(until) if at <= until => Said::Good,
        Some(until) => Said::Nothing(format!("a CRL that was good until {}", date(until))),
        // RFC 5280 section 5.1.2.5: it has to be there.
        None => Said::Nothing("a CRL that does not say until when it is good".into()),
    }
}

fn judge_answer(answer: &Answer, issued: &Issued, at: SystemTime) -> Said {
    if answer.this_update > at + SKEW {
        return Said::Nothing(format!("an OCSP response of the future ({})", date(answer.this_update)));
    }
    match answer.status {
        Status::Revoked { since, reason } => return revoked(issued, Some(since), reason),
        Status::Unknown => {
            return Said::Nothing("an OCSP responder that does not know the certificate".into());
        }
        Status::Good => {}
    }
    match answer.next_update {
        Some(until) if at <= until + SKEW => Said::Good,
        None if at <= answer.this_update + MAX_AGE => Said::Good,
        Some(until) => Said::Nothing(format!("an OCSP response that was good until {}", date(until))),
        None => Said::Nothing(format!("an old OCSP response ({})", date(answer.this_update))),
    }
}

/// Whether somebody may answer for a CA that the CA did not say so of to us, but in a certificate. It is not asked in turn whether that
/// was revoked: such certificates are short-lived, or say that nobody is to ask (RFC 6960 section 4.2.2.2.1).
fn may_answer(delegate: &Cert, issuer: &Cert, at: SystemTime, min_rsa_bits: usize) -> Result<(), String> {
    if policy::dn::canonical(&delegate.issuer) != issuer.canonical_subject() {
        return Err("who has no certificate of the CA".into());
    }
    if !delegate.ext_key_usage.as_ref().is_some_and(|list| list.contains(&OCSP_SIGNING)) {
        return Err("whose certificate has no OCSPSigning".into());
    }
    if delegate.key_usage.is_some_and(|usage| !usage.signs) {
        return Err("whose certificate has a key usage without digitalSignature".into());
    }
    usage::check_any(delegate, at, min_rsa_bits).map_err(|error| error.to_string())
}

fn revoked(issued: &Issued, since: Option<SystemTime>, reason: u8) -> Said {
    Said::Revoked(revoked_text(issued, since, reason))
}

fn revoked_text(issued: &Issued, since: Option<SystemTime>, reason: u8) -> String {
    let since = since.map(|since| format!(" on {}", date(since))).unwrap_or_default();
    format!(
        "the certificate of {} was revoked{since} by {} ({})",
        issued.cert.subject_text(),
        issued.issuer.subject_text(),
        reason_text(reason)
    )
}

fn operation(
    algorithm: Option<Algorithm>,
    spki: &[u8],
    octets: Vec<u8>,
    signature: Vec<u8>,
    min_rsa_bits: usize,
) -> Result<(SignScheme, CryptoOp), &'static str> {
    let algorithm = algorithm.ok_or("is signed by an unknown algorithm")?;
    if algorithm.hash() == Hash::Sha1 {
        return Err("is signed with SHA-1, which can be forged");
    }
    let kind = key::inspect(spki, min_rsa_bits).map_err(|_| "is signed by a key that is not believed")?;
    let scheme = algorithm.scheme(kind).ok_or("is signed by another kind of key")?;
    Ok((scheme, CryptoOp::Verify { spki: spki.to_vec(), scheme, octets, signature }))
}
