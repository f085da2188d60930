//! Which engine carries which packets: the choice, and what is said about it. What it rests on is measured in `trial`.

use serde::{Deserialize, Serialize};
use spi::{EngineReport, EspOp};

/// What the operator wants of the engines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum EngineChoice {
    /// The faster one for each transform, size and burst, as measured on this machine.
    #[default]
    Auto,
    /// AWS-LC only.
    AwsLc,
    /// Intel's ipsec-mb for whatever it carries, fast or not, and AWS-LC for the rest. Where the library is not built in or
    /// the processor is not good enough for it, this is AWS-LC only, and [`engines`](spi::Device::engines) says so.
    IpsecMb,
}

pub(crate) const AWS_LC: &str = "aws-lc";
pub(crate) const IPSEC_MB: &str = "ipsec-mb";

/// Sizes of text that are told apart, octets.
pub(crate) const TEXTS: [u16; 3] = [64, 512, 1400];
/// Lengths of bursts that are told apart.
pub(crate) const BURSTS: [u16; 4] = [1, 8, 16, 32];

/// Of one transform and direction: the packets that go to ipsec-mb.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Picks(u16);

#[cfg_attr(not(feature = "ipsec-mb"), allow(dead_code, reason = "with one engine there is nothing to pick"))]
impl Picks {
    /// All packets.
    pub(crate) const ALL: Picks = Picks((1 << (TEXTS.len() * BURSTS.len())) - 1);

    /// No packet.
    pub(crate) fn is_none(self) -> bool {
        self.0 == 0
    }

    /// Every packet.
    pub(crate) fn is_all(self) -> bool {
        self == Self::ALL
    }

    /// Adds packets of the `text`th size in bursts of the `burst`th length.
    pub(crate) fn add(&mut self, text: usize, burst: usize) {
        self.0 |= Self::bit(text, burst);
    }

    /// Whether packets of the `text`th size in bursts of the `burst`th length are among them.
    pub(crate) fn has(self, text: usize, burst: usize) -> bool {
        self.0 & Self::bit(text, burst) != 0
    }

    /// Whether a burst goes there. It is judged by its length and the mean of its packets.
    pub(crate) fn take(self, ops: &[EspOp]) -> bool {
        let total: usize = ops.iter().map(|op| usize::from(op.len)).sum();
        let mean = total / ops.len().max(1);
        // Sizes change sides half-way, in proportion. Bursts count as the longest that is not longer: what pays for eight
        // packets need not pay for seven, and pays for nine.
        let text =
            TEXTS.windows(2).take_while(|pair| mean * mean > usize::from(pair[0]) * usize::from(pair[1]));
        let burst = BURSTS.iter().skip(1).take_while(|burst| ops.len() >= usize::from(**burst));
        self.has(text.count(), burst.count())
    }

    fn bit(text: usize, burst: usize) -> u16 {
        1 << (text * BURSTS.len() + burst)
    }
}

/// The picks for an SA. The first SA of a transform takes some milliseconds, in which they are made.
#[cfg(feature = "ipsec-mb")]
pub(crate) fn picks(choice: EngineChoice, params: &spi::SaParams) -> Picks {
    match choice {
        EngineChoice::Auto => crate::trial::picks(params.encr, params.integ, params.dir),
        EngineChoice::AwsLc => Picks::default(),
        EngineChoice::IpsecMb => Picks::ALL,
    }
}

/// What there is to say about the engines of a device with this choice.
pub(crate) fn reports(choice: EngineChoice) -> Vec<EngineReport> {
    let say = |engine, why: String| EngineReport { engine, transform: None, costs: Vec::new(), why };
    let presence = presence();
    let aws_lc = |why: &str| say(AWS_LC, why.to_owned());
    match (choice, presence) {
        (_, Err(why)) => vec![aws_lc("there is no other"), say(IPSEC_MB, format!("not there: {why}"))],
        (EngineChoice::AwsLc, Ok(version)) => {
            vec![
                aws_lc("configured"),
                say(IPSEC_MB, format!("version {version}, not used: aws-lc is configured")),
            ]
        }
        (EngineChoice::IpsecMb, Ok(version)) => {
            vec![
                aws_lc("for what ipsec-mb does not carry"),
                say(IPSEC_MB, format!("version {version}, configured for what it carries")),
            ]
        }
        (EngineChoice::Auto, Ok(version)) => {
            let all = vec![
                aws_lc("for what ipsec-mb does not carry, and where it is not slower by a tenth"),
                say(IPSEC_MB, format!("version {version}, where it is faster by a tenth")),
            ];
            all.into_iter().chain(trials()).collect()
        }
    }
}

fn trials() -> Vec<EngineReport> {
    #[cfg(feature = "ipsec-mb")]
    return crate::trial::reports();
    #[cfg(not(feature = "ipsec-mb"))]
    Vec::new()
}

/// The version of ipsec-mb, or why it is not there.
fn presence() -> Result<String, &'static str> {
    #[cfg(feature = "ipsec-mb")]
    return crate::imb::presence();
    #[cfg(not(feature = "ipsec-mb"))]
    Err("built without the feature ipsec-mb")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_judged_by_its_length_and_the_mean_of_its_packets() {
        let class = |count: usize, len: u16| {
            let ops = vec![EspOp::new(0, len, 1); count];
            let mut found = Vec::new();
            for (text, size) in TEXTS.into_iter().enumerate() {
                for (burst, length) in BURSTS.into_iter().enumerate() {
                    let mut picks = Picks::default();
                    picks.add(text, burst);
                    if picks.take(&ops) {
                        found.push((size, length));
                    }
                }
            }
            assert!(Picks::ALL.take(&ops) && !Picks::default().take(&ops));
            found
        };
        for (count, len, expected) in [
            (0, 0, (64, 1)),
            (1, 40, (64, 1)),
            (7, 181, (64, 1)),
            (8, 182, (512, 8)),
            (31, 846, (512, 16)),
            (32, 847, (1400, 32)),
            (64, 65_000, (1400, 32)),
        ] {
            assert_eq!(class(count, len), [expected], "{count} packets of {len}");
        }
    }

    #[test]
    fn an_engine_that_is_not_there_is_reported_with_the_reason() {
        for choice in [EngineChoice::Auto, EngineChoice::AwsLc, EngineChoice::IpsecMb] {
            let reports = reports(choice);
            let of = |name| reports.iter().find(|report| report.engine == name).unwrap();
            assert!(!of(AWS_LC).why.is_empty() && !of(IPSEC_MB).why.is_empty());
            assert_eq!(of(IPSEC_MB).why.starts_with("not there: "), presence().is_err());
        }
    }
}
