//! `tussock check`: what a configuration means, or what is wrong with it and where; with `--devices` also whether its accelerators open.

use std::path::Path;
use std::process::ExitCode;
use std::sync::mpsc;
use std::time::Duration;

use clap::Args;
use registry::Accel;

use super::{ConfigFile, fail};
use crate::config;
use crate::config::report::Problem;

/// What to check.
#[derive(Args, Debug, PartialEq, Eq)]
pub struct Options {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub file: ConfigFile,
    /// Open each accelerator as well, and say which do not open, and why. A token is looked at without its PIN. A card that a running
    /// gateway has is taken, which is said of it
    #[arg(long)]
    pub devices: bool,
}

/// Carries it out.
pub(super) fn run(options: &Options) -> ExitCode {
    let path = &options.file.config;
    let loaded = match config::load(path) {
        Ok(loaded) => loaded,
        Err(problems) => {
            warn(&problems.warnings);
            eprintln!("{problems}");
            return ExitCode::from(2);
        }
    };
    warn(&loaded.warnings);
    let summary = config::summary::summary(&loaded);
    let wrong =
        if options.devices { devices(&loaded.settings.accel, &loaded.accel_places) } else { Vec::new() };
    for problem in &wrong {
        eprintln!("{problem}");
    }
    match unmet(path, loaded) {
        Ok(unmet) if !unmet.is_empty() => {
            unmet.iter().for_each(|text| eprintln!("{text}"));
            return ExitCode::from(2);
        }
        Ok(_) => {}
        Err(error) => return fail(&error),
    }
    print!("{summary}");
    if !wrong.is_empty() {
        println!("\nthe file is fine; {} of its accelerators cannot be used as things are", wrong.len());
        return ExitCode::FAILURE;
    }
    println!("\nok");
    ExitCode::SUCCESS
}

fn warn(warnings: &[Problem]) {
    for warning in warnings {
        eprintln!("warning: {warning}");
    }
}

/// What realms want and nothing here can do, and keys that do not open.
fn unmet(path: &Path, loaded: config::Loaded) -> anyhow::Result<Vec<String>> {
    let wanting = crate::worker::unmet(&loaded.settings.devices(), &loaded.realms);
    let mut wrong: Vec<String> = wanting.iter().map(|text| format!("{}: {text}", path.display())).collect();
    for problem in secure::check(loaded.secure)? {
        let place = loaded.realm_places.get(&problem.realm);
        wrong.push(match place {
            Some(place) => Problem { text: problem.to_string(), ..place.clone() }.to_string(),
            None => format!("{}: {problem}", path.display()),
        });
    }
    Ok(wrong)
}

/// How long a device may take to open.
const PATIENCE: Duration = Duration::from_secs(10);

/// Opens each accelerator and lets it go; what is in the way of those that do not open, at their places in the file.
fn devices(sections: &[Accel], places: &[Problem]) -> Vec<Problem> {
    let mut wrong = Vec::new();
    for (section, place) in sections.iter().zip(places) {
        let (answer, answered) = mpsc::channel();
        let tried = section.clone();
        // One that hangs is left behind: this program ends soon, and the thread with it.
        std::thread::spawn(move || answer.send(registry::accel::try_out(&tried)));
        let why = match answered.recv_timeout(PATIENCE) {
            Ok(Ok(identity)) => {
                println!("accelerator {} opens: {identity}", section.name);
                continue;
            }
            Ok(Err(why)) => why,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                format!("does not open within {} s; does a gateway that runs have it?", PATIENCE.as_secs())
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                "opening it ended in a panic, which is a bug".to_owned()
            }
        };
        wrong.push(Problem { text: format!("accel.{}: {why}", section.name), ..place.clone() });
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_does_not_open_is_named_with_its_place_and_the_reason() {
        let section = |provider: &str| Accel::new(provider).of("openssl").with("provider", provider);
        let place = |line| Problem { file: "g.toml".into(), line, column: 2, text: String::new() };
        let found = devices(&[section("default"), section("nonexistent")], &[place(3), place(7)]);
        let [problem] = &found[..] else { panic!("{found:?}") };
        let text = problem.to_string();
        assert!(
            text.starts_with("g.toml:7:2: accel.nonexistent: the provider `nonexistent` does not load"),
            "{text}"
        );
    }
}
