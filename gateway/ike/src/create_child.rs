//! CREATE_CHILD_SA (RFC 7296 section 1.3), and what it shares with IKE_AUTH: offering a child, choosing one, checking the
//! answer. At most one such exchange of ours and one of the peer's are under way, since both windows are 1.

mod initiator;
mod responder;

pub(crate) use initiator::{OurChild, Progress, TEMPORARY};
pub(crate) use responder::TheirChild;

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use ipc::Role;
use policy::{Child as ChildPolicy, ChildMode, SelectorSpec};
use spi::{CryptoOutput, Group, Outcome};
use wire::TrafficSelector;
use wire::ike::{Body, Ke, Nonce, Notify, Payload, PayloadList, Sa, TsPayload};
use wire::numbers::{ExchangeType, NotifyType};

use crate::child::{Agreed, ChildOffer, selectors_text};
use crate::core::{Core, DownKind, Todo};
use crate::effect::{ChildId, Event, Why};
use crate::narrow::{self, Dynamic, Selectors, Substitution};
use crate::rekey_ike::{OurRekey, TheirRekey};
use crate::resource::{self, Place};
use crate::sa::{IkeSa, Wanted};
use crate::select::{self, NoChoice};

/// Our outstanding exchange.
pub(crate) enum Ours {
    /// A new child, or the rekeying of one.
    Child(Box<OurChild>),
    /// The rekeying of the IKE SA.
    Rekey(Box<OurRekey>),
    /// Deletes of children.
    DeleteChildren(Vec<ChildId>),
    /// The Delete of the IKE SA, and why it ends.
    DeleteIke(DownKind, Why),
    /// A liveness check, or a message to an extension.
    Inform,
}

/// The peer's CREATE_CHILD_SA that waits for a device.
pub(crate) enum Theirs {
    /// A new child, or the rekeying of one.
    Child(Box<TheirChild>),
    /// The rekeying of the IKE SA.
    Rekey(Box<TheirRekey>),
}

/// What we choose for a child the peer asked for.
pub(crate) struct Choice {
    pub(crate) agreed: Agreed,
    answer: Sa,
    ts_i: TsPayload,
    ts_r: TsPayload,
    more_possible: bool,
    /// The peer said SA_RESOURCE_INFO, and so do we.
    says_resource: bool,
}

/// Why the peer gets no child.
pub(crate) struct Refused {
    pub(crate) notify: Notify,
    pub(crate) name: Arc<str>,
    pub(crate) why: Why,
}

/// Why we get none. `made`: the peer believes that it exists, and must be told otherwise.
pub(crate) struct Failure {
    pub(crate) made: bool,
    pub(crate) why: Why,
}

impl ChildOffer {
    /// The payloads that ask for it; nonce and KE are another matter.
    pub(crate) fn payloads(&self) -> Vec<Payload> {
        let mut payloads = Vec::new();
        if self.mode == ChildMode::Transport {
            payloads.push(Notify::new(NotifyType::USE_TRANSPORT_MODE).into());
        }
        payloads.push(self.sa.clone().into());
        payloads.push(Body::TsI(TsPayload::new(self.selectors.local.iter().copied())).into());
        payloads.push(Body::TsR(TsPayload::new(self.selectors.remote.iter().copied())).into());
        payloads.extend(self.place.info());
        payloads
    }
}

impl Choice {
    /// The payloads that grant it; with nonce and KE in CREATE_CHILD_SA.
    pub(crate) fn payloads(&self, fresh: Option<(&[u8], Option<Ke>)>) -> Vec<Payload> {
        let mut payloads = Vec::new();
        if self.agreed.mode == ChildMode::Transport {
            payloads.push(Notify::new(NotifyType::USE_TRANSPORT_MODE).into());
        }
        payloads.push(self.answer.clone().into());
        if let Some((nonce, ke)) = fresh {
            payloads.push(Nonce(nonce.to_vec()).into());
            payloads.extend(ke.map(Payload::from));
        }
        payloads.push(Body::TsI(self.ts_i.clone()).into());
        payloads.push(Body::TsR(self.ts_r.clone()).into());
        if self.more_possible {
            payloads.push(Notify::new(NotifyType::ADDITIONAL_TS_POSSIBLE).into());
        }
        if self.says_resource {
            payloads.extend(self.agreed.place.info());
        }
        payloads
    }
}

