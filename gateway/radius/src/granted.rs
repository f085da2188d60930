//! What an Access-Accept says of the peer besides yes.
//!
//! | attribute | becomes |
//! |---|---|
//! | Framed-IP-Address, Framed-IPv6-Address, Framed-IPv6-Prefix of 128 bits | an inner address |
//! | MS-Primary-DNS-Server, MS-Secondary-DNS-Server, DNS-Server-IPv6-Address | a name server |
//! | Session-Timeout | how long it may stay |
//! | Acct-Interim-Interval | how often accounting is sent; not below a minute (RFC 2869 section 5.16) |
//! | Class, Filter-Id, Tunnel-Private-Group-ID | a group, if it is text |
//! | Class | what accounting gives back as it is |
//! | User-Name | the name that accounting has |

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use eap::Granted;

use crate::attribute::{Attribute, Attributes, Kind, MICROSOFT, address};

const MS_PRIMARY_DNS: u8 = 28;
const MS_SECONDARY_DNS: u8 = 29;
/// Of each kind of thing that a server may grant any number of.
const MOST: usize = 16;
/// RFC 2869 section 5.16.
const SHORTEST_INTERIM: u32 = 60;

/// Reads it. What makes no sense is passed over.
pub(crate) fn granted(attributes: Attributes<'_>) -> Granted {
    let v4 = attributes.all(Kind::FRAMED_IP_ADDRESS).filter_map(|a| match a.address()? {
        // RFC 2865 section 5.8: the peer chooses, we choose.
        IpAddr::V4(Ipv4Addr::BROADCAST) => None,
        IpAddr::V4(address) if address == Ipv4Addr::new(255, 255, 255, 254) => None,
        IpAddr::V4(address) => Some(IpAddr::V4(address)),
        IpAddr::V6(_) => None,
    });
    let v6 = attributes.all(Kind::FRAMED_IPV6_ADDRESS).filter_map(|a| a.address().filter(IpAddr::is_ipv6));
    let prefixes = attributes.all(Kind::FRAMED_IPV6_PREFIX).filter_map(|a| whole_prefix(a.value));
    let microsoft = [MS_PRIMARY_DNS, MS_SECONDARY_DNS]
        .into_iter()
        .flat_map(|kind| attributes.vendor(MICROSOFT, kind))
        .filter_map(|value| address(value).filter(IpAddr::is_ipv4));
    let dns6 =
        attributes.all(Kind::DNS_SERVER_IPV6_ADDRESS).filter_map(|a| a.address().filter(IpAddr::is_ipv6));
    let class = || attributes.all(Kind::CLASS).map(|a| a.value);
    let named = attributes.all(Kind::FILTER_ID).map(|a| a.value);
    let tunnels = attributes.all(Kind::TUNNEL_PRIVATE_GROUP_ID).map(|a| untagged(a.value));
    let number = |kind| attributes.first(kind).as_ref().and_then(Attribute::number);
    let mut granted = Granted {
        addresses: distinct(v4.chain(v6).chain(prefixes), MOST),
        dns: distinct(microsoft.chain(dns6), MOST),
        class: distinct(class().map(<[u8]>::to_vec), MOST),
        groups: distinct(class().chain(named).chain(tunnels).filter_map(text), 4 * MOST),
        ..Granted::default()
    };
    granted.session_timeout =
        number(Kind::SESSION_TIMEOUT).filter(|s| *s > 0).map(|s| Duration::from_secs(s.into()));
    granted.interim = number(Kind::ACCT_INTERIM_INTERVAL)
        .filter(|s| *s > 0)
        .map(|s| Duration::from_secs(s.max(SHORTEST_INTERIM).into()));
    granted
}

/// What the server would have shown to the user (Reply-Message), for the log.
pub(crate) fn message(attributes: Attributes<'_>) -> Option<String> {
    let parts: Vec<String> = attributes.all(Kind::REPLY_MESSAGE).take(4).map(|a| shown(a.value)).collect();
    Some(parts.join(" ")).filter(|text| !text.is_empty())
}

