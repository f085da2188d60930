//! What a server hands out: addresses of its pool, of DHCP servers, and those that an authentication server has named.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use policy::{Identity, Pool, Realm, SelectorSpec};
use spi::Token;
use wire::ike::{CfgAttr, Cp, Payload, PayloadList};
use wire::numbers::{CfgAttrType, CfgType, NotifyType};

use super::super::Flow;
use crate::core::Core;
use crate::effect::{DhcpLease, InnerAddress, Why};
use crate::pool::{Lease, NoAddress, Wish};
use crate::sa::IkeSa;

/// An address of one family by DHCP.
#[derive(Clone, Default)]
pub(super) enum Sought {
    /// Nobody was asked.
    #[default]
    No,
    /// The question is out.
    Asked(Token),
    /// The answer.
    Came(Result<DhcpLease, String>),
}

/// Addresses and name servers for a client, as a server that authenticated it has them.
#[derive(Default)]
struct Granted {
    addresses: Vec<IpAddr>,
    dns: Vec<IpAddr>,
}

/// What is told along with addresses.
struct Told<'a> {
    pool: &'a Pool,
    /// Name servers that go with the client, before those of the realm.
    granted: &'a [IpAddr],
    /// What DHCP servers gave, where the realm has none.
    offered: &'a [DhcpLease],
    /// Whether the client asked for domains. RFC 8598 section 3.2: only who asks is told of them.
    domains: bool,
}

/// Hands out addresses to a client.
pub(super) fn assign(sa: &mut IkeSa, cx: &mut Core, message: &[Payload]) -> Flow {
    let (Some(realm), Some(peer)) = (sa.realm.clone(), sa.peer_id.clone()) else { return Flow::Continue };
    let granted = sa
        .granted
        .as_ref()
        .map(|granted| Granted { addresses: granted.addresses.clone(), dns: granted.dns.clone() });
    let granted = granted.unwrap_or_default();
    let cp = message.cp().filter(|cp| cp.kind == CfgType::REQUEST);
    if !cx.pools.contains_key(&realm.name) {
        if let Some(cp) = cp {
            assign_granted(sa, cx, &realm, &peer, &granted, cp);
        }
        return Flow::Continue;
    }
    let Some(cp) = cp else {
        if message.sa().is_some() && realm.children.iter().all(|c| c.remote.iter().all(is_dynamic)) {
            // RFC 7296 section 3.15.4: without an address there is nothing the client could send from.
            let why =
                "the peer asked for no inner address, and the realm has children for such only".to_owned();
            sa.inner().failed = Some((NotifyType::FAILED_CP_REQUIRED, Why::PeerMisbehaved(why)));
        }
        return Flow::Continue;
    };
    let wish = wish(cp);
    let domains = cp.all(CfgAttrType::INTERNAL_DNS_DOMAIN).next().is_some();
    if let Some(token) = ask_servers(sa, cx, &realm, &peer, wish, &granted) {
        return Flow::Await(token);
    }
    let offered = std::mem::take(&mut sa.inner().offered);
    let leased = match wish {
        Wish { v4: None, v6: None } => Ok(Lease::default()),
        wish => lease(sa.id, cx, &realm, &peer, wish, &granted, &offered),
    };
    let offered: Vec<DhcpLease> = offered
        .into_iter()
        .filter_map(|sought| if let Sought::Came(Ok(lease)) = sought { Some(lease) } else { None })
        .collect();
    match leased {
        Ok(lease) => {
            let Some((pool, _)) = cx.pools.get(&realm.name) else { return Flow::Continue };
            let told = Told { pool, granted: &granted.dns, offered: &offered, domains };
            sa.hand_out(reply(&told, lease), lease);
        }
        Err(why) => sa.inner().failed = Some((NotifyType::INTERNAL_ADDRESS_FAILURE, why)),
    }
    cx.tell_leases(&realm.name);
    Flow::Continue
}

/// What a client asks for. An attribute without a value, or with one we cannot read, asks for any address.
fn wish(cp: &Cp) -> Wish {
    let v4 = cp.all(CfgAttrType::INTERNAL_IP4_ADDRESS).next();
    let v6 = cp.all(CfgAttrType::INTERNAL_IP6_ADDRESS).next();
    Wish {
        v4: v4.map(|a| a.ipv4().unwrap_or(Ipv4Addr::UNSPECIFIED)),
        v6: v6.map(|a| a.ipv6().map_or(Ipv6Addr::UNSPECIFIED, |(address, _)| address)),
    }
}

