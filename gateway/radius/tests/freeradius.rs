//! The client against FreeRADIUS. Skipped, loudly, where that is not installed.

#![allow(clippy::unwrap_used)]

mod lab;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use eap::{Conversation, Grant, MethodKind, Password, Peer, PeerConfig, Step};
use lab::{FreeRadius, SECRET, Set, is_there, radclient, until};
use radius::{
    Cause, Client, Config, Demanded, Details, Dynamic, DynamicClient, ErrorCause, Passthrough, Patience,
    Running, Session, Traffic, Verdict, What, Whose,
};
use spi::{Doorbell, Secret};

const USERS: &str = r#"
alice Cleartext-Password := "wonder"
 Reply-Message = "welcome",
 Framed-IP-Address = 10.9.0.7,
 Framed-IPv6-Address = fd00:9::7,
 MS-Primary-DNS-Server = 10.9.0.1,
 DNS-Server-IPv6-Address = fd00:9::1,
 Session-Timeout = 3600,
 Acct-Interim-Interval = 120,
 Class = "staff",
 Filter-Id = "lan",
 Tunnel-Private-Group-Id = "blue"
bob Cleartext-Password := "builder"
"#;

fn users() -> Set {
    Set { users: USERS.into(), ..Set::default() }
}

fn config(servers: Vec<radius::Server>, dynamic: Option<Dynamic>) -> Config {
    Config {
        nas_identifier: "gw.lab.test".into(),
        nas_address: Some("192.0.2.1".parse().unwrap()),
        servers,
        patience: Patience { first: Duration::from_millis(500), tries: 3 },
        dynamic,
        journal: None,
    }
}

fn start(servers: Vec<radius::Server>, dynamic: Option<Dynamic>) -> (Running, Doorbell) {
    let bell = Doorbell::between_threads().unwrap();
    (Running::start(config(servers, dynamic), bell.clone()).unwrap(), bell)
}

fn details(session: &str) -> Details {
    Details {
        peer: "198.51.100.7".parse().unwrap(),
        called: "gw.lab.test".into(),
        session: session.into(),
        connect_info: "IKEv2".into(),
        mtu: 1024,
        identity: None,
    }
}

/// The next step that is not a wait.
fn on(conversation: &mut dyn Conversation, step: Step) -> Step {
    match step {
        Step::Wait => until("an answer of the server", || match conversation.poll() {
            Step::Wait => None,
            step => Some(step),
        }),
        step => step,
    }
}

/// Who wants to come in, by EAP-MSCHAPv2.
#[derive(Clone, Copy)]
struct User {
    name: &'static str,
    password: &'static str,
}

const ALICE: User = User { name: "alice", password: "wonder" };

fn peer(user: User) -> Peer {
    let config = PeerConfig {
        identity: user.name.into(),
        anonymous: None,
        password: Password::Known(Secret::from_slice(user.password.as_bytes())),
        methods: vec![MethodKind::MsChapV2],
        inner: Vec::new(),
        tls: None,
        allow_keyless: false,
    };
    let random = Arc::new(|octets: &mut [u8]| aws_lc_rs::rand::fill(octets).unwrap());
    Peer::new(Arc::new(config), random)
}

fn answer(peer: &mut Peer, request: &[u8]) -> Vec<u8> {
    match peer.receive(Some(request)) {
        Step::Send(packet) => packet,
        Step::Refused { why, .. } => panic!("the peer gives up: {why}"),
        Step::Wait | Step::Accepted { .. } => panic!("the peer has nothing to say"),
    }
}

/// Both sides until the end. The keys that they have then are the same.
fn talk(client: &Client, details: Details, user: User) -> Result<Box<Grant>, String> {
    let mut conversation = Passthrough::new(client.clone(), details);
    let mut peer = peer(user);
    let mut step = conversation.receive(None);
    loop {
        step = match on(&mut conversation, step) {
            Step::Send(packet) => conversation.receive(Some(&answer(&mut peer, &packet))),
            Step::Accepted { packet, grant } => {
                let Step::Accepted { grant: its, .. } = peer.receive(packet.as_deref()) else {
                    panic!("the peer does not take the success");
                };
                let (ours, its) = (grant.msk.as_ref().unwrap(), its.msk.unwrap());
                assert!(ours.ct_eq(its.expose()), "not the same key");
                assert_eq!(ours.len(), 64);
                return Ok(grant);
            }
            Step::Refused { packet, why } => {
                let Step::Refused { .. } = peer.receive(packet.as_deref()) else { panic!("no EAP failure") };
                return Err(why);
            }
            Step::Wait => unreachable!(),
        };
    }
}

