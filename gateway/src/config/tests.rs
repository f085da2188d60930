//! The loader against files with mistakes: every one is named, at its line.

use std::path::Path;

use super::*;

pub(super) const GOOD: &str = r#"
[gateway]
state_dir = "state"
retransmit = { tries = 3, first = "1s", base = 2.0 }

[[psk]]
ids = ["moon.lab.test", "sun.lab.test"]
secret = "a secret of the laboratory"

[realm.site-b]
local = ["192.168.0.1"]
remote = ["192.168.0.2"]
start = "boot"
ike = ["aes128gcm16-prfsha256-x25519"]
ike_rekey = "2h"
dpd = { delay = "10s", action = "clear" }
local_auth = { method = "psk", id = "moon.lab.test" }
remote_auth = { method = "psk", id = "sun.lab.test" }

[[realm.site-b.child]]
name = "net"
local = ["10.1.0.0/16"]
remote = ["10.2.0.0/16[tcp/80-90]"]
esp = ["aes128gcm16-x25519", "aes256gcm16"]
rekey_bytes = "1GiB"
dummy = "5s"

[[policy]]
action = "bypass"
local = ["10.1.0.0/16"]
remote = ["10.1.0.0/16"]
"#;

pub(super) fn problems(text: &str) -> Vec<String> {
    let problems = match parse(Path::new("g.toml"), text, 0o600) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.errors,
    };
    problems.iter().map(ToString::to_string).collect()
}

/// The good file with one line in the place of another, and the number of that line.
pub(super) fn with(line: &str, instead: &str) -> (String, usize) {
    let at = GOOD.lines().position(|l| l == line).unwrap() + 1;
    (GOOD.replacen(line, instead, 1), at)
}

#[test]
fn the_whole_format_is_understood() {
    let loaded = parse(Path::new("/etc/x/g.toml"), GOOD, 0o600).map_err(|p| p.to_string()).unwrap();
    assert_eq!(loaded.settings.socket(), Path::new("/etc/x/state/control.sock"), "relative to the file");
    assert_eq!(loaded.settings.retransmission.tries, 3);
    let (text, _) = with("state_dir = \"state\"", "state_dir = \"state\"\nkeepalive = \"15s\"");
    let other = parse(Path::new("/etc/x/g.toml"), &text, 0o600).map_err(|p| p.to_string()).unwrap();
    let seconds = [&loaded, &other].map(|loaded| loaded.settings.keepalive.as_secs());
    assert_eq!(seconds, [20, 15]);
    let (text, _) = with("start = \"boot\"", "worker = 3");
    let pinned = parse(Path::new("/etc/x/g.toml"), &text, 0o600).map_err(|p| p.to_string()).unwrap();
    assert_eq!([&loaded, &pinned].map(|loaded| loaded.realms[0].worker), [None, Some(3)]);
    let realm = &loaded.realms[0];
    assert_eq!((&*realm.name, realm.start, realm.children[0].start), ("site-b", Start::Boot, Start::Boot));
    assert_eq!(realm.ike_rekey.time, Duration::from_secs(7200));
    assert_eq!(
        (realm.children[0].rekey.time, realm.children[0].rekey.bytes),
        (Duration::from_secs(3600), 1 << 30)
    );
    assert_eq!(loaded.dummies[&("site-b".into(), "net".into())], Duration::from_secs(5));
    assert_eq!(
        (loaded.carve_outs.len(), loaded.carve_outs[0].bypass, loaded.carve_outs[0].priority),
        (1, true, 100)
    );
    assert_eq!((loaded.secure.psks.len(), loaded.secure.realms.len()), (1, 1));
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    let text = summary::summary(&loaded);
    assert!(text.contains("carries 10.1.0.0/16 <-> 10.2.0.0/16[tcp/80-90]"), "{text}");
    assert!(!text.contains("laboratory"));
}