impl IkeSa {
    /// Puts together the offer of a child; its inbound SPI is taken. `place`: where the one is that it rekeys.
    pub(crate) fn offer_child(
        &mut self,
        cx: &mut Core,
        wanted: Wanted,
        with_pfs: bool,
        place: Option<Place>,
    ) -> Result<ChildOffer, (Arc<str>, Why)> {
        let Some(child) = self.child_policy(&wanted.name) else {
            let why = format!("realm {} has no child {}", self.realm_name(), wanted.name);
            return Err((wanted.name, Why::Misconfigured(why)));
        };
        let (local, remote) = self.dynamic_addresses();
        let dynamic = Dynamic { local: &local, remote: &remote };
        let Some(selectors) = narrow::offer(&child, dynamic, wanted.packet.as_ref()) else {
            let why = format!("child {} has no selectors yet", wanted.name);
            return Err((wanted.name, Why::Misconfigured(why)));
        };
        let lane = self.realm.as_ref().map_or(0, |realm| cx.lane_for(realm));
        // RFC 9611 section 4: who wants others beside it says so with the first.
        let wants_more = cx.lanes.count() > 1 && cx.config.resources_asked > 0;
        let place = place.unwrap_or(Place { shared: wants_more, ..Place::on(lane) });
        let spi_in = cx.esp_spi(place.lane);
        let sa = select::offer_esp(&child.esp, spi_in, with_pfs);
        Ok(ChildOffer { wanted, spi_in, sa, selectors, mode: child.mode, place })
    }

    /// The child's configuration. As a client that has no inner address yet, `dynamic` on our side is everything: the other
    /// side narrows it to what it assigns (RFC 7296 section 2.19).
    pub(crate) fn child_policy(&self, name: &str) -> Option<ChildPolicy> {
        let realm = self.realm.as_ref()?;
        let mut child = realm.child(name)?.clone();
        if self.role == Role::Initiator
            && self.ext.cfg().ours.is_empty()
            && (realm.virtual_ip.v4 || realm.virtual_ip.v6)
        {
            let any = [
                realm.virtual_ip.v4.then_some(TrafficSelector::ANY_V4),
                realm.virtual_ip.v6.then_some(TrafficSelector::ANY_V6),
            ];
            child.local = child
                .local
                .into_iter()
                .flat_map(|spec| match spec {
                    SelectorSpec::Dynamic { protocol, start_port, end_port } => any
                        .iter()
                        .flatten()
                        .map(|ts| SelectorSpec::Fixed(ts.with_protocol(protocol, start_port, end_port)))
                        .collect(),
                    fixed => vec![fixed],
                })
                .collect();
        }
        Some(child)
    }

    fn dynamic_addresses(&self) -> (Vec<IpAddr>, Vec<IpAddr>) {
        let or = |inner: &[crate::effect::InnerAddress], outer: IpAddr| match inner {
            [] => vec![outer],
            inner => inner.iter().map(|a| a.address).collect(),
        };
        (or(&self.ext.cfg().ours, self.path.local.ip()), or(&self.ext.cfg().leased, self.path.remote.ip()))
    }

