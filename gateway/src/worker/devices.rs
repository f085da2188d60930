//! TUN devices: made at the start and by a reload, and made anew when somebody deletes one. A device that was set down has lost
//! its routes; they come back when it is up again.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail};
use ipc::{Refusal, Reply, Request, TunOffload, TunSpec};
use policy::Child;

use super::ask::Asker;
use super::{KEY_SIDE_WAIT, Worker};
use crate::events::Notice;
use crate::io::links::{State, Word};
use crate::plane::order::Order;

/// MTU of TUN devices: fits into UDP-encapsulated ESP with any transform over IPv6 on Ethernet.
pub(super) const TUN_MTU: u16 = 1400;
/// Wait before a device that could not be had is asked for again.
const AGAIN: Duration = Duration::from_secs(5);

/// A TUN device of ours. Its queues are with the lanes; policies and SAs know it by its place.
pub(super) struct TunDevice {
    name: String,
    /// One of its queues once more, to show that it is ours.
    proof: OwnedFd,
    queues: usize,
    offload: TunOffload,
    gone: bool,
    down: bool,
}

impl TunDevice {
    /// Its name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Whether it is there.
    pub(super) fn is_there(&self) -> bool {
        !self.gone
    }

    /// Queues it has.
    pub(super) fn queues(&self) -> usize {
        self.queues
    }

    /// What the kernel granted.
    pub(super) fn offload(&self) -> TunOffload {
        self.offload
    }
}

impl Worker {
    /// Asks for every TUN device that the configuration names and that is not there.
    pub(super) fn open_tuns(&mut self) {
        self.tuns_again = None;
        let children = self.realms.iter().flat_map(|realm| &realm.children);
        let mut names: BTreeSet<String> = children.map(|child| self.device_of(child).to_string()).collect();
        names.insert(self.settings.tun.to_string());
        for name in names {
            let there = self.tuns.iter().any(|tun| tun.name() == name && tun.is_there());
            if !there && self.tuns_coming.insert(name.clone()) {
                let spec = self.spec(&name);
                self.ask.ask(Asker::Tun(name), Request::OpenTun(spec));
            }
        }
    }

