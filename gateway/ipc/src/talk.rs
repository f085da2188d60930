//! A conversation between two processes in messages of whatever kind, with the bounds that the channel has.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use spi::Token;

use crate::codec::{Broken, Message};
use crate::frame;
use crate::socket::{Party, Wire};

/// One end of it.
pub struct Talk(Wire);

impl Talk {
    /// The end in this process of a socket pair ([`socket_pair`](crate::socket_pair)) whose other end `party` has.
    ///
    /// # Errors
    /// What the system says.
    pub fn new(socket: OwnedFd, party: Option<Party>) -> io::Result<Talk> {
        Wire::new(socket, party).map(Talk)
    }

    /// Says something. Never waits: what the other side does not read yet is kept.
    ///
    /// # Errors
    /// It is no message that the other side would take.
    pub fn say(&mut self, token: Token, mut message: impl Message) -> Result<(), Broken> {
        self.0.unsent.extend(frame::cut(token, &mut message)?);
        self.0.flush();
        Ok(())
    }

    /// What the other side says, if it says something.
    pub fn hear<M: Message>(&mut self) -> Option<(Token, M)> {
        self.0.flush();
        self.0.receive()
    }

    /// Whether the other side is gone, or said what nobody says.
    pub fn is_closed(&self) -> bool {
        self.0.closed
    }
}

impl AsFd for Talk {
    /// Readable when [`hear`](Talk::hear) is worth a try.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.epoll.as_fd()
    }
}