fn silent(name: &str) -> radius::Server {
    // Bound, so that nobody else has it, and never read.
    let socket = Box::leak(Box::new(std::net::UdpSocket::bind("127.0.0.1:0").unwrap()));
    closed(name, socket.local_addr().unwrap())
}

fn closed(name: &str, at: SocketAddr) -> radius::Server {
    radius::Server {
        name: name.into(),
        access: Some(at),
        accounting: Some(at),
        secret: Secret::from_slice(SECRET.as_bytes()),
        tls: None,
    }
}

#[test]
fn a_user_comes_in_with_what_the_server_grants() {
    if !is_there("a_user_comes_in_with_what_the_server_grants") {
        return;
    }
    let server = FreeRadius::start("grants", &users());
    let (running, _) = start(vec![server.server("one")], None);
    let grant = talk(&running.client, details("s1"), ALICE).unwrap();
    assert_eq!(grant.identity, "alice");
    assert_eq!(grant.method, "RADIUS, EAP-MSCHAPv2");
    let granted = grant.granted;
    let addresses: Vec<String> =
        granted.addresses.iter().chain(&granted.dns).map(ToString::to_string).collect();
    assert_eq!(addresses, ["10.9.0.7", "fd00:9::7", "10.9.0.1", "fd00:9::1"]);
    assert_eq!(granted.session_timeout, Some(Duration::from_secs(3600)));
    assert_eq!(granted.interim, Some(Duration::from_secs(120)));
    assert_eq!(granted.groups, ["staff", "lan", "blue"]);
    assert_eq!(granted.class, [b"staff".to_vec()]);
    let log = std::fs::read_to_string(server.folder.join("log")).unwrap();
    for line in [
        "NAS-Identifier = \"gw.lab.test\"",
        "NAS-IP-Address = 192.0.2.1",
        "NAS-Port-Type = Virtual",
        "Service-Type = Framed-User",
        "Calling-Station-Id = \"198.51.100.7\"",
        "Called-Station-Id = \"gw.lab.test\"",
        "Framed-MTU = 1024",
        "Connect-Info = \"IKEv2\"",
        "Acct-Session-Id = \"s1\"",
    ] {
        assert!(log.contains(line), "the server was not told {line}");
    }
}

#[test]
fn a_wrong_password_and_an_unknown_user_are_refused_alike() {
    if !is_there("a_wrong_password_and_an_unknown_user_are_refused_alike") {
        return;
    }
    let server = FreeRadius::start("refused", &users());
    let (running, _) = start(vec![server.server("one")], None);
    let mallory = |name| User { name, password: "guess" };
    assert_eq!(talk(&running.client, details("s1"), mallory("bob")).err().unwrap(), "one refuses bob");
    assert_eq!(talk(&running.client, details("s2"), mallory("nobody")).err().unwrap(), "one refuses nobody");
}

#[test]
fn an_identity_that_is_known_already_is_not_asked_for() {
    if !is_there("an_identity_that_is_known_already_is_not_asked_for") {
        return;
    }
    let server = FreeRadius::start("known", &users());
    let (running, _) = start(vec![server.server("one")], None);
    let given = Details { identity: Some("alice".into()), ..details("s1") };
    let grant = talk(&running.client, given, ALICE).unwrap();
    assert_eq!(grant.identity, "alice");
}

