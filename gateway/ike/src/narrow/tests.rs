use super::*;
use policy::{EspProposal, Lifetime, Start};
use proptest::prelude::*;
use std::net::Ipv4Addr;
use std::time::Duration;
use wire::ike::TsEntry;
use wire::numbers::TsType;

fn ts(text: &str) -> TrafficSelector {
    text.parse().unwrap()
}

fn list(texts: &[&str]) -> Arc<[TrafficSelector]> {
    texts.iter().map(|t| ts(t)).collect()
}

fn payload(texts: &[&str]) -> TsPayload {
    TsPayload::new(list(texts).iter().copied())
}

fn child(name: &str, local: &[&str], remote: &[&str]) -> Child {
    let specs = |texts: &[&str]| texts.iter().map(|t| SelectorSpec::parse(t).unwrap()).collect();
    Child {
        name: name.into(),
        mode: ChildMode::Tunnel,
        local: specs(local),
        remote: specs(remote),
        esp: EspProposal::defaults(),
        start: Start::Manual,
        rekey: Lifetime::of(Duration::from_secs(3600)),
        replay_window: 64,
        tfc: 0,
        copy_df: true,
        copy_dscp: true,
        tun: "".into(),
    }
}

const NOBODY: Dynamic<'_> = Dynamic { local: &[], remote: &[] };

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn request_is_cut_to_what_is_configured() {
    // configured local, configured remote, asked local, asked remote, granted local, granted remote
    type Row<'a> = [&'a [&'a str]; 6];
    const NONE: &[&str] = &[];
    let table: &[Row<'_>] = &[
        [
            &["10.1.0.0/16"],
            &["10.2.0.0/16"],
            &["0.0.0.0/0"],
            &["0.0.0.0/0"],
            &["10.1.0.0/16"],
            &["10.2.0.0/16"],
        ],
        [
            &["0.0.0.0/0"],
            &["0.0.0.0/0"],
            &["10.1.0.0/16"],
            &["10.2.0.0/16"],
            &["10.1.0.0/16"],
            &["10.2.0.0/16"],
        ],
        [&["10.1.0.0/16"], &["10.2.0.0/16"], &["10.1.0.0/16"], &["10.3.0.0/16"], NONE, NONE],
        [&["10.1.0.0/16"], &["10.2.0.0/16"], &["::/0"], &["::/0"], NONE, NONE],
        [
            &["10.1.0.0/16[tcp]"],
            &["10.2.0.0/16"],
            &["10.1.0.0/24[tcp/80-90]"],
            &["10.2.0.5"],
            &["10.1.0.0/24[tcp/80-90]"],
            &["10.2.0.5"],
        ],
        [&["10.1.0.0/16[tcp]"], &["10.2.0.0/16"], &["10.1.0.0/16[udp]"], &["10.2.0.0/16"], NONE, NONE],
        // Lists on both sides; overlapping parts are said once, contained ones not at all.
        [
            &["10.1.0.0/16", "10.9.0.0/16"],
            &["10.2.0.0/16"],
            &["10.1.7.0/24", "10.1.0.0/16", "10.9.3.0/24"],
            &["10.2.0.1", "10.2.0.0/16"],
            &["10.1.0.0/16", "10.9.3.0/24"],
            &["10.2.0.0/16"],
        ],
        // A family that only one side has leads nowhere.
        [
            &["10.1.0.0/16", "fec1::/16"],
            &["10.2.0.0/16"],
            &["0.0.0.0/0", "::/0"],
            &["0.0.0.0/0", "::/0"],
            &["10.1.0.0/16"],
            &["10.2.0.0/16"],
        ],
        [&["fec1::/16"], &["10.2.0.0/16"], &["::/0"], &["0.0.0.0/0"], NONE, NONE],
        [
            &["10.1.0.0/16", "fec1::/16"],
            &["fec2::/16", "10.2.0.0/16"],
            &["::/0", "0.0.0.0/0"],
            &["0.0.0.0/0", "::/0"],
            &["fec1::/16", "10.1.0.0/16"],
            &["10.2.0.0/16", "fec2::/16"],
        ],
        [
            &["10.1.0.5-10.1.0.9"],
            &["10.2.0.0/16"],
            &["10.1.0.0-10.1.0.7"],
            &["10.2.0.0/16"],
            &["10.1.0.5-10.1.0.7"],
            &["10.2.0.0/16"],
        ],
        [&["10.1.0.0/16"], &["10.2.0.0/16"], NONE, &["10.2.0.0/16"], NONE, NONE],
    ];
    for [ours, theirs, asked_local, asked_remote, local, remote] in table {
        let child = child("net", ours, theirs);
        let got = narrow(&child, NOBODY, &payload(asked_local), &payload(asked_remote));
        let want = (!local.is_empty()).then(|| Selectors { local: list(local), remote: list(remote) });
        assert_eq!(got, want, "{asked_local:?} {asked_remote:?}");
    }
}

#[test]
fn selectors_turned_round_or_of_other_types_grant_nothing() {
    let child = child("net", &["0.0.0.0/0"], &["0.0.0.0/0"]);
    let backwards = TrafficSelector::range(ip("10.0.0.9"), ip("10.0.0.1"));
    let ports = ts("10.0.0.1").with_protocol(6, 90, 80);
    let mixed = TrafficSelector::range(ip("10.0.0.9"), ip("::1"));
    for bad in [backwards, ports, mixed] {
        assert_eq!(narrow(&child, NOBODY, &TsPayload::new([bad]), &payload(&["10.2.0.1"])), None);
    }
    let mut labelled = payload(&["10.1.0.1"]);
    labelled.entries.insert(0, TsEntry::Other { kind: TsType(10), second: 0, data: vec![1, 2] });
    let got = narrow(&child, NOBODY, &labelled, &payload(&["10.2.0.1"])).unwrap();
    assert_eq!(got.local, list(&["10.1.0.1"]));
    labelled.entries.truncate(1);
    assert_eq!(narrow(&child, NOBODY, &labelled, &payload(&["10.2.0.1"])), None);
}

#[test]
fn full_payloads_stay_bounded() {
    let hosts = |net: u8| -> Vec<String> { (0..255).map(|i| format!("10.{net}.{i}.0/25")).collect() };
    let (a, b) = (hosts(1), hosts(2));
    let (a, b): (Vec<&str>, Vec<&str>) =
        (a.iter().map(String::as_str).collect(), b.iter().map(String::as_str).collect());
    let child = child("net", &a, &b);
    // Each asked selector overlaps every configured one, in as many different ways.
    let asked: Vec<TrafficSelector> =
        (0..255u16).map(|p| ts("10.0.0.0/8").with_protocol(6, p, p + 1)).collect();
    let got = narrow(&child, NOBODY, &TsPayload::new(asked.clone()), &TsPayload::new(asked)).unwrap();
    assert_eq!((got.local.len(), got.remote.len()), (MAX_SELECTORS, MAX_SELECTORS));
}

#[test]
fn child_that_grants_everything_comes_before_one_for_the_packet_before_any() {
    let a = child("a", &["10.1.1.0/24"], &["10.2.0.0/16"]);
    let b = child("b", &["10.1.2.0/24"], &["10.2.0.0/16"]);
    let wide = child("wide", &["10.1.0.0/16"], &["10.2.0.0/16"]);
    let choose = |children: &[&Child], local: &[&str], remote: &[&str]| {
        let got =
            choose(children.iter().copied(), NOBODY, ChildMode::Tunnel, &payload(local), &payload(remote));
        got.map(|n| (n.child.name.clone(), n.more_possible))
    };
    let got = |name: &str, more| Some((name.into(), more));
    let net = &["10.2.0.0/16"][..];
    assert_eq!(choose(&[&a, &b], &["10.1.2.0/24"], net), got("b", false));
    assert_eq!(
        choose(&[&a, &b], &["0.0.0.0/0"], net),
        got("a", true),
        "b would be granted too, in another SA"
    );
    assert_eq!(choose(&[&a, &b], &["10.1.2.7", "0.0.0.0/0"], net), got("b", true), "the packet is for b");
    assert_eq!(choose(&[&a, &b, &wide], &["10.1.0.0/16"], net), got("wide", false));
    assert_eq!(choose(&[&wide, &a], &["10.1.1.0/24"], net), got("wide", false), "both grant all: the first");
    assert_eq!(choose(&[&a, &b], &["10.7.0.0/16"], net), None);
    assert_eq!(choose(&[], &["0.0.0.0/0"], net), None);
}

#[test]
fn child_of_the_other_mode_is_not_chosen() {
    let tunnel = child("tunnel", &["10.0.0.1"], &["10.0.0.2"]);
    let transport = Child { mode: ChildMode::Transport, ..child("transport", &["10.0.0.1"], &["10.0.0.2"]) };
    let (local, remote) = (payload(&["10.0.0.1"]), payload(&["10.0.0.2"]));
    let name = |mode| {
        let n = choose([&tunnel, &transport], NOBODY, mode, &local, &remote).unwrap();
        (n.child.name.clone(), n.more_possible)
    };
    assert_eq!(name(ChildMode::Transport), ("transport".into(), false));
    assert_eq!(name(ChildMode::Tunnel), ("tunnel".into(), false));
    assert_eq!(choose([&tunnel], NOBODY, ChildMode::Transport, &local, &remote), None);
}

#[test]
fn dynamic_stands_for_the_addresses_of_the_moment() {
    let child = child("rw", &["dynamic[tcp/22]", "10.1.0.0/16"], &["dynamic"]);
    let (ours, theirs) = ([ip("192.0.2.1"), ip("2001:db8::1")], [ip("10.3.0.7"), ip("::ffff:10.3.0.8")]);
    let dynamic = Dynamic { local: &ours, remote: &theirs };
    let offered = offer(&child, dynamic, None).unwrap();
    assert_eq!(offered.local, list(&["192.0.2.1[tcp/22]", "2001:db8::1[tcp/22]", "10.1.0.0/16"]));
    assert_eq!(offered.remote, list(&["10.3.0.7", "10.3.0.8"]));
    assert_eq!(offer(&child, NOBODY, None), None, "no address yet");
    let got = narrow(&child, dynamic, &payload(&["0.0.0.0/0"]), &payload(&["0.0.0.0/0"])).unwrap();
    assert_eq!(got.local, list(&["192.0.2.1[tcp/22]", "10.1.0.0/16"]));
    // A client may not have the address of another.
    assert_eq!(narrow(&child, dynamic, &payload(&["0.0.0.0/0"]), &payload(&["10.3.0.9"])), None);
}

#[test]
fn offer_has_the_packet_first() {
    let child = child("net", &["10.1.0.0/16"], &["10.2.0.0/16"]);
    let packet = (ts("10.1.0.5[tcp/4711]"), ts("10.2.0.9[tcp/80]"));
    let offered = offer(&child, NOBODY, Some(&packet)).unwrap();
    assert_eq!(offered.local, list(&["10.1.0.5[tcp/4711]", "10.1.0.0/16"]));
    assert_eq!(offered.remote, list(&["10.2.0.9[tcp/80]", "10.2.0.0/16"]));
    let got = choose(
        [&child],
        NOBODY,
        ChildMode::Tunnel,
        &TsPayload::new(offered.remote.iter().copied()),
        &TsPayload::new(offered.local.iter().copied()),
    );
    assert_eq!(got, None, "the peer's configuration is the other way round");
}

#[test]
fn answer_must_stay_inside_the_offer() {
    let offered =
        Selectors { local: list(&["10.1.0.0/16", "10.9.0.0/16"]), remote: list(&["10.2.0.0/16[tcp]"]) };
    let check = |local: &[&str], remote: &[&str]| check_answer(&offered, &payload(local), &payload(remote));
    let all = check(&["10.1.0.0/16", "10.9.0.0/16"], &["10.2.0.0/16[tcp]"]);
    assert_eq!(all, Some(offered.clone()));
    assert!(check(&["10.9.7.0/24"], &["10.2.0.1[tcp/80]"]).is_some());
    for (local, remote) in [
        (&["10.0.0.0/8"][..], &["10.2.0.0/16[tcp]"][..]),
        (&["10.1.0.0/16", "10.8.0.0/16"], &["10.2.0.0/16[tcp]"]),
        (&["10.1.0.0/16"], &["10.2.0.0/16"]),
        (&["10.1.0.0/16"], &["10.2.0.0/16[udp]"]),
        (&["10.1.0.0/16"], &["::/0"]),
        (&[], &["10.2.0.0/16[tcp]"]),
        (&["10.1.0.0/16"], &[]),
        (&["10.2.0.1[tcp]"], &["10.1.0.1"]),
    ] {
        assert_eq!(check(local, remote), None, "{local:?} {remote:?}");
    }
    let empty = TsPayload::new([TrafficSelector::range(ip("10.1.0.9"), ip("10.1.0.1"))]);
    assert_eq!(check_answer(&offered, &empty, &payload(&["10.2.0.1[tcp]"])), None);
    let mut labelled = payload(&["10.1.0.0/16"]);
    labelled.entries.push(TsEntry::Other { kind: TsType(10), second: 0, data: vec![] });
    assert_eq!(check_answer(&offered, &labelled, &payload(&["10.2.0.1[tcp]"])), None);
}

#[test]
fn single_pair_is_the_packets_or_the_first_of_one_family() {
    let offered =
        Selectors { local: list(&["10.1.0.5", "10.1.0.0/16"]), remote: list(&["10.2.0.9", "10.2.0.0/16"]) };
    let pair = single_pair(&offered).unwrap();
    assert_eq!((pair.local, pair.remote), (list(&["10.1.0.5"]), list(&["10.2.0.9"])));
    let mixed = Selectors { local: list(&["fec1::/16", "10.1.0.0/16"]), remote: list(&["10.2.0.0/16"]) };
    assert_eq!(single_pair(&mixed).unwrap().local, list(&["10.1.0.0/16"]));
    let apart = Selectors { local: list(&["fec1::/16"]), remote: list(&["10.2.0.0/16"]) };
    assert_eq!(single_pair(&apart), None);
}

#[test]
fn transport_mode_carries_only_the_two_hosts() {
    let (us, peer) = (ip("192.0.2.1"), ip("192.0.2.2"));
    let fits = |local: &[&str], remote: &[&str]| {
        fits_transport(&Selectors { local: list(local), remote: list(remote) }, us, peer)
    };
    assert!(fits(&["192.0.2.1"], &["192.0.2.2"]));
    assert!(fits(&["192.0.2.1[tcp/80]", "192.0.2.1[udp]"], &["192.0.2.2"]));
    assert!(!fits(&["192.0.2.1"], &["192.0.2.1"]));
    assert!(!fits(&["192.0.2.0/31"], &["192.0.2.2"]));
    assert!(!fits(&["192.0.2.1", "10.0.0.1"], &["192.0.2.2"]));
    assert!(!fits(&["0.0.0.0/0"], &["0.0.0.0/0"]));
}

#[test]
fn transport_mode_through_nats_puts_in_what_is_seen_and_answers_with_what_was_asked() {
    // Initiator 10.0.0.5 behind 192.0.2.9 asks for 198.51.100.1, behind which we are 10.1.0.1.
    let (local, remote) =
        (payload(&["198.51.100.1[udp/1701]"]), payload(&["10.0.0.5[udp]", "10.0.0.5[tcp]"]));
    let (us, peer) = (ip("10.1.0.1"), ip("192.0.2.9"));
    let sub =
        |we_behind, peer_behind| Substitution::new(&local, &remote, Nat { we_behind, peer_behind }, us, peer);
    let both = sub(true, true).unwrap();
    let (seen_local, seen_remote) = both.apply(&local, &remote);
    assert_eq!(seen_local, payload(&["10.1.0.1[udp/1701]"]));
    assert_eq!(seen_remote, payload(&["192.0.2.9[udp]", "192.0.2.9[tcp]"]));
    let mut host = child("host", &["dynamic[udp/1701]"], &["dynamic[udp]"]);
    host.mode = ChildMode::Transport;
    let dynamic = Dynamic { local: &[us], remote: &[peer] };
    let granted =
        choose([&host], dynamic, ChildMode::Transport, &seen_local, &seen_remote).unwrap().selectors;
    assert!(fits_transport(&granted, us, peer));
    let answer = both.undo(&granted);
    assert_eq!(answer.local, list(&["198.51.100.1[udp/1701]"]));
    assert_eq!(answer.remote, list(&["10.0.0.5[udp]"]));
    // Only the side behind a NAT is touched.
    let one = sub(false, true).unwrap();
    assert_eq!(one.apply(&local, &remote).0, local);
    let neither = sub(false, false).unwrap();
    assert_eq!(neither.apply(&local, &remote), (local.clone(), remote.clone()));
    // A range, two addresses or none behind a NAT cannot be put back.
    for odd in [payload(&["10.0.0.0/24"]), payload(&["10.0.0.5", "10.0.0.6"]), payload(&[])] {
        let nat = Nat { we_behind: false, peer_behind: true };
        assert_eq!(Substitution::new(&local, &odd, nat, us, peer), None);
    }
}

fn any_ts() -> impl Strategy<Value = TrafficSelector> {
    let v4 = |x: u8| IpAddr::V4(Ipv4Addr::new(10, 0, 0, x));
    (0u8..16, 0u8..16, prop::sample::select(vec![0u8, 6, 17]), 0u16..8, 0u16..8).prop_map(
        move |(a, b, p, x, y)| {
            let all = p == 0;
            let (x, y) = if all { (0, u16::MAX) } else { (x, y) };
            TrafficSelector::range(v4(a), v4(b)).with_protocol(p, x, y)
        },
    )
}

proptest! {
    /// A packet is in what was granted exactly when it is in what was asked for and in what is configured; nothing granted
    /// is empty, or inside another; the initiator accepts it.
    #[test]
    fn granted_is_the_intersection(
        ours in prop::collection::vec(any_ts(), 1..5),
        asked in prop::collection::vec(any_ts(), 1..5),
    ) {
        let mut net = child("net", &[], &["0.0.0.0/0"]);
        net.local = ours.iter().map(|t| SelectorSpec::Fixed(*t)).collect();
        let remote = payload(&["10.2.0.0/16"]);
        let asked_local = TsPayload::new(asked.clone());
        let granted = narrow(&net, NOBODY, &asked_local, &remote);
        let local = granted.as_ref().map(|g| g.local.clone()).unwrap_or_default();
        for host in 0..17u8 {
            let a = IpAddr::V4(Ipv4Addr::new(10, 0, 0, host));
            for (protocol, port) in [(6, 0), (6, 3), (6, 7), (17, 3), (1, 0)] {
                let within = |list: &[TrafficSelector]| {
                    list.iter().any(|t| !t.is_empty() && t.contains(a, protocol, Some(port)))
                };
                prop_assert_eq!(within(&local), within(&ours) && within(&asked), "{} {} {}", a, protocol, port);
            }
        }
        for (i, t) in local.iter().enumerate() {
            prop_assert!(!t.is_empty());
            prop_assert!(local.iter().enumerate().all(|(j, o)| i == j || !t.is_subset(o)));
        }
        if let Some(granted) = granted {
            let offered = Selectors { local: asked.into(), remote: list(&["10.2.0.0/16"]) };
            let answer = (TsPayload::new(granted.local.iter().copied()), TsPayload::new(granted.remote.iter().copied()));
            prop_assert_eq!(check_answer(&offered, &answer.0, &answer.1), Some(granted));
        }
    }
}
