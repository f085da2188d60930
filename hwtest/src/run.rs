//! All checks over all devices of a driver, one by one: for programs. What fails is told and does not stop the rest.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use spi::{Device, Driver};

use crate::narrow::{Capability, Narrow, Scope};
use crate::{Check, note};

/// One check, and what it is run over.
#[derive(Clone, Copy)]
pub struct Rule {
    /// Where it is, for example `contract`.
    pub part: &'static str,
    /// The claim it checks.
    pub name: &'static str,
    /// What it is run over, one by one.
    pub scope: Scope,
    /// The check.
    pub check: Check,
}

/// How a check ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// As it should.
    Passed,
    /// What went wrong.
    Failed(String),
    /// Not run: the device declares nothing of the kind.
    NotDeclared,
}

/// One check over one capability.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// The claim.
    pub rule: &'static str,
    /// What it was checked for.
    pub capability: String,
    /// How it ended.
    pub ending: Ending,
    /// What it left out, and why.
    pub skipped: Vec<String>,
    /// How long it took.
    pub took: Duration,
}

/// Runs the wanted rules over an open device. `tell` hears of each verdict, with how many are behind and how many there are.
pub fn judge(
    device: &Arc<dyn Device>,
    wanted: &dyn Fn(&Rule) -> bool,
    tell: &mut dyn FnMut(&Verdict, usize, usize),
) -> Vec<Verdict> {
    let caps = &device.desc().caps;
    let split = |rule: &&Rule| {
        let all = rule.scope.split(caps);
        if all.is_empty() { vec![None] } else { all.into_iter().map(Some).collect() }
    };
    let rules: Vec<&Rule> = crate::RULES.iter().filter(|rule| wanted(rule)).collect();
    let steps: Vec<(&Rule, Option<Capability>)> =
        rules.iter().flat_map(|rule| split(rule).into_iter().map(|capability| (*rule, capability))).collect();
    let mut verdicts = Vec::new();
    for (number, (rule, capability)) in steps.iter().enumerate() {
        let verdict = match capability {
            None => Verdict {
                rule: rule.name,
                capability: "none declared".into(),
                ending: Ending::NotDeclared,
                skipped: Vec::new(),
                took: Duration::ZERO,
            },
            Some(capability) => one(rule, device, *capability),
        };
        tell(&verdict, number + 1, steps.len());
        verdicts.push(verdict);
    }
    verdicts
}

fn one(rule: &Rule, device: &Arc<dyn Device>, capability: Capability) -> Verdict {
    let start = Instant::now();
    note::take();
    let narrow = Narrow::new(device, capability);
    let ending = match caught(|| (rule.check)(&narrow)) {
        Ok(()) => Ending::Passed,
        Err(what) => Ending::Failed(what),
    };
    Verdict {
        rule: rule.name,
        capability: capability.to_string(),
        ending,
        skipped: note::take(),
        took: start.elapsed(),
    }
}

thread_local! {
    /// The last panic of this thread, while somebody listens.
    static HEARD: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs something that panics with what is wrong; gives what it said.
///
/// # Errors
/// The message of the panic.
pub fn caught(run: impl FnOnce()) -> Result<(), String> {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(|info| {
        let said = info.payload_as_str().unwrap_or("a panic without words").to_owned();
        HEARD.with_borrow_mut(|heard| *heard = Some(said));
    }));
    let result = catch_unwind(AssertUnwindSafe(run));
    std::panic::set_hook(before);
    result.map_err(|panic| {
        // A panic of another thread is passed on as it was, and was not heard here.
        let passed_on = panic.downcast_ref::<String>().cloned();
        let passed_on = passed_on.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        let said = HEARD.take();
        passed_on.or(said).unwrap_or_else(|| "a panic without words".into())
    })
}

/// Runs a rule over each capability of each device of a driver, as a test: panics with what is wrong.
pub fn over_each(driver: &dyn Driver, rule: &Rule) {
    for device in crate::ring::devices(driver) {
        for capability in rule.scope.split(&device.desc().caps) {
            eprintln!("{} {capability}", device.desc().id);
            (rule.check)(&Narrow::new(&device, capability));
        }
    }
}