#[test]
fn a_dead_first_server_costs_a_moment_and_two_dead_ones_are_said() {
    if !is_there("a_dead_first_server_costs_a_moment_and_two_dead_ones_are_said") {
        return;
    }
    let server = FreeRadius::start("second", &users());
    let (running, _) = start(vec![silent("one"), server.server("two")], None);
    talk(&running.client, details("s1"), ALICE).unwrap();
    let status = running.client.status();
    assert!(status.access[0].dead.is_some() && status.access[1].dead.is_none());
    // The next one goes past the dead one.
    let asked = status.access_counters.again;
    talk(&running.client, details("s2"), ALICE).unwrap();
    assert_eq!(running.client.status().access_counters.again, asked);

    let nobody = SocketAddr::from(([127, 0, 0, 1], lab::udp_port()));
    let (running, _) = start(vec![silent("one"), closed("two", nobody)], None);
    let why = talk(&running.client, details("s1"), ALICE).err().unwrap();
    assert_eq!(why, "RADIUS: one: no answer to 3 tries; two: nothing listens there");
    let why = talk(&running.client, details("s1"), ALICE).err().unwrap();
    assert_eq!(why, "RADIUS: one is down: no answer to 3 tries; two is down: nothing listens there");
}

#[test]
fn a_server_that_comes_back_is_found_by_its_status() {
    if !is_there("a_server_that_comes_back_is_found_by_its_status") {
        return;
    }
    let server = FreeRadius::start("back", &users());
    server.signal("STOP");
    let (running, _) = start(vec![server.server("one")], None);
    assert!(talk(&running.client, details("s1"), ALICE).is_err());
    assert!(running.client.status().access[0].dead.is_some());
    server.signal("CONT");
    until("its status", || running.client.status().access[0].dead.is_none().then_some(()));
    talk(&running.client, details("s2"), ALICE).unwrap();
    let counters = running.client.status().access_counters;
    assert_eq!((counters.unsigned, counters.forged), (0, 0));
}

#[test]
fn another_secret_is_a_server_that_does_not_answer() {
    if !is_there("another_secret_is_a_server_that_does_not_answer") {
        return;
    }
    let server = FreeRadius::start("secret", &users());
    let told = radius::Server { secret: Secret::from_slice(b"wrong"), ..server.server("one") };
    let (running, _) = start(vec![told], None);
    let why = talk(&running.client, details("s1"), ALICE).err().unwrap();
    assert_eq!(why, "RADIUS: one: no answer to 3 tries");
}

#[test]
fn five_hundred_conversations_at_once() {
    if !is_there("five_hundred_conversations_at_once") {
        return;
    }
    let server = FreeRadius::start("crowd", &users());
    let (running, bell) = start(vec![server.server("one")], None);
    let mut out: Vec<Option<Passthrough>> =
        (0..500).map(|n| Some(Passthrough::new(running.client.clone(), details(&format!("s{n}"))))).collect();
    let mut peers: Vec<Peer> = (0..500).map(|_| peer(ALICE)).collect();
    let mut steps: Vec<(usize, Step)> =
        out.iter_mut().enumerate().map(|(n, c)| (n, c.as_mut().unwrap().receive(None))).collect();
    let mut accepted = 0;
    let end = Instant::now() + 3 * lab::PATIENCE;
    while accepted < 500 {
        assert!(Instant::now() < end, "{accepted} came in: {:?}", running.client.status());
        for (n, step) in std::mem::take(&mut steps) {
            match step {
                Step::Send(packet) => {
                    steps.push((n, out[n].as_mut().unwrap().receive(Some(&answer(&mut peers[n], &packet)))));
                }
                Step::Accepted { .. } => {
                    accepted += 1;
                    out[n] = None;
                }
                Step::Refused { why, .. } => panic!("{why}"),
                Step::Wait => {}
            }
        }
        if steps.is_empty() && !bell.answer() {
            std::thread::sleep(Duration::from_millis(1));
        }
        for (n, conversation) in out.iter_mut().enumerate() {
            if let Some(conversation) = conversation {
                match conversation.poll() {
                    Step::Wait => {}
                    step => steps.push((n, step)),
                }
            }
        }
    }
    let counters = running.client.status().access_counters;
    assert_eq!(counters.unanswered, 0);
    eprintln!("500 conversations: {counters:?}");
}

