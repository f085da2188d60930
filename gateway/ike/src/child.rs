//! Child SAs: what is kept of a pair, how it is installed and how it goes (RFC 7296 sections 1.3, 1.4.1, 2.8, 2.17).

use std::sync::Arc;
use std::time::{Duration, Instant};

use policy::{ChildMode, Encap, Lifetime};
use spi::Secret;
use wire::TrafficSelector;
use wire::ike::Sa;

use crate::core::{Core, Timer, Todo};
use crate::effect::{ChildId, ChildInstall, ChildRemoved, Effect, Event, KeyLogEntry, Path, Why};
use crate::keymat::ChildKeys;
use crate::narrow::Selectors;
use crate::resource::{Asked, Place};
use crate::sa::{IkeSa, Wanted};
use crate::select::EspSuite;

/// How long the inbound SA of a replaced child still takes packets that were under way when the peer stopped using it. Longer
/// than any path delays a packet, short enough that nobody waits for the memory.
pub(crate) const LATE_PACKETS: Duration = Duration::from_secs(3);

/// How long a peer has to delete what a collision made redundant, before we do it. Early does no harm: the peer lets go of it
/// in any case.
pub(crate) const REDUNDANT: Duration = Duration::from_secs(20);

/// A Child SA pair.
pub(crate) struct Child {
    pub(crate) name: Arc<str>,
    pub(crate) suite: EspSuite,
    pub(crate) spi_in: u32,
    pub(crate) spi_out: u32,
    pub(crate) mode: ChildMode,
    pub(crate) selectors: Selectors,
    pub(crate) state: ChildState,
    /// Whether our packets go through it.
    pub(crate) outbound: bool,
    pub(crate) replaces: Option<ChildId>,
    pub(crate) installed: Instant,
    pub(crate) rekey_at: Option<Instant>,
    pub(crate) expires_at: Option<Instant>,
    pub(crate) place: Place,
    /// See [`crate::resource`]; mostly nothing.
    pub(crate) asked: Option<Box<Asked>>,
}

/// The children of an IKE SA, by name. Mostly there is one, so they are a list and take no more than they need.
#[derive(Default)]
pub(crate) struct Children(Vec<(ChildId, Child)>);

impl Children {
    /// Takes one in. Names are given out in their order, so that it goes last; but children pass from one IKE SA to another.
    pub(crate) fn insert(&mut self, id: ChildId, child: Child) {
        match self.0.binary_search_by_key(&id, |(id, _)| *id) {
            Ok(at) => self.0[at].1 = child,
            Err(at) => {
                self.0.reserve_exact(1);
                self.0.insert(at, (id, child));
            }
        }
    }

    pub(crate) fn remove(&mut self, id: ChildId) -> Option<Child> {
        let at = self.0.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        let (_, child) = self.0.remove(at);
        self.0.shrink_to_fit();
        Some(child)
    }

    pub(crate) fn get(&self, id: ChildId) -> Option<&Child> {
        let at = self.0.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        self.0.get(at).map(|(_, child)| child)
    }

    pub(crate) fn get_mut(&mut self, id: ChildId) -> Option<&mut Child> {
        let at = self.0.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        self.0.get_mut(at).map(|(_, child)| child)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (ChildId, &Child)> {
        self.0.iter().map(|(id, child)| (*id, child))
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &Child> {
        self.0.iter().map(|(_, child)| child)
    }

    pub(crate) fn ids(&self) -> Vec<ChildId> {
        self.0.iter().map(|(id, _)| *id).collect()
    }

    pub(crate) fn contains(&self, id: ChildId) -> bool {
        self.get(id).is_some()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Takes all of another's in.
    pub(crate) fn take_over(&mut self, others: Children) {
        others.0.into_iter().for_each(|(id, child)| self.insert(id, child));
    }
}

/// What is going on with a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChildState {
    /// It carries traffic.
    Installed,
    /// Another one carries its traffic on; the Delete is still to come.
    Replaced,
    /// A simultaneous rekey left one too many: the peer made it and will delete it (RFC 7296 section 2.8.1).
    Redundant,
    /// Our Delete is on its way.
    Deleting,
}

impl ChildState {
    pub(crate) fn name(self) -> &'static str {
        match self {
            ChildState::Installed => "Installed",
            ChildState::Replaced => "Replaced",
            ChildState::Redundant => "Redundant",
            ChildState::Deleting => "Deleting",
        }
    }
}

/// A child we asked for; its inbound SPI is reserved.
pub(crate) struct ChildOffer {
    pub(crate) wanted: Wanted,
    pub(crate) spi_in: u32,
    pub(crate) sa: Sa,
    pub(crate) selectors: Selectors,
    pub(crate) mode: ChildMode,
    pub(crate) place: Place,
}

/// A child both sides agree on.
pub(crate) struct Agreed {
    pub(crate) name: Arc<str>,
    pub(crate) suite: EspSuite,
    pub(crate) spi_in: u32,
    pub(crate) spi_out: u32,
    pub(crate) mode: ChildMode,
    pub(crate) selectors: Selectors,
    pub(crate) place: Place,
}

/// How an agreed child comes in.
#[derive(Clone, Copy)]
pub(crate) struct Entry {
    /// Whether we began the exchange that made it: decides which keys are whose (RFC 7296 section 2.17).
    pub(crate) initiator: bool,
    /// The child whose traffic it carries on.
    pub(crate) replaces: Option<ChildId>,
    /// Whether our packets go through it at once.
    pub(crate) outbound: bool,
}

impl IkeSa {
    /// The child for these inputs to its keys; `None` and a closed SA when the key schedule fails, which is a fault of ours.
    pub(crate) fn child_keys(
        &self,
        cx: &Core,
        suite: &EspSuite,
        g_ir: Option<&Secret>,
        ni: &[u8],
        nr: &[u8],
    ) -> Option<ChildKeys> {
        let (prf, sk_d) = (self.suite?.prf, self.sk_d.as_ref()?);
        ChildKeys::derive(&*cx.ops, prf, sk_d, g_ir, ni, nr, suite.encr, suite.integ).ok()
    }

