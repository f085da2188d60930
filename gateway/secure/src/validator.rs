//! The built-in backend of the certificate SPI: a [`Queue`] of questions about chains, which verifies signatures on a crypto
//! queue of its own. Rules and bounds are those of [`crate::path`] and [`crate::usage`].

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use spi::cert::{CertDone, CertError, CertInfo, CertJob, Usages};
use spi::{
    Closed, Completions, CryptoDone, CryptoJob, CryptoOp, CryptoQueue, Device, Hash, InFlight, Outcome,
    Polled, Queue, QueueConfig, ShortOps, SignScheme, Token,
};

use crate::cert::Cert;
use crate::key;
use crate::known::{Known, Name, Window};
use crate::path::{self, Candidate, Link};

/// Questions at once.
const DEPTH: usize = 1024;
/// Lists of CAs that are kept as they were read.
const LISTS: usize = 64;

/// A ring for certificate questions.
pub struct Validator {
    crypto: Box<CryptoQueue>,
    short: Option<Arc<dyn ShortOps>>,
    schemes: Vec<SignScheme>,
    jobs: VecDeque<CryptoJob>,
    /// By the token of the one signature a question has out: signatures of a path are verified one after the other,
    /// from the anchor down, so that a chain of forgeries costs one operation.
    open: InFlight<Question>,
    done: VecDeque<CertDone>,
    known: Known,
    lists: VecDeque<Anchors>,
    min_rsa_bits: usize,
    depth: usize,
}

/// CAs, as they were asked about and as they were read.
#[derive(Clone)]
struct Anchors {
    asked: Arc<[Vec<u8>]>,
    read: Arc<[Arc<Cert>]>,
    /// A hash of all of them; `None` where nobody hashes.
    hash: Option<Vec<u8>>,
}

struct Question {
    token: Token,
    /// What the chain is known by.
    name: Option<Name>,
    info: CertInfo,
    /// The link whose signature is out, and what is left of its path.
    link: Link,
    rest: VecDeque<Link>,
    window: Window,
    others: VecDeque<Candidate>,
    why: Option<CertError>,
}

/// What is left to do for a question.
struct Course {
    token: Token,
    name: Option<Name>,
    info: CertInfo,
    rest: VecDeque<Link>,
    window: Window,
    others: VecDeque<Candidate>,
    why: Option<CertError>,
}

impl Validator {
    /// A validator that verifies on `device`. RSA keys shorter than `min_rsa_bits` are not believed. `None` when the
    /// device has no queue to give.
    pub fn new(device: &Arc<dyn Device>, min_rsa_bits: usize) -> Option<Self> {
        let crypto = device.crypto_queue(QueueConfig::default())?;
        Some(Validator {
            crypto,
            short: device.short_ops(),
            schemes: device.desc().caps.verify.clone(),
            jobs: VecDeque::new(),
            open: InFlight::new(DEPTH),
            done: VecDeque::new(),
            known: Known::default(),
            lists: VecDeque::new(),
            min_rsa_bits,
            depth: DEPTH,
        })
    }

    fn start(&mut self, job: CertJob) {
        let token = job.token;
        match self.prepare(&job) {
            Ok(Prepared::Known(info)) => self.done.push_back(CertDone { token, verdict: Ok(info) }),
            Ok(Prepared::Paths(name, info, candidates)) => {
                let mut others: VecDeque<Candidate> = candidates.into();
                match others.pop_front() {
                    Some(Candidate { links: rest, path, window }) => {
                        let info = CertInfo { path, ..info };
                        self.next(Course { token, name, info, rest, window, others, why: None });
                    }
                    None => {
                        let verdict = Err(CertError::Untrusted("no path".into()));
                        self.done.push_back(CertDone { token, verdict });
                    }
                }
            }
            Err(e) => self.done.push_back(CertDone { token, verdict: Err(e) }),
        }
    }

