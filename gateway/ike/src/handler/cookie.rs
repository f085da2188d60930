//! COOKIE (RFC 7296 section 2.6): under load a stranger must show that it receives what we send to its address, before it
//! costs us anything.

use wire::ike::{Notify, Payload, PayloadList};
use wire::numbers::NotifyType;

use super::{Admission, Flow, Handler, Stage, Stranger};
use crate::cookie::MAX_COOKIE;
use crate::core::Core;
use crate::sa::IkeSa;

/// See the module.
pub(super) struct Cookie;

impl Handler for Cookie {
    fn admit(&self, cx: &mut Core, stranger: &Stranger<'_>) -> Admission {
        let (now, load) = (cx.now, cx.load());
        cx.jar.rotate_if_due(&*cx.ops, now);
        let Some(nonce) = stranger.payloads.nonce() else {
            return Admission::Drop("IKE_SA_INIT without a nonce");
        };
        let (remote, spi_i) = (stranger.path.remote.ip(), stranger.header.spi_i);
        if let Some(cookie) = stranger.payloads.notify(NotifyType::COOKIE)
            && cx.jar.check(&*cx.ops, &cookie.data, &nonce.0, remote, spi_i).unwrap_or(false)
        {
            return Admission::Yes;
        }
        // Also without cookies being on: one that is wrong says nothing, the peer may have got it long ago.
        let switch = cx.gate.handle_request(now, load);
        cx.note_switch(switch);
        if !cx.gate.is_on() {
            return Admission::Yes;
        }
        match cx.jar.make(&*cx.ops, &nonce.0, remote, spi_i) {
            Ok(cookie) => Admission::Answer(vec![Notify::with_data(NotifyType::COOKIE, cookie).into()]),
            Err(_) => Admission::Drop("no cookie could be made"),
        }
    }

    fn build(&self, stage: Stage, sa: &mut IkeSa, _cx: &mut Core, out: &mut Vec<Payload>) {
        if stage == Stage::InitRequest
            && let Some(cookie) = sa.setup.as_ref().and_then(|setup| setup.cookie.as_ref())
        {
            // RFC 7296 section 2.6: it goes first, and nothing else changes.
            out.insert(0, Notify::with_data(NotifyType::COOKIE, cookie.clone()).into());
        }
    }

    fn receive(&self, stage: Stage, sa: &mut IkeSa, _cx: &mut Core, message: &[Payload]) -> Flow {
        if stage != Stage::InitResponse || message.sa().is_some() {
            return Flow::Continue;
        }
        match message.notify(NotifyType::COOKIE) {
            Some(cookie) if (1..=MAX_COOKIE).contains(&cookie.data.len()) => {
                if let Some(setup) = &mut sa.setup {
                    setup.cookie = Some(cookie.data.clone());
                }
                Flow::Again
            }
            _ => Flow::Continue,
        }
    }
}
