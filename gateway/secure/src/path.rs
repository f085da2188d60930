//! Paths from a peer's certificate to a CA of the realm (RFC 5280 section 6.1), all but the signatures.
//!
//! 1. Names are chained, issuer to subject, through what the peer sent, until an anchor of the realm.
//! 2. Every certificate on the path is looked at by itself ([`crate::usage`]).
//! 3. Candidates that pass are handed to whoever verifies the signatures, best first.
//!
//! A peer chooses what it sends, so everything is bounded: certificates, path length, candidates and steps.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::SystemTime;

use policy::dn;
use spi::cert::{CertError, Usages};

use crate::cert::Cert;
use crate::known::Window;
use crate::usage;

/// Certificates of a peer that are looked at.
pub(crate) const MAX_CERTS: usize = 16;
/// Octets of all of them.
pub(crate) const MAX_CERT_OCTETS: usize = 128 * 1024;
/// Certificates on one path, end entity and anchor included.
pub(crate) const MAX_PATH: usize = 8;
/// Paths that are verified before giving up.
const MAX_CANDIDATES: usize = 8;
/// Steps of the search.
const MAX_STEPS: usize = 256;

/// One signature to verify: a certificate and the one whose key it should verify with.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub(crate) cert: Arc<Cert>,
    pub(crate) issuer: Arc<Cert>,
}

/// A path whose signatures are still to be verified: first the anchor's, last the end entity's.
#[derive(Clone, Debug)]
pub(crate) struct Candidate {
    pub(crate) links: VecDeque<Link>,
    /// DER of what is on it, the end entity first.
    pub(crate) path: Arc<[Vec<u8>]>,
    /// When all of it is valid.
    pub(crate) window: Window,
}

/// The paths from the first certificate of `chain` to one of `anchors`, the likeliest first, never empty.
pub(crate) fn candidates(
    chain: &[Arc<Cert>],
    anchors: &[Arc<Cert>],
    at: SystemTime,
    min_rsa_bits: usize,
    usages: Usages,
) -> Result<Vec<Candidate>, CertError> {
    let Some(end) = chain.first() else { return Err(CertError::Malformed("no certificate".into())) };
    usage::check_any(end, at, min_rsa_bits)?;
    usage::check_end_entity(end, usages)?;
    let mut search = Search { chain, anchors, at, min_rsa_bits, found: Vec::new(), steps: 0, why: None };
    search.extend(&mut vec![end]);
    if search.found.is_empty() {
        return Err(search.why.unwrap_or_else(|| CertError::Untrusted(missing(end, chain))));
    }
    Ok(search.found)
}

/// Where the way up ends, for the operator: at a CA that is not the realm's, or at one that the peer should have sent.
fn missing(end: &Arc<Cert>, chain: &[Arc<Cert>]) -> String {
    let mut last = end;
    for _ in 0..MAX_PATH {
        let above = issuers(chain, last, &dn::canonical(&last.issuer));
        if let Some(next) = above.into_iter().find(|cert| cert.der != last.der) {
            last = next;
            continue;
        }
        let issuer = dn::to_text(&last.issuer);
        if last.is_self_issued() {
            let who = end.subject_text();
            return format!("the certificate of {who} comes from {issuer}, which is not a CA of the realm");
        }
        let who = last.subject_text();
        let by = format!("the certificate of {who} was issued by {issuer}, which is not a CA of the realm");
        return format!("{by}, and whose own certificate the peer did not send");
    }
    format!("what was sent with the certificate of {} leads to none of the realm's CAs", end.subject_text())
}

struct Search<'a> {
    chain: &'a [Arc<Cert>],
    anchors: &'a [Arc<Cert>],
    at: SystemTime,
    min_rsa_bits: usize,
    found: Vec<Candidate>,
    steps: usize,
    /// Why the first path that reached an anchor was no good.
    why: Option<CertError>,
}

impl<'a> Search<'a> {
    fn extend(&mut self, path: &mut Vec<&'a Arc<Cert>>) {
        let Some(&last) = path.last() else { return };
        self.steps += 1;
        if self.steps > MAX_STEPS || self.found.len() >= MAX_CANDIDATES || path.len() >= MAX_PATH {
            return;
        }
        let issuer = dn::canonical(&last.issuer);
        for &anchor in &issuers(self.anchors, last, &issuer) {
            // An end entity that is itself in the list of CAs is no CA; if it is to be believed as it is, it is pinned.
            path.push(anchor);
            self.take(path);
            path.pop();
        }
        let rest = self.chain.get(1..).unwrap_or_default();
        for &next in &issuers(rest, last, &issuer) {
            if !path.iter().any(|seen| seen.der == next.der) {
                path.push(next);
                self.extend(path);
                path.pop();
            }
        }
    }

    /// A path that reached an anchor.
    fn take(&mut self, path: &[&'a Arc<Cert>]) {
        if self.found.len() >= MAX_CANDIDATES {
            return;
        }
        match self.check(path) {
            Ok(()) => {
                let links = path.iter().zip(path.iter().skip(1));
                let link = |(cert, issuer): (&&Arc<Cert>, &&Arc<Cert>)| Link {
                    cert: Arc::clone(cert),
                    issuer: Arc::clone(issuer),
                };
                // From the anchor down: whoever made the lower certificates up is found out first.
                let links = links.map(link).rev().collect();
                let from = path.iter().map(|cert| cert.not_before).max();
                let until = path.iter().map(|cert| cert.not_after).min();
                if let (Some(from), Some(until)) = (from, until) {
                    let path = path.iter().map(|cert| cert.der.clone()).collect();
                    self.found.push(Candidate { links, path, window: Window { from, until } });
                }
            }
            Err(e) => {
                self.why.get_or_insert(e);
            }
        }
    }

    fn check(&self, path: &[&Arc<Cert>]) -> Result<(), CertError> {
        let mut below = 0;
        for cert in path.iter().skip(1) {
            usage::check_any(cert, self.at, self.min_rsa_bits)?;
            usage::check_authority(cert, below)?;
            if !cert.is_self_issued() {
                below += 1;
            }
        }
        // RFC 5280 section 6.1.4: constraints hold for everything below, self-issued CAs left out.
        for (depth, by) in path.iter().enumerate() {
            let Some(constraints) = &by.constraints else { continue };
            for (i, cert) in path.iter().take(depth).enumerate() {
                if i == 0 || !cert.is_self_issued() {
                    constraints.check(cert, by)?;
                }
            }
        }
        Ok(())
    }
}

/// Certificates whose subject is `issuer`, those whose key identifier fits first: a CA that renewed its key has two
/// of one name.
fn issuers<'a>(list: &'a [Arc<Cert>], of: &Cert, issuer: &[u8]) -> Vec<&'a Arc<Cert>> {
    let mut named: Vec<&Arc<Cert>> = list.iter().filter(|c| c.canonical_subject() == issuer).collect();
    named.sort_by_key(|c| match (&of.authority_key_id, &c.key_id) {
        (Some(wanted), Some(have)) if wanted == have => 0,
        (Some(_), Some(_)) => 2,
        _ => 1,
    });
    named
}
