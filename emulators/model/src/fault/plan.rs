//! A fault plan as a file.
//!
//! ```toml
//! seed = 7
//!
//! [[fault]]
//! kind = "delay"          # what happens; the table below has what each kind takes
//! by = "20ms"
//! after = 100             # not before the 101st job that fits
//! ring = 2                # only on this ring
//! service = "sym"         # only for this service
//! probability = 0.5       # only every other time
//! at = "1.5s"             # not before this time
//! times = 3               # so often; "always" for no end. Default: once, or always with a probability
//! ```

use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use super::{Fault, Kind, Plan};
use crate::time::{Time, parse_duration};

/// What is wrong with a plan, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanError {
    file: String,
    line: usize,
    what: String,
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.what)
    }
}

impl std::error::Error for PlanError {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPlan {
    #[serde(default)]
    seed: u64,
    #[serde(default)]
    fault: Vec<Spanned<RawFault>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFault {
    kind: Spanned<String>,
    after: Option<u64>,
    at: Option<Spanned<String>>,
    probability: Option<Spanned<f64>>,
    times: Option<Spanned<RawTimes>>,
    ring: Option<u32>,
    service: Option<Spanned<String>>,
    by: Option<Spanned<String>>,
    jobs: Option<Spanned<u32>>,
    factor: Option<Spanned<f64>>,
    #[serde(rename = "for")]
    lasting: Option<Spanned<String>>,
    grace: Option<Spanned<String>>,
    away: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RawTimes {
    Number(u64),
    Word(String),
}

/// The words for kinds, and what each kind takes besides the conditions.
const KINDS: [(&str, &[&str]); 19] = [
    ("delay", &["by"]),
    ("reorder", &["jobs"]),
    ("lost-completion", &[]),
    ("doubled-completion", &[]),
    ("wrong-cookie", &[]),
    ("flip-bit", &[]),
    ("engine-error", &[]),
    ("ring-full", &["for"]),
    ("slow", &["factor", "for"]),
    ("uncorrectable", &[]),
    ("restart", &["grace", "away"]),
    ("silence", &["for"]),
    ("unplug", &[]),
    ("slow-reset", &["for"]),
    ("mailbox-silent", &[]),
    ("mailbox-bad-checksum", &[]),
    ("mailbox-incompatible", &[]),
    ("lost-interrupt", &[]),
    ("spurious-interrupt", &[]),
];

impl Plan {
    /// Reads a plan. `file` is what errors call it; `services` are the names that `service = …` may have.
    ///
    /// # Errors
    /// What is wrong, with file and line.
    pub fn parse(file: &str, text: &str, services: &[&str]) -> Result<Plan, PlanError> {
        let reader = Reader { file, text, services };
        let raw: RawPlan = toml::from_str(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            reader.error(at, error.message().trim().to_string())
        })?;
        let faults = raw.fault.iter().map(|fault| reader.fault(fault)).collect::<Result<_, _>>()?;
        Ok(Plan { seed: raw.seed, faults })
    }
}

struct Reader<'a> {
    file: &'a str,
    text: &'a str,
    services: &'a [&'a str],
}

