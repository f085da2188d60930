//! The machine's network: TUN devices, addresses, routes. Only asked for what [`crate::permit`] allowed.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};

use ipc::{DnsChange, RouteChange, TAP_ADDRESS, TunOffload, TunSpec};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use crate::config::Config;
use crate::names::Names;
use crate::neighbours::Neighbours;
use crate::netlink::{Netlink, Writer, attributes};
use crate::rules::Rules;
use crate::tun_ioctl;

/// What can be changed. A fake one stands in for tests without privilege.
pub(crate) trait Kernel: Send {
    /// Makes a TUN device that is up, without an address; one descriptor for each queue, and what the kernel granted.
    fn open_tun(&mut self, spec: &TunSpec) -> io::Result<(Vec<OwnedFd>, TunOffload)>;

    /// Whether this is a queue of the device that the spec describes.
    fn is_queue_of(&mut self, spec: &TunSpec, queue: &OwnedFd) -> io::Result<bool>;

    /// Adds or removes a route into a device. To add one that is there already, and ours, changes nothing but its source; a
    /// route of somebody else is left alone and is an error. To remove what is not there is no error.
    fn route(&mut self, change: &RouteChange) -> io::Result<()>;

    /// Adds or removes an address of a device. To add what is there, and to remove what is not, is no error.
    fn address(&mut self, device: &str, address: IpAddr, prefix: u8, add: bool) -> io::Result<()>;

    /// Has the machine ask name servers, or no longer.
    fn dns(&mut self, change: &DnsChange) -> io::Result<()>;

    /// Answers for an address on a device, or no longer.
    fn neighbour(&mut self, device: &str, address: IpAddr, add: bool) -> io::Result<()>;
}

/// Marks our routes (`ip route show proto 116`), so that nobody else's is ever taken for one.
const ROUTE_PROTOCOL: u8 = 116;

const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;

const NLM_F_EXCL: u16 = 0x200;
const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_CREATE: u16 = 0x400;

const IFLA_ADDRESS: u16 = 1;
const IFLA_MTU: u16 = 4;
const IFLA_TXQLEN: u16 = 13;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const ADDR_GEN_MODE_NONE: u8 = 1;
const IFF_UP: u32 = 1;
const IFF_NOARP: u32 = 0x80;

/// Packets a TUN device keeps until they are read: as many as an Ethernet device. The default of 500 is ten of TCP's
/// superpackets; a worker that has to share its core for some milliseconds found it overrun.
const QUEUE: u32 = 1000;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_FLAGS: u16 = 8;
const IFA_F_NODAD: u32 = 0x02;
const IFA_F_NOPREFIXROUTE: u32 = 0x200;

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_PREFSRC: u16 = 7;
const RTA_TABLE: u16 = 15;
const RT_TABLE_UNSPEC: u8 = 0;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RT_SCOPE_LINK: u8 = 253;
const RT_SCOPE_NOWHERE: u8 = 255;
const RTN_UNICAST: u8 = 1;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const NESTED: u16 = 0x8000;

/// The Linux machine we run on.
pub(crate) struct Linux {
    netlink: Netlink,
    rules: Rules,
    neighbours: Neighbours,
    names: Names,
    /// For SIOCGIFINDEX, which wants some socket: many routes are added, and a message of netlink for each device's number
    /// would cost as much as the route itself.
    asking: OwnedFd,
}

impl Linux {
    /// Packets with this mark keep out of tunnel routes; 0: there is no such mark. What a gateway that was killed left is removed,
    /// unless it `inherits`: then there are tunnels whose packets would go astray meanwhile.
    pub(crate) fn new(config: &mut Config) -> io::Result<Self> {
        let (mark, inherits) = (config.mark, config.inherits);
        let names = Names::new(config.state_dir.as_deref(), config.resolv_conf.take(), inherits);
        let (mut netlink, mut rules) = (Netlink::new()?, Rules::new(mark, ROUTE_PROTOCOL));
        if !inherits {
            rules.sweep(&mut netlink);
        }
        let neighbours = Neighbours::new(&mut netlink, ROUTE_PROTOCOL, inherits);
        let flags = SocketFlags::CLOEXEC;
        let asking = socket_with(AddressFamily::INET, SocketType::DGRAM, flags, None)?;
        Ok(Linux { netlink, rules, neighbours, names, asking })
    }

    fn index(&self, device: &str) -> io::Result<u32> {
        Ok(rustix::net::netdevice::name_to_index(&self.asking, device)?)
    }

