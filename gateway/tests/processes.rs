//! The three processes as they run: what privilege each has, where secrets are, what a gateway that is no longer ours gets from the
//! key side, and what happens when one of them is killed. All of it needs root, and namespaces of its own.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ipc::{AuthInput, IkeSaRef, NetworkEnd, Offered, Refusal, Reply, Request, Role, RouteChange, TunSpec};
use policy::Identity;
use rustix::net::SendFlags;
use spi::{Prf, Token};
use tussock::processes::rehearsal::KeySide;

const SECRET: &str = "planted: 7f3a9b52c4e8d016";

/// Whether this can be tried here; says loudly when not.
fn can(what: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("SKIPPED: {what} needs root");
    }
    root
}

fn tool(program: &str, arguments: &[&str]) {
    let done = Command::new(program).args(arguments).output().unwrap();
    assert!(done.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
}

/// Two hosts on one wire, each in a namespace, with a gateway each.
struct Pair {
    name: String,
    dir: PathBuf,
    gateways: Vec<Child>,
}

impl Pair {
    fn new(name: &str) -> Pair {
        let name = format!("tsk{name}{}", std::process::id());
        let dir = std::env::temp_dir().join(&name);
        fs::create_dir_all(&dir).unwrap();
        let pair = Pair { name, dir, gateways: Vec::new() };
        let [moon, sun] = pair.hosts();
        for host in [&moon, &sun] {
            tool("ip", &["netns", "add", host]);
            tool("ip", &["-n", host, "link", "set", "lo", "up"]);
        }
        tool(
            "ip",
            &["link", "add", "eth0", "netns", &moon, "type", "veth", "peer", "name", "eth0", "netns", &sun],
        );
        for (host, octet) in [(&moon, 1), (&sun, 2)] {
            tool("ip", &["-n", host, "link", "set", "eth0", "up"]);
            tool("ip", &["-n", host, "addr", "add", &format!("192.168.0.{octet}/24"), "dev", "eth0"]);
            tool("ip", &["-n", host, "addr", "add", &format!("10.{octet}.0.1/32"), "dev", "lo"]);
        }
        pair
    }

    fn hosts(&self) -> [String; 2] {
        ["moon", "sun"].map(|host| format!("{}-{host}", self.name))
    }

    fn place(&self, host: &str, file: &str) -> PathBuf {
        self.dir.join(format!("{host}.{file}"))
    }

    fn configure(&self, host: &str, us: u8, them: u8, auth: (&str, &str), psk: &str) -> PathBuf {
        let peer = if host == "moon" { "sun" } else { "moon" };
        let start = if host == "moon" { "boot" } else { "manual" };
        let text = format!(
            "[gateway]\nstate_dir = \"{}\"\nworkers = 2\n{psk}\n[realm.site]\nlocal = [\"192.168.0.{us}\"]\n\
             remote = [\"192.168.0.{them}\"]\nstart = \"{start}\"\n\
             local_auth = {{ id = \"{host}.lab.test\", {} }}\nremote_auth = {{ id = \"{peer}.lab.test\", {} }}\n\
             dpd = {{ delay = \"1s\", action = \"restart\" }}\n[[realm.site.child]]\nname = \"net\"\nmode = \"tunnel\"\nlocal = [\"10.{us}.0.0/16\"]\n\
             remote = [\"10.{them}.0.0/16\"]\n",
            self.place(host, "run").display(),
            auth.0,
            auth.1
        );
        let file = self.place(host, "toml");
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        file
    }

    fn psk(&self, host: &str, us: u8, them: u8) -> PathBuf {
        let psk = format!("[[psk]]\nids = [\"moon.lab.test\", \"sun.lab.test\"]\nsecret = \"{SECRET}\"\n");
        self.configure(host, us, them, ("method = \"psk\"", "method = \"psk\""), &psk)
    }

    /// Starts a gateway and returns its supervisor's number.
    fn run(&mut self, host: &str, file: &Path) -> u32 {
        let name = format!("{}-{host}", self.name);
        let log = fs::File::options().create(true).append(true).open(self.place(host, "log")).unwrap();
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &name, env!("CARGO_BIN_EXE_tussock"), "run", "--config"]).arg(file);
        let process =
            command.stdin(Stdio::null()).stderr(log.try_clone().unwrap()).stdout(log).spawn().unwrap();
        let pid = process.id();
        self.gateways.push(process);
        self.until("it is ready", || self.command(host, &["status"]).is_some());
        pid
    }

    fn command(&self, host: &str, arguments: &[&str]) -> Option<String> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tussock"));
        command.args(arguments).arg("--socket").arg(self.place(host, "run").join("control.sock"));
        let done = command.output().unwrap();
        done.status.success().then(|| String::from_utf8(done.stdout).unwrap())
    }

    fn until(&self, what: &str, mut happens: impl FnMut() -> bool) {
        let until = Instant::now() + Duration::from_secs(40);
        while !happens() {
            let logs =
                ["moon", "sun"].map(|host| fs::read_to_string(self.place(host, "log")).unwrap_or_default());
            assert!(Instant::now() < until, "not so: {what}\n{}\n{}", logs[0], logs[1]);
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn pings(&self) -> bool {
        let name = format!("{}-moon", self.name);
        let mut ping = Command::new("ip");
        ping.args(["netns", "exec", &name, "ping", "-c", "1", "-W", "1", "-I", "10.1.0.1", "10.2.0.1"]);
        ping.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success()
    }

    /// Both up, with a tunnel by PSK.
    fn with_tunnel(name: &str) -> (Pair, u32) {
        let mut pair = Pair::new(name);
        let (moon, sun) = (pair.psk("moon", 1, 2), pair.psk("sun", 2, 1));
        pair.run("sun", &sun);
        let moon = pair.run("moon", &moon);
        pair.until("there is a tunnel", || pair.pings());
        (pair, moon)
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for process in &mut self.gateways {
            let _ = process.kill();
            let _ = process.wait();
        }
        for host in self.hosts() {
            let _ = Command::new("ip").args(["netns", "del", &host]).status();
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn children(supervisor: u32) -> [u32; 2] {
    let file = format!("/proc/{supervisor}/task/{supervisor}/children");
    let all: Vec<u32> =
        fs::read_to_string(file).unwrap().split_whitespace().map(|pid| pid.parse().unwrap()).collect();
    ["tussock-gateway", "tussock-secure"].map(|name| {
        let is = |pid: &&u32| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap().trim() == name;
        *all.iter().find(is).unwrap_or_else(|| panic!("no {name} among {all:?}"))
    })
}

/// Lines of the table: what the kernel says of a process.
fn privileges(pid: u32) -> Vec<(String, String)> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let of = |text: &str, key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        line.unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let user = |number: &str| match number.parse().unwrap() {
        0x7473_6701u32 => "its own".to_owned(),
        0x7473_6702 => "its own".to_owned(),
        0 => "root".to_owned(),
        other => other.to_string(),
    };
    let users = |key| {
        let mut all: Vec<String> = of(&status, key).split(' ').map(user).collect();
        all.dedup();
        all.join(", ")
    };
    let or = |text: String, none: &str| if text.is_empty() { none.to_owned() } else { text };
    let capabilities = |key| {
        let set = u64::from_str_radix(&of(&status, key), 16).unwrap();
        match set {
            0 => "none".to_owned(),
            0x1000 => "CAP_NET_ADMIN".to_owned(),
            _ => "what root has".to_owned(),
        }
    };
    // A process that may not be looked into belongs to root in /proc, whoever runs it.
    let looked_into = fs::metadata(format!("/proc/{pid}/environ")).unwrap().uid() == 0;
    let is_root = of(&status, "Uid").starts_with("0 ");
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    let core = if core.split_whitespace().filter(|word| *word == "0").count() == 2 { "no" } else { "yes" };
    let mut filters: Vec<String> = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
        let task = task.unwrap().path();
        let name = fs::read_to_string(task.join("comm")).unwrap();
        let text = fs::read_to_string(task.join("status")).unwrap();
        let kind = if name.starts_with("lane") { "lanes" } else { "threads" };
        let line = format!("{kind}: {} filters", of(&text, "Seccomp_filters"));
        if !filters.contains(&line) {
            filters.push(line);
        }
    }
    filters.sort_unstable_by(|a, b| b.cmp(a));
    let seccomp = if of(&status, "Seccomp") == "2" { filters.join("; ") } else { "none".to_owned() };
    [
        ("user", users("Uid")),
        ("group", users("Gid")),
        ("further groups", or(of(&status, "Groups"), "none")),
        ("capabilities, effective", capabilities("CapEff")),
        ("permitted", capabilities("CapPrm")),
        ("inheritable", capabilities("CapInh")),
        ("ambient", capabilities("CapAmb")),
        ("bounding set", capabilities("CapBnd")),
        ("no_new_privs", if of(&status, "NoNewPrivs") == "1" { "yes" } else { "no" }.to_owned()),
        ("seccomp", seccomp),
        ("may be looked into", if looked_into || is_root { "by root" } else { "by its user" }.to_owned()),
        ("core dumps", core.to_owned()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .to_vec()
}

#[test]
fn each_process_has_the_privilege_that_the_page_says() {
    if !can("a look at the processes") {
        return;
    }
    let (pair, supervisor) = Pair::with_tunnel("priv");
    let [gateway, secure] = children(supervisor);
    let [all, gateway, secure] = [supervisor, gateway, secure].map(privileges);
    let mut table =
        String::from("| | supervisor | `tussock-gateway` | `tussock-secure` |\n|---|---|---|---|\n");
    for (((key, a), (_, b)), (_, c)) in all.iter().zip(&gateway).zip(&secure) {
        table += &format!("| {key} | {a} | {b} | {c} |\n");
    }
    drop(pair);
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/privsep.md");
    let page = fs::read_to_string(page).unwrap();
    assert!(page.contains(&table), "docs/privsep.md does not have this table:\n{table}");
}

/// Places in the memory of a process where these octets are.
fn found(pid: u32, octets: &[u8]) -> usize {
    let memory = fs::File::open(format!("/proc/{pid}/mem")).unwrap();
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let mut count = 0;
    let mut looked_at = 0;
    for line in
        maps.lines().filter(|line| line.split_whitespace().nth(1).is_some_and(|mode| mode.starts_with('r')))
    {
        let range = line.split_whitespace().next().unwrap();
        let (from, to) = range.split_once('-').unwrap();
        let (from, to) = (u64::from_str_radix(from, 16).unwrap(), u64::from_str_radix(to, 16).unwrap());
        let mut at = from;
        while at < to {
            // Parts overlap, so that nothing lies across a border.
            let mut part = vec![0; (to - at).min(1 << 20) as usize];
            let Ok(read) = memory.read_at(&mut part, at) else { break };
            if read == 0 {
                break;
            }
            looked_at += read;
            count += memchr(&part[..read], octets);
            at += if at + read as u64 >= to { read as u64 } else { (read - octets.len()) as u64 };
        }
    }
    assert!(looked_at > 1 << 20, "{looked_at} octets of {pid} were seen");
    count
}

fn memchr(hay: &[u8], needle: &[u8]) -> usize {
    hay.windows(needle.len()).filter(|window| *window == needle).count()
}

#[test]
fn secrets_are_in_the_key_side_and_nowhere_else() {
    if !can("a look into memory") {
        return;
    }
    let (pair, supervisor) = Pair::with_tunnel("scan");
    // Read again, too: by another reader.
    assert!(pair.command("moon", &["reload"]).is_some());
    assert!(pair.pings());
    let [gateway, secure] = children(supervisor);
    let secret = SECRET.as_bytes();
    let counts = [supervisor, gateway, secure].map(|pid| found(pid, secret));
    eprintln!("the pre-shared key was found in the supervisor, the gateway, the key side: {counts:?} times");
    assert_eq!(counts[..2], [0, 0], "in the supervisor, in the gateway");
    assert!(counts[2] > 0, "the key side has it, or the search finds nothing");
    // What the gateway does know is found in it by the same search.
    assert!(found(gateway, b"moon.lab.test") > 0);
}

#[test]
fn private_keys_are_in_the_key_side_and_nowhere_else() {
    if !can("a look into memory") {
        return;
    }
    let mut pair = Pair::new("keys");
    let make = |host: &str| {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new([format!("{host}.lab.test")]).unwrap();
        let cert = params.self_signed(&key).unwrap();
        let files = ["key", "crt"].map(|ending| pair.place(host, ending));
        fs::write(&files[0], key.serialize_pem()).unwrap();
        fs::set_permissions(&files[0], fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&files[1], cert.pem()).unwrap();
        (files, key)
    };
    let ([moon_files, sun_files], [moon_key, _]) = {
        let ((a, x), (b, y)) = (make("moon"), make("sun"));
        ([a, b], [x, y])
    };
    let auth = |[key, cert]: &[PathBuf; 2], their: &PathBuf| {
        let own =
            format!("method = \"pubkey\", key = \"{}\", cert = [\"{}\"]", key.display(), cert.display());
        (own, format!("method = \"pubkey\", cert = [\"{}\"]", their.display()))
    };
    let (moon, sun) = (auth(&moon_files, &sun_files[1]), auth(&sun_files, &moon_files[1]));
    let moon = pair.configure("moon", 1, 2, (&moon.0, &moon.1), "");
    let sun = pair.configure("sun", 2, 1, (&sun.0, &sun.1), "");
    pair.run("sun", &sun);
    let supervisor = pair.run("moon", &moon);
    pair.until("there is a tunnel", || pair.pings());
    let [gateway, _] = children(supervisor);
    let der = moon_key.serialize_der();
    // The private number itself, in the ECPrivateKey of RFC 5915.
    let place = der.windows(2).position(|pair| pair == [0x04, 0x20]).unwrap() + 2;
    let number = &der[place..place + 32];
    let backwards: Vec<u8> = number.iter().rev().copied().collect();
    let pem = moon_key.serialize_pem();
    let line = pem.lines().nth(1).unwrap().as_bytes();
    for pid in [supervisor, gateway] {
        for what in [number, &backwards, line] {
            assert_eq!(found(pid, what), 0, "in {pid}");
        }
    }
}

#[test]
fn killed_processes_come_back_and_tunnels_with_them() {
    if !can("killing processes") {
        return;
    }
    let (pair, supervisor) = Pair::with_tunnel("kill");
    let kill = |pid: u32| tool("kill", &["-9", &pid.to_string()]);
    let [gateway, secure] = children(supervisor);
    kill(secure);
    for _ in 0..10 {
        assert!(pair.pings(), "SAs that are up need no key side");
        std::thread::sleep(Duration::from_millis(50));
    }
    pair.until("there is another key side", || {
        fs::read_to_string(pair.place("moon", "log")).unwrap().contains("there is a key side again")
    });
    assert_eq!(children(supervisor)[0], gateway, "the same gateway");
    assert!(pair.command("moon", &["rekey", "site", "--ike"]).is_some());
    // A proof is asked of the new one.
    assert!(pair.command("moon", &["down", "site"]).is_some());
    assert!(pair.command("moon", &["up", "site"]).is_some());
    assert!(pair.pings());
    let [gateway, secure] = children(supervisor);
    kill(gateway);
    pair.until("another gateway has its tunnel", || {
        let now = fs::read_to_string(format!("/proc/{supervisor}/task/{supervisor}/children")).unwrap();
        now.split_whitespace().count() == 2 && !now.contains(&gateway.to_string()) && pair.pings()
    });
    assert_ne!(children(supervisor)[1], secure, "the key side begins anew, too");
    let left = children(supervisor);
    kill(supervisor);
    pair.until("nobody is left without a supervisor", || {
        left.iter().all(|pid| fs::read_to_string(format!("/proc/{pid}/status")).is_err())
    });
}

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
