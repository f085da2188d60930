//! What comes with a peer's certificates and what they need besides a path: certificates that are fetched for it (RFC 7296 section
//! 3.6), and whether they were revoked. And the OCSP answer about our own that goes along (RFC 4806).
//!
//! Revocation is looked at last, when the peer has proved that it has the key: a stranger with somebody's certificate has nothing
//! fetched from servers of the CA.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::SystemTime;

use ipc::CertData;
use spi::{CryptoJob, Hash, Outcome, Token};
use wire::numbers::CertEncoding;

use super::check::{Peer, Proof};
use super::{Authority, Signing, Stage};
use crate::cert::Cert;
use crate::config::{Lookups, RevocationMode};
use crate::crl::Crl;
use crate::eap_judge::Asked;
use crate::fetch::Reach;
use crate::path::{MAX_CERT_OCTETS, MAX_CERTS};
use crate::revocation::{Issued, Other, Policy, Question, Verdict, links};

/// Certificates fetched for one peer.
const MAX_URLS: usize = 4;
/// Peers at once for whom certificates are fetched: they are strangers still.
const MAX_WAITING: usize = 64;
/// OCSP answers and lists of one peer that are looked at.
const MAX_STAPLED: usize = 8;

/// A peer and its proof.
type Claim = (Peer, Proof);

/// What the status of a chain is to be found out from.
pub(super) struct Unchecked {
    pub(super) path: Arc<[Vec<u8>]>,
    pub(super) policy: Arc<Policy>,
    pub(super) responses: Vec<Vec<u8>>,
    pub(super) lists: Vec<Vec<u8>>,
    pub(super) at: SystemTime,
}

/// What goes on when a check has ended.
pub(super) enum Parked {
    /// The peer is who it claims to be, unless its certificate was revoked.
    Peer(Peer, Arc<str>),
    /// Our own proof, with what is known of our certificate by then.
    Own(Box<Signing>, Issued, SystemTime),
    /// Somebody in EAP.
    InTls(Asked),
}

/// A peer whose certificates are being fetched.
pub(super) struct Fetching {
    peer: Peer,
    proof: Proof,
    missing: usize,
}

/// Peers whose certificates are being fetched, and what is fetched for whom.
#[derive(Default)]
pub(super) struct Waiting {
    peers: HashMap<u64, Fetching>,
    wanted: HashMap<Token, (u64, usize)>,
    next: u64,
}

/// Sorts CERT payloads. Encodings are looked at before anything is parsed: nothing but these has any business here, and every other
/// parser would be one more to attack.
fn sort(proof: &mut Proof) -> Result<(), String> {
    bounded(&proof.certs)?;
    for cert in std::mem::take(&mut proof.certs) {
        match CertEncoding(cert.encoding) {
            CertEncoding::X509_SIGNATURE => proof.certs.push(cert),
            CertEncoding::RAW_PUBLIC_KEY if proof.certs.is_empty() => proof.certs.push(cert),
            CertEncoding::OCSP_CONTENT => proof.responses.push(cert.data),
            CertEncoding::CRL => proof.lists.push(cert.data),
            other => return Err(format!("a CERT payload of encoding {other}, which is not supported")),
        }
    }
    if proof.responses.len() + proof.lists.len() > MAX_STAPLED {
        return Err(format!("more than {MAX_STAPLED} OCSP responses and CRLs"));
    }
    Ok(())
}

fn bounded(certs: &[CertData]) -> Result<(), String> {
    if certs.len() > MAX_CERTS {
        return Err(format!("{} certificates, at most {MAX_CERTS} are looked at", certs.len()));
    }
    if certs.iter().map(|c| c.data.len()).sum::<usize>() > MAX_CERT_OCTETS {
        return Err(format!("more than {MAX_CERT_OCTETS} octets of certificates"));
    }
    Ok(())
}

