//! Routing rules that keep the gateway's own packets out of its tunnels.
//!
//! A tunnel route may well cover the peer's own address: a tunnel to everywhere does, and so does transport mode. The sealed
//! packet would then go back into the tunnel. So tunnel routes stand in tables of their own, and packets with our mark never
//! look there. For everything else the result is what one table would give: the longest prefix wins, whoever made the route,
//! and a tunnel route wins over another of its length. One table for each prefix length, longest first, does that:
//!
//! ```text
//! not from our mark: main, but only what is longer than /32 …  (left out: nothing is)
//! not from our mark: table of tunnel routes with /32
//! not from our mark: main, but only what is longer than /16
//! not from our mark: table of tunnel routes with /16
//! everything: main
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use crate::netlink::{Netlink, Writer, attributes};

/// The main table, for the routes of a gateway without a mark.
pub(crate) const MAIN: u32 = 254;

/// Our tables are this number and the prefix length more; our rules stand at this place and behind.
const BASE: u32 = 7400;

const RTM_NEWRULE: u16 = 32;
const RTM_DELRULE: u16 = 33;
const RTM_GETRULE: u16 = 34;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;

const FRA_PRIORITY: u16 = 6;
const FRA_FWMARK: u16 = 10;
const FRA_SUPPRESS_PREFIXLEN: u16 = 14;
const FRA_TABLE: u16 = 15;
const FRA_FWMASK: u16 = 16;
const FRA_PROTOCOL: u16 = 21;
const FR_ACT_TO_TBL: u8 = 1;
const FIB_RULE_INVERT: u32 = 2;

/// A family and a prefix length.
type Length = (bool, u8);

/// One rule: its place, and the table it leads to, perhaps only for prefixes longer than so much.
struct Rule {
    v6: bool,
    place: u32,
    table: u32,
    longer_than: Option<u8>,
}

/// The rules that are there, and for which routes.
pub(crate) struct Rules {
    mark: u32,
    protocol: u8,
    /// By device.
    routes: BTreeMap<Length, BTreeMap<Arc<str>, BTreeSet<IpAddr>>>,
}

impl Rules {
    /// None yet. Without a mark (0) there never are any.
    pub(crate) fn new(mark: u32, protocol: u8) -> Self {
        Rules { mark, protocol, routes: BTreeMap::new() }
    }

    /// The table for a route.
    pub(crate) fn table(&self, (_, len): (IpAddr, u8)) -> u32 {
        if self.mark == 0 { MAIN } else { BASE + u32::from(len) }
    }

    /// Makes rules for a route that is to be added. A kernel without rules gets its routes into the main table.
    pub(crate) fn before_adding(
        &mut self,
        netlink: &mut Netlink,
        device: &Arc<str>,
        (address, len): (IpAddr, u8),
    ) -> io::Result<()> {
        if self.mark == 0 {
            return Ok(());
        }
        let length = (address.is_ipv6(), len);
        if !self.routes.contains_key(&length) {
            for rule in pair(length) {
                match self.change(netlink, RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL, &rule) {
                    Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                    Err(e) if unsupported(&e) && self.routes.is_empty() => {
                        tracing::warn!(error = %e, "no routing rules here: a peer inside its own tunnel is out of reach");
                        self.mark = 0;
                        return Ok(());
                    }
                    other => other?,
                }
            }
        }
        self.routes.entry(length).or_default().entry(Arc::clone(device)).or_default().insert(address);
        Ok(())
    }

    /// Removes the rules that only this route needed.
    pub(crate) fn after_removing(
        &mut self,
        netlink: &mut Netlink,
        device: &str,
        (address, len): (IpAddr, u8),
    ) -> io::Result<()> {
        let length = (address.is_ipv6(), len);
        let Some(routes) = self.routes.get_mut(&length) else { return Ok(()) };
        if let Some(addresses) = routes.get_mut(device) {
            addresses.remove(&address);
            if addresses.is_empty() {
                routes.remove(device);
            }
        }
        if !routes.is_empty() {
            return Ok(());
        }
        self.routes.remove(&length);
        self.drop_pair(netlink, length)
    }

    /// Removes all rules; those left by a gateway that was killed too.
    pub(crate) fn clear(&mut self, netlink: &mut Netlink) {
        for length in std::mem::take(&mut self.routes).into_keys() {
            // Whatever is left does no harm: its tables are empty.
            let _ = self.drop_pair(netlink, length);
        }
    }

