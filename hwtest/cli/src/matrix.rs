//! `matrix`: what each device declares, as a table in a page; or whether the table there is still true.

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;
use hwtest::Capability;
use spi::{Caps, Encr, Group, Integ, Prf};

use crate::{Target, code};

#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// The page; its table stands between two marks.
    #[arg(long, value_name = "FILE", default_value = "docs/support-matrix.md")]
    file: PathBuf,
    /// Write nothing; exit code 1 if the page is stale.
    #[arg(long)]
    check: bool,
    /// Which table of the page: the one behind this mark.
    #[arg(long, value_name = "TEXT", default_value = "capabilities: cargo xtask matrix")]
    mark: String,
    /// A column: its title, the driver, and the driver's keys, as in `QAT 4xxx=qat,socket=/run/qat.sock`; of a plug-in `library`.
    #[arg(required = true, value_name = "TITLE=DRIVER[,KEY=VALUE]")]
    columns: Vec<String>,
}

const END: &str = "<!-- end of capabilities -->";

pub(crate) fn run(options: &Options) -> Result<u8> {
    let mut columns = Vec::new();
    for column in &options.columns {
        let (title, what) =
            column.split_once('=').with_context(|| format!("{column} is not TITLE=DRIVER"))?;
        let mut words = what.split(',');
        let target = Target::of(words.next().unwrap_or_default(), words)?;
        let opened = target.open()?;
        let [only] = &opened[..] else { bail!("{title} has {} devices; name one", opened.len()) };
        columns.push((title.to_owned(), only.device.desc().caps.clone()));
    }
    let page = std::fs::read_to_string(&options.file)
        .with_context(|| format!("cannot read {}", options.file.display()))?;
    let begin = format!("<!-- {} -->", options.mark);
    let new = replaced(&page, &begin, &table(&columns))
        .with_context(|| format!("{} has no marks {begin} and {END}", options.file.display()))?;
    if page == new {
        println!("{} is true", options.file.display());
        return Ok(0);
    }
    if options.check {
        for line in new.lines().filter(|line| !page.contains(line)) {
            println!("+ {line}");
        }
        for line in page.lines().filter(|line| !new.contains(line)) {
            println!("- {line}");
        }
        println!("{} is stale; cargo xtask matrix writes it anew", options.file.display());
        return Ok(code::BROKEN);
    }
    std::fs::write(&options.file, new).with_context(|| format!("cannot write {}", options.file.display()))?;
    println!("written: {}", options.file.display());
    Ok(0)
}

/// The page with another table.
fn replaced(page: &str, begin: &str, table: &str) -> Option<String> {
    let (before, rest) = page.split_once(begin)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{begin}\n\n{table}\n{END}{after}"))
}

fn table(columns: &[(String, Caps)]) -> String {
    let mut text = String::from("| |");
    columns.iter().for_each(|(title, _)| text += &format!(" {title} |"));
    text += &format!("\n|---|{}\n", "---|".repeat(columns.len()));
    let mut row = |name: &str, cell: &dyn Fn(&Caps) -> String| {
        let cells: Vec<String> = columns.iter().map(|(_, caps)| cell(caps)).collect();
        if cells.iter().any(|cell| !cell.is_empty()) {
            text += &format!("| {name} | {} |\n", cells.join(" | "));
        }
    };
    type Count = fn(&Caps) -> usize;
    let counts: [(&str, Count); 5] = [
        ("**ESP transforms**", |caps| caps.esp.len()),
        ("**key exchange methods**", |caps| caps.dh.len()),
        ("**schemes that sign**", |caps| caps.sign.len()),
        ("**schemes that verify**", |caps| caps.verify.len()),
        ("**PRFs**", |caps| caps.prf.len()),
    ];
    for (name, count) in counts {
        row(name, &|caps| count(caps).to_string());
    }
    for encr in Encr::ALL {
        for integ in Integ::ALL {
            let cap = spi::caps::EspCap { encr: *encr, integ: *integ, esn: false };
            row(&Capability::Packets(cap).to_string(), &|caps| match (
                caps.carries(*encr, *integ, true),
                caps.carries(*encr, *integ, false),
            ) {
                (true, _) => "yes".into(),
                (false, true) => "without ESN".into(),
                (false, false) => String::new(),
            });
        }
    }
    let yes = |there: bool| if there { "yes".to_owned() } else { String::new() };
    for group in Group::ALL {
        row(&group.to_string(), &|caps| yes(caps.dh.contains(group)));
    }
    let schemes: BTreeSet<_> =
        columns.iter().flat_map(|(_, caps)| caps.sign.iter().chain(&caps.verify)).copied().collect();
    for scheme in schemes {
        row(
            &format!("{scheme:?}"),
            &|caps| match (caps.sign.contains(&scheme), caps.verify.contains(&scheme)) {
                (true, true) => "signs, verifies".into(),
                (true, false) => "signs".into(),
                (false, true) => "verifies".into(),
                (false, false) => String::new(),
            },
        );
    }
    for prf in Prf::ALL {
        row(&prf.to_string(), &|caps| yes(caps.prf.contains(prf)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_keeps_what_is_around_its_table() {
        let page = "before\n<!-- a -->\nold\n<!-- end of capabilities -->\nbetween\n<!-- b -->\nolder\n<!-- end of capabilities -->\n";
        assert_eq!(
            replaced(page, "<!-- b -->", "new\n").as_deref(),
            Some(&*page.replace("\nolder\n", "\n\nnew\n\n"))
        );
        assert_eq!(
            replaced(page, "<!-- a -->", "new\n").as_deref(),
            Some(&*page.replace("\nold\n", "\n\nnew\n\n"))
        );
        assert_eq!(replaced("no marks", "<!-- a -->", "new"), None);
    }
}
