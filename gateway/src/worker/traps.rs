//! The SPD as the configuration makes it: carve-outs; traps, which ask for a Child SA when a packet wants one; and guards, which
//! lead what a child protects into its device whether there is an SA or not. Without one, no policy speaks of it there, and it
//! is dropped (RFC 4301 section 4.4.1: what is to be protected never leaves in the clear).

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use esp::{Action, Policy};
use policy::{Child, ChildMode, DpdAction, Realm, SelectorSpec, Start};
use wire::TrafficSelector;

use super::Worker;
use super::book::RouteKey;
use super::routes::{Claim, destinations};
use crate::config::RealmWork;
use crate::io::system;
use crate::plane::order::Order;

/// Place of SAs and traps among the policies; carve-outs with a lower number go before them.
pub(super) const SA_PRIORITY: u32 = 1_000_000;

/// Whether packets of a child have it set up.
pub(super) fn is_trapped(realm: &Realm, child: &Child) -> bool {
    let wanted =
        child.start == Start::Traffic || (child.start == Start::Boot && realm.dpd.action == DpdAction::Trap);
    wanted && realm.initiates_to().is_some()
}

impl Worker {
    /// Makes policies and trap routes from the configuration, in the place of those there are.
    pub(super) fn set_policies(&mut self) {
        let mut policies: Vec<Policy> = self
            .carve_outs
            .iter()
            .map(|carve_out| Policy {
                action: if carve_out.bypass { Action::Bypass } else { Action::Discard },
                priority: carve_out.priority,
                local: carve_out.local.clone(),
                remote: carve_out.remote.clone(),
                iface: None,
            })
            .collect();
        let mut routes: Vec<(RouteKey, Arc<str>, Option<IpAddr>)> = Vec::new();
        for realm in self.realms.clone() {
            for child in &realm.children {
                let trapped = is_trapped(&realm, child);
                let selectors = match trapped {
                    true => self.trap_selectors(&realm, child),
                    false if self.is_guarded(&realm.name, &child.name) => Some(guarded_selectors(child)),
                    false => None,
                };
                let Some((local, remote)) = selectors else { continue };
                let device = self.device_of(child);
                let sources = self.sources_for(&realm.name, &local);
                for destination in destinations(&remote) {
                    let source = sources.of(destination.0);
                    routes.push(((destination, device.clone()), realm.name.clone(), source));
                }
                if !trapped {
                    continue;
                }
                policies.push(Policy {
                    action: Action::Protect(self.book.configured(&realm.name, &child.name)),
                    priority: SA_PRIORITY,
                    local,
                    remote,
                    iface: None,
                });
            }
        }
        let policies = Arc::new(policies);
        self.lanes.all(Instant::now(), || Order::Policies(Arc::clone(&policies)));
        let rates = Arc::new(self.shares());
        self.lanes.all(Instant::now(), || Order::Shares(Arc::clone(&rates)));
        // New ones first, so that a route that stays is not taken away for a moment.
        for (key, realm, source) in &routes {
            self.routes.hold(key, Claim::Standing, realm, *source, &mut self.ask);
        }
        let old = std::mem::replace(&mut self.trap_routes, routes.into_iter().map(|(key, ..)| key).collect());
        for key in old {
            self.routes.release(&key, Claim::Standing, &mut self.ask);
        }
    }

    /// The budgets of realms that have one; their places are their numbers.
    fn shares(&self) -> Vec<f64> {
        self.realms.iter().filter_map(|realm| self.work_of(realm).share).collect()
    }

    fn work_of(&self, realm: &Realm) -> RealmWork {
        self.work_of_name(&realm.name)
    }

    /// How a realm's packets are worked on.
    pub(super) fn work_of_name(&self, name: &str) -> RealmWork {
        self.works.get(name).cloned().unwrap_or_default()
    }

    /// The number of a realm's budget.
    pub(super) fn share_of(&self, name: &str) -> Option<esp::ShareId> {
        let with = || self.realms.iter().filter(|realm| self.work_of(realm).share.is_some());
        with().position(|realm| *realm.name == *name).map(|place| esp::ShareId(place as u16))
    }

