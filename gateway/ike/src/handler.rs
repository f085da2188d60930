//! Extensions are handlers on the path of messages: each may add payloads to what we send and look at what the peer sent. A
//! new extension is a file beside this one and a line in [`standard`].
//!
//! A handler that needs a device or the key side suspends the exchange: it issues the job, returns [`Flow::Suspend`] and is
//! called again by [`Handler::resume`] with the answer; then the handlers after it have their turn. Meanwhile the exchange
//! stands still and its retransmissions are dropped by the window.

mod certreq;
pub(crate) mod cfg;
mod childless;
mod contact;
mod cookie;
mod frag;
mod hashes;
mod lifetime;
mod natd;
mod vendor;

use std::sync::Arc;

use spi::{CryptoOutput, Outcome, Token};
use wire::ike::{Flags, Header, Notify, Payload, Spi};
use wire::numbers::ExchangeType;

use crate::core::{Core, DownKind};
use crate::effect::{Path, Why};
use crate::sa::IkeSa;

pub(crate) use certreq::note_authorities;

/// Which message is being built, or has come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    InitRequest,
    InitResponse,
    AuthRequest,
    AuthResponse,
    InformationalRequest,
    InformationalResponse,
}

/// What a handler makes of a message.
pub(crate) enum Flow {
    /// Nothing against it.
    Continue,
    /// The answer to this job is needed first. Only where an exchange can wait: IKE_SA_INIT and IKE_AUTH.
    #[cfg_attr(not(test), allow(dead_code, reason = "for extensions; none of the present ones needs it"))]
    Suspend(Token),
    /// The answer to a question that is not for a device is needed first; then the handler sees the message again.
    Await(Token),
    /// Our request must be built anew and sent again (response to IKE_SA_INIT only).
    Again,
    /// The exchange fails.
    #[cfg_attr(not(test), allow(dead_code, reason = "for extensions; none of the present ones needs it"))]
    Refuse(Notify, Why),
}

/// A request that begins an IKE SA, before anything is kept of it.
pub(crate) struct Stranger<'a> {
    pub(crate) path: Path,
    pub(crate) header: Header,
    pub(crate) payloads: &'a [Payload],
}

/// Whether a stranger is let in.
pub(crate) enum Admission {
    Yes,
    /// Answered statelessly with this.
    Answer(Vec<Payload>),
    /// Without a word.
    Drop(&'static str),
}

/// An extension.
pub(crate) trait Handler: Send + Sync {
    /// Looks at a stranger.
    fn admit(&self, _cx: &mut Core, _stranger: &Stranger<'_>) -> Admission {
        Admission::Yes
    }

    /// Adds payloads to a message of ours.
    fn build(&self, _stage: Stage, _sa: &mut IkeSa, _cx: &mut Core, _out: &mut Vec<Payload>) {}

    /// Looks at a message of the peer. In IKE_AUTH the peer has proved who it is.
    fn receive(&self, _stage: Stage, _sa: &mut IkeSa, _cx: &mut Core, _message: &[Payload]) -> Flow {
        Flow::Continue
    }

    /// Goes on after [`Flow::Suspend`].
    fn resume(
        &self,
        _stage: Stage,
        _sa: &mut IkeSa,
        _cx: &mut Core,
        _message: &[Payload],
        _answer: (Outcome, CryptoOutput),
    ) -> Flow {
        Flow::Continue
    }
}

/// The handlers in their order.
pub(crate) type Handlers = Arc<[Box<dyn Handler>]>;

/// The extensions there are. Order matters in two places: COOKIE before anything that costs, and configuration after
/// INITIAL_CONTACT.
pub(crate) fn standard() -> Handlers {
    Arc::new([
        Box::new(cookie::Cookie),
        Box::new(natd::NatDetection),
        Box::new(vendor::OurOwn),
        Box::new(frag::Fragmentation),
        Box::new(hashes::SignatureHashes),
        Box::new(certreq::CertRequests),
        Box::new(childless::Childless),
        Box::new(contact::InitialContact),
        Box::new(lifetime::AuthLifetime),
        Box::new(cfg::Configuration),
    ])
}

/// What the extensions remember of an IKE SA.
#[derive(Default)]
pub(crate) struct Extensions {
    /// The peer reassembles fragments, and our policy allows them.
    pub(crate) fragments: bool,
    /// The peer is another gateway of this kind.
    pub(crate) peer_is_ours: bool,
    /// The peer takes IKE SAs without a child.
    pub(crate) childless: bool,
    /// The peer said INITIAL_CONTACT.
    pub(crate) initial_contact: bool,
    /// EAP proves both sides (RFC 5998).
    pub(crate) eap_alone: bool,
    /// Inner addresses, where there are any.
    pub(crate) cfg: Option<Box<cfg::Inner>>,
}

impl Extensions {
    /// Inner addresses.
    pub(crate) fn cfg(&self) -> &cfg::Inner {
        self.cfg.as_deref().unwrap_or(&cfg::NONE)
    }

    /// What outlives a rekey.
    pub(crate) fn inherit(&mut self) -> Extensions {
        Extensions {
            fragments: self.fragments,
            peer_is_ours: self.peer_is_ours,
            childless: self.childless,
            initial_contact: false,
            eap_alone: false,
            cfg: None,
        }
    }
}

/// An exchange that waits for a handler.
pub(crate) struct Suspended {
    stage: Stage,
    handler: usize,
    message: Vec<Payload>,
    pub(crate) token: Token,
    kind: Awaited,
}

/// Whose answer is awaited; their tokens are not of one kind.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Awaited {
    Device,
    Answer,
}

