//! Child SA pairs into the devices, the data path and the routing table, and out again.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use esp::{
    DfPolicy, DscpPolicy, EcnPolicy, ElsewhereSa, InboundSa, Limits, Mode, OutboundSa, PeerMoves, UdpEncap,
};
use ike::{ChildInstall, ChildRemoved, EspSignal};
use policy::{Child, ChildMode};
use spi::{Direction, SaParams};
use wire::TrafficSelector;

use super::Worker;
use super::accel::Seat;
use super::book::{Likeness, Pair, RouteKey};
use super::routes::{Claim, destinations};
use super::traps::{SA_PRIORITY, Sources};
use crate::config::RealmWork;
use crate::events::Notice;
use crate::io::system;
use crate::plane::order::{Install, Order};

/// MTU of the path when the kernel knows no better.
const PATH_MTU: u16 = 1500;

impl Worker {
    /// Installs a pair; the engine learns when that fails.
    pub(super) fn install(&mut self, now: Instant, install: ChildInstall) {
        let (id, realm, name) = (install.id, install.realm.clone(), install.name.clone());
        if let Err(why) = self.try_install(now, install) {
            let (realm, name) = (realm.to_string(), name.to_string());
            self.events.publish(Notice::InstallFailed { realm, name, why });
            self.engine.handle_esp(now, EspSignal::NotInstalled(id), &mut self.fx);
        }
    }

    fn try_install(&mut self, now: Instant, c: ChildInstall) -> Result<(), String> {
        let selectors = (&c.ts_local[..], &c.ts_remote[..]);
        let likeness = self.book.likeness((&c.realm, &c.name), c.path.remote, selectors);
        let line = self.book.line_for(&c.realm, &c.name, c.replaces.or(c.fallback), likeness);
        // A line that was made for this pair alone must not stay without it.
        self.install_on(now, line, likeness, c).inspect_err(|_| self.book.unused(line))
    }

    fn install_on(
        &mut self,
        now: Instant,
        line: esp::ChildId,
        likeness: Likeness,
        c: ChildInstall,
    ) -> Result<(), String> {
        let realm = self.realm(&c.realm).cloned();
        let child = realm.as_ref().and_then(|realm| realm.child(&c.name));
        let device_name = child.map_or(self.settings.tun.clone(), |child| self.device_of(child));
        let iface = self.tuns.iter().position(|tun| *tun.name() == *device_name && tun.is_there());
        let iface = iface.ok_or_else(|| format!("there is no TUN device {device_name}"))? as u32;
        let mode = mode(&c);
        let encap = c.encap.then_some(UdpEncap { local: c.path.local, remote: c.path.remote });
        let params = |spi, dir, encr_key, integ_key| SaParams {
            spi,
            dir,
            encr: c.encr,
            integ: c.integ,
            encr_key,
            integ_key,
            esn: c.esn,
        };
        let inbound = params(c.spi_in, Direction::Open, c.encr_key_in, c.integ_key_in);
        let outbound = params(c.spi_out, Direction::Seal, c.encr_key_out, c.integ_key_out);
        let lane = c.lane;
        let RealmWork { fallback, accel, .. } = self.work_of_name(&c.realm);
        let seat = Seat { lane, line, realm: c.realm.clone(), fallback, accel };
        let open = self.accel.install((c.id, Direction::Open), seat.clone(), inbound);
        let (device_in, sa_in) = open.map_err(|refused| refused.to_string())?;
        let seal = self.accel.install((c.id, Direction::Seal), seat, outbound);
        let (device_out, sa_out) = seal.map_err(|refused| {
            self.accel.take_back((c.id, Direction::Open));
            refused.to_string()
        })?;
        let limits = limits(c.soft_bytes, c.soft_packets);
        let dummy = self.dummies.get(&(c.realm.clone(), c.name.clone())).copied();
        let share = self.share_of(&c.realm);
        let remote = c.path.remote.ip();
        let way = system::way_to(remote, self.settings.mark);
        let inbound = InboundSa {
            child: line,
            spi: c.spi_in,
            device: device_in,
            sa: sa_in,
            encr: c.encr,
            integ: c.integ,
            esn: c.esn,
            mode,
            encap,
            ts_local: c.ts_local.to_vec(),
            ts_remote: c.ts_remote.to_vec(),
            iface,
            replay_window: child.map_or(1024, |child| child.replay_window),
            // RFC 7296 section 2.23: only the side that is not behind a NAT follows.
            moves: if c.peer_behind_nat && !c.keepalive { PeerMoves::Follow } else { PeerMoves::Report },
            pair: Some(c.spi_out),
            limits,
            share,
        };
        let outbound = OutboundSa {
            child: line,
            spi: c.spi_out,
            device: device_out,
            sa: sa_out,
            encr: c.encr,
            integ: c.integ,
            esn: c.esn,
            mode,
            encap,
            ts_local: c.ts_local.to_vec(),
            ts_remote: c.ts_remote.to_vec(),
            iface: None,
            priority: SA_PRIORITY,
            tfc: child.map(|child| child.tfc).filter(|tfc| *tfc > 0),
            dummy,
            keepalive: (c.keepalive && c.encap).then_some(self.settings.keepalive),
            df: if copies(child, |child| child.copy_df) { DfPolicy::Copy } else { DfPolicy::Clear },
            dscp: if copies(child, |child| child.copy_dscp) {
                DscpPolicy::Copy
            } else {
                DscpPolicy::Fixed(0)
            },
            ecn: EcnPolicy::Copy,
            path_mtu: way
                .map_or(PATH_MTU, |way| way.mtu)
                .min(self.paths.mtu(now, remote).unwrap_or(u16::MAX)),
            limits,
            waits: !c.use_outbound,
            at_once: self.work_of_name(&c.realm).at_once,
            share,
        };
        // Beside another pair like it that is in use, the peer shows with its first packet that it has the new one.
        let use_outbound = c.use_outbound && c.replaces.is_some();
        // An SA for one lane alone is nothing to the others: they hand their packets to the one that is for all.
        if c.resource.is_none() {
            self.lanes.all_but(now, lane, || {
                let (ts_local, ts_remote) = (c.ts_local.to_vec(), c.ts_remote.to_vec());
                let (spi, priority) = (c.spi_out, SA_PRIORITY);
                let sa = ElsewhereSa { child: line, spi, lane, ts_local, ts_remote, iface: None, priority };
                Order::Elsewhere(Box::new(sa))
            });
        }
        let own = (c.mode == ChildMode::Transport).then(|| c.path.local.ip());
        let mut networks = destinations(&c.ts_remote);
        networks.extend(c.subnets.iter().filter(|subnet| !networks.contains(subnet)).collect::<Vec<_>>());
        let routes = self.hold_routes(&c.realm, &device_name, &c.ts_local, networks, own);
        let (id, spi_in, spi_out) = (c.id, c.spi_in, c.spi_out);
        let label = Arc::from(format!("{}/{}", c.realm, c.name));
        self.session_child(c.ike, id);
        self.book.add(id, Pair { line, lane, spi_in, spi_out, routes, likeness });
        let install = Install { id, label, inbound, outbound, use_outbound };
        self.lanes.give(now, lane, Order::Install(Box::new(install)));
        Ok(())
    }