    /// Waits for the TUN devices; without them nothing works, so this is the one place where the worker waits.
    pub(super) fn await_tuns(&mut self) -> anyhow::Result<()> {
        let until = Instant::now() + KEY_SIDE_WAIT;
        while self.ask.pending() > 0 {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("the key side does not answer");
            }
            self.lanes.own.epoll().wait(Some(left), |_| ())?;
            let mut answers = Vec::new();
            self.ask.poll(|asker, reply| answers.push((asker, reply)));
            for (asker, reply) in answers {
                match (asker, reply) {
                    (_, Reply::Tun { queues, name, offload }) => self.take_tun(name, queues, offload)?,
                    (Asker::Tun(name), Reply::Refused(why)) => return Err(explain(&making(&name), &why)),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// An answer about a device, while the worker runs.
    pub(super) fn tun_came(&mut self, now: Instant, name: String, reply: Reply) {
        let failed = match reply {
            Reply::Tun { queues, name, offload } => {
                self.take_tun(name, queues, offload).err().map(|error| error.to_string())
            }
            Reply::Refused(why) => Some(why.to_string()),
            _ => None,
        };
        self.tuns_coming.remove(&name);
        if let Some(why) = failed {
            self.events.publish(Notice::NetworkFailed { what: making(&name), why });
            self.tuns_again = Some(now + AGAIN);
        }
    }

    fn take_tun(&mut self, name: String, queues: Vec<OwnedFd>, offload: TunOffload) -> anyhow::Result<()> {
        if queues.is_empty() {
            return Err(anyhow!("TUN device {name} came without a descriptor"));
        }
        self.tuns_coming.remove(&name);
        // What was said of the device until now was said while it was being made.
        self.hear_of_links();
        let known = self.tuns.iter().position(|tun| tun.name() == name);
        let proof = queues[0].try_clone()?;
        let device =
            TunDevice { name: name.clone(), proof, queues: queues.len(), offload, gone: false, down: false };
        let place = match known {
            Some(place) => {
                self.tuns[place] = device;
                place
            }
            None => {
                self.tuns.push(device);
                self.tuns.len() - 1
            }
        };
        if self.settings.offload && !offload.udp {
            tracing::warn!(device = %name, ?offload, "the kernel lacks offloads of TUN devices: it will be slower");
        }
        // A kernel that gives one queue only gives it to lane 0, which hands packets over.
        for (lane, fd) in queues.into_iter().enumerate() {
            let order = Order::Tun { place, fd, ethernet: self.settings.ethernet, offload };
            self.lanes.give(Instant::now(), lane as u16, order);
        }
        if known.is_some() {
            self.renew_network(&name);
        }
        Ok(())
    }

    /// Shows the devices that are there to a key side that does not know them, and has routes and addresses made sure of.
    pub(super) fn hand_over_tuns(&mut self) {
        for tun in self.tuns.iter().filter(|tun| !tun.gone) {
            let spec = self.spec(tun.name());
            if let Ok(queue) = tun.proof.try_clone() {
                let request = Request::AdoptTun { spec, queue: Some(queue) };
                self.ask.ask(Asker::Adopted(tun.name().to_owned()), request);
            }
        }
    }

    /// What came of that.
    pub(super) fn tun_adopted(&mut self, name: String, reply: &Reply) {
        match reply {
            Reply::Ok => self.renew_network(&name),
            Reply::Refused(why) => {
                let what = format!("showing the TUN device {name} to the key side");
                self.events.publish(Notice::NetworkFailed { what, why: why.to_string() });
            }
            _ => {}
        }
    }

    fn spec(&self, name: &str) -> TunSpec {
        TunSpec {
            name: name.to_owned(),
            mtu: self.tun_mtu(),
            queues: self.lanes.count() as u16,
            offload: self.settings.offload,
            ethernet: self.settings.ethernet,
        }
    }

    /// Somebody deleted a device: its routes went with it. Another one is made.
    pub(super) fn lose_tun(&mut self, place: usize) {
        let Some(tun) = self.tuns.get_mut(place) else { return };
        // Every lane says so.
        if !std::mem::replace(&mut tun.gone, true) {
            let what = format!("TUN device {}", tun.name());
            let why = "somebody deleted it; it is made anew".to_owned();
            self.events.publish(Notice::NetworkFailed { what, why });
            self.open_tuns();
        }
    }

    /// What happened to interfaces.
    pub(super) fn hear_of_links(&mut self) {
        let words = self.links.as_ref().map(|links| links.heard()).unwrap_or_default();
        for word in words {
            match word {
                Word::Link(name, state) => self.link_is(&name, state),
                Word::Lost => {
                    // Whatever happened: what should be there is there again afterwards.
                    let names: Vec<String> = self.tuns.iter().map(|tun| tun.name().to_owned()).collect();
                    names.iter().for_each(|name| self.renew_network(name));
                }
            }
        }
    }

    fn link_is(&mut self, name: &str, state: State) {
        let Some(place) = self.tuns.iter().position(|tun| tun.name() == name) else { return };
        // Of a device that is gone the next read tells, which cannot be late: a new one of the same name may be there already.
        let tun = &mut self.tuns[place];
        let down = state == State::Down;
        if state == State::Gone || tun.gone || std::mem::replace(&mut tun.down, down) == down {
            return;
        }
        match state {
            State::Down => {
                let what = format!("TUN device {name}");
                let why = "somebody set it down: until it is up again its routes are gone, and what they \
                           led into tunnels goes where others lead it"
                    .to_owned();
                self.events.publish(Notice::NetworkFailed { what, why });
            }
            _ => self.renew_network(name),
        }
    }

    fn renew_network(&mut self, name: &str) {
        tracing::info!(device = %name, "routes and addresses are added again");
        self.renew_addresses(name);
        self.routes.renew(name, &mut self.ask);
    }

    /// The device of a child.
    pub(super) fn device_of(&self, child: &Child) -> Arc<str> {
        if child.tun.is_empty() { self.settings.tun.clone() } else { child.tun.clone() }
    }

    /// MTU of all devices.
    pub(super) fn tun_mtu(&self) -> u16 {
        self.settings.mtu.unwrap_or(TUN_MTU)
    }
}

fn making(name: &str) -> String {
    format!("making the TUN device {name}")
}

fn explain(what: &str, why: &Refusal) -> anyhow::Error {
    let text = why.to_string();
    let hint = if text.contains("Operation not permitted") || text.contains("os error 1)") {
        "; run as root, or with CAP_NET_ADMIN"
    } else if text.contains("busy") {
        "; is another gateway running here?"
    } else {
        ""
    };
    anyhow!("{what}: {text}{hint}")
}
