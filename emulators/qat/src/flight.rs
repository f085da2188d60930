//! A request between being fetched and being answered.

use std::time::Duration;

use emu_model::fault::Kind;
use emu_model::{Ticket, Time};

use crate::fw::Outcome;

/// How long a job that waits to be overtaken waits at most: nobody may come.
const LONGEST_WAIT: Duration = Duration::from_millis(5);

/// A request under way.
pub(crate) struct Flight {
    /// Its number in the life of the device.
    pub(crate) number: u64,
    pub(crate) request: Vec<u8>,
    /// The life of the bank in which it was fetched.
    pub(crate) ticket: Ticket,
    pub(crate) fetched: Time,
    pub(crate) stage: Stage,
    pub(crate) fate: Fate,
}

/// How far it has come.
pub(crate) enum Stage {
    Waiting,
    Running,
    Done { due: Time, outcome: Outcome },
}

/// What goes wrong with it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fate {
    pub(crate) delay: Duration,
    /// So many later ones go first.
    pub(crate) overtaken_by: u32,
    pub(crate) lost: bool,
    pub(crate) doubled: bool,
    pub(crate) wrong_cookie: bool,
    pub(crate) flipped: bool,
    pub(crate) engine_error: bool,
}

impl Fate {
    /// Takes a fault upon itself; gives back what does not concern one job alone.
    pub(crate) fn suffer(&mut self, kind: Kind) -> Option<Kind> {
        match kind {
            Kind::Delay(by) => self.delay += by,
            Kind::Reorder(jobs) => self.overtaken_by = jobs,
            Kind::LoseCompletion => self.lost = true,
            Kind::DoubleCompletion => self.doubled = true,
            Kind::WrongCookie => self.wrong_cookie = true,
            Kind::FlipBit => self.flipped = true,
            Kind::EngineError => self.engine_error = true,
            other => return Some(other),
        }
        None
    }
}

impl Flight {
    /// When it may be answered; none while it is not done.
    pub(crate) fn due(&self) -> Option<Time> {
        match &self.stage {
            Stage::Done { due, .. } => Some(*due),
            _ => None,
        }
    }

    /// Until when it stands aside for others.
    pub(crate) fn aside_until(&self) -> Option<Time> {
        if self.fate.overtaken_by == 0 {
            return None;
        }
        Some(self.due().map_or(Time::NEVER, |due| due.after(LONGEST_WAIT)))
    }
}
