//! Whether the certificates on a path were revoked (RFC 5280 section 6.3, RFC 6960). Sans I/O, but for the [`Fetcher`] it owns:
//! checks go in, signatures to verify and verdicts come out, and a check that needs something from a server is parked until it is
//! there or its time is over.
//!
//! For each certificate, from the CA down, what can tell is asked in this order, until something does:
//!
//! 1. what is known of it from an OCSP answer of before,
//! 2. the OCSP answer that the peer sent (RFC 4806), lists that it sent, lists from files,
//! 3. the OCSP responder of the configuration, then those that the certificate names,
//! 4. the lists of the configuration, then those that the certificate names.
//!
//! Nothing counts before its signature is verified. Revoked is revoked, also by a list that is past its time; "good" counts only while
//! it is fresh. Bounded: checks, lists and their octets, answers, URLs, and a time for each check.

mod consult;
mod held;

use std::collections::{HashMap, VecDeque};
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use spi::{CryptoOp, ShortOps, SignScheme, Token};

use crate::cert::Cert;
use crate::config::{Certificate, CrlSource, Revocation, RevocationMode};
use crate::crl::Crl;
use crate::fetch::{Document, Fetched, Fetcher, Job, Reach, What};
use held::{Crls, Responses};

/// Checks at once.
const MAX_CHECKS: usize = 4096;
/// Time for one check, whatever it waits for. A peer sends its message again for longer than that.
const PATIENCE: Duration = Duration::from_secs(20);
/// How old a list or an answer may be before it is fetched anew, though it says that it is valid for longer.
pub(crate) const MAX_AGE: Duration = Duration::from_secs(3600);
/// Time before a server that failed is asked again.
const RETRY: Duration = Duration::from_secs(30);
/// Failures remembered.
const MAX_FAILED: usize = 1024;
/// How far clocks may be apart.
const SKEW: Duration = Duration::from_secs(300);

/// A certificate and the CA that issued it.
#[derive(Clone)]
pub(crate) struct Issued {
    pub(crate) cert: Arc<Cert>,
    pub(crate) issuer: Arc<Cert>,
}

/// What a realm looks at, with its lists read.
pub(crate) struct Policy {
    pub(crate) mode: RevocationMode,
    pub(crate) given: Vec<Arc<Crl>>,
    pub(crate) crl_urls: Vec<String>,
    pub(crate) ocsp: Option<String>,
    pub(crate) signers: Vec<Arc<Cert>>,
    pub(crate) min_rsa_bits: usize,
}

/// What a check is about.
pub(crate) struct Question {
    /// From the CA down.
    pub(crate) links: VecDeque<Issued>,
    pub(crate) policy: Arc<Policy>,
    /// OCSP answers and lists that the peer sent.
    pub(crate) stapled: Vec<Vec<u8>>,
    pub(crate) lists: Vec<Arc<Crl>>,
    pub(crate) at: SystemTime,
}

/// How a check ended: good, with what an operator should know of it; or not, and why.
pub(crate) type Verdict = Result<Vec<String>, String>;

/// What came of fetching something that was not waited for here.
pub(crate) struct Other {
    pub(crate) token: Token,
    pub(crate) result: Result<Arc<[u8]>, String>,
}

/// See the module.
pub(crate) struct Checks {
    fetcher: Fetcher,
    short: Arc<dyn ShortOps>,
    open: HashMap<Token, Check>,
    crls: Crls,
    responses: Responses,
    failed: HashMap<String, (Instant, String)>,
    fetching: HashMap<u64, Fetching>,
    next: u64,
    operations: Vec<(Token, SignScheme, CryptoOp)>,
    verdicts: VecDeque<(Token, Verdict)>,
    others: VecDeque<Other>,
}

/// What several may wait for.
#[derive(Clone, PartialEq, Eq)]
enum Key {
    Crl(String),
    /// URL, the issuer's key and the serial number.
    Ocsp(String, Vec<u8>, Vec<u8>),
    /// Never shared.
    Other(Token),
}

struct Fetching {
    key: Key,
    nonce: Vec<u8>,
    waiting: Vec<Token>,
}

