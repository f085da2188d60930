//! `pool = { … }` and `virtual_ip = { … }`: inner addresses, given and asked for.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use policy::{DhcpSource, Identity, Pool, PoolRange, VirtualIpRequest};
use toml::Spanned;

use super::raw::{self, Word};
use super::reader::{Reader, network, network_v4, network_v6};
use super::settings::device_name;

/// How long an address is kept for who had it, unless the configuration says otherwise.
const HOLD: Duration = Duration::from_secs(3600);
/// Name servers and domains of one realm; more would not fit into what a client takes.
const MAX_SERVERS: usize = 8;
const MAX_DOMAINS: usize = 32;

/// Reads `virtual_ip`.
pub(crate) fn virtual_ip(raw: Option<&Spanned<raw::VirtualIp>>, reader: &mut Reader<'_>) -> VirtualIpRequest {
    let mut wanted = VirtualIpRequest::default();
    let Some(raw) = raw else { return wanted };
    for word in raw.get_ref().request.as_deref().unwrap_or_default() {
        match reader.choice("address family", word, &[("ipv4", 4), ("ipv6", 6)]) {
            Some(4) => wanted.v4 = true,
            Some(_) => wanted.v6 = true,
            None => {}
        }
    }
    if let Some(word) = &raw.get_ref().dns {
        wanted.dns = reader.choice("dns", word, &[("install", true), ("ignore", false)]).unwrap_or(false);
        if wanted.dns && !(wanted.v4 || wanted.v6) {
            reader.error(word.span(), "name servers come with addresses; `request` asks for none");
        }
    }
    wanted
}

/// Reads `pool`.
pub(crate) fn pool(raw: &Spanned<raw::Pool>, reader: &mut Reader<'_>) -> Option<Pool> {
    let (at, raw) = (raw.span(), raw.get_ref());
    let mut ranges = Vec::new();
    let v4 = raw.ipv4.as_ref().and_then(|word| reader.parse(word, network_v4));
    ranges.extend(v4.map(|(network, len)| PoolRange::Network(network.into(), len)));
    let v6 = raw.ipv6.as_ref().and_then(|word| reader.parse(word, network_v6));
    ranges.extend(v6.map(|(network, len)| PoolRange::Network(network.into(), len)));
    ranges.extend(raw.ranges.as_deref().map(|words| reader.list(words, range)).unwrap_or_default());
    let dhcp = raw.dhcp.as_ref().and_then(|raw| dhcp::<Ipv4Addr>(raw, reader));
    let dhcp6 = raw.dhcp6.as_ref().and_then(|raw| self::dhcp::<Ipv6Addr>(raw, reader));
    let reserved = reserved(raw, reader);
    let by_dhcp = raw.dhcp.is_some() || raw.dhcp6.is_some();
    let named = raw.ipv4.is_some() || raw.ipv6.is_some() || raw.ranges.is_some() || by_dhcp;
    if !named && reserved.is_empty() {
        reader.error(at, "the pool has neither `ipv4` nor `ipv6`, `ranges`, `dhcp`, `dhcp6` or `reserve`");
        return None;
    }
    if dhcp.is_some() && ranges.iter().any(PoolRange::is_ipv4) {
        reader.error(at.clone(), "IPv4 addresses come from `dhcp` or from ranges, not from both");
    }
    if dhcp6.is_some() && ranges.iter().any(|range| !range.is_ipv4()) {
        reader.error(at.clone(), "IPv6 addresses come from `dhcp6` or from ranges, not from both");
    }
    let address = |text: &str| text.parse::<IpAddr>().map_err(|_| format!("`{text}` is not an address"));
    let v4_address =
        |text: &str| text.parse::<Ipv4Addr>().map_err(|_| format!("`{text}` is not an IPv4 address"));
    let dns = raw.dns.as_deref().map(|words| reader.list(words, address)).unwrap_or_default();
    let domains = raw.domains.as_deref().map(|words| reader.list(words, domain)).unwrap_or_default();
    if dns.len() > MAX_SERVERS || domains.len() > MAX_DOMAINS {
        let text =
            format!("at most {MAX_SERVERS} name servers and {MAX_DOMAINS} domains can be told to a client");
        reader.error(at.clone(), text);
    }
    if !domains.is_empty() && dns.is_empty() {
        reader.error(at, "`domains` say what to ask the servers in `dns` for, and there are none");
    }
    Some(Pool {
        ranges,
        reserved,
        hold: reader.duration(raw.hold.as_ref(), HOLD),
        dhcp,
        dhcp6,
        granted_outside: raw.granted_outside.unwrap_or(false),
        proxy: raw.proxy.as_ref().and_then(|word| reader.parse(word, device_name)).map(Arc::from),
        dns,
        domains,
        nbns: raw.nbns.as_deref().map(|words| reader.list(words, v4_address)).unwrap_or_default(),
        subnets: raw.subnets.as_deref().map(|words| reader.list(words, network)).unwrap_or_default(),
    })
}