    /// The selectors of a trap. What is not known before there is an SA is any address of the family.
    fn trap_selectors(
        &self,
        realm: &Realm,
        child: &Child,
    ) -> Option<(Vec<TrafficSelector>, Vec<TrafficSelector>)> {
        let peer = realm.initiates_to()?;
        let own = match realm.local.iter().find(|local| local.is_ipv4() == peer.is_ipv4()) {
            Some(local) => Some(*local),
            None => system::way_to(peer, self.settings.mark).map(|way| way.source),
        };
        let asks = realm.virtual_ip.v4 || realm.virtual_ip.v6;
        let remote: Vec<_> = child.remote.iter().filter_map(|spec| spec.resolve(Some(peer))).collect();
        let any = |v4: bool| if v4 { TrafficSelector::ANY_V4 } else { TrafficSelector::ANY_V6 };
        let mut local = Vec::new();
        for spec in &child.local {
            match spec {
                SelectorSpec::Dynamic { protocol, start_port, end_port }
                    if asks && child.mode == ChildMode::Tunnel =>
                {
                    let families =
                        [realm.virtual_ip.v4.then_some(true), realm.virtual_ip.v6.then_some(false)];
                    let all = families.into_iter().flatten().map(any);
                    local.extend(all.map(|ts| ts.with_protocol(*protocol, *start_port, *end_port)));
                }
                spec => local.extend(spec.resolve(own)),
            }
        }
        Some((local, remote))
    }

    /// Whether what a child protects is held back while there is no SA for it.
    pub(super) fn is_guarded(&self, realm: &Arc<str>, child: &Arc<str>) -> bool {
        self.guarded.contains(&(Arc::clone(realm), Arc::clone(child)))
    }

    /// The addresses our own packets should be sent from to fit the selectors: one that was given to us, else one of the
    /// machine's.
    pub(super) fn sources_for(&self, realm: &str, local: &[TrafficSelector]) -> Sources {
        let of_family = |v4: bool| {
            let family: Vec<TrafficSelector> =
                local.iter().filter(|ts| ts.start.is_ipv4() == v4).copied().collect();
            let fits = |address: &IpAddr| family.iter().any(|ts| ts.contains_address(*address));
            let mut given = self.inner.given.get(realm).into_iter().flatten().map(|(address, _)| *address);
            given.find(fits).or_else(|| system::address_within(&family))
        };
        Sources { v4: of_family(true), v6: of_family(false) }
    }
}

/// What our own packets are sent from, by family.
#[derive(Clone, Copy, Default)]
pub(super) struct Sources {
    v4: Option<IpAddr>,
    v6: Option<IpAddr>,
}

impl Sources {
    /// Towards this address.
    pub(super) fn of(self, destination: IpAddr) -> Option<IpAddr> {
        if destination.is_ipv4() { self.v4 } else { self.v6 }
    }
}

/// The selectors of a child as far as they are written down. Destinations of a family that nothing of ours has are left out:
/// nothing that is to be protected goes there.
fn guarded_selectors(child: &Child) -> (Vec<TrafficSelector>, Vec<TrafficSelector>) {
    let fixed = |specs: &[SelectorSpec]| -> Vec<TrafficSelector> {
        let fixed = |spec: &SelectorSpec| match spec {
            SelectorSpec::Fixed(ts) => Some(*ts),
            SelectorSpec::Dynamic { .. } => None,
        };
        specs.iter().filter_map(fixed).collect()
    };
    let (local, mut remote) = (fixed(&child.local), fixed(&child.remote));
    if local.len() == child.local.len() {
        remote.retain(|theirs| local.iter().any(|ours| ours.start.is_ipv4() == theirs.start.is_ipv4()));
    }
    (local, remote)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_guarded_is_what_is_written_down_of_families_we_have() {
        let specs = |texts: &[&str]| texts.iter().map(|text| SelectorSpec::parse(text).unwrap()).collect();
        let guarded = |local: &[&str], remote: &[&str]| {
            let child = Child {
                name: "net".into(),
                mode: ChildMode::Tunnel,
                local: specs(local),
                remote: specs(remote),
                esp: vec![],
                start: Start::Manual,
                rekey: policy::Lifetime::of(std::time::Duration::ZERO),
                replay_window: 0,
                tfc: 0,
                copy_df: true,
                copy_dscp: true,
                tun: "".into(),
            };
            let (_, remote) = guarded_selectors(&child);
            remote.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(guarded(&["10.1.0.0/16"], &["10.2.0.0/16", "dynamic", "fec2::/16"]), ["10.2.0.0/16"]);
        assert_eq!(guarded(&["dynamic"], &["10.2.0.0/16", "fec2::/16"]), ["10.2.0.0/16", "fec2::/16"]);
        assert!(guarded(&["dynamic"], &["dynamic"]).is_empty());
    }
}