struct Check {
    question: Question,
    deadline: Instant,
    current: Option<Issued>,
    sources: VecDeque<Source>,
    /// What was asked for the current certificate, and why it did not tell.
    why: Vec<String>,
    warnings: Vec<String>,
    waits: Waits,
}

/// Something that may tell.
enum Source {
    Known,
    Stapled(Vec<u8>),
    Responder(String, Reach),
    List(Arc<Crl>),
    ListAt(String, Reach),
}

/// What a parked check waits for.
enum Waits {
    Nothing,
    /// Something that is being fetched.
    Fetch,
    /// The signature of this list by the current issuer.
    ListSignature(Arc<Crl>),
    /// That of an OCSP answer, or of the certificate of who signed it.
    Signature(Box<consult::Evidence>),
}

/// What one source said.
enum Said {
    Good,
    Revoked(String),
    /// It cannot tell, for this reason.
    Nothing(String),
    /// It was not expected to.
    Silence,
    /// Not yet.
    Wait(Waits),
}

impl Checks {
    /// Nothing known yet. Lists are kept in `dir`.
    ///
    /// # Errors
    /// No doorbell to be had.
    pub(crate) fn new(dir: Option<PathBuf>, short: Arc<dyn ShortOps>) -> std::io::Result<Checks> {
        Ok(Checks {
            fetcher: Fetcher::new(dir, Arc::clone(&short))?,
            short,
            open: HashMap::new(),
            crls: Crls::default(),
            responses: Responses::default(),
            failed: HashMap::new(),
            fetching: HashMap::new(),
            next: 1,
            operations: Vec::new(),
            verdicts: VecDeque::new(),
            others: VecDeque::new(),
        })
    }

    /// Begins a check; its verdict comes by [`poll_verdict`](Checks::poll_verdict). `None` when there are too many.
    pub(crate) fn begin(&mut self, question: Question) -> Option<Token> {
        let check = Check {
            question,
            deadline: Instant::now() + PATIENCE,
            current: None,
            sources: VecDeque::new(),
            why: Vec::new(),
            warnings: Vec::new(),
            waits: Waits::Nothing,
        };
        if self.open.len() >= MAX_CHECKS {
            return None;
        }
        let token = Token(self.next());
        self.advance(token, check, None);
        Some(token)
    }

    /// Fetches a certificate for a peer; comes by [`poll_other`](Checks::poll_other) under this name.
    pub(crate) fn fetch_certificate(&mut self, token: Token, url: String, reach: Reach) {
        let job = What::Certificate { url };
        self.fetch(Key::Other(token), job, reach, Instant::now() + PATIENCE, Vec::new(), token);
    }

    /// Takes what was fetched.
    pub(crate) fn poll(&mut self) {
        while let Some(fetched) = self.fetcher.poll() {
            self.on_fetched(fetched);
        }
    }

    /// Signatures to verify.
    pub(crate) fn take_operations(&mut self) -> Vec<(Token, SignScheme, CryptoOp)> {
        std::mem::take(&mut self.operations)
    }

    /// Whether a signature was good; `Err` when nobody could tell.
    pub(crate) fn on_signature(&mut self, token: Token, good: Result<bool, String>) {
        let Some(mut check) = self.open.remove(&token) else { return };
        let said = match std::mem::replace(&mut check.waits, Waits::Nothing) {
            Waits::ListSignature(crl) => self.list_signed(&check, &crl, good),
            Waits::Signature(evidence) => self.answer_signed(token, &check, *evidence, good),
            _ => Said::Nothing("a signature was verified that nobody waits for".into()),
        };
        self.advance(token, check, Some(said));
    }

    /// The next verdict.
    pub(crate) fn poll_verdict(&mut self) -> Option<(Token, Verdict)> {
        self.verdicts.pop_front()
    }

    /// The next certificate that was fetched, or not.
    pub(crate) fn poll_other(&mut self) -> Option<Other> {
        self.others.pop_front()
    }

    /// The OCSP answer that was last found good about a certificate, to be sent along.
    pub(crate) fn response(&self, issued: &Issued, at: SystemTime) -> Option<Arc<[u8]>> {
        self.responses.octets(issued, at)
    }