fn range(text: &str) -> Result<PoolRange, String> {
    let Some((first, last)) = text.split_once('-') else {
        return match network(text) {
            Ok((address, len)) => Ok(PoolRange::Network(address, len)),
            Err(_) => Err(format!("`{text}` is no range; write 10.3.0.10-10.3.0.99 or 10.3.0.0/24")),
        };
    };
    let address =
        |text: &str| text.trim().parse::<IpAddr>().map_err(|_| format!("`{text}` is not an address"));
    let (first, last) = (address(first)?, address(last)?);
    if first.is_ipv4() != last.is_ipv4() {
        return Err(format!("`{text}` begins and ends in different address families"));
    }
    if last < first {
        return Err(format!("`{text}` ends before it begins"));
    }
    Ok(PoolRange::Range(first, last))
}

fn domain(text: &str) -> Result<Arc<str>, String> {
    policy::pool::domain(text.as_bytes()).map(Arc::from).ok_or_else(|| format!("`{text}` is not a domain"))
}

/// `reserve = { "carol@example.org" = "10.3.0.7", … }`; several addresses with commas between.
fn reserved(raw: &raw::Pool, reader: &mut Reader<'_>) -> Vec<(Identity, IpAddr)> {
    let mut all: Vec<(Identity, IpAddr)> = Vec::new();
    for (name, word) in raw.reserve.iter().flatten() {
        let identity = match Identity::parse(name) {
            Ok(identity) => identity,
            Err(error) => {
                reader.error(word.span(), format!("`reserve`: {error}"));
                continue;
            }
        };
        for text in word.get_ref().split(',').map(str::trim) {
            let Ok(address) = text.parse::<IpAddr>() else {
                reader.error(word.span(), format!("`{text}` is not an address"));
                continue;
            };
            if let Some((other, _)) = all.iter().find(|(_, taken)| *taken == address) {
                reader.error(word.span(), format!("{address} is reserved for `{other}` already"));
            } else if all.iter().any(|(id, other)| *id == identity && other.is_ipv4() == address.is_ipv4()) {
                reader.error(word.span(), format!("`{name}` has two addresses of one family"));
            } else {
                all.push((identity.clone(), address));
            }
        }
    }
    all
}

/// A family of addresses that DHCP is for.
trait Family: Copy + Into<IpAddr> + FromStr {
    const NONE: Self;
    const BITS: u8;
    const NAME: &str;
    const EXAMPLE: &str;

    /// Of this family, and good for all of a network and beyond.
    fn of(address: IpAddr) -> Option<Self>;
}

impl Family for Ipv4Addr {
    const NONE: Self = Ipv4Addr::UNSPECIFIED;
    const BITS: u8 = 32;
    const NAME: &str = "IPv4";
    const EXAMPLE: &str = "dhcp = { server = \"10.1.0.20\", relay = \"10.1.0.1/16\" }";

