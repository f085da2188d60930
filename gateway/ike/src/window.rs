//! Message IDs, retransmission and the memory of responses (RFC 7296 sections 2.1 to 2.3).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use policy::Retransmission;

use crate::datagrams::Datagrams;

/// A request of ours that waits for its response. The octets are sealed once: every retransmission is the same
/// (RFC 7296 section 2.1).
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// Message ID.
    pub id: u32,
    /// What is sent again.
    pub datagrams: Datagrams,
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
    Resend(&'a Datagrams),
    /// The peer counts as dead.
    GiveUp,
}

impl Outgoing {
    /// A request that is being sent now.
    pub fn new(id: u32, datagrams: Datagrams, now: Instant, policy: &Retransmission) -> Self {
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
    /// Oldest first. Mostly empty, and then without memory.
    waiting: Vec<Outgoing>,
}

impl SendWindow {
    /// Requests begin at `first`; one may be outstanding until the peer says more.
    pub fn starting_at(first: u32) -> Self {
        SendWindow { next: Some(first), size: 1, waiting: Vec::new() }
    }

    /// The peer's SET_WINDOW_SIZE (RFC 7296 section 2.3). A window never shrinks, and is bounded.
    pub fn set_size(&mut self, size: u32) {
        self.size = size.clamp(self.size, MAX_WINDOW);
    }

    /// The ID for a new request; `None` while the window is full (RFC 7296 section 2.3), and for good when the IDs are used
    /// up.
    pub fn next_id(&self) -> Option<u32> {
        let oldest = self.waiting.first().map(|o| o.id).or(self.next)?;
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
        self.waiting.reserve_exact(1);
        self.waiting.push(request);
    }

