//! The security policy database (RFC 4301 section 4.4.1), as an index that stays cheap with 100 000 entries.
//!
//! Each rule is one pair of selectors. Its two address ranges are rounded up to the prefixes that enclose them, and
//! the pair of prefix lengths says in which hash table it stands. A packet is looked up once in every table there is;
//! real configurations have a handful. What is found is checked exactly, rule by rule, in order of rank.

use std::collections::HashMap;
use std::net::IpAddr;

use wire::TrafficSelector;
use wire::ip::protocol;

use crate::flow::FlowKey;
use crate::hash::Seeded;
use crate::sa::Action;

/// No rule.
const NIL: u32 = u32::MAX;

/// A rule's name, to remove it by.
pub(crate) type RuleId = u32;

struct Rule {
    local: TrafficSelector,
    remote: TrafficSelector,
    iface: Option<u32>,
    action: Action,
    rank: Rank,
    /// Table and key it stands under.
    table: u32,
    key: Key,
    next: u32,
    prev: u32,
}

/// Lower goes first: priority, then how little the selectors leave open, then the younger.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    priority: u32,
    open: u16,
    age: std::cmp::Reverse<u64>,
}

type Key = (u128, u128);

/// All rules whose prefixes have the same pair of lengths.
struct Table {
    v6: bool,
    local_len: u8,
    remote_len: u8,
    heads: HashMap<Key, u32, Seeded>,
}

/// The rules in force.
pub(crate) struct Spd {
    rules: Vec<Option<Rule>>,
    free: Vec<RuleId>,
    tables: Vec<Table>,
    births: u64,
    seed: Seeded,
}

impl Spd {
    pub(crate) fn new(seed: u64) -> Self {
        Spd { rules: Vec::new(), free: Vec::new(), tables: Vec::new(), births: 0, seed: Seeded(seed) }
    }

    /// Adds a rule for every pair of selectors that can match something, and notes their names in `ids`.
    pub(crate) fn insert(
        &mut self,
        local: &[TrafficSelector],
        remote: &[TrafficSelector],
        iface: Option<u32>,
        priority: u32,
        action: Action,
        ids: &mut Vec<RuleId>,
    ) {
        for l in local.iter().filter(|l| !l.is_empty()) {
            for r in remote.iter().filter(|r| !r.is_empty()) {
                let one_family = l.start.is_ipv4() == r.start.is_ipv4();
                let one_protocol = l.protocol == r.protocol || l.protocol == 0 || r.protocol == 0;
                if one_family && one_protocol {
                    ids.push(self.insert_pair(*l, *r, iface, priority, action));
                }
            }
        }
    }

    fn insert_pair(
        &mut self,
        local: TrafficSelector,
        remote: TrafficSelector,
        iface: Option<u32>,
        priority: u32,
        action: Action,
    ) -> RuleId {
        let (local_key, local_len) = enclosing(&local);
        let (remote_key, remote_len) = enclosing(&remote);
        let v6 = local.start.is_ipv6();
        let table = self.table(v6, local_len, remote_len);
        self.births += 1;
        let openness = |ts: &TrafficSelector| u16::from(ts.protocol == 0) + u16::from(ts.is_any_port());
        let lengths = u16::from(local_len) + u16::from(remote_len);
        let open = (256 - lengths) * 8 + openness(&local) + openness(&remote);
        let rank = Rank { priority, open, age: std::cmp::Reverse(self.births) };
        let key = (local_key, remote_key);
        let rule = Rule { local, remote, iface, action, rank, table, key, next: NIL, prev: NIL };
        let id = match self.free.pop() {
            Some(id) => id,
            None => {
                self.rules.push(None);
                (self.rules.len() - 1) as RuleId
            }
        };
        self.rules[id as usize] = Some(rule);
        self.link(id, table, key, rank);
        id
    }

    /// Removes a rule.
    pub(crate) fn remove(&mut self, id: RuleId) {
        let Some(rule) = self.rules.get_mut(id as usize).and_then(Option::take) else { return };
        self.free.push(id);
        if let Some(next) = self.rule_mut(rule.next) {
            next.prev = rule.prev;
        }
        if let Some(prev) = self.rule_mut(rule.prev) {
            prev.next = rule.next;
            return;
        }
        let heads = &mut self.tables[rule.table as usize].heads;
        if rule.next == NIL {
            heads.remove(&rule.key);
        } else {
            heads.insert(rule.key, rule.next);
        }
    }