    /// Routes of our table to exactly this destination: device and protocol of each, and its preferred source.
    fn routes_to(&mut self, destination: (IpAddr, u8)) -> io::Result<Vec<FoundRoute>> {
        let (address, len) = destination;
        let table = self.rules.table(destination);
        let mut found = Vec::new();
        let request = Writer::new(RTM_GETROUTE, 0, &route_header(address, 0, 0, 0));
        self.netlink.dump(&request, |kind, body| {
            if kind == RTM_NEWROUTE
                && let Some(route) = read_route(body)
                && route.destination == (address, len)
                && route.table == table
            {
                found.push(route);
            }
        })?;
        Ok(found)
    }

    fn change_route(&mut self, kind: u16, flags: u16, change: &RouteChange, index: u32) -> io::Result<()> {
        let (address, len) = change.destination;
        let scope = match (kind, address) {
            // Removal matches any scope. A route without a gateway has the scope of its link in IPv4.
            (RTM_DELROUTE, _) => RT_SCOPE_NOWHERE,
            (_, IpAddr::V4(_)) => RT_SCOPE_LINK,
            (_, IpAddr::V6(_)) => RT_SCOPE_UNIVERSE,
        };
        let mut request = Writer::new(kind, flags, &route_header(address, len, ROUTE_PROTOCOL, scope));
        request.attribute(RTA_TABLE, &self.rules.table(change.destination).to_ne_bytes());
        if len > 0 {
            request.attribute(RTA_DST, &octets(address));
        }
        request.attribute(RTA_OIF, &index.to_ne_bytes());
        if let (RTM_NEWROUTE, Some(source)) = (kind, change.source) {
            request.attribute(RTA_PREFSRC, &octets(source));
        }
        self.netlink.execute(&request)
    }
}

impl Kernel for Linux {
    fn open_tun(&mut self, spec: &TunSpec) -> io::Result<(Vec<OwnedFd>, TunOffload)> {
        let (queues, offload) = tun_ioctl::open_queues(spec)?;
        let index = self.index(&spec.name)?;
        // Without this the kernel gives the device a link-local address and asks the tunnel for routers.
        let mut quiet = Writer::new(RTM_NEWLINK, 0, &link_header(index, 0, 0));
        let mode = attribute(IFLA_INET6_ADDR_GEN_MODE, &[ADDR_GEN_MODE_NONE]);
        quiet.attribute(IFLA_AF_SPEC | NESTED, &attribute(u16::from(AF_INET6) | NESTED, &mode));
        if let Err(e) = self.netlink.execute(&quiet) {
            tracing::debug!(device = %spec.name, error = %e, "no control over IPv6 link-local addresses");
        }
        // Nobody has to be asked who is behind a tunnel.
        let flags = IFF_UP | if spec.ethernet { IFF_NOARP } else { 0 };
        let mut up = Writer::new(RTM_NEWLINK, 0, &link_header(index, flags, flags));
        if spec.ethernet {
            up.attribute(IFLA_ADDRESS, &TAP_ADDRESS);
        }
        up.attribute(IFLA_MTU, &u32::from(spec.mtu).to_ne_bytes());
        up.attribute(IFLA_TXQLEN, &QUEUE.to_ne_bytes());
        self.netlink.execute(&up)?;
        // Superpackets stay as long as they may be (IFLA_GSO_MAX_SIZE): one that is forwarded and longer than its device allows
        // is not shortened but cut into single packets.
        Ok((queues, offload))
    }

    fn is_queue_of(&mut self, spec: &TunSpec, queue: &OwnedFd) -> io::Result<bool> {
        Ok(tun_ioctl::is_queue_of(queue.as_fd(), &spec.name, spec.ethernet)?)
    }