    /// A lane could not install a pair; the devices have their handles back.
    pub(super) fn not_installed(&mut self, now: Instant, id: ike::ChildId, why: String) {
        let Some(pair) = self.book.pair(id) else { return };
        let (realm, _) = self.book.names(pair.line).unwrap_or_default();
        let (realm, name) = (realm.to_owned(), self.book.names(pair.line).unwrap_or_default().1.to_owned());
        self.forget(now, id);
        self.events.publish(Notice::InstallFailed { realm, name, why });
        self.engine.handle_esp(now, EspSignal::NotInstalled(id), &mut self.fx);
        self.carry_out(now);
    }

    /// Removes a pair.
    pub(super) fn remove(&mut self, now: Instant, removed: ChildRemoved) {
        if let Some(Pair { line, lane, spi_in, spi_out, .. }) = self.forget(now, removed.id) {
            self.lanes.give(now, lane, Order::Remove { id: removed.id, line, spi_in, spi_out });
        }
    }

    /// Forgets a pair, and what goes with it outside its lane.
    fn forget(&mut self, now: Instant, id: ike::ChildId) -> Option<Pair> {
        let (pair, moved) = self.book.remove(id)?;
        let (line, spi) = (pair.line, pair.spi_out);
        self.lanes.all_but(now, pair.lane, || Order::NotElsewhere { line, spi });
        [Direction::Open, Direction::Seal].into_iter().for_each(|dir| self.accel.forget((id, dir)));
        tracing::debug!(spi_in = pair.spi_in, "Child SA pair removed");
        for key in &pair.routes {
            self.routes.release(key, Claim::Sa, &mut self.ask);
        }
        if moved {
            self.set_policies();
        }
        Some(pair)
    }

    fn hold_routes(
        &mut self,
        realm: &Arc<str>,
        device: &Arc<str>,
        local: &[TrafficSelector],
        networks: Vec<(IpAddr, u8)>,
        own: Option<IpAddr>,
    ) -> Box<[RouteKey]> {
        let mut held = Vec::new();
        let sources = if own.is_some() { Sources::default() } else { self.sources_for(realm, local) };
        for destination in networks {
            let source = own.or_else(|| sources.of(destination.0));
            let key = (destination, Arc::clone(device));
            self.routes.hold(&key, Claim::Sa, realm, source, &mut self.ask);
            held.push(key);
        }
        held.into()
    }
}

fn copies(child: Option<&Child>, what: impl Fn(&Child) -> bool) -> bool {
    child.is_none_or(what)
}

fn mode(c: &ChildInstall) -> Mode {
    let (local, remote) = (c.path.local.ip(), c.path.remote.ip());
    if c.mode == ChildMode::Tunnel {
        return Mode::Tunnel { local, remote };
    }
    // Behind a NAT the selectors hold the addresses as the peer wrote them (RFC 7296 section 2.23.1).
    let host = |selectors: &[TrafficSelector], outer: IpAddr| match selectors {
        [one, ..] if one.is_host() => one.start,
        _ => outer,
    };
    let original = (host(&c.ts_local, local), host(&c.ts_remote, remote));
    Mode::Transport { local, remote, original: (original != (local, remote)).then_some(original) }
}

/// Past the soft limit there is a tenth more until the SA stops.
fn limits(soft_bytes: u64, soft_packets: u64) -> Limits {
    let both = |soft: u64| match soft {
        0 => (u64::MAX, u64::MAX),
        soft => (soft, soft.saturating_add(soft / 10).saturating_add(1)),
    };
    let ((soft_bytes, hard_bytes), (soft_packets, hard_packets)) = (both(soft_bytes), both(soft_packets));
    Limits { soft_bytes, hard_bytes, soft_packets, hard_packets }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_limit_is_no_limit_and_a_soft_one_has_a_hard_one_behind_it() {
        assert_eq!(limits(0, 0), Limits::default());
        let limits = limits(1000, 0);
        assert_eq!((limits.soft_bytes, limits.hard_bytes, limits.soft_packets), (1000, 1101, u64::MAX));
    }
}