#[test]
fn every_mistake_is_named_at_its_line_and_says_what_was_meant() {
    let table = [
        ("start = \"boot\"", "start = \"boto\"", "unknown start `boto`; did you mean `boot`?"),
        ("start = \"boot\"", "strat = \"boot\"", "unknown key `strat`; did you mean `start`?"),
        (
            "local = [\"192.168.0.1\"]",
            "local = [\"192.168.0.300\"]",
            "`192.168.0.300` is not an address of ours",
        ),
        ("remote = [\"192.168.0.2\"]", "remote = [\"sun\"]", "`sun` is not an address or prefix"),
        ("remote = [\"192.168.0.2\"]", "remote = \"192.168.0.2\"", "expected a list, [ … ], not string"),
        ("ike = [\"aes128gcm16-prfsha256-x25519\"]", "ike = [\"aes129gcm16-x25519\"]", "aes129gcm16"),
        ("ike_rekey = \"2h\"", "ike_rekey = \"2 hours\"", "`2 hours` is not a time"),
        ("ike_rekey = \"2h\"", "ike_rekey = 7200", "expected"),
        (
            "dpd = { delay = \"10s\", action = \"clear\" }",
            "dpd = { dealy = \"10s\" }",
            "did you mean `delay`?",
        ),
        (
            "dpd = { delay = \"10s\", action = \"clear\" }",
            "dpd = { action = \"restrat\" }",
            "did you mean `restart`?",
        ),
        ("local = [\"10.1.0.0/16\"]", "local = [\"10.1.0.0/61\"]", "10.1.0.0/61"),
        ("rekey_bytes = \"1GiB\"", "rekey_bytes = \"many\"", "`many` is not a size"),
        ("action = \"bypass\"", "action = \"pass\"", "did you mean `bypass`?"),
        ("[[policy]]", "[[polciy]]", "unknown table `polciy`; did you mean `policy`?"),
        (
            "retransmit = { tries = 3, first = \"1s\", base = 2.0 }",
            "retransmit = { base = 99.0 }",
            "between 1.0 and 10.0",
        ),
        (
            "local_auth = { method = \"psk\", id = \"moon.lab.test\" }",
            "local_auth = { method = \"pks\", id = \"a.b\" }",
            "did you mean `psk`?",
        ),
        (
            "local_auth = { method = \"psk\", id = \"moon.lab.test\" }",
            "local_auth = { method = \"pubkey\", id = \"moon.lab.test\", key = \"no.key\" }",
            "cannot read no.key",
        ),
        (
            "remote_auth = { method = \"psk\", id = \"sun.lab.test\" }",
            "remote_auth = { method = \"pubkey\", id = \"sun.lab.test\" }",
            "needs `ca`, `cert` or `pubkey`",
        ),
        ("secret = \"a secret of the laboratory\"", "secret = \"\"", "the secret is empty"),
        ("secret = \"a secret of the laboratory\"", "hex = \"xyz\"", "not a hexadecimal digit"),
        ("state_dir = \"state\"", "state_dir = \"state", "invalid basic string"),
    ];
    for (line, instead, said) in table {
        let (text, at) = with(line, instead);
        let found = problems(&text);
        let hit = found.iter().any(|p| p.starts_with(&format!("g.toml:{at}:")) && p.contains(said));
        assert!(hit, "{instead}: wanted line {at}: {said}, got {found:#?}");
    }
}

#[test]
fn several_mistakes_are_reported_together_in_the_order_of_the_file() {
    let text = GOOD
        .replacen("start = \"boot\"", "start = \"x\"", 1)
        .replacen("ike_rekey = \"2h\"", "ike_rekey = \"y\"", 1)
        .replacen("dummy = \"5s\"", "dumy = \"5s\"", 1);
    let found = problems(&text);
    assert_eq!(found.len(), 3, "{found:#?}");
    let lines: Vec<usize> = found.iter().map(|p| p.split(':').nth(1).unwrap().parse().unwrap()).collect();
    assert!(lines.is_sorted() && lines[0] == 13, "{lines:?}");
}

