//! What every conversation has in common, whether we are the server, the peer, or carry packets to a RADIUS server.

use crate::grant::Grant;

/// One run of EAP. No clock: whoever holds it gives up on it when the other side is silent.
pub trait Conversation: Send {
    /// Takes a packet of the other side; `None` begins (a server then has its first request to send, a peer nothing).
    fn receive(&mut self, packet: Option<&[u8]>) -> Step;

    /// Goes on after [`Step::Wait`]. Conversations that never wait need not have it.
    fn poll(&mut self) -> Step {
        Step::Wait
    }

    /// Why it has failed, where the other side has been told by a packet of the method and may not answer it any more.
    fn failed(&self) -> Option<String> {
        None
    }

    /// Whether it waits for a [`Judge`](crate::Judge). A packet that has no place in the conversation is [`Step::Wait`], too.
    fn is_judging(&self) -> bool {
        false
    }
}

/// What to do next.
pub enum Step {
    /// Nothing yet: somebody else is asked. Call [`Conversation::poll`] when the doorbell rings that it was made with.
    Wait,
    /// Send this packet.
    Send(Vec<u8>),
    /// The other side is who it says (a server), or we were let in (a peer). Nothing follows.
    Accepted {
        /// EAP-Success to send, if we are the server.
        packet: Option<Vec<u8>>,
        /// What comes with it.
        grant: Box<Grant>,
    },
    /// It is over and failed. Nothing follows.
    Refused {
        /// EAP-Failure to send, if we are the server.
        packet: Option<Vec<u8>>,
        /// Why, for the operator's log; never for the other side. Holds no secret.
        why: String,
    },
}
