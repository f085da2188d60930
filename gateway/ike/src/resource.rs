//! Child SAs for single workers of the data path (RFC 9611). Beside a child, the *fallback*, which every worker can use, there
//! may be others with the same selectors and the same algorithms, each for one lane alone: that worker then shares neither
//! counter nor window with anybody.
//!
//! Both sides say SA_RESOURCE_INFO with the fallback when they can do it (section 4). Then the data path asks for an SA whenever
//! a lane has packets and none of its own; asking is bounded:
//!
//! - one SA for each lane, no more than [`Config::children_limit`](crate::Config::children_limit) in all, and [`Config::resources_asked`](crate::Config::resources_asked) beside one fallback;
//! - after a failure not again for a while;
//! - after TS_MAX_QUEUE never again for this fallback, after NO_ADDITIONAL_SAS never again for any of this IKE SA.
//!
//! SAs of this kind go with their fallback; they are rekeyed each for itself, and when the fallback is rekeyed, they belong to
//! its successor.

use std::time::{Duration, Instant};

use policy::{ChildMode, EspProposal};
use spi::Integ;
use wire::ike::{Notify, Payload, PayloadList};
use wire::numbers::NotifyType;

use crate::child::{Child, ChildOffer, ChildState};
use crate::core::Core;
use crate::create_child::{Ours, Refused, Theirs};
use crate::effect::{ChildId, Event, Why};
use crate::narrow::Selectors;
use crate::sa::{IkeSa, Wanted};
use crate::select::{self, EspSuite};
use crate::tasks::Task;

/// Wait before another SA is asked for beside a fallback where one was refused for no lasting reason, or failed.
const AGAIN: Duration = Duration::from_secs(30);

/// Where a child belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Its worker; the inbound SPI says the same.
    pub(crate) lane: u16,
    /// The child beside which it is, for that worker alone.
    pub(crate) fallback: Option<ChildId>,
    /// Whether both sides may have others made beside it.
    pub(crate) shared: bool,
}

/// What is remembered of asking beside a fallback.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    /// The peer will have no more.
    refused: bool,
    not_before: Option<Instant>,
}

impl Place {
    /// A child for every worker, carried by this one.
    pub(crate) fn on(lane: u16) -> Self {
        Place { lane, fallback: None, shared: false }
    }

    /// The worker it is for, if it is for one alone.
    pub(crate) fn resource(&self) -> Option<u16> {
        self.fallback.map(|_| self.lane)
    }

    /// A child has taken the place of another, beside which this may be.
    pub(crate) fn move_beside(&mut self, old: ChildId, new: ChildId) {
        if self.fallback == Some(old) {
            self.fallback = Some(new);
        }
    }

    /// What SA_RESOURCE_INFO says of it; `None`: there is nothing to be said. RFC 9611 section 4: the peer makes nothing of the
    /// identifier but something to read for people.
    pub(crate) fn info(&self) -> Option<Payload> {
        let data = match self.resource() {
            Some(lane) => lane.to_be_bytes().to_vec(),
            None if self.shared => Vec::new(),
            None => return None,
        };
        Some(Notify::with_data(NotifyType::SA_RESOURCE_INFO, data).into())
    }
}

/// Whether the peer says that it can. RFC 9611 section 6.1: protocol and SPI are to be ignored; so is the identifier.
pub(crate) fn is_said(message: &[Payload]) -> bool {
    message.notify(NotifyType::SA_RESOURCE_INFO).is_some()
}

// ---- asking ----

impl IkeSa {
    /// The data path wants an SA of this lane beside a child.
    pub(crate) fn want_resource(&mut self, cx: &mut Core, fallback: ChildId, lane: u16) {
        let coming = self.tasks.iter().any(|q| q.is_resource(fallback, lane))
            || matches!(&self.ours, Some(Ours::Child(ours))
                if ours.offer.place.fallback == Some(fallback) && ours.offer.place.lane == lane);
        if !coming && self.may_have_resource(cx, fallback, lane) {
            self.queue(Task::NewResource(fallback, lane));
        }
        self.pump(cx);
    }

    fn may_have_resource(&self, cx: &Core, fallback: ChildId, lane: u16) -> bool {
        let Some(child) = self.children.get(fallback) else { return false };
        let asked = child.asked.as_deref().copied().unwrap_or_default();
        let waiting = self.tasks.iter().filter(|q| q.is_beside(fallback)).count();
        child.state == ChildState::Installed
            && child.place.fallback.is_none()
            && child.place.shared
            && lane < cx.lanes.count()
            && lane != child.place.lane
            && !self.no_more_children
            && !asked.refused
            && asked.not_before.is_none_or(|at| at <= cx.now)
            && self.children.len() < cx.config.children_limit
            && self.beside(fallback).count() + waiting < usize::from(cx.config.resources_asked)
            && self.beside(fallback).all(|(_, c)| c.place.lane != lane)
    }