fn session(id: &str) -> Session {
    Session {
        id: id.into(),
        user: "alice".into(),
        peer: "198.51.100.7".parse().unwrap(),
        called: "gw.lab.test".into(),
        addresses: vec!["10.9.0.7".parse().unwrap(), "fd00:9::7".parse().unwrap()],
        class: vec![b"staff".to_vec()],
    }
}

#[test]
fn a_session_is_in_the_servers_books_from_start_to_stop() {
    if !is_there("a_session_is_in_the_servers_books_from_start_to_stop") {
        return;
    }
    let server = FreeRadius::start("books", &users());
    let (running, _) = start(vec![server.server("one")], None);
    let client = &running.client;
    let traffic = Traffic { octets_in: (1 << 32) + 5, octets_out: 6, packets_in: 7, packets_out: 8 };
    client.account(session("s1"), What::Start).unwrap();
    // One after the other, or the interim record would give way to the stop.
    until("the start", || (client.status().ledger.written >= 2).then_some(()));
    client.account(session("s1"), What::Interim { traffic, time: Duration::from_secs(60) }).unwrap();
    until("the interim", || (client.status().ledger.written >= 3).then_some(()));
    let time = Duration::from_secs(99);
    client.account(session("s1"), What::Stop { traffic, time, cause: Cause::SessionTimeout }).unwrap();
    assert_eq!(running.finish(lab::PATIENCE), 0);
    let records = server.records();
    let kinds: Vec<&str> = records
        .iter()
        .map(|record| record.lines().find_map(|l| l.trim().strip_prefix("Acct-Status-Type = ")).unwrap())
        .collect();
    assert_eq!(kinds, ["Accounting-On", "Start", "Interim-Update", "Stop", "Accounting-Off"]);
    for line in [
        "Acct-Session-Id = \"s1\"",
        "User-Name = \"alice\"",
        "Framed-IP-Address = 10.9.0.7",
        "Framed-IPv6-Address = fd00:9::7",
        "Class = 0x7374616666",
        "Acct-Authentic = RADIUS",
        "Acct-Input-Octets = 5",
        "Acct-Input-Gigawords = 1",
        "Acct-Output-Octets = 6",
        "Acct-Input-Packets = 7",
        "Acct-Output-Packets = 8",
        "Acct-Session-Time = 99",
        "Acct-Terminate-Cause = Session-Timeout",
        "Acct-Delay-Time = 0",
    ] {
        assert!(records[3].contains(line), "no {line} in {}", records[3]);
    }
}

#[test]
fn records_wait_while_no_server_takes_them() {
    if !is_there("records_wait_while_no_server_takes_them") {
        return;
    }
    let server = FreeRadius::start("patience", &users());
    server.signal("STOP");
    let (running, _) = start(vec![server.server("one")], None);
    for n in 0..50 {
        running.client.account(session(&format!("s{n}")), What::Start).unwrap();
    }
    let status = until("the server to be found dead", || {
        Some(running.client.status())
            .filter(|s| s.accounting.first().is_some_and(|server| server.dead.is_some()))
    });
    assert_eq!((status.ledger.waiting, status.ledger.written), (51, 0));
    server.signal("CONT");
    assert_eq!(running.finish(lab::PATIENCE), 0);
    let records = server.records().join("\n");
    for n in 0..50 {
        assert!(records.contains(&format!("Acct-Session-Id = \"s{n}\"")), "s{n} was lost");
    }
}

