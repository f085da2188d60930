//! What the provider is told: as parameters in its section of OpenSSL's configuration, or in the environment.

use std::time::Duration;

use emu_model::fault::{Kind, Plan};
use emu_model::parse_duration;

/// What gives faults an occasion; a plan names them by `service = …`.
pub(crate) const SERVICES: [&str; 4] = ["packet", "exchange", "signature", "key"];

/// The parameters, and the variables that stand in for them.
pub(crate) const NAMES: [(&std::ffi::CStr, &str); 2] =
    [(c"plan", "TUSSOCK_PAUSING_PLAN"), (c"latency", "TUSSOCK_PAUSING_LATENCY")];

/// See the module.
#[derive(Debug)]
pub(crate) struct Options {
    /// What goes wrong.
    pub(crate) plan: Plan,
    /// How long the hardware takes.
    pub(crate) latency: Duration,
}

impl Options {
    /// Reads the parameters; `None` in a place takes the variable.
    ///
    /// # Errors
    /// What is wrong with which.
    pub(crate) fn new(given: [Option<String>; 2]) -> Result<Self, String> {
        let mut values = NAMES
            .iter()
            .zip(given)
            .map(|((_, variable), given)| given.or_else(|| std::env::var(variable).ok()));
        let (plan, latency) = (values.next().flatten(), values.next().flatten());
        let plan = match plan {
            None => Plan::default(),
            Some(file) => {
                let text = std::fs::read_to_string(&file).map_err(|error| format!("{file}: {error}"))?;
                Plan::parse(&file, &text, &SERVICES).map_err(|error| error.to_string())?
            }
        };
        for fault in &plan.faults {
            if !knows(&fault.kind) {
                return Err(format!(
                    "the plan has a fault that no provider can have: {:?}; it has delay, lost-completion, doubled-completion, \
                     flip-bit, engine-error, slow, and silence",
                    fault.kind
                ));
            }
        }
        let latency = match latency {
            None => Duration::from_micros(500),
            Some(text) => parse_duration(&text).map_err(|what| format!("latency: {what}"))?,
        };
        Ok(Options { plan, latency })
    }
}

fn knows(kind: &Kind) -> bool {
    matches!(
        kind,
        Kind::Delay(_)
            | Kind::LoseCompletion
            | Kind::DoubleCompletion
            | Kind::FlipBit
            | Kind::EngineError
            | Kind::Slow(..)
            | Kind::Silence(_)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_no_sense_is_refused() {
        let of = |plan: &str| {
            let file = std::env::temp_dir().join(format!("tussock-pausing-{}.toml", std::process::id()));
            std::fs::write(&file, plan).expect("a file in the temporary directory");
            let options = Options::new([Some(file.display().to_string()), Some("2ms".into())]);
            std::fs::remove_file(file).ok();
            options
        };
        let good = of("[[fault]]\nkind = \"delay\"\nby = \"5ms\"\nservice = \"exchange\"\n");
        assert_eq!(good.map(|options| options.latency), Ok(Duration::from_millis(2)));
        let error = of("[[fault]]\nkind = \"unplug\"\n").unwrap_err();
        assert!(error.contains("no provider can have"), "{error}");
        let error = of("[[fault]]\nkind = \"delay\"\nby = \"5ms\"\nservice = \"sym\"\n").unwrap_err();
        assert!(error.contains("no service \"sym\""), "{error}");
        assert!(Options::new([None, Some("soon".into())]).unwrap_err().starts_with("latency: "));
    }
}
