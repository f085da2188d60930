//! Routes into TUN devices. Each is there as long as somebody claims it: a Child SA, or a policy that stands whether there is
//! an SA or not. A destination leads to one device at a time; where several are claimed, one with an SA goes before others.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipc::{Request, RouteChange};
use wire::TrafficSelector;

use super::ask::{Ask, Asker};
use super::book::RouteKey;

/// Why a route is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// A Child SA carries what goes there.
    Sa,
    /// What goes there asks for an SA, or must not go another way while there is none.
    Standing,
}

/// What is claimed of a destination for one device.
struct Holder {
    device: Arc<str>,
    sas: u32,
    standing: u32,
    realm: Arc<str>,
    source: Option<IpAddr>,
}

/// A destination. There is one for each client, so it is small.
#[derive(Default)]
struct Dest {
    /// Where it leads now.
    device: Option<Arc<str>>,
    /// Mostly one; by device.
    holders: Vec<Holder>,
}

/// The routes that are there.
#[derive(Default)]
pub(super) struct Routes {
    held: HashMap<(IpAddr, u8), Dest>,
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
    pub(super) fn hold(
        &mut self,
        (destination, device): &RouteKey,
        claim: Claim,
        realm: &Arc<str>,
        source: Option<IpAddr>,
        ask: &mut Ask,
    ) {
        let source = source.filter(|source| source.is_ipv4() == destination.0.is_ipv4());
        let dest = self.held.entry(*destination).or_default();
        let holder = dest.holder_or(device, realm, source);
        *holder.count(claim) += 1;
        // The last one speaks for all: the realm of an earlier one may be gone.
        holder.realm = Arc::clone(realm);
        let better = source.is_some() && holder.source != source;
        if better {
            holder.source = source;
        }
        if !dest.settle(*destination, ask) && better && dest.leads_to(device) {
            dest.change(*destination, true, ask);
        }
    }

    /// Wants it no more.
    pub(super) fn release(&mut self, (destination, device): &RouteKey, claim: Claim, ask: &mut Ask) {
        let Some(dest) = self.held.get_mut(destination) else { return };
        let Ok(place) = dest.place(device) else { return };
        let Some(holder) = dest.holders.get_mut(place) else { return };
        let count = holder.count(claim);
        *count = count.saturating_sub(1);
        if holder.sas + holder.standing > 0 {
            dest.settle(*destination, ask);
            return;
        }
        if dest.leads_to(device) {
            dest.change(*destination, false, ask);
            dest.device = None;
        }
        dest.holders.remove(place);
        dest.settle(*destination, ask);
        if dest.holders.is_empty() {
            self.held.remove(destination);
        }
    }

    /// An address is being removed, and the kernel removes the routes whose source it is: they are added again without.
    pub(super) fn forget_source(&mut self, source: IpAddr, ask: &mut Ask) {
        for (destination, dest) in &mut self.held {
            let mut lost = false;
            for holder in &mut dest.holders {
                if holder.source == Some(source) {
                    holder.source = None;
                    lost |= dest.device.as_ref() == Some(&holder.device);
                }
            }
            if lost {
                dest.change(*destination, true, ask);
            }
        }
    }

    /// A device has lost its routes: they are added again.
    pub(super) fn renew(&self, device: &str, ask: &mut Ask) {
        for (destination, dest) in self.held.iter().filter(|(_, dest)| dest.leads_to(device)) {
            dest.change(*destination, true, ask);
        }
    }

    /// Removes all.
    pub(super) fn clear(&mut self, ask: &mut Ask) {
        for (destination, dest) in self.held.drain() {
            dest.change(destination, false, ask);
        }
    }

    /// Routes that are there.
    pub(super) fn len(&self) -> usize {
        self.held.len()
    }
}

impl Holder {
    fn count(&mut self, claim: Claim) -> &mut u32 {
        match claim {
            Claim::Sa => &mut self.sas,
            Claim::Standing => &mut self.standing,
        }
    }
}

impl Dest {
    fn place(&self, device: &str) -> Result<usize, usize> {
        self.holders.binary_search_by(|holder| (*holder.device).cmp(device))
    }

    fn holder(&self, device: &str) -> Option<&Holder> {
        self.holders.get(self.place(device).ok()?)
    }

    fn holder_or(&mut self, device: &Arc<str>, realm: &Arc<str>, source: Option<IpAddr>) -> &mut Holder {
        let place = match self.place(device) {
            Ok(place) => place,
            Err(place) => {
                let (device, realm) = (Arc::clone(device), Arc::clone(realm));
                self.holders.reserve_exact(1);
                self.holders.insert(place, Holder { device, sas: 0, standing: 0, realm, source });
                place
            }
        };
        &mut self.holders[place]
    }

    fn leads_to(&self, device: &str) -> bool {
        self.device.as_deref() == Some(device)
    }

    /// Has the destination lead where it should; true when that is another device than before.
    fn settle(&mut self, destination: (IpAddr, u8), ask: &mut Ask) -> bool {
        let now = self.device.as_deref().and_then(|device| self.holder(device));
        let first = |sas: bool| self.holders.iter().find(|holder| !sas || holder.sas > 0);
        let wanted = match first(true) {
            // Not moved without need: packets under way would see it.
            _ if now.is_some_and(|now| now.sas > 0) => return false,
            Some(holder) => holder,
            None if now.is_some() => return false,
            None => match first(false) {
                Some(holder) => holder,
                None => return false,
            },
        };
        let wanted = Arc::clone(&wanted.device);
        if self.device.is_some() {
            self.change(destination, false, ask);
        }
        self.device = Some(wanted);
        self.change(destination, true, ask);
        true
    }