    fn route(&mut self, change: &RouteChange) -> io::Result<()> {
        let index = self.index(&change.device)?;
        if !change.add {
            match self.change_route(RTM_DELROUTE, 0, change, index) {
                Err(e) if e.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => {}
                other => other?,
            }
            return self.rules.after_removing(&mut self.netlink, &change.device, change.destination);
        }
        self.rules.before_adding(&mut self.netlink, &change.device, change.destination)?;
        match self.change_route(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, change, index) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            other => return other,
        }
        let there = self.routes_to(change.destination)?;
        let ours = there.iter().find(|r| r.device == index && r.protocol == ROUTE_PROTOCOL);
        match ours {
            Some(route) if route.source == change.source => Ok(()),
            Some(_) => {
                self.change_route(RTM_DELROUTE, 0, change, index)?;
                self.change_route(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, change, index)
            }
            None => {
                let (address, len) = change.destination;
                let what = format!("there is a route to {address}/{len} already, and it is not ours");
                Err(io::Error::new(io::ErrorKind::AlreadyExists, what))
            }
        }
    }

    fn address(&mut self, device: &str, address: IpAddr, prefix: u8, add: bool) -> io::Result<()> {
        let index = self.index(device)?;
        let family = family(address);
        let mut fixed = vec![family, prefix, 0, 0];
        fixed.extend_from_slice(&index.to_ne_bytes());
        let (kind, flags) = if add { (RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE) } else { (RTM_DELADDR, 0) };
        let mut request = Writer::new(kind, flags, &fixed);
        request.attribute(IFA_LOCAL, &octets(address));
        request.attribute(IFA_ADDRESS, &octets(address));
        if add {
            // No route to the prefix: routes are asked for one by one, and looked at one by one. No duplicate detection: the
            // peer gave the address, and a tunnel has no neighbours.
            request.attribute(IFA_FLAGS, &(IFA_F_NOPREFIXROUTE | IFA_F_NODAD).to_ne_bytes());
        }
        match self.netlink.execute(&request) {
            Err(e) if add && e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(e) if !add && e.kind() == io::ErrorKind::AddrNotAvailable => Ok(()),
            other => other,
        }
    }

    fn dns(&mut self, change: &DnsChange) -> io::Result<()> {
        let device = self.index(&change.device).ok();
        self.names.change(change, device)
    }

    fn neighbour(&mut self, device: &str, address: IpAddr, add: bool) -> io::Result<()> {
        match self.index(device) {
            Ok(index) => self.neighbours.change(&mut self.netlink, device, index, address, add),
            // A device that is gone took it along.
            Err(_) if !add => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl Drop for Linux {
    fn drop(&mut self) {
        self.neighbours.clear(&mut self.netlink);
        let asking = &self.asking;
        self.names.clear(|device| rustix::net::netdevice::name_to_index(asking, device).ok());
        self.rules.clear(&mut self.netlink);
        // Of those that were inherited, too.
        self.rules.sweep(&mut self.netlink);
    }
}

struct FoundRoute {
    destination: (IpAddr, u8),
    device: u32,
    protocol: u8,
    table: u32,
    source: Option<IpAddr>,
}

fn read_route(body: &[u8]) -> Option<FoundRoute> {
    let [family, len, _, _, table, protocol, _, kind, ..] = *body else { return None };
    if kind != RTN_UNICAST {
        return None;
    }
    let zero: IpAddr = if family == AF_INET { [0u8; 4].into() } else { [0u8; 16].into() };
    let mut route =
        FoundRoute { destination: (zero, len), device: 0, protocol, table: table.into(), source: None };
    for (kind, value) in attributes(body.get(12..)?) {
        match kind {
            RTA_DST => route.destination.0 = address_of(value)?,
            RTA_PREFSRC => route.source = address_of(value),
            RTA_OIF => route.device = u32::from_ne_bytes(value.try_into().ok()?),
            RTA_TABLE => route.table = u32::from_ne_bytes(value.try_into().ok()?),
            _ => {}
        }
    }
    Some(route)
}

pub(crate) fn address_of(octets: &[u8]) -> Option<IpAddr> {
    match octets.len() {
        4 => <[u8; 4]>::try_from(octets).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(octets).ok().map(IpAddr::from),
        _ => None,
    }
}

/// `struct ifinfomsg`.
fn link_header(index: u32, flags: u32, change: u32) -> Vec<u8> {
    let words = [0u32, index, flags, change];
    words.iter().flat_map(|w| w.to_ne_bytes()).collect()
}

/// `struct rtmsg`.
fn route_header(address: IpAddr, len: u8, protocol: u8, scope: u8) -> [u8; 12] {
    [family(address), len, 0, 0, RT_TABLE_UNSPEC, protocol, scope, RTN_UNICAST, 0, 0, 0, 0]
}

/// One attribute by itself, for nesting.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut out = ((4 + value.len()) as u16).to_ne_bytes().to_vec();
    out.extend_from_slice(&kind.to_ne_bytes());
    out.extend_from_slice(value);
    out.resize(out.len().next_multiple_of(4), 0);
    out
}

pub(crate) fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { AF_INET } else { AF_INET6 }
}

pub(crate) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}