    fn of(address: IpAddr) -> Option<Self> {
        if let IpAddr::V4(address) = address { Some(address) } else { None }
    }
}

impl Family for Ipv6Addr {
    const NONE: Self = Ipv6Addr::UNSPECIFIED;
    const BITS: u8 = 128;
    const NAME: &str = "IPv6";
    const EXAMPLE: &str = "dhcp6 = { server = \"fec1::20\", relay = \"fec1::1/64\" }";

    fn of(address: IpAddr) -> Option<Self> {
        match address {
            IpAddr::V6(address) if !address.is_unicast_link_local() => Some(address),
            _ => None,
        }
    }
}

fn dhcp<A: Family>(raw: &Spanned<raw::DhcpPool>, reader: &mut Reader<'_>) -> Option<DhcpSource<A>> {
    let (at, example) = (raw.span(), A::EXAMPLE);
    let relay = match raw.get_ref() {
        raw::DhcpPool::Relay(relay) => relay,
        raw::DhcpPool::Device(device) => return on_device(at, device, reader),
    };
    let missing = format!(
        "write {example}: the server, and our address with the length of the network the addresses are of; or the name of a \
         device of that network"
    );
    let (Some(server), Some(relay)) = (&relay.server, &relay.relay) else {
        reader.error(at, missing);
        return None;
    };
    let address =
        |text: &str| text.parse::<A>().map_err(|_| format!("`{text}` is not an {} address", A::NAME));
    let with_length = |text: &str| {
        let (host, len) = text.split_once('/').ok_or(missing.clone())?;
        let len: u8 =
            len.parse().ok().filter(|len| *len <= A::BITS).ok_or_else(|| format!("`{len}` is no length"))?;
        Ok::<_, String>((address(host)?, len))
    };
    let server = reader.parse(server, address)?;
    let (relay, prefix) = reader.parse(relay, with_length)?;
    Some(DhcpSource { server: Some(server), relay, prefix, device: None })
}

/// Whichever server there is on a network: we are a relay at the device's first address.
fn on_device<A: Family>(at: Range<usize>, device: &str, reader: &mut Reader<'_>) -> Option<DhcpSource<A>> {
    let name = match device_name(device) {
        Ok(name) => name,
        Err(error) => {
            reader.error(at, error);
            return None;
        }
    };
    let all = crate::io::sys::addresses().unwrap_or_default();
    let own = all.into_iter().filter(|own| *own.name == *name);
    let first = own.filter_map(|own| Some((A::of(own.address)?, own.prefix))).next();
    if first.is_none() {
        let text =
            format!("{name} has no {} address now: nobody is asked there until a reload finds one", A::NAME);
        reader.warn(at, text);
    }
    let (relay, prefix) = first.unwrap_or((A::NONE, A::BITS));
    Some(DhcpSource { server: None, relay, prefix, device: Some(name.into()) })
}

/// What a pool is, for people.
pub(crate) fn text(pool: &Pool) -> String {
    let mut words: Vec<String> = pool
        .ranges
        .iter()
        .map(|range| match range {
            PoolRange::Network(address, len) => format!("{address}/{len}"),
            PoolRange::Range(first, last) => format!("{first}-{last}"),
        })
        .collect();
    words.extend(pool.dhcp.as_ref().map(|dhcp| format!("IPv4 of {dhcp}")));
    words.extend(pool.dhcp6.as_ref().map(|dhcp| format!("IPv6 of {dhcp}")));
    if !pool.reserved.is_empty() {
        words.push(format!("{} reserved", pool.reserved.len()));
    }
    words.extend(pool.proxy.as_ref().map(|device| format!("answered for on {device}")));
    words.join(", ")
}

/// A word that a map has.
pub(crate) type Reserve = std::collections::BTreeMap<String, Word>;
