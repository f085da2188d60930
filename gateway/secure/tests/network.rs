//! TUN devices, routes and addresses on a real kernel, in a network namespace of the test's own. Needs `unshare` with the
//! privilege for it, `ip` and /dev/net/tun; skipped, loudly, without.

#![allow(clippy::unwrap_used)]

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use ipc::{NetworkEnd, Refusal, Reply, Request, RouteChange, TunSpec};
use policy::{
    AuthPolicy, Child, ChildMode, Childless, Dpd, DpdAction, Encap, EspProposal, Identity, IkeProposal,
    Lifetime, Realm, SelectorSpec, Start, VirtualIpRequest,
};
use spi::{Secret, Token};
use tussock_secure::{Config, Psk};

const INSIDE: &str = "TUSSOCK_TEST_NAMESPACE";

/// Runs `test` again in a fresh network namespace. True: we are there.
fn inside(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let tried = Command::new("unshare").args(["--net", "true"]).status();
    if !tried.is_ok_and(|s| s.success()) || !std::path::Path::new("/dev/net/tun").exists() {
        eprintln!("SKIPPED {test}: no network namespace or no /dev/net/tun here");
        return false;
    }
    let exe = std::env::current_exe().unwrap();
    let run = Command::new("unshare")
        .arg("--net")
        .arg(exe)
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&run.stdout) + String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success() && text.contains("1 passed"), "{text}");
    false
}

