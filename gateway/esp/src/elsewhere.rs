//! Packets whose SA another worker has. A worker sees what the kernel puts into its queue of the interface, and owns the SAs
//! that were given to it; where the two differ, the packet is handed over, once.

use std::time::Instant;

use spi::{EspOp, Outcome};

use crate::counters::DropReason;
use crate::esp::{Esp, Inner};
use crate::output::{Event, HandOver, Output};
use crate::sa::{Action, ChildId, ElsewhereSa};
use crate::sad::AwaySa;

impl Esp {
    /// Makes known an outbound SA that another worker has. What waits for its child leaves with the next
    /// [`flush`](Esp::flush).
    pub fn install_elsewhere(&mut self, sa: ElsewhereSa) {
        let ElsewhereSa { child, spi, lane, ts_local, ts_remote, iface, priority } = sa;
        let mut rules = Vec::new();
        self.spd.insert(&ts_local, &ts_remote, iface, priority, Action::Protect(child), &mut rules);
        let away = self.sad.elsewhere.entry(child).or_default();
        away.sas.push(AwaySa { spi, lane, ts_local, ts_remote, rules });
        if let Some(entry) = self.sad.children.get_mut(&child) {
            entry.acquire_again = None;
            if !entry.waiting.is_empty() {
                self.served.push(child);
            }
        }
        self.flows.new_epoch();
    }

    /// The SA is not sent with any more.
    pub fn remove_elsewhere(&mut self, child: ChildId, spi: u32) {
        let Some(away) = self.sad.elsewhere.get_mut(&child) else { return };
        let Some(place) = away.sas.iter().position(|sa| sa.spi == spi) else { return };
        let gone = away.sas.remove(place);
        if away.sas.is_empty() {
            self.sad.elsewhere.remove(&child);
        }
        gone.rules.into_iter().for_each(|rule| self.spd.remove(rule));
        self.flows.new_epoch();
    }

    /// Copies a packet for the worker that has the SA.
    pub(crate) fn hand_over(
        &mut self,
        now: Instant,
        child: ChildId,
        lane: u16,
        packet: Inner<'_>,
        out: &mut Output,
    ) -> Result<(), DropReason> {
        if packet.handed {
            // It moved on in the meantime. Packets that chase an SA from worker to worker would be worse than a lost one.
            return Err(DropReason::Astray);
        }
        if let Some(away) = self.sad.elsewhere.get_mut(&child)
            && away.tell_again.is_none_or(|again| again <= now)
        {
            away.tell_again = Some(now + self.config.acquire_retry);
            let sa = away.sas.iter().rev().find(|sa| sa.lane == lane);
            out.events.extend(sa.map(|sa| Event::Elsewhere { child, spi: sa.spi }));
        }
        let mut buf = self.config.pool.take().ok_or(DropReason::PoolDry)?;
        let len = packet.bytes.len();
        let room = buf.bytes_mut().get_mut(..len).ok_or(DropReason::TooBig)?;
        room.copy_from_slice(packet.bytes);
        let op = EspOp {
            outcome: Outcome::Done,
            ..EspOp::new(0, u16::try_from(len).map_err(|_| DropReason::TooBig)?, 0)
        };
        buf.push_op(op).map_err(|_| DropReason::TooBig)?;
        self.counters.handed += 1;
        let Inner { iface, offload, critical, .. } = packet;
        out.elsewhere.push_back(HandOver { lane, iface, offload, critical, buf });
        Ok(())
    }
}
