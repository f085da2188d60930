//! Inner addresses by configuration payload (RFC 7296 sections 2.19 and 3.15).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipc::Role;
use policy::{Identity, Pool, Realm, SelectorSpec};
use spi::Token;
use wire::ike::{CfgAttr, Cp, Payload, PayloadList};
use wire::numbers::{CfgAttrType, CfgType, NotifyType};

use super::{Flow, Handler, Stage};
use crate::core::Core;
use crate::effect::{Effect, Event, InnerAddress, Why};
use crate::pool::{Lease, NoAddress, Wish};
use crate::sa::IkeSa;

/// See the module.
pub(super) struct Configuration;

/// Inner addresses of an IKE SA.
#[derive(Default)]
pub(crate) struct Inner {
    /// Assigned to us.
    pub(crate) ours: Vec<InnerAddress>,
    pub(crate) dns: Vec<IpAddr>,
    domains: Vec<String>,
    /// Assigned by us.
    pub(crate) leased: Vec<InnerAddress>,
    /// What the DHCP server answered.
    offered: Option<Result<Ipv4Addr, String>>,
    reply: Option<Cp>,
    /// No address, no Child SA: the notification, and the reason for the log.
    pub(crate) failed: Option<(NotifyType, Why)>,
}

/// Addresses and name servers for a client, as a server that authenticated it has them.
#[derive(Default)]
struct Granted {
    addresses: Vec<IpAddr>,
    dns: Vec<IpAddr>,
}

/// What an IKE SA without inner addresses has.
pub(super) static NONE: Inner = Inner {
    ours: Vec::new(),
    dns: Vec::new(),
    domains: Vec::new(),
    leased: Vec::new(),
    offered: None,
    reply: None,
    failed: None,
};

/// Name servers taken from one peer.
const MAX_DNS: usize = 8;
/// Domains taken from one peer.
const MAX_DOMAINS: usize = 32;

impl Handler for Configuration {
    fn build(&self, stage: Stage, sa: &mut IkeSa, _cx: &mut Core, out: &mut Vec<Payload>) {
        match (stage, sa.role) {
            (Stage::AuthRequest, Role::Initiator) => {
                if let Some(request) = sa.realm.as_deref().and_then(request) {
                    out.push(request.into());
                }
            }
            (Stage::AuthResponse, Role::Responder) => {
                out.extend(sa.ext.cfg.as_mut().and_then(|cfg| cfg.reply.take()).map(Payload::from));
            }
            _ => {}
        }
    }

    fn receive(&self, stage: Stage, sa: &mut IkeSa, cx: &mut Core, message: &[Payload]) -> Flow {
        match (stage, sa.role) {
            (Stage::AuthRequest, Role::Responder) => return assign(sa, cx, message),
            (Stage::AuthResponse, Role::Initiator) => accept(sa, cx, message),
            _ => {}
        }
        Flow::Continue
    }
}

/// What we ask for as a client.
fn request(realm: &Realm) -> Option<Cp> {
    let wanted = realm.virtual_ip;
    let mut attributes = Vec::new();
    if wanted.v4 {
        attributes.push(CfgAttr::any(CfgAttrType::INTERNAL_IP4_ADDRESS));
        attributes.push(CfgAttr::any(CfgAttrType::INTERNAL_IP4_DNS));
    }
    if wanted.v6 {
        attributes.push(CfgAttr::any(CfgAttrType::INTERNAL_IP6_ADDRESS));
        attributes.push(CfgAttr::any(CfgAttrType::INTERNAL_IP6_DNS));
    }
    if attributes.is_empty() {
        return None;
    }
    // RFC 8598 section 3.1. Trust anchors are not asked for: nobody here would use them.
    attributes.push(CfgAttr::any(CfgAttrType::INTERNAL_DNS_DOMAIN));
    Some(Cp::new(CfgType::REQUEST, attributes))
}

