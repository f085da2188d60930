//! Message IDs, retransmission and the memory of responses (RFC 7296 sections 2.1 to 2.3).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use policy::Retransmission;

/// A request of ours that waits for its response. The octets are sealed once: every retransmission is the same
/// (RFC 7296 section 2.1).
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// Message ID.
    pub id: u32,
    /// The datagrams: one, or the fragments (RFC 7383).
    pub datagrams: Vec<Vec<u8>>,
    sent_at: Instant,
    next_at: Instant,
    tries: u32,
}

/// What is due for a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Retry<'a> {
    /// Nothing before [`Outgoing::next_at`].
    NotYet,
    /// Send these again.
    Resend(&'a [Vec<u8>]),
    /// The peer counts as dead.
    GiveUp,
}

impl Outgoing {
    /// A request that is being sent now.
    pub fn new(id: u32, datagrams: Vec<Vec<u8>>, now: Instant, policy: &Retransmission) -> Self {
        Outgoing { id, datagrams, sent_at: now, next_at: now + wait(policy, 0), tries: 0 }
    }

    /// Says what is due at `now`, and counts a retransmission as made.
    pub fn handle_timeout(&mut self, now: Instant, policy: &Retransmission) -> Retry<'_> {
        if now < self.next_at {
            return Retry::NotYet;
        }
        if self.tries >= policy.tries {
            return Retry::GiveUp;
        }
        self.tries += 1;
        // From now on, not from when it was due: a late caller must not send a burst.
        self.next_at = now + wait(policy, self.tries);
        Retry::Resend(&self.datagrams)
    }

    /// When something is due.
    pub fn next_at(&self) -> Instant {
        self.next_at
    }

    /// When it was first sent.
    pub fn sent_at(&self) -> Instant {
        self.sent_at
    }

    /// Retransmissions made.
    pub fn tries(&self) -> u32 {
        self.tries
    }
}

/// How long to wait after the `n`th transmission, counted from 0: exponential, bounded, no chance in it.
fn wait(policy: &Retransmission, n: u32) -> Duration {
    let exponent = i32::try_from(n).unwrap_or(i32::MAX);
    let seconds = policy.first.as_secs_f64() * policy.base.max(1.0).powi(exponent);
    // Not a number and infinity end at the limit too.
    if seconds < policy.limit.as_secs_f64() { Duration::from_secs_f64(seconds) } else { policy.limit }
}

/// The requests we send: which ID is next, which ones wait for a response.
#[derive(Debug)]
pub struct SendWindow {
    /// 33 bits would be one too many: past the last ID the SA must be replaced (RFC 7296 section 2.2).
    next: Option<u32>,
    size: u32,
    waiting: VecDeque<Outgoing>,
}

impl SendWindow {
    /// Requests begin at `first`; one may be outstanding until the peer says more.
    pub fn starting_at(first: u32) -> Self {
        SendWindow { next: Some(first), size: 1, waiting: VecDeque::new() }
    }

    /// The peer's SET_WINDOW_SIZE (RFC 7296 section 2.3). A window never shrinks, and is bounded.
    pub fn set_size(&mut self, size: u32) {
        self.size = size.clamp(self.size, MAX_WINDOW);
    }

    /// The ID for a new request; `None` while the window is full (RFC 7296 section 2.3), and for good when the IDs are used
    /// up.
    pub fn next_id(&self) -> Option<u32> {
        let oldest = self.waiting.front().map(|o| o.id).or(self.next)?;
        self.next.filter(|next| next - oldest < self.size)
    }

    /// Whether no request can ever be sent again.
    pub fn is_used_up(&self) -> bool {
        self.next.is_none()
    }

    /// Takes a request that was sealed with [`next_id`](Self::next_id).
    pub fn commit(&mut self, request: Outgoing) {
        debug_assert_eq!(Some(request.id), self.next, "requests are numbered one after the other");
        self.next = request.id.checked_add(1);
        self.waiting.push_back(request);
    }

    /// The request an authenticated response belongs to; `None`: to none that waits, drop it.
    pub fn handle_response(&mut self, id: u32) -> Option<Outgoing> {
        let at = self.waiting.iter().position(|o| o.id == id)?;
        self.waiting.remove(at)
    }

    /// Whether a response with this ID is waited for. Ask before decrypting.
    pub fn is_waiting(&self, id: u32) -> bool {
        self.waiting.iter().any(|o| o.id == id)
    }

    /// The requests that wait, oldest first.
    pub fn waiting(&self) -> impl Iterator<Item = &Outgoing> {
        self.waiting.iter()
    }

