//! Which realm a peer belongs to: by the addresses first, when nothing else is known (IKE_SA_INIT), by the identities as
//! soon as they are (IKE_AUTH). Many realms may share one address; where two fit a peer equally well, the operator is told.

use std::net::IpAddr;

use crate::realm::{AuthPolicy, Realm, RemoteAddress};
use crate::rule::{Claims, Rank};

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

    pub(crate) fn overlaps(&self, other: &Self) -> bool {
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

/// Realms that a peer may belong to, best first: the narrowest rule it fits, then as [`realms_by_path`], then those that want the
/// proof it brings. With [`Claims::asked`] only realms that are called so are meant (RFC 7296 section 3.5: several identities may
/// live at one address).
///
/// Called with what the first message says, for candidates; with what the certificate says, to choose among these; and when EAP has
/// succeeded, with the user and the groups.
pub fn choose_realm<'a>(
    realms: impl IntoIterator<Item = &'a Realm>,
    local: IpAddr,
    remote: IpAddr,
    claims: &Claims<'_>,
) -> Vec<&'a Realm> {
    ranked(realms.into_iter().filter_map(|realm| {
        let path = realm.path_rank(local, remote)?;
        let rank = realm.rank(claims)?;
        Some(((rank, path, realm.remote_auth == claims.proof), realm))
    }))
}

impl Realm {
    /// How narrow the rule is that a peer fits; `None` when it is no peer of this realm. Without a proof there is no identity, and so
    /// no rule: whoever does not say who it is belongs to realms that let nobody in particular in, and only there.
    pub fn rank(&self, claims: &Claims<'_>) -> Option<Option<Rank>> {
        if claims.asked.is_some_and(|asked| !self.is_called(asked)) {
            return None;
        }
        match (self.remote_auth, claims.proof) {
            (AuthPolicy::Null, AuthPolicy::Null) => Some(None),
            (AuthPolicy::Null, _) | (_, AuthPolicy::Null) => None,
            _ => self.remote_id.rank(claims).map(Some),
        }
    }
}

fn ranked<'a, K: Ord>(fitting: impl Iterator<Item = (K, &'a Realm)>) -> Vec<&'a Realm> {
    let mut fitting: Vec<_> = fitting.collect();
    // Stable: equals stay in the order of the configuration.
    fitting.sort_by(|(a, _), (b, _)| b.cmp(a));
    fitting.into_iter().map(|(_, realm)| realm).collect()
}

/// Two rules of two realms that some peer fits equally well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ambiguity {
    /// The realm that stands first, and the place of the rule in it; no place where both let anybody in without a proof.
    pub first: (String, Option<usize>),
    /// The other.
    pub second: (String, Option<usize>),
    /// The two rules in words.
    pub rules: (String, String),
    /// Whether the realms have different names of ours: a peer that says whom it wants to meet decides between them, and
    /// only one that does not gets the first.
    pub by_name: bool,
}

/// Every pair of rules that a peer may fit equally well, from the same addresses and with the same proof. One pair for two realms is
/// enough.
pub fn ambiguities(realms: &[Realm]) -> Vec<Ambiguity> {
    let mut found = Vec::new();
    for (i, a) in realms.iter().enumerate() {
        for b in realms[i + 1..].iter().filter(|b| a.remote_auth == b.remote_auth && paths_tie(a, b)) {
            let Some((x, y)) = tie(a, b) else { continue };
            let words = |realm: &Realm, place: Option<usize>| match place
                .and_then(|n| realm.remote_id.rules().get(n))
            {
                Some(rule) => rule.to_string(),
                None => "anonymous".to_owned(),
            };
            let by_name = !std::iter::once(&a.local_id).chain(&a.aliases).any(|name| b.is_called(name));
            found.push(Ambiguity {
                rules: (words(a, x), words(b, y)),
                first: (a.name.to_string(), x),
                second: (b.name.to_string(), y),
                by_name,
            });
        }
    }
    found
}