    /// Installs a child.
    pub(crate) fn install_child(
        &mut self,
        cx: &mut Core,
        mut agreed: Agreed,
        keys: ChildKeys,
        entry: Entry,
    ) -> ChildId {
        let id = cx.next_child(self.id);
        agreed.selectors.local = cx.share(agreed.selectors.local);
        agreed.selectors.remote = cx.share(agreed.selectors.remote);
        let lifetime = self.child_lifetime(&agreed.name);
        let (path, encap) = self.esp_path(cx);
        let (encr_key_out, integ_key_out, encr_key_in, integ_key_in) = match entry.initiator {
            true => (keys.encr_i, keys.integ_i, keys.encr_r, keys.integ_r),
            false => (keys.encr_r, keys.integ_r, keys.encr_i, keys.integ_i),
        };
        let after = (!lifetime.time.is_zero()).then(|| cx.jittered_time(lifetime.time, lifetime.jitter));
        let hard = Duration::try_from_secs_f64(lifetime.time.as_secs_f64() * lifetime.hard_factor.max(1.0));
        let rekey_at = after.and_then(|after| cx.now.checked_add(after));
        let expires_at = after.and_then(|_| cx.now.checked_add(hard.unwrap_or(Duration::MAX)));
        if let Some(at) = rekey_at {
            cx.timers.arm(Timer::RekeyChild(id), at);
        }
        if let Some(at) = expires_at {
            cx.timers.arm(Timer::ExpireChild(id), at);
        }
        let mut soft = |limit: u64| cx.jittered(limit as f64, lifetime.jitter) as u64;
        let (soft_bytes, soft_packets) = (soft(lifetime.bytes), soft(lifetime.packets));
        if cx.config.key_log {
            let (local, remote) = (path.local.ip(), path.remote.ip());
            for (source, destination, spi, encr_key, integ_key) in [
                (local, remote, agreed.spi_out, &encr_key_out, &integ_key_out),
                (remote, local, agreed.spi_in, &encr_key_in, &integ_key_in),
            ] {
                cx.fx.push(Effect::KeyLog(KeyLogEntry::Esp {
                    source,
                    destination,
                    spi,
                    encr: agreed.suite.encr,
                    integ: agreed.suite.integ,
                    encr_key: encr_key.duplicate(),
                    integ_key: integ_key.duplicate(),
                }));
            }
        }
        let realm = self.realm_name();
        let subnets = self.subnets_of(cx, &agreed.name, &agreed.selectors.remote, entry.replaces.is_none());
        cx.fx.push(Effect::InstallChild(Box::new(ChildInstall {
            id,
            ike: self.id,
            realm: realm.clone(),
            name: agreed.name.clone(),
            replaces: entry.replaces,
            spi_in: agreed.spi_in,
            spi_out: agreed.spi_out,
            encr: agreed.suite.encr,
            integ: agreed.suite.integ,
            esn: agreed.suite.esn,
            encr_key_in,
            integ_key_in,
            encr_key_out,
            integ_key_out,
            mode: agreed.mode,
            ts_local: agreed.selectors.local.clone(),
            ts_remote: agreed.selectors.remote.clone(),
            subnets,
            path,
            encap,
            keepalive: self.nat.we_behind,
            peer_behind_nat: self.nat.peer_behind,
            use_outbound: entry.outbound,
            soft_bytes,
            soft_packets,
            lane: agreed.place.lane,
            resource: agreed.place.resource(),
            fallback: agreed.place.fallback,
        })));
        cx.event(Event::ChildEstablished {
            id,
            realm: realm.clone(),
            name: agreed.name.clone(),
            suite: agreed.suite,
            ts_local: agreed.selectors.local.clone(),
            ts_remote: agreed.selectors.remote.clone(),
            replaces: entry.replaces,
            resource: agreed.place.resource(),
        });
        if agreed.place.fallback.is_none() {
            let (name, rekeyed) = (agreed.name.clone(), entry.replaces.is_some());
            cx.todo.push_back(Todo::ChildUp { id: self.id, realm, name, rekeyed });
        }
        if let Some(old) = entry.replaces {
            self.move_beside(old, id);
        }
        let child = Child {
            name: agreed.name,
            suite: agreed.suite,
            spi_in: agreed.spi_in,
            spi_out: agreed.spi_out,
            mode: agreed.mode,
            selectors: agreed.selectors,
            state: ChildState::Installed,
            outbound: entry.outbound,
            replaces: entry.replaces,
            installed: cx.now,
            rekey_at,
            expires_at,
            place: agreed.place,
            asked: None,
        };
        self.children.insert(id, child);
        id
    }

