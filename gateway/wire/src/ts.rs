//! Traffic selectors: one range of addresses, one of ports, one protocol (RFC 7296 section 3.13, RFC 4301 section
//! 4.4.1), as sets of packets.

mod prefix;
mod text;

use serde::{Deserialize, Serialize};
pub use text::ParseTsError;

use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A set of packets on one side: protocol, ports and addresses, all ranges inclusive.
///
/// Protocol 0 is any. For ICMP and ICMPv6 the ports hold type (high octet) and code (low octet). OPAQUE ports are
/// written 65535-0: the packet has no such field (RFC 4301 section 4.4.1.1). A range whose start exceeds its end, or
/// whose ends are of two families, holds nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TrafficSelector {
    /// IP protocol, 0 for any.
    pub protocol: u8,
    /// First port, or ICMP type and code.
    pub start_port: u16,
    /// Last port, or ICMP type and code.
    pub end_port: u16,
    /// First address.
    pub start: IpAddr,
    /// Last address, of the same family.
    pub end: IpAddr,
}

impl TrafficSelector {
    /// Every IPv4 packet.
    pub const ANY_V4: Self = Self::range(IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V4(Ipv4Addr::BROADCAST));
    /// Every IPv6 packet.
    pub const ANY_V6: Self =
        Self::range(IpAddr::V6(Ipv6Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::from_bits(u128::MAX)));

    /// Any protocol between two addresses, both included.
    pub const fn range(start: IpAddr, end: IpAddr) -> Self {
        TrafficSelector { protocol: 0, start_port: 0, end_port: u16::MAX, start, end }
    }

    /// Any protocol of one address.
    pub const fn host(address: IpAddr) -> Self {
        Self::range(address, address)
    }

    /// Any protocol of a prefix; host bits of `address` are cleared, lengths past the family's are the family's.
    pub fn from_prefix(address: IpAddr, len: u8) -> Self {
        let (start, end) = prefix::bounds(address, len);
        Self::range(start, end)
    }

    /// The same addresses for one protocol and, where it has ports, a range of them.
    pub const fn with_protocol(self, protocol: u8, start_port: u16, end_port: u16) -> Self {
        TrafficSelector { protocol, start_port, end_port, ..self }
    }

    /// The same protocol and ports at another address range.
    pub const fn with_addresses(self, start: IpAddr, end: IpAddr) -> Self {
        TrafficSelector { start, end, ..self }
    }

    /// Whether the packet has no port field and the selector asks for exactly that.
    pub const fn is_opaque(&self) -> bool {
        self.start_port == u16::MAX && self.end_port == 0
    }

    /// Whether any port, and packets without one, belong to the set.
    pub const fn is_any_port(&self) -> bool {
        self.start_port == 0 && self.end_port == u16::MAX
    }

    /// Whether one address only belongs to the set.
    pub fn is_host(&self) -> bool {
        self.start == self.end
    }

    /// Whether no packet belongs to the set.
    pub fn is_empty(&self) -> bool {
        let ports = self.start_port <= self.end_port || self.is_opaque();
        let addresses = self.start.is_ipv4() == self.end.is_ipv4() && self.start <= self.end;
        !(ports && addresses)
    }

    /// Whether the address belongs to the range.
    pub fn contains_address(&self, address: IpAddr) -> bool {
        // The order of IpAddr puts all of IPv4 before all of IPv6, so a family check has to stand before it.
        address.is_ipv4() == self.start.is_ipv4()
            && address.is_ipv4() == self.end.is_ipv4()
            && self.start <= address
            && address <= self.end
    }

    /// Whether a packet belongs to the set. `port` is that of this selector's side, or ICMP type and code; `None`
    /// where the packet has none or hides it (later fragments).
    pub fn contains(&self, address: IpAddr, protocol: u8, port: Option<u16>) -> bool {
        let ports = self.is_any_port()
            || match port {
                Some(port) => self.start_port <= port && port <= self.end_port,
                None => self.is_opaque(),
            };
        ports && (self.protocol == 0 || self.protocol == protocol) && self.contains_address(address)
    }

    /// The packets in both sets; `None` when there are none.
    pub fn intersect(&self, other: &Self) -> Option<Self> {
        if self.is_empty() || other.is_empty() || self.start.is_ipv4() != other.start.is_ipv4() {
            return None;
        }
        let protocol = match (self.protocol, other.protocol) {
            (0, p) | (p, 0) => p,
            (a, b) if a == b => a,
            _ => return None,
        };
        let (start_port, end_port) = match (self.is_any_port(), other.is_any_port()) {
            (true, _) => (other.start_port, other.end_port),
            (_, true) => (self.start_port, self.end_port),
            _ if self.is_opaque() && other.is_opaque() => (u16::MAX, 0),
            _ if self.is_opaque() || other.is_opaque() => return None,
            _ => {
                let (first, last) =
                    (self.start_port.max(other.start_port), self.end_port.min(other.end_port));
                // Checked here and not by `is_empty` below: 65535 alone and 0 alone, which have nothing in common,
                // would meet as 65535-0 and read as OPAQUE.
                if first > last {
                    return None;
                }
                (first, last)
            }
        };
        let (start, end) = (self.start.max(other.start), self.end.min(other.end));
        let both = TrafficSelector { protocol, start_port, end_port, start, end };
        (!both.is_empty()).then_some(both)
    }