    /// The children beside a fallback.
    fn beside(&self, fallback: ChildId) -> impl Iterator<Item = (ChildId, &Child)> {
        self.children.iter().filter(move |(_, c)| c.place.fallback == Some(fallback))
    }

    /// Asks the peer for it.
    pub(crate) fn begin_resource(&mut self, cx: &mut Core, fallback: ChildId, lane: u16) {
        if !self.may_have_resource(cx, fallback, lane) {
            return;
        }
        let Some(child) = self.children.get(fallback) else { return };
        let (name, suite, mode) = (child.name.clone(), child.suite, child.mode);
        let selectors = child.selectors.clone();
        let Some(policy) = self.child_policy(&name) else { return };
        let esp = of_suite(&policy.esp, &suite);
        let spi_in = cx.esp_spi(lane);
        let offer = ChildOffer {
            wanted: Wanted { name, packet: None, replaces: None },
            spi_in,
            sa: select::offer_esp(&esp, spi_in, true),
            selectors,
            mode,
            place: Place { lane, fallback: Some(fallback), shared: false },
        };
        self.begin_child_exchange(cx, offer, None, select::first_esp_group(&esp));
    }

    /// There will be none, because of this notification or for another reason.
    pub(crate) fn resource_failed(
        &mut self,
        cx: &mut Core,
        offer: &ChildOffer,
        kind: Option<NotifyType>,
        why: Why,
    ) {
        let Some(fallback) = offer.place.fallback else { return };
        self.no_more_children |= kind == Some(NotifyType::NO_ADDITIONAL_SAS);
        self.hold_resources(cx, fallback);
        if let Some(asked) = self.children.get_mut(fallback).and_then(|child| child.asked.as_mut()) {
            asked.refused |= kind == Some(NotifyType::TS_MAX_QUEUE);
        }
        let (realm, name) = (self.realm_name(), offer.wanted.name.clone());
        cx.event(Event::ResourceRefused { realm, name, resource: offer.place.lane, why });
    }

    /// Asks for nothing beside a fallback for a while.
    pub(crate) fn hold_resources(&mut self, cx: &Core, fallback: ChildId) {
        if let Some(child) = self.children.get_mut(fallback) {
            child.asked.get_or_insert_default().not_before = cx.now.checked_add(AGAIN);
        }
    }

    /// Nothing is remembered of what the peer refused on another IKE SA.
    pub(crate) fn forget_refusals(&mut self) {
        for id in self.children.ids() {
            if let Some(child) = self.children.get_mut(id) {
                child.asked = None;
            }
        }
    }
}

// ---- being asked ----

impl IkeSa {
    /// Where a child belongs that the peer asks for; the request has been narrowed to these selectors. Of one that is to be
    /// beside another: the other's suite too, which it must have.
    pub(crate) fn place_for(
        &self,
        cx: &Core,
        message: &[Payload],
        name: &str,
        mode: ChildMode,
        selectors: &Selectors,
    ) -> Result<(Place, Option<EspSuite>), Refused> {
        let lane = self.realm.as_ref().map_or(0, |realm| cx.lane_for(realm));
        let shared = is_said(message) && cx.config.resources_accepted > 0;
        let alone = Place { lane, fallback: None, shared };
        if !is_said(message) {
            return Ok((alone, None));
        }
        let fallback = self.children.iter().find(|(_, c)| {
            c.place.fallback.is_none()
                && c.state == ChildState::Installed
                && *c.name == *name
                && c.mode == mode
                && c.selectors == *selectors
        });
        let Some((fallback, child)) = fallback else { return Ok((alone, None)) };
        if self.beside(fallback).count() >= usize::from(cx.config.resources_accepted) {
            return Err(self.no_more_beside(name));
        }
        // RFC 9611 section 5: the worker that has the fewest of these.
        let on = |lane| {
            usize::from(child.place.lane == lane)
                + self.beside(fallback).filter(|(_, c)| c.place.lane == lane).count()
        };
        let fixed = self.realm.as_ref().is_some_and(|realm| realm.worker.is_some());
        let lane = if fixed { lane } else { cx.lanes.least_by(on) };
        Ok((Place { lane, fallback: Some(fallback), shared: false }, Some(child.suite)))
    }

