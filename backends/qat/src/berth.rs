//! A queue's place at a ring pair, whatever the queue is for: which life of the card it works in, when it sleeps and is woken, and
//! how it leaves.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use spi::QueueConfig;

use crate::caps::QUEUE;
use crate::card::{Card, Orphan};
use crate::device::Holder;
use crate::gate::Phase;
use crate::generation::Service;
use crate::pair::Pair;
use crate::station::Station;
use crate::view::View;

/// The place. Its queue leaves it by [`leave`](Berth::leave).
pub(crate) struct Berth {
    holder: Arc<Holder>,
    pub(crate) pair: Arc<Pair>,
    pub(crate) owner: u16,
    pub(crate) station: Arc<Station>,
    pub(crate) view: Arc<View>,
    /// Jobs there may be at a time.
    pub(crate) depth: usize,
    /// The life of the card in which what is out was submitted.
    pub(crate) epoch: u32,
}

/// How much a queue has under way.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    /// Everything that was not delivered yet.
    pub(crate) in_flight: usize,
    /// Of this, what only waits to be delivered.
    pub(crate) ready: usize,
}

impl Berth {
    /// `None` when the card has no ring pair left for a service.
    pub(crate) fn open(
        holder: &Arc<Holder>,
        service: Service,
        what: &str,
        config: QueueConfig,
    ) -> Option<Berth> {
        let card = holder.card();
        let station = Arc::new(Station::new(card.new_bell()));
        let pair = Arc::clone(card.pair_for(service)?);
        let owner = pair.join(Arc::clone(&station))?;
        let view = card.new_view(format!("{what} on ring pair {}", pair.number));
        let depth = config.depth.clamp(1, QUEUE);
        let (epoch, _) = card.gate.look();
        Some(Berth { holder: Arc::clone(holder), pair, owner, station, view, depth, epoch })
    }

    pub(crate) fn card(&self) -> &Card {
        self.holder.card()
    }

    /// Has what was lost in a reset given back by `abort`, which says how much that is; true when the card takes work.
    pub(crate) fn catch_up(&mut self, abort: impl FnOnce() -> u64) -> bool {
        let (epoch, phase) = self.card().gate.look();
        if epoch != self.epoch || phase == Phase::Quiet {
            let lost = abort();
            self.card().counters.aborted.add(lost);
            self.epoch = epoch;
        }
        phase == Phase::Open
    }

    /// Jobs that would be taken now.
    pub(crate) fn room(&self, in_flight: usize) -> usize {
        match self.card().gate.look() {
            (_, Phase::Open) => self.depth - in_flight.min(self.depth),
            _ => 0,
        }
    }

    /// The bell, after jobs were submitted.
    pub(crate) fn submitted(&self, load: Load) {
        self.view.set_in_flight(load.in_flight);
        if load.ready > 0 {
            self.station.ring_for_itself();
        } else if self.station.arm_if_silent() {
            self.arm();
        }
    }

    /// The bell, after a poll that delivered so much.
    pub(crate) fn polled(&self, load: Load, delivered: usize) {
        self.view.set_in_flight(load.in_flight);
        if load.in_flight == 0 {
            if self.station.silence() {
                self.pair.disarm();
            }
        } else if load.ready > 0 {
            // The caller knows that there is more, and may sleep all the same.
            self.station.ring_for_itself();
        } else if delivered == 0 && self.station.arm() {
            self.arm();
        }
    }

    /// Arms the card, which interrupts at once if it has something.
    fn arm(&self) {
        self.pair.hold().say();
        self.pair.arm();
        // A reset may have come in between, which arms nothing.
        let (epoch, phase) = self.card().gate.look();
        if epoch != self.epoch || phase == Phase::Quiet || self.station.has_mail() {
            self.station.ring();
        }
    }

    pub(crate) fn doorbell(&self) -> Option<BorrowedFd<'_>> {
        self.station.bell()
    }

    /// The queue is dropped. What the card may still write to, `keep`, stays until whoever watches over the card has seen the answers;
    /// so do the places on the ring.
    pub(crate) fn leave(&self, keep: impl FnOnce() -> Box<dyn Send>) {
        if self.pair.leave(self.owner) {
            return;
        }
        let orphan = Orphan { pair: Arc::clone(&self.pair), owner: self.owner, _keep: keep() };
        self.card().orphans().push(orphan);
        self.card().control.ring();
    }
}
