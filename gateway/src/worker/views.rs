//! From what the worker holds to what `status` and `sas` show.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use esp::Counters;
use ike::{ChildView, IkeSaView};
use ipc::Role;
use policy::ChildMode;
use spi::Direction;
use tokio::sync::oneshot;

use super::Worker;
use super::devices::TunDevice;
use super::traps::is_trapped;
use crate::dispatch::{Class, Served};
use crate::io::socket::Port;
use crate::io::tun::TunTraffic;
use crate::plane::look::{self, Look};
use crate::plane::order::{Gather, Order};
use crate::report::{
    self, Child, ChildSa, DispatchRow, Esp, Ike, IkeSa, Lane, Realm, Sas, Socket, Status, Tun,
};

/// What the data path counts for a pair.
#[derive(Default)]
struct Carried {
    packets_in: u64,
    bytes_in: u64,
    packets_out: u64,
    bytes_out: u64,
    sending: bool,
    drops: BTreeMap<String, u64>,
}

/// Lanes may take this long to answer; then what is there is shown.
const PATIENCE: Duration = Duration::from_secs(1);

/// What somebody wants to know.
pub(super) enum Question {
    Status(oneshot::Sender<Status>),
    Accel(oneshot::Sender<report::Accel>),
    Sas(oneshot::Sender<Sas>),
    /// What sessions carry; for ourselves.
    Sessions,
}

/// Questions whose answers the lanes have a part in.
#[derive(Default)]
pub(super) struct Looking {
    last: u64,
    open: BTreeMap<u64, (Question, Gather<Box<Look>>)>,
}

impl Looking {
    /// When an answer is given with what is there.
    pub(super) fn until(&self) -> Option<Instant> {
        self.open.values().map(|(_, gather)| gather.since + PATIENCE).min()
    }
}

impl Worker {
    /// Asks the lanes; the answer follows when they have answered.
    pub(super) fn look(&mut self, now: Instant, question: Question) {
        self.looking.last += 1;
        let ticket = self.looking.last;
        let sas = matches!(question, Question::Sas(_) | Question::Sessions);
        let gather = Gather::new(self.lanes.count(), now);
        self.looking.open.insert(ticket, (question, gather));
        self.lanes.all(now, || Order::Look { sas, ticket });
    }

    /// A lane has answered.
    pub(super) fn looked(&mut self, ticket: u64, lane: u16, look: Box<Look>) {
        if let Some((_, gather)) = self.looking.open.get_mut(&ticket)
            && gather.add(lane, look)
        {
            self.answer(ticket);
        }
    }

    /// Answers what has waited long enough.
    pub(super) fn stop_looking(&mut self, now: Instant) {
        while let Some(ticket) = self
            .looking
            .open
            .iter()
            .find_map(|(ticket, (_, gather))| (gather.since + PATIENCE <= now).then_some(*ticket))
        {
            tracing::warn!("a lane of the data path does not answer");
            self.answer(ticket);
        }
    }

    fn answer(&mut self, ticket: u64) {
        let Some((question, gather)) = self.looking.open.remove(&ticket) else { return };
        // Whoever asked may be gone by the time of the answer.
        match question {
            Question::Status(answer) => drop(answer.send(self.status(&gather.parts))),
            Question::Accel(answer) => drop(answer.send(self.accelerators(&gather.parts))),
            Question::Sas(answer) => drop(answer.send(self.sas(&gather.parts))),
            Question::Sessions => self.sessions_looked(Instant::now(), &gather.parts),
        }
    }

    /// What `leases` shows.
    pub(super) fn leases(&self, now: Instant) -> report::Leases {
        let view = |(realm, lease): (Arc<str>, ike::LeaseView)| report::Lease {
            realm: realm.to_string(),
            address: lease.address.to_string(),
            who: lease.identity.to_string(),
            sas: lease.holders.iter().map(|holder| holder.0).collect(),
            kept: lease.holders.is_empty().then_some(lease.kept.as_secs()),
        };
        report::Leases { leases: self.engine.leases(now).into_iter().map(view).collect() }
    }