    fn prepare(&mut self, job: &CertJob) -> Result<Prepared, CertError> {
        // Those of a peer, and as many that the realm adds.
        if job.chain.len() > 2 * path::MAX_CERTS {
            return Err(CertError::Malformed(format!(
                "{} certificates, at most {} are looked at",
                job.chain.len(),
                2 * path::MAX_CERTS
            )));
        }
        if job.chain.iter().map(Vec::len).sum::<usize>() > 2 * path::MAX_CERT_OCTETS {
            return Err(CertError::Malformed(format!(
                "more than {} octets of certificates",
                2 * path::MAX_CERT_OCTETS
            )));
        }
        let anchors = self.anchors(&job.anchors);
        let name = self.name(&anchors, &job.chain, job.usages);
        if let Some(info) = name.as_ref().and_then(|name| self.known.find(name, job.at)) {
            return Ok(Prepared::Known(info));
        }
        let mut chain = Vec::with_capacity(job.chain.len());
        for (i, der) in job.chain.iter().enumerate() {
            match Cert::parse(der) {
                Ok(cert) => chain.push(Arc::new(cert)),
                Err(e) if i == 0 => return Err(e),
                // Not on our path, or the path will be missing it.
                Err(_) => {}
            }
        }
        let candidates = path::candidates(&chain, &anchors.read, job.at, self.min_rsa_bits, job.usages)?;
        let end = chain.first().ok_or_else(|| CertError::Malformed("no certificate".into()))?;
        Ok(Prepared::Paths(name, end.info(), candidates))
    }

    /// The CAs, read once for as long as they are asked about.
    fn anchors(&mut self, asked: &Arc<[Vec<u8>]>) -> Anchors {
        if let Some(known) = self.lists.iter().find(|list| Arc::ptr_eq(&list.asked, asked)) {
            return known.clone();
        }
        // Those of the configuration were parsed when it was read; one that does not parse is none.
        let read = asked.iter().filter_map(|der| Cert::parse(der).ok()).map(Arc::new).collect();
        let list = Anchors { asked: Arc::clone(asked), read, hash: self.hash(asked.iter()) };
        if self.lists.len() >= LISTS {
            self.lists.pop_front();
        }
        self.lists.push_back(list.clone());
        list
    }

    /// What a chain is known by.
    fn name(&self, anchors: &Anchors, chain: &[Vec<u8>], usages: Usages) -> Option<Name> {
        let hash = self.hash([&vec![usages.bits()], anchors.hash.as_ref()?].into_iter().chain(chain))?;
        hash.try_into().ok()
    }

