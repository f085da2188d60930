//! Which realm a peer belongs to: by the addresses first, when nothing else is known (IKE_SA_INIT), by the identities as
//! soon as they are (IKE_AUTH). Many realms may share one address; where two fit a peer equally well, the operator is told.

use std::net::IpAddr;

use crate::id::Identity;
use crate::realm::{Realm, RemoteAddress};

impl RemoteAddress {
    /// Whether the address is one of these.
    pub fn contains(&self, address: IpAddr) -> bool {
        let canonical = address.to_canonical();
        match *self {
            RemoteAddress::Host(host) => host.to_canonical() == canonical,
            RemoteAddress::Prefix(network, len) => match (network.to_canonical(), canonical) {
                (IpAddr::V4(n), IpAddr::V4(a)) => {
                    let mask = mask32(len);
                    n.to_bits() & mask == a.to_bits() & mask
                }
                (IpAddr::V6(n), IpAddr::V6(a)) => {
                    let mask = mask128(len);
                    n.to_bits() & mask == a.to_bits() & mask
                }
                _ => false,
            },
        }
    }

    /// How narrow it is: the bits that are fixed, with 129 for one host, so that a host beats any prefix.
    fn specificity(&self) -> u8 {
        match *self {
            RemoteAddress::Host(_) => 129,
            RemoteAddress::Prefix(network, len) => {
                let family = if network.is_ipv4() { 32 } else { 128 };
                len.min(family)
            }
        }
    }

    fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (RemoteAddress::Host(host), _) => other.contains(*host),
            (_, RemoteAddress::Host(host)) => self.contains(*host),
            // Two prefixes share an address exactly when the shorter holds the other's network.
            (RemoteAddress::Prefix(a, la), RemoteAddress::Prefix(b, lb)) => {
                if la <= lb {
                    self.contains(*b)
                } else {
                    other.contains(*a)
                }
            }
        }
    }
}

fn mask32(len: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(len.min(32))).unwrap_or(0)
}

fn mask128(len: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(len.min(128))).unwrap_or(0)
}

impl Realm {
    /// Whether the realm may be spoken of between these two addresses.
    pub fn accepts_path(&self, local: IpAddr, remote: IpAddr) -> bool {
        self.path_rank(local, remote).is_some()
    }

    /// How well the addresses fit: the peer's narrowest match, then whether our address is named. `None`: not at all.
    fn path_rank(&self, local: IpAddr, remote: IpAddr) -> Option<(u8, bool)> {
        let local = local.to_canonical();
        if !self.local.is_empty() && !self.local.iter().any(|l| l.to_canonical() == local) {
            return None;
        }
        let narrowest = if self.remote.is_empty() {
            0
        } else {
            self.remote.iter().filter(|r| r.contains(remote)).map(RemoteAddress::specificity).max()?
        };
        Some((narrowest, !self.local.is_empty()))
    }

    /// Where this realm initiates to: the first single address of `remote`.
    pub fn initiates_to(&self) -> Option<IpAddr> {
        self.remote.iter().find_map(|r| match r {
            RemoteAddress::Host(host) => Some(*host),
            RemoteAddress::Prefix(..) => None,
        })
    }

    /// The child of that name.
    pub fn child(&self, name: &str) -> Option<&crate::realm::Child> {
        self.children.iter().find(|c| *c.name == *name)
    }
}

/// Realms that may be spoken of between these addresses, best first: the narrowest `remote`, then a named `local`, then
/// the order of the configuration. For IKE_SA_INIT, where nothing else is known.
pub fn realms_by_path<'a>(
    realms: impl IntoIterator<Item = &'a Realm>,
    local: IpAddr,
    remote: IpAddr,
) -> Vec<&'a Realm> {
    ranked(realms.into_iter().filter_map(|r| Some((r.path_rank(local, remote)?, r))))
}

