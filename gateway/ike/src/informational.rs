//! INFORMATIONAL (RFC 7296 section 1.4): Deletes of both kinds, liveness, and whatever extensions say.

use wire::ike::{Delete, Payload, PayloadList};
use wire::numbers::{ExchangeType, NotifyType, ProtocolId};

use crate::child::ChildState;
use crate::core::{Core, DownKind, Todo};
use crate::create_child::Ours;
use crate::effect::{ChildId, Why};
use crate::handler::Stage;
use crate::sa::{IkeSa, State};

const EXCHANGE: ExchangeType = ExchangeType::INFORMATIONAL;

impl IkeSa {
    /// The peer's request. Everything in it is carried out, and all of it is answered by one response; what we do not know
    /// needs no answer of its own (RFC 7296 section 2.21.3).
    pub(crate) fn handle_informational_request(&mut self, cx: &mut Core, id: u32, message: Vec<Payload>) {
        let mut reply: Vec<Payload> = Vec::new();
        let handlers = cx.handlers.clone();
        for handler in handlers.iter() {
            handler.receive(Stage::InformationalRequest, self, cx, &message);
        }
        self.extend(cx, Stage::InformationalResponse, &mut reply);
        if message.deletes().any(Delete::is_ike) {
            return self.handle_ike_delete(cx, id, &message, &reply);
        }
        if message.notify(NotifyType::AUTHENTICATION_FAILED).is_some() {
            // RFC 7296 section 2.21.2: the initiator did not believe our proof.
            self.respond(cx, EXCHANGE, id, &reply);
            let why = Why::Authentication("the peer does not accept our proof".into());
            return self.close_lingering(cx, DownKind::Failed, why);
        }
        let mut ours = Vec::new();
        for spi in message.deletes().filter(|d| d.protocol == ProtocolId::ESP).flat_map(Delete::child_spis) {
            match (self.child_by_peer_spi(spi), &mut self.ours) {
                (Some(child), _) => ours.extend(self.handle_child_delete(cx, child)),
                (None, Some(Ours::Child(child))) if child.deleted.len() < 16 => child.deleted.push(spi),
                _ => {}
            }
        }
        if !ours.is_empty() {
            reply.push(Delete::children(ProtocolId::ESP, &ours).into());
        }
        self.respond(cx, EXCHANGE, id, &reply);
        self.pump(cx);
    }

    /// The peer deletes the IKE SA, and with it every child.
    fn handle_ike_delete(&mut self, cx: &mut Core, id: u32, message: &[Payload], reply: &[Payload]) {
        self.respond(cx, EXCHANGE, id, reply);
        if self.yield_to_collision(cx) {
            // Its children pass to the other SA first.
            return cx.todo.push_back(Todo::Inherited(self.id));
        }
        let failed = message.notify(NotifyType::AUTHENTICATION_FAILED).is_some();
        let (kind, why) = match self.state {
            State::Rekeyed => (DownKind::Meant, Why::Normal("rekeyed".into())),
            _ if failed => {
                (DownKind::Failed, Why::Authentication("the peer does not accept our proof".into()))
            }
            // RFC 7296 section 2.25.2: both delete it; ours is forgotten.
            State::Deleting => {
                self.why_deleting().unwrap_or((DownKind::Meant, Why::Normal("deleted".into())))
            }
            _ => (DownKind::ByPeer, Why::Normal(crate::session::BY_PEER.into())),
        };
        self.close_lingering(cx, kind, why);
    }

    /// The peer deletes one child. Returns our SPI, for the response, unless our own Delete says it already (RFC 7296
    /// sections 1.4.1 and 2.25.1).
    fn handle_child_delete(&mut self, cx: &mut Core, id: ChildId) -> Option<u32> {
        let child = self.children.get(id)?;
        let (state, spi_in) = (child.state, child.spi_in);
        let successor = self.successor_of(id);
        let replaced = successor.is_some() || matches!(state, ChildState::Replaced | ChildState::Redundant);
        // The peer is on the new one now, and has stopped listening on the old one.
        if let Some(successor) = successor {
            self.use_outbound(cx, successor);
        }
        let why = if replaced { "rekeyed" } else { "deleted by the peer" };
        self.remove_child(cx, id, Why::Normal(why.into()), replaced);
        let ours_too = matches!(&self.ours, Some(Ours::DeleteChildren(children)) if children.contains(&id));
        (!ours_too).then_some(spi_in)
    }

    /// The response to our request.
    pub(crate) fn handle_informational_response(&mut self, cx: &mut Core, message: Vec<Payload>) {
        match self.ours.take() {
            Some(Ours::DeleteChildren(children)) => {
                for id in children {
                    let replaced = self.successor_of(id).is_some();
                    let why = if replaced { "rekeyed" } else { "deleted" };
                    self.remove_child(cx, id, Why::Normal(why.into()), replaced);
                }
            }
            Some(Ours::DeleteIke(kind, why)) => return self.close(cx, kind, why),
            Some(Ours::Inform) => {
                let handlers = cx.handlers.clone();
                for handler in handlers.iter() {
                    handler.receive(Stage::InformationalResponse, self, cx, &message);
                }
            }
            other => self.ours = other,
        }
        if message.notify(NotifyType::INVALID_SYNTAX).is_some() {
            return self.close(cx, DownKind::Failed, Why::PeerRefused("INVALID_SYNTAX".into()));
        }
        self.pump(cx);
    }

    /// Deletes the SA, saying `extra` besides.
    pub(crate) fn send_delete(&mut self, cx: &mut Core, kind: DownKind, why: Why, extra: Vec<Payload>) {
        self.cancel_setup(cx);
        let mut payloads = extra;
        payloads.push(Delete::ike().into());
        // An SA that was rekeyed stays so: its end concerns nobody.
        if self.state != State::Rekeyed {
            self.state = State::Deleting;
        }
        self.ours = Some(Ours::DeleteIke(kind, why));
        self.send_request(cx, EXCHANGE, &payloads);
    }

    /// Deletes children: those that are there, and SPIs of ones we never installed.
    pub(crate) fn send_child_deletes(&mut self, cx: &mut Core, children: Vec<ChildId>, spi: Option<u32>) {
        let mut spis: Vec<u32> = spi.into_iter().collect();
        for id in &children {
            if let Some(child) = self.children.get_mut(*id) {
                if child.state != ChildState::Replaced {
                    child.state = ChildState::Deleting;
                }
                spis.push(child.spi_in);
            }
        }
        if let Some(spi) = spi {
            cx.free_esp_spi(spi);
        }
        self.ours = Some(Ours::DeleteChildren(children));
        self.send_request(cx, EXCHANGE, &[Delete::children(ProtocolId::ESP, &spis).into()]);
    }

    pub(crate) fn send_liveness_check(&mut self, cx: &mut Core) {
        self.ours = Some(Ours::Inform);
        let mut payloads = Vec::new();
        self.extend(cx, Stage::InformationalRequest, &mut payloads);
        self.send_request(cx, EXCHANGE, &payloads);
    }

    /// Why we are deleting the SA.
    pub(crate) fn why_deleting(&self) -> Option<(DownKind, Why)> {
        match &self.ours {
            Some(Ours::DeleteIke(kind, why)) => Some((*kind, why.clone())),
            _ => None,
        }
    }
}