    /// SHA-256 over these, each with its length before it.
    fn hash<'a>(&self, parts: impl Iterator<Item = &'a Vec<u8>>) -> Option<Vec<u8>> {
        let parts: Vec<([u8; 8], &[u8])> =
            parts.map(|part| ((part.len() as u64).to_be_bytes(), part.as_slice())).collect();
        let flat: Vec<&[u8]> = parts.iter().flat_map(|(len, part)| [&len[..], part]).collect();
        self.short.as_ref()?.hash(Hash::Sha256, &flat).ok()
    }

    /// Sends the next signature of the path off, or begins the next path, or answers.
    fn next(&mut self, mut course: Course) {
        loop {
            let Some(link) = course.rest.pop_front() else {
                let Course { token, name, info, window, .. } = course;
                if let Some(name) = name {
                    self.known.keep(name, info.clone(), window);
                }
                self.done.push_back(CertDone { token, verdict: Ok(info) });
                return;
            };
            match self.operation(&link) {
                Ok(op) => {
                    let Course { token, name, info, rest, window, others, why } = course;
                    let question = Question { token, name, info, link, rest, window, others, why };
                    match self.open.insert(question) {
                        Ok(name) => self.jobs.push_back(CryptoJob { token: name, op }),
                        // `submit` keeps to the depth of the table, so this is its own mistake; the answer is no.
                        Err(q) => {
                            let verdict = Err(CertError::Untrusted("too many certificates to verify".into()));
                            self.done.push_back(CertDone { token: q.token, verdict });
                        }
                    }
                    return;
                }
                Err(e) => {
                    course.why.get_or_insert(e);
                    match self.another(course) {
                        Some(other) => course = other,
                        None => return,
                    }
                }
            }
        }
    }

    /// A path is no good: the next one, or the answer that there is none.
    fn another(&mut self, mut course: Course) -> Option<Course> {
        match course.others.pop_front() {
            Some(Candidate { links: rest, path, window }) => {
                let info = CertInfo { path, ..course.info };
                Some(Course { rest, window, info, ..course })
            }
            None => {
                let why = course.why.unwrap_or_else(|| CertError::Untrusted("no path".into()));
                self.done.push_back(CertDone { token: course.token, verdict: Err(why) });
                None
            }
        }
    }

    fn operation(&self, link: &Link) -> Result<CryptoOp, CertError> {
        let weak = |what: &str| {
            CertError::WrongUsage(format!("the certificate of {} {what}", link.cert.subject_text()))
        };
        let algorithm = link.cert.algorithm.ok_or_else(|| weak("is signed by an unknown algorithm"))?;
        if algorithm.hash() == Hash::Sha1 {
            return Err(weak("is signed with SHA-1, which can be forged"));
        }
        let spki = &link.issuer.spki;
        let kind = key::inspect(spki, self.min_rsa_bits).map_err(|e| weak(&e.to_string()))?;
        let scheme = algorithm
            .scheme(kind)
            .ok_or_else(|| weak("is signed by another kind of key than its issuer has"))?;
        if !self.schemes.contains(&scheme) {
            return Err(weak("is signed by an algorithm no device verifies"));
        }
        Ok(CryptoOp::Verify {
            spki: spki.clone(),
            scheme,
            octets: link.cert.tbs.clone(),
            signature: link.cert.signature.clone(),
        })
    }

    fn on_verified(&mut self, done: CryptoDone) {
        let Some(q) = self.open.take(done.token) else { return };
        let Question { token, name, info, link, rest, window, others, mut why } = q;
        let good = done.outcome == Outcome::Done;
        if !good {
            let who = link.cert.subject_text();
            why.get_or_insert(match done.outcome {
                Outcome::Rejected(_) => CertError::Untrusted(format!(
                    "the signature of {} on the certificate of {who} does not verify",
                    link.issuer.subject_text()
                )),
                Outcome::Failed(fault) => {
                    CertError::Untrusted(format!("the certificate of {who} could not be verified: {fault}"))
                }
                Outcome::Done | Outcome::Pending => CertError::Untrusted("a device gave no verdict".into()),
            });
        }
        let course = Course { token, name, info, rest, window, others, why };
        let course = if good { Some(course) } else { self.another(course) };
        if let Some(course) = course {
            self.next(course);
        }
    }

    fn turn(&mut self) -> bool {
        // A closed queue keeps the jobs; they go out when the device is back.
        let _ = self.crypto.submit(&mut self.jobs);
        let mut came = Vec::new();
        let polled = self.crypto.poll(64, &mut |done: CryptoDone| came.push(done));
        for done in came {
            self.on_verified(done);
        }
        // A device may do the next signature as soon as it is asked.
        let next = self.crypto.submit(&mut self.jobs).is_ok_and(|taken| taken > 0);
        polled.more || next
    }
}

/// What can be said of a question before any signature is verified.
enum Prepared {
    /// The answer: the chain was found good before.
    Known(CertInfo),
    /// What the certificate says, if one of these paths is good.
    Paths(Option<Name>, CertInfo, Vec<Candidate>),
}

impl Queue for Validator {
    type Job = CertJob;
    type Done = CertDone;

