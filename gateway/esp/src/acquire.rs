//! Traffic that wants an SA: one question to the control plane, and a few packets that wait for the answer.

use std::time::Instant;

use crate::counters::DropReason;
use crate::esp::{Esp, Inner, Offload};
use crate::flow::FlowKey;
use crate::output::{Event, Output, Verdict};
use crate::sa::ChildId;
use crate::timer::Due;

/// A packet that waits.
pub(crate) struct Waiting {
    iface: u32,
    bytes: Box<[u8]>,
    offload: Offload,
    critical: bool,
    handed: bool,
}

impl Esp {
    /// Raises [`Event::Acquire`] unless it was raised a moment ago, and keeps the packet if there is a place.
    pub(crate) fn acquire(
        &mut self,
        now: Instant,
        child: ChildId,
        flow: &FlowKey,
        packet: Inner<'_>,
        out: &mut Output,
    ) -> Verdict {
        let entry = self.sad.children.entry(child).or_default();
        if entry.acquire_again.is_none_or(|again| again <= now) {
            entry.acquire_again = Some(now + self.config.acquire_retry);
            out.events.push_back(Event::Acquire { child, flow: *flow });
        }
        let len = packet.bytes.len();
        let full = entry.waiting.len() >= self.config.waiting_packets
            || self.waiting_octets + len > self.config.waiting_octets;
        if full {
            return self.refuse(DropReason::NoSa);
        }
        let Inner { iface, bytes, offload, critical, handed } = packet;
        entry.waiting.push_back(Waiting { iface, bytes: bytes.into(), offload, critical, handed });
        self.waiting_octets += len;
        if !std::mem::replace(&mut entry.wait_timer, true) {
            self.timers.push(now + self.config.acquire_retry, Due::Waiting(child));
        }
        Verdict::Taken
    }

    /// The set-up of this child failed: drops what waits for it. The next packet may ask again after the retry time.
    pub fn acquire_failed(&mut self, child: ChildId) {
        let Some(entry) = self.sad.children.get_mut(&child) else { return };
        let gone = std::mem::take(&mut entry.waiting);
        self.waiting_octets -= gone.iter().map(|w| w.bytes.len()).sum::<usize>();
        self.counters.drops.add(DropReason::WaitExpired, gone.len() as u64);
    }

    /// Sends what waited for children that now have an SA.
    pub(crate) fn serve(&mut self, now: Instant, out: &mut Output) {
        for child in std::mem::take(&mut self.served) {
            let Some(entry) = self.sad.children.get_mut(&child) else { continue };
            for waiting in std::mem::take(&mut entry.waiting) {
                self.waiting_octets -= waiting.bytes.len();
                let Waiting { iface, bytes, offload, critical, handed } = waiting;
                // Decided anew: the SA may be narrower than what was asked for. Then the packet waits again.
                self.handle_inner(now, Inner { iface, bytes: &bytes, offload, critical, handed }, out);
            }
        }
    }

    pub(crate) fn waiting_due(&mut self, child: ChildId) {
        let Some(entry) = self.sad.children.get_mut(&child) else { return };
        entry.wait_timer = false;
        self.acquire_failed(child);
        if self.sad.children.get(&child).is_some_and(|c| c.is_idle()) {
            self.sad.children.remove(&child);
        }
    }
}
