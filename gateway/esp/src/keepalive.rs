//! NAT keepalives (RFC 3948 section 4): a path through a NAT that has been silent gets one octet, so that the NAT does
//! not forget it. Kept per path, since many SAs share one.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use spi::{InFlight, Token};

use crate::esp::Esp;
use crate::hash::Seeded;
use crate::output::Output;
use crate::sa::{Encap, Path};
use crate::timer::Due;

struct Kept {
    path: Path,
    every: Duration,
    last_sent: Instant,
    /// SAs that use the path.
    users: usize,
}

/// The paths to keep alive.
pub(crate) struct Keepalives {
    kept: InFlight<Kept>,
    by_path: HashMap<Path, Token, Seeded>,
}

impl Keepalives {
    pub(crate) fn new(seed: u64) -> Self {
        Keepalives { kept: InFlight::new(usize::MAX), by_path: HashMap::with_hasher(Seeded(seed)) }
    }

    /// Something was sent.
    pub(crate) fn touch(&mut self, token: Token, now: Instant) {
        if let Some(kept) = self.kept.slot(token) {
            kept.last_sent = now;
        }
    }
}

impl Esp {
    /// One more SA wants this path to be kept alive.
    pub(crate) fn keep_alive(&mut self, path: Path, every: Duration, now: Instant) -> Option<Token> {
        if path.encap != Encap::Udp || every.is_zero() {
            return None;
        }
        let Keepalives { kept, by_path } = &mut self.keepalives;
        if let Some(token) = by_path.get(&path) {
            let kept = kept.slot(*token)?;
            kept.users += 1;
            kept.every = kept.every.min(every);
            return Some(*token);
        }
        let token = kept.insert(Kept { path, every, last_sent: now, users: 1 }).ok()?;
        by_path.insert(path, token);
        self.timers.push(now + every, Due::Keepalive(token));
        Some(token)
    }

    /// An SA no longer needs its path.
    pub(crate) fn let_go(&mut self, token: Option<Token>) {
        let Keepalives { kept, by_path } = &mut self.keepalives;
        let Some(token) = token else { return };
        let Some(entry) = kept.slot(token) else { return };
        entry.users -= 1;
        if entry.users == 0 {
            by_path.remove(&entry.path);
            kept.take(token);
        }
    }

    pub(crate) fn keepalive_due(&mut self, now: Instant, token: Token, out: &mut Output) {
        let Some(kept) = self.keepalives.kept.slot(token) else { return };
        if kept.last_sent + kept.every <= now {
            out.keepalives.push_back(kept.path);
            self.counters.keepalives_out += 1;
            kept.last_sent = now;
        }
        self.timers.push(kept.last_sent + kept.every, Due::Keepalive(token));
    }
}
