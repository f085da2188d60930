//! Each kind of fault by itself, under pings and TCP of both directions: a table of what it costs.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use clap::Args;

use crate::cards::faults;
use crate::cards::stage::{Met, Stage, TIME};
use crate::checkout;
use crate::interop::course::{Steps, fresh};
use crate::interop::stories::Place;
use crate::world::{Layout, World};

/// Which.
#[derive(Args)]
pub struct Options {
    /// Parts of their names; all if there is none.
    filter: Vec<String>,
    /// Write the table into docs/hardware/qat-emulator.md.
    #[arg(long, conflicts_with = "filter")]
    write_docs: bool,
}

/// The lines between which the table stands.
const BEGIN: &str = "<!-- below: cargo xtask soak faults --write-docs -->\n";
const END: &str = "<!-- end -->\n";

/// Run all; true if none costs more than it may.
pub fn run(world: &World, binary: &Path, results: &Path, options: &Options) -> Result<bool> {
    let wanted = |name: &str| {
        options.filter.is_empty() || options.filter.iter().any(|part| name.contains(part.as_str()))
    };
    let (mut table, mut good) = (String::new(), true);
    println!("{HEAD}");
    let pulled = ("card-pulled", "a card is pulled out, and put back", None);
    let all = faults::ALL.iter().map(|fault| (fault.name, fault.shows, Some(fault.plan())));
    for (name, shows, plan) in all.chain([pulled]).filter(|(name, ..)| wanted(name)) {
        let results = results.join(name);
        fresh(&results)?;
        world.build(Layout::Sites)?;
        let place = Place { world, binary, results: &results };
        let mut steps = Steps::new(&results)?;
        let met = meet(&place, &mut steps, plan.as_deref());
        let line = match met.with_context(|| format!("at \"{}\"", steps.current())) {
            Ok((met, faults)) => {
                let wrong = met.is_right().err().map(|error| format!("{error:#}"));
                let wrong = wrong.or_else(|| (faults == 0).then(|| "the fault has not happened".to_owned()));
                good &= wrong.is_none();
                row(shows, &met, wrong.as_deref())
            }
            Err(error) => {
                good = false;
                format!("| {shows} | FAIL: {error:#} | | | | | |")
            }
        };
        println!("{line}");
        table += &format!("{line}\n");
    }
    if options.write_docs {
        write(&format!("{HEAD}\n{table}"))?;
    }
    Ok(good)
}

/// Without a plan a card is pulled out. Returns also how many faults there were.
fn meet(place: &Place<'_>, steps: &mut Steps, plan: Option<&str>) -> Result<(Met, u64)> {
    let mut stage = Stage::set(place, plan)?;
    stage.begin(place, steps)?;
    let met = stage.under_traffic(place, steps, |stage, steps| {
        if plan.is_some() {
            return Ok(());
        }
        std::thread::sleep(TIME / 4);
        steps.begin("the card with the SAs is pulled out");
        let busy = usize::from(stage.count("qat0", "/device/sas")? < stage.count("qat1", "/device/sas")?);
        stage.cards[busy].pull_out();
        std::thread::sleep(TIME / 4);
        stage.cards[busy].put_back()
    })?;
    let faults = if plan.is_some() { stage.cards[0].faults()? } else { 1 };
    stage.end()?;
    Ok((met, faults))
}

const HEAD: &str = "| what happens | outage, ms | pings lost | TCP, MB there and back | TCP stood still, ms there and back | wrong \
                    octets | sequence numbers used again |\n|---|---|---|---|---|---|---|";

fn row(shows: &str, met: &Met, wrong: Option<&str>) -> String {
    let [there, back] = met.stalled().map(|time| time.as_millis());
    let (answered, lost) = met.pings;
    let wrong = wrong.map_or(String::new(), |wrong| format!(" **{wrong}**"));
    format!(
        "| {shows}{wrong} | {} | {lost} of {} | {}, {} | {there}, {back} | {} of {} | {} of {} |",
        met.outage().as_millis(),
        answered + lost,
        met.there.octets / 1_000_000,
        met.back.octets / 1_000_000,
        met.there.wrong + met.back.wrong,
        met.there.octets + met.back.octets,
        met.wire.again,
        met.wire.packets,
    )
}

fn write(table: &str) -> Result<()> {
    let file = checkout::root().join("docs/hardware/qat-emulator.md");
    let text = fs::read_to_string(&file)?;
    let new =
        between(&text, table).with_context(|| format!("no place for the table in {}", file.display()))?;
    fs::write(&file, new)?;
    println!("written: {}", file.display());
    Ok(())
}

fn between(text: &str, table: &str) -> Option<String> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n{table}\n{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_a_place_for_the_table() {
        let page = fs::read_to_string(checkout::root().join("docs/hardware/qat-emulator.md")).unwrap();
        let once = between(&page, "| a |\n").unwrap();
        assert!(once.contains("\n| a |\n"));
        assert_eq!(between(&once, "| a |\n"), Some(once));
    }
}