fn is_elsewhere(cert: &CertData) -> bool {
    matches!(CertEncoding(cert.encoding), CertEncoding::HASH_AND_URL_X509 | CertEncoding::HASH_AND_URL_BUNDLE)
}

impl Authority {
    /// Has what a peer sent as hash and URL fetched; gives everything back when there is nothing of that kind.
    pub(super) fn fetch_for(&mut self, peer: Peer, proof: Proof) -> Result<Option<Claim>, (Peer, String)> {
        let elsewhere = proof.certs.iter().filter(|cert| is_elsewhere(cert)).count();
        if elsewhere == 0 {
            return Ok(Some((peer, proof)));
        }
        let lookups =
            self.vault.believes(&peer.realm().name).map_or(Lookups::No, |believes| believes.lookups);
        let reach = match lookups {
            Lookups::No => {
                let what = "the peer sent a URL in place of its certificate, and `lookup` does not allow the realm to fetch it";
                return Err((peer, what.into()));
            }
            Lookups::Public => Reach::Public,
            Lookups::Anywhere => Reach::Anywhere,
        };
        if elsewhere > MAX_URLS {
            return Err((peer, format!("{elsewhere} URLs of certificates, at most {MAX_URLS} are fetched")));
        }
        if self.waiting.peers.len() >= MAX_WAITING {
            return Err((peer, "certificates are being fetched for too many peers".into()));
        }
        if let Err(what) = bounded(&proof.certs) {
            return Err((peer, what));
        }
        let mut urls = Vec::new();
        for (i, cert) in proof.certs.iter().enumerate().filter(|(_, cert)| is_elsewhere(cert)) {
            let url = cert
                .data
                .get(20..)
                .and_then(|url| std::str::from_utf8(url).ok())
                .filter(|url| !url.is_empty());
            match url {
                Some(url) => urls.push((i, url.to_owned())),
                None => return Err((peer, "a hash without a URL in place of a certificate".into())),
            }
        }
        self.waiting.next += 1;
        let id = self.waiting.next;
        self.waiting.peers.insert(id, Fetching { peer, proof, missing: urls.len() });
        for (place, url) in urls {
            // Names of lookups are their own: the key they are waited for by.
            let token = Token(id << 8 | place as u64);
            self.waiting.wanted.insert(token, (id, place));
            self.checks.fetch_certificate(token, url, reach);
        }
        Ok(None)
    }

    /// Everything that the peer sent is here: sorts it, and has the realm looked for once more that would have to believe it.
    pub(super) fn check_papers(&mut self, mut peer: Peer, mut proof: Proof) -> Result<(), (Peer, String)> {
        if let Err(what) = sort(&mut proof) {
            return Err((peer, what));
        }
        let said = match proof.certs.first() {
            Some(cert) if cert.encoding == CertEncoding::X509_SIGNATURE.0 => {
                Cert::parse(&cert.data).ok().map(|cert| cert.info())
            }
            _ => None,
        };
        match peer.realms.sort(&peer.id, proof.method, said.as_ref()) {
            Ok(()) => self.check_signature(peer, proof),
            Err(what) => Err((peer, what)),
        }
    }

    fn on_certificate(&mut self, other: Other) {
        let Some((id, place)) = self.waiting.wanted.remove(&other.token) else { return };
        // Refused already, for another of its certificates.
        let Some(mut fetching) = self.waiting.peers.remove(&id) else { return };
        let taken = other.result.and_then(|octets| match fetching.proof.certs.get(place) {
            Some(cert) => self.as_promised(cert, &octets),
            None => Err("a certificate that nobody asked for".into()),
        });
        match taken {
            Ok(certs) => {
                let mut certs = certs.into_iter();
                if let (Some(slot), Some(first)) = (fetching.proof.certs.get_mut(place), certs.next()) {
                    *slot = first;
                }
                // What else was in a bundle goes to the end: the places of others stay.
                fetching.proof.certs.extend(certs);
                fetching.missing -= 1;
                if fetching.missing > 0 {
                    self.waiting.peers.insert(id, fetching);
                    return;
                }
                let Fetching { mut peer, proof, .. } = fetching;
                // Now its certificate says which realm it is in.
                let checked = match peer.sort_realms(proof.method, &proof.certs) {
                    Ok(()) => self.check_papers(peer, proof),
                    Err(what) => Err((peer, what)),
                };
                if let Err((peer, what)) = checked {
                    self.refuse(peer, what);
                }
            }
            Err(why) => self.refuse(fetching.peer, format!("the certificate could not be fetched: {why}")),
        }
    }