    fn status(&self, parts: &[Option<Box<Look>>]) -> Status {
        let engine = self.engine.status();
        let looks = || parts.iter().flatten();
        let sum = |count: &dyn Fn(&Look) -> u64| looks().map(|look| count(look)).sum::<u64>();
        let of = |count: &dyn Fn(&Counters) -> u64| sum(&|look| count(&look.counters));
        let mut drops: BTreeMap<String, u64> = BTreeMap::new();
        for (reason, count) in looks().flat_map(|look| look.counters.drops.iter()) {
            *drops.entry(reason.name().to_owned()).or_default() += count;
        }
        for (reason, count) in &engine.dropped {
            *drops.entry(format!("ike: {reason}")).or_default() += count;
        }
        drops.extend(self.dhcp.drops().map(|(reason, count)| (format!("dhcp: {reason}"), count)));
        let mut served = self.letters.served;
        looks().for_each(|look| served.add(&look.served));
        let lines = Class::ALL.map(|class| served.dropped[class as usize]);
        for (name, count) in [
            ("clear_refused", sum(&|look| look.clear_refused)),
            ("capture_lost", sum(&|look| look.capture_lost)),
            ("handover_full", sum(&|look| look.waiting.handed_refused)),
            ("garbage", served.garbage),
            ("line_full_ike", lines[Class::Ike as usize]),
            ("line_full_critical", lines[Class::Critical as usize]),
            ("line_full_esp", lines[Class::Esp as usize]),
            ("line_full_stranger", lines[Class::Stranger as usize]),
        ] {
            if count > 0 {
                drops.insert(name.to_owned(), count);
            }
        }
        let sockets = self.letters.sockets().iter().map(|ike| socket("ike", &look::socket(ike)));
        let lanes = parts.iter().enumerate().filter_map(|(lane, part)| Some((lane, part.as_ref()?)));
        let data = lanes.clone().flat_map(|(lane, look)| {
            look.sockets.iter().map(move |data| socket(&format!("lane {lane}"), data))
        });
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime: self.started.elapsed().as_secs(),
            keylog: self.keylog.is_some().then(|| {
                self.settings.keylog.as_ref().map_or(String::new(), |dir| dir.display().to_string())
            }),
            devices: self.devices(parts),
            sockets: sockets.chain(data).collect(),
            tuns: self.tuns.iter().enumerate().map(|(place, tun)| self.tun(place, tun, parts)).collect(),
            lanes: lanes.map(|(lane, look)| self.lane(lane, look)).collect(),
            dispatch: self
                .table
                .order()
                .iter()
                .map(|class| self.dispatch_row(*class, &served, parts))
                .collect(),
            realms: self.realm_reports(&engine.sas),
            ike: Ike {
                sas: engine.sas.len(),
                half_open: engine.half_open,
                cookies: engine.cookies,
                in_flight: engine.in_flight,
                questions: self.ask.pending(),
                sent_again: engine.repeats.sent,
                came_again: engine.repeats.received,
            },
            esp: Esp {
                sealed: of(&|c| c.sealed),
                sealed_bytes: of(&|c| c.sealed_bytes),
                opened: of(&|c| c.opened),
                opened_bytes: of(&|c| c.opened_bytes),
                bypassed: of(&|c| c.bypassed),
                keepalives: (
                    of(&|c| c.keepalives_in) + sum(&|look| look.keepalives_in) + self.letters.keepalives_in(),
                    of(&|c| c.keepalives_out),
                ),
                flows: (of(&|c| c.flow_hits), of(&|c| c.flow_misses)),
                order: (of(&|c| c.holes), of(&|c| c.late)),
            },
            drops,
            routes: self.routes.len(),
            leases: engine.leases.into_iter().map(|(realm, count)| (realm.to_string(), count)).collect(),
        }
    }

    fn sas(&self, parts: &[Option<Box<Look>>]) -> Sas {
        let now = Instant::now();
        let mut carried: HashMap<ike::ChildId, Carried> = HashMap::new();
        for view in parts.iter().flatten().flat_map(|look| &look.sas) {
            let id = match view.dir {
                Direction::Open => self.book.by_spi_in(view.spi),
                Direction::Seal => self.book.by_spi_out(view.line, view.spi),
            };
            let Some(id) = id else { continue };
            let entry = carried.entry(id).or_default();
            match view.dir {
                Direction::Open => (entry.packets_in, entry.bytes_in) = (view.packets, view.bytes),
                Direction::Seal => {
                    (entry.packets_out, entry.bytes_out) = (view.packets, view.bytes);
                    entry.sending = view.current;
                }
            }
            for (reason, count) in view.drops.iter() {
                *entry.drops.entry(reason.name().to_owned()).or_default() += count;
            }
        }
        let sas = self.engine.status().sas;
        Sas { ike_sas: sas.iter().map(|sa| ike_sa(sa, now, &mut carried)).collect() }
    }

    fn tun(&self, place: usize, tun: &TunDevice, parts: &[Option<Box<Look>>]) -> Tun {
        let mut traffic = TunTraffic::default();
        let mine = parts.iter().flatten().filter_map(|look| look.tuns.get(place)?.as_ref());
        mine.for_each(|(queue, _)| traffic.add(queue));
        let granted = tun.offload();
        let offload = [("checksum", granted.checksum), ("tso", granted.tcp), ("uso", granted.udp)];
        Tun {
            name: tun.name().to_owned(),
            mtu: self.tun_mtu(),
            queues: tun.queues(),
            offload: names(&offload),
            read: traffic.read,
            reads: traffic.reads,
            written: traffic.written,
            writes: traffic.writes,
            refused: traffic.refused,
            odd: traffic.odd,
        }
    }

    fn lane(&self, lane: usize, look: &Look) -> Lane {
        let with = self.realms.iter().filter(|realm| self.share_of(&realm.name).is_some());
        let shares =
            with.zip(&look.shares).map(|(realm, share)| (realm.name.to_string(), share.rate, share.waiting));
        Lane {
            lane,
            sas: look.sa_count,
            sealed: look.counters.sealed,
            opened: look.counters.opened,
            bursts: look.counters.bursts,
            handed: look.counters.handed,
            buffers_free: look.buffers.0,
            buffers: look.buffers.1,
            shares: shares.collect(),
        }
    }

    fn dispatch_row(&self, class: Class, served: &Served, parts: &[Option<Box<Look>>]) -> DispatchRow {
        let looks = || parts.iter().flatten();
        let (proved, strangers) = self.letters.gauge();
        let waiting = match class {
            Class::Control => self.ask.pending(),
            Class::Ike => proved,
            Class::Stranger => strangers,
            Class::Critical => looks()
                .map(|look| {
                    let lines: usize = look.lines.iter().map(|(line, _)| line.critical).sum();
                    look.waiting.critical + look.waiting.handed.0 + lines
                })
                .sum(),
            Class::Esp => looks()
                .map(|look| {
                    let lines: usize = look.lines.iter().map(|(line, _)| line.waiting).sum();
                    look.waiting.packets + look.waiting.handed.1 + lines
                })
                .sum(),
        };
        let row = self.table.row(class);
        DispatchRow {
            class: class.name().to_owned(),
            quota: row.quota,
            depth: row.depth,
            waiting,
            turns: served.turns[class as usize],
            cut: served.cut[class as usize],
            dropped: served.dropped[class as usize],
        }
    }

    fn realm_reports(&self, sas: &[IkeSaView]) -> Vec<Realm> {
        let report = |realm: &policy::Realm| {
            let of_realm = || sas.iter().filter(|sa| sa.realm.as_deref() == Some(&realm.name));
            let up = of_realm().filter(|sa| sa.state == "Established").count();
            let state = match (up, of_realm().count()) {
                (0, 0) => "down",
                (0, _) => "connecting",
                _ => "up",
            };
            let child = |child: &policy::Child| {
                let installed = |view: &&ChildView| view.name == child.name && view.state == "Installed";
                let sas = of_realm().flat_map(|sa| &sa.children).filter(installed).count();
                let state = match sas {
                    0 if is_trapped(realm, child) => "waiting for traffic",
                    0 if self.is_guarded(&realm.name, &child.name) => "blocked",
                    0 => "down",
                    _ => "up",
                };
                Child { name: child.name.to_string(), state: state.to_owned(), sas }
            };
            Realm {
                name: realm.name.to_string(),
                state: state.to_owned(),
                ike_sas: up,
                children: realm.children.iter().map(child).collect(),
            }
        };
        self.realms.iter().map(|realm| report(realm)).collect()
    }
}

