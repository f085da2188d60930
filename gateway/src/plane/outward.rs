//! From the TUN queues, and from other lanes, to the data path.
//!
//! A packet is read into a buffer of the pool and handled there at once. When the turn's quota is used up and there is still
//! more, the rest is skimmed: critical packets, and as many others as the table lets wait, are kept for the next turn, and
//! what remains is dropped here, where it is known what it is, instead of by the kernel, which does not look.

use std::collections::VecDeque;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::time::Instant;

use esp::{HandOver, Inner, Offload, Verdict};
use ipc::TunOffload;
use spi::PacketBuf;

use super::order::Report;
use super::{KEY_TUNS, Plane, Ready, tap};
use crate::dispatch::{Class, critical};
use crate::io::ethernet;
use crate::io::tun::{LONGEST, Read, Tun};

/// Packets looked at beyond the quota in one turn.
const SKIM: usize = 64;

/// What was read and not handled yet.
pub(super) struct Intake {
    /// The buffer to read into next.
    hot: Option<PacketBuf>,
    critical: VecDeque<Stored>,
    packets: VecDeque<Stored>,
}

struct Stored {
    iface: u32,
    range: Range<usize>,
    offload: Offload,
    buf: PacketBuf,
}

impl Intake {
    pub(super) fn new() -> Intake {
        Intake { hot: None, critical: VecDeque::new(), packets: VecDeque::new() }
    }

    /// Whether something waits.
    pub(super) fn is_waiting(&self) -> bool {
        !self.critical.is_empty() || !self.packets.is_empty()
    }

    /// How many critical packets and how many others wait.
    pub(super) fn gauge(&self) -> (usize, usize) {
        (self.critical.len(), self.packets.len())
    }
}

impl Plane {
    /// Takes over a queue of a TUN device, in the place of one that is gone.
    pub(super) fn take_tun(&mut self, place: usize, fd: OwnedFd, ethernet: bool, offload: TunOffload) {
        if self.tuns.len() <= place {
            self.tuns.resize_with(place + 1, || None);
        }
        let added = Tun::new(fd, ethernet, offload).and_then(|tun| {
            self.epoll.add(&tun, KEY_TUNS + place as u64)?;
            Ok(tun)
        });
        match added {
            Ok(tun) => self.tuns[place] = Some(tun),
            Err(error) => tracing::error!(lane = self.lane, %error, "a queue of a TUN device cannot be used"),
        }
    }

    /// Handles critical packets that were left over or handed over.
    pub(super) fn serve_critical(&mut self, now: Instant) {
        let mut any = false;
        for _ in 0..self.table.quota(Class::Critical) {
            if let Some(stored) = self.intake.critical.pop_front() {
                self.handle_stored(now, &stored, true);
            } else if let Some(handed) = self.letterboxes[usize::from(self.lane)].take_critical() {
                self.take_orders(now);
                self.handle_handed(now, &handed);
            } else {
                break;
            }
            any = true;
        }
        if any {
            self.served.note(Class::Critical, false);
            self.pump(now);
        }
    }

    /// Handles packets: those left over, those in the readable TUN queues, those handed over.
    pub(super) fn serve_packets(&mut self, now: Instant, ready: &mut Ready) {
        let mut left = self.table.quota(Class::Esp);
        while left > 0
            && !self.esp.congested()
            && let Some(stored) = self.intake.packets.pop_front()
        {
            self.handle_stored(now, &stored, false);
            self.pump_if_wanted(now);
            left -= 1;
        }
        for at in 0..ready.tuns.len() {
            ready.more |= self.read_tun(now, ready.tuns[at], &mut left);
        }
        let mut left = self.table.quota(Class::Esp);
        while left > 0
            && !self.esp.congested()
            && let Some(handed) = self.letterboxes[usize::from(self.lane)].take_packet()
        {
            self.take_orders(now);
            self.handle_handed(now, &handed);
            self.pump_if_wanted(now);
            left -= 1;
        }
    }

    /// Looks into the TUN queues once more, where a burst is not full yet and had to wait anyway.
    pub(super) fn fill_up(&mut self, now: Instant, ready: &mut Ready) {
        if self.esp.gathers() && !ready.sockets.is_empty() && !ready.more {
            let mut left = self.table.quota(Class::Esp);
            for at in 0..ready.tuns.len() {
                ready.more |= self.read_tun(now, ready.tuns[at], &mut left);
            }
        }
    }

