//! IKE_SA_INIT as responder: who may begin, which realms may be meant, what is chosen, and the response.

use std::sync::Arc;

use ipc::Role;
use policy::Realm;
use spi::Group;
use wire::ike::{Flags, Header, Ke, Message, Nonce, Notify, Payload, PayloadList};
use wire::numbers::{ExchangeType, KeId, NotifyType};

use super::{ke_len_fits, nonce_fits, nonce_of};
use crate::core::{Core, DownKind, Timer};
use crate::effect::{Effect, Event, Path, Why};
use crate::handler::{Admission, Stage, Stranger};
use crate::sa::{IkeSa, Setup, State};
use crate::select::{self, ChosenIke, NoChoice};
use crate::window::ReceiveWindow;

/// Looks at a stranger's request and lets it in, answers it statelessly, or drops it. Nothing is kept unless it is let in.
pub(crate) fn admit(cx: &mut Core, path: Path, bytes: &[u8]) -> Option<Box<IkeSa>> {
    let message = match Message::parse(bytes) {
        Ok(message) => message,
        Err(error) => {
            // RFC 7296 section 2.21.1: nothing is cryptographically protected yet; an unknown critical payload is worth a
            // word, malformed octets are not.
            if let Some((kind @ NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD, data)) = error.notify()
                && let Ok(header) = wire::ike::peek_header(bytes)
            {
                let notify = Notify::with_data(kind, data.into_iter().collect());
                send_stateless(cx, path, &header, vec![notify.into()]);
            }
            cx.dropped(path.remote, "malformed IKE_SA_INIT request");
            return None;
        }
    };
    let (header, payloads) = (message.header, message.payloads);
    let (Some(offer), Some(ke), Some(ni)) = (payloads.sa(), payloads.ke(), nonce_of(&payloads)) else {
        cx.dropped(path.remote, "IKE_SA_INIT without SA, KE or nonce");
        return None;
    };
    let handlers = cx.handlers.clone();
    let stranger = Stranger { path, header, payloads: &payloads };
    for handler in handlers.iter() {
        match handler.admit(cx, &stranger) {
            Admission::Yes => {}
            Admission::Answer(answer) => {
                send_stateless(cx, path, &header, answer);
                return None;
            }
            Admission::Drop(reason) => {
                cx.dropped(path.remote, reason);
                return None;
            }
        }
    }
    if cx.closing || cx.half_open >= cx.config.half_open_limit {
        cx.dropped(path.remote, "too many half-open IKE SAs");
        return None;
    }
    let candidates = cx.realms.by_path(path);
    let group = Group(ke.method.0);
    let chosen = match choose(&candidates, offer, group) {
        Ok(chosen) => chosen,
        Err(refused) => {
            let why = match refused {
                Some(no_choice) => Why::Incompatible(no_choice.to_string()),
                None => {
                    Why::Misconfigured(format!("no realm for {} on {}", path.remote.ip(), path.local.ip()))
                }
            };
            let id = cx.next_sa();
            cx.refusal(Event::IkeClosed { sa: id, realm: None, remote: path.remote, why, was_up: false });
            send_stateless(cx, path, &header, vec![Notify::new(NotifyType::NO_PROPOSAL_CHOSEN).into()]);
            return None;
        }
    };
    if chosen.suite.group != group {
        send_stateless(cx, path, &header, vec![select::invalid_ke(chosen.suite.group).into()]);
        return None;
    }
    if !ke_len_fits(group, Role::Initiator, &ke.data) || !nonce_fits(&chosen.suite, &ni) {
        cx.dropped(path.remote, "IKE_SA_INIT with a KE payload or nonce of the wrong length");
        return None;
    }
    let id = cx.next_sa();
    let mut sa = Box::new(IkeSa::new(cx, id, Role::Responder, path, State::ExpectKeyPair));
    sa.spi_i = header.spi_i;
    sa.spi_r = cx.ike_spi(id);
    sa.suite = Some(chosen.suite);
    sa.receive = ReceiveWindow::new(1, 1);
    let mut setup = Setup::new(group);
    setup.ni = ni;
    setup.nr = cx.nonce();
    setup.peer_public = ke.data.clone();
    setup.sa = Some(chosen.answer);
    setup.init_request = bytes.to_vec();
    // Those that take the suite first: it is theirs that the peer sees of us until it says who it is. Where it belongs to another, it is
    // told then.
    setup.candidates = candidates;
    setup.candidates.sort_by_key(|realm| !chosen.suite.is_among(&realm.ike));
    sa.setup = Some(Box::new(setup));
    sa.half_open = true;
    cx.half_open += 1;
    cx.arm(Timer::GiveUp(id), cx.config.half_open_life);
    sa.examine(cx, Stage::InitRequest, payloads);
    Some(sa)
}

