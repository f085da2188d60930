//! The built-in backend of the certificate SPI: a [`Queue`] of questions about chains, which verifies signatures on a crypto
//! queue of its own. Rules and bounds are those of [`crate::path`] and [`crate::usage`].

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use spi::cert::{CertDone, CertError, CertInfo, CertJob};
use spi::{
    Closed, Completions, CryptoDone, CryptoJob, CryptoOp, CryptoQueue, Device, Hash, InFlight, Outcome,
    Polled, Queue, QueueConfig, SignScheme, Token,
};

use crate::cert::Cert;
use crate::key;
use crate::path::{self, Candidate, Link};

/// Questions at once.
const DEPTH: usize = 1024;

/// A ring for certificate questions.
pub struct Validator {
    crypto: Box<CryptoQueue>,
    schemes: Vec<SignScheme>,
    jobs: VecDeque<CryptoJob>,
    /// By the token of the one signature a question has out: signatures of a path are verified one after the other,
    /// from the anchor down, so that a chain of forgeries costs one operation.
    open: InFlight<Question>,
    done: VecDeque<CertDone>,
    min_rsa_bits: usize,
    depth: usize,
}

struct Question {
    token: Token,
    info: CertInfo,
    /// The link whose signature is out, and what is left of its path.
    link: Link,
    rest: VecDeque<Link>,
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
            schemes: device.desc().caps.verify.clone(),
            jobs: VecDeque::new(),
            open: InFlight::new(DEPTH),
            done: VecDeque::new(),
            min_rsa_bits,
            depth: DEPTH,
        })
    }

    fn start(&mut self, job: CertJob) {
        let token = job.token;
        match self.prepare(&job) {
            Ok((info, candidates)) => {
                let mut others: VecDeque<Candidate> = candidates.into();
                let first = others.pop_front().unwrap_or_default();
                self.next(token, info, first.into(), others, None);
            }
            Err(e) => self.done.push_back(CertDone { token, verdict: Err(e) }),
        }
    }

    fn prepare(&self, job: &CertJob) -> Result<(CertInfo, Vec<Candidate>), CertError> {
        if job.chain.len() > path::MAX_CERTS {
            return Err(CertError::Malformed(format!(
                "{} certificates, at most {} are looked at",
                job.chain.len(),
                path::MAX_CERTS
            )));
        }
        if job.chain.iter().map(Vec::len).sum::<usize>() > path::MAX_CERT_OCTETS {
            return Err(CertError::Malformed(format!(
                "more than {} octets of certificates",
                path::MAX_CERT_OCTETS
            )));
        }
        let mut chain = Vec::with_capacity(job.chain.len());
        for (i, der) in job.chain.iter().enumerate() {
            match Cert::parse(der) {
                Ok(cert) => chain.push(cert),
                Err(e) if i == 0 => return Err(e),
                // Not on our path, or the path will be missing it.
                Err(_) => {}
            }
        }
        // Those of the configuration were parsed when it was read.
        let anchors: Vec<Cert> = job.anchors.iter().filter_map(|der| Cert::parse(der).ok()).collect();
        let candidates = path::candidates(&chain, &anchors, job.at, self.min_rsa_bits)?;
        let end = chain.first().ok_or_else(|| CertError::Malformed("no certificate".into()))?;
        Ok((end.info(), candidates))
    }

    /// Sends the next signature of the path off, or begins the next path, or answers.
    fn next(
        &mut self,
        token: Token,
        info: CertInfo,
        mut rest: VecDeque<Link>,
        mut others: VecDeque<Candidate>,
        mut why: Option<CertError>,
    ) {
        loop {
            let Some(link) = rest.pop_front() else {
                self.done.push_back(CertDone { token, verdict: Ok(info) });
                return;
            };
            match self.operation(&link) {
                Ok(op) => {
                    let question = Question { token, info, link, rest, others, why };
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
                    why.get_or_insert(e);
                    match others.pop_front() {
                        Some(other) => rest = other.into(),
                        None => {
                            let verdict = Err(why.unwrap_or_else(|| CertError::Untrusted("no path".into())));
                            self.done.push_back(CertDone { token, verdict });
                            return;
                        }
                    }
                }
            }
        }
    }

    fn operation(&self, link: &Link) -> Result<CryptoOp, CertError> {
        let who = link.cert.subject_text();
        let weak = |what: &str| CertError::WrongUsage(format!("the certificate of {who} {what}"));
        let algorithm = link.cert.algorithm.ok_or_else(|| weak("is signed by an unknown algorithm"))?;
        if algorithm.hash() == Hash::Sha1 {
            return Err(weak("is signed with SHA-1, which can be forged"));
        }
        let kind = key::inspect(&link.issuer_spki, self.min_rsa_bits).map_err(|e| weak(&e.to_string()))?;
        let scheme = algorithm
            .scheme(kind)
            .ok_or_else(|| weak("is signed by another kind of key than its issuer has"))?;
        if !self.schemes.contains(&scheme) {
            return Err(weak("is signed by an algorithm no device verifies"));
        }
        Ok(CryptoOp::Verify {
            spki: link.issuer_spki.clone(),
            scheme,
            octets: link.cert.tbs.clone(),
            signature: link.cert.signature.clone(),
        })
    }

    fn on_verified(&mut self, done: CryptoDone) {
        let Some(q) = self.open.take(done.token) else { return };
        let Question { token, info, link, rest, mut others, mut why } = q;
        let rest = match done.outcome {
            Outcome::Done => rest,
            outcome => {
                let who = link.cert.subject_text();
                let error = match outcome {
                    Outcome::Rejected(_) => CertError::Untrusted(format!(
                        "the signature of {} on the certificate of {who} does not verify",
                        link.issuer
                    )),
                    Outcome::Failed(fault) => CertError::Untrusted(format!(
                        "the certificate of {who} could not be verified: {fault}"
                    )),
                    Outcome::Done | Outcome::Pending => {
                        CertError::Untrusted("a device gave no verdict".into())
                    }
                };
                why.get_or_insert(error);
                match others.pop_front() {
                    Some(other) => other.into(),
                    None => {
                        let verdict = Err(why.unwrap_or_else(|| CertError::Untrusted("no path".into())));
                        self.done.push_back(CertDone { token, verdict });
                        return;
                    }
                }
            }
        };
        self.next(token, info, rest, others, why);
    }

    fn turn(&mut self) -> bool {
        // A closed queue keeps the jobs; they go out when the device is back.
        let _ = self.crypto.submit(&mut self.jobs);
        let mut came = Vec::new();
        let polled = self.crypto.poll(64, &mut |done: CryptoDone| came.push(done));
        for done in came {
            self.on_verified(done);
        }
        let _ = self.crypto.submit(&mut self.jobs);
        polled.more
    }
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
