//! What a tunnel may leave behind in a host: addresses, routes, rules, devices. Taken before and after, it must be
//! the same.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::process;
use crate::world::World;

/// What a fact about policy rules begins with.
const RULE: &str = "rule ";

/// The network state of a host, one line a fact.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Residue {
    host: &'static str,
    facts: BTreeSet<String>,
    rules: bool,
}

impl Residue {
    /// Take stock.
    pub fn of(world: &World, host: &'static str) -> Result<Residue> {
        let mut facts = BTreeSet::new();
        let questions = [
            "-o link show",
            "-o addr show",
            "route show table all",
            "-6 route show table all",
            "rule show",
            "-6 rule show",
        ];
        for question in questions {
            let mut command = Command::new("ip");
            command.args(["-n", &world.net.name(host)]).args(question.split(' '));
            let answer = process::run(&mut command)?;
            let rule = question.contains("rule");
            let facts_of = answer.lines().filter_map(|line| fact(question, line));
            facts.extend(facts_of.map(|fact| if rule { format!("{RULE}{fact}") } else { fact }));
        }
        Ok(Residue { host, facts, rules: true })
    }

    /// The same without policy rules. They belong to no device, so after a `kill -9` they wait, with nothing to
    /// point at, for the next start.
    pub fn without_rules(&self) -> Residue {
        let facts = self.facts.iter().filter(|fact| !fact.starts_with(RULE)).cloned().collect();
        Residue { host: self.host, facts, rules: false }
    }

    fn now(&self, world: &World) -> Result<Residue> {
        let now = Residue::of(world, self.host)?;
        Ok(if self.rules { now } else { now.without_rules() })
    }

    /// Wait a moment for the host to look like this again; an error with the differences if it does not.
    pub fn must_return(&self, world: &World, after: &str) -> Result<()> {
        let same = process::until(Duration::from_secs(4), || Ok((self.now(world)? == *self).then_some(())))?;
        if same.is_some() {
            return Ok(());
        }
        let now = self.now(world)?;
        let mut lines = String::new();
        for left in now.facts.difference(&self.facts) {
            lines += &format!("\n      left:    {left}");
        }
        for lost in self.facts.difference(&now.facts) {
            lines += &format!("\n      missing: {lost}");
        }
        bail!("{after}, {} is not as it was before:{lines}", self.host)
    }
}

/// A line worth comparing, without what changes by itself.
fn fact(question: &str, line: &str) -> Option<String> {
    // The kernel's own bookkeeping of IPv6 comes and goes with an interface's carrier.
    if line.contains("ff00::/8") || line.contains("fe80:") || line.contains("multicast") {
        return None;
    }
    let mut words: Vec<&str> = line.split_whitespace().filter(|word| *word != "\\").collect();
    if question.contains("link") {
        // Number and name only: state and flags follow the carrier.
        words.truncate(2);
    } else if let Some(at) = words.iter().position(|word| *word == "expires") {
        words.truncate(at);
    }
    (!words.is_empty()).then(|| words.join(" "))
}