/// Suites that are weighed where realms share an address.
const MAX_WEIGHED: usize = 8;

/// The suite for whoever it is: one that all candidates take if there is one, else that of the best candidate that finds something in
/// the offer. `Err(None)`: there is no candidate at all.
fn choose(
    candidates: &[Arc<Realm>],
    offer: &wire::ike::Sa,
    ke: Group,
) -> Result<ChosenIke, Option<NoChoice>> {
    let (mut first, mut refused, mut weighed) = (None, None, 0);
    for realm in candidates {
        match select::choose_ike(&realm.ike, offer, None, Some(ke)) {
            Ok(chosen) if candidates.iter().all(|other| chosen.suite.is_among(&other.ike)) => {
                return Ok(chosen);
            }
            Ok(chosen) => first = first.or(Some(chosen)),
            Err(no_choice) => refused = refused.or(Some(no_choice)),
        }
        weighed += 1;
        if weighed >= MAX_WEIGHED && first.is_some() {
            break;
        }
    }
    first.ok_or(refused)
}

/// A response nothing is remembered of, with the initiator's SPI alone.
pub(crate) fn send_stateless(cx: &mut Core, path: Path, request: &Header, payloads: Vec<Payload>) {
    let header =
        Header::new(request.spi_i, request.spi_r, request.exchange, Flags::RESPONSE, request.message_id);
    let message = Message::new(header, payloads).emit();
    cx.fx.push(Effect::Send { path, message });
}

impl IkeSa {
    /// The handlers have seen the request.
    pub(crate) fn init_request_examined(&mut self, cx: &mut Core) {
        if !self.begin_key_exchange(cx) {
            self.close(cx, DownKind::Failed, Why::Device("too many key exchanges are under way".into()));
        }
    }

    /// Everything is there: answers, and waits for the initiator to prove itself.
    pub(super) fn send_init_response(&mut self, cx: &mut Core) {
        let Some(setup) = &mut self.setup else { return };
        let Some(answer) = setup.sa.clone() else { return };
        let ke = Ke::new(KeId(setup.group.0), setup.public.clone());
        let mut payloads = vec![answer.into(), ke.into(), Nonce(setup.nr.clone()).into()];
        self.extend(cx, Stage::InitResponse, &mut payloads);
        let header = Header::new(self.spi_i, self.spi_r, ExchangeType::IKE_SA_INIT, Flags::RESPONSE, 0);
        let message = Message::new(header, payloads).emit();
        if let Some(setup) = &mut self.setup {
            setup.init_response = message.clone();
        }
        self.state = State::ExpectAuthRequest;
        cx.fx.push(Effect::Send { path: self.reply_path(), message });
    }

    /// The same request once more: the same response, if there is one yet (RFC 7296 section 2.1).
    pub(crate) fn repeat_init_response(&mut self, cx: &mut Core, path: Path, request: &[u8]) {
        let Some(setup) = self.setup.as_ref().filter(|s| s.init_request == request) else { return };
        if self.state == State::ExpectAuthRequest && !setup.init_response.is_empty() {
            cx.fx.push(Effect::Send { path, message: setup.init_response.clone() });
        }
    }
}
