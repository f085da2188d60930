//! What the engine wants done, done.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use esp::UdpEncap;
use ike::{Effect, Event, InnerAddress, Path};
use ipc::Request;
use wire::natt::NON_ESP_MARKER;

use super::ask::Asker;
use super::{GOODBYE_ID, Worker};
use crate::events::Notice;
use crate::io::outside::IKE_PORT;
use crate::io::socket::Port;
use crate::io::sys::Outgoing;

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
            Effect::Send { path, message } => self.send_ike(path, message),
            Effect::Crypto(job) => self.accel.submit(job),
            Effect::Ask { token, request } => self.ask.ask(Asker::Engine(token), request),
            Effect::InstallChild(install) => self.install(now, *install),
            Effect::UseOutbound(id) => {
                if let Some(pair) = self.book.pair(id) {
                    self.esp.use_outbound(pair.line, pair.spi_out);
                }
            }
            Effect::RetireChild(id) => {
                if let Some(pair) = self.book.pair(id) {
                    self.esp.retire_outbound(pair.line, pair.spi_out);
                }
            }
            Effect::RemoveChild(removed) => self.remove(removed),
            Effect::MovePath { children, path, encap } => self.move_path(now, &children, path, encap),
            Effect::Addresses { realm, ours, dns, add, .. } => {
                self.change_addresses(&realm, &ours, add);
                let ours = ours.iter().map(|inner| format!("{}/{}", inner.address, inner.prefix)).collect();
                let dns = dns.iter().map(ToString::to_string).collect();
                self.events.publish(Notice::Addresses { realm: realm.to_string(), ours, dns, add });
            }
            Effect::Event(event) => {
                self.release_waiting(&event);
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

    fn send_ike(&mut self, path: Path, message: Vec<u8>) {
        let (port, message) = if path.local.port() == IKE_PORT {
            (Port::Ike, message)
        } else {
            // RFC 3948 section 2.2.
            (Port::Natt, [&NON_ESP_MARKER[..], &message].concat())
        };
        let local = path.local.ip();
        match self.outside.pick(port, local) {
            Some(socket) => {
                // DF clear: a message that is too long for the path had better arrive in fragments than not at all.
                let from = Some(local);
                let out = Outgoing { bytes: &message, to: path.remote, from, tos: 0, segment: 0 };
                socket.send(std::slice::from_ref(&out), false);
            }
            None => tracing::warn!(%local, remote = %path.remote, "no socket to send IKE from"),
        }
    }

    fn move_path(&mut self, now: Instant, children: &[ike::ChildId], path: Path, encap: bool) {
        let udp = encap.then_some(UdpEncap { local: path.local, remote: path.remote });
        for id in children {
            if let Some(pair) = self.book.pair(*id) {
                self.esp.update_peer(pair.line, path.local.ip(), path.remote.ip(), udp, now);
            }
        }
    }

    /// Packets that wait for an SA which will not come are let go.
    fn release_waiting(&mut self, event: &Event) {
        let (realm, child) = match event {
            Event::ChildFailed { realm, name, .. } => (realm, Some(name)),
            Event::IkeClosed { realm: Some(realm), was_up: false, .. } => (realm, None),
            _ => return,
        };
        let Some(policy) = self.realm(realm).cloned() else { return };
        for configured in policy.children.iter().filter(|c| child.is_none_or(|name| c.name == *name)) {
            let line = self.book.configured(realm, &configured.name);
            self.esp.acquire_failed(line);
        }
    }

    fn change_addresses(&mut self, realm: &Arc<str>, ours: &[InnerAddress], add: bool) {
        let device = match self.realm(realm).and_then(|realm| realm.children.first()) {
            Some(child) => self.device_of(child),
            None => self.settings.tun.clone(),
        };
        for InnerAddress { address, .. } in ours {
            let known = self.given.entry(Arc::clone(realm)).or_default();
            let before = known.iter().position(|(known, _)| known == address).map(|at| known.remove(at));
            // It is on the device it was put on, whatever the configuration says since.
            let device = before.map_or(device.clone(), |(_, device)| device);
            if add {
                known.push((*address, device.clone()));
            }
            self.ask_address(realm, &device, *address, add);
            if !add {
                self.routes.forget_source(*address, &mut self.ask);
            }
        }
        self.given.retain(|_, known| !known.is_empty());
    }

    /// A device has lost its addresses: they are added again.
    pub(super) fn renew_addresses(&mut self, device: &str) {
        let of_realm = |(realm, known): (&Arc<str>, &Vec<(IpAddr, Arc<str>)>)| {
            let here = known.iter().filter(|(_, on)| **on == *device);
            here.map(|(address, _)| (realm.clone(), *address)).collect::<Vec<_>>()
        };
        let lost: Vec<(Arc<str>, IpAddr)> = self.given.iter().flat_map(of_realm).collect();
        lost.into_iter().for_each(|(realm, address)| self.ask_address(&realm, device, address, true));
    }

    /// Takes back every inner address.
    pub(super) fn remove_addresses(&mut self) {
        for (realm, addresses) in std::mem::take(&mut self.given) {
            for (address, device) in addresses {
                self.ask_address(&realm, &device, address, false);
            }
        }
    }

    fn ask_address(&mut self, realm: &str, device: &str, address: IpAddr, add: bool) {
        let what = format!("{} {address} on {device}", if add { "adding" } else { "removing" });
        // One host: what else of the network is reachable, routes say.
        let prefix = if address.is_ipv4() { 32 } else { 128 };
        let request = Request::Address { realm: realm.into(), device: device.into(), address, prefix, add };
        self.ask.ask(Asker::Own(what), request);
    }
}