/// Realms for a peer that claims `idi` and perhaps asked for `idr`, best first: the narrowest `remote_id`, then as
/// [`realms_by_path`]. With `idr` only realms that are called so are meant (RFC 7296 section 3.5: several identities
/// may live at one address).
pub fn choose_realm<'a>(
    realms: impl IntoIterator<Item = &'a Realm>,
    local: IpAddr,
    remote: IpAddr,
    idi: &Identity,
    idr: Option<&Identity>,
) -> Vec<&'a Realm> {
    ranked(realms.into_iter().filter_map(|realm| {
        let path = realm.path_rank(local, remote)?;
        let fits = realm.remote_id.matches(idi) && idr.is_none_or(|idr| realm.local_id == *idr);
        fits.then_some(((realm.remote_id.specificity(), path), realm))
    }))
}

fn ranked<'a, K: Ord>(fitting: impl Iterator<Item = (K, &'a Realm)>) -> Vec<&'a Realm> {
    let mut fitting: Vec<_> = fitting.collect();
    // Stable: equals stay in the order of the configuration.
    fitting.sort_by(|(a, _), (b, _)| b.cmp(a));
    fitting.into_iter().map(|(_, realm)| realm).collect()
}

/// Two realms that some peer fits equally well, so that only their order in the configuration decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ambiguity {
    /// The one that wins.
    pub first: String,
    /// The one that is never reached by such a peer.
    pub second: String,
    /// What the two have in common, for the operator.
    pub why: String,
}

impl std::fmt::Display for Ambiguity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "realms `{}` and `{}` fit the same peer equally well: {}",
            self.first, self.second, self.why
        )
    }
}

/// Every pair of realms that a peer may fit equally well. Realms with different own identities are told apart by peers
/// that say whom they want to meet; many do not, so these are pairs too unless the addresses or the peer's identity differ.
pub fn ambiguities(realms: &[Realm]) -> Vec<Ambiguity> {
    let mut found = Vec::new();
    for (i, a) in realms.iter().enumerate() {
        for b in &realms[i + 1..] {
            let same_id =
                a.remote_id.specificity() == b.remote_id.specificity() && a.remote_id.overlaps(&b.remote_id);
            if same_id && paths_tie(a, b) {
                let why = format!("both accept `{}` from the same addresses", narrower(a, b));
                found.push(Ambiguity { first: a.name.to_string(), second: b.name.to_string(), why });
            }
        }
    }
    found
}

fn narrower<'a>(a: &'a Realm, b: &'a Realm) -> &'a crate::id::IdMatch {
    if a.remote_id.specificity() >= b.remote_id.specificity() { &a.remote_id } else { &b.remote_id }
}