    /// Removes what a gateway that was killed left.
    pub(crate) fn sweep(&mut self, netlink: &mut Netlink) {
        if self.mark == 0 {
            return;
        }
        for family in [AF_INET, AF_INET6] {
            let mut found = Vec::new();
            let request = Writer::new(RTM_GETRULE, 0, &header(family, 0));
            let dumped = netlink.dump(&request, |kind, body| {
                if kind == RTM_NEWRULE
                    && let Some(place) = place_of(body, self.protocol)
                {
                    found.push(place);
                }
            });
            if dumped.is_err() {
                continue;
            }
            for place in found {
                let mut request = Writer::new(RTM_DELRULE, 0, &header(family, FIB_RULE_INVERT));
                request.attribute(FRA_PRIORITY, &place.to_ne_bytes());
                request.attribute(FRA_PROTOCOL, &[self.protocol]);
                let _ = netlink.execute(&request);
            }
        }
    }

    fn drop_pair(&self, netlink: &mut Netlink, length: Length) -> io::Result<()> {
        for rule in pair(length) {
            match self.change(netlink, RTM_DELRULE, 0, &rule) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                other => other?,
            }
        }
        Ok(())
    }

    fn change(&self, netlink: &mut Netlink, kind: u16, flags: u16, rule: &Rule) -> io::Result<()> {
        let family = if rule.v6 { AF_INET6 } else { AF_INET };
        let mut request = Writer::new(kind, flags, &header(family, FIB_RULE_INVERT));
        request.attribute(FRA_PRIORITY, &rule.place.to_ne_bytes());
        request.attribute(FRA_TABLE, &rule.table.to_ne_bytes());
        request.attribute(FRA_FWMARK, &self.mark.to_ne_bytes());
        request.attribute(FRA_FWMASK, &u32::MAX.to_ne_bytes());
        request.attribute(FRA_PROTOCOL, &[self.protocol]);
        if let Some(len) = rule.longer_than {
            request.attribute(FRA_SUPPRESS_PREFIXLEN, &u32::from(len).to_ne_bytes());
        }
        netlink.execute(&request)
    }
}

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// The rules for tunnel routes of one length, in their order. Nothing is longer than an address, so hosts need one only.
fn pair((v6, len): Length) -> Vec<Rule> {
    let most = if v6 { 128 } else { 32 };
    let place = BASE + 2 * (128 - u32::from(len.min(128)));
    let main = Rule { v6, place, table: MAIN, longer_than: Some(len) };
    let tunnels = Rule { v6, place: place + 1, table: BASE + u32::from(len), longer_than: None };
    if len < most { vec![main, tunnels] } else { vec![tunnels] }
}

/// `struct fib_rule_hdr`.
fn header(family: u8, flags: u32) -> Vec<u8> {
    let mut fixed = vec![family, 0, 0, 0, 0, 0, 0, FR_ACT_TO_TBL];
    fixed.extend_from_slice(&flags.to_ne_bytes());
    fixed
}

/// The place of a rule that is ours.
fn place_of(body: &[u8], protocol: u8) -> Option<u32> {
    let (mut place, mut ours) = (None, false);
    for (kind, value) in attributes(body.get(12..)?) {
        match kind {
            FRA_PRIORITY => place = value.try_into().ok().map(u32::from_ne_bytes),
            FRA_PROTOCOL => ours = value == [protocol],
            _ => {}
        }
    }
    place.filter(|place| ours && (BASE..=BASE + 257).contains(place))
}

fn unsupported(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let codes = [Errno::OPNOTSUPP, Errno::AFNOSUPPORT, Errno::NOSYS].map(Errno::raw_os_error);
    error.raw_os_error().is_some_and(|code| codes.contains(&code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longer_prefixes_come_first_and_main_before_the_tunnels_of_a_length() {
        let mut all: Vec<(u32, u32, Option<u8>)> = [0, 16, 32]
            .into_iter()
            .flat_map(|len| pair((false, len)))
            .map(|rule| (rule.place, rule.table, rule.longer_than))
            .collect();
        all.sort_unstable();
        let order: Vec<_> = all.into_iter().map(|(_, table, longer)| (table, longer)).collect();
        let expected =
            [(BASE + 32, None), (MAIN, Some(16)), (BASE + 16, None), (MAIN, Some(0)), (BASE, None)];
        assert_eq!(order, expected);
    }
}
