//! What goes wrong, and when: a plan read from a file, and the state that follows it.
//!
//! A device asks at each *occasion* (a job fetched, a reset, a mailbox message, an interrupt about to be raised) what is to
//! go wrong with it, and asks the clock for what is to go wrong at a time. Everything follows from the plan, its seed, and
//! the order of the occasions.

mod plan;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::dice::Dice;
use crate::time::Time;

pub use plan::PlanError;

/// One thing that can go wrong.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Kind {
    /// A job: its completion comes so much later.
    Delay(Duration),
    /// A job: so many later jobs of its ring overtake it.
    Reorder(u32),
    /// A job: it is done, its completion never comes.
    LoseCompletion,
    /// A job: its completion comes twice.
    DoubleCompletion,
    /// A job: its completion names another job.
    WrongCookie,
    /// A job: one bit of its result is wrong; of the check value, where it makes one.
    FlipBit,
    /// A job: it fails in the engine and says so.
    EngineError,
    /// A job: its ring takes no more for so long, and becomes full.
    RingFull(Duration),
    /// A job: from here on the card takes so many times as long, for so long.
    Slow(f64, Duration),
    /// A job or a time: all that is under way is lost, and nothing works until a reset.
    Uncorrectable,
    /// A job or a time: whoever owns the card restarts it. He announces it, waits at most this long for consent, and it is
    /// away for the second duration.
    Restart {
        /// How long the users of the card may take to agree.
        grace: Duration,
        /// How long it is away.
        away: Duration,
    },
    /// A job or a time: the engines stop without a word; until a reset, or for so long.
    Silence(Option<Duration>),
    /// A job or a time: it is pulled out. Every register reads as ones from here on.
    Unplug,
    /// A reset: takes so long. Registers read as ones meanwhile.
    SlowReset(Duration),
    /// A message: nobody answers it, nor acknowledges it.
    MailboxSilent,
    /// A message: a checksum in its answer is wrong.
    MailboxBadChecksum,
    /// A message: the other side speaks no common version.
    MailboxIncompatible,
    /// An interrupt: it does not come.
    LoseInterrupt,
    /// An interrupt: it comes, and another one for no reason.
    SpuriousInterrupt,
}

/// What gives faults an opportunity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occasion {
    /// A job was fetched.
    Job,
    /// A reset begins.
    Reset,
    /// A message came in.
    Message,
    /// An interrupt is about to be raised.
    Interrupt,
}

impl Kind {
    /// What plans call it.
    pub fn name(&self) -> &'static str {
        match self {
            Kind::Delay(_) => "delay",
            Kind::Reorder(_) => "reorder",
            Kind::LoseCompletion => "lost-completion",
            Kind::DoubleCompletion => "doubled-completion",
            Kind::WrongCookie => "wrong-cookie",
            Kind::FlipBit => "flip-bit",
            Kind::EngineError => "engine-error",
            Kind::RingFull(_) => "ring-full",
            Kind::Slow(..) => "slow",
            Kind::Uncorrectable => "uncorrectable",
            Kind::Restart { .. } => "restart",
            Kind::Silence(_) => "silence",
            Kind::Unplug => "unplug",
            Kind::SlowReset(_) => "slow-reset",
            Kind::MailboxSilent => "mailbox-silent",
            Kind::MailboxBadChecksum => "mailbox-bad-checksum",
            Kind::MailboxIncompatible => "mailbox-incompatible",
            Kind::LoseInterrupt => "lost-interrupt",
            Kind::SpuriousInterrupt => "spurious-interrupt",
        }
    }

    /// When it can happen.
    pub fn occasion(&self) -> Occasion {
        match self {
            Kind::SlowReset(_) => Occasion::Reset,
            Kind::MailboxSilent | Kind::MailboxBadChecksum | Kind::MailboxIncompatible => Occasion::Message,
            Kind::LoseInterrupt | Kind::SpuriousInterrupt => Occasion::Interrupt,
            _ => Occasion::Job,
        }
    }

    /// Whether it can also happen at a time, with no job to set it off.
    pub fn befalls_device(&self) -> bool {
        matches!(self, Kind::Uncorrectable | Kind::Restart { .. } | Kind::Silence(_) | Kind::Unplug)
    }
}

/// A fault and the conditions for it. All conditions that are given must hold.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// What happens.
    pub kind: Kind,
    /// Only after so many occasions that fit.
    pub after: u64,
    /// Only from this time on.
    pub at: Time,
    /// Only in so many of all cases.
    pub probability: f64,
    /// Only so often; `None` for always.
    pub times: Option<u64>,
    /// Only on this ring.
    pub ring: Option<u32>,
    /// Only for this service: an index into the names given to [`Plan::parse`].
    pub service: Option<usize>,
}

