//! Inner addresses by configuration payload (RFC 7296 sections 2.19 and 3.15).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipc::Role;
use policy::{Pool, Realm, SelectorSpec};
use wire::ike::{CfgAttr, Cp, Payload, PayloadList};
use wire::numbers::{CfgAttrType, CfgType, NotifyType};

use super::{Flow, Handler, Stage};
use crate::core::Core;
use crate::effect::{Effect, InnerAddress, Why};
use crate::pool::{Lease, Wish};
use crate::sa::IkeSa;

/// See the module.
pub(super) struct Configuration;

/// Inner addresses of an IKE SA.
#[derive(Default)]
pub(crate) struct Inner {
    /// Assigned to us.
    pub(crate) ours: Vec<InnerAddress>,
    pub(crate) dns: Vec<IpAddr>,
    /// Assigned by us.
    pub(crate) leased: Vec<InnerAddress>,
    reply: Option<Cp>,
    /// No address, no Child SA: the notification, and the reason for the log.
    pub(crate) failed: Option<(NotifyType, Why)>,
}

/// What an IKE SA without inner addresses has.
pub(super) static NONE: Inner =
    Inner { ours: Vec::new(), dns: Vec::new(), leased: Vec::new(), reply: None, failed: None };

/// Name servers taken from one peer.
const MAX_DNS: usize = 8;

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
            (Stage::AuthRequest, Role::Responder) => assign(sa, cx, message),
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
    (!attributes.is_empty()).then(|| Cp::new(CfgType::REQUEST, attributes))
}

/// Hands out addresses to a client.
fn assign(sa: &mut IkeSa, cx: &mut Core, message: &[Payload]) {
    let (Some(realm), Some(peer)) = (sa.realm.clone(), sa.peer_id.clone()) else { return };
    if sa.granted.as_ref().is_some_and(|granted| !granted.addresses.is_empty()) {
        return assign_granted(sa, message);
    }
    let Some((pool, addresses)) = cx.pools.get_mut(&realm.name) else { return };
    let Some(cp) = message.cp().filter(|cp| cp.kind == CfgType::REQUEST) else {
        if message.sa().is_some() && realm.children.iter().all(|c| c.remote.iter().all(is_dynamic)) {
            // RFC 7296 section 3.15.4: without an address there is nothing the client could send from.
            let why =
                "the peer asked for no inner address, and the realm has children for such only".to_owned();
            sa.inner().failed = Some((NotifyType::FAILED_CP_REQUIRED, Why::PeerMisbehaved(why)));
        }
        return;
    };
    // An attribute without a value, or with one we cannot read, asks for any address.
    let v4 = cp.all(CfgAttrType::INTERNAL_IP4_ADDRESS).next();
    let v6 = cp.all(CfgAttrType::INTERNAL_IP6_ADDRESS).next();
    let wish = Wish {
        v4: v4.map(|a| a.ipv4().unwrap_or(Ipv4Addr::UNSPECIFIED)),
        v6: v6.map(|a| a.ipv6().map_or(Ipv6Addr::UNSPECIFIED, |(address, _)| address)),
    };
    if wish.v4.is_none() && wish.v6.is_none() {
        let reply = reply(Some(pool), &dns(sa, Some(pool)), Lease::default());
        sa.inner().reply = Some(reply);
        return;
    }
    match addresses.lease(sa.id, &peer, wish, realm.unique) {
        Ok(lease) => {
            let reply = reply(Some(pool), &dns(sa, Some(pool)), lease);
            sa.hand_out(reply, lease);
        }
        Err(exhausted) => {
            // No fault of the client's: our pool is too small.
            let why = Why::Misconfigured(format!("{exhausted} of realm {}", realm.name));
            sa.inner().failed = Some((NotifyType::INTERNAL_ADDRESS_FAILURE, why));
        }
    }
}

/// Hands out the addresses that the authentication server has named; whose they are, it knows better than our pool.
fn assign_granted(sa: &mut IkeSa, message: &[Payload]) {
    let Some(cp) = message.cp().filter(|cp| cp.kind == CfgType::REQUEST) else { return };
    let Some(granted) = sa.granted.clone() else { return };
    let wants = |kind| cp.all(kind).next().is_some();
    let v4 = granted.addresses.iter().find_map(|a| if let IpAddr::V4(a) = a { Some(*a) } else { None });
    let v6 = granted.addresses.iter().find_map(|a| if let IpAddr::V6(a) = a { Some(*a) } else { None });
    let lease = Lease {
        v4: v4.filter(|_| wants(CfgAttrType::INTERNAL_IP4_ADDRESS)),
        v6: v6.filter(|_| wants(CfgAttrType::INTERNAL_IP6_ADDRESS)),
    };
    let realm = sa.realm.clone();
    let pool = realm.as_ref().and_then(|realm| realm.pool.as_ref());
    let reply = reply(pool, &dns(sa, pool), lease);
    sa.hand_out(reply, lease);
}

/// Name servers for a client: the ones it was granted, or the realm's.
fn dns(sa: &IkeSa, pool: Option<&Pool>) -> Vec<IpAddr> {
    match &sa.granted {
        Some(granted) if !granted.dns.is_empty() => granted.dns.clone(),
        _ => pool.map(|pool| pool.dns.clone()).unwrap_or_default(),
    }
}

fn reply(pool: Option<&Pool>, dns: &[IpAddr], lease: Lease) -> Cp {
    let mut attributes = Vec::new();
    let mut add = |kind, value: Vec<u8>| attributes.push(CfgAttr::new(kind, value));
    if let Some(a) = lease.v4 {
        add(CfgAttrType::INTERNAL_IP4_ADDRESS, a.octets().to_vec());
    }
    if let Some(a) = lease.v6 {
        let len = pool.and_then(|pool| pool.v6).map_or(128, |(_, len)| len);
        add(CfgAttrType::INTERNAL_IP6_ADDRESS, [&a.octets()[..], &[len]].concat());
    }
    for server in dns {
        match server {
            IpAddr::V4(a) => add(CfgAttrType::INTERNAL_IP4_DNS, a.octets().to_vec()),
            IpAddr::V6(a) => add(CfgAttrType::INTERNAL_IP6_DNS, a.octets().to_vec()),
        }
    }
    for (network, len) in pool.iter().flat_map(|pool| &pool.subnets) {
        match network {
            IpAddr::V4(a) => {
                let mask = u32::MAX.checked_shl(32 - u32::from((*len).min(32))).unwrap_or(0);
                add(CfgAttrType::INTERNAL_IP4_SUBNET, [a.octets(), mask.to_be_bytes()].concat());
            }
            IpAddr::V6(a) => add(CfgAttrType::INTERNAL_IP6_SUBNET, [&a.octets()[..], &[*len]].concat()),
        }
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
    let inner = sa.inner();
    inner.dns = dns4.chain(dns6).take(MAX_DNS).collect();
    inner.ours = v4.into_iter().chain(v6).collect();
    let ours = cx.use_addresses(&realm.name, &inner.ours);
    if !ours.is_empty() {
        let dns = inner.dns.clone();
        cx.fx.push(Effect::Addresses { sa: sa.id, realm: realm.name.clone(), ours, dns, add: true });
    }
}

fn is_dynamic(spec: &SelectorSpec) -> bool {
    matches!(spec, SelectorSpec::Dynamic { .. })
}

impl IkeSa {
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
            pool.release(self.id);
        }
        let ours = cx.drop_addresses(&realm, &inner.ours);
        if !ours.is_empty() {
            cx.fx.push(Effect::Addresses { sa: self.id, realm, ours, dns: inner.dns, add: false });
        }
    }
}