    /// Checks what the responder made of our offer (RFC 7296 sections 2.7, 2.9, 1.3.1).
    pub(crate) fn check_child_answer(
        &self,
        _cx: &Core,
        offer: &ChildOffer,
        message: &[Payload],
    ) -> Result<Agreed, Failure> {
        let (Some(answer), Some(ts_i), Some(ts_r)) = (message.sa(), message.ts_i(), message.ts_r()) else {
            let why = match message.error_notify() {
                Some(e) => format!(
                    "{}; we asked for {}",
                    e.kind,
                    selectors_text(&offer.selectors.local, &offer.selectors.remote)
                ),
                None => "no child in the response".to_owned(),
            };
            return Err(Failure { made: false, why: Why::PeerRefused(why) });
        };
        let bad = |what: String| Failure { made: true, why: Why::PeerMisbehaved(what) };
        let (suite, spi_out) = select::check_esp_answer(&offer.sa, answer).map_err(|e| bad(e.to_string()))?;
        let selectors = narrow::check_answer(&offer.selectors, ts_i, ts_r)
            .ok_or_else(|| bad("the answer has other traffic selectors than we offered".into()))?;
        let transport = message.notify(NotifyType::USE_TRANSPORT_MODE).is_some();
        match (offer.mode, transport) {
            (ChildMode::Tunnel, true) => return Err(bad("transport mode, which we did not ask for".into())),
            (ChildMode::Transport, false) => {
                let why = Why::PeerRefused("transport mode; the child is for nothing else".into());
                return Err(Failure { made: true, why });
            }
            _ => {}
        }
        if offer.place.fallback.is_some() && selectors != offer.selectors {
            return Err(bad(
                "other traffic selectors than those of the child beside which it is to be".into()
            ));
        }
        let (name, spi_in, mode) = (offer.wanted.name.clone(), offer.spi_in, offer.mode);
        let shared = offer.place.shared && resource::is_said(message);
        let place = Place { shared, ..offer.place };
        Ok(Agreed { name, suite, spi_in, spi_out, mode, selectors, place })
    }