/// Hands out addresses to a client.
fn assign(sa: &mut IkeSa, cx: &mut Core, message: &[Payload]) -> Flow {
    let (Some(realm), Some(peer)) = (sa.realm.clone(), sa.peer_id.clone()) else { return Flow::Continue };
    let granted = sa
        .granted
        .as_ref()
        .map(|granted| Granted { addresses: granted.addresses.clone(), dns: granted.dns.clone() });
    let granted = granted.unwrap_or_default();
    let Some((pool, addresses)) = cx.pools.get(&realm.name) else {
        assign_granted(sa, &granted, message);
        return Flow::Continue;
    };
    let Some(cp) = message.cp().filter(|cp| cp.kind == CfgType::REQUEST) else {
        if message.sa().is_some() && realm.children.iter().all(|c| c.remote.iter().all(is_dynamic)) {
            // RFC 7296 section 3.15.4: without an address there is nothing the client could send from.
            let why =
                "the peer asked for no inner address, and the realm has children for such only".to_owned();
            sa.inner().failed = Some((NotifyType::FAILED_CP_REQUIRED, Why::PeerMisbehaved(why)));
        }
        return Flow::Continue;
    };
    // An attribute without a value, or with one we cannot read, asks for any address.
    let v4 = cp.all(CfgAttrType::INTERNAL_IP4_ADDRESS).next();
    let v6 = cp.all(CfgAttrType::INTERNAL_IP6_ADDRESS).next();
    let wish = Wish {
        v4: v4.map(|a| a.ipv4().unwrap_or(Ipv4Addr::UNSPECIFIED)),
        v6: v6.map(|a| a.ipv6().map_or(Ipv6Addr::UNSPECIFIED, |(address, _)| address)),
    };
    // RFC 8598 section 3.2: only who asks is told of domains.
    let domains = cp.all(CfgAttrType::INTERNAL_DNS_DOMAIN).next().is_some();
    if wish.v4.is_none() && wish.v6.is_none() {
        let reply = reply(pool, Lease::default(), &granted.dns, domains);
        sa.inner().reply = Some(reply);
        return Flow::Continue;
    }
    let named = granted.addresses.iter().any(IpAddr::is_ipv4);
    if pool.dhcp.is_some() && wish.v4.is_some() && !named && sa.inner().offered.is_none() {
        let hint = wish.v4.filter(|a| !a.is_unspecified()).or_else(|| addresses.last_v4(&peer));
        if let Some(token) = cx.want_address(sa.id, realm.name.clone(), peer, hint) {
            return Flow::Await(token);
        }
        sa.inner().offered = Some(Err("too many questions are out".to_owned()));
        return assign(sa, cx, message);
    }
    match lease(sa, cx, &realm, &peer, wish, &granted) {
        Ok(lease) => {
            let Some((pool, _)) = cx.pools.get(&realm.name) else { return Flow::Continue };
            let reply = reply(pool, lease, &granted.dns, domains);
            sa.hand_out(reply, lease);
        }
        Err(why) => sa.inner().failed = Some((NotifyType::INTERNAL_ADDRESS_FAILURE, why)),
    }
    cx.tell_leases(&realm.name);
    Flow::Continue
}

/// Addresses for a client: those it was assigned, and for the other family one of the pool.
fn lease(
    sa: &mut IkeSa,
    cx: &mut Core,
    realm: &Realm,
    peer: &Identity,
    wish: Wish,
    granted: &Granted,
) -> Result<Lease, Why> {
    // No fault of the client's: our pool is too small, or what assigns addresses is wrong.
    let misconfigured =
        |why: &dyn std::fmt::Display| Why::Misconfigured(format!("{why} of realm {}", realm.name));
    let mut given = Lease::default();
    let mut assigned: Vec<IpAddr> = granted.addresses.clone();
    let mut rest = wish;
    match sa.inner().offered.take() {
        Some(Ok(address)) => assigned.push(address.into()),
        Some(Err(why)) if wish.v6.is_none() => {
            return Err(Why::Misconfigured(format!("no address by DHCP for realm {}: {why}", realm.name)));
        }
        Some(Err(_)) => rest.v4 = None,
        None => {}
    }
    for address in assigned {
        // One of each family, and only of those it asked for.
        let slot = match address {
            IpAddr::V4(v4) if wish.v4.is_some() && given.v4.is_none() => {
                given.v4 = Some(v4);
                rest.v4 = None;
                true
            }
            IpAddr::V6(v6) if wish.v6.is_some() && given.v6.is_none() => {
                given.v6 = Some(v6);
                rest.v6 = None;
                true
            }
            _ => false,
        };
        if !slot {
            continue;
        }
        let elsewhere = cx
            .pools
            .iter()
            .any(|(name, (_, pool))| *name != realm.name && pool.is_held_by_another(address, sa.id));
        let Some((_, pool)) = cx.pools.get_mut(&realm.name) else { continue };
        let done =
            if elsewhere { Err(NoAddress::Taken) } else { pool.assign(sa.id, peer, address, realm.unique) };
        if let Err(why) = done {
            pool.release(cx.now, sa.id);
            return Err(misconfigured(&format!("{address}: {why}")));
        }
    }
    if rest.v4.is_none() && rest.v6.is_none() {
        return Ok(given);
    }
    let Some((_, pool)) = cx.pools.get_mut(&realm.name) else { return Ok(given) };
    match pool.lease(cx.now, sa.id, peer, rest, realm.unique) {
        Ok(lease) => Ok(Lease { v4: given.v4.or(lease.v4), v6: given.v6.or(lease.v6) }),
        // One family is enough.
        Err(_) if given != Lease::default() => Ok(given),
        Err(why) => Err(misconfigured(&why)),
    }
}

