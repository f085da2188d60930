//! Runs every check of `hwtest` on a real place of a card, and says PASS or FAIL for each: for a machine, or a virtual one, where there is
//! nothing but this program.
//!
//! ```text
//! hwcheck 0000:6b:01.0 | /run/qat.sock | probe ADDRESS
//! ```
//!
//! With `probe` it opens the card and says what is in the way, or what the card is.
#![allow(clippy::unwrap_used)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use qat::{Config, Place, Qat, Site};
use spi::Driver;

fn site(place: &str) -> Site {
    let place = match place.starts_with('/') {
        true => Place::Socket(place.into()),
        false => Place::Pci(place.into()),
    };
    let mut config = Config::default();
    // A virtual machine on a busy host may be slow; what is lost is found all the same.
    (config.packet_patience, config.operation_patience) = (1000, 3000);
    Site { name: "card".into(), place, config }
}

fn probe(place: &str) -> ExitCode {
    let site = site(place);
    match qat::open("card", &site.place, &site.config) {
        Ok(device) => {
            println!("PROBE {}", device.stats().map(|stats| stats.identity).unwrap_or_default());
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("PROBE cannot be used: {error}");
            ExitCode::FAILURE
        }
    }
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let place = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["probe", place] => return probe(place),
        [place] => place.to_string(),
        _ => {
            eprintln!("usage: hwcheck [probe] PCI-ADDRESS | SOCKET");
            return ExitCode::from(2);
        }
    };
    let mut failed = 0;
    for (name, check) in hwtest::CHECKS {
        let driver = Qat::new(vec![site(&place)]);
        match catch_unwind(AssertUnwindSafe(|| check(&driver))) {
            Ok(()) => println!("PASS {name}"),
            Err(_) => {
                failed += 1;
                println!("FAIL {name}");
                for card in driver.unusable() {
                    println!("     {}", card.why);
                }
            }
        }
    }
    println!("HWCHECK {} passed, {failed} failed", hwtest::CHECKS.len() - failed);
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