#[test]
fn what_one_process_knew_the_next_one_knows_and_tells_the_server() {
    if !is_there("what_one_process_knew_the_next_one_knows_and_tells_the_server") {
        return;
    }
    let server = FreeRadius::start("journal", &users());
    let folder = server.folder.join("ours");
    std::fs::create_dir(&folder).unwrap();
    let begin = |server: radius::Server, whose| {
        let journal = Some((folder.clone(), whose));
        Running::start(Config { journal, ..config(vec![server], None) }, Doorbell::new().unwrap()).unwrap()
    };
    let traffic = Traffic { octets_in: 5, octets_out: 6, packets_in: 7, packets_out: 8 };
    let known = |name: u64, id: &str| radius::Known {
        name,
        session: session(id),
        interim: None,
        began: SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000),
        time: Duration::from_secs(61),
        traffic,
    };
    // The server is not there; the process goes without a word.
    let running = begin(silent("one"), Whose::NobodysNow);
    running.client.account(session("done"), What::Start).unwrap();
    let time = Duration::from_secs(9);
    running.client.account(session("done"), What::Stop { traffic, time, cause: Cause::UserRequest }).unwrap();
    running.client.account(session("up"), What::Start).unwrap();
    running.client.know(known(1, "up"));
    running.client.know(known(2, "gone"));
    running.client.unknow(2);
    drop(running);
    // One that takes its place beside the same gateway.
    let running = begin(silent("one"), Whose::Ours);
    assert_eq!(running.known, [known(1, "up")]);
    drop(running);
    // And one after the gateway itself has gone.
    let running = begin(server.server("one"), Whose::NobodysNow);
    assert!(running.known.is_empty());
    assert_eq!(running.finish(lab::PATIENCE), 0);
    let records = server.records();
    let of = |record: &String, name: &str| {
        record
            .lines()
            .find_map(|l| l.trim().strip_prefix(name))
            .unwrap_or_default()
            .trim_matches('"')
            .to_owned()
    };
    let told: Vec<(String, String)> = records
        .iter()
        .map(|record| (of(record, "Acct-Session-Id = "), of(record, "Acct-Status-Type = ")))
        .map(|(id, kind)| (if id.starts_with("gateway-") { "gateway".into() } else { id }, kind))
        .collect();
    let at = |id: &str, kind: &str| {
        let wanted = (id.to_owned(), kind.to_owned());
        let found: Vec<usize> = (0..told.len()).filter(|n| told[*n] == wanted).collect();
        assert_eq!(found.len(), if id == "gateway" && kind == "Accounting-On" { 2 } else { 1 }, "{told:?}");
        found
    };
    // What each process has begun or ended goes between: first the beginning of the one before, last the end of this one.
    assert!(at("gateway", "Accounting-On")[0] < at("done", "Start")[0]);
    assert!(at("done", "Start")[0] < at("done", "Stop")[0] && at("up", "Start")[0] < at("up", "Stop")[0]);
    assert!(at("up", "Stop")[0] < at("gateway", "Accounting-On")[1], "{told:?}");
    assert!(at("gateway", "Accounting-Off")[0] == told.len() - 1, "{told:?}");
    let stop = &records[at("up", "Stop")[0]];
    for line in ["Acct-Terminate-Cause = NAS-Reboot", "Acct-Session-Time = 61", "Acct-Input-Octets = 5"] {
        assert!(stop.contains(line), "no {line} in {stop}");
    }
    // All is said, and nothing is left of it.
    drop(begin(silent("one"), Whose::Ours));
    assert_eq!(std::fs::read_to_string(folder.join(radius::journal::FILE)).unwrap(), "");
}

