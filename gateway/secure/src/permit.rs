//! What of the machine's network a realm may have changed. The network side asks for devices, addresses and routes; each is
//! compared with the configuration, so that whoever takes that side over cannot draw other people's traffic to itself.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipc::{DnsChange, NeighbourChange, RouteChange, TunSpec};
use policy::{Realm, RemoteAddress, SelectorSpec};
use wire::TrafficSelector;

use crate::authority::AddressChange;

/// Longest name of a device, octets (IFNAMSIZ less the NUL).
const MAX_NAME: usize = 15;
/// TUN devices at once.
const MAX_DEVICES: usize = 256;
/// Routes at once: one for each client, and as many clients as a gateway may have.
const MAX_ROUTES: usize = 1 << 18;
/// Addresses at once.
const MAX_ADDRESSES: usize = 4096;
/// Name servers, and domains to ask them for, of one realm.
const MAX_SERVERS: usize = 8;
const MAX_DOMAINS: usize = 32;
/// Queues of one device: the kernel's own bound.
const MAX_QUEUES: u16 = 256;
/// Smallest and largest MTU: what IPv4 asks for (RFC 791) and what a TUN device takes.
const MTU: std::ops::RangeInclusive<u16> = 68..=65_521;

/// What was made so far.
#[derive(Default)]
pub(crate) struct Permits {
    devices: BTreeSet<Arc<str>>,
    addresses: BTreeMap<(Arc<str>, IpAddr), Arc<str>>,
    /// By device.
    routes: BTreeMap<Arc<str>, BTreeSet<(IpAddr, u8)>>,
    routes_in_all: usize,
    /// Realms with name servers in use, and the device of each.
    names: BTreeMap<Arc<str>, Arc<str>>,
    /// Addresses answered for, with their devices.
    neighbours: BTreeMap<(Arc<str>, IpAddr), Arc<str>>,
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
        if !self.devices.contains(&*spec.name) && self.devices.len() >= MAX_DEVICES {
            return Err(format!("more than {MAX_DEVICES} devices"));
        }
        Ok(())
    }

    /// The device was made.
    pub(crate) fn made(&mut self, name: &str) {
        self.devices.insert(name.into());
    }

    /// Whether the route may be removed: if it was added here. The realm may be gone since, by a reload.
    pub(crate) fn unroute(&self, change: &RouteChange) -> Result<(), String> {
        let (address, len) = change.destination;
        if self.has_route(change) { Ok(()) } else { Err(format!("no route to {address}/{len} was added")) }
    }

    /// The route was added or removed.
    pub(crate) fn routed(&mut self, change: &RouteChange) {
        let of_device = self.routes.entry(change.device.clone()).or_default();
        if change.add {
            self.routes_in_all += usize::from(of_device.insert(change.destination));
        } else {
            self.routes_in_all -= usize::from(of_device.remove(&change.destination));
            if of_device.is_empty() {
                self.routes.remove(&change.device);
            }
        }
    }

    fn has_route(&self, change: &RouteChange) -> bool {
        self.routes.get(&change.device).is_some_and(|routes| routes.contains(&change.destination))
    }

    /// Whether the route may be added.
    pub(crate) fn route(&self, realm: &Realm, change: &RouteChange) -> Result<(), String> {
        self.device(&change.device)?;
        let (address, len) = change.destination;
        if !self.has_route(change) && self.routes_in_all >= MAX_ROUTES {
            return Err(format!("more than {MAX_ROUTES} routes"));
        }
        let wanted = network(address, len).ok_or_else(|| format!("{address}/{len} is no network"))?;
        // Networks that begin at zero are halves of everything and the like; a host of that address is nobody.
        if is_reserved(address) && (wanted.is_host() || !address.is_unspecified()) {
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

    /// Whether the address may be removed: if it was added here for the realm, which may be gone since, by a reload.
    pub(crate) fn unaddress(&self, change: &AddressChange) -> Result<(), String> {
        match self.addresses.get(&(change.device.clone(), change.address)) {
            Some(owner) if *owner == change.realm => Ok(()),
            _ => Err(format!("{} was not added for realm `{}`", change.address, change.realm)),
        }
    }

    /// Whether the address may be added.
    pub(crate) fn address(&self, realm: &Realm, change: &AddressChange) -> Result<(), String> {
        self.device(&change.device)?;
        let address = change.address;
        let max = if address.is_ipv4() { 32 } else { 128 };
        if change.prefix > max || is_reserved(address) {
            return Err(format!("{address}/{} is no address for a device", change.prefix));
        }
        let known = self.addresses.contains_key(&(change.device.clone(), address));
        if !known && self.addresses.len() >= MAX_ADDRESSES {
            return Err(format!("more than {MAX_ADDRESSES} addresses"));
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

    /// Whether the realm may have these name servers used.
    pub(crate) fn dns(&self, realm: &Realm, change: &DnsChange) -> Result<(), String> {
        self.device(&change.device)?;
        if !realm.virtual_ip.dns {
            return Err(format!("realm `{}` does not take name servers of its peer", realm.name));
        }
        if change.servers.is_empty() || change.servers.len() > MAX_SERVERS {
            return Err(format!("{} name servers", change.servers.len()));
        }
        if let Some(server) = change.servers.iter().find(|server| is_reserved(**server)) {
            return Err(format!("{server} is no address of a name server"));
        }
        if change.domains.len() > MAX_DOMAINS {
            return Err(format!("more than {MAX_DOMAINS} domains"));
        }
        // They become arguments and lines of files.
        let plain = |name: &String| policy::pool::domain(name.as_bytes()).as_ref() == Some(name);
        match change.domains.iter().find(|name| !plain(name) || name.starts_with('-')) {
            Some(name) => Err(format!("`{}` is no domain", name.escape_default())),
            None => Ok(()),
        }
    }

    /// Whether name servers may be let go: if they were taken for the realm.
    pub(crate) fn undns(&self, change: &DnsChange) -> Result<(), String> {
        match self.names.get(&change.realm) {
            Some(device) if *device == change.device => Ok(()),
            _ => Err(format!("realm `{}` has no name servers in use", change.realm)),
        }
    }

    /// Name servers were taken or let go.
    pub(crate) fn named(&mut self, change: &DnsChange) {
        if change.add {
            self.names.insert(change.realm.clone(), change.device.clone());
        } else {
            self.names.remove(&change.realm);
        }
    }

    /// Whether may be answered for the address there.
    pub(crate) fn neighbour(&self, realm: &Realm, change: &NeighbourChange) -> Result<(), String> {
        let host = TrafficSelector::host(change.address);
        let proxy = realm.pool.as_ref().and_then(|pool| pool.proxy.as_ref());
        if proxy != Some(&change.device) {
            let device = change.device.escape_default();
            return Err(format!("realm `{}` has nobody answered for on `{device}`", realm.name));
        }
        if is_reserved(change.address) || !in_pool(realm, &host) {
            return Err(format!("{} is not in the pool of realm `{}`", change.address, realm.name));
        }
        match self.neighbours.get(&(change.device.clone(), change.address)) {
            Some(owner) if *owner != realm.name => {
                Err(format!("{} on `{}` belongs to realm `{owner}`", change.address, change.device))
            }
            None if self.neighbours.len() >= MAX_ROUTES => Err(format!("more than {MAX_ROUTES} neighbours")),
            _ => Ok(()),
        }
    }

    /// Whether no longer need be answered: if it was asked for here.
    pub(crate) fn unneighbour(&self, change: &NeighbourChange) -> Result<(), String> {
        match self.neighbours.get(&(change.device.clone(), change.address)) {
            Some(owner) if *owner == change.realm => Ok(()),
            _ => Err(format!("{} is not answered for in realm `{}`", change.address, change.realm)),
        }
    }

    /// It is answered for, or no longer.
    pub(crate) fn neighboured(&mut self, change: &NeighbourChange) {
        let key = (change.device.clone(), change.address);
        if change.add {
            self.neighbours.insert(key, change.realm.clone());
        } else {
            self.neighbours.remove(&key);
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
    realm.pool.as_ref().is_some_and(|pool| pool.covers(wanted))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::realm;
    use policy::{AuthPolicy, Child, ChildMode, Lifetime, Pool, PoolRange, Start, VirtualIpRequest};
    use std::time::Duration;

    fn child(local: &[&str], remote: &[&str]) -> Child {
        let read = |list: &[&str]| list.iter().map(|t| SelectorSpec::parse(t).unwrap()).collect();
        Child {
            name: "net".into(),
            mode: ChildMode::Tunnel,
            local: read(local),
            remote: read(remote),
            esp: vec![],
            start: Start::Manual,
            rekey: Lifetime::of(Duration::from_secs(3600)),
            replay_window: 64,
            tfc: 0,
            copy_df: true,
            copy_dscp: true,
            tun: "".into(),
        }
    }

    fn site(local: &[&str], remote: &[&str]) -> Realm {
        let mut realm = realm("r", "moon.lab.test", "any", AuthPolicy::Psk);
        realm.children.push(child(local, remote));
        realm
    }

    fn permits() -> Permits {
        let mut permits = Permits::default();
        permits.made("ipsec0");
        permits
    }

    fn route(destination: &str, source: Option<&str>) -> RouteChange {
        let (address, len) = destination.split_once('/').unwrap();
        RouteChange {
            realm: "r".into(),
            destination: (address.parse().unwrap(), len.parse().unwrap()),
            device: "ipsec0".into(),
            source: source.map(|s| s.parse().unwrap()),
            add: true,
        }
    }

    fn address(text: &str, realm: &str, add: bool) -> AddressChange {
        let (address, prefix) = text.split_once('/').unwrap();
        let (address, prefix) = (address.parse().unwrap(), prefix.parse().unwrap());
        AddressChange { realm: realm.into(), device: "ipsec0".into(), address, prefix, add }
    }

    #[test]
    fn routes_stay_within_the_remote_selectors() {
        let realm = site(&["10.1.0.0/16"], &["10.2.0.0/16[tcp]", "fec2::/16", "10.9.0.5-10.9.0.9"]);
        let ok = |d| permits().route(&realm, &route(d, None)).is_ok();
        for yes in ["10.2.0.0/16", "10.2.3.0/24", "10.2.3.4/32", "fec2:1::/32", "10.9.0.8/32", "10.9.0.6/31"]
        {
            assert!(ok(yes), "{yes}");
        }
        for no in [
            "10.0.0.0/8",
            "0.0.0.0/0",
            "::/0",
            "10.1.0.0/16",
            "fec3::/16",
            "10.9.0.0/24",
            "10.2.0.1/16",
            "10.2.0.0/33",
        ] {
            assert!(!ok(no), "{no}");
        }
        let everything = site(&["dynamic"], &["0.0.0.0/0", "::/0"]);
        let ok = |d| permits().route(&everything, &route(d, None)).is_ok();
        for yes in ["0.0.0.0/0", "0.0.0.0/1", "128.0.0.0/1", "::/0"] {
            assert!(ok(yes), "{yes}");
        }
        for no in ["127.0.0.1/32", "224.0.0.1/32", "ff02::1/128", "255.255.255.255/32", "::1/128"] {
            assert!(!ok(no), "{no}");
        }
    }

    #[test]
    fn the_pool_and_the_peers_own_addresses_may_be_routed_to() {
        let mut server = site(&["10.1.0.0/16"], &["dynamic"]);
        server.pool = Some(Pool {
            ranges: vec![PoolRange::Network("10.3.0.0".parse().unwrap(), 24)],
            ..Pool::default()
        });
        server.remote = vec![RemoteAddress::Prefix("192.168.0.0".parse().unwrap(), 24)];
        let ok = |r: &Realm, d| permits().route(r, &route(d, None)).is_ok();
        assert!(ok(&server, "10.3.0.7/32") && ok(&server, "10.3.0.0/24") && ok(&server, "192.168.0.9/32"));
        assert!(!ok(&server, "10.3.1.7/32") && !ok(&server, "192.168.1.9/32") && !ok(&server, "10.1.0.0/16"));
        // A realm for anybody anywhere: hosts, one by one.
        let anybody = site(&["dynamic"], &["dynamic"]);
        assert!(ok(&anybody, "203.0.113.7/32") && !ok(&anybody, "203.0.113.0/24"));
        let nobody = site(&["10.1.0.0/16"], &["10.2.0.0/16"]);
        assert!(!ok(&nobody, "203.0.113.7/32"));
    }

    #[test]
    fn only_what_was_added_here_is_removed() {
        let mut permits = permits();
        let change = |add| RouteChange { add, ..route("10.2.0.0/16", None) };
        assert!(permits.unroute(&change(false)).is_err());
        permits.routed(&change(true));
        permits.routed(&change(true));
        assert!(permits.unroute(&change(false)).is_ok());
        assert_eq!(permits.routes_in_all, 1, "once, however often it was added");
        permits.routed(&change(false));
        permits.routed(&change(false));
        assert!(permits.unroute(&change(false)).is_err());
        assert_eq!((permits.routes_in_all, permits.routes.len()), (0, 0));
    }

    #[test]
    fn routes_are_bounded_over_all_devices() {
        let realm = site(&["dynamic"], &["0.0.0.0/0"]);
        let mut full = permits();
        full.made("ipsec1");
        full.routed(&RouteChange { device: "ipsec1".into(), ..route("10.2.0.0/16", None) });
        full.routes_in_all = MAX_ROUTES;
        assert!(full.route(&realm, &route("10.3.0.0/16", None)).unwrap_err().contains("more than"));
        let again = RouteChange { device: "ipsec1".into(), ..route("10.2.0.0/16", None) };
        assert!(full.route(&realm, &again).is_ok(), "those inside go on");
    }

    #[test]
    fn sources_are_addresses_of_ours() {
        let realm = site(&["10.1.0.0/16"], &["10.2.0.0/16"]);
        let mut permits = permits();
        let ok = |p: &Permits, s| p.route(&realm, &route("10.2.0.0/16", Some(s))).is_ok();
        assert!(ok(&permits, "10.1.0.1") && !ok(&permits, "192.168.0.1"));
        permits.addressed(&address("192.168.0.1/32", "r", true));
        assert!(ok(&permits, "192.168.0.1"), "given to us meanwhile");
        permits.addressed(&address("192.168.0.1/32", "r", false));
        assert!(!ok(&permits, "192.168.0.1"));
    }

    #[test]
    fn addresses_are_taken_where_they_were_asked_for() {
        let mut client = site(&["dynamic"], &["10.1.0.0/16"]);
        assert!(permits().address(&client, &address("10.3.0.7/32", "r", true)).is_err());
        client.virtual_ip = VirtualIpRequest { v4: true, v6: false, dns: false };
        let mut permits = permits();
        assert!(permits.address(&client, &address("10.3.0.7/32", "r", true)).is_ok());
        for no in ["fec3::7/128", "127.0.0.1/8", "0.0.0.0/0", "224.0.0.1/32", "10.3.0.7/33"] {
            assert!(permits.address(&client, &address(no, "r", true)).is_err(), "{no}");
        }
        permits.addressed(&address("10.3.0.7/32", "r", true));
        let mut other = client.clone();
        other.name = "other".into();
        assert!(permits.address(&other, &address("10.3.0.7/32", "other", true)).is_err(), "taken by r");
        assert!(permits.unaddress(&address("10.3.0.7/32", "other", false)).is_err(), "not theirs to remove");
        assert!(permits.unaddress(&address("10.3.0.7/32", "r", false)).is_ok());
        assert!(permits.unaddress(&address("10.3.0.8/32", "r", false)).is_err(), "never added");
        let own = site(&["10.1.0.0/16"], &["10.2.0.0/16"]);
        assert!(permits.address(&own, &address("10.1.0.1/32", "r", true)).is_ok());
    }

    #[test]
    fn devices_have_plain_names_and_sensible_sizes() {
        let spec = |name: &str, mtu, queues| TunSpec {
            name: name.into(),
            mtu,
            queues,
            offload: true,
            ethernet: false,
        };
        assert!(permits().tun(&spec("ipsec0", 1400, 1)).is_ok());
        for bad in ["", "a/b", "..", "a b", "sixteen-octets-x", "eth0\n", "é"] {
            assert!(permits().tun(&spec(bad, 1400, 1)).is_err(), "{bad}");
        }
        assert!(permits().tun(&spec("t", 67, 1)).is_err());
        assert!(permits().tun(&spec("t", 1400, 0)).is_err());
        assert!(permits().tun(&spec("t", 1400, 257)).is_err());
        let mut full = Permits::default();
        (0..MAX_DEVICES).for_each(|n| full.made(&format!("t{n}")));
        assert!(full.tun(&spec("more", 1400, 1)).is_err() && full.tun(&spec("t0", 1400, 1)).is_ok());
    }
}
