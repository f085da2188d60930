//! What the engine wants done, done.

use std::time::Instant;

use esp::UdpEncap;
use ike::{Effect, Event, Path};

use super::ask::Asker;
use super::{GOODBYE_ID, Worker};
use crate::events::Notice;
use crate::plane::order::Order;

impl Worker {
    /// Carries out all effects, and those that follow from them.
    pub(super) fn carry_out(&mut self, now: Instant) {
        // Effects may give rise to others (an SA that cannot be installed); those come at the end of the list.
        while !self.fx.is_empty() {
            for effect in std::mem::take(&mut self.fx) {
                self.apply(now, effect);
            }
        }
    }

    fn apply(&mut self, now: Instant, effect: Effect) {
        match effect {
            Effect::Send { path, message } => self.letters.send(path, message),
            Effect::Crypto(job) => self.accel.submit(job),
            Effect::Ask { token, request } => self.ask.ask(Asker::Engine(token), request),
            Effect::InstallChild(install) => self.install(now, *install),
            Effect::UseOutbound(id) => {
                if let Some(pair) = self.book.pair(id) {
                    let order = Order::UseOutbound { line: pair.line, spi: pair.spi_out };
                    self.lanes.give(now, pair.lane, order);
                }
            }
            Effect::RetireChild(id) => {
                if let Some(pair) = self.book.pair(id) {
                    let (line, spi, lane) = (pair.line, pair.spi_out, pair.lane);
                    self.lanes.give(now, lane, Order::Retire { line, spi });
                    self.lanes.all_but(now, lane, || Order::NotElsewhere { line, spi });
                }
            }
            Effect::RemoveChild(removed) => self.remove(now, removed),
            Effect::MovePath { children, path, encap } => self.move_path(now, &children, path, encap),
            Effect::Addresses { realm, ours, dns, domains, add, .. } => {
                self.change_addresses(&realm, &ours, add);
                self.change_names(&realm, &dns, &domains, add);
                let ours = ours.iter().map(|inner| format!("{}/{}", inner.address, inner.prefix)).collect();
                let dns = dns.iter().map(ToString::to_string).collect();
                self.events.publish(Notice::Addresses { realm: realm.to_string(), ours, dns, domains, add });
            }
            Effect::Lease(change) => self.lease_changed(&change),
            Effect::WantAddress { token, realm, identity, v4, hint } => {
                let policy = self.realm(&realm).cloned();
                let asked = match policy.as_ref().and_then(|policy| policy.pool.as_ref()) {
                    Some(pool) => self.dhcp.want(token, (&realm, pool), identity, v4, hint),
                    None => Err("the realm has no pool any more".to_owned()),
                };
                if let Err(why) = asked {
                    self.engine.handle_address(now, token, Err(why), &mut self.fx);
                }
            }
            Effect::Event(event) => {
                self.release_waiting(now, &event);
                self.session_event(now, &event);
                self.events.tell(event);
            }
            Effect::KeyLog(entry) => {
                let written = self.keylog.as_mut().map(|log| log.write(&entry));
                if let Some(Err(error)) = written {
                    tracing::warn!(%error, "the key log cannot be written");
                }
            }
            Effect::Answer { command: GOODBYE_ID, .. } => {
                if let Some(stopping) = &mut self.stopping {
                    stopping.done = true;
                }
            }
            Effect::Answer { command, result } => {
                if let Some(answer) = self.commands.remove(&command) {
                    // Whoever asked may be gone.
                    let _ = answer.send(result);
                }
            }
        }
    }

    fn move_path(&mut self, now: Instant, children: &[ike::ChildId], path: Path, encap: bool) {
        let udp = encap.then_some(UdpEncap { local: path.local, remote: path.remote });
        for id in children {
            if let Some(pair) = self.book.pair(*id) {
                let (local, remote) = (path.local.ip(), path.remote.ip());
                let order = Order::Move { line: pair.line, local, remote, encap: udp };
                self.lanes.give(now, pair.lane, order);
            }
        }
    }

    /// Packets that wait for an SA which will not come are let go.
    fn release_waiting(&mut self, now: Instant, event: &Event) {
        let (realm, child) = match event {
            Event::ChildFailed { realm, name, .. } => (realm, Some(name)),
            Event::IkeClosed { realm: Some(realm), was_up: false, .. } => (realm, None),
            _ => return,
        };
        let Some(policy) = self.realm(realm).cloned() else { return };
        for configured in policy.children.iter().filter(|c| child.is_none_or(|name| c.name == *name)) {
            let line = self.book.configured(realm, &configured.name);
            self.lanes.all(now, || Order::AcquireFailed(line));
        }
    }
}
