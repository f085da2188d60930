//! The plans in the documentation are plans.

use emu_qat::SERVICES;
use emu_qat::fault::Plan;

const DOCS: &str = include_str!("../../../docs/hardware/qat-emulator.md");

const README: &str = include_str!("../../README.md");

#[test]
fn every_plan_in_the_documentation_can_be_read_and_they_show_every_kind() {
    let blocks: Vec<&str> = [DOCS, README]
        .iter()
        .flat_map(|text| text.split("```toml\n").skip(1))
        .map(|rest| rest.split("```").next().unwrap())
        .collect();
    assert!(!blocks.is_empty());
    let mut shown = Vec::new();
    for block in blocks {
        let plan = Plan::parse("qat-emulator.md", block, &SERVICES).unwrap_or_else(|error| panic!("{error}"));
        shown.extend(plan.faults.into_iter().map(|fault| std::mem::discriminant(&fault.kind)));
    }
    shown.sort_by_key(|kind| format!("{kind:?}"));
    shown.dedup();
    // As many as the message lists for a word that is none.
    let unknown = "[[fault]]\nkind = \"something entirely different\"\n";
    let error = Plan::parse("x", unknown, &SERVICES).unwrap_err().to_string();
    let known = error.split("there are: ").nth(1).unwrap().split(", ").count();
    assert_eq!(shown.len(), known, "{error}");
}