/// Asks DHCP servers, those of both families at once; gives the question whose answer is still awaited.
fn ask_servers(
    sa: &mut IkeSa,
    cx: &mut Core,
    realm: &Realm,
    peer: &Identity,
    wish: Wish,
    granted: &Granted,
) -> Option<Token> {
    let (pool, addresses) = cx.pools.get(&realm.name)?;
    let hints = [wish.v4.map(IpAddr::from), wish.v6.map(IpAddr::from)];
    let mut questions = Vec::new();
    for (family, hint) in hints.into_iter().enumerate() {
        let v4 = family == 0;
        let named = granted.addresses.iter().any(|address| address.is_ipv4() == v4);
        let Some(hint) = hint.filter(|_| pool.by_dhcp(v4) && !named) else { continue };
        let hint = Some(hint).filter(|hint| !hint.is_unspecified()).or_else(|| addresses.last(peer, v4));
        questions.push((family, v4, hint));
    }
    let mut awaited = None;
    for (family, v4, hint) in questions {
        let sought = &mut sa.inner().offered[family];
        if let Sought::No = sought {
            let (id, realm, peer) = (sa.id, realm.name.clone(), peer.clone());
            let sought = &mut sa.inner().offered[family];
            *sought = match cx.want_address(id, realm, peer, v4, hint) {
                Some(token) => Sought::Asked(token),
                None => Sought::Came(Err("too many questions are out".to_owned())),
            };
        }
        if let Sought::Asked(token) = sa.inner().offered[family] {
            awaited = Some(token);
        }
    }
    awaited
}

/// Addresses for a client: those it was assigned, and for the other family one of the pool.
fn lease(
    sa: crate::effect::IkeSaId,
    cx: &mut Core,
    realm: &Realm,
    peer: &Identity,
    wish: Wish,
    granted: &Granted,
    offered: &[Sought],
) -> Result<Lease, Why> {
    let (mut given, mut rest) = (Lease::default(), wish);
    let mut assigned: Vec<IpAddr> = granted.addresses.clone();
    let mut unanswered = Vec::new();
    for (sought, v4) in offered.iter().zip([true, false]) {
        match sought {
            Sought::Came(Ok(lease)) => assigned.push(lease.address),
            Sought::Came(Err(why)) => {
                if v4 {
                    rest.v4 = None
                } else {
                    rest.v6 = None
                }
                unanswered.push(why.as_str());
            }
            Sought::No | Sought::Asked(_) => {}
        }
    }
    for address in assigned {
        if !take(wish, &mut given, &mut rest, address) {
            continue;
        }
        let done = match cx.holder_elsewhere(&realm.name, address) {
            Some((other, who)) => Err(elsewhere(address, &other, &who)),
            None => {
                let Some((_, pool)) = cx.pools.get_mut(&realm.name) else { continue };
                pool.assign(sa, peer, address, realm.unique)
                    .map_err(|why| misconfigured(realm, &format!("{address}: {why}")))
            }
        };
        if let Err(why) = done {
            if let Some((_, pool)) = cx.pools.get_mut(&realm.name) {
                pool.release(cx.now, sa);
            }
            return Err(why);
        }
    }
    let nothing = given == Lease::default();
    if rest.v4.is_none() && rest.v6.is_none() {
        return if nothing { Err(no_dhcp(realm, &unanswered)) } else { Ok(given) };
    }
    // Other realms' clients may have addresses of this pool: those it was named from outside, or those of a pool like it.
    let Some((name, (of, mut pool))) = cx.pools.remove_entry(&realm.name) else { return Ok(given) };
    let taken = |address: IpAddr| cx.holder_elsewhere(&name, address).is_some();
    let leased = pool.lease(cx.now, sa, peer, rest, realm.unique, &taken);
    cx.pools.insert(name, (of, pool));
    match leased {
        Ok(lease) => Ok(Lease { v4: given.v4.or(lease.v4), v6: given.v6.or(lease.v6) }),
        // One family is enough.
        Err(_) if !nothing => Ok(given),
        Err(_) if !unanswered.is_empty() => Err(no_dhcp(realm, &unanswered)),
        Err(why) => Err(misconfigured(realm, &why)),
    }
}

/// One of each family, and only of those it asked for.
fn take(wish: Wish, given: &mut Lease, rest: &mut Wish, address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) if wish.v4.is_some() && given.v4.is_none() => {
            (given.v4, rest.v4) = (Some(v4), None);
            true
        }
        IpAddr::V6(v6) if wish.v6.is_some() && given.v6.is_none() => {
            (given.v6, rest.v6) = (Some(v6), None);
            true
        }
        _ => false,
    }
}