fn names(list: &[(&str, bool)]) -> Vec<String> {
    list.iter().filter(|(_, there)| *there).map(|(name, _)| (*name).to_owned()).collect()
}

fn socket(serves: &str, socket: &look::SocketLook) -> Socket {
    let traffic = socket.traffic;
    let (kind, address) = match socket.port {
        Port::Raw => ("esp", socket.address.ip().to_string()),
        _ => ("udp", socket.address.to_string()),
    };
    Socket {
        kind: kind.to_owned(),
        serves: serves.to_owned(),
        address,
        received: traffic.received,
        arrivals: traffic.arrivals,
        sent: traffic.sent,
        departures: traffic.departures,
        lost: traffic.lost,
        queued: socket.queued.0,
        queue: socket.queued.1,
        offload: names(&[("gso", socket.offload.0), ("gro", socket.offload.1)]),
        unsent: traffic.unsent,
        too_big: traffic.too_big,
    }
}

fn ike_sa(sa: &IkeSaView, now: Instant, carried: &mut HashMap<ike::ChildId, Carried>) -> IkeSa {
    let ago = |at: Instant| now.saturating_duration_since(at).as_secs();
    let ahead = |at: Option<Instant>| at.map(|at| at.saturating_duration_since(now).as_secs());
    IkeSa {
        id: sa.id.0,
        realm: sa.realm.as_ref().map(ToString::to_string),
        role: match sa.role {
            Role::Initiator => "initiator".to_owned(),
            Role::Responder => "responder".to_owned(),
        },
        state: state(sa.state),
        spi_i: format!("{:016x}", sa.spi_i),
        spi_r: format!("{:016x}", sa.spi_r),
        local: sa.path.local.to_string(),
        remote: sa.path.remote.to_string(),
        own_id: sa.own_id.as_ref().map(ToString::to_string),
        peer_id: sa.peer_id.as_ref().map(ToString::to_string),
        ike_id: sa.ike_id.as_ref().map(ToString::to_string),
        how: sa.how.as_ref().map(ToString::to_string),
        suite: sa.suite.clone(),
        we_behind_nat: sa.we_behind_nat,
        peer_behind_nat: sa.peer_behind_nat,
        age: ago(sa.created),
        established: sa.established.map(ago),
        rekey_in: ahead(sa.rekey_at),
        reauth_in: ahead(sa.reauth_at),
        session_left: ahead(sa.session_until),
        groups: sa.granted.as_ref().map(|granted| granted.groups.clone()).unwrap_or_default(),
        heard: ago(sa.heard),
        addresses: sa.addresses.iter().map(|inner| format!("{}/{}", inner.address, inner.prefix)).collect(),
        children: sa.children.iter().map(|child| child_sa(child, now, carried)).collect(),
    }
}

