//! Whether certificates that were shown in TLS inside EAP were revoked. Conversations ask, [`Authority`](crate::authority::Authority) has
//! it found out by the machinery that certificates in IKE go through, path and status, and the conversation goes on when it rings.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use eap::{Inquiry, Judge};
use ipc::IkeSaRef;
use policy::Identity;
use spi::Doorbell;

use crate::config::RevocationMode;
use crate::revocation::Policy;

/// Whom a realm believes in TLS, and how it looks at revocation.
pub(crate) struct EapTrust {
    /// DER of its CAs.
    pub(crate) anchors: Arc<[Vec<u8>]>,
    /// `None`: revocation is not looked at.
    pub(crate) policy: Option<Arc<Policy>>,
}

impl EapTrust {
    /// Whether a certificate that passed here would pass there as well.
    ///
    /// # Errors
    /// What there is more to it, in words.
    pub(crate) fn suffices_for(&self, other: &EapTrust) -> Result<(), &'static str> {
        if self.anchors.iter().any(|ca| !other.anchors.contains(ca)) {
            return Err("believes other CAs");
        }
        if other.mode() > self.mode() {
            return Err("is stricter about revocation");
        }
        Ok(())
    }

    fn mode(&self) -> RevocationMode {
        self.policy.as_ref().map_or(RevocationMode::Off, |policy| policy.mode)
    }
}

/// What conversations ask.
#[derive(Clone)]
pub(crate) struct Inquiries {
    asked: Arc<Mutex<VecDeque<Asked>>>,
    bell: Doorbell,
}

/// A chain to judge.
pub(crate) struct Asked {
    pub(crate) chain: Vec<Vec<u8>>,
    pub(crate) anchors: Arc<[Vec<u8>]>,
    pub(crate) policy: Arc<Policy>,
    pub(crate) about: About,
    /// The moment that counts.
    pub(crate) at: SystemTime,
    answer: Answer,
    bell: Doorbell,
}

/// In which conversation.
#[derive(Clone)]
pub(crate) struct About {
    pub(crate) realm: Arc<str>,
    pub(crate) peer: Identity,
    pub(crate) sa: IkeSaRef,
}

type Answer = Arc<Mutex<Option<Result<(), String>>>>;

impl Inquiries {
    /// `bell` is the one that conversations wake up by.
    pub(crate) fn new(bell: Doorbell) -> Self {
        Inquiries { asked: Arc::default(), bell }
    }

    /// Who is asked in a conversation, where there is anything to be found out.
    pub(crate) fn judge(&self, trust: &EapTrust, about: About) -> Option<Arc<dyn Judge>> {
        let policy = Arc::clone(trust.policy.as_ref()?);
        Some(Arc::new(Court { inquiries: self.clone(), anchors: Arc::clone(&trust.anchors), policy, about }))
    }

    /// The next one that somebody still waits for.
    pub(crate) fn next(&self) -> Option<Asked> {
        let mut asked = lock(&self.asked);
        std::iter::from_fn(|| asked.pop_front()).find(|asked| Arc::strong_count(&asked.answer) > 1)
    }
}

impl Asked {
    /// Everything that was asked is answered: the conversation waits for nothing else.
    pub(crate) fn answer(self, verdict: Result<(), String>) {
        *lock(&self.answer) = Some(verdict);
        self.bell.ring();
    }
}

struct Court {
    inquiries: Inquiries,
    anchors: Arc<[Vec<u8>]>,
    policy: Arc<Policy>,
    about: About,
}

impl Judge for Court {
    fn begin(&self, chain: Vec<Vec<u8>>) -> Box<dyn Inquiry> {
        let answer = Answer::default();
        let asked = Asked {
            chain,
            anchors: Arc::clone(&self.anchors),
            policy: Arc::clone(&self.policy),
            about: self.about.clone(),
            at: SystemTime::UNIX_EPOCH,
            answer: Arc::clone(&answer),
            bell: self.inquiries.bell.clone(),
        };
        lock(&self.inquiries.asked).push_back(asked);
        Box::new(Pending(answer))
    }
}

struct Pending(Answer);

impl Inquiry for Pending {
    fn poll(&mut self) -> Option<Result<(), String>> {
        lock(&self.0).take()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
