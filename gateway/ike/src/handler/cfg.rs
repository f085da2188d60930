//! Inner addresses by configuration payload (RFC 7296 sections 2.19 and 3.15): what a client asks for and takes. What a server gives is
//! in `assign`.

mod assign;

use std::net::IpAddr;

use ipc::Role;
use policy::{Realm, SelectorSpec};
use wire::TrafficSelector;
use wire::ike::{CfgAttr, Cp, Payload, PayloadList};
use wire::numbers::{CfgAttrType, CfgType, NotifyType};

use super::{Flow, Handler, Stage};
use crate::core::Core;
use crate::effect::{Effect, Event, InnerAddress, Why};
use crate::sa::IkeSa;
use assign::Sought;

/// See the module.
pub(super) struct Configuration;

/// Inner addresses of an IKE SA.
#[derive(Default)]
pub(crate) struct Inner {
    /// Assigned to us.
    pub(crate) ours: Vec<InnerAddress>,
    pub(crate) dns: Vec<IpAddr>,
    domains: Vec<String>,
    /// Networks that the peer has named as behind it, and that our selectors let be there.
    subnets: Vec<(IpAddr, u8)>,
    /// Assigned by us.
    pub(crate) leased: Vec<InnerAddress>,
    /// What DHCP servers answered, of IPv4 and of IPv6.
    offered: [Sought; 2],
    reply: Option<Cp>,
    /// No address, no Child SA: the notification, and the reason for the log.
    pub(crate) failed: Option<(NotifyType, Why)>,
}

/// What an IKE SA without inner addresses has.
pub(super) static NONE: Inner = Inner {
    ours: Vec::new(),
    dns: Vec::new(),
    domains: Vec::new(),
    subnets: Vec::new(),
    leased: Vec::new(),
    offered: [Sought::No, Sought::No],
    reply: None,
    failed: None,
};

/// Name servers taken from one peer.
const MAX_DNS: usize = 8;
/// Domains taken from one peer.
const MAX_DOMAINS: usize = 32;
/// Networks taken from one peer.
const MAX_SUBNETS: usize = 64;

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
            (Stage::AuthRequest, Role::Responder) => return assign::assign(sa, cx, message),
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
        attributes.push(CfgAttr::any(CfgAttrType::INTERNAL_IP4_SUBNET));
    }
    if wanted.v6 {
        attributes.push(CfgAttr::any(CfgAttrType::INTERNAL_IP6_ADDRESS));
        attributes.push(CfgAttr::any(CfgAttrType::INTERNAL_IP6_DNS));
        attributes.push(CfgAttr::any(CfgAttrType::INTERNAL_IP6_SUBNET));
    }
    if attributes.is_empty() {
        return None;
    }
    // RFC 8598 section 3.1. Trust anchors are not asked for: nobody here would use them.
    attributes.push(CfgAttr::any(CfgAttrType::INTERNAL_DNS_DOMAIN));
    Some(Cp::new(CfgType::REQUEST, attributes))
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
    let subnets = subnets(cp, &realm, &mut ignored);
    let inner = sa.inner();
    inner.subnets = subnets;
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

/// The networks a peer names (RFC 7296 section 3.15.1), each once, as far as the realm has children with traffic for them.
fn subnets(cp: &Cp, realm: &Realm, ignored: &mut Vec<String>) -> Vec<(IpAddr, u8)> {
    let mut subnets: Vec<(IpAddr, u8)> = Vec::new();
    let v4 = cp.all(CfgAttrType::INTERNAL_IP4_SUBNET).map(|a| ("INTERNAL_IP4_SUBNET", a, ipv4_subnet(a)));
    let v6 = cp.all(CfgAttrType::INTERNAL_IP6_SUBNET).map(|a| ("INTERNAL_IP6_SUBNET", a, ipv6_subnet(a)));
    for (name, _, network) in v4.chain(v6).filter(|(_, attribute, _)| !attribute.value.is_empty()) {
        if ignored.len() >= MAX_DNS {
            break;
        }
        let Some((address, len)) = network else {
            ignored.push(format!("{name}: no network"));
            continue;
        };
        let wanted = TrafficSelector::from_prefix(address, len);
        let (address, allowed) = (wanted.start, realm.children.iter().flat_map(|child| &child.remote));
        let within = |spec: &SelectorSpec| matches!(spec, SelectorSpec::Fixed(ts) if has_all(ts, &wanted));
        if !allowed.clone().any(within) {
            ignored.push(format!("{name} {address}/{len}: not within a remote selector of the realm"));
        } else if subnets.len() >= MAX_SUBNETS {
            ignored.push(format!("{name}: more than {MAX_SUBNETS}"));
            break;
        } else if !subnets.contains(&(address, len)) {
            subnets.push((address, len));
        }
    }
    subnets
}