    /// Whether every packet of this set is in `other`; the empty set is a subset of all.
    pub fn is_subset(&self, other: &Self) -> bool {
        self.is_empty() || self.intersect(other) == Some(*self)
    }

    /// The range as one prefix, `None` where it is not one.
    pub fn to_prefix(&self) -> Option<(IpAddr, u8)> {
        prefix::single(self.start, self.end)
    }

    /// The fewest prefixes that together are exactly the address range, ascending: at most 62 for IPv4, 254 for
    /// IPv6, none for an empty range.
    pub fn to_prefixes(&self) -> Vec<(IpAddr, u8)> {
        prefix::cover(self.start, self.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ts(text: &str) -> TrafficSelector {
        text.parse().unwrap()
    }

    #[test]
    fn intersection_narrows_protocol_ports_and_addresses() {
        let both = ts("10.0.0.0/8[tcp]").intersect(&ts("10.1.0.0/16[tcp/80-90]"));
        assert_eq!(both, Some(ts("10.1.0.0/16[tcp/80-90]")));
        assert_eq!(ts("10.0.0.0/8").intersect(&ts("0.0.0.0/0[udp/53]")), Some(ts("10.0.0.0/8[udp/53]")));
        assert_eq!(ts("10.0.0.0/8[tcp]").intersect(&ts("10.0.0.0/8[udp]")), None);
        assert_eq!(ts("10.0.0.0/8").intersect(&ts("11.0.0.0/8")), None);
        assert_eq!(ts("0.0.0.0/0").intersect(&ts("::/0")), None);
        assert_eq!(ts("10.0.0.0/8[tcp/1-10]").intersect(&ts("10.0.0.0/8[tcp/11]")), None);
    }

    #[test]
    fn opaque_ports_meet_only_any_and_opaque() {
        let opaque = ts("10.0.0.0/8[tcp/opaque]");
        assert_eq!(opaque.intersect(&ts("10.0.0.0/8")), Some(opaque));
        assert_eq!(opaque.intersect(&opaque), Some(opaque));
        assert_eq!(opaque.intersect(&ts("10.0.0.0/8[tcp/80]")), None);
        assert!(opaque.contains("10.1.1.1".parse().unwrap(), 6, None));
        assert!(!opaque.contains("10.1.1.1".parse().unwrap(), 6, Some(80)));
    }

    #[test]
    fn highest_and_lowest_port_do_not_meet_as_opaque() {
        assert_eq!(ts("10.0.0.0/8[tcp/65535]").intersect(&ts("10.0.0.0/8[tcp/0]")), None);
        assert_eq!(ts("10.0.0.0/8[tcp/0]").intersect(&ts("10.0.0.0/8[tcp/1-65535]")), None);
    }

    #[test]
    fn packet_without_port_fits_no_port_range() {
        let web = ts("10.0.0.0/8[tcp/80]");
        let a = "10.1.1.1".parse().unwrap();
        assert!(web.contains(a, 6, Some(80)));
        assert!(!web.contains(a, 6, Some(81)));
        assert!(!web.contains(a, 6, None));
        assert!(!web.contains(a, 17, Some(80)));
        assert!(!web.contains("::1".parse().unwrap(), 6, Some(80)));
    }

    #[test]
    fn selector_with_ends_of_two_families_or_turned_round_holds_nothing() {
        let v4: IpAddr = "10.0.0.1".parse().unwrap();
        let v6: IpAddr = "::1".parse().unwrap();
        assert!(TrafficSelector::range(v4, v6).is_empty());
        assert!(!TrafficSelector::range(v4, v6).contains_address("::".parse().unwrap()));
        assert!(TrafficSelector::range("10.0.0.2".parse().unwrap(), v4).is_empty());
        assert!(TrafficSelector::range("10.0.0.2".parse().unwrap(), v4).to_prefixes().is_empty());
        assert!(TrafficSelector::host(v4).with_protocol(6, 2, 1).is_empty());
        assert!(TrafficSelector::range(v4, v6).to_prefixes().is_empty());
    }

    #[test]
    fn subset_agrees_with_intersection() {
        assert!(ts("10.1.0.0/16[tcp/80]").is_subset(&ts("10.0.0.0/8")));
        assert!(!ts("10.0.0.0/8").is_subset(&ts("10.1.0.0/16")));
        assert!(!ts("10.1.0.0/16").is_subset(&ts("10.0.0.0/8[tcp]")));
        assert!(TrafficSelector::ANY_V6.is_subset(&ts("::/0")));
    }
}
