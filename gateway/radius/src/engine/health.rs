//! Whether a server is there: found dead by its silence, alive by anything that it says.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::servers::Dead;
use super::{Asked, Effect, Engine, ServerId, Ticket};
use crate::attribute::Written;
use crate::lane::Lane;

/// How often a dead server is asked for its status.
pub(super) const PROBE: Duration = Duration::from_secs(5);

impl Engine {
    /// A server that does not answer is not asked any more, and what it has not begun with moves on.
    pub(super) fn server_died(&mut self, now: Instant, id: ServerId, why: &str) {
        let server = &mut self.servers[id];
        let probe_at = now + PROBE;
        if let Some(dead) = &mut server.dead {
            // It had its minute, and failed again.
            dead.since = now;
            dead.why = why.to_owned();
            return;
        }
        let unanswered = self.counters.unanswered;
        server.dead =
            Some(Dead { since: now, first: now, unanswered, why: why.to_owned(), probe_at, probing: false });
        self.effects.push_back(Effect::Lost(Arc::clone(&server.peer.name), why.to_owned()));
        // What others began with it is theirs to wait for; the rest need not.
        let tickets: Vec<Ticket> = server.lanes.values().flat_map(Lane::tickets).collect();
        for ticket in tickets {
            if self.asked.get(&ticket).is_some_and(|asked| asked.only.is_none() && !asked.probe) {
                self.give_up_on(now, ticket, why);
            }
        }
    }

    /// It said something.
    pub(super) fn heard(&mut self, now: Instant, id: ServerId) {
        let server = &mut self.servers[id];
        server.heard = Some(now);
        if let Some(dead) = server.dead.take() {
            let down = now.saturating_duration_since(dead.first);
            let unanswered = self.counters.unanswered - dead.unanswered;
            self.effects.push_back(Effect::Back(Arc::clone(&server.peer.name), down, unanswered));
        }
    }

    /// Asks a dead server whether it is there.
    pub(super) fn probe(&mut self, now: Instant, id: ServerId) {
        let server = &mut self.servers[id];
        let Some(dead) = server.dead.as_mut().filter(|dead| !dead.probing && dead.probe_at <= now) else {
            return;
        };
        dead.probing = true;
        let ticket = Ticket(self.next_probe);
        self.next_probe += 1;
        let attributes = Written::new();
        let asked = Asked {
            attributes,
            probe: true,
            only: Some(id),
            failed: Vec::new(),
            broken: false,
            flight: None,
        };
        self.asked.insert(ticket, asked);
        if !self.launch(now, ticket, id) {
            self.give_up_on(now, ticket, "no socket");
        }
    }
}