#[test]
fn what_cannot_be_started_is_an_error() {
    let (text, _) = with("remote = [\"192.168.0.2\"]", "remote = [\"192.168.0.0/24\"]");
    assert!(problems(&text)[0].contains("names no single address"));
    let (text, _) = with("remote = [\"10.2.0.0/16[tcp/80-90]\"]", "remote = [\"fec2::/16\"]");
    assert!(problems(&text)[0].contains("different address families"));
}

#[test]
fn a_secret_that_others_may_read_is_warned_about() {
    let loaded = parse(Path::new("g.toml"), GOOD, 0o644).map_err(|p| p.to_string()).unwrap();
    assert_eq!(loaded.warnings.len(), 1);
    assert!(loaded.warnings[0].text.contains("chmod 600") && loaded.warnings[0].line == 8);
}

#[test]
fn secrets_never_stand_in_error_texts() {
    let (text, _) = with("secret = \"a secret of the laboratory\"", "secret = 5\nhex = \"c0ffee zz\"");
    let found = problems(&text).join("\n");
    assert!(!found.is_empty() && !found.contains("c0ffee"), "{found}");
}

#[test]
fn algorithms_no_device_carries_are_named() {
    let loaded = parse(Path::new("g.toml"), GOOD, 0o600).map_err(|p| p.to_string()).unwrap();
    let nothing = Caps {
        esp: vec![],
        dh: vec![],
        sign: vec![],
        verify: vec![],
        prf: vec![],
        traits: spi::caps::Traits::empty(),
        ring: 1,
        max_sas: 1,
        max_len: 1,
    };
    assert_eq!(unmet(&loaded.realms, &[&nothing]).len(), 2);
}

#[test]
fn the_examples_of_the_manual_are_right_but_for_the_files_they_name() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/examples");
    let mut seen = 0;
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let wrong = match parse(&path, &text, 0o600) {
            Ok(_) => Vec::new(),
            Err(problems) => problems.errors,
        };
        // Without its file a secret is missing too.
        let absent = |p: &&Problem| p.text.contains("cannot read") || p.text.contains("no [[psk]] is shared");
        let other: Vec<&Problem> = wrong.iter().filter(|p| !absent(p)).collect();
        assert!(other.is_empty(), "{other:#?}");
        seen += 1;
    }
    assert!(seen >= 5);
}

#[test]
fn what_goes_nowhere_while_a_child_is_down() {
    let blocked = |child: &str| {
        let (text, _) = with("remote = [\"10.2.0.0/16[tcp/80-90]\"]", child);
        let loaded = parse(Path::new("g.toml"), &text, 0o600).map_err(|p| p.to_string()).unwrap();
        loaded.guarded.contains(&("site-b".into(), "net".into()))
    };
    assert!(blocked("remote = [\"10.2.0.0/16\"]"), "by default");
    assert!(blocked("remote = [\"10.2.0.0/16\", \"dynamic\"]"));
    assert!(!blocked("remote = [\"10.2.0.0/16\"]\non_down = \"clear\""));
    assert!(!blocked("remote = [\"dynamic\"]"), "nobody knows yet what it will be");
    for everywhere in ["\"0.0.0.0/0\"", "\"0.0.0.0/1\", \"128.0.0.0/1\"", "\"10.0.0.0/8\", \"::/0\""] {
        assert!(!blocked(&format!("remote = [{everywhere}]")), "nobody is cut off who did not ask for it");
        assert!(blocked(&format!("remote = [{everywhere}]\non_down = \"block\"")));
    }
    let transport = "mode = \"transport\"\nremote = [\"192.168.0.2\"]";
    assert!(!blocked(transport));
    assert!(blocked(&format!("{transport}\non_down = \"block\"")));
    let (text, at) = with("remote = [\"10.2.0.0/16[tcp/80-90]\"]", "on_down = \"block\"");
    let expected =
        format!("g.toml:{at}:11: there is nothing to block: `remote` is not known before the child is up");
    assert_eq!(problems(&text), [expected]);
}