fn ipv4_subnet(attribute: &CfgAttr) -> Option<(IpAddr, u8)> {
    let (address, mask) = attribute.ipv4_subnet()?;
    let mask = u32::from(mask);
    let len = mask.leading_ones();
    (mask.count_ones() == len).then_some((address.into(), len as u8))
}

fn ipv6_subnet(attribute: &CfgAttr) -> Option<(IpAddr, u8)> {
    let (address, len) = attribute.ipv6()?;
    Some((address.into(), len?))
}

/// Whether all addresses of a network are among those of a selector, whatever its ports.
fn has_all(selector: &TrafficSelector, network: &TrafficSelector) -> bool {
    network.is_subset(&TrafficSelector::range(selector.start, selector.end))
}

/// Whether there may be a name server there.
fn is_server(address: &IpAddr) -> bool {
    !address.is_unspecified() && !address.is_multicast() && !address.is_loopback()
}

impl IkeSa {
    /// Networks that the peer has named, as far as a child's negotiated selectors have them. Of what its configured ones had, and
    /// those have not, is told where that is `news`.
    pub(crate) fn subnets_of(
        &self,
        cx: &mut Core,
        child: &str,
        remote: &[TrafficSelector],
        news: bool,
    ) -> Vec<(IpAddr, u8)> {
        let (Some(realm), subnets) = (&self.realm, &self.ext.cfg().subnets) else { return Vec::new() };
        let network = |(address, len): &(IpAddr, u8)| TrafficSelector::from_prefix(*address, *len);
        let is_in = |subnet: &&(IpAddr, u8)| remote.iter().any(|ts| has_all(ts, &network(subnet)));
        let configured = realm.child(child).map(|child| &child.remote[..]).unwrap_or_default();
        let narrowed_out = |subnet: &&(IpAddr, u8)| {
            let wanted = network(subnet);
            let had = |spec: &SelectorSpec| matches!(spec, SelectorSpec::Fixed(ts) if has_all(ts, &wanted));
            !is_in(subnet) && configured.iter().any(had)
        };
        for (address, len) in subnets.iter().filter(|subnet| news && narrowed_out(subnet)) {
            let what = format!("subnet {address}/{len}: not within what child {child} was narrowed to");
            cx.event(Event::ConfigurationIgnored { sa: self.id, realm: realm.name.clone(), what });
        }
        subnets.iter().filter(is_in).copied().collect()
    }

    fn inner(&mut self) -> &mut Inner {
        self.ext.cfg.get_or_insert_default()
    }

    /// Gives back what was leased, and drops what we were given.
    pub(crate) fn release_addresses(&mut self, cx: &mut Core) {
        self.forget_wanted(cx);
        let Some(realm) = self.realm.as_ref().map(|r| r.name.clone()) else { return };
        let Some(inner) = self.ext.cfg.take() else { return };
        if !inner.leased.is_empty() {
            if let Some((_, pool)) = cx.pools.get_mut(&realm) {
                pool.release(cx.now, self.id);
                cx.tell_leases(&realm);
            }
            cx.ungrant(self.id, &realm);
        }
        let ours = cx.drop_addresses(&realm, &inner.ours);
        if !ours.is_empty() {
            let Inner { dns, domains, .. } = *inner;
            cx.fx.push(Effect::Addresses { sa: self.id, realm, ours, dns, domains, add: false });
        }
    }
}
