//! Which device carries an SA.
//!
//! An SA has a *home*: the device that should carry it. That is the first accelerator of the configuration that carries its
//! transform, or of several with the same driver the one with the least to do, near ones before far ones; then whatever else there
//! is, in the order of what it costs. While its home is ill, an SA is where its realm lets it be; then it returns.
//!
//! To move, an SA is installed on its new device first (make before break), with the keys that were kept for that. They are kept
//! as long as the SA is there, and only where there is another device that could carry it, or the one it is on may forget it.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::fmt;
use std::sync::Arc;

use spi::{Direction, Encr, Fault, FaultKind, Integ, SaId, SaParams};

use super::{Accel, Slot, State};
use crate::config::Fallback;
use crate::config::settings::SOFTWARE;
use crate::events::Notice;
use crate::plane::queues::DeviceOrder;

/// One SA: the pair, and which of the two.
pub(in crate::worker) type SessionId = (ike::ChildId, Direction);

/// SAs that are looked after in one turn. Others wait for packets meanwhile.
const TURN: usize = 32;

/// Where an SA belongs.
#[derive(Clone)]
pub(in crate::worker) struct Seat {
    pub(in crate::worker) lane: u16,
    pub(in crate::worker) line: esp::ChildId,
    pub(in crate::worker) realm: Arc<str>,
    /// What it may move to.
    pub(in crate::worker) fallback: Fallback,
    /// The devices that the realm names, the preferred one first; empty: none.
    pub(in crate::worker) accel: Arc<[String]>,
}

impl Seat {
    /// The place of a device among those that the realm names; after all of them where it does not.
    fn place_of(&self, slot: &Slot) -> usize {
        let is = |name: &String| name == slot.name() || (!slot.is_hardware() && name == SOFTWARE);
        self.accel.iter().position(is).unwrap_or(usize::MAX)
    }

    /// Whether the realm names it, or leaves it to us.
    fn wants(&self, slot: &Slot) -> bool {
        self.accel.is_empty() || self.place_of(slot) != usize::MAX
    }
}

/// An installed SA.
struct Session {
    seat: Seat,
    spi: u32,
    transform: (Encr, Integ),
    esn: bool,
    /// `None`: no other device could carry it.
    keys: Option<SaParams>,
    home: usize,
    device: usize,
    sa: SaId,
    /// The device does not know it any more.
    stale: bool,
}

/// All installed SAs.
#[derive(Default)]
pub(super) struct Sessions {
    all: HashMap<SessionId, Session>,
    /// Those that may have to move.
    restless: VecDeque<SessionId>,
    listed: HashSet<SessionId>,
    /// Moves that were not told of yet: from, to, how many.
    moved: BTreeMap<(usize, usize), usize>,
}

impl Sessions {
    fn push(&mut self, id: SessionId) {
        if self.listed.insert(id) {
            self.restless.push_back(id);
        }
    }

    fn pop(&mut self) -> Option<SessionId> {
        let id = self.restless.pop_front()?;
        self.listed.remove(&id);
        Some(id)
    }
}

/// Why no device took an SA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::worker) enum Refused {
    /// What the last one said.
    Fault(Fault),
    /// The device that should is ill or away, and the realm does not let another one.
    Policy {
        /// The device.
        device: String,
        /// The realm's policy.
        fallback: Fallback,
    },
    /// None of those that the realm names carries such an SA, and it does not let another one.
    Unfit {
        /// Those.
        wanted: String,
        /// The realm's policy.
        fallback: Fallback,
    },
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::Fault(fault) => fault.fmt(f),
            Refused::Policy { device, fallback } => {
                write!(f, "accelerator {device} is out of order, and `fallback = \"{}\"`", fallback.name())
            }
            Refused::Unfit { wanted, fallback } => {
                let fallback = fallback.name();
                write!(f, "the realm's `accel` ({wanted}) cannot carry it, and `fallback = \"{fallback}\"`")
            }
        }
    }
}

