//! Something happens to a card under traffic, and what that costs: moon has two cards, of which the first has a plan.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::{Card, build};
use crate::checkout::Profile;
use crate::inside::{Carried, Flow};
use crate::interop::course::Steps;
use crate::interop::stories::Place;
use crate::numbers::{Numbers, Seen};
use crate::peer::Peer;
use crate::ping::Stream;
use crate::process;
use crate::silence::{self, Pulse, Silence};
use crate::tussock::Tussock;
use crate::world::{ALICE, BOB};

/// How long flows go on around a fault.
pub const TIME: Duration = Duration::from_secs(6);
/// Faults that come by the clock come when a card is seven seconds old; traffic begins before that.
const LEAD: Duration = Duration::from_millis(5500);
/// Between two pings.
const PACE: Duration = Duration::from_millis(10);
/// The longest time in which nothing gets through that is right.
const OUTAGE: Duration = Duration::from_secs(1);

/// Moon with two cards, and sun.
pub struct Stage<'w> {
    pub moon: Tussock<'w>,
    pub sun: Tussock<'w>,
    pub cards: [Card; 2],
    inserted: Instant,
}

/// What traffic of both directions met.
pub struct Met {
    /// TCP from moon's side to sun's.
    pub there: Carried,
    /// TCP from sun's side to moon's.
    pub back: Carried,
    /// Pings with an answer and without.
    pub pings: (usize, usize),
    /// Times of some length without an answer to a ping.
    pub unanswered: Vec<Silence>,
    /// When the machine itself stood still.
    pub still: Vec<Silence>,
    /// What the wire has shown.
    pub wire: Seen,
}

impl<'w> Stage<'w> {
    /// Everything in place, and nothing begun.
    pub fn set(place: &Place<'w>, plan: Option<&str>) -> Result<Stage<'w>> {
        let emulator = build(Profile::Dev)?;
        let inserted = Instant::now();
        let insert = |name: &str, plan: Option<&str>| {
            Card::insert(place.world, "moon", name, &emulator, place.results, plan)
        };
        let cards = [insert("qat0", plan)?, insert("qat1", None)?];
        let (moon, sun) = place.sites()?;
        moon.append(&format!("{}\n\n{}", cards[0].section(), cards[1].section()))?;
        Ok(Stage { moon, sun, cards, inserted })
    }

    /// Both gateways started, and the tunnel up.
    pub fn begin(&mut self, place: &Place<'_>, steps: &mut Steps) -> Result<()> {
        let up = place.begin(steps, &mut self.moon, &mut self.sun);
        up.map(drop).with_context(|| self.drops())
    }

    /// Traffic of both directions while something happens. It is whole, and in the end nothing is left in a queue.
    pub fn under_traffic(
        &mut self,
        place: &Place<'_>,
        steps: &mut Steps,
        happens: impl FnOnce(&mut Stage<'_>, &mut Steps) -> Result<()>,
    ) -> Result<Met> {
        std::thread::sleep(LEAD.saturating_sub(self.inserted.elapsed()));
        let before = self.moon.shared_spis()?;
        steps.begin("traffic goes both ways");
        let wire = Numbers::begin(place.world)?;
        let pulse = Pulse::begin();
        let pings = Stream::every(place.world, "alice", BOB, PACE, &place.results.join("pings.log"))?;
        let there = Flow::begin(place.world, "alice", "bob", (BOB, 7000), TIME)?;
        let back = Flow::begin(place.world, "bob", "alice", (ALICE, 7001), TIME)?;
        happens(self, steps)?;
        steps.begin("the traffic arrives");
        let (there, back) = (there.end()?, back.end()?);
        let (answered, lost, unanswered) = pings.silences(2 * PACE)?;
        let met = Met {
            there,
            back,
            pings: (answered, lost),
            unanswered,
            still: pulse.end(),
            wire: wire.finish()?,
        };
        steps.begin("with the same SAs");
        if self.moon.shared_spis()? != before {
            bail!("the SAs are others now");
        }
        steps.begin("and nothing is left in a queue");
        process::until(2 * TIME, || Ok(self.moon.is_idle()?.then_some(())))?.with_context(|| {
            format!("something is left: {:#}", self.moon.json("accel").unwrap_or_default())
        })?;
        place.pings().with_context(|| self.drops())?;
        Ok(met)
    }

    /// What both ends have dropped, for when something is missing.
    fn drops(&self) -> String {
        let of = |end: &Tussock<'_>| end.json("status").map(|status| status["drops"].to_string());
        format!("moon dropped {:?}, sun {:?}", of(&self.moon), of(&self.sun))
    }

    /// What moon says of a device.
    pub fn device(&self, name: &str) -> Result<Value> {
        self.moon.device(name)
    }

    /// A number in it, by its path.
    pub fn count(&self, name: &str, path: &str) -> Result<u64> {
        self.moon.device_count(name, path)
    }

    /// Whether it is in use.
    pub fn is_ready(&self, name: &str) -> Result<bool> {
        Ok(self.device(name)?.pointer("/device/health").is_some_and(|health| health == "ready"))
    }

    /// Both gateways ended.
    pub fn end(&mut self) -> Result<()> {
        self.moon.stop()?;
        self.sun.stop()
    }
}

impl Met {
    /// The longest time in which no packet got through.
    pub fn outage(&self) -> Duration {
        silence::longest(&self.unanswered, &self.still)
    }

    /// The longest time in which a TCP connection brought nothing. It is longer than the outage, for who has lost a packet waits
    /// before it sends another, each time twice as long.
    pub fn stalled(&self) -> [Duration; 2] {
        [&self.there, &self.back].map(|flow| silence::longest(&flow.silences, &self.still))
    }

    /// An error if anything is not as it should be.
    pub fn is_right(&self) -> Result<()> {
        for flow in [&self.there, &self.back] {
            if flow.octets < 1 << 20 {
                bail!("only {} octets arrived one way", flow.octets);
            }
            if flow.wrong > 0 {
                bail!("{} of {} octets are not what was sent", flow.wrong, flow.octets);
            }
        }
        self.wire.none_again()?;
        if self.outage() > OUTAGE {
            bail!("nothing got through for {} ms", self.outage().as_millis());
        }
        Ok(())
    }
}

impl fmt::Display for Met {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [there, back] = self.stalled().map(|time| time.as_millis());
        write!(
            f,
            "{} ms outage, {} MB there and {} MB back, {} wrong octets, {} of {} packets with a number used before, TCP stood \
             still for {there} and {back} ms",
            self.outage().as_millis(),
            self.there.octets / 1_000_000,
            self.back.octets / 1_000_000,
            self.there.wrong + self.back.wrong,
            self.wire.again,
            self.wire.packets,
        )
    }
}