fn ip(args: &str) -> String {
    let out = Command::new("ip").args(args.split_whitespace()).output().unwrap();
    assert!(out.status.success(), "ip {args}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

fn config() -> Config {
    let read = |list: &[&str]| list.iter().map(|t| SelectorSpec::parse(t).unwrap()).collect();
    let child = Child {
        name: "net".into(),
        mode: ChildMode::Tunnel,
        local: read(&["10.1.0.0/16", "fec1::/16"]),
        remote: read(&["10.2.0.0/16", "10.5.0.0/16", "fec2::/16"]),
        esp: EspProposal::defaults(),
        start: Start::Manual,
        rekey: Lifetime::of(Duration::from_secs(3600)),
        replay_window: 64,
        tfc: 0,
        copy_df: true,
        copy_dscp: true,
        tun: "".into(),
    };
    let realm = Realm {
        name: "r".into(),
        local: vec![],
        remote: vec![],
        ike: IkeProposal::defaults(),
        local_id: Identity::parse("moon.lab.test").unwrap(),
        local_auth: AuthPolicy::Psk,
        aliases: vec![],
        remote_id: policy::Peers::parse(["sun.lab.test"]).unwrap(),
        remote_auth: AuthPolicy::Psk,
        eap: policy::EapPolicy::default(),
        methods: vec![],
        children: vec![child],
        start: Start::Manual,
        encap: Encap::Auto,
        fragmentation: true,
        fragment_size: 1280,
        childless: Childless::Allow,
        ike_rekey: Lifetime::of(Duration::from_secs(3600)),
        ike_reauth: Lifetime::of(Duration::ZERO),
        dpd: Dpd { delay: Duration::ZERO, action: DpdAction::Clear },
        virtual_ip: VirtualIpRequest { v4: true, v6: true, dns: false },
        pool: None,
        unique: true,
        worker: None,
    };
    let psks = vec![Psk { realm: None, ids: vec![], secret: Secret::from_slice(b"x") }];
    Config { realms: vec![Arc::new(realm)], psks, ..Config::default() }
}

fn ask(end: &mut NetworkEnd, request: Request) -> Reply {
    end.submit(Token(1), request).unwrap();
    for _ in 0..10_000 {
        let mut got = None;
        end.poll(1, |_, reply| got = Some(reply));
        if let Some(reply) = got {
            return reply;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("no answer");
}

fn done(reply: Reply) {
    match reply {
        Reply::Ok => {}
        Reply::Refused(refusal) => panic!("{refusal}"),
        _ => panic!("another answer"),
    }
}

fn route(destination: &str, source: Option<&str>, add: bool) -> Request {
    let (address, len) = destination.split_once('/').unwrap();
    Request::Route(RouteChange {
        realm: "r".into(),
        destination: (address.parse().unwrap(), len.parse().unwrap()),
        device: "ipsec0".into(),
        source: source.map(|s| s.parse().unwrap()),
        add,
    })
}

fn address(text: &str, prefix: u8, add: bool) -> Request {
    Request::Address {
        realm: "r".into(),
        device: "ipsec0".into(),
        address: text.parse().unwrap(),
        prefix,
        add,
    }
}

fn tun(queues: u16) -> Request {
    Request::OpenTun(TunSpec {
        name: "ipsec0".into(),
        mtu: 1400,
        queues,
        offload: queues > 1,
        ethernet: queues == 2,
    })
}

#[test]
fn a_tun_device_comes_up_quiet_and_goes_with_its_descriptors() {
    if !inside("a_tun_device_comes_up_quiet_and_goes_with_its_descriptors") {
        return;
    }
    let mut side = tussock_secure::spawn(config()).unwrap();
    for queues in [1, 2, 3] {
        let Reply::Tun { queues: fds, name, offload } = ask(&mut side.end, tun(queues)) else { panic!() };
        assert_eq!((fds.len(), name.as_str()), (usize::from(queues), "ipsec0"));
        assert_eq!(offload.header, queues > 1, "{offload:?}");
        let link = ip("link show ipsec0");
        assert!(link.contains("mtu 1400") && link.contains("UP"), "{link}");
        assert_eq!(ip("-6 address show dev ipsec0"), "", "no link-local address, no router solicitations");
        assert_eq!(
            link.contains("link/ether 02:74:73:6b:00:01") && link.contains("NOARP"),
            queues == 2,
            "{link}"
        );
        if queues == 1 {
            let again = ask(&mut side.end, tun(1));
            assert!(matches!(again, Reply::Refused(Refusal::System(_))), "a device in use is not shared");
        }
        drop(fds);
        assert!(!ip("link show").contains("ipsec0"));
    }
    ip("link add ipsec0 type veth peer name other");
    assert!(matches!(ask(&mut side.end, tun(1)), Reply::Refused(Refusal::System(_))), "not a TUN device");
    assert!(ip("link show").contains("ipsec0"), "and still there");
}

#[test]
fn routes_are_added_changed_and_removed_and_those_of_others_left_alone() {
    if !inside("routes_are_added_changed_and_removed_and_those_of_others_left_alone") {
        return;
    }
    let mut side = tussock_secure::spawn(config()).unwrap();
    let end = &mut side.end;
    let Reply::Tun { queues: _fds, .. } = ask(end, tun(1)) else { panic!() };
    done(ask(end, address("10.1.0.1", 32, true)));
    done(ask(end, address("fec1::1", 128, true)));
    done(ask(end, address("10.1.0.1", 32, true)));
    done(ask(end, route("10.2.0.0/16", None, true)));
    done(ask(end, route("10.2.0.0/16", None, true)));
    assert_eq!(ip("route show 10.2.0.0/16").matches("dev ipsec0").count(), 1);
    done(ask(end, route("10.2.0.0/16", Some("10.1.0.1"), true)));
    let shown = ip("route show 10.2.0.0/16");
    assert!(shown.contains("src 10.1.0.1") && shown.matches("dev ipsec0").count() == 1, "{shown}");
    done(ask(end, route("fec2::/16", Some("fec1::1"), true)));
    done(ask(end, route("fec2::/16", Some("fec1::1"), true)));
    let shown = ip("-6 route show fec2::/16");
    assert!(shown.contains("src fec1::1") && shown.matches("dev ipsec0").count() == 1, "{shown}");
    // Somebody else's: same destination, another device. Neither replaced nor removed.
    ip("link add other type veth peer name another");
    ip("link set other up");
    ip("route add 10.5.0.0/16 dev other");
    let refused = ask(end, route("10.5.0.0/16", None, true));
    assert!(matches!(&refused, Reply::Refused(Refusal::System(why)) if why.contains("not ours")));
    let refused = ask(end, route("10.5.0.0/16", None, false));
    assert!(matches!(refused, Reply::Refused(Refusal::NotAllowed(_))), "never added by us");
    assert!(ip("route show 10.5.0.0/16").contains("dev other"));
    // Somebody else's on our own device.
    ip("route del 10.5.0.0/16 dev other");
    ip("route add 10.5.0.0/16 dev ipsec0");
    assert!(matches!(ask(end, route("10.5.0.0/16", None, true)), Reply::Refused(_)));
    assert!(matches!(ask(end, route("10.5.0.0/16", None, false)), Reply::Refused(_)));
    assert!(ip("route show 10.5.0.0/16").contains("dev ipsec0"));
    // Ours, and gone by another hand meanwhile, with somebody else's in its place: removing ours leaves that alone.
    ip("route del 10.2.0.0/16 dev ipsec0");
    ip("route add 10.2.0.0/16 dev ipsec0");
    done(ask(end, route("10.2.0.0/16", None, false)));
    assert!(ip("route show 10.2.0.0/16").contains("dev ipsec0"));
    ip("route del 10.2.0.0/16 dev ipsec0");
    done(ask(end, route("10.2.0.0/16", None, true)));
    for (destination, family) in [("10.2.0.0/16", "-4"), ("fec2::/16", "-6")] {
        done(ask(end, route(destination, None, false)));
        assert_eq!(ip(&format!("{family} route show {destination}")), "");
    }
}

#[test]
fn addresses_come_without_a_route_and_go_again() {
    if !inside("addresses_come_without_a_route_and_go_again") {
        return;
    }
    let mut side = tussock_secure::spawn(config()).unwrap();
    let end = &mut side.end;
    let Reply::Tun { queues: _fds, .. } = ask(end, tun(1)) else { panic!() };
    // A peer that hands out an address with a prefix does not get the rest of the prefix by that.
    done(ask(end, address("10.3.0.7", 8, true)));
    done(ask(end, address("fec3::7", 16, true)));
    assert!(ip("address show dev ipsec0").contains("10.3.0.7/8"));
    assert!(!ip("address show dev ipsec0").contains("tentative"));
    assert!(!ip("route show").contains("10.0.0.0/8"));
    assert!(!ip("-6 route show").contains("fec3::/16"));
    done(ask(end, address("10.3.0.7", 8, false)));
    done(ask(end, address("fec3::7", 16, false)));
    let shown = ip("address show dev ipsec0");
    assert!(!shown.contains("10.3.0.7") && !shown.contains("fec3::7"), "{shown}");
    assert!(matches!(ask(end, address("10.3.0.7", 8, false)), Reply::Refused(Refusal::NotAllowed(_))));
}

#[test]
fn packets_with_our_mark_keep_out_of_tunnels_and_for_others_the_longest_prefix_wins() {
    if !inside("packets_with_our_mark_keep_out_of_tunnels_and_for_others_the_longest_prefix_wins") {
        return;
    }
    ip("link add other type veth peer name another");
    ip("link set other up");
    ip("link set another up");
    ip("address add 192.0.2.1/24 dev other");
    ip("route add default via 192.0.2.2");
    ip("route add 10.2.9.0/24 dev other");
    let before = ip("rule show");
    let mut side = tussock_secure::spawn(Config { mark: 0x77, ..config() }).unwrap();
    let end = &mut side.end;
    let Reply::Tun { queues: _fds, .. } = ask(end, tun(1)) else { panic!() };
    done(ask(end, route("10.2.0.0/16", None, true)));
    done(ask(end, route("10.2.0.0/16", None, true)));
    done(ask(end, route("10.5.0.0/16", None, true)));
    done(ask(end, route("10.2.9.9/32", None, true)));
    let by = |to: &str| {
        let text = ip(&format!("route get {to}"));
        text.split_whitespace().skip_while(|word| *word != "dev").nth(1).unwrap().to_owned()
    };
    assert_eq!((by("10.2.0.5"), by("10.2.9.9")), ("ipsec0".into(), "ipsec0".into()));
    assert_eq!(by("10.2.9.5"), "other", "somebody else's longer prefix");
    assert_eq!((by("10.2.0.5 mark 0x77"), by("10.9.0.1")), ("other".into(), "other".into()));
    done(ask(end, route("10.2.0.0/16", None, false)));
    assert_eq!((by("10.2.0.5"), by("10.5.0.5")), ("other".into(), "ipsec0".into()));
    done(ask(end, route("10.5.0.0/16", None, false)));
    assert_eq!(by("10.5.0.5"), "other");
    drop(side);
    assert_eq!(ip("rule show"), before, "no rule is left");
}
