//! The SPI for EAP methods (RFC 3748), server side: a method is a state machine over packets.

use crate::secret::Secret;

/// A kind of method.
pub trait EapMethod: Send + Sync {
    /// Type number (IANA "Method Types").
    fn kind(&self) -> u8;

    /// Whether the peer authenticates us too, so that it may stand alone (RFC 5998 section 4).
    fn is_mutual(&self) -> bool;

    /// Begins a conversation with the peer of this identity.
    fn begin(&self, identity: &[u8]) -> Box<dyn EapConversation>;
}

/// One conversation.
pub trait EapConversation: Send {
    /// Takes the peer's last response (`None` at the start): the packet's data after the type octet. Bounded in the number
    /// of rounds by the caller.
    fn step(&mut self, response: Option<&[u8]>) -> EapStep;
}

/// What a method wants next.
#[non_exhaustive]
pub enum EapStep {
    /// Send a request with this data after the type octet.
    Request(Vec<u8>),
    /// A credential source must answer first; call `step` again when it has.
    Wait,
    /// The peer is who it says, with the identity to authorise; the MSK (64 octets) where the method makes one.
    Success {
        /// The authenticated identity, which may differ from the one the peer first gave.
        identity: Vec<u8>,
        /// Master session key (RFC 3748 section 7.10).
        msk: Option<Secret>,
    },
    /// The peer is not.
    Failure,
}
