//! The supervisor, as `tussock-gateway` sees it: a thread that hears it, and a way to ask it.

use std::collections::HashMap;
use std::io;
use std::os::fd::AsFd;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ipc::Talk;
use rustix::event::{PollFd, PollFlags, poll};
use spi::Token;

use super::words::Word;

/// Asks that wait for an answer, at most.
const MAX_ASKED: usize = 64;

struct Inner {
    talk: Talk,
    asked: HashMap<Token, Sender<Word>>,
    last: u64,
}

/// Where the supervisor is asked.
#[derive(Clone)]
pub(super) struct Upward(Arc<Mutex<Inner>>);

impl Upward {
    pub(super) fn new(talk: Talk) -> Upward {
        Upward(Arc::new(Mutex::new(Inner { talk, asked: HashMap::new(), last: 0 })))
    }

    /// Answers, or says something unasked.
    pub(super) fn say(&self, token: Token, word: Word) {
        // What is no message is none of ours; whoever waits for it is told so by the end.
        let _ = self.lock().talk.say(token, word);
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// There is none, or none yet.
    pub(super) fn ask(&self, word: Word, patience: Duration) -> Result<Word, String> {
        let (to, from): (_, Receiver<Word>) = channel();
        let token = {
            let mut inner = self.lock();
            if inner.asked.len() >= MAX_ASKED {
                return Err("the supervisor is busy; try again".to_owned());
            }
            inner.last += 1;
            let token = Token(inner.last);
            inner.asked.insert(token, to);
            inner.talk.say(token, word).map_err(|broken| broken.to_string())?;
            token
        };
        from.recv_timeout(patience).map_err(|error| {
            self.lock().asked.remove(&token);
            match error {
                RecvTimeoutError::Timeout => "the supervisor does not answer".to_owned(),
                RecvTimeoutError::Disconnected => "the gateway is ending".to_owned(),
            }
        })
    }

    /// Hears the supervisor on a thread of its own, for ever. `obey` gets what it orders; without a supervisor the process ends.
    ///
    /// # Errors
    /// No thread, no file descriptor.
    pub(super) fn hear(&self, mut obey: impl FnMut(Token, Word) + Send + 'static) -> io::Result<()> {
        let own = self.clone();
        let bell = self.lock().talk.as_fd().try_clone_to_owned()?;
        let run = move || {
            loop {
                let _ = poll(&mut [PollFd::new(&bell, PollFlags::IN)], None);
                while let Some((token, word)) = own.next() {
                    match word {
                        Word::Done(_) | Word::Failed(_) | Word::Devices(_) => own.answered(token, word),
                        word => obey(token, word),
                    }
                }
                if own.lock().talk.is_closed() {
                    // Nobody would look after us, and another gateway may be on its way.
                    std::process::exit(1);
                }
            }
        };
        std::thread::Builder::new().name("supervised".into()).spawn(run).map(drop)
    }

    fn next(&self) -> Option<(Token, Word)> {
        self.lock().talk.hear()
    }

    fn answered(&self, token: Token, word: Word) {
        let waits = self.lock().asked.remove(&token);
        // Whoever asked may have lost patience.
        if let Some(to) = waits {
            let _ = to.send(word);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
