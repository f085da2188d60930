//! Every seed, and every input that once broke something, runs through its target without a fuzzer.

use std::path::Path;

#[test]
fn seeds_and_old_findings_do_no_harm() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds");
    for (name, target) in fuzz::TARGETS {
        let mut seen = 0;
        for entry in std::fs::read_dir(root.join(name)).expect("every target has seeds") {
            target(&std::fs::read(entry.expect("listed").path()).expect("readable"));
            seen += 1;
        }
        assert!(seen > 0, "{name} has no seeds");
    }
}

#[test]
fn seeds_on_disk_are_what_the_code_makes() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds");
    for seed in fuzz::seed::all() {
        let path = root.join(seed.target).join(seed.name);
        let found = std::fs::read(&path).unwrap_or_default();
        assert_eq!(found, seed.bytes, "{}: run the seeds example", path.display());
    }
}

#[test]
fn seeds_reach_what_they_are_for() {
    for seed in fuzz::seed::all().iter().filter(|s| s.target == "wire_ike") {
        let whole = wire::ike::Message::parse(&seed.bytes);
        let chain = wire::ike::parse_payload_chain(seed.bytes[0].into(), &seed.bytes[1..]);
        assert!(whole.is_ok() || chain.is_ok() || seed.name == "critical", "{}", seed.name);
    }
}