/// Hands out what the authentication server has named in a realm without a pool: whose the addresses are, it alone knows, but no two
/// clients have one at the same time.
fn assign_granted(sa: &mut IkeSa, cx: &mut Core, realm: &Realm, peer: &Identity, granted: &Granted, cp: &Cp) {
    if granted.addresses.is_empty() {
        return;
    }
    let wish = wish(cp);
    let (mut given, mut rest) = (Lease::default(), wish);
    for address in &granted.addresses {
        if !take(wish, &mut given, &mut rest, *address) {
            continue;
        }
        let done = match cx.holder_elsewhere(&realm.name, *address) {
            Some((other, who)) => Err(elsewhere(*address, &other, &who)),
            None => cx.grant(sa.id, realm, peer, *address).map_err(|why| match why {
                NoAddress::Taken => {
                    let holder = cx.grants.get(&realm.name).and_then(|grants| grants.holder_of(*address));
                    let holder = holder.map_or_else(|| "another client".to_owned(), Identity::to_string);
                    Why::Misconfigured(format!(
                        "{address} was assigned by the authentication server, and {holder} has it in realm {}",
                        realm.name
                    ))
                }
                why => misconfigured(realm, &format!("{address}: {why}")),
            }),
        };
        if let Err(why) = done {
            cx.ungrant(sa.id, &realm.name);
            sa.inner().failed = Some((NotifyType::INTERNAL_ADDRESS_FAILURE, why));
            return;
        }
    }
    let told = Told { pool: &Pool::default(), granted: &granted.dns, offered: &[], domains: false };
    sa.hand_out(reply(&told, given), given);
}

/// No fault of the client's: our pool is too small, or what assigns addresses is wrong.
fn misconfigured(realm: &Realm, why: &dyn std::fmt::Display) -> Why {
    Why::Misconfigured(format!("{why} of realm {}", realm.name))
}

fn elsewhere(address: IpAddr, realm: &str, who: &Identity) -> Why {
    Why::Misconfigured(format!("{address} was assigned to the peer, and {who} has it in realm {realm}"))
}

fn no_dhcp(realm: &Realm, why: &[&str]) -> Why {
    Why::Misconfigured(format!("no address by DHCP for realm {}: {}", realm.name, why.join("; ")))
}

fn reply(told: &Told<'_>, lease: Lease) -> Cp {
    let pool = told.pool;
    let mut attributes = Vec::new();
    if let Some(a) = lease.v4 {
        attributes.push(CfgAttr::from_ipv4(CfgAttrType::INTERNAL_IP4_ADDRESS, a));
    }
    if let Some(a) = lease.v6 {
        let len = Some(pool.prefix_of(a.into()));
        attributes.push(CfgAttr::from_ipv6(CfgAttrType::INTERNAL_IP6_ADDRESS, a, len));
    }
    let servers: Vec<IpAddr> = match (told.granted, &pool.dns[..]) {
        ([], []) => told.offered.iter().flat_map(|lease| &lease.dns).copied().take(super::MAX_DNS).collect(),
        ([], own) => own.to_vec(),
        (granted, _) => granted.to_vec(),
    };
    for server in &servers {
        attributes.push(match server {
            IpAddr::V4(a) => CfgAttr::from_ipv4(CfgAttrType::INTERNAL_IP4_DNS, *a),
            IpAddr::V6(a) => CfgAttr::from_ipv6(CfgAttrType::INTERNAL_IP6_DNS, *a, None),
        });
    }
    // RFC 8598 section 3.2: no domains without name servers.
    if told.domains && !servers.is_empty() {
        let mut domains = pool.domains.clone();
        // Of a DHCP server they go with its name servers.
        if told.granted.is_empty() && pool.dns.is_empty() {
            for name in told.offered.iter().flat_map(|lease| &lease.domains) {
                if !domains.contains(name) && domains.len() < super::MAX_DOMAINS {
                    domains.push(Arc::clone(name));
                }
            }
        }
        let domain =
            |name: &Arc<str>| CfgAttr::new(CfgAttrType::INTERNAL_DNS_DOMAIN, name.as_bytes().to_vec());
        attributes.extend(domains.iter().map(domain));
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

fn is_dynamic(spec: &SelectorSpec) -> bool {
    matches!(spec, SelectorSpec::Dynamic { .. })
}

impl IkeSa {
    /// A DHCP server has answered, or not in time.
    pub(crate) fn address_came(&mut self, cx: &mut Core, token: Token, answer: Result<DhcpLease, String>) {
        let asked = |sought: &&mut Sought| matches!(sought, Sought::Asked(out) if *out == token);
        if let Some(sought) = self.inner().offered.iter_mut().find(asked) {
            *sought = Sought::Came(answer);
        }
        self.look_again(cx, token);
    }

    /// Nobody waits for DHCP servers any more.
    pub(crate) fn forget_wanted(&mut self, cx: &mut Core) {
        let Some(inner) = &mut self.ext.cfg else { return };
        for sought in &mut inner.offered {
            if let Sought::Asked(token) = std::mem::take(sought) {
                cx.forget_ask(Some(token));
            }
        }
    }

    fn hand_out(&mut self, reply: Cp, lease: Lease) {
        let v4 = lease.v4.map(|a| InnerAddress { address: a.into(), prefix: 32 });
        let v6 = lease.v6.map(|a| InnerAddress { address: a.into(), prefix: 128 });
        let inner = self.inner();
        inner.reply = Some(reply);
        inner.leased = v4.into_iter().chain(v6).collect();
    }
}