/// Octets of somebody else's as they may stand in a line of a log.
pub(crate) fn shown(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets).chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// Each once: servers with tunnelled methods may say everything twice.
fn distinct<T: PartialEq>(all: impl Iterator<Item = T>, most: usize) -> Vec<T> {
    let mut kept = Vec::new();
    for one in all {
        if kept.len() < most && !kept.contains(&one) {
            kept.push(one);
        }
    }
    kept
}

fn text(octets: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(octets).ok()?;
    (!text.is_empty() && !text.contains(char::is_control)).then(|| text.to_owned())
}

/// RFC 2868 section 3.6: a first octet of at most 0x1f is a tag.
fn untagged(value: &[u8]) -> &[u8] {
    match value {
        [0..=0x1f, rest @ ..] => rest,
        _ => value,
    }
}

/// RFC 3162 section 2.3: a reserved octet, the length in bits, the prefix.
fn whole_prefix(value: &[u8]) -> Option<IpAddr> {
    match value {
        [_, 128, prefix @ ..] => {
            <[u8; 16]>::try_from(prefix).ok().map(|octets| Ipv6Addr::from(octets).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attribute::Written;

    #[test]
    fn an_accept_is_understood() {
        let mut written = Written::new();
        written.push(Kind::FRAMED_IP_ADDRESS, &[10, 9, 0, 7]).unwrap();
        written.push(Kind::FRAMED_IPV6_ADDRESS, &[0xfd; 16]).unwrap();
        written.push(Kind::FRAMED_IPV6_PREFIX, &[[0, 128].as_slice(), &[0xfc; 16]].concat()).unwrap();
        written.push(Kind::FRAMED_IPV6_PREFIX, &[0, 64, 0xfc, 0, 0, 0, 0, 0, 0, 1]).unwrap();
        written.push(Kind::VENDOR_SPECIFIC, &[0, 0, 1, 55, 29, 6, 10, 0, 0, 2]).unwrap();
        written.push(Kind::VENDOR_SPECIFIC, &[0, 0, 1, 55, 28, 6, 10, 0, 0, 1]).unwrap();
        written.push(Kind::DNS_SERVER_IPV6_ADDRESS, &[0xfe; 16]).unwrap();
        written.number(Kind::SESSION_TIMEOUT, 3600);
        written.number(Kind::ACCT_INTERIM_INTERVAL, 5);
        written.text(Kind::CLASS, "staff");
        written.push(Kind::CLASS, &[0, 255, 1]).unwrap();
        written.text(Kind::FILTER_ID, "lan");
        written.text(Kind::FILTER_ID, "lan");
        written.push(Kind::TUNNEL_PRIVATE_GROUP_ID, b"\x01blue").unwrap();
        written.text(Kind::REPLY_MESSAGE, "hello\nyou");
        let read = granted(written.read());
        let shown: Vec<String> = read.addresses.iter().chain(&read.dns).map(ToString::to_string).collect();
        assert_eq!(
            shown,
            [
                "10.9.0.7",
                "fdfd:fdfd:fdfd:fdfd:fdfd:fdfd:fdfd:fdfd",
                "fcfc:fcfc:fcfc:fcfc:fcfc:fcfc:fcfc:fcfc",
                "10.0.0.1",
                "10.0.0.2",
                "fefe:fefe:fefe:fefe:fefe:fefe:fefe:fefe"
            ]
        );
        assert_eq!(read.session_timeout, Some(Duration::from_secs(3600)));
        assert_eq!(read.interim, Some(Duration::from_secs(60)));
        assert_eq!(read.groups, ["staff", "lan", "blue"]);
        assert_eq!(read.class, [b"staff".to_vec(), vec![0, 255, 1]]);
        assert_eq!(message(written.read()).unwrap(), "hello\u{fffd}you");
    }

    #[test]
    fn addresses_that_leave_the_choice_to_us_and_wrong_lengths_are_passed_over() {
        let mut written = Written::new();
        for address in [&[255, 255, 255, 254][..], &[255; 4], &[1, 2, 3], &[0xfd; 16]] {
            written.push(Kind::FRAMED_IP_ADDRESS, address).unwrap();
        }
        written.push(Kind::SESSION_TIMEOUT, &[1]).unwrap();
        written.number(Kind::ACCT_INTERIM_INTERVAL, 0);
        assert_eq!(granted(written.read()), Granted::default());
        assert_eq!(message(written.read()), None);
    }
}