    /// What was fetched is fetched anew when it is asked for next, and servers that failed are asked again.
    pub(crate) fn refresh(&mut self) {
        self.crls.refresh();
        self.responses.clear();
        self.failed.clear();
    }

    /// Rings when something was fetched.
    pub(crate) fn doorbell(&self) -> BorrowedFd<'_> {
        self.fetcher.doorbell()
    }

    fn next(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Goes on with a check as far as it gets; `said` is what came of what it waited for.
    fn advance(&mut self, token: Token, mut check: Check, mut said: Option<Said>) {
        loop {
            match said.take() {
                None | Some(Said::Silence) => {}
                Some(Said::Good) => check.current = None,
                Some(Said::Revoked(what)) => return self.verdicts.push_back((token, Err(what))),
                Some(Said::Nothing(why)) => check.why.push(why),
                Some(Said::Wait(waits)) => {
                    check.waits = waits;
                    self.open.insert(token, check);
                    return;
                }
            }
            let Some(issued) = check.current.clone() else {
                let Some(issued) = check.question.links.pop_front() else {
                    return self.verdicts.push_back((token, Ok(check.warnings)));
                };
                check.sources = sources(&check.question, &issued);
                check.why.clear();
                check.current = Some(issued);
                continue;
            };
            match check.sources.pop_front() {
                Some(source) => said = Some(self.consult(token, &check, &issued, source)),
                None => match unknown(&check, &issued) {
                    Ok(warning) => {
                        check.warnings.extend(warning);
                        check.current = None;
                    }
                    Err(what) => return self.verdicts.push_back((token, Err(what))),
                },
            }
        }
    }

    /// Has something fetched, unless somebody has it fetched already: then that is waited for.
    fn fetch(&mut self, key: Key, what: What, reach: Reach, deadline: Instant, nonce: Vec<u8>, token: Token) {
        if let Some(under_way) = self.fetching.values_mut().find(|under_way| under_way.key == key) {
            under_way.waiting.push(token);
            return;
        }
        let id = self.next();
        self.fetching.insert(id, Fetching { key, nonce, waiting: vec![token] });
        self.fetcher.submit(Job { id, what, reach, deadline });
    }

    fn on_fetched(&mut self, fetched: Fetched) {
        let Some(Fetching { key, nonce, waiting }) = self.fetching.remove(&fetched.id) else { return };
        let document = match (&key, fetched.result) {
            (Key::Other(token), result) => {
                let result = result.and_then(|document| match document {
                    Document::Octets(octets) => Ok(octets),
                    Document::Crl(_) => Err("something else was fetched".into()),
                });
                self.others.push_back(Other { token: *token, result });
                return;
            }
            (Key::Crl(url) | Key::Ocsp(url, ..), Err(why)) => {
                tracing::info!(%url, %why, "revocation: nothing could be fetched");
                self.note_failed(url, &why);
                Err(why)
            }
            (Key::Crl(url), Ok(Document::Crl(crl))) => {
                tracing::info!(%url, revoked = crl.len(), "revocation: a CRL was fetched");
                self.crls.keep(url.clone(), Arc::clone(&crl));
                Ok(Document::Crl(crl))
            }
            (_, Ok(document)) => Ok(document),
        };
        for token in waiting {
            let Some(mut check) = self.open.remove(&token) else { continue };
            check.waits = Waits::Nothing;
            let said = match (&key, &check.current.clone(), &document) {
                (Key::Crl(url), Some(issued), Err(why)) => match self.crls.any(url) {
                    // Better than nothing, and for as long as it says itself.
                    Some(old) => self.weigh_list(token, &check, issued, &old),
                    None => Said::Nothing(why.clone()),
                },
                (_, Some(issued), Ok(Document::Crl(crl))) => self.weigh_list(token, &check, issued, crl),
                (_, Some(issued), Ok(Document::Octets(octets))) => {
                    self.weigh_answer(token, &check, issued, octets, Some(&nonce))
                }
                (_, _, Err(why)) => Said::Nothing(why.clone()),
                (_, None, _) => Said::Nothing("nothing was asked".into()),
            };
            self.advance(token, check, Some(said));
        }
    }

    fn note_failed(&mut self, url: &str, why: &str) {
        if self.failed.len() >= MAX_FAILED {
            let now = Instant::now();
            self.failed.retain(|_, (at, _)| now.duration_since(*at) < RETRY);
            if self.failed.len() >= MAX_FAILED {
                self.failed.clear();
            }
        }
        self.failed.insert(url.to_owned(), (Instant::now(), why.to_owned()));
    }

    /// Why a server is not asked now: it failed a moment ago.
    fn failed_lately(&self, url: &str) -> Option<String> {
        let (at, why) = self.failed.get(url)?;
        (at.elapsed() < RETRY).then(|| format!("{why} (a moment ago)"))
    }
}

