//! The fuzzer's seeds and old findings, replayed with every test run: the fuzz crate is a workspace of its own.

#![allow(unreachable_pub)] // The bodies are public for the fuzz crate.

#[path = "../../fuzz/src/wire_esp.rs"]
mod wire_esp;
#[path = "../../fuzz/src/wire_ike.rs"]
mod wire_ike;

fn replay(dir: &str, target: fn(&[u8])) {
    let dir = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/seeds")).join(dir);
    let mut seen = 0;
    for entry in std::fs::read_dir(dir).expect("every target has seeds") {
        target(&std::fs::read(entry.expect("listed").path()).expect("readable"));
        seen += 1;
    }
    assert!(seen > 10, "only {seen} seeds");
}

#[test]
fn ike_seeds_and_old_findings_do_no_harm() {
    replay("wire_ike", wire_ike::wire_ike);
}

#[test]
fn esp_seeds_and_old_findings_do_no_harm() {
    replay("wire_esp", wire_esp::wire_esp);
}
