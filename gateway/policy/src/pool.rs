//! Inner addresses: what a server hands out and says with them, and what a client asks for (RFC 7296 section 3.15).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use wire::TrafficSelector;

use crate::id::Identity;

/// Addresses to ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VirtualIpRequest {
    /// INTERNAL_IP4_ADDRESS.
    pub v4: bool,
    /// INTERNAL_IP6_ADDRESS.
    pub v6: bool,
    /// Whether the name servers and domains that come with them are used by this machine. Without, they are only told.
    pub dns: bool,
}

/// Addresses to hand out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// From where they are taken, the first ones first.
    pub ranges: Vec<PoolRange>,
    /// Addresses that one identity has and nobody else gets; in a range or not.
    pub reserved: Vec<(Identity, IpAddr)>,
    /// How long an address that is not in use is kept for who had it last. Afterwards it is still theirs, until somebody needs it
    /// and there is no other.
    pub hold: Duration,
    /// Where IPv4 addresses come from instead of `ranges`.
    pub dhcp: Option<DhcpSource<Ipv4Addr>>,
    /// Where IPv6 addresses come from instead of `ranges`.
    pub dhcp6: Option<DhcpSource<Ipv6Addr>>,
    /// Whether a server that authenticates clients may name addresses which are in no range.
    pub granted_outside: bool,
    /// The device on which we answer for addresses that are in use, as if their holders were there.
    pub proxy: Option<Arc<str>>,
    /// Name servers for the client.
    pub dns: Vec<IpAddr>,
    /// Domains for which alone the client is to ask them (RFC 8598); empty: for everything.
    pub domains: Vec<Arc<str>>,
    /// NetBIOS name servers.
    pub nbns: Vec<Ipv4Addr>,
    /// Networks behind us (INTERNAL_IP4_SUBNET, INTERNAL_IP6_SUBNET): address and length.
    pub subnets: Vec<(IpAddr, u8)>,
}

/// Some addresses of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PoolRange {
    /// A network and its length. Its own address, the first one (which is the gateway's) and the broadcast address of IPv4 are not
    /// handed out.
    Network(IpAddr, u8),
    /// From one to another, both included; of one family.
    Range(IpAddr, IpAddr),
}

/// A DHCP server that is asked on behalf of clients, as a relay asks it (RFC 2131, RFC 8415).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DhcpSource<A> {
    /// The server; `None`: whichever answers on the network of `device`.
    pub server: Option<A>,
    /// Our address in the network the addresses are of: the server chooses by it, and with IPv4 answers there. Unspecified where the
    /// device had none when the configuration was read: then nothing can be asked.
    pub relay: A,
    /// The length of that network: what the server gives is in it, or not taken.
    pub prefix: u8,
    /// The device of the network that is asked as a whole.
    pub device: Option<Arc<str>>,
}

impl Pool {
    /// Whether it has addresses of the family.
    pub fn has(&self, v4: bool) -> bool {
        self.ranges.iter().any(|range| range.is_ipv4() == v4)
            || self.reserved.iter().any(|(_, address)| address.is_ipv4() == v4)
            || self.by_dhcp(v4)
    }

    /// Whether all of these addresses may be a client's: those of a range, with what is not handed out of a network; reserved ones;
    /// those of the network a DHCP server serves. Where an authenticating server may name others, every host may.
    pub fn covers(&self, wanted: &TrafficSelector) -> bool {
        let within = |allowed: TrafficSelector| {
            TrafficSelector::range(wanted.start, wanted.end).is_subset(&allowed) && !wanted.is_empty()
        };
        self.ranges.iter().any(|range| within(range.whole()))
            || self.reserved.iter().any(|(_, address)| within(TrafficSelector::host(*address)))
            || self.dhcp_networks().any(within)
            || self.granted_outside && wanted.is_host()
    }

    /// Whether addresses of the family come from a DHCP server.
    pub fn by_dhcp(&self, v4: bool) -> bool {
        if v4 { self.dhcp.is_some() } else { self.dhcp6.is_some() }
    }

    /// The networks that DHCP servers give addresses of.
    pub fn dhcp_networks(&self) -> impl Iterator<Item = TrafficSelector> + use<> {
        let (v4, v6) =
            (self.dhcp.as_ref().map(DhcpSource::network), self.dhcp6.as_ref().map(DhcpSource::network));
        v4.into_iter().chain(v6)
    }

    /// The prefix length that goes with an IPv6 address (RFC 7296 section 3.15.1).
    pub fn prefix_of(&self, address: IpAddr) -> u8 {
        let host = TrafficSelector::host(address);
        let by_dhcp = self.dhcp6.as_ref().filter(|dhcp| host.is_subset(&dhcp.network()));
        if let Some(dhcp) = by_dhcp {
            return dhcp.prefix;
        }
        let network = self.ranges.iter().find_map(|range| match range {
            PoolRange::Network(network, len)
                if host.is_subset(&TrafficSelector::from_prefix(*network, *len)) =>
            {
                Some(*len)
            }
            _ => None,
        });
        network.unwrap_or(if address.is_ipv4() { 32 } else { 128 })
    }
}