impl Policy {
    /// Reads what the configuration has; what cannot be read is said to `note`.
    pub(crate) fn new(from: &Revocation, min_rsa_bits: usize, note: &mut dyn FnMut(String)) -> Policy {
        let (mut given, mut crl_urls) = (Vec::new(), Vec::new());
        for source in &from.crls {
            match source {
                CrlSource::Url(url) => crl_urls.push(url.clone()),
                CrlSource::Given(Certificate { name, der }) => match Crl::parse(der.clone()) {
                    Ok(crl) => given.push(Arc::new(crl)),
                    Err(why) => note(format!("{name}: {why}")),
                },
            }
        }
        let mut signers = Vec::new();
        for Certificate { name, der } in &from.signers {
            match Cert::parse(der) {
                Ok(cert) => signers.push(Arc::new(cert)),
                Err(why) => note(format!("{name}: {why}")),
            }
        }
        Policy { mode: from.mode, given, crl_urls, ocsp: from.ocsp.clone(), signers, min_rsa_bits }
    }
}

/// The links of a path that was found good, from the CA down.
pub(crate) fn links(path: &[Vec<u8>]) -> VecDeque<Issued> {
    let certs: Vec<Arc<Cert>> = path.iter().filter_map(|der| Cert::parse(der).ok()).map(Arc::new).collect();
    let pairs = certs.iter().zip(certs.iter().skip(1));
    pairs.map(|(cert, issuer)| Issued { cert: Arc::clone(cert), issuer: Arc::clone(issuer) }).rev().collect()
}

/// Everything that may tell whether a certificate was revoked, in the order of the module.
fn sources(question: &Question, issued: &Issued) -> VecDeque<Source> {
    let policy = &question.policy;
    let mut sources = VecDeque::from([Source::Known]);
    sources.extend(question.stapled.iter().cloned().map(Source::Stapled));
    sources.extend(policy.given.iter().chain(&question.lists).map(|crl| Source::List(Arc::clone(crl))));
    sources.extend(policy.ocsp.iter().map(|url| Source::Responder(url.clone(), Reach::Anywhere)));
    let named = |urls: &[String]| urls.iter().cloned().map(|url| (url, Reach::Network)).collect::<Vec<_>>();
    sources
        .extend(named(&issued.cert.ocsp_urls).into_iter().map(|(url, reach)| Source::Responder(url, reach)));
    sources.extend(policy.crl_urls.iter().map(|url| Source::ListAt(url.clone(), Reach::Anywhere)));
    sources.extend(named(&issued.cert.crl_urls).into_iter().map(|(url, reach)| Source::ListAt(url, reach)));
    sources
}

/// Nobody could tell: what that means.
fn unknown(check: &Check, issued: &Issued) -> Result<Option<String>, String> {
    let who = issued.cert.subject_text();
    let why = match check.why.is_empty() {
        true => "neither it nor the realm says where to ask".to_owned(),
        false => check.why.join("; "),
    };
    match check.question.policy.mode {
        RevocationMode::Strict => Err(format!(
            "whether the certificate of {who} was revoked cannot be found out, and the realm is strict: {why}"
        )),
        // That nobody says where to ask is how many small CAs are.
        _ if check.why.is_empty() => Ok(None),
        _ => Ok(Some(format!("whether the certificate of {who} was revoked could not be found out: {why}"))),
    }
}
