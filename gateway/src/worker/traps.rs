//! The SPD as the configuration makes it: carve-outs, and traps, which ask for a Child SA when a packet wants one.

use std::net::IpAddr;

use esp::{Action, Policy};
use policy::{Child, ChildMode, DpdAction, Realm, SelectorSpec, Start};
use wire::TrafficSelector;

use super::Worker;
use super::book::RouteKey;
use super::routes::destinations;
use crate::io::system;

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
        let mut routes: Vec<(RouteKey, String, Option<IpAddr>)> = Vec::new();
        for realm in self.realms.clone() {
            for child in realm.children.iter().filter(|child| is_trapped(&realm, child)) {
                let Some((local, remote)) = self.trap_selectors(&realm, child) else { continue };
                let device = self.device_of(child);
                for destination in destinations(&remote) {
                    let source = self.source_for(&realm.name, &local, destination.0);
                    routes.push(((destination, device.clone()), realm.name.clone(), source));
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
        self.esp.set_policies(policies);
        // New ones first, so that a route that stays is not taken away for a moment.
        for (key, realm, source) in &routes {
            self.routes.hold(key, realm, *source, &mut self.ask);
        }
        let old = std::mem::replace(&mut self.trap_routes, routes.into_iter().map(|(key, ..)| key).collect());
        for key in old {
            self.routes.release(&key, &mut self.ask);
        }
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

    /// The address our own packets to `destination` should be sent from to fit the selectors: one that was given to us,
    /// else one of the machine's.
    pub(super) fn source_for(
        &self,
        realm: &str,
        local: &[TrafficSelector],
        destination: IpAddr,
    ) -> Option<IpAddr> {
        let family: Vec<TrafficSelector> =
            local.iter().filter(|ts| ts.start.is_ipv4() == destination.is_ipv4()).copied().collect();
        let fits = |address: &&IpAddr| family.iter().any(|ts| ts.contains_address(**address));
        let given = self.given.get(realm).into_iter().flatten().find(fits).copied();
        given.or_else(|| system::address_within(&family))
    }
}