    /// What to do with a packet; `None` when no rule speaks of it.
    pub(crate) fn decide(&self, flow: &FlowKey) -> Option<Action> {
        let (v6, local, remote) = match (flow.local, flow.remote) {
            (IpAddr::V4(l), IpAddr::V4(r)) => (false, u128::from(l.to_bits()), u128::from(r.to_bits())),
            (IpAddr::V6(l), IpAddr::V6(r)) => (true, l.to_bits(), r.to_bits()),
            _ => return None,
        };
        let mut best: Option<&Rule> = None;
        for table in self.tables.iter().filter(|t| t.v6 == v6 && !t.heads.is_empty()) {
            let key = (cut(local, table.local_len, v6), cut(remote, table.remote_len, v6));
            let mut at = table.heads.get(&key).copied().unwrap_or(NIL);
            // Rules under one key stand in order of rank: the first that matches is the best of them.
            while let Some(rule) = self.rule(at) {
                if best.is_some_and(|b| b.rank < rule.rank) {
                    break;
                }
                if rule.iface.is_none_or(|i| i == flow.iface) && selects(&rule.local, &rule.remote, flow) {
                    best = Some(rule);
                    break;
                }
                at = rule.next;
            }
        }
        best.map(|rule| rule.action)
    }

    /// Whether some packets to a host are to be protected, whoever they are from. Looks at every rule.
    pub(crate) fn protects(&self, remote: IpAddr) -> bool {
        let takes =
            |rule: &Rule| matches!(rule.action, Action::Protect(_)) && rule.remote.contains_address(remote);
        self.rules.iter().flatten().any(takes)
    }

    /// Number of rules.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.rules.len() - self.free.len()
    }

    fn table(&mut self, v6: bool, local_len: u8, remote_len: u8) -> u32 {
        let same = |t: &Table| t.v6 == v6 && t.local_len == local_len && t.remote_len == remote_len;
        let index = self.tables.iter().position(same).unwrap_or_else(|| {
            self.tables.push(Table { v6, local_len, remote_len, heads: HashMap::with_hasher(self.seed) });
            self.tables.len() - 1
        });
        index as u32
    }

    fn link(&mut self, id: RuleId, table: u32, key: Key, rank: Rank) {
        let head = self.tables[table as usize].heads.get(&key).copied().unwrap_or(NIL);
        // The younger goes before its equals, so in the usual case of equals this stops at once.
        let (mut prev, mut next) = (NIL, head);
        while let Some(rule) = self.rule(next) {
            if rank < rule.rank {
                break;
            }
            (prev, next) = (next, rule.next);
        }
        if let Some(rule) = self.rule_mut(id) {
            (rule.prev, rule.next) = (prev, next);
        }
        if let Some(rule) = self.rule_mut(next) {
            rule.prev = id;
        }
        match self.rule_mut(prev) {
            Some(rule) => rule.next = id,
            None => {
                self.tables[table as usize].heads.insert(key, id);
            }
        }
    }

    fn rule(&self, id: RuleId) -> Option<&Rule> {
        self.rules.get(id as usize)?.as_ref()
    }

    fn rule_mut(&mut self, id: RuleId) -> Option<&mut Rule> {
        self.rules.get_mut(id as usize)?.as_mut()
    }
}

/// Whether one pair of selectors takes a packet.
pub(crate) fn selects(local: &TrafficSelector, remote: &TrafficSelector, flow: &FlowKey) -> bool {
    side(local, flow.local, flow.protocol, flow.local_port)
        && side(remote, flow.remote, flow.protocol, flow.remote_port)
}

/// Whether one of each list does.
pub(crate) fn selects_any(local: &[TrafficSelector], remote: &[TrafficSelector], flow: &FlowKey) -> bool {
    local.iter().any(|l| side(l, flow.local, flow.protocol, flow.local_port))
        && remote.iter().any(|r| side(r, flow.remote, flow.protocol, flow.remote_port))
}

fn side(ts: &TrafficSelector, address: IpAddr, protocol: u8, port: Option<u16>) -> bool {
    // Messages have one type, not one at each side: where the other side carries it, this one says OPAQUE
    // (RFC 4301 section 4.4.1.3).
    let message = matches!(protocol, protocol::ICMP | protocol::ICMPV6 | protocol::MOBILITY);
    ts.contains(address, protocol, port) || message && ts.is_opaque() && ts.contains(address, protocol, None)
}

/// Whether ports narrow these selectors, so that later fragments of what they take would be refused.
pub(crate) fn looks_at_ports(selectors: &[TrafficSelector]) -> bool {
    !selectors.iter().any(TrafficSelector::is_any_port)
}

/// The longest prefix that holds a whole range: its bits and its length.
fn enclosing(ts: &TrafficSelector) -> (u128, u8) {
    match (ts.start, ts.end) {
        (IpAddr::V4(start), IpAddr::V4(end)) => {
            let len = (start.to_bits() ^ end.to_bits()).leading_zeros() as u8;
            (cut(u128::from(start.to_bits()), len, false), len)
        }
        (IpAddr::V6(start), IpAddr::V6(end)) => {
            let len = (start.to_bits() ^ end.to_bits()).leading_zeros() as u8;
            (cut(start.to_bits(), len, true), len)
        }
        // An empty selector; those are not inserted.
        _ => (0, 0),
    }
}