impl Fault {
    /// The fault at the first occasion, once, anywhere.
    pub fn new(kind: Kind) -> Self {
        Fault { kind, after: 0, at: Time::ZERO, probability: 1.0, times: Some(1), ring: None, service: None }
    }

    /// The fault after so many occasions.
    pub fn after(self, occasions: u64) -> Self {
        Fault { after: occasions, ..self }
    }

    /// The fault from a time on.
    pub fn at(self, at: Time) -> Self {
        Fault { at, ..self }
    }

    /// The fault in so many of all cases, for ever.
    pub fn with_probability(self, probability: f64) -> Self {
        Fault { probability, times: None, ..self }
    }

    /// The fault so often.
    pub fn times(self, times: u64) -> Self {
        Fault { times: Some(times), ..self }
    }

    /// The fault whenever there is an occasion.
    pub fn always(self) -> Self {
        Fault { times: None, ..self }
    }

    /// The fault on one ring.
    pub fn on_ring(self, ring: u32) -> Self {
        Fault { ring: Some(ring), ..self }
    }

    /// The fault for one service.
    pub fn for_service(self, service: usize) -> Self {
        Fault { service: Some(service), ..self }
    }

    /// Whether the clock alone sets it off.
    fn by_the_clock(&self) -> bool {
        self.kind.befalls_device()
            && self.after == 0
            && self.probability >= 1.0
            && self.ring.is_none()
            && self.service.is_none()
    }
}

/// What goes wrong in the life of a device, and the seed of the choices.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Seed of every random choice.
    pub seed: u64,
    /// The faults.
    pub faults: Vec<Fault>,
}

/// A plan being followed.
#[derive(Debug)]
pub struct Faults {
    dice: Dice,
    armed: Vec<Armed>,
    struck: BTreeMap<&'static str, u64>,
}

#[derive(Debug)]
struct Armed {
    fault: Fault,
    /// Occasions that fitted.
    seen: u64,
    left: Option<u64>,
}

impl Faults {
    /// Begins to follow a plan.
    pub fn new(plan: &Plan) -> Self {
        let mut faults = Faults { dice: Dice::new(plan.seed), armed: Vec::new(), struck: BTreeMap::new() };
        for fault in &plan.faults {
            faults.arm(fault.clone());
        }
        faults
    }

    /// Adds a fault.
    pub fn arm(&mut self, fault: Fault) {
        self.armed.push(Armed { left: fault.times, fault, seen: 0 });
    }

    /// Forgets all faults.
    pub fn disarm(&mut self) {
        self.armed.clear();
    }

    /// What goes wrong on this occasion.
    pub fn strike(
        &mut self,
        occasion: Occasion,
        ring: Option<u32>,
        service: Option<usize>,
        now: Time,
    ) -> Vec<Kind> {
        let mut struck = Vec::new();
        for armed in &mut self.armed {
            let fault = &armed.fault;
            let fits = fault.kind.occasion() == occasion
                && !fault.by_the_clock()
                && fault.ring.is_none_or(|wanted| ring == Some(wanted))
                && fault.service.is_none_or(|wanted| service == Some(wanted));
            if !fits {
                continue;
            }
            armed.seen += 1;
            if armed.seen <= fault.after || now < fault.at || armed.left == Some(0) {
                continue;
            }
            if fault.probability < 1.0 && !self.dice.chance(fault.probability) {
                continue;
            }
            armed.left = armed.left.map(|left| left - 1);
            struck.push(fault.kind.clone());
        }
        self.finish(struck)
    }

    /// What goes wrong at a time, up to `now`.
    pub fn strike_by_the_clock(&mut self, now: Time) -> Vec<Kind> {
        let mut struck = Vec::new();
        for armed in self.armed.iter_mut().filter(|armed| armed.fault.by_the_clock() && armed.fault.at <= now)
        {
            // Once is enough: a time does not come again.
            if armed.left != Some(0) {
                armed.left = Some(0);
                struck.push(armed.fault.kind.clone());
            }
        }
        self.finish(struck)
    }

    fn finish(&mut self, struck: Vec<Kind>) -> Vec<Kind> {
        for kind in &struck {
            *self.struck.entry(kind.name()).or_default() += 1;
        }
        self.armed.retain(|armed| armed.left != Some(0));
        struck
    }

    /// When the clock will next set something off.
    pub fn next(&self) -> Option<Time> {
        self.armed.iter().filter(|a| a.fault.by_the_clock()).map(|a| a.fault.at).min()
    }

    /// Dice for choices of the device that belong to the same course of events.
    pub fn dice(&mut self) -> &mut Dice {
        &mut self.dice
    }

    /// How many faults of each kind have happened.
    pub fn struck(&self) -> &BTreeMap<&'static str, u64> {
        &self.struck
    }
}
