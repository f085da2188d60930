//! What a gateway that is no longer ours gets from the key side.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use ipc::{AuthInput, IkeSaRef, NetworkEnd, Offered, Refusal, Reply, Request, Role, RouteChange, TunSpec};
use policy::Identity;
use rustix::net::SendFlags;
use spi::{Prf, Token};
use tussock::processes::rehearsal::KeySide;

use crate::pair::Pair;
use crate::{SECRET, can};

fn key_side(space: &str, dir: &Path) -> KeySide {
    fs::create_dir_all(dir).unwrap();
    let text = format!(
        "[gateway]\nstate_dir = \"{}\"\n[[psk]]\nids = [\"moon.lab.test\", \"sun.lab.test\"]\nsecret = \"{SECRET}\"\n\
         [realm.site]\nremote = [\"192.168.0.2\"]\nlocal_auth = {{ method = \"psk\", id = \"moon.lab.test\" }}\n\
         remote_auth = {{ method = \"psk\", id = \"sun.lab.test\" }}\n[[realm.site.child]]\nname = \"net\"\n\
         local = [\"10.1.0.0/16\"]\nremote = [\"10.2.0.0/16\"]\n",
        dir.display()
    );
    let loaded = tussock::config::parse(&dir.join("g.toml"), &text, 0o600).unwrap_or_else(|p| panic!("{p}"));
    let mut command = Command::new("ip");
    command.args(["netns", "exec", space, env!("CARGO_BIN_EXE_tussock-secure")]);
    KeySide::start(command, loaded).unwrap()
}

fn refusal(end: &mut NetworkEnd, request: Request) -> Refusal {
    end.submit(Token(1), request).unwrap();
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let mut got = None;
        end.poll(1, |_, reply| got = Some(reply));
        match got {
            Some(Reply::Refused(refusal)) => return refusal,
            Some(_) => panic!("it was granted"),
            None => assert!(Instant::now() < until, "no answer"),
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// In a namespace that nobody else is in, a gateway that is not ours asks for what it should not have.
#[test]
fn a_fake_gateway_gets_nothing_it_should_not_have() {
    if !can("a key side of its own") {
        return;
    }
    let pair = Pair::new("fake");
    let [space, _] = pair.hosts();
    let dir = std::env::temp_dir().join(format!("tussock-fake-{}", std::process::id()));
    let mut secure = key_side(&space, &dir);
    let mut end = NetworkEnd::of_socket(secure.channel.try_clone().unwrap(), None).unwrap();
    let realm = || -> std::sync::Arc<str> { "site".into() };
    let route = |realm: std::sync::Arc<str>, to: &str, len, device: &str, add| {
        let (device, source) = (device.into(), None);
        Request::Route(RouteChange { realm, destination: (to.parse().unwrap(), len), device, source, add })
    };
    let tun =
        |name: &str| TunSpec { name: name.into(), mtu: 1400, queues: 1, offload: false, ethernet: false };
    let not_allowed = |refusal: Refusal| match refusal {
        Refusal::NotAllowed(why) => why,
        other => panic!("{other}"),
    };
    let null = || Some(OwnedFd::from(fs::File::open("/dev/null").unwrap()));
    // Devices that are not its own, names that are paths, a descriptor that is no device.
    not_allowed(refusal(&mut end, route(realm(), "10.2.0.0", 16, "eth0", true)));
    not_allowed(refusal(&mut end, Request::OpenTun(tun("../etc"))));
    let adopt = Request::AdoptTun { spec: tun("lo"), queue: null() };
    assert!(matches!(refusal(&mut end, adopt), Refusal::System(_) | Refusal::NotAllowed(_)));
    // A device it may have; then routes and addresses that the realm does not allow.
    end.submit(Token(1), Request::OpenTun(tun("fake0"))).unwrap();
    let mut made = Vec::new();
    let until = Instant::now() + Duration::from_secs(20);
    while made.is_empty() && Instant::now() < until {
        end.poll(1, |_, reply| made.push(reply));
        std::thread::sleep(Duration::from_millis(2));
    }
    // With its queue the device would be gone.
    assert!(matches!(made[..], [Reply::Tun { .. }]));
    for (to, len) in [("0.0.0.0", 0), ("10.0.0.0", 8), ("10.3.0.0", 16), ("192.168.0.2", 32), ("::", 0)] {
        not_allowed(refusal(&mut end, route(realm(), to, len, "fake0", true)));
    }
    not_allowed(refusal(&mut end, route("nobodys".into(), "10.2.0.0", 16, "fake0", true)));
    not_allowed(refusal(&mut end, route(realm(), "10.2.0.0", 16, "fake0", false)));
    for address in ["10.9.0.1", "127.0.0.1", "10.2.0.1", "192.168.0.2"] {
        let (device, address) = ("fake0".into(), address.parse().unwrap());
        let request = Request::Address { realm: realm(), device, address, prefix: 32, add: true };
        not_allowed(refusal(&mut end, request));
    }
    // Something to sign that is no IKE_SA_INIT message: a digest, a TLS transcript, nothing.
    let id = |name: &str| Identity::Fqdn(name.into());
    let make = |sa, role, message: Vec<u8>| Request::MakeAuth {
        sa: IkeSaRef(sa),
        realm: realm(),
        own_id: id("moon.lab.test"),
        peer_id: Some(id("sun.lab.test")),
        input: AuthInput {
            role,
            message,
            nonce: vec![7; 32],
            maced_id: vec![8; 32],
            prf: Prf::HMAC_SHA2_256,
            int_auth: Vec::new(),
        },
        offered: Offered::default(),
    };
    for message in [vec![0x5a; 32], b"TLS 1.3, client CertificateVerify".to_vec(), Vec::new()] {
        not_allowed(refusal(&mut end, make(1, Role::Initiator, message)));
    }
    // As responder without a peer that proved itself, and under another's name.
    let init = fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/wire_ike/init_request"));
    if let Ok(init) = init {
        let refused = refusal(&mut end, make(2, Role::Responder, init.clone()));
        assert!(matches!(refused, Refusal::OutOfTurn(_) | Refusal::NotAllowed(_)), "{refused}");
    }
    assert!(secure.goes_on(), "it has said no, and goes on");
    // A flood of questions is answered, one by one.
    let mut asked = 0;
    let mut answered = 0;
    for token in 0..20_000 {
        asked += usize::from(end.submit(Token(token), make(token, Role::Responder, vec![1; 100])).is_ok());
        end.poll(64, |_, reply| {
            assert!(matches!(reply, Reply::Refused(_)));
            answered += 1;
        });
    }
    let until = Instant::now() + Duration::from_secs(60);
    while answered < asked && Instant::now() < until {
        end.poll(64, |_, _| answered += 1);
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(answered, asked);
    assert!(secure.goes_on());
    drop(end);
    drop(secure);
    // Octets that are no questions end it in good order; whoever comes next finds a fresh one.
    for garbage in [vec![0xff; 400], vec![1; 9], vec![0; 60_000], vec![1, 0, 0, 0, 0, 0, 0, 0, 0, 99, 99]] {
        let mut secure = key_side(&space, &dir);
        rustix::net::send(&secure.channel, &garbage, SendFlags::NOSIGNAL).unwrap();
        assert!(secure.ended_well().unwrap(), "in good order");
    }
    let _ = fs::remove_dir_all(dir);
}
