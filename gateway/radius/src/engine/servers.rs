//! The servers of an engine, in the order in which they are wanted.

use std::collections::BTreeMap;
use std::ops::{Index, IndexMut};
use std::time::{Duration, Instant};

use super::{Peer, ServerId};
use crate::lane::{Lane, LaneKey};

/// After that long a dead server is given a question: it may not answer to Status-Server.
const DEAD: Duration = Duration::from_secs(60);

/// A server, and what is out there.
pub(super) struct Server {
    pub(super) peer: Peer,
    pub(super) lanes: BTreeMap<LaneKey, Lane>,
    pub(super) out: usize,
    pub(super) dead: Option<Dead>,
    /// When it said something last.
    pub(super) heard: Option<Instant>,
}

/// Since when it is not believed to be there.
pub(super) struct Dead {
    pub(super) since: Instant,
    /// When it was found dead, and how many questions nobody had answered by then.
    pub(super) first: Instant,
    pub(super) unanswered: u64,
    pub(super) why: String,
    pub(super) probe_at: Instant,
    pub(super) probing: bool,
}

/// Servers by their names, in the order in which they are wanted.
#[derive(Default)]
pub(super) struct Servers(pub(super) Vec<(ServerId, Server)>);

impl Servers {
    pub(super) fn iter(&self) -> impl Iterator<Item = &(ServerId, Server)> {
        self.0.iter()
    }

    pub(super) fn ids(&self) -> Vec<ServerId> {
        self.0.iter().map(|(id, _)| *id).collect()
    }

    pub(super) fn get(&self, id: ServerId) -> Option<&Server> {
        self.0.iter().find(|(of, _)| *of == id).map(|(_, server)| server)
    }
}

/// For names that a lane, a flight or a list has just given: with a server go all of these.
impl Index<ServerId> for Servers {
    type Output = Server;

    fn index(&self, id: ServerId) -> &Server {
        self.get(id).expect("what has a lane or a flight is there")
    }
}

impl IndexMut<ServerId> for Servers {
    fn index_mut(&mut self, id: ServerId) -> &mut Server {
        let found = self.0.iter_mut().find(|(of, _)| *of == id).map(|(_, server)| server);
        found.expect("what has a lane or a flight is there")
    }
}

impl Server {
    pub(super) fn new(peer: Peer) -> Self {
        Server { peer, lanes: BTreeMap::new(), out: 0, dead: None, heard: None }
    }

    pub(super) fn is_worth_a_try(&self, now: Instant) -> bool {
        // A dead one gets one question at a time.
        self.dead.as_ref().is_none_or(|dead| {
            now.saturating_duration_since(dead.since) >= DEAD && self.out == usize::from(dead.probing)
        })
    }
}
