//! What a method is to the conversation it runs in: one type of EAP, one side.

use spi::Secret;

use crate::grant::{Grant, Granted};

/// The server's side of a method. It sees what follows the type octet, and never a packet twice.
pub(crate) trait ServerMethod: Send {
    /// The first request. `id` is the identifier of the packet it will be in.
    fn begin(&mut self, id: u8) -> Turn;

    /// Takes a response; `id` is the identifier of the packet the next request will be in.
    fn receive(&mut self, data: &[u8], id: u8) -> Turn;

    /// Goes on after [`Turn::Wait`].
    fn poll(&mut self) -> Turn {
        Turn::Wait
    }

    /// Why it has failed, if the peer was told so by the last request.
    fn failed(&self) -> Option<String> {
        None
    }

    /// Whether a judge is waited for.
    fn is_judging(&self) -> bool {
        false
    }
}

/// What a server does next.
pub(crate) enum Turn {
    /// Send this request.
    Ask(Vec<u8>),
    /// The peer is who it says.
    Accept(Proof),
    /// It failed.
    Refuse(String),
    /// The response makes no sense and may not be the peer's: wait for another.
    Ignore,
    /// A judge is asked.
    Wait,
}

/// The peer's side of a method. It sees what follows the type octet, and never a packet twice.
pub(crate) trait PeerMethod: Send {
    /// Takes a request; `id` is the identifier of its packet.
    fn receive(&mut self, data: &[u8], id: u8) -> Reply;

    /// Goes on after [`Reply::Wait`].
    fn poll(&mut self) -> Reply {
        Reply::Wait
    }

    /// Whether a judge is waited for.
    fn is_judging(&self) -> bool {
        false
    }

    /// The server says that it is content. `None` if the method is not at its end, and nobody may say so.
    fn succeed(&self) -> Option<Result<Proof, String>>;
}

/// What a peer does next.
pub(crate) enum Reply {
    /// Send this response.
    Answer(Vec<u8>),
    /// Somebody is asked for the password, or a judge.
    Wait,
    /// The request makes no sense and may not be the server's: wait for another.
    Ignore,
    /// It failed. The response, if there is one, tells the server, which has the last word.
    Fail(Option<Vec<u8>>, String),
}

/// What is said of a server's failure that gives no reason, in answer to a password.
pub(crate) const REFUSED_PASSWORD: &str =
    "the server refused us: a wrong name or password, or a rule of its own";
/// The same in answer to a certificate.
pub(crate) const REFUSED_CERTIFICATE: &str =
    "the server refused us: a certificate that it does not take, or a rule of its own";

/// What was found inside a tunnel.
pub(crate) struct Found {
    /// Who the peer is.
    pub(crate) identity: String,
    /// The method inside, if there is one.
    pub(crate) inner: Option<String>,
    /// The key, if it is not the tunnel's.
    pub(crate) msk: Option<Secret>,
}

/// What a method proved.
pub(crate) struct Proof {
    /// Who the peer is.
    pub(crate) identity: String,
    /// By what.
    pub(crate) method: String,
    /// The key that is left.
    pub(crate) msk: Option<Secret>,
}

impl From<Proof> for Grant {
    fn from(Proof { identity, method, msk }: Proof) -> Self {
        Grant { identity, method, msk, granted: Granted::default() }
    }
}
