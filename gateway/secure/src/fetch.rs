//! What has to be fetched from elsewhere, CRLs, OCSP answers and certificates, by threads of their own: nobody who has something to
//! do waits for somebody else's server.
//!
//! Bounded: [`THREADS`] threads, [`MAX_JOBS`] jobs, one job at a time for each server, so that a server that accepts and says nothing
//! holds one thread and not all of them; a time for each job, counted from when it was asked for; octets; redirections. A job always
//! ends, with an answer or a reason. Lists are taken apart here, too, for a long one takes a while.

mod disk;
mod http;
pub(crate) mod ldap;
mod url;

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use spi::{Doorbell, ShortOps};

use crate::crl::{Crl, MAX_CRL};
use crate::ocsp::MAX_RESPONSE;
pub(crate) use url::Url;

/// Threads that fetch.
const THREADS: usize = 4;
/// Jobs that wait or are under way.
pub(crate) const MAX_JOBS: usize = 256;
/// Longest time one server is given.
const PATIENCE: Duration = Duration::from_secs(8);
/// Names that are being looked up at once: the system's resolver keeps to no time of ours.
const MAX_LOOKUPS: usize = 8;
/// Of these threads, those that may be after certificates of strangers at once; and such jobs that may wait.
const STRANGERS: usize = 2;
const MAX_STRANGERS: usize = 64;
/// A certificate or a bundle of them, octets.
const MAX_CERTIFICATE: usize = crate::path::MAX_CERT_OCTETS;

/// What to fetch.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum What {
    /// A list of revoked certificates, by HTTP or LDAP. One that is kept on disk will do unless a fresh one is wanted.
    Crl { url: String, fresh: bool },
    /// The answer of an OCSP responder.
    Ocsp { url: String, question: Vec<u8> },
    /// What a peer says is its certificate.
    Certificate { url: String },
}

/// Which servers may be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Reach {
    /// Such with public addresses: a stranger named the server.
    Public,
    /// All but this machine and its links: a CA of the realm named the server.
    Network,
    /// Any: the operator named the server.
    Anywhere,
}

/// Something to fetch.
pub(crate) struct Job {
    pub(crate) id: u64,
    pub(crate) what: What,
    pub(crate) reach: Reach,
    pub(crate) deadline: Instant,
}

/// What came of a job.
pub(crate) struct Fetched {
    pub(crate) id: u64,
    pub(crate) result: Result<Document, String>,
}

/// What was fetched.
#[derive(Clone)]
pub(crate) enum Document {
    Crl(Arc<Crl>),
    Octets(Arc<[u8]>),
}

/// The threads and their queue.
pub(crate) struct Fetcher {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    work: Condvar,
    bell: Doorbell,
    disk: Option<disk::Disk>,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    done: VecDeque<Fetched>,
    /// Servers that are being asked.
    busy: Vec<String>,
    threads: usize,
    idle: usize,
    under_way: usize,
    strangers: usize,
    closed: bool,
}

impl Fetcher {
    /// A queue; threads are begun when there is something to do. Lists are kept in `dir`.
    ///
    /// # Errors
    /// No doorbell to be had.
    pub(crate) fn new(dir: Option<PathBuf>, short: Arc<dyn ShortOps>) -> std::io::Result<Fetcher> {
        let shared = Shared {
            state: Mutex::default(),
            work: Condvar::new(),
            bell: Doorbell::between_threads()?,
            disk: dir.map(|dir| disk::Disk::new(dir, short)),
        };
        Ok(Fetcher { shared: Arc::new(shared) })
    }

    /// Takes a job. It comes back by [`poll`](Fetcher::poll) in any case.
    pub(crate) fn submit(&mut self, job: Job) {
        let mut state = self.shared.lock();
        let strangers = state.jobs.iter().filter(|job| job.what.is_stranger()).count();
        if state.jobs.len() + state.under_way >= MAX_JOBS
            || (job.what.is_stranger() && strangers >= MAX_STRANGERS)
        {
            let result = Err("too much is being fetched".to_owned());
            state.done.push_back(Fetched { id: job.id, result });
            self.shared.bell.ring();
            return;
        }
        state.jobs.push_back(job);
        if state.idle == 0 && state.threads < THREADS {
            let shared = Arc::clone(&self.shared);
            let begun = std::thread::Builder::new().name("fetch".into()).spawn(move || shared.work());
            match begun {
                Ok(_) => state.threads += 1,
                Err(error) if state.threads == 0 => {
                    if let Some(job) = state.jobs.pop_back() {
                        let result = Err(format!("no thread to fetch with: {error}"));
                        state.done.push_back(Fetched { id: job.id, result });
                        self.shared.bell.ring();
                    }
                }
                // Those that are there will do.
                Err(_) => {}
            }
        }
        self.shared.work.notify_one();
    }

