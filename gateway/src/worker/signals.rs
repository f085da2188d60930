//! What the data path tells, in the engine's words.

use std::net::IpAddr;
use std::time::Instant;

use esp::Event;
use ike::EspSignal;
use spi::Direction;
use wire::TrafficSelector;

use super::Worker;
use crate::events::Notice;

impl Worker {
    /// An event of a lane.
    pub(super) fn signal(&mut self, now: Instant, lane: u16, event: Event) {
        let signal = match event {
            Event::Acquire { child, flow } => {
                let Some((realm, name)) = self.book.names(child) else { return };
                let (realm, child) = (realm.into(), name.into());
                let one = |address: IpAddr, port: Option<u16>| {
                    let (first, last) = port.map_or((0, u16::MAX), |port| (port, port));
                    TrafficSelector::host(address).with_protocol(flow.protocol, first, last)
                };
                let local = one(flow.local, flow.local_port);
                let remote = one(flow.remote, flow.remote_port);
                EspSignal::Acquire { realm, child, local, remote }
            }
            Event::StaleSa { child, spi, dir } => {
                let Some(id) = self.pair_of(child, spi, dir) else { return };
                return self.stale_sa(now, id, dir);
            }
            Event::Rekey { child, spi, dir } => {
                let Some(id) = self.pair_of(child, spi, dir) else { return };
                EspSignal::SoftLimit(id)
            }
            Event::Expired { child, spi, dir } => {
                let Some(id) = self.pair_of(child, spi, dir) else { return };
                EspSignal::HardLimit(id)
            }
            Event::FirstPacket { spi, .. } => {
                let Some(id) = self.book.by_spi_in(spi) else { return };
                EspSignal::PeerAlive(id)
            }
            Event::Rebound { spi, from, .. } => {
                let Some(id) = self.book.by_spi_in(spi) else { return };
                EspSignal::PeerMoved { child: id, remote: from }
            }
            Event::Elsewhere { child, spi } => {
                let Some((realm, _)) = self.book.names(child) else { return };
                // Where one worker is to have the realm's SAs, the others get none.
                if self.realm(realm).is_none_or(|realm| realm.worker.is_some()) {
                    return;
                }
                let Some(child) = self.book.by_spi_out(child, spi) else { return };
                EspSignal::WantResource { child, resource: lane }
            }
            Event::UnknownSpi { spi, from } => {
                let (spi, remote) = (format!("{spi:08x}"), from.to_string());
                return self.events.publish(Notice::UnknownSpi { spi, remote });
            }
            _ => return,
        };
        self.engine.handle_esp(now, signal, &mut self.fx);
        self.carry_out(now);
    }

    fn pair_of(&self, line: esp::ChildId, spi: u32, dir: Direction) -> Option<ike::ChildId> {
        match dir {
            Direction::Open => self.book.by_spi_in(spi),
            Direction::Seal => self.book.by_spi_out(line, spi),
        }
    }

    /// Traffic is a sign of life (RFC 7296 section 2.4).
    pub(super) fn peers_heard(&mut self, now: Instant, spis: &[u32]) {
        for spi in spis {
            if let Some(id) = self.book.by_spi_in(*spi) {
                self.engine.handle_esp(now, EspSignal::PeerAlive(id), &mut self.fx);
            }
        }
        self.carry_out(now);
    }
}
