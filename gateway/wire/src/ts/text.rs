//! Selectors as operators write them: `10.1.0.0/16[tcp/80]`, `10.0.0.1-10.0.0.9[udp/1024-65535]`, `fec0::/16[icmpv6/128]`.

use super::TrafficSelector;
use core::fmt;
use core::net::IpAddr;
use core::str::FromStr;

/// Protocols with a name in selectors; the others are written as numbers.
const NAMES: [(u8, &str); 12] = [
    (1, "icmp"),
    (2, "igmp"),
    (4, "ipip"),
    (6, "tcp"),
    (17, "udp"),
    (47, "gre"),
    (50, "esp"),
    (51, "ah"),
    (58, "icmpv6"),
    (89, "ospf"),
    (97, "etherip"),
    (132, "sctp"),
];

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

impl fmt::Display for TrafficSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.to_prefix() {
            Some((address, len)) => write!(f, "{address}/{len}")?,
            None => write!(f, "{}-{}", self.start, self.end)?,
        }
        if self.protocol == 0 && self.is_any_port() {
            return Ok(());
        }
        match NAMES.iter().find(|(number, _)| *number == self.protocol) {
            Some((_, name)) => write!(f, "[{name}")?,
            None => write!(f, "[{}", self.protocol)?,
        }
        if self.is_opaque() {
            f.write_str("/opaque")?;
        } else if !self.is_any_port() {
            f.write_str("/")?;
            self.fmt_ports(f)?;
        }
        f.write_str("]")
    }
}

impl TrafficSelector {
    fn fmt_ports(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, last) = (self.start_port, self.end_port);
        if self.protocol == ICMP || self.protocol == ICMPV6 {
            let ([t, c], [t2, c2]) = (first.to_be_bytes(), last.to_be_bytes());
            return match (t == t2, c, c2) {
                (true, 0, 255) => write!(f, "{t}"),
                (false, 0, 255) => write!(f, "{t}-{t2}"),
                _ if first == last => write!(f, "{t}({c})"),
                _ => write!(f, "{t}({c})-{t2}({c2})"),
            };
        }
        if first == last { write!(f, "{first}") } else { write!(f, "{first}-{last}") }
    }
}

impl fmt::Debug for TrafficSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Text that is not a selector; says which part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseTsError(&'static str);

impl fmt::Display for ParseTsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "traffic selector: {}", self.0)
    }
}

impl core::error::Error for ParseTsError {}

impl FromStr for TrafficSelector {
    type Err = ParseTsError;

    /// Reads an address, a prefix or a range `a-b`, and optionally `[protocol]`, `[protocol/port]`,
    /// `[protocol/a-b]`, `[protocol/opaque]`; for ICMP `type`, `type(code)` or a range of either.
    fn from_str(text: &str) -> Result<Self, ParseTsError> {
        let (addresses, suffix) = match text.split_once('[') {
            None => (text, None),
            Some((a, rest)) => (a, Some(rest.strip_suffix(']').ok_or(ParseTsError("no closing bracket"))?)),
        };
        let ts = parse_addresses(addresses)?;
        match suffix {
            None => Ok(ts),
            Some(suffix) => parse_suffix(ts, suffix),
        }
    }
}

fn parse_addresses(text: &str) -> Result<TrafficSelector, ParseTsError> {
    let ip = |s: &str| s.trim().parse::<IpAddr>().map_err(|_| ParseTsError("not an IP address"));
    if let Some((address, len)) = text.split_once('/') {
        let address = ip(address)?;
        let max = if address.is_ipv4() { 32 } else { 128 };
        let len = len.trim().parse::<u8>().ok().filter(|len| *len <= max);
        return Ok(TrafficSelector::from_prefix(
            address,
            len.ok_or(ParseTsError("prefix length out of range"))?,
        ));
    }
    let ts = match text.split_once('-') {
        Some((start, end)) => TrafficSelector::range(ip(start)?, ip(end)?),
        None => TrafficSelector::host(ip(text)?),
    };
    if ts.is_empty() { Err(ParseTsError("address range is empty")) } else { Ok(ts) }
}

fn parse_suffix(ts: TrafficSelector, suffix: &str) -> Result<TrafficSelector, ParseTsError> {
    let (protocol, ports) = match suffix.split_once('/') {
        None => (suffix, None),
        Some((protocol, ports)) => (protocol, Some(ports)),
    };
    let protocol = parse_protocol(protocol.trim())?;
    let icmp = protocol == ICMP || protocol == ICMPV6;
    let (start, end) = match ports.map(str::trim) {
        None | Some("any") => (0, u16::MAX),
        Some("opaque") => (u16::MAX, 0),
        Some(ports) => {
            let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
            (parse_port(first.trim(), icmp)?.0, parse_port(last.trim(), icmp)?.1)
        }
    };
    let ts = ts.with_protocol(protocol, start, end);
    if ts.is_empty() { Err(ParseTsError("port range is empty")) } else { Ok(ts) }
}

fn parse_protocol(text: &str) -> Result<u8, ParseTsError> {
    if text == "any" {
        return Ok(0);
    }
    // The older spelling of both is common in configurations.
    let text = if text == "ipv6-icmp" { "icmpv6" } else { text };
    match NAMES.iter().find(|(_, name)| name.eq_ignore_ascii_case(text)) {
        Some((number, _)) => Ok(*number),
        None => text.parse().map_err(|_| ParseTsError("unknown protocol")),
    }
}

/// The lowest and highest value the text stands for: one port, or all codes of an ICMP type.
fn parse_port(text: &str, icmp: bool) -> Result<(u16, u16), ParseTsError> {
    let bad = ParseTsError("port out of range");
    if !icmp {
        return text.parse().map(|port| (port, port)).map_err(|_| bad);
    }
    let number = |s: &str| s.trim().parse::<u8>().map_err(|_| ParseTsError("ICMP type or code out of range"));
    match text.strip_suffix(')').and_then(|t| t.split_once('(')) {
        Some((t, c)) => {
            let value = u16::from_be_bytes([number(t)?, number(c)?]);
            Ok((value, value))
        }
        None => {
            let t = number(text)?;
            Ok((u16::from_be_bytes([t, 0]), u16::from_be_bytes([t, 255])))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn field_form_is_read_and_written_alike() {
        for text in [
            "10.1.0.0/16",
            "10.1.0.1/32",
            "10.1.0.0/16[tcp/80]",
            "10.1.0.0/16[tcp/80-90]",
            "10.1.0.0/16[udp]",
            "10.1.0.0/16[0/80]",
            "10.1.0.0/16[200]",
            "10.1.0.0/16[tcp/opaque]",
            "10.0.0.1-10.0.0.9[udp/1024-65535]",
            "0.0.0.0/0[icmp/8]",
            "0.0.0.0/0[icmp/8(0)]",
            "0.0.0.0/0[icmp/3-5]",
            "fec0::/16[icmpv6/128(1)-129(255)]",
            "::/0",
        ] {
            assert_eq!(text.parse::<TrafficSelector>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn text_that_is_no_selector_is_refused() {
        for text in [
            "",
            "10.1.0.0/33",
            "10.0.0.2-10.0.0.1",
            "10.0.0.0/8[tcp",
            "10.0.0.0/8[quic]",
            "1.1.1.1-::1",
            "::/129",
        ] {
            assert!(text.parse::<TrafficSelector>().is_err(), "{text}");
        }
        assert!("10.0.0.0/8[tcp/90-80]".parse::<TrafficSelector>().is_err());
        assert!("10.0.0.0/8[icmp/256]".parse::<TrafficSelector>().is_err());
    }
}
