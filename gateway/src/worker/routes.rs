//! Routes into TUN devices, counted: each is there as long as a Child SA or a trap policy wants it.

use std::collections::HashMap;
use std::net::IpAddr;

use ipc::{Request, RouteChange};
use wire::TrafficSelector;

use super::ask::{Ask, Asker};
use super::book::RouteKey;

struct Held {
    count: usize,
    realm: String,
    source: Option<IpAddr>,
}

/// The routes that are there.
#[derive(Default)]
pub(super) struct Routes {
    held: HashMap<RouteKey, Held>,
}

/// Prefixes one child may have routes for; selectors are ranges, and an odd one falls into many prefixes.
const MAX_PREFIXES: usize = 512;

/// The destinations of a child's remote selectors, each once.
pub(super) fn destinations(remote: &[TrafficSelector]) -> Vec<(IpAddr, u8)> {
    let mut all: Vec<(IpAddr, u8)> = remote.iter().flat_map(TrafficSelector::to_prefixes).collect();
    all.sort_unstable();
    all.dedup();
    if all.len() > MAX_PREFIXES {
        tracing::warn!(
            prefixes = all.len(),
            "too many prefixes for routes; only the first {MAX_PREFIXES} are used"
        );
        all.truncate(MAX_PREFIXES);
    }
    all
}

impl Routes {
    /// Wants a route; `source` is what our own packets should be sent from.
    pub(super) fn hold(&mut self, key: &RouteKey, realm: &str, source: Option<IpAddr>, ask: &mut Ask) {
        let source = source.filter(|source| source.is_ipv4() == key.0.0.is_ipv4());
        match self.held.get_mut(key) {
            Some(held) => {
                held.count += 1;
                if source.is_some() && held.source != source {
                    held.source = source;
                    change(key, realm, source, true, ask);
                }
            }
            None => {
                self.held.insert(key.clone(), Held { count: 1, realm: realm.to_owned(), source });
                change(key, realm, source, true, ask);
            }
        }
    }

    /// Wants it no more.
    pub(super) fn release(&mut self, key: &RouteKey, ask: &mut Ask) {
        let Some(held) = self.held.get_mut(key) else { return };
        held.count -= 1;
        if held.count == 0
            && let Some(held) = self.held.remove(key)
        {
            change(key, &held.realm, None, false, ask);
        }
    }

    /// Removes all.
    pub(super) fn clear(&mut self, ask: &mut Ask) {
        for (key, held) in self.held.drain() {
            change(&key, &held.realm, None, false, ask);
        }
    }

    /// Routes that are there.
    pub(super) fn len(&self) -> usize {
        self.held.len()
    }
}

fn change(key: &RouteKey, realm: &str, source: Option<IpAddr>, add: bool, ask: &mut Ask) {
    let ((address, length), device) = key;
    let what =
        format!("{} the route to {address}/{length} by {device}", if add { "adding" } else { "removing" });
    let change = RouteChange {
        realm: realm.to_owned(),
        destination: (*address, *length),
        device: device.clone(),
        source,
        add,
    };
    ask.ask(Asker::Own(what), Request::Route(change));
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipc::Received;

    #[test]
    fn a_route_is_added_once_and_removed_with_its_last_holder() {
        let (end, mut secure) = ipc::pair_of(16).unwrap();
        let mut ask = Ask::new(end);
        let mut routes = Routes::default();
        let key: RouteKey = (("10.2.0.0".parse().unwrap(), 16), "ipsec0".into());
        let mut changes = || {
            let mut all = Vec::new();
            while let Received::Request(_, request) = secure.try_recv() {
                if let Request::Route(change) = *request {
                    all.push((change.add, change.source));
                }
            }
            all
        };
        routes.hold(&key, "r", None, &mut ask);
        routes.hold(&key, "r", None, &mut ask);
        assert_eq!(changes(), [(true, None)]);
        let source = Some("10.1.0.1".parse().unwrap());
        routes.hold(&key, "r", source, &mut ask);
        assert_eq!(changes(), [(true, source)], "a better source is told");
        routes.release(&key, &mut ask);
        routes.release(&key, &mut ask);
        assert_eq!(changes(), []);
        routes.release(&key, &mut ask);
        assert_eq!(changes(), [(false, None)]);
        routes.release(&key, &mut ask);
        assert_eq!(routes.len(), 0);
    }

    #[test]
    fn ranges_become_prefixes_and_ports_do_not_matter() {
        let ts = |text: &str| text.parse().unwrap();
        let found =
            destinations(&[ts("10.2.0.0/16[tcp/80]"), ts("10.2.0.0/16[udp]"), ts("10.3.0.0-10.3.0.2")]);
        let shown: Vec<String> = found.iter().map(|(a, l)| format!("{a}/{l}")).collect();
        assert_eq!(shown, ["10.2.0.0/16", "10.3.0.0/31", "10.3.0.2/32"]);
    }
}
