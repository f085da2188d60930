//! Addresses of clients that the machine answers for on other devices: proxy ARP (RFC 1027) and its like for IPv6 (RFC 4389). The
//! kernel answers; we tell it for whom. It does so where it forwards packets, which is the operator's to switch on.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;

use crate::kernel::{address_of, family, octets};
use crate::netlink::{Netlink, Writer, attributes};

const RTM_NEWNEIGH: u16 = 28;
const RTM_DELNEIGH: u16 = 29;
const RTM_GETNEIGH: u16 = 30;
const NLM_F_CREATE: u16 = 0x400;
const NLM_F_REPLACE: u16 = 0x100;
const NUD_PERMANENT: u16 = 0x80;
const NTF_PROXY: u8 = 0x08;
const NDA_DST: u16 = 1;
const NDA_PROTOCOL: u16 = 12;

/// What we have the kernel answer for.
pub(crate) struct Neighbours {
    /// Marks our entries (`ip neigh show proxy proto 116`), so that nobody else's is ever taken for one.
    protocol: u8,
    held: BTreeSet<(u32, IpAddr)>,
    /// Devices on which answering for IPv6 was off, by number.
    switched: BTreeMap<u32, String>,
}

impl Neighbours {
    /// None; those that a gateway left which was killed are removed, unless one that runs has them still.
    pub(crate) fn new(netlink: &mut Netlink, protocol: u8, inherits: bool) -> Self {
        let neighbours = Neighbours { protocol, held: BTreeSet::new(), switched: BTreeMap::new() };
        if inherits {
            return neighbours;
        }
        let mut left = Vec::new();
        let request = Writer::new(RTM_GETNEIGH, 0, &header(0, 0, NTF_PROXY));
        let dumped = netlink.dump(&request, |kind, body| {
            if kind == RTM_NEWNEIGH
                && let Some(entry) = read(body, protocol)
            {
                left.push(entry);
            }
        });
        if let Err(error) = dumped {
            tracing::debug!(%error, "the kernel does not tell for whom it answers");
        }
        for (index, address) in left {
            // One that stays does little harm: nobody sends what it draws here any further.
            let _ = neighbours.tell(netlink, RTM_DELNEIGH, 0, index, address);
        }
        neighbours
    }

    /// Answers for an address, or no longer. To add what is there, and to remove what is not, is no error.
    pub(crate) fn change(
        &mut self,
        netlink: &mut Netlink,
        device: &str,
        index: u32,
        address: IpAddr,
        add: bool,
    ) -> io::Result<()> {
        if !add {
            self.held.remove(&(index, address));
            let v6_left = self.held.iter().any(|(on, address)| *on == index && address.is_ipv6());
            if !v6_left && let Some(device) = self.switched.remove(&index) {
                // Left on it does nothing without an entry.
                let _ = std::fs::write(switch(&device), "0");
            }
            return match self.tell(netlink, RTM_DELNEIGH, 0, index, address) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                other => other,
            };
        }
        if address.is_ipv6() && !self.switched.contains_key(&index) {
            let path = switch(device);
            let was = std::fs::read_to_string(&path)?;
            if was.trim() == "0" {
                std::fs::write(&path, "1")?;
                self.switched.insert(index, device.to_owned());
            }
        }
        self.tell(netlink, RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, index, address)?;
        self.held.insert((index, address));
        Ok(())
    }

    /// Answers for nobody any more.
    pub(crate) fn clear(&mut self, netlink: &mut Netlink) {
        for (index, address) in std::mem::take(&mut self.held) {
            let _ = self.tell(netlink, RTM_DELNEIGH, 0, index, address);
        }
        for device in std::mem::take(&mut self.switched).into_values() {
            let _ = std::fs::write(switch(&device), "0");
        }
    }

    fn tell(
        &self,
        netlink: &mut Netlink,
        kind: u16,
        flags: u16,
        index: u32,
        address: IpAddr,
    ) -> io::Result<()> {
        let mut request = Writer::new(kind, flags, &header(family(address), index, NTF_PROXY));
        request.attribute(NDA_DST, &octets(address));
        request.attribute(NDA_PROTOCOL, &[self.protocol]);
        netlink.execute(&request)
    }
}

/// Whether the kernel answers for others in IPv6 on a device. Device names come from the configuration, and are plain.
fn switch(device: &str) -> String {
    format!("/proc/sys/net/ipv6/conf/{device}/proxy_ndp")
}

/// `struct ndmsg`.
fn header(family: u8, index: u32, flags: u8) -> Vec<u8> {
    let mut fixed = vec![family, 0, 0, 0];
    fixed.extend_from_slice(&index.to_ne_bytes());
    fixed.extend_from_slice(&NUD_PERMANENT.to_ne_bytes());
    fixed.extend_from_slice(&[flags, 0]);
    fixed
}

/// Device and address of an entry that is ours.
fn read(body: &[u8], protocol: u8) -> Option<(u32, IpAddr)> {
    let index = u32::from_ne_bytes(*body.get(4..)?.first_chunk()?);
    let (mut address, mut ours) = (None, false);
    for (kind, value) in attributes(body.get(12..)?) {
        match kind {
            NDA_DST => address = address_of(value),
            NDA_PROTOCOL => ours = value == [protocol],
            _ => {}
        }
    }
    address.filter(|_| ours && *body.get(10).unwrap_or(&0) & NTF_PROXY != 0).map(|address| (index, address))
}