    fn submit(&mut self, jobs: &mut VecDeque<CertJob>) -> Result<usize, Closed> {
        let take = self.room().min(jobs.len());
        for job in jobs.drain(..take) {
            self.start(job);
        }
        let _ = self.crypto.submit(&mut self.jobs);
        Ok(take)
    }

    fn poll(&mut self, budget: usize, to: &mut dyn Completions<CertDone>) -> Polled {
        let more = self.turn();
        let mut delivered = 0;
        while delivered < budget {
            let Some(done) = self.done.pop_front() else { break };
            to.on_done(done);
            delivered += 1;
        }
        Polled { delivered, more: more || !self.done.is_empty() }
    }

    fn room(&self) -> usize {
        self.depth.saturating_sub(self.in_flight())
    }

    fn in_flight(&self) -> usize {
        self.open.len() + self.done.len()
    }

    fn doorbell(&self) -> Option<BorrowedFd<'_>> {
        self.crypto.doorbell()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Ca, ca_params, devices, ee_params, now};
    use std::time::{Duration, SystemTime};

    /// The verdict, and how many signatures it took.
    fn judge(
        v: &mut Validator,
        chain: &[Vec<u8>],
        anchors: &Arc<[Vec<u8>]>,
        at: SystemTime,
    ) -> (bool, usize) {
        let job = CertJob {
            token: Token(7),
            chain: chain.to_vec(),
            anchors: Arc::clone(anchors),
            at,
            usages: Usages::all(),
        };
        let (mut signatures, mut verdict) = (0, None);
        v.submit(&mut [job].into()).unwrap();
        while verdict.is_none() {
            let before = v.open.len();
            v.poll(9, &mut |done: CertDone| verdict = Some(done.verdict.is_ok()));
            signatures += before;
            std::thread::yield_now();
        }
        assert_eq!(v.in_flight(), 0);
        (verdict.unwrap(), signatures)
    }

    #[test]
    fn a_chain_that_was_good_costs_no_signatures_while_it_is_valid() {
        let root = Ca::new("Root");
        let mut params = ca_params("Middle");
        params.not_after = rcgen::date_time_ymd(2030, 1, 1);
        let middle = root.sub(params);
        let leaf = middle.issue_as(&ee_params("moon.lab.test"), rcgen::KeyPair::generate().unwrap());
        let chain = [leaf.cert.der().to_vec(), middle.cert.der().to_vec()];
        let anchors: Arc<[Vec<u8>]> = [root.cert.der().to_vec()].into();
        let v = &mut Validator::new(&devices()[0], 2048).unwrap();
        let good = |(good, signatures): (bool, usize)| {
            assert!(good);
            signatures
        };
        assert!(good(judge(v, &chain, &anchors, now())) >= 2);
        assert_eq!(good(judge(v, &chain, &anchors, now())), 0, "known");
        let again: Arc<[Vec<u8>]> = anchors.to_vec().into();
        assert_eq!(good(judge(v, &chain, &again, now())), 0, "the same CAs, read again");
        let decade = Duration::from_secs(10 * 365 * 86_400);
        assert_eq!(judge(v, &chain, &anchors, now() + decade), (false, 0), "what is on the path has expired");
        assert_eq!(good(judge(v, &chain, &anchors, now())), 0);
        let other: Arc<[Vec<u8>]> = [Ca::new("Root").cert.der().to_vec()].into();
        assert!(!judge(v, &chain, &other, now()).0, "other CAs");
        let more: Arc<[Vec<u8>]> = [anchors[0].clone(), other[0].clone()].into();
        assert!(good(judge(v, &chain, &more, now())) >= 2, "more CAs are other CAs");
        let mut spoiled = chain.clone();
        let last = spoiled[0].len() - 1;
        spoiled[0][last] ^= 1;
        assert!(!judge(v, &spoiled, &anchors, now()).0, "another signature");
        assert!(!judge(v, &spoiled, &anchors, now()).0, "and again");
        assert!(!judge(v, &chain[..1], &anchors, now()).0, "less of a chain");
    }
}