#[test]
fn a_secret_that_is_no_string_is_not_repeated_in_the_error() {
    for (line, wrong) in
        [("secret", "secret = 8472619350"), ("hex", "hex = 0xdeadbeef8472"), ("b", "secret = [84726]")]
    {
        let (text, _) = with("secret = \"a secret of the laboratory\"", wrong);
        let said = problems(&text).join("\n");
        assert!(said.contains("expected a string"), "{line}: {said}");
        for digits in ["84726", "deadbeef", "244837814", "3735928559"] {
            assert!(!said.contains(digits), "{said}");
        }
    }
}

const DISPATCH: &str = r#"
[gateway]
workers = 3
sas_per_worker = false
soft_engine = "aws-lc"
pin = true
offload = false
tun_kind = "tap"

[dispatch]
order = ["critical", "control", "ike", "stranger", "esp"]
critical = { quota = 10, depth = 20, packets = ["ospf", "bgp"] }
esp = { depth = 7 }

[realm.fast]
remote = ["192.168.0.2"]
mode = "latency"
cpu_share = 0.25
accel = ["soft"]
fallback = "same-class"
local_auth = { method = "psk", id = "moon.lab.test" }
remote_auth = { method = "psk", id = "sun.lab.test" }

[[psk]]
ids = ["moon.lab.test", "sun.lab.test"]
secret = "a secret of the laboratory"
"#;

#[test]
fn the_dispatch_table_and_how_a_realm_is_worked_on_are_understood() {
    use crate::dispatch::{Class, Row, critical::Kinds};
    let loaded = parse(Path::new("g.toml"), DISPATCH, 0o600).map_err(|p| p.to_string()).unwrap();
    let settings = &loaded.settings;
    assert_eq!((settings.workers, settings.sas_per_worker), (3, false));
    assert_eq!((settings.pin, settings.offload), (true, false));
    assert_eq!(settings.soft_engine, registry::SoftEngine::AwsLc);
    assert!(settings.ethernet);
    let table = &settings.dispatch;
    let order = [Class::Critical, Class::Control, Class::Ike, Class::Stranger, Class::Esp];
    assert_eq!(table.order(), &order);
    assert_eq!(table.row(Class::Critical), Row { quota: 10, depth: 20 });
    let usual = crate::dispatch::Table::default();
    assert_eq!(table.row(Class::Esp), Row { depth: 7, ..usual.row(Class::Esp) });
    assert_eq!(table.row(Class::Ike), usual.row(Class::Ike));
    assert_eq!(table.critical(), Kinds::OSPF | Kinds::BGP);
    assert_eq!(
        loaded.works["fast"],
        RealmWork {
            at_once: true,
            share: Some(0.25),
            accel: ["soft".to_owned()].into(),
            fallback: Fallback::SameClass
        }
    );
    let text = summary::summary(&loaded);
    assert!(text.contains("packets    at once, 25 % of each core"), "{text}");
    assert!(text.contains("fallback   same-class"), "{text}");
    let loaded = parse(Path::new("g.toml"), GOOD, 0o600).map_err(|p| p.to_string()).unwrap();
    assert!(
        loaded.works.is_empty()
            && loaded.settings.workers >= 1
            && loaded.settings.sas_per_worker
            && loaded.settings.offload
            && !loaded.settings.ethernet
    );
}