    /// Takes what a TUN queue has; true when there may be more.
    fn read_tun(&mut self, now: Instant, place: usize, left: &mut usize) -> bool {
        let mut skim = SKIM;
        let more = loop {
            let over = *left == 0 || !self.intake.packets.is_empty() || self.esp.congested();
            if over && skim == 0 {
                break true;
            }
            let Some(mut buf) = self.intake.hot.take().or_else(|| self.pool.take()) else { break false };
            let Some(tun) = self.tuns.get_mut(place).and_then(Option::as_mut) else { break false };
            let room = buf.bytes_mut();
            let room = room.len().min(LONGEST);
            match tun.read(&mut buf.bytes_mut()[..room]) {
                Read::Packet(range, offload) => {
                    let iface = place as u32;
                    let stored = Stored { iface, range, offload, buf };
                    let critical =
                        critical::is(&stored.buf.bytes()[stored.range.clone()], self.table.critical());
                    if over {
                        skim -= 1;
                        self.store(stored, critical);
                        continue;
                    }
                    *left -= 1;
                    self.handle_stored(now, &stored, critical);
                    self.intake.hot = Some(stored.buf);
                    self.pump_if_wanted(now);
                }
                Read::Question(range) => {
                    self.answer_neighbour(now, place, &buf.bytes()[range]);
                    self.intake.hot = Some(buf);
                }
                Read::Odd => self.intake.hot = Some(buf),
                Read::Nothing => {
                    self.intake.hot = Some(buf);
                    break false;
                }
                Read::Gone => {
                    self.intake.hot = Some(buf);
                    self.lose_tun(place);
                    break false;
                }
            }
        };
        self.served.note(Class::Esp, more);
        more
    }

    /// Somebody on an Ethernet asks after a neighbour: those behind a tunnel are us.
    fn answer_neighbour(&mut self, now: Instant, place: usize, frame: &[u8]) {
        let Some((target, reply)) = ethernet::answer(frame) else { return };
        if self.esp.protects(now, target)
            && let Some(tun) = self.tuns.get_mut(place).and_then(Option::as_mut)
        {
            tun.write_frame(&reply);
            self.served.note(Class::Critical, false);
        }
    }

    fn store(&mut self, stored: Stored, critical: bool) {
        let class = if critical { Class::Critical } else { Class::Esp };
        let line = if critical { &mut self.intake.critical } else { &mut self.intake.packets };
        // What waits must not take the buffers of what goes on.
        let room = line.len() < self.table.depth(class) && self.pool.available() > super::BUFFERS / 2;
        if room || critical && self.pool.available() > 0 && line.len() < self.table.depth(class) {
            line.push_back(stored);
        } else {
            self.served.drop(class);
            self.intake.hot = Some(stored.buf);
        }
    }

    fn handle_stored(&mut self, now: Instant, stored: &Stored, critical: bool) {
        let Stored { iface, range, offload, buf } = stored;
        let bytes = buf.bytes().get(range.clone()).unwrap_or(&[]);
        self.handle(now, Inner { critical, ..Inner::new(*iface, bytes, *offload) });
    }

    fn handle_handed(&mut self, now: Instant, packet: &HandOver) {
        let inner = Inner::new(packet.iface, packet.bytes(), packet.offload);
        self.handle(now, Inner { critical: packet.critical, handed: true, ..inner });
    }

    fn handle(&mut self, now: Instant, inner: Inner<'_>) {
        if self.tap.is_open() && !inner.handed {
            esp::cut(inner.bytes, inner.offload, |packet| self.tap.packet(tap::BEFORE, packet, ""));
        }
        if self.esp.handle_inner(now, inner, &mut self.out) == Verdict::Bypass {
            esp::cut(inner.bytes, inner.offload, |packet| self.clear.send(packet));
        }
    }

    /// Somebody deleted a device.
    fn lose_tun(&mut self, place: usize) {
        if let Some(tun) = self.tuns.get_mut(place).and_then(Option::take) {
            // Its descriptor would be reported without end.
            let _ = self.epoll.remove(&tun);
            self.reports.push_back(Report::TunGone(place));
        }
    }
}
