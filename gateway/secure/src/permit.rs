//! What of the machine's network a realm may have changed. The network side asks for devices, addresses and routes; each is
//! compared with the configuration, so that whoever takes that side over cannot draw other people's traffic to itself.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipc::{RouteChange, TunSpec};
use policy::{Realm, RemoteAddress, SelectorSpec};
use wire::TrafficSelector;

use crate::authority::AddressChange;

/// Longest name of a device, octets (IFNAMSIZ less the NUL).
const MAX_NAME: usize = 15;
/// TUN devices at once.
const MAX_DEVICES: usize = 256;
/// Queues of one device: the kernel's own bound.
const MAX_QUEUES: u16 = 256;
/// Smallest and largest MTU: what IPv4 asks for (RFC 791) and what a TUN device takes.
const MTU: std::ops::RangeInclusive<u16> = 68..=65_521;

/// What was made so far.
#[derive(Default)]
pub(crate) struct Permits {
    devices: BTreeSet<String>,
    addresses: BTreeMap<(String, IpAddr), String>,
}

impl Permits {
    /// Whether the device may be made.
    pub(crate) fn tun(&self, spec: &TunSpec) -> Result<(), String> {
        let octets = spec.name.as_bytes();
        let plain = |o: &u8| o.is_ascii_alphanumeric() || b"_-".contains(o);
        // No dots and slashes: names become paths under /proc and /sys.
        if octets.is_empty() || octets.len() > MAX_NAME || !octets.iter().all(plain) {
            return Err(format!("`{}` is no name for a device", spec.name.escape_default()));
        }
        if !MTU.contains(&spec.mtu) {
            return Err(format!("an MTU of {}", spec.mtu));
        }
        if spec.queues == 0 || spec.queues > MAX_QUEUES {
            return Err(format!("{} queues", spec.queues));
        }
        if !self.devices.contains(&spec.name) && self.devices.len() >= MAX_DEVICES {
            return Err(format!("more than {MAX_DEVICES} devices"));
        }
        Ok(())
    }

    /// The device was made.
    pub(crate) fn made(&mut self, name: &str) {
        self.devices.insert(name.into());
    }

    /// Whether the route may be added or removed.
    pub(crate) fn route(&self, realm: &Realm, change: &RouteChange) -> Result<(), String> {
        self.device(&change.device)?;
        let (address, len) = change.destination;
        let wanted = network(address, len).ok_or_else(|| format!("{address}/{len} is no network"))?;
        if is_reserved(address) && len > 0 {
            return Err(format!("{address}/{len} is not for routing"));
        }
        if !reachable(realm, &wanted) {
            return Err(format!(
                "{address}/{len} is not among the remote selectors of realm `{}`",
                realm.name
            ));
        }
        match change.source {
            Some(source) if !self.may_be_source(realm, source) => {
                Err(format!("{source} is not an address of ours in realm `{}`", realm.name))
            }
            _ => Ok(()),
        }
    }

    /// Whether the address may be added or removed.
    pub(crate) fn address(&self, realm: &Realm, change: &AddressChange) -> Result<(), String> {
        self.device(&change.device)?;
        let address = change.address;
        let max = if address.is_ipv4() { 32 } else { 128 };
        if change.prefix > max || is_reserved(address) {
            return Err(format!("{address}/{} is no address for a device", change.prefix));
        }
        if !change.add {
            return match self.addresses.get(&(change.device.clone(), address)) {
                Some(owner) if *owner == realm.name => Ok(()),
                _ => Err(format!("{address} on `{}` is not of realm `{}`", change.device, realm.name)),
            };
        }
        if let Some(owner) = self.addresses.get(&(change.device.clone(), address))
            && *owner != realm.name
        {
            return Err(format!("{address} on `{}` belongs to realm `{owner}`", change.device));
        }
        // As a client we take what the peer gives, if we asked for that family at all.
        let asked = if address.is_ipv4() { realm.virtual_ip.v4 } else { realm.virtual_ip.v6 };
        let host = TrafficSelector::host(address);
        let own = realm.children.iter().flat_map(|c| &c.local).any(|s| match s {
            SelectorSpec::Fixed(ts) => addresses_within(&host, ts),
            SelectorSpec::Dynamic { .. } => false,
        });
        if asked || own || in_pool(realm, &host) {
            Ok(())
        } else {
            Err(format!("realm `{}` neither asks for addresses nor has {address} among its own", realm.name))
        }
    }

    /// The address was added or removed.
    pub(crate) fn addressed(&mut self, change: &AddressChange) {
        let key = (change.device.clone(), change.address);
        if change.add {
            self.addresses.insert(key, change.realm.clone());
        } else {
            self.addresses.remove(&key);
        }
    }

    fn device(&self, name: &str) -> Result<(), String> {
        if self.devices.contains(name) {
            Ok(())
        } else {
            Err(format!("`{}` is not a device of ours", name.escape_default()))
        }
    }

    fn may_be_source(&self, realm: &Realm, source: IpAddr) -> bool {
        let host = TrafficSelector::host(source);
        let given = self.addresses.iter().any(|((_, a), owner)| *a == source && *owner == realm.name);
        given
            || in_pool(realm, &host)
            || realm.children.iter().flat_map(|c| &c.local).any(|s| match s {
                SelectorSpec::Fixed(ts) => addresses_within(&host, ts),
                // The outer address: one of the realm's, or any where the realm names none.
                SelectorSpec::Dynamic { .. } => realm.local.is_empty() || realm.local.contains(&source),
            })
    }
}

/// Whether every address of `wanted` may be the peer's.
fn reachable(realm: &Realm, wanted: &TrafficSelector) -> bool {
    in_pool(realm, wanted)
        || realm.children.iter().flat_map(|c| &c.remote).any(|s| match s {
            SelectorSpec::Fixed(ts) => addresses_within(wanted, ts),
            // The peer's own address: where it may be, or any one host where the realm does not say.
            SelectorSpec::Dynamic { .. } if realm.remote.is_empty() => wanted.is_host(),
            SelectorSpec::Dynamic { .. } => realm.remote.iter().any(|r| match *r {
                RemoteAddress::Host(host) => addresses_within(wanted, &TrafficSelector::host(host)),
                RemoteAddress::Prefix(network, len) => {
                    addresses_within(wanted, &TrafficSelector::from_prefix(network, len))
                }
            }),
        })
}

fn in_pool(realm: &Realm, wanted: &TrafficSelector) -> bool {
    let Some(pool) = &realm.pool else { return false };
    let v4 = pool.v4.map(|(network, len)| TrafficSelector::from_prefix(network.into(), len));
    let v6 = pool.v6.map(|(network, len)| TrafficSelector::from_prefix(network.into(), len));
    v4.into_iter().chain(v6).any(|p| addresses_within(wanted, &p))
}

/// Whether the addresses of one set are among those of the other, whatever their ports.
fn addresses_within(wanted: &TrafficSelector, allowed: &TrafficSelector) -> bool {
    let plain = |ts: &TrafficSelector| TrafficSelector::range(ts.start, ts.end);
    !wanted.is_empty() && plain(wanted).is_subset(&plain(allowed))
}

/// The range of a network without bits behind its length.
fn network(address: IpAddr, len: u8) -> Option<TrafficSelector> {
    let max = if address.is_ipv4() { 32 } else { 128 };
    let ts = TrafficSelector::from_prefix(address, len);
    (len <= max && ts.start == address).then_some(ts)
}

/// Addresses that no host has.
fn is_reserved(address: IpAddr) -> bool {
    let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    address.is_unspecified() || address.is_loopback() || address.is_multicast() || broadcast
}