/// Hands out what the authentication server has named in a realm without a pool: whose the addresses are, it alone knows.
fn assign_granted(sa: &mut IkeSa, granted: &Granted, message: &[Payload]) {
    let Some(cp) = message.cp().filter(|cp| cp.kind == CfgType::REQUEST) else { return };
    if granted.addresses.is_empty() {
        return;
    }
    let wants = |kind| cp.all(kind).next().is_some();
    let v4 = granted.addresses.iter().find_map(|a| if let IpAddr::V4(a) = a { Some(*a) } else { None });
    let v6 = granted.addresses.iter().find_map(|a| if let IpAddr::V6(a) = a { Some(*a) } else { None });
    let lease = Lease {
        v4: v4.filter(|_| wants(CfgAttrType::INTERNAL_IP4_ADDRESS)),
        v6: v6.filter(|_| wants(CfgAttrType::INTERNAL_IP6_ADDRESS)),
    };
    let reply = reply(&Pool::default(), lease, &granted.dns, false);
    sa.hand_out(reply, lease);
}

fn reply(pool: &Pool, lease: Lease, dns: &[IpAddr], domains: bool) -> Cp {
    let mut attributes = Vec::new();
    if let Some(a) = lease.v4 {
        attributes.push(CfgAttr::from_ipv4(CfgAttrType::INTERNAL_IP4_ADDRESS, a));
    }
    if let Some(a) = lease.v6 {
        let len = Some(pool.prefix_of(a.into()));
        attributes.push(CfgAttr::from_ipv6(CfgAttrType::INTERNAL_IP6_ADDRESS, a, len));
    }
    // Name servers that go with the client go before those of the realm.
    let servers: &[IpAddr] = if dns.is_empty() { &pool.dns } else { dns };
    for server in servers {
        attributes.push(match server {
            IpAddr::V4(a) => CfgAttr::from_ipv4(CfgAttrType::INTERNAL_IP4_DNS, *a),
            IpAddr::V6(a) => CfgAttr::from_ipv6(CfgAttrType::INTERNAL_IP6_DNS, *a, None),
        });
    }
    // RFC 8598 section 3.2: no domains without name servers.
    if domains && !servers.is_empty() {
        let domain =
            |name: &Arc<str>| CfgAttr::new(CfgAttrType::INTERNAL_DNS_DOMAIN, name.as_bytes().to_vec());
        attributes.extend(pool.domains.iter().map(domain));
    }
    attributes.extend(pool.nbns.iter().map(|a| CfgAttr::from_ipv4(CfgAttrType::INTERNAL_IP4_NBNS, *a)));
    for (network, len) in &pool.subnets {
        attributes.push(match network {
            IpAddr::V4(a) => CfgAttr::from_ipv4_subnet(*a, *len),
            IpAddr::V6(a) => CfgAttr::from_ipv6(CfgAttrType::INTERNAL_IP6_SUBNET, *a, Some(*len)),
        });
    }
    Cp::new(CfgType::REPLY, attributes)
}

