//! Every seed, and every input that once broke something, runs through its target without a fuzzer.

use std::path::Path;

#[test]
fn seeds_and_old_findings_do_no_harm() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds");
    for (name, target) in fuzz::TARGETS {
        let mut seen = 0;
        for entry in std::fs::read_dir(root.join(name)).expect("every target has seeds") {
            let path = entry.expect("listed").path();
            // Shown of a test that fails.
            println!("{}", path.display());
            target(&std::fs::read(path).expect("readable"));
            seen += 1;
        }
        assert!(seen > 0, "{name} has no seeds");
    }
}

#[test]
fn seeds_on_disk_are_what_the_code_makes() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds");
    for seed in fuzz::seed::all() {
        let path = root.join(seed.target).join(&seed.name);
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

#[test]
fn certificates_and_answers_are_taken_as_what_they_are() {
    for seed in fuzz::seed::all().iter().filter(|s| s.target == "certificates") {
        let refused = ["try_later", "no_such_entry"].contains(&seed.name.as_str());
        assert_eq!(fuzz::certificates_taken(&seed.bytes), !refused, "{}", seed.name);
    }
}

#[test]
fn who_is_not_disturbed_is_let_in() {
    for seed in fuzz::seed::all().iter().filter(|s| s.target == "eap") {
        let (ours, theirs) = fuzz::eap_ends(&seed.bytes);
        if seed.bytes.len() == 2 || seed.name.starts_with("doubled") {
            assert!(ours && theirs, "{}", seed.name);
        }
        if seed.name.starts_with("flipped") || seed.name.starts_with("cut") {
            assert!(!ours && !theirs, "{}", seed.name);
        }
    }
}

#[test]
fn scripts_tell_the_stories_they_are_named_for() {
    use tussock_ike::Event;
    let mut stories = 0;
    for seed in fuzz::seed::all().iter().filter(|s| s.target == "ike_state") {
        let events = fuzz::ike_events(&seed.bytes);
        let any = |what: &dyn Fn(&Event) -> bool| events.iter().any(what);
        let up = any(&|e| matches!(e, Event::IkeEstablished { .. }));
        let child = any(&|e| matches!(e, Event::ChildEstablished { replaces: Some(_), .. }));
        let ike = any(&|e| matches!(e, Event::IkeRekeyed { .. }));
        let refused = ["strangers", "auth_wrong", "called_and_refused", "called_and_refused_oddly"]
            .contains(&seed.name.as_str());
        assert_eq!(up, !refused, "{}", seed.name);
        assert!(
            child || !seed.name.starts_with("rekey_child") || seed.name.ends_with("not_found"),
            "{}",
            seed.name
        );
        assert!(ike || !seed.name.starts_with("rekey_ike"), "{}", seed.name);
        let single = any(&|e| matches!(e, Event::ChildEstablished { resource: Some(_), .. }));
        let none = any(&|e| matches!(e, Event::ResourceRefused { .. }));
        assert!(single || seed.name != "resources");
        assert!(none || seed.name != "resources_refused");
        stories += 1;
    }
    assert!(stories > 20);
}