impl Accel {
    /// Installs an SA on its home, or where it may be while that is ill; gives the device's number, and the handle.
    ///
    /// # Errors
    /// Why it is nowhere.
    pub(in crate::worker) fn install(
        &mut self,
        id: SessionId,
        seat: Seat,
        params: SaParams,
    ) -> Result<(usize, SaId), Refused> {
        let (transform, esn) = ((params.encr, params.integ), params.esn);
        let order = self.preference(&seat, transform, esn);
        let Some(home) = order.first().copied() else {
            return Err(Refused::Fault(FaultKind::Unsupported.into()));
        };
        // A device that nobody knows yet might be the home of this one.
        let unknown = |slot: &&Slot| slot.desc.is_none() && slot.source.configured && seat.wants(slot);
        if let Some(absent) = self.slots.iter().find(unknown)
            && seat.fallback != Fallback::Soft
            && !self.slots[home].is_hardware()
        {
            return Err(Refused::Policy { device: absent.name().to_owned(), fallback: seat.fallback });
        }
        // Of those that the realm names none carries it, and nothing else may.
        let stranger = !seat.wants(&self.slots[home]);
        let barred = match seat.fallback {
            Fallback::Never => true,
            Fallback::SameClass => !self.slots[home].is_hardware(),
            Fallback::Soft => false,
        };
        if stranger && barred {
            return Err(Refused::Unfit { wanted: seat.accel.join(", "), fallback: seat.fallback });
        }
        let mut last =
            Refused::Policy { device: self.slots[home].name().to_owned(), fallback: seat.fallback };
        for device in order {
            if !self.allows(&seat, home, device) || !self.slots[device].is_usable(seat.lane) {
                continue;
            }
            match self.install_on(device, &params) {
                Ok(sa) => {
                    let spi = params.spi;
                    let keys = self.could_move(transform, esn, device).then_some(params);
                    let session = Session { seat, spi, transform, esn, keys, home, device, sa, stale: false };
                    self.sessions.all.insert(id, session);
                    return Ok((device, sa));
                }
                Err(fault) => last = Refused::Fault(fault),
            }
        }
        Err(last)
    }

    /// An SA is gone; the lane that had it gives its handle back.
    pub(in crate::worker) fn forget(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.all.remove(&id) {
            self.slots[session.device].sas -= 1;
        }
    }

    /// An SA that no lane got is gone.
    pub(in crate::worker) fn take_back(&mut self, id: SessionId) {
        if let Some(Session { device, sa, .. }) = self.sessions.all.remove(&id) {
            let slot = &mut self.slots[device];
            slot.sas -= 1;
            slot.device.as_ref().inspect(|device| device.remove_sa(sa));
        }
    }

    /// A device says that it does not know an SA. False: nobody here has the keys any more.
    pub(in crate::worker) fn is_stale(&mut self, id: SessionId) -> bool {
        let Some(session) = self.sessions.all.get_mut(&id).filter(|session| session.keys.is_some()) else {
            return false;
        };
        session.stale = true;
        self.sessions.push(id);
        true
    }

    /// The realms' policies may be others now.
    pub(in crate::worker) fn set_policies(&mut self, of: impl Fn(&str) -> (Fallback, Arc<[String]>)) {
        let mut changed = Vec::new();
        for (id, session) in &mut self.sessions.all {
            let (fallback, accel) = of(&session.seat.realm);
            if session.seat.fallback != fallback || session.seat.accel != accel {
                (session.seat.fallback, session.seat.accel) = (fallback, accel);
                changed.push(*id);
            }
        }
        self.find_homes();
        changed.into_iter().for_each(|id| self.sessions.push(id));
    }

    /// Looks after some of the SAs that may have to move; true when there are more.
    pub(in crate::worker) fn settle(&mut self) -> bool {
        for _ in 0..TURN {
            let Some(id) = self.sessions.pop() else { break };
            self.look_after(id);
        }
        if !self.sessions.restless.is_empty() {
            return true;
        }
        for ((from, to), sas) in std::mem::take(&mut self.sessions.moved) {
            let name = |number: usize| self.slots[number].name().to_owned();
            self.news.push(Notice::SasMoved { from: name(from), to: name(to), sas });
        }
        false
    }