#[test]
fn other_servers_take_the_place_of_these_and_what_is_under_way_goes_on() {
    if !is_there("other_servers_take_the_place_of_these_and_what_is_under_way_goes_on") {
        return;
    }
    let (one, two) = (FreeRadius::start("one", &users()), FreeRadius::start("two", &users()));
    let (mut running, _) = start(vec![one.server("one")], None);
    let client = running.client.clone();
    // A conversation that has begun.
    let mut begun = Passthrough::new(client.clone(), details("s1"));
    let mut its = peer(ALICE);
    let Step::Send(packet) = begun.receive(None) else { panic!() };
    let step = begun.receive(Some(&answer(&mut its, &packet)));
    let Step::Send(challenge) = on(&mut begun, step) else { panic!() };
    // Its server stays, behind another; it goes on.
    running.reload(config(vec![two.server("two"), one.server("one")], None)).unwrap();
    let step = begun.receive(Some(&answer(&mut its, &challenge)));
    assert!(matches!(on(&mut begun, step), Step::Send(_)));
    talk(&client, details("s2"), ALICE).unwrap();
    let told = |server: &FreeRadius| std::fs::read_to_string(server.folder.join("log")).unwrap();
    assert!(
        told(&two).contains("Acct-Session-Id = \"s2\"") && !told(&one).contains("Acct-Session-Id = \"s2\"")
    );
    // A conversation whose server goes ends, and says so.
    let mut begun = Passthrough::new(client.clone(), details("s3"));
    let mut its = peer(ALICE);
    let Step::Send(packet) = begun.receive(None) else { panic!() };
    let step = begun.receive(Some(&answer(&mut its, &packet)));
    let Step::Send(challenge) = on(&mut begun, step) else { panic!() };
    running.reload(config(vec![one.server("one")], None)).unwrap();
    let step = begun.receive(Some(&answer(&mut its, &challenge)));
    let Step::Refused { why, .. } = on(&mut begun, step) else { panic!() };
    assert!(why.contains("no server of ours any more"), "{why}");
    talk(&client, details("s4"), ALICE).unwrap();
    // Another secret is another server; the right one is found again.
    let wrong = radius::Server { secret: Secret::from_slice(b"other"), ..one.server("one") };
    running.reload(config(vec![wrong], None)).unwrap();
    assert_eq!(talk(&client, details("s5"), ALICE).err().unwrap(), "RADIUS: one: no answer to 3 tries");
    running.reload(config(vec![one.server("one")], None)).unwrap();
    talk(&client, details("s6"), ALICE).unwrap();
    // Requests to us: at an address that is somebody else's there are none, and the rest is as it should be.
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap();
    let dynamic = |secret: &[u8]| Dynamic {
        listen,
        clients: vec![DynamicClient {
            address: "127.0.0.1".parse().unwrap(),
            secret: Secret::from_slice(secret),
        }],
        strict: false,
    };
    assert!(running.reload(config(vec![two.server("two")], Some(dynamic(b"first")))).is_err());
    talk(&client, details("s7"), ALICE).unwrap();
    drop(taken);
    running.reload(config(vec![two.server("two")], Some(dynamic(b"first")))).unwrap();
    running.reload(config(vec![two.server("two")], Some(dynamic(b"second")))).unwrap();
    let ask = |secret| radclient(listen, "disconnect", secret, "Filter-Id = nothing");
    assert!(ask("second").contains("Received Disconnect-NAK"));
    assert!(ask("first").contains("No reply"));
}