#[test]
fn mistakes_in_the_dispatch_table_are_named() {
    for (line, instead, expected) in [
        ("\"tap\"", "\"tep\"", "did you mean `tap`?"),
        ("pin = true", "ike_sa_limit = 0", "lets nobody in"),
        ("workers = 3", "workers = 0", "`workers` must be between 1 and 64"),
        ("workers = 3", "workers = 65", "`workers` must be between 1 and 64"),
        ("order = [\"critical\", ", "order = [\"citical\", ", "did you mean `critical`?"),
        ("order = [\"critical\", ", "order = [\"esp\", ", "must name every class once"),
        ("quota = 10", "quota = 0", "`quota` must be between 1 and 4096"),
        ("quota = 10", "qouta = 10", "did you mean `quota`?"),
        ("depth = 20", "depth = 100000", "`depth` must be between 1 and 65536"),
        ("\"ospf\"", "\"opsf\"", "did you mean `ospf`?"),
        ("esp = { depth = 7 }", "esp = { packets = [\"bgp\"] }", "`packets` belongs to `critical`"),
        ("esp = { depth = 7 }", "control = { depth = 7 }", "it has no `depth`"),
        ("esp = { depth = 7 }", "eps = { depth = 7 }", "did you mean `esp`?"),
        ("[dispatch]", "[dispach]", "did you mean `dispatch`?"),
        ("mode = \"latency\"", "mode = \"quick\"", "unknown mode `quick`"),
        ("cpu_share = 0.25", "cpu_share = 25", "from 0.01 to 1.0"),
        ("\"same-class\"", "\"same-clas\"", "did you mean `same-class`?"),
    ] {
        let text = DISPATCH.replacen(line, instead, 1);
        assert_ne!(text, DISPATCH);
        let found = problems(&text);
        assert!(found.iter().any(|problem| problem.contains(expected)), "{instead}: {found:?}");
    }
}

#[test]
fn accelerators_are_known_in_the_order_of_the_file_and_mistakes_in_them_are_named() {
    let sections = "[accel.b]\ndevice = \"0000:6b:01.0\"\n[accel.a]\nsocket = \"a.sock\"\n";
    let loaded =
        parse(Path::new("/x/g.toml"), &(sections.to_owned() + GOOD), 0o600).map_err(|p| p.to_string());
    let loaded = loaded.unwrap();
    let found: Vec<String> =
        loaded.settings.accel.iter().map(|a| format!("{} {}", a.name, a.place())).collect();
    assert_eq!(found, ["b 0000:6b:01.0", "a /x/a.sock"]);
    assert_eq!(loaded.settings.devices().accel, loaded.settings.accel);
    assert!(summary::summary(&loaded).contains("accelerator a at /x/a.sock\n"));
    for (section, line, said) in [
        ("[accel.q]\ndevice = \"6b:01\"", 2, "is no PCI address: they look like 0000:6b:00.1"),
        ("[accel.q]\ndevcie = \"0000:6b:01.0\"", 2, "did you mean `device`?"),
        ("[accel.q]", 1, "accel.q: has neither device"),
        ("[accel.q]\nsocket = 7", 2, "expected a path, as a string, not integer"),
        ("[accel.q]\nsocket = \"s\"\ninterrupts = \"no\"", 3, "expected true or false, not string"),
        ("[accel.q]\ndriver = 1", 2, "expected a string, not integer"),
        ("[accel.q]\ndevice = \"0000:6b:01.0\"\nsocket = \"s\"", 1, "has device and socket"),
        ("[accel.q]\ndriver = \"abacus\"\nsocket = \"s\"", 2, "there is no driver `abacus`"),
        ("[accel.\"q 0\"]\nsocket = \"s\"", 1, "a name has 1 to 32 letters"),
        ("[accel.q]\nsocket = \"s\"\n[accel.r]\nsocket = \"s\"", 3, "another section has the same device"),
        ("[acel.q]\nsocket = \"s\"", 1, "did you mean `accel`?"),
    ] {
        let found = problems(&format!("{section}\n{GOOD}"));
        let hit = |p: &String| p.starts_with(&format!("g.toml:{line}:")) && p.contains(said);
        assert!(found.iter().any(hit), "{section}: {found:#?}");
    }
}

#[test]
fn a_file_of_an_accelerator_that_is_not_there_is_a_warning_with_its_line() {
    let text = format!("[accel.v]\ndriver = \"plugin\"\nlibrary = \"lib/none.so\"\n{GOOD}");
    let loaded = parse(Path::new("/nowhere/g.toml"), &text, 0o600).map_err(|p| p.to_string()).unwrap();
    let warned: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(warned, ["/nowhere/g.toml:3:11: /nowhere/lib/none.so: there is no such file"]);
}