fn child_sa(child: &ChildView, now: Instant, carried: &mut HashMap<ike::ChildId, Carried>) -> ChildSa {
    let carried = carried.remove(&child.id).unwrap_or_default();
    let ahead = |at: Option<Instant>| at.map(|at| at.saturating_duration_since(now).as_secs());
    let words = |list: &[wire::TrafficSelector]| list.iter().map(ToString::to_string).collect();
    ChildSa {
        id: child.id.0,
        name: child.name.to_string(),
        resource: child.resource,
        state: state(child.state),
        spi_in: format!("{:08x}", child.spi_in),
        spi_out: format!("{:08x}", child.spi_out),
        suite: child.suite.clone(),
        mode: match child.mode {
            ChildMode::Tunnel => "tunnel".to_owned(),
            ChildMode::Transport => "transport".to_owned(),
        },
        local: words(&child.ts_local),
        remote: words(&child.ts_remote),
        peer: child.remote.ip().to_string(),
        encap: if child.encap { "udp" } else { "raw" }.to_owned(),
        sending: carried.sending,
        packets_in: carried.packets_in,
        bytes_in: carried.bytes_in,
        packets_out: carried.packets_out,
        bytes_out: carried.bytes_out,
        drops: carried.drops,
        age: now.saturating_duration_since(child.installed).as_secs(),
        rekey_in: ahead(child.rekey_at),
        expires_in: ahead(child.expires_at),
    }
}

/// `ExpectAuthResponse` as operators and scripts read it: `expect-auth-response`.
fn state(name: &str) -> String {
    let mut words = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() && !words.is_empty() {
            words.push('-');
        }
        words.push(c.to_ascii_lowercase());
    }
    words
}

#[cfg(test)]
mod tests {
    #[test]
    fn states_are_lower_case_words() {
        assert_eq!(super::state("Established"), "established");
        assert_eq!(super::state("ExpectAuthResponse"), "expect-auth-response");
    }
}
