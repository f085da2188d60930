//! IKE_SA_INIT as initiator: our public value, the request, and what may come back — a COOKIE, a wish for another group, a
//! refusal nobody vouches for, or the response.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipc::Role;
use policy::{AuthPolicy, IkeProposal, Realm};
use spi::Group;
use wire::ike::{Flags, Header, Ke, Message, Nonce, Payload, PayloadList, Spi};
use wire::numbers::{ExchangeType, KeId, NotifyType};

use super::{ke_len_fits, nonce_fits, nonce_of};
use crate::core::{Core, DownKind, Timer};
use crate::datagrams::Datagrams;
use crate::effect::{Effect, IkeSaId, Path, Why};
use crate::handler::Stage;
use crate::sa::{IkeSa, Setup, State, Wanted};
use crate::select;
use crate::window::{Outgoing, SendWindow};

/// Times a request is built anew for a COOKIE or another group, before we take it for a loop.
const MAX_RESTARTS: u8 = 5;

/// Longer than every retransmission of both exchanges together: a set-up that waits for a device for good.
const SETUP_LIMIT: Duration = Duration::from_secs(300);

/// Begins an IKE SA.
pub(crate) fn initiate(
    cx: &mut Core,
    realm: &Arc<Realm>,
    wanted: VecDeque<Wanted>,
    replaces: Option<(IkeSaId, Path)>,
) -> Result<Box<IkeSa>, Why> {
    let remote = match (&replaces, realm.initiates_to()) {
        (Some((_, path)), _) => path.remote.ip(),
        (None, Some(remote)) => remote,
        (None, None) => {
            return Err(Why::Misconfigured(format!("realm {} names no single remote address", realm.name)));
        }
    };
    if realm.remote_auth == AuthPolicy::Eap && realm.local_auth != AuthPolicy::Eap {
        // RFC 7296 section 2.16: it is the initiator that EAP authenticates.
        let why = format!("peers of realm {} use EAP, so they have to begin", realm.name);
        return Err(Why::Misconfigured(why));
    }
    let Some(group) = select::first_group(&realm.ike) else {
        return Err(Why::Misconfigured(format!("realm {} has no key exchange method", realm.name)));
    };
    let local = local_address(cx, realm, remote);
    let path = Path {
        local: SocketAddr::new(local, cx.config.ike_port),
        remote: SocketAddr::new(remote, cx.config.ike_port),
    };
    let id = cx.next_sa();
    let mut sa = Box::new(IkeSa::new(cx, id, Role::Initiator, path, State::ExpectKeyPair));
    sa.spi_i = cx.ike_spi(id);
    sa.realm = Some(realm.clone());
    sa.replaces = replaces.map(|(id, _)| id);
    let mut setup = Setup::new(group);
    setup.ni = cx.nonce();
    setup.wanted = wanted;
    sa.setup = Some(Box::new(setup));
    cx.arm(Timer::GiveUp(id), SETUP_LIMIT);
    if !sa.begin_key_exchange(cx) {
        sa.close(cx, DownKind::Failed, Why::Device("too many key exchanges are under way".into()));
    }
    Ok(sa)
}

/// Which of our addresses faces the peer: the realm's, the one we listen on, the one the system would use.
fn local_address(cx: &Core, realm: &Realm, remote: IpAddr) -> IpAddr {
    let fits = |a: &&IpAddr| a.is_ipv4() == remote.is_ipv4() && !a.is_unspecified();
    if let Some(local) = realm.local.iter().find(fits) {
        return *local;
    }
    let wildcard = cx.config.listen.is_empty()
        || cx.config.listen.iter().any(|a| a.is_unspecified() && a.is_ipv4() == remote.is_ipv4());
    if !wildcard && let Some(local) = cx.config.listen.iter().find(fits) {
        return *local;
    }
    let asked = cx.config.source_for.as_ref().and_then(|source_for| source_for(remote));
    // Unspecified lets the system choose; the peer then sees a NAT that is not there, which only costs encapsulation.
    asked.unwrap_or(match remote {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    })
}

impl IkeSa {
    /// Sends the request, for the first time or built anew.
    pub(super) fn send_init_request(&mut self, cx: &mut Core) {
        let Some(realm) = self.realm.clone() else { return };
        let Some(setup) = &mut self.setup else { return };
        let offer = select::offer_ike(&realm.ike, None);
        let ke = Ke::new(KeId(setup.group.0), setup.public.clone());
        let mut payloads = vec![offer.clone().into(), ke.into(), Nonce(setup.ni.clone()).into()];
        setup.sa = Some(offer);
        self.extend(cx, Stage::InitRequest, &mut payloads);
        let header = Header::new(self.spi_i, Spi::ZERO, ExchangeType::IKE_SA_INIT, Flags::INITIATOR, 0);
        let message = Message::new(header, payloads).emit();
        if let Some(setup) = &mut self.setup {
            setup.init_request = message.clone();
        }
        // Built anew it is the same request with the same ID (RFC 7296 section 2.6), so the window starts over.
        self.send = SendWindow::starting_at(0);
        self.send.commit(Outgoing::new(
            0,
            Datagrams::new(std::slice::from_ref(&message)),
            cx.now,
            &cx.config.retransmission,
        ));
        self.state = State::ExpectInitResponse;
        cx.fx.push(Effect::Send { path: self.path, message });
        self.arm_retransmission(cx);
    }