    /// Has SAs looked after that are on a device, or should be.
    pub(super) fn disturb(&mut self, concerned: impl Fn(Place) -> bool) {
        let all = self.sessions.all.iter();
        let place = |s: &Session| Place { lane: s.seat.lane, home: s.home, device: s.device };
        let ids: Vec<SessionId> = all.filter(|(_, s)| concerned(place(s))).map(|(id, _)| *id).collect();
        ids.into_iter().for_each(|id| self.sessions.push(id));
    }

    /// What was installed on a device is gone.
    pub(super) fn forgets(&mut self, device: usize) {
        let mut ids = Vec::new();
        for (id, session) in self.sessions.all.iter_mut().filter(|(_, session)| session.device == device) {
            session.stale = true;
            ids.push(*id);
        }
        ids.into_iter().for_each(|id| self.sessions.push(id));
    }

    /// A device was opened: some SAs have a better home now.
    pub(super) fn find_homes(&mut self) {
        let ids: Vec<SessionId> = self.sessions.all.keys().copied().collect();
        for id in ids {
            let Some(session) = self.sessions.all.get(&id) else { continue };
            let order = self.preference(&session.seat, session.transform, session.esn);
            let home = session.home;
            let place = |device: usize| session.seat.place_of(&self.slots[device]);
            let same =
                |other: usize| self.slots[other].is_peer_of(&self.slots[home]) && place(other) == place(home);
            let Some(best) = order.first().copied().filter(|best| *best != home && !same(*best)) else {
                continue;
            };
            // It must be able to move there, too; without keys it stays until it is rekeyed.
            if let Some(session) = self.sessions.all.get_mut(&id).filter(|session| session.keys.is_some()) {
                session.home = best;
                self.sessions.push(id);
            }
        }
    }

    fn look_after(&mut self, id: SessionId) {
        let Some(session) = self.sessions.all.get(&id) else { return };
        let (seat, lane) = (session.seat.clone(), session.seat.lane);
        let (home, old) = (session.home, session.device);
        let fine = !session.stale && self.slots[old].is_usable(lane) && self.allows(&seat, home, old);
        if fine && (old == home || !self.slots[home].is_usable(lane)) {
            return;
        }
        let mut order = self.preference(&seat, session.transform, session.esn);
        order.retain(|device| self.allows(&seat, home, *device) && self.slots[*device].is_usable(lane));
        order.sort_by_key(|device| *device != home);
        for device in order {
            // From one that is as good as any it moves home, or not at all.
            if fine && device != home {
                return;
            }
            let Some(keys) = self.sessions.all.get(&id).and_then(|session| session.keys.as_ref()) else {
                return;
            };
            let installed = self.slots[device].device.as_ref().map(|device| device.install_sa(keys));
            match installed {
                Some(Ok(sa)) => return self.move_to(id, device, sa),
                Some(Err(fault)) => {
                    let accelerator = self.slots[device].name();
                    tracing::warn!(%accelerator, %fault, "an accelerator does not take an SA");
                }
                None => {}
            }
        }
    }

    fn move_to(&mut self, id: SessionId, device: usize, sa: SaId) {
        let Some(session) = self.sessions.all.get_mut(&id) else { return };
        let old = std::mem::replace(&mut session.device, device);
        (session.sa, session.stale) = (sa, false);
        let Session { seat: Seat { lane, line, .. }, spi, home, .. } = *session;
        let order = DeviceOrder::MoveSa { line, spi, dir: id.1, to: (device, sa) };
        self.orders.push_back((lane, order));
        self.slots[old].sas -= 1;
        self.slots[device].sas += 1;
        if old != device {
            match device == home {
                true => self.slots[home].counts.returned += 1,
                false => self.slots[old].counts.left += 1,
            }
            *self.sessions.moved.entry((old, device)).or_default() += 1;
        }
    }

