//! Address ranges and prefixes.

use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// First and last address of the prefix around `address`.
pub(super) fn bounds(address: IpAddr, len: u8) -> (IpAddr, IpAddr) {
    match address {
        IpAddr::V4(a) => {
            let host = u32::MAX.checked_shr(len.into()).unwrap_or(0);
            (v4(a.to_bits() & !host), v4(a.to_bits() | host))
        }
        IpAddr::V6(a) => {
            let host = u128::MAX.checked_shr(len.into()).unwrap_or(0);
            (v6(a.to_bits() & !host), v6(a.to_bits() | host))
        }
    }
}

/// The prefix that is exactly this range, if one is.
pub(super) fn single(start: IpAddr, end: IpAddr) -> Option<(IpAddr, u8)> {
    let len = match (start, end) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        _ => return None,
    } as u8;
    (bounds(start, len) == (start, end)).then_some((start, len))
}

/// The fewest prefixes that are exactly this range.
pub(super) fn cover(start: IpAddr, end: IpAddr) -> Vec<(IpAddr, u8)> {
    match (start, end) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            let blocks = blocks(a.to_bits().into(), b.to_bits().into(), 32);
            blocks.into_iter().map(|(n, len)| (v4(n as u32), len)).collect()
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            blocks(a.to_bits(), b.to_bits(), 128).into_iter().map(|(n, len)| (v6(n), len)).collect()
        }
        _ => Vec::new(),
    }
}

/// Greedy from below: at each step the largest aligned block that does not pass the end. Block sizes grow and then
/// shrink, so there are fewer than twice as many blocks as bits.
fn blocks(mut start: u128, end: u128, bits: u32) -> Vec<(u128, u8)> {
    let mut out = Vec::new();
    while start <= end {
        // `end - start + 1` addresses are left; the difference alone is used because the sum may overflow.
        let span = end - start;
        let fits = if span == u128::MAX { 128 } else { (span + 1).ilog2() };
        let size = start.trailing_zeros().min(fits).min(bits);
        out.push((start, (bits - size) as u8));
        let last = if size == 128 { u128::MAX } else { start | ((1 << size) - 1) };
        match last.checked_add(1) {
            Some(next) => start = next,
            None => break,
        }
    }
    out
}

fn v4(bits: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_bits(bits))
}

fn v6(bits: u128) -> IpAddr {
    IpAddr::V6(Ipv6Addr::from_bits(bits))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn whole_families_are_one_prefix() {
        assert_eq!(cover(ip("0.0.0.0"), ip("255.255.255.255")), [(ip("0.0.0.0"), 0)]);
        let last = v6(u128::MAX);
        assert_eq!(cover(ip("::"), last), [(ip("::"), 0)]);
        assert_eq!(single(ip("::"), last), Some((ip("::"), 0)));
    }

    #[test]
    fn worst_ranges_stay_within_their_bound() {
        assert_eq!(cover(ip("0.0.0.1"), ip("255.255.255.254")).len(), 62);
        assert_eq!(cover(ip("::1"), v6(u128::MAX - 1)).len(), 254);
    }

    #[test]
    fn odd_range_becomes_ascending_exact_prefixes() {
        let found = cover(ip("10.0.0.1"), ip("10.0.0.6"));
        assert_eq!(
            found,
            [(ip("10.0.0.1"), 32), (ip("10.0.0.2"), 31), (ip("10.0.0.4"), 31), (ip("10.0.0.6"), 32)]
        );
        assert_eq!(single(ip("10.0.0.1"), ip("10.0.0.6")), None);
        assert_eq!(single(ip("10.0.0.0"), ip("10.0.0.7")), Some((ip("10.0.0.0"), 29)));
        assert_eq!(single(ip("10.0.0.4"), ip("10.0.0.3")), None);
    }

    #[test]
    fn host_bits_are_cleared_and_lengths_saturate() {
        assert_eq!(bounds(ip("10.1.2.3"), 16), (ip("10.1.0.0"), ip("10.1.255.255")));
        assert_eq!(bounds(ip("10.1.2.3"), 200), (ip("10.1.2.3"), ip("10.1.2.3")));
        assert_eq!(bounds(ip("fec1::7"), 16), (ip("fec1::"), ip("fec1:ffff:ffff:ffff:ffff:ffff:ffff:ffff")));
    }
}
