//! Inner addresses: those we were given, with their name servers, on devices; those we gave, remembered and answered for.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use ike::{InnerAddress, LeaseChange, LeaseState};
use ipc::{DnsChange, NeighbourChange, Request};

use super::Worker;
use super::ask::Asker;
use crate::events::Notice;

/// What of the machine was changed for inner addresses.
#[derive(Default)]
pub(super) struct Inner {
    /// Addresses we were given, by realm, and the device each is on.
    pub(super) given: HashMap<Arc<str>, Vec<(IpAddr, Arc<str>)>>,
    /// Realms whose name servers are in use.
    names: HashMap<Arc<str>, Names>,
    /// Addresses of clients that are answered for: realm and device.
    answered: HashMap<IpAddr, (Arc<str>, Arc<str>)>,
}

/// Name servers of a realm.
#[derive(Clone)]
struct Names {
    device: Arc<str>,
    servers: Vec<IpAddr>,
    domains: Vec<String>,
}

impl Worker {
    pub(super) fn change_addresses(&mut self, realm: &Arc<str>, ours: &[InnerAddress], add: bool) {
        let device = self.inner_device(realm);
        for InnerAddress { address, .. } in ours {
            let known = self.inner.given.entry(Arc::clone(realm)).or_default();
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
        self.inner.given.retain(|_, known| !known.is_empty());
    }

    /// Name servers that came with addresses are used while the realm has one, if the realm says so.
    pub(super) fn change_names(&mut self, realm: &Arc<str>, dns: &[IpAddr], domains: &[String], add: bool) {
        let wanted = self.realm(realm).is_some_and(|realm| realm.virtual_ip.dns);
        let has = self.inner.given.contains_key(realm);
        if add && wanted && !dns.is_empty() {
            let device = self.inner_device(realm);
            let names = Names { device, servers: dns.to_vec(), domains: domains.to_vec() };
            self.inner.names.insert(Arc::clone(realm), names.clone());
            self.ask_names(realm, names, true);
        } else if !has && let Some(names) = self.inner.names.remove(realm) {
            self.ask_names(realm, names, false);
        }
    }

    /// Another key side knows for whom is answered when it is asked again.
    pub(super) fn renew_neighbours(&mut self) {
        for (address, (realm, device)) in self.inner.answered.clone() {
            self.ask_neighbour(realm, device, address, true);
        }
    }

    /// A device has lost its addresses: they are added again. Its name servers may be lost with it.
    pub(super) fn renew_addresses(&mut self, device: &str) {
        let of_realm = |(realm, known): (&Arc<str>, &Vec<(IpAddr, Arc<str>)>)| {
            let here = known.iter().filter(|(_, on)| **on == *device);
            here.map(|(address, _)| (realm.clone(), *address)).collect::<Vec<_>>()
        };
        let lost: Vec<(Arc<str>, IpAddr)> = self.inner.given.iter().flat_map(of_realm).collect();
        lost.into_iter().for_each(|(realm, address)| self.ask_address(&realm, device, address, true));
        let names = self.inner.names.iter().filter(|(_, names)| *names.device == *device);
        let names: Vec<_> = names.map(|(realm, names)| (Arc::clone(realm), names.clone())).collect();
        names.into_iter().for_each(|(realm, names)| self.ask_names(&realm, names, true));
    }

    /// Takes back every inner address, and all that was done for one.
    pub(super) fn remove_addresses(&mut self) {
        for (realm, addresses) in std::mem::take(&mut self.inner.given) {
            for (address, device) in addresses {
                self.ask_address(&realm, &device, address, false);
            }
        }
        for (realm, names) in std::mem::take(&mut self.inner.names) {
            self.ask_names(&realm, names, false);
        }
        for (address, (realm, device)) in std::mem::take(&mut self.inner.answered) {
            self.ask_neighbour(realm, device, address, false);
        }
    }

    /// Something has become of an address of a pool.
    pub(super) fn lease_changed(&mut self, change: &LeaseChange) {
        self.ledger.note(change);
        let LeaseChange { realm, address, identity, state } = change;
        let pool = self.realm(realm).and_then(|realm| realm.pool.as_ref());
        if pool.is_some_and(|pool| pool.by_dhcp(address.is_ipv4())) {
            self.dhcp.held(realm, *address, *state == LeaseState::Held);
        }
        let proxy = pool.and_then(|pool| pool.proxy.clone()).filter(|_| *state == LeaseState::Held);
        let answered = self.inner.answered.get(address);
        if answered.is_some_and(|(owner, on)| owner == realm && Some(on) != proxy.as_ref())
            && let Some((owner, on)) = self.inner.answered.remove(address)
        {
            self.ask_neighbour(owner, on, *address, false);
        }
        if let Some(device) = proxy {
            self.inner.answered.insert(*address, (Arc::clone(realm), Arc::clone(&device)));
            self.ask_neighbour(Arc::clone(realm), device, *address, true);
        }
        let state = match state {
            LeaseState::Held => "held",
            LeaseState::Idle => "idle",
            LeaseState::Forgotten => "forgotten",
        };
        self.events.publish(Notice::Lease {
            realm: realm.to_string(),
            address: address.to_string(),
            who: identity.to_string(),
            state: state.to_owned(),
        });
    }

    fn inner_device(&self, realm: &str) -> Arc<str> {
        match self.realm(realm).and_then(|realm| realm.children.first()) {
            Some(child) => self.device_of(child),
            None => self.settings.tun.clone(),
        }
    }

    fn ask_address(&mut self, realm: &str, device: &str, address: IpAddr, add: bool) {
        let what = format!("{} {address} on {device}", if add { "adding" } else { "removing" });
        // One host: what else of the network is reachable, routes say.
        let prefix = if address.is_ipv4() { 32 } else { 128 };
        let request = Request::Address { realm: realm.into(), device: device.into(), address, prefix, add };
        self.ask.ask(Asker::Own(what), request);
    }

    fn ask_names(&mut self, realm: &Arc<str>, names: Names, add: bool) {
        let what = format!("{} the name servers of realm {realm}", if add { "using" } else { "letting go" });
        let Names { device, servers, domains } = names;
        let (servers, domains) = if add { (servers, domains) } else { Default::default() };
        let change = DnsChange { realm: Arc::clone(realm), device, servers, domains, add };
        self.ask.ask(Asker::Own(what), Request::Dns(change));
    }

    fn ask_neighbour(&mut self, realm: Arc<str>, device: Arc<str>, address: IpAddr, add: bool) {
        let what =
            format!("{} for {address} on {device}", if add { "answering" } else { "no longer answering" });
        let change = NeighbourChange { realm, device, address, add };
        self.ask.ask(Asker::Own(what), Request::Neighbour(change));
    }
}