    /// What was fetched, if it is what the peer promised by its hash.
    fn as_promised(&self, cert: &CertData, octets: &[u8]) -> Result<Vec<CertData>, String> {
        let hash =
            self.devices.short().hash(Hash::Sha1, &[octets]).map_err(|fault| format!("hash: {fault}"))?;
        if cert.data.get(..20) != Some(&hash[..]) {
            return Err("it is not the one whose hash the peer sent".into());
        }
        if CertEncoding(cert.encoding) == CertEncoding::HASH_AND_URL_BUNDLE {
            return bundle(octets);
        }
        Ok(vec![CertData { encoding: CertEncoding::X509_SIGNATURE.0, data: octets.to_vec() }])
    }

    /// The signature is good: now whether the certificates were revoked.
    pub(super) fn check_status(&mut self, peer: Peer, how: Arc<str>, unchecked: Unchecked) {
        let Unchecked { path, policy, responses, lists, at } = unchecked;
        let lists = lists.into_iter().filter_map(|der| Crl::parse(der).ok()).map(Arc::new).collect();
        let question = Question { links: links(&path), policy, stapled: responses, lists, at };
        match self.checks.begin(question) {
            Some(token) => {
                self.parked.insert(token, Parked::Peer(peer, how));
                self.status_operations();
            }
            None => self.refuse(peer, "the status of too many certificates is being found out".into()),
        }
    }

    /// Our proof is to be made with an OCSP answer about our certificate: finds one, or has it fetched. Gives the proof back when
    /// there is nothing to wait for.
    pub(super) fn staple(
        &mut self,
        mut signing: Box<Signing>,
        issued: Issued,
        at: SystemTime,
    ) -> Option<Box<Signing>> {
        if let Some(octets) = self.checks.response(&issued, at) {
            if let Some(what) = self.checks.revoked(&issued, at) {
                tracing::warn!(realm = %signing.realm, %what, "our own certificate will be refused");
            }
            signing.certs.push(CertData { encoding: CertEncoding::OCSP_CONTENT.0, data: octets.to_vec() });
            return Some(signing);
        }
        // Only what can be sent along is looked for; that there is none is nobody's fault.
        let policy = Policy {
            mode: RevocationMode::Relaxed,
            given: Vec::new(),
            crl_urls: Vec::new(),
            ocsp: signing.responder.clone(),
            signers: Vec::new(),
            min_rsa_bits: self.vault.rules.min_rsa_bits,
        };
        let mut asked = issued.clone();
        let mut bare = (*asked.cert).clone();
        bare.crl_urls.clear();
        asked.cert = Arc::new(bare);
        let question = Question {
            links: VecDeque::from([asked]),
            policy: Arc::new(policy),
            stapled: Vec::new(),
            lists: Vec::new(),
            at,
        };
        match self.checks.begin(question) {
            Some(token) => {
                self.parked.insert(token, Parked::Own(signing, issued, at));
                self.status_operations();
                None
            }
            None => Some(signing),
        }
    }