    /// Takes a child out. When another pair carries its traffic on, late packets are still taken for a while.
    pub(crate) fn remove_child(&mut self, cx: &mut Core, id: ChildId, why: Why, replaced: bool) {
        let Some(child) = self.children.remove(id) else { return };
        cx.child_of.remove(&id);
        cx.disarm(Timer::RekeyChild(id));
        cx.disarm(Timer::ExpireChild(id));
        cx.disarm(Timer::Redundant(id));
        let removed = ChildRemoved { id, spi_in: child.spi_in, spi_out: child.spi_out, replaced };
        if replaced {
            cx.fx.push(Effect::RetireChild(id));
            cx.fading.insert(id, removed);
            cx.arm(Timer::Faded(id), LATE_PACKETS);
        } else {
            cx.free_esp_spi(child.spi_in);
            cx.fx.push(Effect::RemoveChild(removed));
        }
        if !replaced {
            self.delete_beside(id);
        }
        let realm = self.realm_name();
        cx.event(Event::ChildClosed { id, realm: realm.clone(), name: child.name.clone(), why });
        if !replaced && child.state != ChildState::Redundant && child.place.fallback.is_none() {
            cx.todo.push_back(Todo::ChildDown { realm, name: child.name });
        }
    }

    /// From now on our packets go through this child.
    pub(crate) fn use_outbound(&mut self, cx: &mut Core, id: ChildId) {
        if let Some(child) = self.children.get_mut(id)
            && !child.outbound
            && child.state == ChildState::Installed
        {
            child.outbound = true;
            cx.fx.push(Effect::UseOutbound(id));
        }
    }

    /// The child that carries on what `id` carried.
    pub(crate) fn successor_of(&self, id: ChildId) -> Option<ChildId> {
        self.children
            .iter()
            .find(|(_, c)| c.replaces == Some(id) && c.state == ChildState::Installed)
            .map(|(id, _)| id)
    }

    /// The child whose packets to the peer have this SPI: how the peer names it (RFC 7296 sections 1.3.3 and 1.4.1).
    pub(crate) fn child_by_peer_spi(&self, spi: u32) -> Option<ChildId> {
        self.children.iter().find(|(_, c)| c.spi_out == spi).map(|(id, _)| id)
    }

    fn child_lifetime(&self, name: &str) -> Lifetime {
        let child = self.realm.as_ref().and_then(|r| r.child(name));
        child.map_or(Lifetime::of(Duration::ZERO), |c| c.rekey)
    }

    /// Between which addresses ESP travels, and whether in UDP. RFC 7296 section 2.23: each side may encapsulate as it likes,
    /// and must when there is a NAT.
    pub(crate) fn esp_path(&self, cx: &Core) -> (Path, bool) {
        let encap = self.nat.any()
            || match self.realm.as_ref().map(|r| r.encap) {
                Some(Encap::Udp) => true,
                Some(Encap::Auto) => self.ext.peer_is_ours,
                Some(Encap::Raw) | None => false,
            };
        let mut path = self.path;
        if encap && path.local.port() != cx.config.natt_port {
            path.local.set_port(cx.config.natt_port);
            path.remote.set_port(cx.config.natt_port);
        }
        (path, encap)
    }
}

/// Selectors for people: ours, then the peer's.
pub fn selectors_text(local: &[TrafficSelector], remote: &[TrafficSelector]) -> String {
    format!("{} === {}", side_text(local), side_text(remote))
}

fn side_text(side: &[TrafficSelector]) -> String {
    /// Selectors named one by one; a peer may send 255.
    const NAMED: usize = 8;
    let mut names: Vec<String> = side.iter().take(NAMED).map(TrafficSelector::to_string).collect();
    if side.len() > NAMED {
        names.push(format!("and {} more", side.len() - NAMED));
    }
    names.join(" ")
}
