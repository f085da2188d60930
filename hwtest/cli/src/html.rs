//! `report`: one page that holds everything: machine, device, capabilities, verdicts, curves. No script, and nothing from elsewhere.

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use hwtest::{Capability, Ending};
use spi::caps::Traits;

use crate::bench::{self, Effort, Results};
use crate::judge::{self, Extent, Findings};
use crate::{Target, machine, plot};

#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    extent: Extent,
    #[command(flatten)]
    effort: Effort,
    /// The page.
    #[arg(long, value_name = "FILE", default_value = "hwtest-report.html")]
    html: PathBuf,
}

pub(crate) fn run(options: &Options) -> Result<u8> {
    let mut devices = Page(String::new());
    let mut all = Vec::new();
    for opened in options.target.open()? {
        let findings = judge::findings(opened, &options.extent);
        // A device that breaks rules may not get through a measurement; the page says so.
        let measured = bench::measure(&findings.opened, &options.effort);
        devices.device(&findings, &measured);
        all.push(findings);
    }
    // What the machine was doing all the while is known at the end, and read at the beginning.
    let mut page = Page::begin();
    page.0 += &devices.0;
    std::fs::write(&options.html, page.finish())
        .with_context(|| format!("cannot write {}", options.html.display()))?;
    let sums = all.iter().map(Findings::counts).fold([0; 3], |a, b| [a[0] + b[0], a[1] + b[1], a[2] + b[2]]);
    println!("{} passed, {} failed, {} for what is not declared", sums[0], sums[1], sums[2]);
    println!("written: {}", options.html.display());
    Ok(judge::verdict(&all))
}

struct Page(String);

