//! Traffic selectors: what we offer, what we grant, what we take for an answer (RFC 7296 section 2.9).
//!
//! Names are by side of the tunnel, not by exchange: `local` is ours, `remote` the peer's. As initiator of an exchange our
//! TSi is `local`; as its responder, TSr.

use std::net::IpAddr;
use std::sync::Arc;

use policy::{Child, ChildMode, SelectorSpec};
use wire::TrafficSelector;
use wire::ike::TsPayload;

use crate::natd::Nat;

/// Most selectors of one side: all that the count octet of a TS payload can say.
pub const MAX_SELECTORS: usize = 255;

/// What `dynamic` in a configured selector stands for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Dynamic<'a> {
    /// Our addresses: those assigned to us, else the one we use towards the peer.
    pub local: &'a [IpAddr],
    /// The peer's: those we assigned, else the one it uses.
    pub remote: &'a [IpAddr],
}

/// Both sides' selectors of a Child SA; neither is empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selectors {
    /// Ours.
    pub local: Arc<[TrafficSelector]>,
    /// The peer's.
    pub remote: Arc<[TrafficSelector]>,
}

/// What a request was narrowed to.
#[derive(Clone, Debug, PartialEq)]
pub struct Narrowed<'a> {
    /// By which child's configuration.
    pub child: &'a Child,
    /// To these.
    pub selectors: Selectors,
    /// Other parts of what was asked for would be granted in another Child SA: ADDITIONAL_TS_POSSIBLE
    /// (RFC 7296 section 2.9).
    pub more_possible: bool,
}

/// Configured selectors with `dynamic` resolved, without doubles.
pub fn resolve(specs: &[SelectorSpec], dynamic: &[IpAddr]) -> Vec<TrafficSelector> {
    let mut out = Vec::new();
    for spec in specs {
        match *spec {
            SelectorSpec::Fixed(ts) => add(&mut out, ts),
            SelectorSpec::Dynamic { protocol, start_port, end_port } => dynamic.iter().for_each(|address| {
                let host = TrafficSelector::host(address.to_canonical());
                add(&mut out, host.with_protocol(protocol, start_port, end_port));
            }),
        }
    }
    out
}

/// What we offer for a child as initiator. The packet that asked for it goes first on both sides, so that the responder
/// narrows towards it (RFC 7296 section 2.9). `None` when one side is empty, as with `dynamic` and no address yet.
pub fn offer(
    child: &Child,
    dynamic: Dynamic<'_>,
    packet: Option<&(TrafficSelector, TrafficSelector)>,
) -> Option<Selectors> {
    let mut local = resolve(&child.local, dynamic.local);
    let mut remote = resolve(&child.remote, dynamic.remote);
    if let Some((ours, theirs)) = packet {
        local.insert(0, *ours);
        remote.insert(0, *theirs);
        local.truncate(MAX_SELECTORS);
        remote.truncate(MAX_SELECTORS);
    }
    Selectors::of(local, remote)
}

/// Chooses the child and narrows the request to it. A child of the `mode` asked for that grants all of the request comes
/// before one that grants the first selector of both sides, which by RFC 7296 section 2.9 stands for the packet that is
/// waiting, and that before one that grants anything; within each, the order of the configuration decides.
///
/// `None`: TS_UNACCEPTABLE.
pub fn choose<'a>(
    children: impl IntoIterator<Item = &'a Child>,
    dynamic: Dynamic<'_>,
    mode: ChildMode,
    local: &TsPayload,
    remote: &TsPayload,
) -> Option<Narrowed<'a>> {
    let mut best: Option<(u8, Narrowed<'a>)> = None;
    let mut others: Vec<Selectors> = Vec::new();
    for child in children.into_iter().filter(|c| c.mode == mode) {
        let Some(selectors) = narrow(child, dynamic, local, remote) else { continue };
        let rank = rank(&selectors, local, remote);
        let narrowed = Narrowed { child, selectors, more_possible: false };
        match &mut best {
            Some((so_far, _)) if *so_far <= rank => others.push(narrowed.selectors),
            best => others.extend(best.replace((rank, narrowed)).map(|(_, worse)| worse.selectors)),
        }
    }
    let (_, mut chosen) = best?;
    chosen.more_possible = others.iter().any(|o| !o.is_within(&chosen.selectors));
    Some(chosen)
}

/// Narrows a request to one child's configuration. `None`: TS_UNACCEPTABLE.
pub fn narrow(
    child: &Child,
    dynamic: Dynamic<'_>,
    local: &TsPayload,
    remote: &TsPayload,
) -> Option<Selectors> {
    let mut local = meet(local, &resolve(&child.local, dynamic.local));
    let mut remote = meet(remote, &resolve(&child.remote, dynamic.remote));
    // Families that only one side has lead nowhere.
    let both_have =
        |v4: bool| [&local, &remote].iter().all(|side| side.iter().any(|ts| ts.start.is_ipv4() == v4));
    let (v4, v6) = (both_have(true), both_have(false));
    let pass = |ts: &TrafficSelector| if ts.start.is_ipv4() { v4 } else { v6 };
    local.retain(pass);
    remote.retain(pass);
    Selectors::of(local, remote)
}

/// Checks what the responder made of our offer: not empty, and every selector inside one we offered. `None`: the Child SA
/// must not be used.
pub fn check_answer(offered: &Selectors, local: &TsPayload, remote: &TsPayload) -> Option<Selectors> {
    let inside = |answer: &TsPayload, offered: &[TrafficSelector]| {
        // A selector of a type we did not offer is none we can grant either.
        let all = answer.selectors().count() == answer.entries.len();
        let inside = answer.selectors().all(|ts| !ts.is_empty() && offered.iter().any(|o| ts.is_subset(o)));
        (all && inside).then(|| answer.selectors().copied().collect::<Vec<_>>())
    };
    let local = inside(local, &offered.local)?;
    let remote = inside(remote, &offered.remote)?;
    Selectors::of(local, remote)
}