#[test]
fn pools_are_read_with_all_they_have() {
    let pool = r#"start = "manual"
pool = { ipv4 = "10.3.0.0/24", ranges = ["10.4.0.7-10.4.0.9", "fec3::/120"], reserve = { "carol@lab.test" = "10.3.0.7, fec3::7" }, hold = "5m", proxy = "eth1", dns = ["10.1.0.53"], domains = ["Corp.Example."], subnets = ["10.1.0.0/16"] }
virtual_ip = { request = ["ipv4"], dns = "install" }"#;
    let (text, _) = with("start = \"boot\"", pool);
    let loaded = parse(Path::new("/etc/x/g.toml"), &text, 0o600).map_err(|p| p.to_string()).unwrap();
    let realm = &loaded.realms[0];
    let pool = realm.pool.as_ref().unwrap();
    assert_eq!(
        crate::config::pool::text(pool),
        "10.3.0.0/24, 10.4.0.7-10.4.0.9, fec3::/120, 2 reserved, answered for on eth1"
    );
    assert_eq!((pool.hold, &*pool.domains[0]), (Duration::from_secs(300), "corp.example"));
    assert!(realm.virtual_ip.dns && !realm.virtual_ip.v6);
    assert_eq!(loaded.settings.leases.as_deref(), Some(Path::new("/etc/x/state/gateway/leases.db")));
    let (text, _) = with("state_dir = \"state\"", "leases = \"off\"");
    let off = parse(Path::new("/etc/x/g.toml"), &text, 0o600).map_err(|p| p.to_string()).unwrap();
    assert_eq!(off.settings.leases, None);
}

#[test]
fn mistakes_in_pools_are_named_at_their_line() {
    for (pool, word) in [
        ("{ }", "neither `ipv4` nor"),
        ("{ ranges = [\"10.3.0.9-10.3.0.7\"] }", "ends before it begins"),
        ("{ ranges = [\"10.3.0.9-fec3::1\"] }", "different address families"),
        ("{ ranges = [\"x\"] }", "is no range"),
        ("{ reserve = { \"*@lab.test\" = \"10.3.0.7\" } }", "many identities"),
        (
            "{ reserve = { \"a.test\" = \"10.3.0.7\", \"b.test\" = \"10.3.0.7\" } }",
            "reserved for `a.test` already",
        ),
        ("{ reserve = { \"a.test\" = \"10.3.0.7, 10.3.0.8\" } }", "two addresses of one family"),
        ("{ ipv4 = \"10.3.0.0/24\", domains = [\"corp.example\"] }", "there are none"),
        ("{ ipv4 = \"10.3.0.0/24\", dns = [\"10.1.0.1\"], domains = [\"a b\"] }", "is not a domain"),
        ("{ ipv4 = \"10.3.0.0/24\", proxy = \"a/b\" }", "not a name for an interface"),
        ("{ dhcp = { server = \"10.1.0.20\" } }", "write dhcp ="),
        ("{ dhcp = { server = \"10.1.0.20\", relay = \"10.1.0.1\" } }", "write dhcp ="),
        (
            "{ ipv4 = \"10.3.0.0/24\", dhcp = { server = \"10.1.0.20\", relay = \"10.1.0.1/16\" } }",
            "not from both",
        ),
        ("{ dhcp6 = { server = \"fec1::20\", relay = \"fec1::1\" } }", "write dhcp6 ="),
        ("{ dhcp6 = { server = \"10.1.0.20\", relay = \"fec1::1/64\" } }", "is not an IPv6 address"),
        ("{ dhcp6 = { server = \"fec1::20\", relay = \"fec1::1/129\" } }", "is no length"),
        ("{ ipv6 = \"fec3::/64\", dhcp6 = \"lo\" }", "not from both"),
        ("{ dhcp = \"a/b\" }", "not a name for an interface"),
        ("{ dhcp = 7 }", "the name of a device"),
    ] {
        let (text, at) = with("start = \"boot\"", &format!("pool = {pool}"));
        let found = problems(&text);
        assert!(
            found.iter().any(|p| p.starts_with(&format!("g.toml:{at}:")) && p.contains(word)),
            "{pool}: {found:?}"
        );
    }
}