/// The first `len` bits of an address, the rest cleared.
fn cut(bits: u128, len: u8, v6: bool) -> u128 {
    let width = if v6 { 128 } else { 32 };
    match width - u32::from(len) {
        128 => 0,
        shift => bits >> shift << shift,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sa::ChildId;

    fn ts(text: &str) -> TrafficSelector {
        text.parse().unwrap()
    }

    fn flow(local: &str, remote: &str, protocol: u8, port: u16) -> FlowKey {
        FlowKey {
            iface: 0,
            local: local.parse().unwrap(),
            remote: remote.parse().unwrap(),
            protocol,
            local_port: Some(40_000),
            remote_port: Some(port),
        }
    }

    fn spd(rules: &[(&str, &str, u32, Action)]) -> Spd {
        let mut spd = Spd::new(5);
        for (local, remote, priority, action) in rules {
            spd.insert(&[ts(local)], &[ts(remote)], None, *priority, *action, &mut Vec::new());
        }
        spd
    }

    const P: Action = Action::Protect(ChildId(1));

    #[test]
    fn priority_goes_first_then_the_narrower() {
        let spd = spd(&[
            ("0.0.0.0/0", "0.0.0.0/0", 1000, P),
            ("10.1.0.0/16", "10.2.0.0/16", 1000, Action::Discard),
            ("10.1.0.0/16", "10.2.0.0/16[tcp/22]", 1000, Action::Bypass),
            ("10.1.5.0/24", "0.0.0.0/0", 10, P),
        ]);
        assert_eq!(spd.decide(&flow("10.1.0.1", "10.2.0.1", 17, 53)), Some(Action::Discard));
        assert_eq!(spd.decide(&flow("10.1.0.1", "10.2.0.1", 6, 22)), Some(Action::Bypass));
        assert_eq!(spd.decide(&flow("10.1.0.1", "10.3.0.1", 6, 22)), Some(P));
        assert_eq!(spd.decide(&flow("10.1.5.1", "10.2.0.1", 6, 22)), Some(P));
        assert_eq!(spd.decide(&flow("2001:db8::1", "2001:db8::2", 6, 22)), None);
    }

    #[test]
    fn hosts_are_known_to_be_behind_a_tunnel_whatever_is_allowed_to_them() {
        let spd = spd(&[
            ("10.1.0.0/16", "10.2.0.0-10.2.0.9[tcp/22]", 1000, P),
            ("10.1.0.0/16", "10.3.0.0/16", 1000, Action::Bypass),
        ]);
        let protects = |remote: &str| spd.protects(remote.parse().unwrap());
        assert!(protects("10.2.0.9") && !protects("10.2.0.10"));
        assert!(!protects("10.3.0.1") && !protects("fec0::1"));
    }

    #[test]
    fn ranges_that_are_no_prefix_are_checked_exactly() {
        let spd = spd(&[("10.1.0.5-10.1.0.9", "10.2.0.0/16", 1, P)]);
        assert_eq!(spd.decide(&flow("10.1.0.5", "10.2.0.1", 6, 1)), Some(P));
        assert_eq!(spd.decide(&flow("10.1.0.4", "10.2.0.1", 6, 1)), None);
        assert_eq!(spd.decide(&flow("10.1.0.10", "10.2.0.1", 6, 1)), None);
    }

    #[test]
    fn icmp_types_are_selected_on_either_side() {
        let mut echo = flow("10.1.0.1", "10.2.0.1", 1, 0);
        (echo.local_port, echo.remote_port) = (Some(0x0800), Some(0x0800));
        let asks = ts("10.1.0.0/16").with_protocol(1, 0x0800, 0x08ff);
        let any = ts("10.2.0.0/16");
        let opaque = ts("10.2.0.0/16").with_protocol(1, u16::MAX, 0);
        assert!(selects(&asks, &any, &echo));
        assert!(selects(&asks, &opaque, &echo));
        assert!(!selects(&ts("10.1.0.0/16").with_protocol(1, 0, 0xff), &any, &echo));
    }

    #[test]
    fn later_fragments_match_any_and_opaque_ports_only() {
        let mut later = flow("10.1.0.1", "10.2.0.1", 17, 0);
        (later.local_port, later.remote_port) = (None, None);
        assert!(selects(&ts("10.1.0.0/16[udp]"), &ts("10.2.0.0/16[udp]"), &later));
        assert!(!selects(&ts("10.1.0.0/16"), &ts("10.2.0.0/16[udp/53]"), &later));
        assert!(selects(&ts("10.1.0.0/16"), &ts("10.2.0.0/16[udp/opaque]"), &later));
    }

    #[test]
    fn a_hundred_thousand_hosts_stand_in_one_table() {
        let mut spd = Spd::new(5);
        let mut ids = Vec::new();
        for n in 0..100_000_u32 {
            let host = TrafficSelector::host(IpAddr::V4((0x0a00_0000 + n).into()));
            let child = Action::Protect(ChildId(n.into()));
            spd.insert(&[ts("0.0.0.0/0")], &[host], None, 1000, child, &mut ids);
        }
        assert_eq!((spd.tables.len(), spd.len()), (1, 100_000));
        let child = Some(Action::Protect(ChildId(0x1234)));
        assert_eq!(spd.decide(&flow("192.168.0.1", "10.0.18.52", 6, 80)), child);
        for id in ids {
            spd.remove(id);
        }
        assert_eq!(spd.len(), 0);
        assert!(spd.tables[0].heads.is_empty());
    }

    fn any_selector() -> impl Strategy<Value = TrafficSelector> {
        let address = prop_oneof![
            (0u32..64).prop_map(|n| IpAddr::V4((0x0a01_0000 + n).into())),
            (0u32..8).prop_map(|n| IpAddr::V6(u128::from(n).into())),
        ];
        let protocol = prop::sample::select(vec![0u8, 6, 17, 1]);
        let ports = prop_oneof![Just((0u16, u16::MAX)), Just((u16::MAX, 0)), (0u16..4, 0u16..4)];
        (address, 0u8..8, 0u32..20, protocol, ports).prop_map(|(start, _, span, protocol, (lo, hi))| {
            let end = match start {
                IpAddr::V4(a) => IpAddr::V4((a.to_bits() + span).into()),
                IpAddr::V6(a) => IpAddr::V6((a.to_bits() + u128::from(span)).into()),
            };
            TrafficSelector::range(start, end).with_protocol(protocol, lo, hi)
        })
    }

    fn any_flow() -> impl Strategy<Value = FlowKey> {
        let port = || prop::option::of(0u16..5);
        let protocol = prop::sample::select(vec![6u8, 17, 1, 47]);
        (any::<bool>(), 0u32..90, 0u32..90, protocol, port(), port(), 0u32..2).prop_map(
            |(v6, l, r, protocol, local_port, remote_port, iface)| {
                let address = |n: u32| match v6 {
                    true => IpAddr::V6(u128::from(n % 30).into()),
                    false => IpAddr::V4((0x0a01_0000 + n).into()),
                };
                FlowKey { iface, local: address(l), remote: address(r), protocol, local_port, remote_port }
            },
        )
    }

    type Plain = (TrafficSelector, TrafficSelector, Option<u32>, u32);

    /// The same question, asked of every rule in turn.
    fn naive(rules: &[(usize, Plain)], flow: &FlowKey) -> Option<Action> {
        let rank = |(born, (l, r, _, priority)): &(usize, Plain)| {
            let narrow = |ts: &TrafficSelector| {
                let len = i32::from(enclosing(ts).1) * 8;
                len - i32::from(ts.protocol == 0) - i32::from(ts.is_any_port())
            };
            (*priority, -(narrow(l) + narrow(r)), -(*born as i64))
        };
        let hits = rules
            .iter()
            .filter(|(_, (l, r, iface, _))| iface.is_none_or(|i| i == flow.iface) && selects(l, r, flow));
        hits.min_by_key(|rule| rank(rule)).map(|(n, _)| Action::Protect(ChildId(*n as u64)))
    }

    proptest! {
        #[test]
        fn index_agrees_with_a_linear_scan(
            rules in prop::collection::vec((any_selector(), any_selector(), prop::option::of(0u32..2), 0u32..3), 1..40),
            removed in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
            flows in prop::collection::vec(any_flow(), 1..60),
        ) {
            let mut spd = Spd::new(5);
            let mut alive = Vec::new();
            for (n, rule) in rules.iter().enumerate() {
                let (l, r, iface, priority) = *rule;
                let mut ids = Vec::new();
                spd.insert(&[l], &[r], iface, priority, Action::Protect(ChildId(n as u64)), &mut ids);
                if let [id] = ids[..] {
                    alive.push((id, (n, *rule)));
                }
            }
            for index in removed {
                if !alive.is_empty() {
                    let (id, _) = alive.swap_remove(index.index(alive.len()));
                    spd.remove(id);
                }
            }
            let plain: Vec<_> = alive.iter().map(|(_, rule)| *rule).collect();
            for flow in flows {
                prop_assert_eq!(spd.decide(&flow), naive(&plain, &flow), "{:?}", flow);
            }
        }
    }
}