impl Reader<'_> {
    fn error(&self, at: usize, what: String) -> PlanError {
        let before = self.text.get(..at).unwrap_or(self.text);
        PlanError { file: self.file.to_string(), line: before.matches('\n').count() + 1, what }
    }

    fn fault(&self, spanned: &Spanned<RawFault>) -> Result<Fault, PlanError> {
        let raw = spanned.get_ref();
        let kind = self.kind(raw)?;
        let mut fault = Fault::new(kind);
        fault.after = raw.after.unwrap_or(0);
        fault.ring = raw.ring;
        if let Some(at) = &raw.at {
            fault.at = Time::ZERO.after(self.duration(at)?);
        }
        if let Some(probability) = &raw.probability {
            fault.probability = *probability.get_ref();
            if !(0.0..=1.0).contains(&fault.probability) {
                let what = "a probability is between 0.0 and 1.0".to_string();
                return Err(self.error(probability.span().start, what));
            }
            fault.times = None;
        }
        if let Some(times) = &raw.times {
            fault.times = match times.get_ref() {
                RawTimes::Number(number) => Some(*number),
                RawTimes::Word(word) if word == "always" => None,
                RawTimes::Word(word) => {
                    let what = format!("times is a number or \"always\", not \"{word}\"");
                    return Err(self.error(times.span().start, what));
                }
            };
        }
        if let Some(service) = &raw.service {
            let found = self.services.iter().position(|name| name == service.get_ref());
            fault.service = Some(found.ok_or_else(|| {
                let known = self.services.join(", ");
                let what = format!("there is no service \"{}\"; there are: {known}", service.get_ref());
                self.error(service.span().start, what)
            })?);
        }
        Ok(fault)
    }

    fn kind(&self, raw: &RawFault) -> Result<Kind, PlanError> {
        let (at, word) = (raw.kind.span().start, raw.kind.get_ref().as_str());
        let Some((_, takes)) = KINDS.iter().find(|(name, _)| *name == word) else {
            let near = KINDS.iter().map(|(name, _)| *name).min_by_key(|name| distance(name, word));
            let hint = match near {
                Some(name) if distance(name, word) <= 3 => format!("; did you mean \"{name}\"?"),
                _ => format!("; there are: {}", KINDS.map(|(name, _)| name).join(", ")),
            };
            return Err(self.error(at, format!("there is no fault of kind \"{word}\"{hint}")));
        };
        let given = [
            ("by", raw.by.as_ref().map(|v| v.span().start)),
            ("jobs", raw.jobs.as_ref().map(|v| v.span().start)),
            ("factor", raw.factor.as_ref().map(|v| v.span().start)),
            ("for", raw.lasting.as_ref().map(|v| v.span().start)),
            ("grace", raw.grace.as_ref().map(|v| v.span().start)),
            ("away", raw.away.as_ref().map(|v| v.span().start)),
        ];
        for (name, place) in given {
            if let Some(place) = place.filter(|_| !takes.contains(&name)) {
                return Err(self.error(place, format!("\"{word}\" takes no \"{name}\"")));
            }
        }
        let need = |name: &str, value: &Option<Spanned<String>>| match value {
            Some(text) => self.duration(text),
            None => Err(self.error(at, format!("\"{word}\" needs \"{name}\", a time such as \"20ms\""))),
        };
        Ok(match word {
            "delay" => Kind::Delay(need("by", &raw.by)?),
            "reorder" => Kind::Reorder(raw.jobs.as_ref().map_or(1, |jobs| *jobs.get_ref())),
            "lost-completion" => Kind::LoseCompletion,
            "doubled-completion" => Kind::DoubleCompletion,
            "wrong-cookie" => Kind::WrongCookie,
            "flip-bit" => Kind::FlipBit,
            "engine-error" => Kind::EngineError,
            "ring-full" => Kind::RingFull(need("for", &raw.lasting)?),
            "slow" => {
                let Some(factor) = &raw.factor else {
                    return Err(self.error(at, "\"slow\" needs \"factor\", such as 10.0".to_string()));
                };
                if !(factor.get_ref().is_finite() && *factor.get_ref() > 0.0) {
                    return Err(self.error(factor.span().start, "a factor is more than 0.0".to_string()));
                }
                Kind::Slow(*factor.get_ref(), need("for", &raw.lasting)?)
            }
            "uncorrectable" => Kind::Uncorrectable,
            "restart" => Kind::Restart { grace: need("grace", &raw.grace)?, away: need("away", &raw.away)? },
            "silence" => Kind::Silence(raw.lasting.as_ref().map(|text| self.duration(text)).transpose()?),
            "unplug" => Kind::Unplug,
            "slow-reset" => Kind::SlowReset(need("for", &raw.lasting)?),
            "mailbox-silent" => Kind::MailboxSilent,
            "mailbox-bad-checksum" => Kind::MailboxBadChecksum,
            "mailbox-incompatible" => Kind::MailboxIncompatible,
            "lost-interrupt" => Kind::LoseInterrupt,
            _ => Kind::SpuriousInterrupt,
        })
    }

    fn duration(&self, text: &Spanned<String>) -> Result<Duration, PlanError> {
        parse_duration(text.get_ref()).map_err(|what| self.error(text.span().start, what))
    }
}

/// How many letters have to be changed, added or removed.
fn distance(one: &str, other: &str) -> usize {
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.bytes().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (b, cell) in other.bytes().zip(row.iter_mut().skip(1)) {
            let up = *cell;
            let best = (diagonal + usize::from(a != b)).min(up + 1).min(left + 1);
            diagonal = up;
            *cell = best;
            left = best;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

/// The words for kinds and what each takes.
#[cfg(test)]
pub(super) fn kinds() -> impl Iterator<Item = (&'static str, &'static [&'static str])> {
    KINDS.into_iter()
}