    /// Takes what came from servers, and ends checks; returns whether anything was done.
    pub(super) fn poll_status(&mut self) -> bool {
        self.checks.poll();
        self.status_operations();
        let mut came = false;
        while let Some(other) = self.checks.poll_other() {
            came = true;
            self.on_certificate(other);
        }
        while let Some((token, verdict)) = self.checks.poll_verdict() {
            came = true;
            match self.parked.remove(&token) {
                Some(Parked::Peer(peer, how)) => self.on_status(peer, how, verdict),
                Some(Parked::Own(signing, issued, at)) => self.on_own_status(signing, &issued, at, verdict),
                Some(Parked::InTls(asked)) => self.on_status_in_tls(asked, verdict),
                None => {}
            }
        }
        came
    }

    /// A signature for a check was verified, or not.
    pub(super) fn on_status_signature(&mut self, token: Token, outcome: Outcome) {
        let good = match outcome {
            Outcome::Done => Ok(true),
            Outcome::Rejected(_) => Ok(false),
            Outcome::Failed(fault) => Err(fault.to_string()),
            Outcome::Pending => Err("a device gave no verdict".into()),
        };
        self.checks.on_signature(token, good);
        self.status_operations();
    }

    fn on_status(&mut self, peer: Peer, how: Arc<str>, verdict: Verdict) {
        match verdict {
            Ok(warnings) => {
                for warning in warnings {
                    tracing::warn!(realm = %peer.realm().name, peer = %peer.id, sa = peer.sa.0, "{warning}; the realm is relaxed, and the peer is let in");
                }
                self.accept(peer, how);
            }
            Err(what) => self.refuse(peer, what),
        }
    }

    fn on_own_status(
        &mut self,
        mut signing: Box<Signing>,
        issued: &Issued,
        at: SystemTime,
        verdict: Verdict,
    ) {
        if let Err(what) = verdict {
            tracing::warn!(realm = %signing.realm, %what, "our own certificate will be refused");
        }
        if let Some(octets) = self.checks.response(issued, at) {
            signing.certs.push(CertData { encoding: CertEncoding::OCSP_CONTENT.0, data: octets.to_vec() });
        }
        self.begin_signing(signing);
    }

    /// Sends signatures off that checks wait for.
    pub(super) fn status_operations(&mut self) {
        loop {
            let operations = self.checks.take_operations();
            if operations.is_empty() {
                return;
            }
            for (check, scheme, op) in operations {
                let Some(place) = self.devices.verifies(scheme) else {
                    self.checks.on_signature(check, Err("no device verifies it".into()));
                    continue;
                };
                match self.open.insert(Stage::Status(check)) {
                    Ok(token) => self.devices.submit(place, CryptoJob { token, op }),
                    Err(_) => self.checks.on_signature(check, Err("too many operations at once".into())),
                }
            }
        }
    }
}

/// The certificates of a bundle (RFC 7296 section 3.6): a sequence of certificates, tagged 0, and lists, tagged 1.
pub(crate) fn bundle(octets: &[u8]) -> Result<Vec<CertData>, String> {
    use der::asn1::AnyRef;
    use der::{Reader, SliceReader, Tag, Tagged};
    let broken = |_: der::Error| "not a bundle of certificates".to_owned();
    let mut reader = SliceReader::new(octets).map_err(broken)?;
    let mut all = Vec::new();
    let read = reader.sequence(|r| {
        while !r.is_finished() && all.len() < MAX_CERTS {
            let field: AnyRef<'_> = r.decode()?;
            let encoding = match field.tag() {
                Tag::ContextSpecific { number: der::TagNumber(0), .. } => CertEncoding::X509_SIGNATURE,
                Tag::ContextSpecific { number: der::TagNumber(1), .. } => CertEncoding::CRL,
                _ => return Err(der::Error::from(der::ErrorKind::Failed)),
            };
            all.push(CertData { encoding: encoding.0, data: field.value().to_vec() });
        }
        Ok::<_, der::Error>(())
    });
    read.map_err(broken)?;
    if all.is_empty() { Err("an empty bundle of certificates".into()) } else { Ok(all) }
}