    /// The next job that ended.
    pub(crate) fn poll(&mut self) -> Option<Fetched> {
        self.shared.bell.answer();
        self.shared.lock().done.pop_front()
    }

    /// Rings when a job has ended.
    pub(crate) fn doorbell(&self) -> BorrowedFd<'_> {
        self.shared.bell.as_fd()
    }
}

impl Drop for Fetcher {
    fn drop(&mut self) {
        // Threads that wait for a server end when it answers, or its time is over; nobody waits for them.
        let mut state = self.shared.lock();
        state.closed = true;
        state.jobs.clear();
        drop(state);
        self.shared.work.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        loop {
            let Some((job, server)) = self.next() else { return };
            let result = self.fetch(&job);
            let mut state = self.lock();
            state.under_way -= 1;
            state.strangers -= usize::from(job.what.is_stranger());
            if let Some(place) = state.busy.iter().position(|busy| *busy == server) {
                state.busy.swap_remove(place);
            }
            state.done.push_back(Fetched { id: job.id, result });
            drop(state);
            self.bell.ring();
            // Somebody may have waited for this server.
            self.work.notify_all();
        }
    }

    /// The first job whose server is not being asked already, or whose time is over; `None` at the end.
    fn next(&self) -> Option<(Job, String)> {
        let mut state = self.lock();
        loop {
            if state.closed {
                state.threads -= 1;
                return None;
            }
            let now = Instant::now();
            let free = |job: &Job| {
                let room = !job.what.is_stranger() || state.strangers < STRANGERS;
                job.deadline <= now || (room && !state.busy.contains(&job.what.server()))
            };
            if let Some(place) = state.jobs.iter().position(free)
                && let Some(job) = state.jobs.remove(place)
            {
                let server = job.what.server();
                state.busy.push(server.clone());
                state.under_way += 1;
                state.strangers += usize::from(job.what.is_stranger());
                return Some((job, server));
            }
            let first = state.jobs.iter().map(|job| job.deadline).min();
            let wait = first.map_or(Duration::from_secs(3600), |first| first.saturating_duration_since(now));
            state.idle += 1;
            let (back, _) = self.work.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner);
            state = back;
            state.idle -= 1;
        }
    }

    fn fetch(&self, job: &Job) -> Result<Document, String> {
        let now = Instant::now();
        if job.deadline <= now {
            return Err("there was no time left to fetch it".into());
        }
        let until = job.deadline.min(now + PATIENCE);
        match &job.what {
            What::Crl { url, fresh } => {
                if !fresh && let Some(crl) = self.disk.as_ref().and_then(|disk| disk.young(url)) {
                    return Ok(Document::Crl(Arc::new(crl)));
                }
                let fetched = self.octets(url, job.reach, until, MAX_CRL, None).and_then(list);
                match (fetched, &self.disk) {
                    (Ok(crl), disk) => {
                        if let Some(disk) = disk {
                            disk.keep(url, &crl);
                        }
                        Ok(Document::Crl(Arc::new(crl)))
                    }
                    (Err(why), Some(disk)) => match disk.valid(url) {
                        Some(crl) => {
                            tracing::warn!(%url, %why, "a CRL could not be fetched; the one of before is still valid");
                            Ok(Document::Crl(Arc::new(crl)))
                        }
                        None => Err(why),
                    },
                    (Err(why), None) => Err(why),
                }
            }
            What::Ocsp { url, question } => self
                .octets(url, job.reach, until, MAX_RESPONSE, Some(question))
                .map(|o| Document::Octets(o.into())),
            What::Certificate { url } => {
                self.octets(url, job.reach, until, MAX_CERTIFICATE, None).map(|o| Document::Octets(o.into()))
            }
        }
    }

    fn octets(
        &self,
        url: &str,
        reach: Reach,
        until: Instant,
        most: usize,
        question: Option<&[u8]>,
    ) -> Result<Vec<u8>, String> {
        let url = Url::parse(url)?;
        match &*url.scheme {
            "http" => http::fetch(&url, until, most, question, &|host, port| {
                self.addresses(host, port, reach, until)
            }),
            "ldap" if question.is_none() => {
                ldap::fetch(&url, until, most, &self.addresses(&url.host, url.port, reach, until)?)
            }
            other => Err(format!("`{other}` URLs are not fetched, http and ldap are")),
        }
    }

    /// The addresses of a server, as far as it may be asked.
    fn addresses(
        &self,
        host: &str,
        port: u16,
        reach: Reach,
        until: Instant,
    ) -> Result<Vec<SocketAddr>, String> {
        let found = match host.parse::<IpAddr>() {
            Ok(address) => vec![SocketAddr::new(address, port)],
            Err(_) => self.look_up(host, port, until)?,
        };
        if found.is_empty() {
            return Err(format!("{host} has no address"));
        }
        let may: Vec<SocketAddr> = found.iter().copied().filter(|a| reach.allows(a.ip())).collect();
        if may.is_empty() {
            let first = found.first().map(|a| a.ip().to_string()).unwrap_or_default();
            return Err(format!("{host} is at {first}, where nothing is fetched from"));
        }
        Ok(may)
    }

    fn look_up(&self, host: &str, port: u16, until: Instant) -> Result<Vec<SocketAddr>, String> {
        // The system's resolver has its own idea of patience, so it is left alone with it.
        struct Place(Arc<AtomicUsize>);
        impl Drop for Place {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::AcqRel);
            }
        }
        static LOOKUPS: std::sync::OnceLock<Arc<AtomicUsize>> = std::sync::OnceLock::new();
        let count = LOOKUPS.get_or_init(Arc::default);
        if count.fetch_add(1, Ordering::AcqRel) >= MAX_LOOKUPS {
            count.fetch_sub(1, Ordering::AcqRel);
            return Err("too many names are being looked up".into());
        }
        let place = Place(Arc::clone(count));
        let (to, from) = mpsc::channel();
        let name = host.to_owned();
        let asked = std::thread::Builder::new().name("lookup".into()).spawn(move || {
            let _place = place;
            let found = (name.as_str(), port).to_socket_addrs().map(|all| all.take(8).collect());
            let _ = to.send(found.map_err(|error| error.to_string()));
        });
        asked.map_err(|error| format!("no thread to look {host} up with: {error}"))?;
        match from.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(Ok(found)) => Ok(found),
            Ok(Err(error)) => Err(format!("{host} cannot be looked up: {error}")),
            Err(_) => Err(format!("{host} could not be looked up in time")),
        }
    }
}