/// Takes the addresses we were given; only what was asked for.
fn accept(sa: &mut IkeSa, cx: &mut Core, message: &[Payload]) {
    let Some(realm) = sa.realm.clone() else { return };
    let Some(cp) = message.cp().filter(|cp| cp.kind == CfgType::REPLY && request(&realm).is_some()) else {
        return;
    };
    let v4 =
        cp.all(CfgAttrType::INTERNAL_IP4_ADDRESS).find_map(CfgAttr::ipv4).filter(|a| !a.is_unspecified());
    let v6 = cp
        .all(CfgAttrType::INTERNAL_IP6_ADDRESS)
        .find_map(CfgAttr::ipv6)
        .filter(|(a, _)| !a.is_unspecified());
    let v4 = v4.filter(|_| realm.virtual_ip.v4).map(|a| InnerAddress { address: a.into(), prefix: 32 });
    // RFC 7296 section 3.15.1: the prefix says what is on the link, which a tunnel has no use for; the address is ours alone.
    let v6 = v6.filter(|_| realm.virtual_ip.v6).map(|(a, _)| InnerAddress { address: a.into(), prefix: 128 });
    let dns4 = cp.all(CfgAttrType::INTERNAL_IP4_DNS).filter_map(CfgAttr::ipv4).map(IpAddr::from);
    let dns6 = cp.all(CfgAttrType::INTERNAL_IP6_DNS).filter_map(CfgAttr::ipv6).map(|(a, _)| IpAddr::from(a));
    let mut ignored = Vec::new();
    let inner = sa.inner();
    inner.dns = dns4.chain(dns6).filter(is_server).take(MAX_DNS).collect();
    inner.domains = domains(cp, &mut ignored);
    if inner.dns.is_empty() && !inner.domains.is_empty() {
        // RFC 8598 section 4: there is nobody to ask for them.
        ignored.push("INTERNAL_DNS_DOMAIN without a name server".to_owned());
        inner.domains.clear();
    }
    if cp.all(CfgAttrType::INTERNAL_DNSSEC_TA).next().is_some() {
        // RFC 8598 section 6: a trust anchor gives its owner every name below it; none is taken that no operator has let in.
        ignored.push("INTERNAL_DNSSEC_TA: trust anchors are not taken from peers".to_owned());
    }
    inner.ours = v4.into_iter().chain(v6).collect();
    let ours = cx.use_addresses(&realm.name, &inner.ours);
    if !ours.is_empty() {
        let (dns, domains) = (inner.dns.clone(), inner.domains.clone());
        let realm = realm.name.clone();
        cx.fx.push(Effect::Addresses { sa: sa.id, realm, ours, dns, domains, add: true });
    }
    for what in ignored {
        cx.event(Event::ConfigurationIgnored { sa: sa.id, realm: realm.name.clone(), what });
    }
}

/// The domains a peer names (RFC 8598 section 3.2), each once, in lower case and without a trailing dot.
fn domains(cp: &Cp, ignored: &mut Vec<String>) -> Vec<String> {
    let mut domains: Vec<String> = Vec::new();
    let given = cp.all(CfgAttrType::INTERNAL_DNS_DOMAIN).map(|attribute| &attribute.value);
    for value in given.filter(|value| !value.is_empty()) {
        let Some(name) = policy::pool::domain(value) else {
            // The text is a stranger's: told without what a terminal would act on.
            let text: String = String::from_utf8_lossy(value).escape_default().take(80).collect();
            ignored.push(format!("INTERNAL_DNS_DOMAIN `{text}`: no domain"));
            continue;
        };
        if domains.len() >= MAX_DOMAINS {
            ignored.push(format!("INTERNAL_DNS_DOMAIN: more than {MAX_DOMAINS}"));
            break;
        }
        if !domains.contains(&name) {
            domains.push(name);
        }
    }
    ignored.truncate(MAX_DNS);
    domains
}

/// Whether there may be a name server there.
fn is_server(address: &IpAddr) -> bool {
    !address.is_unspecified() && !address.is_multicast() && !address.is_loopback()
}

fn is_dynamic(spec: &SelectorSpec) -> bool {
    matches!(spec, SelectorSpec::Dynamic { .. })
}

impl IkeSa {
    /// The DHCP server has answered, or not in time.
    pub(crate) fn address_came(&mut self, cx: &mut Core, token: Token, answer: Result<Ipv4Addr, String>) {
        self.inner().offered = Some(answer);
        self.look_again(cx, token);
    }

    fn hand_out(&mut self, reply: Cp, lease: Lease) {
        let v4 = lease.v4.map(|a| InnerAddress { address: a.into(), prefix: 32 });
        let v6 = lease.v6.map(|a| InnerAddress { address: a.into(), prefix: 128 });
        let inner = self.inner();
        inner.reply = Some(reply);
        inner.leased = v4.into_iter().chain(v6).collect();
    }

    fn inner(&mut self) -> &mut Inner {
        self.ext.cfg.get_or_insert_default()
    }

    /// Gives back what was leased, and drops what we were given.
    pub(crate) fn release_addresses(&mut self, cx: &mut Core) {
        let Some(realm) = self.realm.as_ref().map(|r| r.name.clone()) else { return };
        let Some(inner) = self.ext.cfg.take() else { return };
        if !inner.leased.is_empty()
            && let Some((_, pool)) = cx.pools.get_mut(&realm)
        {
            pool.release(cx.now, self.id);
            cx.tell_leases(&realm);
        }
        let ours = cx.drop_addresses(&realm, &inner.ours);
        if !ours.is_empty() {
            let Inner { dns, domains, .. } = *inner;
            cx.fx.push(Effect::Addresses { sa: self.id, realm, ours, dns, domains, add: false });
        }
    }
}