#[test]
fn radclient_disconnects_and_changes_and_is_told_what_does_not_go() {
    if !is_there("radclient_disconnects_and_changes_and_is_told_what_does_not_go") {
        return;
    }
    let listen = SocketAddr::from(([127, 0, 0, 1], lab::udp_port()));
    let clients = vec![DynamicClient {
        address: "127.0.0.1".parse().unwrap(),
        secret: Secret::from_slice(SECRET.as_bytes()),
    }];
    let (running, bell) = start(Vec::new(), Some(Dynamic { listen, clients, strict: true }));
    let client = running.client.clone();
    let (to, stop) = std::sync::mpsc::channel::<()>();
    let owner = std::thread::spawn(move || {
        let mut demands = Vec::new();
        while stop.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
            bell.answer();
            while let Some(demand) = client.poll_demand() {
                let known = demand.which.session.as_deref() == Some("s1");
                let verdict = if known { Verdict::Done } else { Verdict::Refused(ErrorCause::NoSession) };
                client.answer(demand.id, verdict).unwrap();
                demands.push(demand);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        demands
    });
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let send = |kind: &str, which: &str| {
        let attributes = format!("Event-Timestamp = {now}\nMessage-Authenticator = 0x00\n{which}\n");
        radclient(listen, kind, SECRET, &attributes)
    };
    let said = send("disconnect", "Acct-Session-Id = s1");
    assert!(said.contains("Received Disconnect-ACK"), "{said}");
    let said = send("disconnect", "User-Name = nobody");
    assert!(said.contains("Received Disconnect-NAK") && said.contains("Session-Context-Not-Found"), "{said}");
    let said = send("coa", "Acct-Session-Id = s1\nSession-Timeout = 60");
    assert!(said.contains("Received CoA-ACK"), "{said}");
    let said = send("coa", "Acct-Session-Id = s1\nFilter-Id = lan");
    assert!(said.contains("Received CoA-NAK") && said.contains("Unsupported-Attribute"), "{said}");
    let said =
        radclient(listen, "disconnect", "wrong", &format!("Event-Timestamp = {now}\nAcct-Session-Id = s1"));
    assert!(said.contains("No reply from server"), "{said}");
    to.send(()).unwrap();
    let demands = owner.join().unwrap();
    assert_eq!(demands.len(), 3);
    assert_eq!(demands[2].what, Demanded::Change { timeout: Some(Duration::from_secs(60)), interim: None });
    let counters = running.client.status().dynamic;
    assert_eq!((counters.done, counters.refused), (2, 2), "{counters:?}");
    assert!(counters.forged + counters.unsigned >= 1, "{counters:?}");
}

/// A CA, and a certificate by it for a name; as files.
fn certificate(
    folder: &std::path::Path,
    ca: &rcgen::CertifiedIssuer<'_, rcgen::KeyPair>,
    name: &str,
) -> [std::path::PathBuf; 3] {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    let certificate = params.signed_by(&key, ca).unwrap();
    let files = [
        ("ca.pem".to_owned(), ca.pem()),
        (format!("{name}.pem"), certificate.pem()),
        (format!("{name}.key"), key.serialize_pem()),
    ];
    files.map(|(file, text)| {
        let path = folder.join(file);
        std::fs::write(&path, text).unwrap();
        path
    })
}

fn ca(name: &str) -> rcgen::CertifiedIssuer<'static, rcgen::KeyPair> {
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    rcgen::CertifiedIssuer::self_signed(params, rcgen::KeyPair::generate().unwrap()).unwrap()
}

#[test]
fn over_tls_it_is_the_same_and_certificates_are_looked_at() {
    if !is_there("over_tls_it_is_the_same_and_certificates_are_looked_at") {
        return;
    }
    let folder = std::env::temp_dir().join(format!("tussock-radsec-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (ours, other) = (ca("lab"), ca("other"));
    let server = FreeRadius::start(
        "radsec",
        &Set { tls: Some(certificate(&folder, &ours, "radius.lab.test")), ..users() },
    );
    let own = {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["gw.lab.test".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &ours).unwrap();
        (certificate.der().to_vec(), Secret::new(key.serialize_der()))
    };
    let told = |ca: &rcgen::CertifiedIssuer<'_, rcgen::KeyPair>, name: &str, with_own: bool| {
        let own = with_own.then(|| (vec![own.0.clone()], &own.1));
        let tls = radius::Tls::new(vec![ca.der().to_vec()], own, name).unwrap();
        radius::Server { tls: Some(tls), secret: Secret::from_slice(b"radsec"), ..server.server("one") }
    };
    let (running, _) = start(vec![told(&ours, "radius.lab.test", true)], None);
    for n in 0..3 {
        let grant = talk(&running.client, details(&format!("s{n}")), ALICE).unwrap();
        assert_eq!(grant.granted.session_timeout, Some(Duration::from_secs(3600)));
    }
    running.client.account(session("s1"), What::Start).unwrap();
    assert_eq!(running.finish(lab::PATIENCE), 0);
    assert!(server.records().iter().any(|record| record.contains("Acct-Status-Type = Start")));
    for (server, says) in [
        (told(&other, "radius.lab.test", true), "UnknownIssuer"),
        (told(&ours, "other.lab.test", true), "other.lab.test"),
    ] {
        let (running, _) = start(vec![server], None);
        let why = talk(&running.client, details("s9"), ALICE).err().unwrap();
        assert!(why.contains("TLS") && why.contains(says), "{why}");
    }
    // Without a certificate of ours the server hangs up.
    let (running, _) = start(vec![told(&ours, "radius.lab.test", false)], None);
    assert!(talk(&running.client, details("s9"), ALICE).is_err());
    std::fs::remove_dir_all(&folder).unwrap();
}
