//! The backend on real tokens and on the emulated one. A module starts once in a process and reads its environment then, so each
//! check runs in a process of its own, on a token of its own.
//!
//! SoftHSM 2 is Debian's `softhsm2`; Kryoptic is built by `cargo xtask test`, or named by `TUSSOCK_KRYOPTIC`. What is not there is
//! passed over, loudly.
#![allow(clippy::unwrap_used)]

mod bench;
mod checks;
mod faults;
mod place;

use std::process::{Command, ExitCode};

use place::{Kind, Place};

/// A check, and the tokens it is for.
pub(crate) struct Check {
    name: &'static str,
    kinds: &'static [Kind],
    run: fn(&Place),
}

const INSIDE: &str = "TUSSOCK_TOKEN_CHECK";

fn main() -> ExitCode {
    let checks: Vec<&Check> = checks::CHECKS.iter().chain(faults::CHECKS).collect();
    if let Ok(name) = std::env::var(INSIDE) {
        let check = checks.iter().find(|check| check.name == name).expect("the parent knows the names");
        (check.run)(&Place::inherited());
        return ExitCode::SUCCESS;
    }
    let filters: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    if std::env::args().any(|word| word == "--list") {
        checks.iter().for_each(|check| println!("{}: test", check.name));
        return ExitCode::SUCCESS;
    }
    let (mut passed, mut failed, mut left_out) = (0, Vec::new(), 0);
    for kind in Kind::ALL {
        let wanted = checks.iter().filter(|check| check.kinds.contains(kind)).filter(|check| {
            let name = format!("{kind}::{}", check.name);
            filters.is_empty() || filters.iter().any(|filter| name.contains(filter))
        });
        for check in wanted {
            let name = format!("{kind}::{}", check.name);
            let place = match Place::make(*kind, check.name) {
                Ok(place) => place,
                Err(why) => {
                    println!("test {name} ... LEFT OUT: {why}");
                    left_out += 1;
                    continue;
                }
            };
            let mut command = Command::new(std::env::current_exe().unwrap());
            let done = command.env(INSIDE, check.name).envs(place.environment()).output().unwrap();
            if done.status.success() {
                println!("test {name} ... ok");
                print!("{}", String::from_utf8_lossy(&done.stdout));
                passed += 1;
                place.remove();
            } else {
                println!(
                    "test {name} ... FAILED ({}), its token is in {}",
                    done.status,
                    place.folder.display()
                );
                println!(
                    "{}{}",
                    String::from_utf8_lossy(&done.stdout),
                    String::from_utf8_lossy(&done.stderr)
                );
                failed.push(name);
            }
        }
    }
    let verdict = if failed.is_empty() { "ok" } else { "FAILED" };
    println!("\ntest result: {verdict}. {passed} passed; {} failed; {left_out} ignored", failed.len());
    failed.iter().for_each(|name| println!("    {name}"));
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