#[test]
fn a_device_in_the_place_of_a_dhcp_server_is_asked_from_its_first_address() {
    let with = |pool: &str| with("start = \"boot\"", &format!("pool = {pool}")).0;
    let loaded = |text: &str| parse(Path::new("g.toml"), &with(text), 0o600).unwrap();
    let pool = |text: &str| loaded(text).realms.iter().find_map(|realm| realm.pool.clone()).unwrap();
    let of_lo = pool("{ dhcp = \"lo\" }").dhcp.unwrap();
    assert_eq!((of_lo.server, of_lo.relay, of_lo.prefix), (None, std::net::Ipv4Addr::LOCALHOST, 8));
    let none = pool("{ dhcp = \"nosuch0\", dhcp6 = \"nosuch0\" }");
    assert!(none.dhcp.as_ref().unwrap().relay.is_unspecified() && none.dhcp6.is_some());
    for address in ["10.1.0.7", "fec1::7"] {
        assert!(!none.covers(&address.parse().unwrap()), "{address} is of nobody's network");
    }
    let named = pool("{ dhcp6 = { server = \"fec1::20\", relay = \"fec1::1/64\" } }");
    assert!(named.covers(&"fec1::4:7".parse().unwrap()) && !named.covers(&"fec2::7".parse().unwrap()));
    assert_eq!(named.prefix_of("fec1::4:7".parse().unwrap()), 64);
}

/// A gateway for EAP, with something in the place of its `remote_auth`, and the number of that line.
fn road(remote_auth: &str) -> (String, usize) {
    let before = "[[eap]]\nuser = \"carol\"\npassword = \"Ar3etTnp\"\n\n[realm.road]\n\
                  local_auth = { method = \"pubkey\", id = \"moon.lab.test\", key = \"no.key\" }\n";
    let child = "[[realm.road.child]]\nname = \"net\"\nlocal = [\"10.1.0.0/16\"]\n";
    (format!("{before}remote_auth = {remote_auth}\n\n{child}"), before.lines().count() + 1)
}

