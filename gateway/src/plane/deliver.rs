//! Out of the data path: bursts to accelerators, sealed packets to sockets, opened ones to TUN queues.

use std::time::{Duration, Instant};

use arrayvec::ArrayVec;
use esp::{Encap, Esp, OuterPackets, Output};
use rustix::time::ClockId;
use wire::natt::KEEPALIVE;

use super::order::Report;
use super::{Plane, tap};
use crate::io::socket::Port;
use crate::io::sys::{BATCH, Outgoing};

/// Packets in one piece for UDP_SEGMENT, and their octets: what the kernel takes.
const MAX_SEGMENTS: usize = 64;
const MAX_OCTETS: usize = 65_507;

/// CPU time of this thread.
fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.max(0) as u64, time.tv_nsec.clamp(0, 999_999_999) as u32)
}

impl Plane {
    /// Has the devices work until nothing moves, and hands out what is done.
    pub(crate) fn pump(&mut self, now: Instant) {
        self.pump_with(now, Esp::flush);
    }

    /// The same for what came from the network; what goes out may still find company.
    pub(super) fn pump_inbound(&mut self, now: Instant) {
        self.pump_with(now, Esp::flush_inbound);
    }

    /// The same for what nothing is added to any more, if something is in a hurry.
    pub(super) fn pump_if_wanted(&mut self, now: Instant) {
        if self.out.hurry {
            self.pump_with(now, |esp, _, out| esp.submit_closed(out));
        }
    }

    fn pump_with(&mut self, now: Instant, submit: impl Fn(&mut Esp, Instant, &mut Output)) {
        // What it costs to read is not charged: a flood that is held back would be charged to what gets through.
        let begun = self.esp.has_shares().then(thread_time);
        loop {
            submit(&mut self.esp, now, &mut self.out);
            let moved = self.queues.pump(now, &mut self.esp, &mut self.out);
            self.hand_out();
            if !moved {
                break;
            }
        }
        if let Some(begun) = begun {
            self.esp.charge(thread_time().saturating_sub(begun));
        }
    }

    fn hand_out(&mut self) {
        while let Some(packets) = self.out.outer.pop_front() {
            self.send(&packets);
        }
        self.deliver();
        while let Some(packet) = self.out.elsewhere.pop_front() {
            if let Some(letterbox) = self.letterboxes.get(usize::from(packet.lane)) {
                letterbox.hand_over(packet);
            }
        }
        while let Some(path) = self.out.keepalives.pop_front() {
            if let Some(socket) = self.sockets.pick(Port::Natt, path.local.ip()) {
                let from = Some(path.local.ip());
                let out = Outgoing { bytes: &KEEPALIVE, to: path.remote, from, tos: 0, segment: 0 };
                socket.send(std::slice::from_ref(&out), false);
            }
        }
        self.reports.extend(self.out.events.drain(..).map(Report::Event));
    }

    /// Sends sealed packets, in runs as long as the kernel takes.
    fn send(&mut self, packets: &OuterPackets) {
        let port = match packets.path.encap {
            Encap::Udp => Port::Natt,
            Encap::Raw => Port::Raw,
        };
        let local = packets.path.local.ip();
        let Some(socket) = self.sockets.pick(port, local) else { return };
        let most = if socket.cuts_segments() { MAX_SEGMENTS } else { 1 };
        let mut batch: ArrayVec<Outgoing<'_>, BATCH> = ArrayVec::new();
        let mut df = false;
        for run in packets.runs(most, MAX_OCTETS) {
            let Some(bytes) = packets.buf.bytes().get(run.range.clone()) else { continue };
            if batch.is_full() || run.df != df && !batch.is_empty() {
                socket.send(&batch, df);
                batch.clear();
            }
            df = run.df;
            let segment = if run.count > 1 { run.segment as u16 } else { 0 };
            batch.push(Outgoing { bytes, to: packets.path.remote, from: Some(local), tos: run.tos, segment });
        }
        if !batch.is_empty() {
            socket.send(&batch, df);
        }
        if socket.has_errors() {
            let errors: Vec<_> = socket.take_errors().collect();
            self.learn(errors);
        }
    }

    /// Writes what was opened to its TUN devices; packets of one flow as one, also across bursts.
    fn deliver(&mut self) {
        let bursts = self.out.inner.make_contiguous();
        if self.tap.is_open() {
            for packets in &*bursts {
                let label = packets.child.and_then(|line| self.labels.get(&line));
                let label = label.map_or("", |(label, _)| label);
                packets.packets().for_each(|packet| self.tap.packet(tap::AFTER, packet, label));
            }
        }
        for bursts in bursts.chunk_by_mut(|one, next| one.iface == next.iface) {
            let place = bursts.first().map_or(usize::MAX, |packets| packets.iface as usize);
            let Some(tun) = self.tuns.get_mut(place).and_then(Option::as_mut) else { continue };
            for train in self.coalescer.join(bursts, tun.joins()) {
                tun.write(bursts, train);
            }
        }
        self.out.inner.clear();
    }
}