    /// The requests that wait, for their retransmission.
    pub fn waiting_mut(&mut self) -> impl Iterator<Item = &mut Outgoing> {
        self.waiting.iter_mut()
    }

    /// When the first retransmission is due.
    pub fn next_at(&self) -> Option<Instant> {
        self.waiting.iter().map(Outgoing::next_at).min()
    }
}

/// Largest window we use towards a peer that offers more.
pub const MAX_WINDOW: u32 = 32;

/// The peer's requests: which are new, which were answered and how.
#[derive(Debug)]
pub struct ReceiveWindow {
    size: u32,
    /// The lowest ID in `slots`. 64 bits, so that arithmetic past the last ID needs no care.
    lowest: u64,
    slots: VecDeque<Slot>,
}

#[derive(Debug)]
enum Slot {
    Empty,
    InProgress,
    Answered(Vec<Vec<u8>>),
}

/// What a request is, by its message ID.
#[derive(Debug, PartialEq, Eq)]
pub enum Incoming<'a> {
    /// Authenticate and carry out.
    New,
    /// Being carried out: drop. The response will come.
    InProgress,
    /// Answered before: send the same octets again, without looking inside.
    Retransmission(&'a [Vec<u8>]),
    /// A later fragment of what was answered before: drop. The first one has the response sent again
    /// (RFC 7383 section 2.6.1).
    LaterFragment,
    /// Answered so long ago that the response is forgotten: drop.
    TooOld,
    /// Beyond the window: drop (RFC 7296 section 2.3).
    Future,
}

impl ReceiveWindow {
    /// Requests begin at `first`; the window has room for `size`, which we announce when it is not 1. As many responses
    /// are remembered.
    pub fn new(first: u32, size: u32) -> Self {
        ReceiveWindow { size: size.clamp(1, MAX_WINDOW), lowest: first.into(), slots: VecDeque::new() }
    }

    /// Says what to do with a request. `fragment` is its fragment number, if it is one.
    pub fn classify(&self, id: u32, fragment: Option<u16>) -> Incoming<'_> {
        let id = u64::from(id);
        let Some(offset) = id.checked_sub(self.lowest) else { return Incoming::TooOld };
        if id >= self.first_open() + u64::from(self.size) {
            return Incoming::Future;
        }
        match usize::try_from(offset).ok().and_then(|i| self.slots.get(i)) {
            None | Some(Slot::Empty) => Incoming::New,
            Some(Slot::InProgress) => Incoming::InProgress,
            Some(Slot::Answered(datagrams)) if fragment.is_none_or(|n| n == 1) => {
                Incoming::Retransmission(datagrams)
            }
            Some(Slot::Answered(_)) => Incoming::LaterFragment,
        }
    }

    /// Notes that an authenticated new request is being carried out; false, and no change, when it is not new.
    pub fn begin(&mut self, id: u32) -> bool {
        if self.classify(id, None) != Incoming::New {
            return false;
        }
        self.set(id, Slot::InProgress);
        true
    }

    /// Keeps the response, and forgets those that the window has left behind.
    pub fn respond(&mut self, id: u32, datagrams: Vec<Vec<u8>>) {
        if !matches!(self.classify(id, None), Incoming::New | Incoming::InProgress) {
            return;
        }
        self.set(id, Slot::Answered(datagrams));
        let keep_from = self.first_open().saturating_sub(self.size.into());
        while self.lowest < keep_from && self.slots.pop_front().is_some() {
            self.lowest += 1;
        }
    }

    /// The lowest request that has not been answered: with window 1, the one that is expected.
    pub fn expected(&self) -> Option<u32> {
        u32::try_from(self.first_open()).ok()
    }

    /// Octets of responses that are remembered.
    pub fn octets(&self) -> usize {
        let answered = self.slots.iter().filter_map(|s| match s {
            Slot::Answered(datagrams) => Some(datagrams),
            _ => None,
        });
        answered.flatten().map(Vec::len).sum()
    }

    fn first_open(&self) -> u64 {
        let answered = self.slots.iter().take_while(|s| matches!(s, Slot::Answered(_))).count();
        self.lowest + answered as u64
    }

    fn set(&mut self, id: u32, state: Slot) {
        // `classify` has bounded the distance by twice the window.
        let Some(offset) = u64::from(id).checked_sub(self.lowest) else { return };
        for _ in self.slots.len() as u64..=offset {
            self.slots.push_back(Slot::Empty);
        }
        if let Some(slot) = self.slots.get_mut(offset as usize) {
            *slot = state;
        }
    }
}