    /// RFC 9611 section 5: never NO_ADDITIONAL_SAS, which would speak of other selectors too.
    pub(crate) fn no_more_beside(&self, name: &str) -> Refused {
        Refused {
            notify: Notify::new(NotifyType::TS_MAX_QUEUE),
            name: name.into(),
            why: Why::Normal("as many Child SAs with these selectors as may be".into()),
        }
    }

    /// The peer was refused one.
    pub(crate) fn note_refused(&mut self, cx: &mut Core, refused: Refused) {
        let realm = self.realm_name();
        cx.refusal(Event::ChildFailed { realm, name: refused.name, why: refused.why });
    }
}

// ---- what becomes of them ----

impl IkeSa {
    /// A child has taken the place of another: those beside it are beside the new one now.
    pub(crate) fn move_beside(&mut self, old: ChildId, new: ChildId) {
        for id in self.children.ids() {
            if let Some(child) = self.children.get_mut(id) {
                child.place.move_beside(old, new);
            }
        }
        for queued in &mut self.tasks {
            queued.move_beside(old, new);
        }
        if let Some(Ours::Child(ours)) = &mut self.ours {
            ours.move_beside(old, new);
        }
        if let Some(Theirs::Child(theirs)) = &mut self.theirs {
            theirs.choice.agreed.place.move_beside(old, new);
        }
    }

    /// A fallback is gone, and nothing took its place: what is beside it goes too.
    pub(crate) fn delete_beside(&mut self, fallback: ChildId) {
        let beside: Vec<ChildId> = self.beside(fallback).map(|(id, _)| id).collect();
        beside.into_iter().for_each(|id| self.queue(Task::DeleteChild(id)));
    }

    /// Whether a child that is to be beside another can still be: the other is there, and so is the room.
    pub(crate) fn is_place_good(&self, place: Place) -> bool {
        place.fallback.is_none_or(|fallback| {
            self.children.get(fallback).is_some_and(|c| c.state == ChildState::Installed)
        })
    }
}

/// The proposals, as far as they are of this suite: RFC 9611 section 4 wants all of these SAs alike. Groups are another matter,
/// each SA has keys of its own.
pub(crate) fn of_suite(proposals: &[EspProposal], suite: &EspSuite) -> Vec<EspProposal> {
    let integ: Vec<Integ> = Some(suite.integ).filter(|i| *i != Integ::NONE).into_iter().collect();
    let like = |groups: &[spi::Group]| EspProposal {
        encr: vec![suite.encr],
        integ: integ.clone(),
        groups: groups.to_vec(),
        esn: vec![suite.esn],
    };
    let fits = |p: &&EspProposal| {
        p.encr.contains(&suite.encr)
            && integ.iter().all(|i| p.integ.contains(i))
            && (p.esn.contains(&suite.esn) || (p.esn.is_empty() && !suite.esn))
    };
    let all: Vec<EspProposal> = proposals.iter().filter(fits).map(|p| like(&p.groups)).collect();
    // The configuration may have changed since; what is in use is good enough.
    if all.is_empty() { vec![like(&[])] } else { all }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proposals_are_cut_to_the_suite_and_keep_their_groups() {
        let list = |texts: &[&str]| -> Vec<EspProposal> {
            texts.iter().map(|text| EspProposal::parse(text).unwrap()).collect()
        };
        let ours = list(&["aes256gcm16-aes128gcm16-x25519", "aes128-sha256-sha1-ecp256", "aes128gcm16-esn"]);
        let suite = |encr, integ, esn| EspSuite { encr, integ, esn, group: None };
        let texts = |s| of_suite(&ours, &s).iter().map(ToString::to_string).collect::<Vec<_>>();
        let gcm = spi::Encr::AES128_GCM16;
        assert_eq!(texts(suite(gcm, Integ::NONE, false)), ["aes128gcm16-x25519"]);
        assert_eq!(texts(suite(gcm, Integ::NONE, true)), ["aes128gcm16-esn"]);
        let cbc = suite(spi::Encr::AES128_CBC, Integ::HMAC_SHA1_96, false);
        assert_eq!(texts(cbc), ["aes128-sha1-ecp256"]);
        let gone = suite(spi::Encr::CHACHA20_POLY1305, Integ::NONE, false);
        assert_eq!(texts(gone), ["chacha20poly1305"], "what is in use, without a group");
    }
}