    /// The request an authenticated response belongs to; `None`: to none that waits, drop it.
    pub fn handle_response(&mut self, id: u32) -> Option<Outgoing> {
        let at = self.waiting.iter().position(|o| o.id == id)?;
        let request = self.waiting.remove(at);
        self.waiting.shrink_to_fit();
        Some(request)
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
    Answered(Datagrams),
}

/// What a request is, by its message ID.
#[derive(Debug, PartialEq, Eq)]
pub enum Incoming<'a> {
    /// Authenticate and carry out.
    New,
    /// Being carried out: drop. The response will come.
    InProgress,
    /// Answered before: send the same octets again, without looking inside.
    Retransmission(&'a Datagrams),
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
    pub fn respond(&mut self, id: u32, datagrams: Datagrams) {
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
        answered.map(Datagrams::octets).sum()
    }

    fn first_open(&self) -> u64 {
        let answered = self.slots.iter().take_while(|s| matches!(s, Slot::Answered(_))).count();
        self.lowest + answered as u64
    }

    fn set(&mut self, id: u32, state: Slot) {
        // `classify` has bounded the distance by twice the window.
        let Some(offset) = u64::from(id).checked_sub(self.lowest) else { return };
        for _ in self.slots.len() as u64..=offset {
            self.slots.reserve_exact(1);
            self.slots.push_back(Slot::Empty);
        }
        if let Some(slot) = self.slots.get_mut(offset as usize) {
            *slot = state;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn response(id: u32) -> Datagrams {
        Datagrams::new(&[id.to_be_bytes().to_vec()])
    }

    fn answered(first: u32, size: u32, ids: impl IntoIterator<Item = u32>) -> ReceiveWindow {
        let mut window = ReceiveWindow::new(first, size);
        for id in ids {
            assert!(window.begin(id), "{id}");
            window.respond(id, response(id));
        }
        window
    }

    #[test]
    fn window_of_one_takes_requests_in_order_only() {
        let mut w = ReceiveWindow::new(0, 1);
        assert_eq!(w.classify(0, None), Incoming::New);
        assert_eq!(w.classify(1, None), Incoming::Future);
        assert_eq!(w.classify(u32::MAX, None), Incoming::Future);
        assert!(w.begin(0) && !w.begin(0));
        assert_eq!(w.classify(0, None), Incoming::InProgress);
        assert_eq!(w.classify(1, None), Incoming::Future, "the first is not answered yet");
        w.respond(0, response(0));
        assert_eq!(w.classify(0, None), Incoming::Retransmission(&response(0)));
        assert_eq!((w.classify(1, None), w.expected()), (Incoming::New, Some(1)));
        assert!(w.begin(1));
        assert_eq!(w.classify(0, None), Incoming::Retransmission(&response(0)), "until the next is answered");
        w.respond(1, response(1));
        assert_eq!(w.classify(0, None), Incoming::TooOld);
        assert_eq!(w.classify(2, None), Incoming::New);
    }

    #[test]
    fn response_is_kept_as_it_was_first_given() {
        let mut w = answered(5, 1, [5]);
        w.respond(5, response(99));
        w.respond(4, response(99));
        w.respond(77, response(99));
        assert_eq!(w.classify(5, None), Incoming::Retransmission(&response(5)));
        assert_eq!((w.expected(), w.octets()), (Some(6), 4));
    }

    #[test]
    fn only_the_first_fragment_has_a_response_sent_again() {
        let w = answered(0, 1, [0]);
        assert_eq!(w.classify(0, Some(1)), Incoming::Retransmission(&response(0)));
        assert_eq!(w.classify(0, Some(2)), Incoming::LaterFragment);
        assert_eq!(w.classify(1, Some(2)), Incoming::New);
    }

    #[test]
    fn wider_window_takes_requests_out_of_order() {
        let mut w = answered(0, 3, [2, 1]);
        assert_eq!(w.classify(3, None), Incoming::Future, "0 is missing");
        assert_eq!(w.classify(2, None), Incoming::Retransmission(&response(2)));
        assert_eq!(w.expected(), Some(0));
        assert!(w.begin(0));
        w.respond(0, response(0));
        assert_eq!(w.expected(), Some(3));
        assert_eq!(w.classify(5, None), Incoming::New);
        assert_eq!(w.classify(6, None), Incoming::Future);
        assert_eq!(w.classify(0, None), Incoming::Retransmission(&response(0)));
    }

    #[test]
    fn last_message_id_is_answered_and_nothing_follows() {
        let w = answered(u32::MAX - 1, 1, [u32::MAX - 1, u32::MAX]);
        assert_eq!(w.classify(u32::MAX, None), Incoming::Retransmission(&response(u32::MAX)));
        assert_eq!(w.classify(0, None), Incoming::TooOld);
        assert_eq!(w.expected(), None);
    }

    fn policy() -> Retransmission {
        Retransmission { tries: 3, first: Duration::from_secs(2), base: 2.0, limit: Duration::from_secs(6) }
    }

    #[test]
    fn retransmissions_back_off_to_the_limit_and_end() {
        let (t0, s) = (Instant::now(), Duration::from_secs);
        let mut out = Outgoing::new(4, Datagrams::new(&[vec![1]]), t0, &policy());
        let mut waits = Vec::new();
        let mut now = t0;
        loop {
            let next = out.next_at();
            assert_eq!(out.handle_timeout(next - Duration::from_millis(1), &policy()), Retry::NotYet);
            waits.push(next - now);
            now = next;
            match out.handle_timeout(now, &policy()) {
                Retry::Resend(datagrams) => assert!(datagrams.iter().eq([&[1][..]])),
                Retry::GiveUp => break,
                Retry::NotYet => panic!("was due"),
            }
        }
        assert_eq!(waits, [s(2), s(4), s(6), s(6)], "three retransmissions, and a last wait");
        assert_eq!((out.tries(), out.sent_at()), (3, t0));
    }

    #[test]
    fn senseless_settings_neither_panic_nor_storm() {
        for (first, base) in [(0.0, f64::NAN), (1e9, f64::INFINITY), (1.0, -3.0), (3.0, 1e300)] {
            let policy =
                Retransmission { tries: u32::MAX, first: Duration::from_secs_f64(first), base, ..policy() };
            for n in [0, 1, 2, 1000, u32::MAX] {
                assert!(wait(&policy, n) <= policy.limit, "{base} {n}");
            }
        }
    }

    #[test]
    fn full_send_window_gives_no_id_until_a_response_comes() {
        let mut w = SendWindow::starting_at(0);
        let now = Instant::now();
        let send = |w: &mut SendWindow| {
            let id = w.next_id().unwrap();
            w.commit(Outgoing::new(id, Datagrams::default(), now, &policy()));
            id
        };
        assert_eq!(send(&mut w), 0);
        assert_eq!(w.next_id(), None);
        w.set_size(3);
        assert_eq!((send(&mut w), send(&mut w)), (1, 2));
        assert_eq!(w.next_id(), None);
        assert!(w.handle_response(1).is_some() && w.handle_response(1).is_none());
        assert_eq!(w.next_id(), None, "0 still waits, and the window counts from the oldest");
        assert!(w.handle_response(7).is_none() && w.handle_response(0).is_some());
        assert_eq!(w.next_id(), Some(3));
        w.set_size(1);
        assert_eq!((send(&mut w), w.is_waiting(2), w.waiting().count()), (3, true, 2));
        w.set_size(u32::MAX);
        assert_eq!(w.size, MAX_WINDOW);
    }

    #[test]
    fn send_window_is_used_up_after_the_last_id() {
        let mut w = SendWindow::starting_at(u32::MAX);
        w.commit(Outgoing::new(u32::MAX, Datagrams::default(), Instant::now(), &policy()));
        w.handle_response(u32::MAX).unwrap();
        assert_eq!((w.next_id(), w.is_used_up()), (None, true));
    }

    proptest! {
        /// Whatever arrives in whatever order: no request is carried out twice, none out of the window, and memory is bounded.
        #[test]
        fn no_request_is_new_twice(size in 1u32..6, steps in prop::collection::vec((0u32..40, any::<bool>()), 0..200)) {
            let mut w = ReceiveWindow::new(0, size);
            let mut begun = std::collections::BTreeSet::new();
            for (id, answer) in steps {
                let expected = w.expected().unwrap();
                if w.classify(id, None) == Incoming::New {
                    prop_assert!(begun.insert(id));
                    prop_assert!(expected <= id && id < expected + size);
                    prop_assert!(w.begin(id));
                }
                if answer && w.classify(id, None) == Incoming::InProgress {
                    w.respond(id, response(id));
                }
                prop_assert!(w.slots.len() <= 2 * size as usize);
                prop_assert!(begun.range(..w.expected().unwrap()).count() as u32 == w.expected().unwrap());
            }
        }
    }
}
