//! Questions to the key side: the engine's and our own share one channel, and each gets its answer.

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;

use ipc::{NetworkEnd, Refusal, Reply, Request};
use spi::{InFlight, Token};

/// Questions that may be out or waiting for room.
const LIMIT: usize = 8192;
/// `Forget`s and questions that may wait for room. A key side that is so far behind is not going to catch up.
const MAX_WAITING: usize = 1 << 18;
/// Answers taken in one turn.
const BUDGET: usize = 64;

/// Why a question is refused that a key side did not live to answer.
pub(super) const GONE: &str = "the key side is gone";

/// Whose question it was.
pub(super) enum Asker {
    /// The engine's, with its own name for it.
    Engine(Token),
    /// Ours: this TUN device.
    Tun(String),
    /// Ours: what is to be done to sessions. Answered when there is something.
    Orders,
    /// Ours: something happened to a session; its number.
    Account(u64),
    /// Ours: this TUN device, which we have already.
    Adopted(String),
    /// Ours: what was asked, for the log.
    Own(String),
}

/// The channel with a waiting line before it.
pub(super) struct Ask {
    end: NetworkEnd,
    out: InFlight<Asker>,
    /// In their order; what has no answer has no token.
    waiting: VecDeque<(Option<Token>, Request)>,
    refused: VecDeque<(Asker, Reply)>,
}

impl Ask {
    pub(super) fn new(end: NetworkEnd) -> Ask {
        Ask { end, out: InFlight::new(LIMIT), waiting: VecDeque::new(), refused: VecDeque::new() }
    }

    /// Asks.
    pub(super) fn ask(&mut self, asker: Asker, request: Request) {
        if let Request::Forget { .. } = request {
            if self.waiting.len() >= MAX_WAITING {
                return;
            }
            // Never before a question about the same IKE SA, which would be remembered for ever.
            self.waiting.push_back((None, request));
            return self.push();
        }
        match self.out.insert(asker) {
            Ok(token) => {
                self.waiting.push_back((Some(token), request));
                self.push();
            }
            Err(asker) => {
                let refusal = Refusal::System("too many questions to the key side at once".into());
                self.refused.push_back((asker, Reply::Refused(refusal)));
            }
        }
    }

    /// Takes answers; true when there may be more at once.
    pub(super) fn poll(&mut self, mut on_reply: impl FnMut(Asker, Reply)) -> bool {
        while let Some((asker, reply)) = self.refused.pop_front() {
            on_reply(asker, reply);
        }
        let out = &mut self.out;
        let count = self.end.poll(BUDGET, |token, reply| {
            if let Some(asker) = out.take(token) {
                on_reply(asker, reply);
            }
        });
        self.push();
        count == BUDGET || !self.refused.is_empty()
    }

    /// Another key side answers from now on. What the one before was asked is refused.
    pub(super) fn renew(&mut self, end: NetworkEnd) {
        self.end = end;
        self.waiting.clear();
        let out: Vec<Token> = self.out.iter().map(|(token, _)| token).collect();
        for token in out {
            if let Some(asker) = self.out.take(token) {
                let refusal = Refusal::System(GONE.into());
                self.refused.push_back((asker, Reply::Refused(refusal)));
            }
        }
    }

    /// Questions not answered yet.
    pub(super) fn pending(&self) -> usize {
        self.out.len()
    }

    /// Readable when [`poll`](Ask::poll) has something to say.
    pub(super) fn doorbell(&self) -> BorrowedFd<'_> {
        self.end.doorbell()
    }

    /// Whether [`poll`](Ask::poll) has something to say that no bell rang for.
    pub(super) fn has_refused(&self) -> bool {
        !self.refused.is_empty()
    }

    /// Whether there is nobody to ask any more.
    pub(super) fn is_closed(&self) -> bool {
        self.end.is_closed()
    }

    fn push(&mut self) {
        while let Some((token, request)) = self.waiting.pop_front() {
            match self.end.submit(token.unwrap_or(Token(0)), request) {
                Ok(()) => {}
                Err(unsent) if unsent.closed => {
                    // What was to be forgotten is gone with the other side.
                    if let Some(asker) = token.and_then(|token| self.out.take(token)) {
                        let refusal = Refusal::System(GONE.into());
                        self.refused.push_back((asker, Reply::Refused(refusal)));
                    }
                }
                Err(unsent) => {
                    self.waiting.push_front((token, *unsent.request));
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipc::{Received, TunSpec};

    fn question() -> Request {
        Request::OpenTun(TunSpec { name: "t".into(), mtu: 1400, queues: 1, offload: false, ethernet: false })
    }

    #[test]
    fn what_does_not_fit_waits_its_turn_and_everyone_gets_an_answer() {
        let (end, mut secure) = ipc::pair_of(1).unwrap();
        let mut ask = Ask::new(end);
        ask.ask(Asker::Engine(Token(7)), question());
        ask.ask(Asker::Own("second".into()), question());
        let mut answered = Vec::new();
        for _ in 0..4 {
            if let Received::Request(token, _) = secure.try_recv() {
                secure.reply(token, Reply::Ok);
            }
            ask.poll(|asker, _| {
                answered.push(match asker {
                    Asker::Engine(token) => token.0.to_string(),
                    Asker::Own(what) | Asker::Tun(what) | Asker::Adopted(what) => what,
                    Asker::Orders => "orders".to_owned(),
                    Asker::Account(number) => number.to_string(),
                })
            });
        }
        assert_eq!(answered, ["7", "second"]);
        assert_eq!(ask.pending(), 0);
    }

    #[test]
    fn an_ike_sa_is_not_forgotten_before_it_is_asked_about() {
        let (end, mut secure) = ipc::pair_of(1).unwrap();
        let mut ask = Ask::new(end);
        ask.ask(Asker::Engine(Token(1)), question());
        ask.ask(Asker::Engine(Token(2)), question());
        ask.ask(Asker::Engine(Token(0)), Request::Forget { sa: ipc::IkeSaRef(2) });
        let mut seen = Vec::new();
        for _ in 0..6 {
            if let Received::Request(token, request) = secure.try_recv() {
                seen.push(matches!(*request, Request::Forget { .. }));
                secure.reply(token, Reply::Ok);
            }
            ask.poll(|_, _| ());
        }
        assert_eq!(seen, [false, false, true]);
    }

    #[test]
    fn when_the_key_side_is_gone_every_question_is_refused() {
        let (end, secure) = ipc::pair_of(4).unwrap();
        let mut ask = Ask::new(end);
        ask.ask(Asker::Engine(Token(1)), question());
        drop(secure);
        ask.ask(Asker::Engine(Token(2)), question());
        assert!(ask.is_closed() && ask.has_refused(), "there is something to poll for, though no bell rings");
        let mut refused = 0;
        ask.poll(|_, reply| refused += usize::from(matches!(reply, Reply::Refused(_))));
        assert_eq!((refused, ask.pending()), (2, 0));
    }
}
