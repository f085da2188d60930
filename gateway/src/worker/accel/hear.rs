//! What watchers and lanes say of devices, and what is done about it.

use std::sync::Arc;
use std::time::Instant;

use super::watch::{Task, Word};
use super::{Accel, Slot, State};
use crate::events::Notice;
use crate::io::epoll::Epoll;
use crate::plane::queues::{DeviceOrder, DeviceReport};

impl Accel {
    /// Takes what the watchers have said. The doorbells of queues for operations are in `epoll` under `key`.
    pub(in crate::worker) fn hear_watchers(&mut self, epoll: &Epoll, key: u64) {
        self.mouth.bell.answer();
        while let Ok((number, word)) = self.words.try_recv() {
            self.hear_watcher(number, word, epoll, key);
        }
    }

    fn hear_watcher(&mut self, number: usize, word: Word, epoll: &Epoll, key: u64) {
        let now = Instant::now();
        let slot = &mut self.slots[number];
        match word {
            Word::Opened { device, queues, operations } => {
                slot.desc = Some(device.desc().clone());
                slot.device = Some(Arc::clone(&device));
                self.is(number, now, State::Well, String::new());
                self.take_operations_queue(number, operations, epoll, key);
                for (lane, queue) in queues.into_iter().enumerate() {
                    let device = Some(Arc::clone(&device));
                    self.orders.push_back((lane as u16, DeviceOrder::Up { number, device, queue }));
                }
                self.news.push(Notice::DeviceReady { device: self.slots[number].name().to_owned() });
                self.find_homes();
            }
            Word::Away(why) => {
                let device = slot.name().to_owned();
                self.is(number, now, State::Away, why.clone());
                self.news.push(Notice::DeviceFailed { device, why });
            }
            Word::Ill(why) => {
                let device = slot.name().to_owned();
                slot.lanes.fill(false);
                self.is(number, now, State::Ill, why.clone());
                self.news.push(Notice::DeviceFailed { device, why });
                self.forgets(number);
                // The first of them go before the device gets nothing any more, so that what waits for it goes along.
                self.settle();
                self.all_lanes(|| DeviceOrder::Down(number));
                self.pass_on(number);
            }
            Word::Well => {
                let device = slot.name().to_owned();
                self.is(number, now, State::Well, String::new());
                self.news.push(Notice::DeviceReset { device: device.clone() });
                self.news.push(Notice::DeviceReady { device });
                self.all_lanes(|| DeviceOrder::Up { number, device: None, queue: None });
                self.renew_operations_queue(number, epoll);
            }
            Word::Dead => {
                let why = format!("{}; it is closed, and opened anew", slot.why);
                // Every lane, and what is here.
                slot.holders = slot.lanes.len() + 1;
                slot.device = None;
                self.is(number, now, State::Away, why);
                self.all_lanes(|| DeviceOrder::Release(number));
                if let Some(queue) = self.give_up_operations_queue(number, epoll) {
                    self.slots[number].tell(Task::SpentOperations(queue));
                }
                self.slots[number].let_go();
            }
            Word::Queue(lane, queue) => {
                if queue.is_none() {
                    let accelerator = slot.name();
                    tracing::warn!(%accelerator, lane, "an accelerator has no queue left");
                }
                self.orders.push_back((lane, DeviceOrder::Up { number, device: None, queue }));
            }
            Word::Operations(queue) => self.take_operations_queue(number, queue, epoll, key),
        }
    }

    /// Takes what a lane says.
    pub(in crate::worker) fn hear_lane(&mut self, lane: u16, report: DeviceReport) {
        match report {
            DeviceReport::Lost(number) => {
                self.slots[number].tell(Task::Suspect("packets do not come back from it"));
            }
            DeviceReport::Up(number) => {
                // It may have fallen ill since.
                if self.slots[number].state == State::Well {
                    self.slots[number].lanes[usize::from(lane)] = true;
                    self.disturb(|sa| sa.lane == lane && (sa.home == number || sa.device == number));
                }
            }
            DeviceReport::Spent(number, queue) => {
                let slot = &mut self.slots[number];
                slot.lanes[usize::from(lane)] = false;
                if let Some(queue) = queue {
                    slot.tell(Task::Spent(queue));
                }
                if slot.state == State::Well {
                    slot.tell(Task::Queue(lane));
                }
            }
            DeviceReport::Released(number, queue) => {
                let slot = &mut self.slots[number];
                if let Some(queue) = queue {
                    slot.tell(Task::Spent(queue));
                }
                slot.let_go();
            }
        }
    }

    fn is(&mut self, number: usize, now: Instant, state: State, why: String) {
        let slot = &mut self.slots[number];
        (slot.state, slot.since, slot.why) = (state, now, why);
    }

    fn all_lanes(&mut self, order: impl Fn() -> DeviceOrder) {
        for lane in 0..self.nodes.len() as u16 {
            self.orders.push_back((lane, order()));
        }
    }
}

impl Slot {
    /// One of those who had something of the device has let go of it.
    fn let_go(&mut self) {
        self.holders = self.holders.saturating_sub(1);
        if self.holders == 0 {
            self.tell(Task::Released);
        }
    }
}