#[test]
fn eap_is_understood_and_its_mistakes_are_named() {
    let others = |text: &str| -> Vec<String> {
        problems(text).into_iter().filter(|problem| !problem.contains("cannot read")).collect()
    };
    for good in [
        r#"{ method = "eap", eap = ["mschapv2", "tls"] }"#,
        r#"{ method = "eap", id = "eap: *@lab.test", eap = ["ttls"], inner = ["pap"], eap_time = "5m" }"#,
        r#"{ method = "eap", eap = ["tls", "peap"], eap_only = true }"#,
        r#"{ method = "eap", eap = ["md5"], keyless = true }"#,
        r#"{ method = "eap", eap = ["tls"], revocation = "strict", crl = ["http://a/b"], ocsp = "http://a/" }"#,
    ] {
        let (text, _) = road(good);
        assert_eq!(others(&text), [""; 0], "{good}");
    }
    for (bad, said) in [
        (r#"{ method = "eap" }"#, "needs `eap`"),
        (r#"{ method = "eap", eap = [] }"#, "names no method"),
        (r#"{ method = "eap", eap = ["mschap2"] }"#, "did you mean `mschapv2`"),
        (r#"{ method = "eap", eap = ["tls", "tls"] }"#, "stands here twice"),
        (r#"{ method = "eap", eap = ["gtc"] }"#, "`keyless = true` allows it"),
        (r#"{ method = "eap", eap = ["mschapv2"], eap_only = true }"#, "RFC 5998 section 4"),
        (r#"{ method = "eap", eap = ["tls"], eap_time = "1h" }"#, "between 10s and 10m"),
        (r#"{ method = "eap", eap = ["tls"], eap_id = "carol" }"#, "belongs into `local_auth`"),
        (r#"{ method = "eap", eap = ["tls"], inner = ["chap"] }"#, "inner method"),
        (r#"{ method = "pubkey", ca = ["no.crt"], eap = ["tls"] }"#, "goes with method = \"eap\""),
        (r#"{ method = "eap", eap = ["tls"], eapid = "x" }"#, "did you mean `eap_id`"),
        (r#"{ method = "eap", eap = ["tls"], revocation = "stict" }"#, "did you mean `strict`"),
        (r#"{ method = "eap", eap = ["tls"], ocsp = "https://a/" }"#, "is not `http://…`"),
        (
            r#"{ method = "eap", eap = ["tls"], usages = ["ipsecIKE"] }"#,
            "`usages` goes with method = \"pubkey\"",
        ),
        (
            r#"{ method = "eap", eap = ["tls"], trust = "first-use" }"#,
            "`trust` goes with method = \"pubkey\"",
        ),
        (r#"{ method = "eap", radius = true, revocation = "strict" }"#, "the RADIUS server that judges"),
    ] {
        let (text, line) = road(bad);
        let found = others(&text);
        let named = found.iter().any(|p| p.starts_with(&format!("g.toml:{line}:")) && p.contains(said));
        assert!(named, "{bad}: {found:#?}");
    }
    let (text, _) = road(r#"{ method = "eap", eap = ["tls"] }"#);
    let shared = text.replace(
        "method = \"pubkey\", id = \"moon.lab.test\", key = \"no.key\"",
        "method = \"psk\", id = \"m.lab.test\"",
    );
    assert!(others(&shared).iter().any(|p| p.contains("need a gateway with a certificate")));
    let twice = format!("[[eap]]\nuser = \"carol\"\nfile = \"x\"\npassword = \"y\"\n\n{text}");
    assert!(others(&twice).iter().any(|p| p.starts_with("g.toml:1:") && p.contains("exactly one of")));
    let number = text.replace("\"Ar3etTnp\"", "31415");
    let found = others(&number);
    assert!(
        found.iter().any(|p| p.starts_with("g.toml:3:")) && !found.concat().contains("31415"),
        "{found:?}"
    );
}

#[test]
fn a_client_looks_at_the_certificate_in_tls_as_at_that_of_the_gateway_unless_it_says() {
    use secure::RevocationMode::{Off, Relaxed, Strict};
    let dir = std::env::temp_dir().join(format!("tussock-eap-revocation-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let cert =
        rcgen::CertificateParams::new(vec!["moon.lab.test".into()]).unwrap().self_signed(&key).unwrap();
    std::fs::write(dir.join("ca.crt"), cert.pem()).unwrap();
    let mode = |local: &str, remote: &str| {
        let text = format!(
            "[realm.home]\nremote = [\"192.0.2.1\"]\n\
             local_auth = {{ method = \"eap\", id = \"carol@lab.test\", eap = [\"ttls\"]{local} }}\n\
             remote_auth = {{ method = \"pubkey\", id = \"moon.lab.test\", ca = [\"ca.crt\"]{remote} }}\n\n\
             [[realm.home.child]]\nname = \"net\"\nremote = [\"10.1.0.0/16\"]\n"
        );
        let loaded = parse(&dir.join("g.toml"), &text, 0o600).map_err(|p| p.to_string()).unwrap();
        loaded.secure.credentials["home"].eap.as_ref().unwrap().revocation.mode
    };
    assert_eq!(mode("", ""), Relaxed);
    assert_eq!(mode("", ", revocation = \"strict\""), Strict);
    assert_eq!(mode(", revocation = \"off\"", ", revocation = \"strict\""), Off);
    std::fs::remove_dir_all(&dir).unwrap();
}
