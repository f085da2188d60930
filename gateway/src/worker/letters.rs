//! IKE messages: received, sorted by what their senders have shown, and answered. Messages of peers that have proved who they
//! are go first; then those of peers on their way there, which have shown at least that they can be reached; then those of
//! everybody else. A flood of the last is a matter of the last.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Instant;

use ike::{Path, Standing};
use wire::natt::{Datagram, NON_ESP_MARKER, classify};

use super::{KEY_LETTERS, Ready, Worker};
use crate::dispatch::{Class, Served};
use crate::io::outside::{IKE_PORT, NATT_PORT, Sockets};
use crate::io::socket::{Port, Socket};
use crate::io::sys::{Arrived, BATCH, Inbox, Outgoing};

/// Batches taken from one socket in one turn.
const BATCHES: usize = 4;

/// A message that waits.
struct Letter {
    path: Path,
    natt: bool,
    message: Vec<u8>,
}

/// The sockets and what waits.
pub(super) struct Letters {
    sockets: Sockets,
    /// Lent out while it is read.
    inbox: Option<Inbox>,
    proved: VecDeque<Letter>,
    reachable: VecDeque<Letter>,
    strangers: VecDeque<Letter>,
    /// Sockets that may have more.
    unread: Vec<usize>,
    pub(super) served: Served,
    keepalives_in: u64,
}

impl Letters {
    pub(super) fn new(sockets: Sockets) -> Letters {
        Letters {
            sockets,
            inbox: Some(Inbox::new(1 << 16)),
            proved: VecDeque::new(),
            reachable: VecDeque::new(),
            strangers: VecDeque::new(),
            unread: Vec::new(),
            served: Served::default(),
            keepalives_in: 0,
        }
    }

    /// The sockets.
    pub(super) fn sockets(&self) -> &[Socket] {
        self.sockets.all()
    }

    /// Whether something waits.
    pub(super) fn is_waiting(&self) -> bool {
        let lines = [&self.proved, &self.reachable, &self.strangers];
        !self.unread.is_empty() || lines.iter().any(|line| !line.is_empty())
    }

    /// How many wait: of peers that are proved, of all others.
    pub(super) fn gauge(&self) -> (usize, usize) {
        (self.proved.len(), self.reachable.len() + self.strangers.len())
    }

    /// NAT keepalives that came.
    pub(super) fn keepalives_in(&self) -> u64 {
        self.keepalives_in
    }

    /// Sends an IKE message.
    pub(super) fn send(&mut self, path: Path, message: Vec<u8>) {
        let (port, message) = if path.local.port() == IKE_PORT {
            (Port::Ike, message)
        } else {
            // RFC 3948 section 2.2.
            (Port::Natt, [&NON_ESP_MARKER[..], &message].concat())
        };
        let local = path.local.ip();
        match self.sockets.pick(port, local) {
            Some(socket) => {
                // DF clear: a message that is too long for the path had better arrive in fragments than not at all.
                let from = Some(local);
                let out = Outgoing { bytes: &message, to: path.remote, from, tos: 0, segment: 0 };
                socket.send(std::slice::from_ref(&out), false);
            }
            None => tracing::warn!(%local, remote = %path.remote, "no socket to send IKE from"),
        }
    }
}

impl Worker {
    /// Reads what came, and handles what peers have sent that have proved who they are; true when there is more.
    pub(super) fn serve_letters(&mut self, now: Instant, ready: &Ready) -> bool {
        let mut left = self.table.quota(Class::Ike);
        while left > 0
            && let Some(letter) = self.letters.proved.pop_front()
        {
            self.open_letter(now, &letter);
            left -= 1;
        }
        let mut places = std::mem::take(&mut self.letters.unread);
        let readable = ready.others.iter().filter_map(|key| key.checked_sub(KEY_LETTERS));
        places.extend(readable.map(|place| place as usize));
        places.sort_unstable();
        places.dedup();
        for place in places {
            if self.receive(now, place, &mut left) {
                self.letters.unread.push(place);
            }
        }
        let more = !self.letters.proved.is_empty();
        self.letters.served.note(Class::Ike, more);
        more || !self.letters.unread.is_empty()
    }

