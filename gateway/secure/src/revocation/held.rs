//! What was fetched before, bounded.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::{Issued, MAX_AGE};
use crate::crl::Crl;
use crate::ocsp::Status;

/// Lists.
const MAX_LISTS: usize = 64;
/// Octets of all lists.
const MAX_OCTETS: usize = 64 << 20;
/// A reason that may go away (RFC 5280 section 5.3.1).
const ON_HOLD: u8 = 6;
/// Answers.
const MAX_ANSWERS: usize = 4096;

/// Lists by URL.
#[derive(Default)]
pub(super) struct Crls {
    lists: HashMap<String, Held>,
    octets: usize,
}

struct Held {
    crl: Arc<Crl>,
    /// `None`: it is due.
    fetched: Option<Instant>,
    used: Instant,
}

impl Crls {
    /// A list that need not be fetched anew.
    pub(super) fn fresh(&mut self, url: &str, at: SystemTime) -> Option<Arc<Crl>> {
        let held = self.lists.get_mut(url)?;
        let young = held.fetched.is_some_and(|fetched| fetched.elapsed() < MAX_AGE);
        let valid = held.crl.next_update.is_some_and(|until| at < until);
        held.used = Instant::now();
        (young && valid).then(|| Arc::clone(&held.crl))
    }

    /// A list, however old.
    pub(super) fn any(&self, url: &str) -> Option<Arc<Crl>> {
        self.lists.get(url).map(|held| Arc::clone(&held.crl))
    }

    /// Whether the list was fetched by this process before.
    pub(super) fn has(&self, url: &str) -> bool {
        self.lists.contains_key(url)
    }

    pub(super) fn keep(&mut self, url: String, crl: Arc<Crl>) {
        self.forget(&url);
        self.octets += crl.der().len();
        let now = Instant::now();
        self.lists.insert(url, Held { crl, fetched: Some(now), used: now });
        while self.lists.len() > MAX_LISTS || self.octets > MAX_OCTETS {
            let oldest = self.lists.iter().min_by_key(|(_, held)| held.used).map(|(url, _)| url.clone());
            let Some(oldest) = oldest else { break };
            self.forget(&oldest);
        }
    }

    pub(super) fn refresh(&mut self) {
        self.lists.values_mut().for_each(|held| held.fetched = None);
    }

    fn forget(&mut self, url: &str) {
        if let Some(held) = self.lists.remove(url) {
            self.octets -= held.crl.der().len();
        }
    }
}

/// What names a certificate: the key of its issuer, and its serial number.
type Name = (Vec<u8>, Vec<u8>);

/// Answers of responders that were found good.
#[derive(Default)]
pub(super) struct Responses {
    answers: HashMap<Name, Answered>,
    order: VecDeque<Name>,
}

struct Answered {
    status: Status,
    octets: Arc<[u8]>,
    until: SystemTime,
}

impl Responses {
    /// What is known of a certificate, while it counts. That it was revoked counts for ever, unless it was only put on hold.
    pub(super) fn status(&self, issued: &Issued, at: SystemTime) -> Option<Status> {
        let answered = self.answers.get(&name(issued))?;
        let for_good = matches!(answered.status, Status::Revoked { reason, .. } if reason != ON_HOLD);
        (at <= answered.until || for_good).then_some(answered.status)
    }

    pub(super) fn octets(&self, issued: &Issued, at: SystemTime) -> Option<Arc<[u8]>> {
        let answered = self.answers.get(&name(issued))?;
        (at <= answered.until).then(|| Arc::clone(&answered.octets))
    }

    /// Keeps an answer for as long as it says, but not for long.
    pub(super) fn keep(
        &mut self,
        issued: &Issued,
        status: Status,
        octets: Arc<[u8]>,
        until: Option<SystemTime>,
        at: SystemTime,
    ) {
        let most = at + MAX_AGE;
        // An answer without an end is good for the moment (RFC 6960 section 4.2.2.1): for those who come with this peer.
        let until = until.map_or(at + Duration::from_secs(60), |until| until.min(most));
        let name = name(issued);
        if self.answers.insert(name.clone(), Answered { status, octets, until }).is_none() {
            self.order.push_back(name);
        }
        while self.order.len() > MAX_ANSWERS
            && let Some(oldest) = self.order.pop_front()
        {
            self.answers.remove(&oldest);
        }
    }

    pub(super) fn clear(&mut self) {
        self.answers.clear();
        self.order.clear();
    }
}

fn name(issued: &Issued) -> Name {
    (issued.issuer.spki.clone(), issued.cert.serial.clone())
}
