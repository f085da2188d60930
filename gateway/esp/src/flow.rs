//! The selectors of a packet, and the memory of what was decided for them: an SPD cache (RFC 4301 section 4.4.1).
//!
//! Every entry carries the epoch in which it was made. Whatever may change a decision makes a new epoch, and the whole
//! cache is stale at once; nobody walks it. The table has a fixed size, so traffic cannot make it grow.

use std::net::IpAddr;

use crate::hash::mix;

/// The selectors of one packet, as seen from our side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowKey {
    /// Interface on our side.
    pub iface: u32,
    /// Address on our side.
    pub local: IpAddr,
    /// Address on the other side.
    pub remote: IpAddr,
    /// Upper-layer protocol, IPv6 extension headers skipped.
    pub protocol: u8,
    /// Port on our side, or ICMP type and code; `None` when the packet has none or is a later fragment.
    pub local_port: Option<u16>,
    /// Port on the other side, or ICMP type and code.
    pub remote_port: Option<u16>,
}

impl FlowKey {
    fn hash(&self, seed: u64) -> u64 {
        let address = |a: IpAddr| match a {
            IpAddr::V4(a) => u64::from(a.to_bits()),
            IpAddr::V6(a) => {
                let bits = a.to_bits();
                mix(bits as u64 ^ seed, (bits >> 64) as u64)
            }
        };
        let port = |p: Option<u16>| p.map_or(0, |p| u64::from(p) | 1 << 16);
        let rest = port(self.local_port) | port(self.remote_port) << 17 | u64::from(self.protocol) << 34;
        let addresses = mix(address(self.local) ^ seed, address(self.remote));
        mix(addresses ^ u64::from(self.iface), rest ^ seed.rotate_left(32))
    }
}

/// Entries one key can stand in.
const WAYS: usize = 4;

/// Fixed-size memory from [`FlowKey`] to a decision.
pub(crate) struct FlowCache<T> {
    entries: Vec<Option<Entry<T>>>,
    epoch: u32,
    seed: u64,
    /// Which of the ways is overwritten next.
    victim: usize,
}

struct Entry<T> {
    key: FlowKey,
    epoch: u32,
    decision: T,
}

impl<T: Copy> FlowCache<T> {
    pub(crate) fn new(flows: usize, seed: u64) -> Self {
        let len = flows.clamp(WAYS, 1 << 24).next_power_of_two();
        let entries = std::iter::repeat_with(|| None).take(len).collect();
        FlowCache { entries, epoch: 1, seed, victim: 0 }
    }

    /// What was decided for this flow in this epoch.
    pub(crate) fn find(&self, key: &FlowKey) -> Option<T> {
        let set = self.set(key);
        let found =
            self.entries[set..set + WAYS].iter().flatten().find(|e| e.epoch == self.epoch && e.key == *key);
        found.map(|e| e.decision)
    }

    /// Remembers a decision, in the place of a stale one or of the next in turn.
    pub(crate) fn insert(&mut self, key: &FlowKey, decision: T) {
        let set = self.set(key);
        let epoch = self.epoch;
        let ways = &mut self.entries[set..set + WAYS];
        let free = ways.iter().position(|e| e.as_ref().is_none_or(|e| e.epoch != epoch || e.key == *key));
        let way = free.unwrap_or_else(|| {
            self.victim = (self.victim + 1) % WAYS;
            self.victim
        });
        ways[way] = Some(Entry { key: *key, epoch, decision });
    }

    /// Makes all that was decided stale.
    pub(crate) fn new_epoch(&mut self) {
        self.epoch = self.epoch.wrapping_add(1);
        if self.epoch == 0 {
            // After 2^32 epochs old entries would look young again.
            self.entries.fill_with(|| None);
            self.epoch = 1;
        }
    }

    fn set(&self, key: &FlowKey) -> usize {
        key.hash(self.seed) as usize & (self.entries.len() - 1) & !(WAYS - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u16) -> FlowKey {
        FlowKey {
            iface: 1,
            local: IpAddr::V4(std::net::Ipv4Addr::new(10, 1, (n >> 8) as u8, n as u8)),
            remote: "10.2.0.1".parse().unwrap(),
            protocol: 6,
            local_port: Some(n),
            remote_port: Some(80),
        }
    }

    #[test]
    fn a_new_epoch_forgets_everything() {
        let mut cache = FlowCache::new(64, 7);
        cache.insert(&key(1), 'a');
        assert_eq!(cache.find(&key(1)), Some('a'));
        assert_eq!(cache.find(&key(2)), None);
        cache.new_epoch();
        assert_eq!(cache.find(&key(1)), None);
        cache.insert(&key(1), 'b');
        assert_eq!(cache.find(&key(1)), Some('b'));
    }

    #[test]
    fn more_flows_than_places_evict_and_never_grow() {
        let mut cache = FlowCache::new(64, 7);
        for n in 0..10_000 {
            cache.insert(&key(n), n);
            assert_eq!(cache.find(&key(n)), Some(n));
        }
        assert_eq!(cache.entries.len(), 64);
        assert!((0..10_000).filter(|n| cache.find(&key(*n)).is_some()).count() <= 64);
    }

    #[test]
    fn neighbouring_flows_spread_over_the_table() {
        let mut cache = FlowCache::new(4096, 7);
        for n in 0..2048 {
            cache.insert(&key(n), n);
        }
        let kept = (0..2048).filter(|n| cache.find(&key(*n)) == Some(*n)).count();
        assert!(kept > 1800, "{kept} of 2048 in 4096 places");
    }
}