    /// Builds the request anew with what a handler has learned.
    pub(crate) fn restart_init(&mut self, cx: &mut Core) {
        if self.state == State::ExpectInitResponse && self.may_restart(cx) {
            self.send_init_request(cx);
        }
    }

    fn may_restart(&mut self, cx: &mut Core) -> bool {
        let Some(setup) = &mut self.setup else { return false };
        setup.restarts += 1;
        if setup.restarts <= MAX_RESTARTS {
            return true;
        }
        let why = "the peer keeps asking for another COOKIE or another group".to_owned();
        self.close(cx, DownKind::Failed, Why::PeerMisbehaved(why));
        false
    }

    /// A response to IKE_SA_INIT, said by anybody. Nothing in it is final but a refusal of our proposals: a forged one costs
    /// this attempt, which is repeated. Any other error is remembered as a hint, and we go on retransmitting
    /// (RFC 7296 section 2.21.1).
    pub(crate) fn handle_init_response(&mut self, cx: &mut Core, path: Path, bytes: &[u8]) {
        if self.state != State::ExpectInitResponse || self.suspended.is_some() {
            return cx.dropped(path.remote, "IKE_SA_INIT response nobody waits for");
        }
        let message = match Message::parse(bytes) {
            Ok(message) if message.header.message_id == 0 => message,
            _ => return cx.dropped(path.remote, "malformed IKE_SA_INIT response"),
        };
        let payloads = message.payloads;
        if payloads.sa().is_none() {
            return self.handle_init_error(cx, payloads);
        }
        let Some(setup) = &mut self.setup else { return };
        let (Some(answer), Some(ke), Some(nr)) = (payloads.sa(), payloads.ke(), nonce_of(&payloads)) else {
            setup.hint = Some("response without SA, KE or nonce".into());
            return;
        };
        let Some(offer) = &setup.sa else { return };
        let suite = match select::check_ike_answer(offer, answer) {
            Ok((suite, _)) => suite,
            Err(bad) => {
                setup.hint = Some(bad.to_string());
                return;
            }
        };
        let group = Group(ke.method.0);
        if suite.group != group || group != setup.group || !ke_len_fits(group, Role::Responder, &ke.data) {
            setup.hint = Some(format!("KE payload for {group}, we sent {}", setup.group));
            return;
        }
        if message.header.spi_r.is_zero() || !nonce_fits(&suite, &nr) {
            setup.hint = Some("response with an impossible SPI or nonce".into());
            return;
        }
        setup.peer_public = ke.data.clone();
        setup.nr = nr;
        setup.init_response = bytes.to_vec();
        self.spi_r = message.header.spi_r;
        self.suite = Some(suite);
        self.heard = cx.now;
        self.send.handle_response(0);
        cx.disarm(Timer::Retransmit(self.id));
        self.examine(cx, Stage::InitResponse, payloads);
    }

    fn handle_init_error(&mut self, cx: &mut Core, payloads: Vec<Payload>) {
        let Some(setup) = &mut self.setup else { return };
        if let Some(notify) = payloads.notify(NotifyType::INVALID_KE_PAYLOAD) {
            let group = setup.sa.as_ref().and_then(|offer| select::retry_group(offer, setup.group, notify));
            let Some(group) = group else {
                setup.hint = Some("the peer asks for a group we did not offer".into());
                return;
            };
            setup.group = group;
            if self.may_restart(cx) {
                // A later response to the request before this one must find nothing.
                self.send = SendWindow::starting_at(0);
                cx.disarm(Timer::Retransmit(self.id));
                if !self.begin_key_exchange(cx) {
                    self.close(
                        cx,
                        DownKind::Failed,
                        Why::Device("too many key exchanges are under way".into()),
                    );
                }
            }
            return;
        }
        if payloads.notify(NotifyType::NO_PROPOSAL_CHOSEN).is_some() {
            let offered =
                self.realm.as_ref().map(|r| r.ike.iter().map(IkeProposal::to_string).collect::<Vec<_>>());
            let offered = offered.unwrap_or_default().join(", ");
            let why = format!("NO_PROPOSAL_CHOSEN; we offered {offered}");
            return self.close(cx, DownKind::Failed, Why::Incompatible(why));
        }
        if let Some(error) = payloads.error_notify() {
            setup.hint = Some(format!("{} (unauthenticated)", error.kind));
            return;
        }
        // COOKIE, or what an extension understands.
        self.examine(cx, Stage::InitResponse, payloads);
    }

    /// The handlers have seen the response.
    pub(crate) fn init_response_examined(&mut self, cx: &mut Core, payloads: &[Payload]) {
        if payloads.sa().is_some() {
            self.derive_init_secret(cx);
        }
    }
}
