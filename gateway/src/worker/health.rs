//! Devices that die, and come back: from the watchers to the lanes, and to whoever listens.

use std::time::{Duration, Instant};

use ike::EspSignal;
use spi::Direction;

use super::{KEY_OPERATIONS, Worker};
use crate::plane::order::Order;
use crate::plane::queues::DeviceReport;

/// Between two looks at operations that are out.
const TICK: Duration = Duration::from_secs(1);

impl Worker {
    /// Does what there is to do about devices; true when there is more.
    pub(super) fn look_after_devices(&mut self, now: Instant, rang: bool) -> bool {
        if rang {
            self.accel.hear_watchers(self.lanes.own.epoll(), KEY_OPERATIONS);
        }
        if self.accel.tick_at().is_some_and(|at| at <= now) {
            self.accel.tick(now);
        }
        let more = self.accel.settle();
        self.pass_on_device_orders(now);
        more
    }

    /// A lane says something of a device.
    pub(super) fn device_report(&mut self, now: Instant, lane: u16, report: DeviceReport) {
        self.accel.hear_lane(lane, report);
        self.pass_on_device_orders(now);
    }

    /// A device does not know an SA: it is installed there anew, or, where its keys are not kept, replaced.
    pub(super) fn stale_sa(&mut self, now: Instant, id: ike::ChildId, dir: Direction) {
        if !self.accel.is_stale((id, dir)) {
            self.engine.handle_esp(now, EspSignal::SoftLimit(id), &mut self.fx);
            self.carry_out(now);
        }
    }

    fn pass_on_device_orders(&mut self, now: Instant) {
        while let Some((lane, order)) = self.accel.orders.pop_front() {
            self.lanes.give(now, lane, Order::Device(order));
        }
        for notice in self.accel.news.drain(..) {
            self.events.publish(notice);
        }
    }
}

impl super::accel::Accel {
    /// When [`tick`](Self::tick) wants to be called; never, while nothing is out.
    pub(super) fn tick_at(&self) -> Option<Instant> {
        (!self.out.is_empty()).then_some(self.ticked + TICK)
    }

    /// Looks at what is out.
    pub(super) fn tick(&mut self, now: Instant) {
        self.ticked = now;
        self.tick_operations();
    }
}
