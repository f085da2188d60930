//! The realms, found by name and by where the peer is. There may be one for thousands of peers, and there may be thousands.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use policy::{Realm, RemoteAddress};

use crate::effect::Path;

/// See the module.
#[derive(Default)]
pub(crate) struct Realms {
    /// In the order of the configuration.
    all: Vec<Arc<Realm>>,
    by_name: HashMap<Arc<str>, usize>,
    /// Those whose peers are at single addresses, by these.
    by_host: HashMap<IpAddr, Vec<usize>>,
    /// Those whose peers may be anywhere, or in a network.
    others: Vec<usize>,
}

impl Realms {
    pub(crate) fn new(all: Vec<Arc<Realm>>) -> Self {
        let mut realms = Realms::default();
        for (place, realm) in all.iter().enumerate() {
            // Of two that have one name, the first counts.
            realms.by_name.entry(Arc::clone(&realm.name)).or_insert(place);
            let host = |remote: &RemoteAddress| match remote {
                RemoteAddress::Host(host) => Some(host.to_canonical()),
                RemoteAddress::Prefix(..) => None,
            };
            match realm.remote.iter().map(host).collect::<Option<Vec<IpAddr>>>() {
                Some(hosts) if !hosts.is_empty() => {
                    for host in hosts {
                        let here = realms.by_host.entry(host).or_default();
                        if here.last() != Some(&place) {
                            here.push(place);
                        }
                    }
                }
                _ => realms.others.push(place),
            }
        }
        realms.all = all;
        realms
    }

    /// The realm of that name.
    pub(crate) fn named(&self, name: &str) -> Option<&Arc<Realm>> {
        self.all.get(*self.by_name.get(name)?)
    }

    /// Realms that may be spoken of between these addresses, best first.
    pub(crate) fn by_path(&self, path: Path) -> Vec<Arc<Realm>> {
        let (local, remote) = (path.local.ip(), path.remote.ip());
        let here = self.by_host.get(&remote.to_canonical()).map(Vec::as_slice).unwrap_or_default();
        let mut places: Vec<usize> = here.iter().chain(&self.others).copied().collect();
        places.sort_unstable();
        let realms: Vec<&Arc<Realm>> = places.iter().filter_map(|place| self.all.get(*place)).collect();
        let ranked = policy::realms_by_path(realms.iter().map(|realm| &***realm), local, remote);
        let arc = |ranked: &Realm| realms.iter().find(|realm| std::ptr::eq(Arc::as_ptr(realm), ranked));
        ranked.into_iter().filter_map(arc).map(|realm| Arc::clone(realm)).collect()
    }

    /// All, in the order of the configuration.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Realm>> {
        self.all.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use policy::{
        AuthPolicy, Childless, Dpd, DpdAction, Encap, IdMatch, Identity, Lifetime, Start, VirtualIpRequest,
    };
    use proptest::prelude::*;
    use std::net::SocketAddr;
    use std::time::Duration;

    fn realm(name: String, remote: Vec<RemoteAddress>) -> Arc<Realm> {
        Arc::new(Realm {
            name: name.into(),
            local: vec![],
            remote,
            ike: vec![],
            local_id: Identity::parse("moon.lab.test").unwrap(),
            local_auth: AuthPolicy::Psk,
            aliases: vec![],
            remote_id: IdMatch::parse("any").unwrap().into(),
            remote_auth: AuthPolicy::Psk,
            eap: policy::EapPolicy::default(),
            methods: vec![],
            children: vec![],
            start: Start::Manual,
            encap: Encap::Auto,
            fragmentation: true,
            fragment_size: 1280,
            childless: Childless::Allow,
            ike_rekey: Lifetime::of(Duration::ZERO),
            ike_reauth: Lifetime::of(Duration::ZERO),
            dpd: Dpd { delay: Duration::ZERO, action: DpdAction::Clear },
            virtual_ip: VirtualIpRequest::default(),
            pool: None,
            unique: true,
            worker: None,
        })
    }

    fn remote() -> impl Strategy<Value = RemoteAddress> {
        let address = (0u8..4).prop_map(|n| IpAddr::from([10, 0, 0, n]));
        (address, 0u8..4).prop_map(|(address, kind)| match kind {
            0 => RemoteAddress::Prefix(address, 30),
            1 => RemoteAddress::Prefix(IpAddr::from([10, 0, 0, 0]), 8),
            _ => RemoteAddress::Host(address),
        })
    }

    proptest! {
        #[test]
        fn the_index_finds_what_a_look_at_every_realm_finds(
            remotes in prop::collection::vec(prop::collection::vec(remote(), 0..3), 0..12),
            from in 0u8..6,
        ) {
            let all: Vec<_> = remotes.into_iter().enumerate().map(|(n, r)| realm(n.to_string(), r)).collect();
            let realms = Realms::new(all.clone());
            let (local, remote) = (IpAddr::from([10, 9, 0, 1]), IpAddr::from([10, 0, 0, from]));
            let path = Path { local: SocketAddr::new(local, 500), remote: SocketAddr::new(remote, 500) };
            let found: Vec<_> = realms.by_path(path).iter().map(|r| r.name.clone()).collect();
            let plain = policy::realms_by_path(all.iter().map(Arc::as_ref), local, remote);
            prop_assert_eq!(found, plain.iter().map(|r| r.name.clone()).collect::<Vec<_>>());
            for realm in &all {
                prop_assert!(Arc::ptr_eq(realms.named(&realm.name).unwrap(), realm));
            }
            prop_assert!(realms.named("no such").is_none());
        }
    }
}