/// Whether some pair of addresses has the same rank in both realms.
fn paths_tie(a: &Realm, b: &Realm) -> bool {
    let locals = match (a.local.is_empty(), b.local.is_empty()) {
        (true, true) => true,
        (false, false) => a.local.iter().any(|l| b.local.contains(l)),
        // One names the address and so ranks higher.
        _ => false,
    };
    locals
        && match (a.remote.is_empty(), b.remote.is_empty()) {
            (true, true) => true,
            (false, false) => a
                .remote
                .iter()
                .any(|x| b.remote.iter().any(|y| x.specificity() == y.specificity() && x.overlaps(y))),
            _ => false,
        }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::realm::tests::realm;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn names(realms: Vec<&Realm>) -> Vec<&str> {
        realms.into_iter().map(|r| &*r.name).collect()
    }

    #[test]
    fn empty_lists_mean_anywhere() {
        let r = realm("a", "any", &[]);
        assert!(r.accepts_path(ip("10.0.0.1"), ip("fec0::1")));
        let r = realm("a", "any", &["192.168.0.0/24"]);
        assert!(r.accepts_path(ip("10.0.0.1"), ip("192.168.0.9")));
        assert!(r.accepts_path(ip("10.0.0.1"), ip("::ffff:192.168.0.9")), "a dual-stack socket's form");
        assert!(!r.accepts_path(ip("10.0.0.1"), ip("192.168.1.9")));
        assert!(!r.accepts_path(ip("10.0.0.1"), ip("fec0::1")));
        let mut r = realm("a", "any", &[]);
        r.local = vec![ip("10.0.0.1")];
        assert!(!r.accepts_path(ip("10.0.0.2"), ip("1.2.3.4")));
    }

    #[test]
    fn prefixes_of_every_length_are_compared_without_overflow() {
        for (net, len, inside, outside) in [
            ("0.0.0.0", 0, "255.1.2.3", "::1"),
            ("10.0.0.1", 32, "10.0.0.1", "10.0.0.2"),
            ("::", 0, "fec0::1", "10.0.0.1"),
        ] {
            let p = RemoteAddress::Prefix(ip(net), len);
            assert!(p.contains(ip(inside)) && !p.contains(ip(outside)), "{net}/{len}");
        }
        assert!(RemoteAddress::Prefix(ip("10.0.0.1"), 255).contains(ip("10.0.0.1")));
    }

    #[test]
    fn the_narrowest_identity_wins_then_the_narrowest_address_then_the_order() {
        let realms = [
            realm("all", "any", &[]),
            realm("suffix", "*.lab.test", &[]),
            realm("near", "*.lab.test", &["192.168.0.0/24"]),
            realm("carol", "carol.lab.test", &[]),
            realm("later", "any", &[]),
        ];
        let carol = Identity::parse("carol.lab.test").unwrap();
        let (local, remote) = (ip("192.168.0.1"), ip("192.168.0.2"));
        let order = names(choose_realm(&realms, local, remote, &carol, None));
        assert_eq!(order, ["carol", "near", "suffix", "all", "later"]);
        let stranger = Identity::parse("x.other").unwrap();
        assert_eq!(names(choose_realm(&realms, local, remote, &stranger, None)), ["all", "later"]);
        assert_eq!(names(realms_by_path(&realms, local, remote))[0], "near");
    }

    #[test]
    fn a_peer_that_asks_for_somebody_else_finds_no_realm() {
        let realms = [realm("a", "any", &[])];
        let carol = Identity::parse("carol.lab.test").unwrap();
        let (local, remote) = (ip("192.168.0.1"), ip("192.168.0.2"));
        let moon = Identity::parse("MOON.lab.test").unwrap();
        assert_eq!(choose_realm(&realms, local, remote, &carol, Some(&moon)).len(), 1);
        assert!(choose_realm(&realms, local, remote, &carol, Some(&carol)).is_empty());
    }

    #[test]
    fn ambiguous_realms_are_named_and_distinct_ones_are_not() {
        let found = ambiguities(&[realm("a", "any", &[]), realm("b", "any", &[])]);
        assert_eq!(found.len(), 1);
        assert!(found[0].to_string().contains("`a` and `b`"), "{}", found[0]);
        for (x, y) in [
            (realm("a", "any", &[]), realm("b", "*.lab.test", &[])),
            (realm("a", "moon.test", &[]), realm("b", "sun.test", &[])),
            (realm("a", "any", &["10.0.0.1"]), realm("b", "any", &["10.0.0.2"])),
            (realm("a", "any", &["10.0.0.0/8"]), realm("b", "any", &["10.1.0.0/16"])),
            (realm("a", "any", &["10.0.0.0/8"]), realm("b", "any", &[])),
        ] {
            assert_eq!(ambiguities(&[x, y]), []);
        }
        assert_eq!(
            ambiguities(&[realm("a", "x.test", &["10.0.0.1"]), realm("b", "X.test", &["10.0.0.1"])]).len(),
            1
        );
    }

    #[test]
    fn the_first_single_address_is_where_we_initiate_to() {
        assert_eq!(realm("a", "any", &["10.0.0.0/8", "10.0.0.7"]).initiates_to(), Some(ip("10.0.0.7")));
        assert_eq!(realm("a", "any", &["10.0.0.0/8"]).initiates_to(), None);
    }
}