fn tie(a: &Realm, b: &Realm) -> Option<(Option<usize>, Option<usize>)> {
    if a.remote_auth == AuthPolicy::Null {
        return Some((None, None));
    }
    let pairs = a.remote_id.rules().iter().enumerate().flat_map(|(x, one)| {
        b.remote_id.rules().iter().enumerate().map(move |(y, other)| (x, one, y, other))
    });
    pairs.filter(|(_, one, _, other)| one.ties(other)).map(|(x, _, y, _)| (Some(x), Some(y))).next()
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
    use crate::id::Identity;
    use crate::realm::tests::realm;
    use crate::rule::Peers;

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

    fn chosen<'a>(realms: &'a [Realm], id: &str, asked: Option<&str>) -> Vec<&'a str> {
        let id = Identity::parse(id).unwrap();
        let asked = asked.map(|asked| Identity::parse(asked).unwrap());
        let claims = Claims { asked: asked.as_ref(), ..Claims::of(&id, AuthPolicy::Psk) };
        names(choose_realm(realms, ip("192.168.0.1"), ip("192.168.0.2"), &claims))
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
        assert_eq!(chosen(&realms, "carol.lab.test", None), ["carol", "near", "suffix", "all", "later"]);
        assert_eq!(chosen(&realms, "x.other", None), ["all", "later"]);
        assert_eq!(names(realms_by_path(&realms, ip("192.168.0.1"), ip("192.168.0.2")))[0], "near");
    }

    #[test]
    fn a_peer_that_asks_for_somebody_else_finds_no_realm() {
        let mut realms = [realm("a", "any", &[]), realm("b", "any", &[])];
        realms[1].local_id = Identity::parse("vpn.lab.test").unwrap();
        realms[1].aliases = vec![Identity::parse("old.lab.test").unwrap()];
        assert_eq!(chosen(&realms, "carol.lab.test", None), ["a", "b"]);
        assert_eq!(chosen(&realms, "carol.lab.test", Some("MOON.lab.test")), ["a"]);
        assert_eq!(chosen(&realms, "carol.lab.test", Some("vpn.lab.test")), ["b"]);
        assert_eq!(chosen(&realms, "carol.lab.test", Some("old.lab.test")), ["b"], "another name of ours");
        assert!(chosen(&realms, "carol.lab.test", Some("carol.lab.test")).is_empty());
        let (vpn, old) = (&realms[1].local_id, &realms[1].aliases[0]);
        assert_eq!((realms[1].own_id(Some(old)), realms[1].own_id(None)), (old, vpn));
    }

    #[test]
    fn of_equals_the_one_that_wants_this_proof_goes_first_and_a_narrower_one_stays_first_all_the_same() {
        let mut realms =
            [realm("psk", "any", &[]), realm("cert", "any", &[]), realm("carol", "carol.lab.test", &[])];
        realms[1].remote_auth = AuthPolicy::Pubkey;
        let of = |id: &str, proof| {
            let id = Identity::parse(id).unwrap();
            names(choose_realm(&realms, ip("10.0.0.1"), ip("10.0.0.2"), &Claims::of(&id, proof)))
        };
        assert_eq!(of("dave.lab.test", AuthPolicy::Pubkey), ["cert", "psk"]);
        assert_eq!(of("dave.lab.test", AuthPolicy::Psk), ["psk", "cert"]);
        assert_eq!(of("carol.lab.test", AuthPolicy::Pubkey), ["carol", "cert", "psk"]);
    }

    #[test]
    fn nobody_gets_into_realms_for_nobody_only_and_somebody_never_does() {
        let mut realms = [realm("any", "any", &[]), realm("open", "any", &[])];
        (realms[1].remote_auth, realms[1].remote_id) = (AuthPolicy::Null, Peers::new(vec![]));
        let of = |id: &Identity, proof| {
            names(choose_realm(&realms, ip("10.0.0.1"), ip("10.0.0.2"), &Claims::of(id, proof)))
        };
        let carol = Identity::parse("carol.lab.test").unwrap();
        assert_eq!(of(&Identity::Anonymous(0), AuthPolicy::Null), ["open"]);
        // What it says of itself is not looked at.
        assert_eq!(of(&carol, AuthPolicy::Null), ["open"]);
        assert_eq!(of(&carol, AuthPolicy::Psk), ["any"]);
        assert!(of(&Identity::Anonymous(0), AuthPolicy::Psk).is_empty(), "ID_NULL with a proof");
    }

    #[test]
    fn ambiguous_realms_are_named_and_distinct_ones_are_not() {
        let found = ambiguities(&[realm("a", "any", &[]), realm("b", "any", &[])]);
        assert_eq!(found.len(), 1);
        assert_eq!((&found[0].first, &found[0].second), (&("a".into(), Some(0)), &("b".into(), Some(0))));
        assert!(!found[0].by_name);
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
    fn the_rules_that_tie_are_found_among_many() {
        let (mut a, mut b) = (realm("a", "any", &[]), realm("b", "any", &[]));
        a.remote_id = Peers::parse(["*.a.test", "subject: OU=Sales"]).unwrap();
        b.remote_id = Peers::parse(["*.b.test", "*.a.test", "subject: OU=Tech"]).unwrap();
        let found = ambiguities(&[a.clone(), b.clone()]);
        assert_eq!((found[0].first.1, found[0].second.1), (Some(0), Some(1)));
        assert_eq!(found[0].rules, ("*.a.test".into(), "*.a.test".into()));
        b.remote_id = Peers::parse(["*.b.test", "subject: OU=Tech"]).unwrap();
        assert_eq!(ambiguities(&[a, b]), []);
    }

    #[test]
    fn another_proof_or_another_name_of_ours_tells_realms_apart() {
        let (a, mut b) = (realm("a", "any", &[]), realm("b", "any", &[]));
        b.local_id = Identity::parse("vpn.lab.test").unwrap();
        assert!(ambiguities(&[a.clone(), b.clone()])[0].by_name, "as far as peers say whom they want");
        b.aliases = vec![a.local_id.clone()];
        assert!(!ambiguities(&[a.clone(), b.clone()])[0].by_name);
        b.remote_auth = AuthPolicy::Pubkey;
        assert_eq!(ambiguities(&[a, b.clone()]), []);
        b.remote_auth = AuthPolicy::Null;
        assert_eq!(ambiguities(&[b.clone(), b]).len(), 1, "two for nobody");
    }

    #[test]
    fn the_first_single_address_is_where_we_initiate_to() {
        assert_eq!(realm("a", "any", &["10.0.0.0/8", "10.0.0.7"]).initiates_to(), Some(ip("10.0.0.7")));
        assert_eq!(realm("a", "any", &["10.0.0.0/8"]).initiates_to(), None);
    }
}