impl<A: Copy + Into<IpAddr>> DhcpSource<A> {
    /// The network its addresses are of.
    pub fn network(&self) -> TrafficSelector {
        TrafficSelector::from_prefix(self.relay.into(), self.prefix)
    }
}

impl<A: std::fmt::Display> std::fmt::Display for DhcpSource<A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.server, &self.device) {
            (Some(server), _) => write!(f, "the DHCP server {server}"),
            (None, Some(device)) => write!(f, "a DHCP server on {device}"),
            (None, None) => f.write_str("a DHCP server"),
        }
    }
}

impl PoolRange {
    /// Its family.
    pub fn is_ipv4(&self) -> bool {
        match self {
            PoolRange::Network(address, _) | PoolRange::Range(address, _) => address.is_ipv4(),
        }
    }

    /// All of it, with what is not handed out.
    pub fn whole(&self) -> TrafficSelector {
        match *self {
            PoolRange::Network(address, len) => TrafficSelector::from_prefix(address, len),
            PoolRange::Range(first, last) => TrafficSelector::range(first, last),
        }
    }

    /// What is handed out, as numbers: the first address, and how many there are; that saturates.
    ///
    /// Networks of two addresses have neither network nor broadcast address (RFC 3021, RFC 6164); a single one is given as it is.
    pub fn span(&self) -> (u128, u128) {
        match *self {
            PoolRange::Range(first, last) => {
                let (first, last) = (number(first), number(last));
                (first, last.checked_sub(first).map_or(0, |more| more.saturating_add(1)))
            }
            PoolRange::Network(address, len) => {
                let width = if address.is_ipv4() { 32 } else { 128 };
                let host_bits = u32::from(width - len.min(width));
                let size = 1u128.checked_shl(host_bits).unwrap_or(u128::MAX);
                let base = if host_bits >= 128 { 0 } else { number(address) & !(size - 1) };
                let (skip, kept) = match host_bits {
                    0 => (0, 0),
                    1 => (1, 1),
                    _ => (2, 2 + u128::from(address.is_ipv4())),
                };
                (base + skip, size - kept)
            }
        }
    }
}

/// A domain as it is compared: in lower case and without a trailing dot. `None` for what is no domain's name (RFC 1123 section 2.1,
/// with the underscore that service names begin with).
pub fn domain(octets: &[u8]) -> Option<String> {
    let name = octets.strip_suffix(b".").unwrap_or(octets);
    let plain = |o: &u8| o.is_ascii_alphanumeric() || b"-_".contains(o);
    let label = |label: &[u8]| matches!(label.len(), 1..=63) && label.iter().all(plain);
    let fits = name.len() <= 253 && name.split(|o| *o == b'.').all(label);
    fits.then(|| name.iter().map(|o| char::from(o.to_ascii_lowercase())).collect())
}

/// An address as a number.
pub fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u32::from(address).into(),
        IpAddr::V6(address) => address.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_pool_covers_its_networks_whole_and_reserved_hosts() {
        let pool = Pool {
            ranges: vec![
                PoolRange::Network(ip("10.3.0.0"), 24),
                PoolRange::Range(ip("10.4.0.7"), ip("10.4.0.9")),
            ],
            reserved: vec![(Identity::parse("carol@example.org").unwrap(), ip("10.5.0.5"))],
            ..Pool::default()
        };
        let covers = |text: &str| pool.covers(&text.parse().unwrap());
        for yes in ["10.3.0.0/24", "10.3.0.1", "10.4.0.8/31", "10.5.0.5"] {
            assert!(covers(yes), "{yes}");
        }
        for no in ["10.3.0.0/23", "10.4.0.6/31", "10.5.0.4/31", "fec3::1", "10.6.0.1"] {
            assert!(!covers(no), "{no}");
        }
        let open = Pool { granted_outside: true, ..pool };
        assert!(open.covers(&"10.6.0.1".parse().unwrap()) && !open.covers(&"10.6.0.0/31".parse().unwrap()));
    }

    #[test]
    fn a_range_that_ends_before_it_begins_is_empty() {
        assert_eq!(PoolRange::Range(ip("10.0.0.9"), ip("10.0.0.8")).span().1, 0);
        assert_eq!(PoolRange::Range(ip("10.0.0.9"), ip("10.0.0.9")).span().1, 1);
        assert_eq!(
            PoolRange::Range(ip("::"), ip("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")).span().1,
            u128::MAX
        );
    }
}