    /// Chooses a child for a request. `rekeyed`: only the same one will do.
    pub(crate) fn choose_child(
        &mut self,
        cx: &mut Core,
        message: &[Payload],
        rekeyed: Option<ChildId>,
        with_pfs: bool,
    ) -> Result<Choice, Refused> {
        let Some(realm) = self.realm.clone() else {
            return Err(refused(NotifyType::NO_ADDITIONAL_SAS, "", Why::Normal("no realm".into())));
        };
        let (Some(offer), Some(ts_i), Some(ts_r)) = (message.sa(), message.ts_i(), message.ts_r()) else {
            let why = Why::PeerMisbehaved("a child asked for without SA, TSi or TSr".into());
            return Err(refused(NotifyType::INVALID_SYNTAX, "", why));
        };
        let is_full = self.children.len() >= cx.config.children_limit || cx.closing;
        let full = |n| {
            refused(NotifyType::NO_ADDITIONAL_SAS, "", Why::Normal(format!("{n} children are there already")))
        };
        // What is to be beside another child is refused otherwise; which one it is is seen below.
        if is_full && !resource::is_said(message) {
            return Err(full(self.children.len()));
        }
        let old = rekeyed.and_then(|id| self.children.get(id));
        let (name, old_place) = (old.map(|c| c.name.clone()), old.map(|c| c.place));
        let ke = message.ke().map(|ke| Group(ke.method.0));
        let (local, remote) = self.dynamic_addresses();
        let dynamic = Dynamic { local: &local, remote: &remote };
        let mut no_choice: Option<(Arc<str>, NoChoice)> = None;
        // RFC 7296 section 1.3.1: transport mode is a wish of the initiator; tunnel mode is the answer where we don't share it.
        let transport = message.notify(NotifyType::USE_TRANSPORT_MODE).is_some();
        for mode in [ChildMode::Transport, ChildMode::Tunnel] {
            if mode == ChildMode::Transport && !transport {
                continue;
            }
            let (seen_local, seen_remote) = (self.path.local.ip(), self.path.remote.ip());
            let substitution = match mode {
                ChildMode::Transport => {
                    match Substitution::new(ts_r, ts_i, self.nat, seen_local, seen_remote) {
                        Some(substitution) => Some(substitution),
                        None => continue,
                    }
                }
                ChildMode::Tunnel => None,
            };
            let (asked_local, asked_remote) = match &substitution {
                Some(s) => s.apply(ts_r, ts_i),
                None => (ts_r.clone(), ts_i.clone()),
            };
            let mut left: Vec<&ChildPolicy> =
                realm.children.iter().filter(|c| name.as_ref().is_none_or(|n| *n == c.name)).collect();
            while let Some(found) =
                narrow::choose(left.iter().copied(), dynamic, mode, &asked_local, &asked_remote)
            {
                let child = found.child;
                left.retain(|c| c.name != child.name);
                if mode == ChildMode::Transport
                    && !narrow::fits_transport(&found.selectors, seen_local, seen_remote)
                {
                    continue;
                }
                // RFC 9611 section 4: one that is rekeyed stays where it was, whatever is said.
                let (place, suite) = match old_place {
                    Some(place) => (place, None),
                    None => self.place_for(cx, message, &child.name, mode, &found.selectors)?,
                };
                if is_full {
                    return Err(match place.fallback {
                        Some(_) => self.no_more_beside(&child.name),
                        None => full(self.children.len()),
                    });
                }
                let esp = suite.map_or(Cow::Borrowed(&child.esp), |suite| {
                    Cow::Owned(resource::of_suite(&child.esp, &suite))
                });
                let spi_in = cx.esp_spi(place.lane);
                match select::choose_esp(&esp, offer, spi_in, with_pfs, ke) {
                    Ok(chosen) => {
                        let said = substitution
                            .map_or_else(|| found.selectors.clone(), |s| s.undo(&found.selectors));
                        let agreed = Agreed {
                            name: child.name.clone(),
                            suite: chosen.suite,
                            spi_in,
                            spi_out: chosen.spi,
                            mode,
                            selectors: found.selectors,
                            place,
                        };
                        return Ok(Choice {
                            agreed,
                            answer: chosen.answer,
                            ts_i: TsPayload::new(said.remote.iter().copied()),
                            ts_r: TsPayload::new(said.local.iter().copied()),
                            more_possible: found.more_possible,
                            says_resource: resource::is_said(message),
                        });
                    }
                    Err(none) => {
                        cx.free_esp_spi(spi_in);
                        no_choice = no_choice.or(Some((child.name.clone(), none)));
                    }
                }
            }
        }
        Err(match no_choice {
            Some((name, none)) => {
                refused(NotifyType::NO_PROPOSAL_CHOSEN, &name, Why::Incompatible(none.to_string()))
            }
            None => {
                let asked = Selectors {
                    local: ts_r.selectors().copied().collect(),
                    remote: ts_i.selectors().copied().collect(),
                };
                let names: Vec<&str> = realm.children.iter().map(|c| &*c.name).collect();
                let why = format!(
                    "the peer asks for {}; children of realm {}: {}",
                    selectors_text(&asked.local, &asked.remote),
                    realm.name,
                    names.join(", ")
                );
                refused(NotifyType::TS_UNACCEPTABLE, name.as_deref().unwrap_or(""), Why::Incompatible(why))
            }
        })
    }

    /// Tells that a child did not come up; the IKE SA lives on.
    pub(crate) fn child_failed(&mut self, cx: &mut Core, name: Arc<str>, why: Why, again: bool) {
        let realm = self.realm_name();
        cx.event(Event::ChildFailed { realm: realm.clone(), name: name.clone(), why: why.clone() });
        cx.todo.push_back(Todo::ChildFailed { id: self.id, realm, name, why: why.to_string(), again });
    }

    /// The exchange type of our outstanding request.
    pub(crate) fn our_exchange(&self) -> Option<ExchangeType> {
        match self.ours.as_ref()? {
            Ours::Child(_) | Ours::Rekey(_) => Some(ExchangeType::CREATE_CHILD_SA),
            Ours::DeleteChildren(_) | Ours::DeleteIke(..) | Ours::Inform => Some(ExchangeType::INFORMATIONAL),
        }
    }