impl What {
    fn url(&self) -> &str {
        match self {
            What::Crl { url, .. } | What::Ocsp { url, .. } | What::Certificate { url } => url,
        }
    }

    /// Whether somebody named the server who has proved nothing yet.
    fn is_stranger(&self) -> bool {
        matches!(self, What::Certificate { .. })
    }

    fn server(&self) -> String {
        Url::parse(self.url()).map(|url| format!("{}:{}", url.host, url.port)).unwrap_or_default()
    }
}

impl Reach {
    fn allows(self, address: IpAddr) -> bool {
        if self == Reach::Anywhere {
            return true;
        }
        let address = address.to_canonical();
        if address.is_loopback() || address.is_unspecified() || address.is_multicast() {
            return false;
        }
        let (link, private) = match address {
            IpAddr::V4(v4) => {
                let [a, b, ..] = v4.octets();
                // Shared (RFC 6598), benchmarks, documentation, future use: nobody's public server is there.
                let odd = (a == 100 && (64..128).contains(&b))
                    || (a == 198 && matches!(b, 18 | 19))
                    || a >= 240
                    || a == 0;
                (v4.is_link_local() || v4.is_broadcast(), v4.is_private() || v4.is_documentation() || odd)
            }
            // Public addresses are those of 2000::/3 (RFC 4291 section 2.4); of these, transition prefixes hold an IPv4 address.
            IpAddr::V6(v6) => {
                let first = v6.segments()[0];
                (
                    first & 0xffc0 == 0xfe80,
                    first & 0xe000 != 0x2000 || first == 0x2002 || v6.segments()[..2] == [0x2001, 0],
                )
            }
        };
        !link && (self == Reach::Network || !private)
    }
}

/// A list as a server gives it away.
pub(crate) fn list(octets: Vec<u8>) -> Result<Crl, String> {
    // Some servers send PEM, which RFC 5280 section 4.2.1.13 does not have.
    if octets.starts_with(b"-----BEGIN") {
        let mut lists = crate::load::crls("the CRL", &octets).map_err(|error| error.what)?;
        return match lists.pop() {
            Some(der) if lists.is_empty() => Crl::parse(der),
            _ => Err("not one CRL".into()),
        };
    }
    Crl::parse(octets)
}