    fn change(&self, (address, length): (IpAddr, u8), add: bool, ask: &mut Ask) {
        let Some(device) = &self.device else { return };
        let holder = self.holder(device);
        let what = format!(
            "{} the route to {address}/{length} by {device}",
            if add { "adding" } else { "removing" }
        );
        let change = RouteChange {
            realm: holder.map_or_else(|| "".into(), |holder| Arc::clone(&holder.realm)),
            destination: (address, length),
            device: Arc::clone(device),
            source: holder.and_then(|holder| holder.source).filter(|_| add),
            add,
        };
        ask.ask(Asker::Own(what), Request::Route(change));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipc::{Received, SecureEnd};

    fn pair() -> (Ask, SecureEnd) {
        let (end, secure) = ipc::pair_of(64).unwrap();
        (Ask::new(end), secure)
    }

    fn changes(secure: &mut SecureEnd) -> Vec<(bool, Arc<str>, Option<IpAddr>)> {
        let mut all = Vec::new();
        while let Received::Request(_, request) = secure.try_recv() {
            if let Request::Route(change) = *request {
                all.push((change.add, change.device, change.source));
            }
        }
        all
    }

    fn to(device: &str) -> RouteKey {
        (("10.2.0.0".parse().unwrap(), 16), device.into())
    }

    #[test]
    fn a_route_is_added_once_and_removed_with_its_last_holder() {
        let ((mut ask, mut secure), mut routes) = (pair(), Routes::default());
        let key = to("ipsec0");
        let dev = || Arc::<str>::from("ipsec0");
        routes.hold(&key, Claim::Sa, &"r".into(), None, &mut ask);
        routes.hold(&key, Claim::Standing, &"r".into(), None, &mut ask);
        assert_eq!(changes(&mut secure), [(true, dev(), None)]);
        let source = Some("10.1.0.1".parse().unwrap());
        routes.hold(&key, Claim::Sa, &"r".into(), source, &mut ask);
        assert_eq!(changes(&mut secure), [(true, dev(), source)], "a better source is told");
        routes.release(&key, Claim::Sa, &mut ask);
        routes.release(&key, Claim::Sa, &mut ask);
        assert_eq!(changes(&mut secure), [], "what stands keeps it");
        routes.release(&key, Claim::Standing, &mut ask);
        assert_eq!(changes(&mut secure), [(false, dev(), None)]);
        routes.release(&key, Claim::Sa, &mut ask);
        assert_eq!((changes(&mut secure).len(), routes.len()), (0, 0));
    }

    #[test]
    fn a_destination_leads_to_the_device_that_has_an_sa_for_it() {
        let ((mut ask, mut secure), mut routes) = (pair(), Routes::default());
        let word = |add: bool, device: &str| (add, Arc::<str>::from(device), None);
        routes.hold(&to("ipsec0"), Claim::Standing, &"a".into(), None, &mut ask);
        routes.hold(&to("ipsec1"), Claim::Standing, &"b".into(), None, &mut ask);
        assert_eq!(changes(&mut secure), [word(true, "ipsec0")], "one of them");
        routes.hold(&to("ipsec1"), Claim::Sa, &"b".into(), None, &mut ask);
        assert_eq!(changes(&mut secure), [word(false, "ipsec0"), word(true, "ipsec1")]);
        routes.hold(&to("ipsec0"), Claim::Sa, &"a".into(), None, &mut ask);
        assert_eq!(changes(&mut secure), [], "not moved without need");
        routes.release(&to("ipsec1"), Claim::Sa, &mut ask);
        assert_eq!(changes(&mut secure), [word(false, "ipsec1"), word(true, "ipsec0")]);
        routes.renew("ipsec1", &mut ask);
        assert_eq!(changes(&mut secure), []);
        routes.renew("ipsec0", &mut ask);
        assert_eq!(changes(&mut secure), [word(true, "ipsec0")], "what the device lost is added again");
        routes.release(&to("ipsec0"), Claim::Sa, &mut ask);
        routes.release(&to("ipsec0"), Claim::Standing, &mut ask);
        assert_eq!(changes(&mut secure), [word(false, "ipsec0"), word(true, "ipsec1")]);
        routes.clear(&mut ask);
        assert_eq!((changes(&mut secure), routes.len()), (vec![word(false, "ipsec1")], 0));
    }

    #[test]
    fn routes_outlive_the_address_they_came_from() {
        let ((mut ask, mut secure), mut routes) = (pair(), Routes::default());
        let (source, other) = (Some("10.3.0.1".parse().unwrap()), Some("10.3.0.2".parse().unwrap()));
        routes.hold(&to("ipsec0"), Claim::Standing, &"r".into(), None, &mut ask);
        routes.hold(&to("ipsec0"), Claim::Sa, &"r".into(), source, &mut ask);
        changes(&mut secure);
        routes.forget_source(other.unwrap(), &mut ask);
        assert_eq!(changes(&mut secure), []);
        routes.forget_source(source.unwrap(), &mut ask);
        assert_eq!(changes(&mut secure), [(true, "ipsec0".into(), None)]);
        routes.hold(&to("ipsec0"), Claim::Sa, &"r".into(), other, &mut ask);
        assert_eq!(changes(&mut secure), [(true, "ipsec0".into(), other)]);
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