    fn install_on(&mut self, device: usize, params: &SaParams) -> Result<SaId, Fault> {
        let slot = &mut self.slots[device];
        let sa = slot
            .device
            .as_ref()
            .map_or(Err(FaultKind::Aborted.into()), |device| device.install_sa(params))?;
        slot.sas += 1;
        Ok(sa)
    }

    /// Devices that carry a transform, the ones to be preferred first, however they are.
    fn preference(&self, seat: &Seat, transform: (Encr, Integ), esn: bool) -> Vec<usize> {
        let node = self.nodes.get(usize::from(seat.lane)).copied().flatten();
        let order = self.trials.order(transform, self.slots.len());
        let mut all: Vec<usize> =
            order.into_iter().filter(|device| self.slots[*device].carries(transform, esn)).collect();
        all.sort_by_key(|device| {
            let slot = &self.slots[*device];
            let failed = self.trials.failed(transform, *device);
            if !slot.source.configured {
                // A stable sort leaves these in the order of their costs.
                return (failed, true, 0, false, false, 0, 0);
            }
            let peers = || self.slots.iter().enumerate().filter(|(_, other)| other.is_peer_of(slot));
            let first = peers().next().map_or(*device, |(first, _)| first);
            let lightest = peers().map(|(_, other)| other.tally.load()).min().unwrap_or_default();
            let busy = is_busier(slot.tally.load(), lightest);
            let far =
                slot.desc.as_ref().and_then(|desc| desc.numa_node).zip(node).is_some_and(|(a, b)| a != b);
            (failed, false, first, far, busy, slot.sas, *device)
        });
        if !seat.accel.is_empty() {
            // Stable: what the realm does not name stays in its order, behind.
            all.sort_by_key(|device| {
                (self.trials.failed(transform, *device), seat.place_of(&self.slots[*device]))
            });
        }
        all
    }

    /// Whether an SA may be on a device, given its home.
    fn allows(&self, seat: &Seat, home: usize, device: usize) -> bool {
        let named = !seat.accel.is_empty() && seat.wants(&self.slots[device]);
        device == home
            || named
            || match seat.fallback {
                Fallback::Never => false,
                Fallback::SameClass => self.slots[device].is_hardware(),
                Fallback::Soft => true,
            }
    }

    /// Whether an SA on this device may ever have to be installed anew.
    fn could_move(&self, transform: (Encr, Integ), esn: bool, device: usize) -> bool {
        let other = |(number, slot): (usize, &Slot)| {
            number != device && (slot.desc.is_none() || slot.carries(transform, esn))
        };
        self.slots[device].is_hardware() || self.slots.iter().enumerate().any(other)
    }
}

/// Whether a device has clearly more to do than the one with the least. Those that have not are told apart by their SAs, for many
/// new ones may come before anything of what they carry is measured.
fn is_busier(load: u64, lightest: u64) -> bool {
    load > lightest + lightest / 4 + NOTHING
}

/// Octets in a second that are next to nothing for any card.
const NOTHING: u64 = 1_250_000;

/// Where an SA is.
pub(super) struct Place {
    pub(super) lane: u16,
    pub(super) home: usize,
    pub(super) device: usize,
}

impl Slot {
    /// Whether a lane may use it for packets now.
    fn is_usable(&self, lane: u16) -> bool {
        self.state == State::Well && self.lanes.get(usize::from(lane)).is_some_and(|there| *there)
    }

    fn carries(&self, (encr, integ): (Encr, Integ), esn: bool) -> bool {
        self.desc.as_ref().is_some_and(|desc| desc.caps.carries(encr, integ, esn))
    }

    /// Whether the two share their load.
    fn is_peer_of(&self, other: &Slot) -> bool {
        self.source.configured
            && other.source.configured
            && self.source.driver.name() == other.source.driver.name()
    }
}