    /// Handles what everybody else has sent; true when there is more.
    pub(super) fn serve_strangers(&mut self, now: Instant) -> bool {
        for _ in 0..self.table.quota(Class::Stranger) {
            let letters = &mut self.letters;
            let Some(letter) = letters.reachable.pop_front().or_else(|| letters.strangers.pop_front()) else {
                return false;
            };
            self.open_letter(now, &letter);
        }
        self.letters.served.note(Class::Stranger, true);
        true
    }

    /// An IKE message that came to a socket for ESP.
    pub(super) fn strange_letter(&mut self, local: SocketAddr, remote: SocketAddr, message: Vec<u8>) {
        let letter = Letter { path: Path { local, remote }, natt: true, message };
        let standing = self.engine.standing(&letter.message);
        self.keep(letter, standing);
    }

    /// Takes what a socket has, up to a bound; true when there may be more.
    fn receive(&mut self, now: Instant, place: usize, left: &mut usize) -> bool {
        let Some(mut inbox) = self.letters.inbox.take() else { return false };
        let mut more = true;
        for _ in 0..BATCHES {
            let Some(socket) = self.letters.sockets.at(place) else { break };
            let (port, bound) = (socket.port(), socket.bound());
            match socket.receive(&mut inbox, BATCH) {
                Ok(count) => {
                    for (arrived, bytes) in inbox.datagrams() {
                        self.sort(now, port, bound, arrived, bytes, left);
                    }
                    if count < BATCH {
                        more = false;
                        break;
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => {
                    more = false;
                    break;
                }
            }
        }
        self.letters.inbox = Some(inbox);
        // IKE messages are small, and fragments of its own are what it has against small paths. But to the kernel all sockets of
        // port 4500 are alike when an error comes back for a packet that one of them has sent.
        if let Some(socket) = self.letters.sockets.at(place)
            && socket.has_errors()
        {
            let errors: Vec<_> = socket.take_errors().collect();
            self.lanes.own.learn(errors);
        }
        more
    }

    fn sort(
        &mut self,
        now: Instant,
        port: Port,
        bound: SocketAddr,
        arrived: &Arrived,
        bytes: &[u8],
        left: &mut usize,
    ) {
        let own = arrived.to.unwrap_or(bound.ip());
        let natt = port == Port::Natt;
        let local = SocketAddr::new(own, if natt { NATT_PORT } else { IKE_PORT });
        let length = if arrived.segment == 0 { bytes.len().max(1) } else { arrived.segment };
        for datagram in bytes.chunks(length) {
            let message = match natt.then(|| classify(datagram)) {
                None => datagram,
                Some(Datagram::Ike(message)) => message,
                Some(Datagram::Keepalive) => {
                    self.letters.keepalives_in += 1;
                    continue;
                }
                // Lane sockets get those; here they come only in the moment before the kernel was told.
                Some(_) => {
                    self.letters.served.garbage += 1;
                    continue;
                }
            };
            let path = Path { local, remote: arrived.from };
            let standing = self.engine.standing(message);
            if standing == Standing::Proved && *left > 0 && self.letters.proved.is_empty() {
                *left -= 1;
                self.engine.handle_datagram(now, path, message, natt, &mut self.fx);
                self.carry_out(now);
            } else {
                self.keep(Letter { path, natt, message: message.to_vec() }, standing);
            }
        }
    }

    fn keep(&mut self, letter: Letter, standing: Standing) {
        let (class, line) = match standing {
            Standing::Proved => (Class::Ike, &mut self.letters.proved),
            Standing::Reachable => (Class::Stranger, &mut self.letters.reachable),
            Standing::Stranger => (Class::Stranger, &mut self.letters.strangers),
        };
        if line.len() < self.table.depth(class) {
            line.push_back(letter);
        } else {
            self.letters.served.drop(class);
        }
    }

    fn open_letter(&mut self, now: Instant, letter: &Letter) {
        let Letter { path, natt, message } = letter;
        self.engine.handle_datagram(now, *path, message, *natt, &mut self.fx);
        self.carry_out(now);
    }
}
