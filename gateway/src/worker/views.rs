//! From what the worker holds to what `status` and `sas` show.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use ike::{ChildView, IkeSaView};
use ipc::Role;
use policy::ChildMode;
use spi::{Direction, Health};

use super::Worker;
use super::traps::is_trapped;
use crate::io::socket::Port;
use crate::report::{Child, ChildSa, Device, Esp, Ike, IkeSa, Realm, Sas, Socket, Status, Tun};

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

impl Worker {
    pub(super) fn status(&self) -> Status {
        let engine = self.engine.status();
        let counters = self.esp.counters();
        let mut drops: BTreeMap<String, u64> =
            counters.drops.iter().map(|(reason, count)| (reason.name().to_owned(), count)).collect();
        for (reason, count) in &engine.dropped {
            *drops.entry(format!("ike: {reason}")).or_default() += count;
        }
        for (name, count) in [("clear_refused", self.clear.refused()), ("capture_lost", self.tap.lost())] {
            if count > 0 {
                drops.insert(name.to_owned(), count);
            }
        }
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime: self.started.elapsed().as_secs(),
            keylog: self.keylog.is_some().then(|| {
                self.settings.keylog.as_ref().map_or(String::new(), |dir| dir.display().to_string())
            }),
            devices: self.accel.views().map(|view| device(&view)).collect(),
            sockets: self.outside.all().iter().map(socket).collect(),
            tuns: self
                .tuns
                .iter()
                .map(|tun| {
                    let traffic = tun.traffic();
                    Tun {
                        name: tun.name().to_owned(),
                        mtu: self.tun_mtu(),
                        read: traffic.read,
                        written: traffic.written,
                        refused: traffic.refused,
                    }
                })
                .collect(),
            realms: self.realm_reports(&engine.sas),
            ike: Ike {
                sas: engine.sas.len(),
                half_open: engine.half_open,
                cookies: engine.cookies,
                in_flight: engine.in_flight,
                questions: self.ask.pending(),
            },
            esp: Esp {
                sealed: counters.sealed,
                sealed_bytes: counters.sealed_bytes,
                opened: counters.opened,
                opened_bytes: counters.opened_bytes,
                bypassed: counters.bypassed,
                keepalives: (counters.keepalives_in + self.keepalives_in, counters.keepalives_out),
                flows: (counters.flow_hits, counters.flow_misses),
            },
            drops,
            routes: self.routes.len(),
            leases: engine.leases.into_iter().map(|(realm, count)| (realm.to_string(), count)).collect(),
        }
    }

    pub(super) fn sas(&self) -> Sas {
        let now = Instant::now();
        let mut carried: HashMap<ike::ChildId, Carried> = HashMap::new();
        for view in self.esp.sas() {
            let id = match view.dir {
                Direction::Open => self.book.by_spi_in(view.spi),
                Direction::Seal => self.book.by_spi_out(view.child, view.spi),
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

fn device(view: &super::accel::SlotView<'_>) -> Device {
    let desc = view.device.desc();
    let mut esp: Vec<String> = desc
        .caps
        .esp
        .iter()
        .map(|cap| {
            if cap.integ == spi::Integ::NONE {
                cap.encr.to_string()
            } else {
                format!("{}-{}", cap.encr, cap.integ)
            }
        })
        .collect();
    esp.dedup();
    let health = match view.device.health() {
        Health::Ready => "ready",
        Health::Resetting => "resetting",
        Health::Failed => "failed",
    };
    Device {
        driver: view.driver.to_owned(),
        id: desc.id.clone(),
        health: health.to_owned(),
        esp,
        dh: desc.caps.dh.iter().map(ToString::to_string).collect(),
        sas: view.sas,
        max_sas: desc.caps.max_sas,
        packets_out: view.packets_out,
        operations_out: view.operations_out,
        waiting: view.waiting,
    }
}

fn socket(socket: &crate::io::socket::Socket) -> Socket {
    let traffic = socket.traffic();
    let (kind, address) = match socket.port() {
        Port::Raw => ("esp", socket.bound().ip().to_string()),
        _ => ("udp", socket.bound().to_string()),
    };
    Socket {
        kind: kind.to_owned(),
        address,
        received: traffic.received,
        sent: traffic.sent,
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
        how: sa.how.as_ref().map(ToString::to_string),
        suite: sa.suite.clone(),
        we_behind_nat: sa.we_behind_nat,
        peer_behind_nat: sa.peer_behind_nat,
        age: ago(sa.created),
        established: sa.established.map(ago),
        rekey_in: ahead(sa.rekey_at),
        reauth_in: ahead(sa.reauth_at),
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