    /// The response to our CREATE_CHILD_SA.
    pub(crate) fn handle_create_response(&mut self, cx: &mut Core, message: Vec<Payload>) {
        // RFC 7296 section 2.21.3: fatal on both sides.
        if message.notify(NotifyType::INVALID_SYNTAX).is_some() {
            return self.close(cx, DownKind::Failed, Why::PeerRefused("INVALID_SYNTAX".into()));
        }
        match self.ours.take() {
            Some(Ours::Child(ours)) => self.handle_child_response(cx, ours, message),
            Some(Ours::Rekey(ours)) => self.handle_rekey_response(cx, ours, message),
            other => self.ours = other,
        }
        self.pump(cx);
    }

    /// A device finished a job of our exchange.
    pub(crate) fn ours_done(
        &mut self,
        cx: &mut Core,
        token: spi::Token,
        outcome: Outcome,
        output: CryptoOutput,
    ) {
        match self.ours.take() {
            Some(Ours::Child(ours)) if ours.token == Some(token) => {
                self.our_child_done(cx, ours, outcome, output)
            }
            Some(Ours::Rekey(ours)) if ours.token == Some(token) => {
                self.our_rekey_done(cx, ours, outcome, output)
            }
            other => self.ours = other,
        }
        self.pump(cx);
    }

    /// A device finished a job of the peer's exchange.
    pub(crate) fn theirs_done(
        &mut self,
        cx: &mut Core,
        token: spi::Token,
        outcome: Outcome,
        output: CryptoOutput,
    ) {
        match self.theirs.take() {
            Some(Theirs::Child(theirs)) if theirs.token == Some(token) => {
                self.their_child_done(cx, theirs, outcome, output);
            }
            Some(Theirs::Rekey(theirs)) if theirs.token == Some(token) => {
                self.their_rekey_done(cx, theirs, outcome, output);
            }
            other => self.theirs = other,
        }
        self.pump(cx);
    }

    /// The peer's CREATE_CHILD_SA.
    pub(crate) fn handle_create_request(&mut self, cx: &mut Core, id: u32, message: Vec<Payload>) {
        let exchange = ExchangeType::CREATE_CHILD_SA;
        if !self.is_established() || self.theirs.is_some() {
            // RFC 7296 section 2.25.2: being replaced or deleted.
            return self.respond_error(cx, exchange, id, Notify::new(NotifyType::TEMPORARY_FAILURE));
        }
        let (Some(sa), Some(_)) = (message.sa(), message.nonce()) else {
            return self.refuse_syntax(cx, exchange, id, "no SA or nonce");
        };
        if sa.proposals.iter().any(|p| p.protocol == wire::numbers::ProtocolId::IKE) {
            self.handle_rekey_request(cx, id, message);
        } else {
            self.handle_child_request(cx, id, message);
        }
        self.pump(cx);
    }

    /// Drops our exchange: its jobs, its SPIs.
    pub(crate) fn cancel_ours(&mut self, cx: &mut Core) {
        match self.ours.take() {
            Some(Ours::Child(ours)) => {
                cx.forget_crypto(ours.token);
                cx.free_esp_spi(ours.offer.spi_in);
            }
            Some(Ours::Rekey(ours)) => {
                cx.forget_crypto(ours.token);
                cx.ike_spis.remove(&ours.spi);
            }
            _ => {}
        }
    }

    /// Drops the peer's exchange.
    pub(crate) fn cancel_theirs(&mut self, cx: &mut Core) {
        match self.theirs.take() {
            Some(Theirs::Child(theirs)) => {
                cx.forget_crypto(theirs.token);
                cx.free_esp_spi(theirs.choice.agreed.spi_in);
            }
            Some(Theirs::Rekey(theirs)) => {
                cx.forget_crypto(theirs.token);
                cx.ike_spis.remove(&theirs.spi);
            }
            None => {}
        }
    }
}

fn refused(kind: NotifyType, name: &str, why: Why) -> Refused {
    Refused { notify: Notify::new(kind), name: name.into(), why }
}