/// What to ask for after SINGLE_PAIR_REQUIRED: one pair, that of the packet when there is one (RFC 7296 section 2.9).
pub fn single_pair(offered: &Selectors) -> Option<Selectors> {
    let pairs = offered.local.iter().flat_map(|l| offered.remote.iter().map(move |r| (*l, *r)));
    let (l, r) = pairs.into_iter().find(|(l, r)| l.start.is_ipv4() == r.start.is_ipv4())?;
    Selectors::of(vec![l], vec![r])
}

/// Whether the selectors speak of nothing but these two hosts: what transport mode can carry (RFC 7296 section 1.3.1).
pub fn fits_transport(selectors: &Selectors, local: IpAddr, remote: IpAddr) -> bool {
    let only = |side: &[TrafficSelector], address: IpAddr| {
        let host = TrafficSelector::host(address.to_canonical());
        side.iter().all(|ts| ts.is_subset(&host))
    };
    only(&selectors.local, local) && only(&selectors.remote, remote)
}

/// Transport mode through a NAT (RFC 7296 section 2.23.1): the selectors of the request name the initiator's own idea of
/// both addresses. The responder puts in the addresses it sees, narrows, and answers with the initiator's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Substitution {
    local: Option<Pair>,
    remote: Option<Pair>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pair {
    theirs: IpAddr,
    seen: IpAddr,
}

impl Substitution {
    /// Notes what has to be put in place of what. `None` when a side behind a NAT does not name one single address.
    pub fn new(
        local: &TsPayload,
        remote: &TsPayload,
        nat: Nat,
        seen_local: IpAddr,
        seen_remote: IpAddr,
    ) -> Option<Self> {
        let pair = |behind, ts: &TsPayload, seen: IpAddr| match behind {
            true => Some(Some(Pair { theirs: single_address(ts)?, seen: seen.to_canonical() })),
            false => Some(None),
        };
        Some(Substitution {
            local: pair(nat.we_behind, local, seen_local)?,
            remote: pair(nat.peer_behind, remote, seen_remote)?,
        })
    }

    /// The request with the addresses we see: ours, the peer's.
    pub fn apply(&self, local: &TsPayload, remote: &TsPayload) -> (TsPayload, TsPayload) {
        let put = |ts: &TsPayload, pair: Option<Pair>| match pair {
            Some(pair) => TsPayload::new(ts.selectors().map(|ts| ts.with_addresses(pair.seen, pair.seen))),
            None => ts.clone(),
        };
        (put(local, self.local), put(remote, self.remote))
    }

    /// The answer with the addresses of the request.
    pub fn undo(&self, selectors: &Selectors) -> Selectors {
        let put = |side: &[TrafficSelector], pair: Option<Pair>| {
            let back = |ts: &TrafficSelector| pair.map_or(*ts, |p| ts.with_addresses(p.theirs, p.theirs));
            side.iter().map(back).collect()
        };
        Selectors { local: put(&selectors.local, self.local), remote: put(&selectors.remote, self.remote) }
    }
}

impl Selectors {
    /// `None` when a side is empty.
    fn of(local: Vec<TrafficSelector>, remote: Vec<TrafficSelector>) -> Option<Self> {
        let any = !local.is_empty() && !remote.is_empty();
        any.then(|| Selectors { local: local.into(), remote: remote.into() })
    }

    fn is_within(&self, other: &Selectors) -> bool {
        let within =
            |a: &[TrafficSelector], b: &[TrafficSelector]| a.iter().all(|x| b.iter().any(|y| x.is_subset(y)));
        within(&self.local, &other.local) && within(&self.remote, &other.remote)
    }
}

/// 0: all of the request; 1: its first selectors; 2: something.
fn rank(granted: &Selectors, local: &TsPayload, remote: &TsPayload) -> u8 {
    let covers = |side: &[TrafficSelector], ts: &TrafficSelector| side.iter().any(|g| ts.is_subset(g));
    let all = |side: &[TrafficSelector], asked: &TsPayload| asked.selectors().all(|ts| covers(side, ts));
    let first = |side: &[TrafficSelector], asked: &TsPayload| {
        asked.selectors().next().is_some_and(|ts| covers(side, ts))
    };
    if all(&granted.local, local) && all(&granted.remote, remote) {
        0
    } else if first(&granted.local, local) && first(&granted.remote, remote) {
        1
    } else {
        2
    }
}

/// Everything that is in one of theirs and in one of ours. Selectors of types we don't know match nothing.
fn meet(theirs: &TsPayload, ours: &[TrafficSelector]) -> Vec<TrafficSelector> {
    let mut out = Vec::new();
    for asked in theirs.selectors() {
        ours.iter().filter_map(|own| asked.intersect(own)).for_each(|both| add(&mut out, both));
        if out.len() >= MAX_SELECTORS {
            break;
        }
    }
    out
}

/// Adds a set, unless it is empty or in one that is there; those inside it go.
fn add(out: &mut Vec<TrafficSelector>, ts: TrafficSelector) {
    if ts.is_empty() || out.iter().any(|o| ts.is_subset(o)) {
        return;
    }
    out.retain(|o| !o.is_subset(&ts));
    if out.len() < MAX_SELECTORS {
        out.push(ts);
    }
}

fn single_address(ts: &TsPayload) -> Option<IpAddr> {
    let first = ts.selectors().next()?.start;
    ts.selectors().all(|ts| ts.start == first && ts.is_host()).then_some(first)
}

#[cfg(test)]
mod tests;