impl Suspended {
    fn is(&self, kind: Awaited, token: Token) -> bool {
        self.kind == kind && self.token == token
    }
}

impl IkeSa {
    /// Has every handler add to a message of ours.
    pub(crate) fn extend(&mut self, cx: &mut Core, stage: Stage, out: &mut Vec<Payload>) {
        let handlers = cx.handlers.clone();
        for handler in handlers.iter() {
            handler.build(stage, self, cx, out);
        }
    }

    /// Shows a message to every handler, then goes on with the exchange ([`IkeSa::proceed`]).
    pub(crate) fn examine(&mut self, cx: &mut Core, stage: Stage, message: Vec<Payload>) {
        self.examine_from(cx, stage, message, 0);
    }

    fn examine_from(&mut self, cx: &mut Core, stage: Stage, message: Vec<Payload>, first: usize) {
        let handlers = cx.handlers.clone();
        for (index, handler) in handlers.iter().enumerate().skip(first) {
            let flow = handler.receive(stage, self, cx, &message);
            match self.obey(cx, stage, flow) {
                Step::Next => {}
                Step::Wait(kind, token) => {
                    let suspended = Suspended { stage, handler: index, message, token, kind };
                    self.suspended = Some(Box::new(suspended));
                    return;
                }
                Step::Stop => return,
            }
        }
        self.proceed(cx, stage, message);
    }

    /// The answer a suspended exchange waited for.
    pub(crate) fn resume(&mut self, cx: &mut Core, token: Token, answer: (Outcome, CryptoOutput)) {
        let Some(suspended) = self.suspended.take_if(|s| s.is(Awaited::Device, token)) else { return };
        let Suspended { stage, handler: index, message, .. } = *suspended;
        let handlers = cx.handlers.clone();
        let Some(handler) = handlers.get(index) else { return };
        let flow = handler.resume(stage, self, cx, &message, answer);
        match self.obey(cx, stage, flow) {
            Step::Next => self.examine_from(cx, stage, message, index + 1),
            Step::Wait(kind, token) => {
                self.suspended = Some(Box::new(Suspended { stage, handler: index, message, token, kind }));
            }
            Step::Stop => {}
        }
    }

    /// Shows a message once more to the handler that waited for an answer, and then to those after it.
    pub(crate) fn look_again(&mut self, cx: &mut Core, token: Token) {
        if let Some(suspended) = self.suspended.take_if(|s| s.is(Awaited::Answer, token)) {
            let Suspended { stage, handler, message, .. } = *suspended;
            self.examine_from(cx, stage, message, handler);
        }
    }

    fn obey(&mut self, cx: &mut Core, stage: Stage, flow: Flow) -> Step {
        match flow {
            Flow::Continue => Step::Next,
            Flow::Suspend(token) => Step::Wait(Awaited::Device, token),
            Flow::Await(token) => Step::Wait(Awaited::Answer, token),
            Flow::Again => {
                self.restart_init(cx);
                Step::Stop
            }
            Flow::Refuse(notify, why) => {
                self.refuse(cx, stage, notify, why);
                Step::Stop
            }
        }
    }

    /// What the handlers of a stage have let pass goes on here.
    pub(crate) fn proceed(&mut self, cx: &mut Core, stage: Stage, message: Vec<Payload>) {
        match stage {
            Stage::InitRequest => self.init_request_examined(cx),
            Stage::InitResponse => self.init_response_examined(cx, &message),
            Stage::AuthRequest => self.auth_request_examined(cx, message),
            Stage::AuthResponse => self.auth_response_examined(cx, &message),
            Stage::InformationalRequest | Stage::InformationalResponse => {}
        }
    }

    /// A handler refused a message.
    pub(crate) fn refuse(&mut self, cx: &mut Core, stage: Stage, notify: Notify, why: Why) {
        let request_id = self.setup.as_ref().map_or(1, |s| s.request_id);
        match stage {
            Stage::InitRequest => {
                let header =
                    Header::new(self.spi_i, Spi::ZERO, ExchangeType::IKE_SA_INIT, Flags::INITIATOR, 0);
                crate::init::send_stateless(cx, self.reply_path(), &header, vec![notify.into()]);
                self.close(cx, DownKind::Failed, why);
            }
            Stage::AuthRequest => {
                self.respond_error(cx, ExchangeType::IKE_AUTH, request_id, notify);
                self.close_lingering(cx, DownKind::Failed, why);
            }
            Stage::AuthResponse => self.send_delete(cx, DownKind::Failed, why, vec![notify.into()]),
            _ => self.close(cx, DownKind::Failed, why),
        }
    }

    pub(crate) fn cancel_suspended(&mut self, cx: &mut Core) {
        if let Some(suspended) = self.suspended.take() {
            match suspended.kind {
                Awaited::Device => cx.forget_crypto(Some(suspended.token)),
                Awaited::Answer => cx.forget_ask(Some(suspended.token)),
            }
        }
    }
}

enum Step {
    Next,
    Wait(Awaited, Token),
    Stop,
}

#[cfg(test)]
mod tests;