const STYLE: &str = "
:root { color-scheme: light dark; --text: #222; --back: #fff; --line: #e0e0e0; --faint: #6b6b6b; --good: #00703c; --bad: #b10e1e; }
@media (prefers-color-scheme: dark) {
  :root { --text: #ddd; --back: #181a1b; --line: #3a3d3f; --faint: #9a9a9a; --good: #5fc98f; --bad: #ff7b83; }
}
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: var(--text);
  background: var(--back); }
h1 { font-size: 1.6rem; } h2 { margin-top: 2.2rem; border-bottom: 1px solid var(--line); } h3 { margin-top: 1.6rem; }
table { border-collapse: collapse; margin: .6rem 0; font-size: .9rem; }
th, td { padding: .2rem .7rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
td:first-child { white-space: nowrap; } td:last-child { overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
.numbers td, .numbers th { white-space: nowrap; }
.numbers td:not(:first-child), .numbers th:not(:first-child) { text-align: right; font-variant-numeric: tabular-nums; }
.ok { color: var(--good); } .fail { color: var(--bad); font-weight: 600; } .none { color: var(--faint); }
.sum { font-size: 1.2rem; } pre { white-space: pre-wrap; margin: 0; } summary { cursor: pointer; }
figure { margin: 1rem 0; overflow-x: auto; } svg { background: #fff; max-width: 100%; min-width: 36rem; height: auto; }";

impl Page {
    fn begin() -> Page {
        let mut page = Page(String::new());
        page.add(format_args!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width\"><title>tussock-hwtest report</title>\n<style>{STYLE}</style>\
             </head><body>\n<h1>tussock-hwtest {} report</h1>\n",
            env!("CARGO_PKG_VERSION")
        ));
        page.add(format_args!("<h2>Machine</h2>\n"));
        page.facts(&machine::facts());
        page
    }

    fn add(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing to a string does not fail.
        let _ = self.0.write_fmt(text);
    }

    fn facts(&mut self, facts: &[(&str, String)]) {
        self.0 += "<table>\n";
        for (name, value) in facts.iter().filter(|(_, value)| value != "-") {
            self.add(format_args!("<tr><th>{}</th><td>{}</td></tr>\n", escape(name), escape(value)));
        }
        self.0 += "</table>\n";
    }

    fn device(&mut self, findings: &Findings, measured: &Result<Results>) {
        let device = &findings.opened.device;
        let (desc, caps) = (device.desc(), &device.desc().caps);
        let [passed, failed, absent] = findings.counts();
        self.add(format_args!(
            "<h2>Device {} of {}</h2>\n",
            escape(&desc.id),
            escape(&findings.opened.driver)
        ));
        let (class, word) = if failed > 0 { ("fail", "does not keep") } else { ("ok", "keeps") };
        self.add(format_args!(
            "<p class=\"sum {class}\">It {word} the contract: {passed} passed, {failed} failed, {absent} for what it does not \
             declare.</p>\n"
        ));
        let names = [
            (Traits::IN_ORDER, "in order"),
            (Traits::RECOVERS, "recovers"),
            (Traits::ASYNCHRONOUS, "asynchronous"),
            (Traits::OWNS_SEQUENCE, "owns sequence numbers"),
            (Traits::FIPS, "FIPS"),
            (Traits::DMA, "DMA"),
        ];
        let traits: Vec<&str> =
            names.iter().filter(|(bit, _)| caps.traits.contains(*bit)).map(|(_, name)| *name).collect();
        self.facts(&[
            ("identity", findings.opened.identity()),
            ("NUMA node", desc.numa_node.map_or("unknown".into(), |node| node.to_string())),
            ("properties", traits.join(", ")),
            ("jobs in a ring", caps.ring.to_string()),
            ("SAs", caps.max_sas.to_string()),
            ("longest packet", format!("{} octets", caps.max_len)),
        ]);
        self.0 += "<h3>Capabilities</h3>\n";
        let list = |names: Vec<String>| if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        let transforms = caps
            .esp
            .iter()
            .map(|cap| format!("{}{}", Capability::Packets(*cap), if cap.esn { "" } else { " (no ESN)" }));
        self.facts(&[
            ("ESP", list(transforms.collect())),
            ("key exchange", list(caps.dh.iter().map(ToString::to_string).collect())),
            ("signs", list(caps.sign.iter().map(|scheme| format!("{scheme:?}")).collect())),
            ("verifies", list(caps.verify.iter().map(|scheme| format!("{scheme:?}")).collect())),
            ("PRFs", list(caps.prf.iter().map(ToString::to_string).collect())),
        ]);
        self.verdicts(findings);
        self.0 += "<h3>Performance</h3>\n<p>Rates are medians by the clock; a latency is that of a whole burst from its submission to its \
                   delivery, with the wait behind the others that are out; CPU time is that of the calling thread.</p>\n";
        match measured {
            Ok(results) => self.performance(results),
            Err(error) => {
                self.add(format_args!(
                    "<p class=\"fail\">not measured: {}</p>\n",
                    escape(&format!("{error:#}"))
                ));
            }
        }
    }

    fn verdicts(&mut self, findings: &Findings) {
        self.0 += "<h3>Rules</h3>\n<table>\n<tr><th></th><th>rule</th><th>capabilities</th></tr>\n";
        let mut names: Vec<&str> = findings.verdicts.iter().map(|verdict| verdict.rule).collect();
        names.dedup();
        for name in names {
            let all: Vec<_> = findings.verdicts.iter().filter(|verdict| verdict.rule == name).collect();
            let failed: Vec<_> =
                all.iter().filter(|verdict| matches!(verdict.ending, Ending::Failed(_))).collect();
            let absent = all.iter().all(|verdict| verdict.ending == Ending::NotDeclared);
            let (class, word) = match (failed.is_empty(), absent) {
                (false, _) => ("fail", "FAIL"),
                (true, true) => ("none", "–"),
                (true, false) => ("ok", "ok"),
            };
            self.add(format_args!(
                "<tr><td class=\"{class}\">{word}</td><td>{}</td><td>",
                escape(&name.replace('_', " "))
            ));
            match &all[..] {
                [one] => self.add(format_args!("{}", escape(&one.capability))),
                _ => {
                    let each: Vec<&str> = all.iter().map(|verdict| verdict.capability.as_str()).collect();
                    self.add(format_args!(
                        "<details><summary>{} of {}</summary>{}</details>",
                        all.len() - failed.len(),
                        all.len(),
                        escape(&each.join(", "))
                    ));
                }
            }
            for verdict in failed {
                if let Ending::Failed(what) = &verdict.ending {
                    let capability = escape(&verdict.capability);
                    self.add(format_args!("<pre class=\"fail\">{capability}: {}</pre>", escape(what)));
                }
            }
            let mut skipped: Vec<&String> = all.iter().flat_map(|verdict| &verdict.skipped).collect();
            skipped.sort();
            skipped.dedup();
            for why in skipped {
                self.add(format_args!("<div class=\"none\">not checked: {}</div>", escape(why)));
            }
            self.0 += "</td></tr>\n";
        }
        self.0 += "</table>\n";
    }

    fn performance(&mut self, results: &Results) {
        for why in &results.missing {
            self.add(format_args!("<p class=\"fail\">not measured: {}</p>\n", escape(why)));
        }
        for chart in results.charts() {
            match plot::svg(&chart) {
                Ok(svg) => self.add(format_args!("<figure>{svg}</figure>\n")),
                Err(error) => {
                    self.add(format_args!("<p class=\"none\">{}</p>\n", escape(&format!("{error:#}"))))
                }
            }
        }
        for rows in results.tables() {
            self.0 += "<div class=\"wide\"><table class=\"numbers\">\n";
            for (number, row) in rows.iter().enumerate() {
                let tag = if number == 0 { "th" } else { "td" };
                let cells: Vec<String> =
                    row.iter().map(|cell| format!("<{tag}>{}</{tag}>", escape(cell))).collect();
                self.add(format_args!("<tr>{}</tr>\n", cells.concat()));
            }
            self.0 += "</table></div>\n";
        }
    }

    fn finish(mut self) -> String {
        self.0 += "</body></html>\n";
        self.0
    }
}

/// Text as HTML: names of devices and what a panic says come from a plug-in.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_a_plug_in_says_is_text_and_nothing_else() {
        assert_eq!(super::escape("<script>&\"x\""), "&lt;script&gt;&amp;&quot;x&quot;");
    }
}
