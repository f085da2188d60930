//! Remote access: leases over a crash, reserved addresses, both families, name servers, addresses of the LAN, several clients behind one
//! NAT.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::{Place, Story};
use crate::interop::course::Steps;
use crate::interop::scenario::{SECRET, SITES, Scenario};
use crate::peer::{Peer, await_tunnel, log_text};
use crate::ping;
use crate::process::{self, Daemon};
use crate::strongswan::{Release, StrongSwan};
use crate::tunnel::{Encap, End, Lease};
use crate::tussock::{SITE, Tussock, quoted};
use crate::world::{ALICE, ALICE6, Layout, MOON, MOON_NET6, World};

pub const STORIES: &[Story] = &[
    Story::ours(
        "leases-kept",
        "kill -9 of the gateway: the client has its address again and nobody else gets it; leases shown and released",
        kept,
    )
    .on(Layout::Roadwarrior),
    Story::ours(
        "pool-both",
        "pools of both families and a reserved address, for strongSwan, which installs the name server",
        both,
    )
    .on(Layout::Roadwarrior)
    .cast("strongSwan -> tussock"),
    Story::ours(
        "dns-taken",
        "name servers and domains of strongSwan are used while the tunnel is up, and let go also after kill -9",
        names,
    )
    .on(Layout::Roadwarrior)
    .cast("tussock -> strongSwan"),
    Story::ours(
        "lan-address",
        "roadwarriors with addresses of the LAN reach it and each other (proxy ARP, proxy ND)",
        lan,
    )
    .on(Layout::Roadwarrior),
    Story::ours("pool-dhcp", "addresses of a DHCP server of the LAN: leased, released, and said clearly when there is no answer", dhcp)
        .on(Layout::Roadwarrior)
        .with(&["dnsmasq-base"]),
    Story::ours("nat-two", "two strongSwans behind one NAT at once, one pool", behind_one_nat)
        .on(Layout::BehindNat)
        .cast("2 strongSwan -> tussock"),
];

/// A realm for everybody of the lab, with the secrets of carol and erin.
pub(super) fn server<'a>(place: &Place<'a>, scenario: &Scenario, others: &[&str]) -> Result<Tussock<'a>> {
    let moon = place.tussock(&scenario.moon())?;
    moon.set(SITE, "remote_auth", "{ method = \"psk\", id = \"*@lab.test\" }")?;
    for other in others {
        let ids = format!("ids = [\"moon.lab.test\", {}]", quoted(other));
        moon.append(&format!("[[psk]]\n{ids}\nsecret = {}", quoted(SECRET)))?;
    }
    Ok(moon)
}

/// Inner addresses a host has, of both families, on tunnel devices.
pub(super) fn inner(world: &World, host: &str) -> Result<Vec<String>> {
    let text = process::run(Command::new("ip").args(["-n", &world.net.name(host), "-o", "addr", "show"]))?;
    let inside = |line: &str| {
        let mut words = line.split_whitespace();
        let device = words.nth(1)?;
        let address = words.nth(1)?.split('/').next()?;
        let ours = device.starts_with("ipsec") && !address.starts_with("fe80");
        ours.then(|| address.to_owned())
    };
    Ok(text.lines().filter_map(inside).collect())
}

pub(super) fn one(world: &World, host: &str) -> Result<String> {
    let all = inner(world, host)?;
    all.first().cloned().with_context(|| format!("{host} has no inner address"))
}

pub(super) fn call(world: &World, end: &Tussock<'_>, host: &str) -> Result<String> {
    end.up()?;
    await_tunnel(end, "after coming up", |_| true)?;
    one(world, host)
}

/// Who has an address, as `tussock leases` says.
pub(super) fn leases(moon: &Tussock<'_>) -> Result<Vec<(String, String, bool)>> {
    let all = moon.json("leases")?;
    let all = all.get("leases").and_then(Value::as_array).context("no leases")?;
    let word = |lease: &Value, key: &str| lease[key].as_str().unwrap_or_default().to_owned();
    let held = |lease: &Value| lease["sas"].as_array().is_some_and(|sas| !sas.is_empty());
    Ok(all.iter().map(|lease| (word(lease, "address"), word(lease, "who"), held(lease))).collect())
}

fn kept(place: &Place<'_>, steps: &mut Steps) -> Result<()> {
    let world = place.world;
    let scenario = Scenario { layout: Layout::Roadwarrior, ..SITES };
    world.join("erin", 101)?;
    world.net.ip("erin", &format!("route add default via {MOON}\n"))?;
    let mut moon = server(place, &scenario, &["erin@lab.test"])?;
    let mut carol = place.tussock(&scenario.far())?;
    let mut erin = place.tussock(&End { host: "erin", id: "erin@lab.test".into(), ..scenario.far() })?;
    steps.begin("carol gets an address");
    moon.start()?;
    carol.start()?;
    erin.start()?;
    let carols = call(world, &carol, "carol")?;
    let noted = process::until(Duration::from_secs(5), || {
        Ok((leases(&moon)?.first().is_some_and(|(_, who, held)| who == "carol@lab.test" && *held))
            .then_some(()))
    })?;
    noted.context("the lease is not shown")?;
    // Written by another thread, soon afterwards.
    std::thread::sleep(Duration::from_millis(500));
    steps.begin("the gateway is killed, and another client is the first to come back");
    moon.kill();
    carol.kill();
    moon.start()?;
    let erins = call(world, &erin, "erin")?;
    if erins == carols {
        bail!("erin was given {carols}, which is kept for carol");
    }
    steps.begin("carol has her address again, without asking for it");
    carol.start()?;
    let again = call(world, &carol, "carol")?;
    if again != carols {
        bail!("carol had {carols} and now has {again}");
    }
    ping::check(world, "carol", ALICE)?;
    steps.begin("two gateways on one file are refused");
    let second = End { host: "alice", address: None, ..scenario.moon() };
    let file = world.state("moon")?.join("gateway/leases.db");
    let mut second = place.tussock(&second)?;
    second.set("[gateway]", "leases", &quoted(&file.display().to_string()))?;
    let Err(error) = second.start() else { bail!("a second gateway uses {}", file.display()) };
    if !format!("{error:#}").contains("another gateway keeps its leases") {
        bail!("it does not say why: {error:#}");
    }
    steps.begin("what is in use cannot be released, and what is not can");
    if moon.order(&["leases", "release", "--identity", "carol@lab.test"]).is_ok() {
        bail!("an address in use was released");
    }
    carol.down()?;
    let released = process::until(Duration::from_secs(5), || {
        Ok(moon.order(&["leases", "release", "--identity", "carol@lab.test"]).ok())
    })?;
    let released = released.context("carol's lease is not released")?;
    if !released.contains("released: 1") || leases(&moon)?.iter().any(|(address, ..)| *address == carols) {
        bail!("released, and still there: {released} {:?}", leases(&moon)?);
    }
    steps.begin("a damaged file is moved aside and the gateway goes on");
    moon.stop()?;
    fs::write(&file, vec![0x5a; 8192])?;
    moon.start()?;
    says(&moon, "it was moved to")?;
    call(world, &carol, "carol").map(drop)
}

fn both(place: &Place<'_>, steps: &mut Steps) -> Result<()> {
    let world = place.world;
    let scenario = Scenario { layout: Layout::Roadwarrior, ..SITES };
    let mut moon = server(place, &scenario, &[])?;
    let pool = "{ ranges = [\"10.3.0.10-10.3.0.19\", \"fec3::/120\"], reserve = { \"carol@lab.test\" = \"10.3.7.7\" }, \
                dns = [\"10.1.0.53\", \"fec1::53\"], domains = [\"corp.example\"], subnets = [\"10.1.0.0/16\"] }";
    moon.set(SITE, "pool", pool)?;
    moon.set("[[realm.site.child]]", "local", "[\"10.1.0.0/16\", \"fec1::/64\"]")?;
    let far = End { remote: vec!["10.1.0.0/16", MOON_NET6], ..scenario.far() };
    let mut carol = StrongSwan::new(world, far, Release::Host, place.results)?;
    let resolv = asks_for_both(place, &mut carol)?;
    steps.begin("strongSwan asks for both families");
    moon.start()?;
    carol.start()?;
    carol.up()?;
    await_tunnel(&carol, "after coming up", |_| true)?;
    let log = log_text(&carol);
    for words in ["installing new virtual IP 10.3.7.7", "installing new virtual IP fec3::2"] {
        if !log.contains(words) {
            bail!("strongSwan's log does not say `{words}`");
        }
    }
    steps.begin("it has put the name servers where programs look for them");
    let text = fs::read_to_string(&resolv).unwrap_or_default();
    if !(text.contains("nameserver 10.1.0.53") && text.contains("nameserver fec1::53")) {
        bail!("strongSwan's resolv.conf says {text:?}; its log: {:?}", grep(&log, "DNS"));
    }
    // RFC 8598 section 3.2: nobody is told of domains who did not ask.
    if log.contains("INTERNAL_DNS_DOMAIN") || log.contains("(25)") {
        bail!("strongSwan was told of domains: {:?}", grep(&log, "(25)"));
    }
    steps.begin("both families carry packets");
    ping::check(world, "carol", ALICE)?;
    ping::check(world, "carol", ALICE6)?;
    steps.begin("moon shows both leases");
    let mut shown: Vec<String> = leases(&moon)?.into_iter().map(|(address, ..)| address).collect();
    shown.sort();
    if shown != ["10.3.7.7", "fec3::2"] {
        bail!("leases: {shown:?}");
    }
    Ok(())
}

/// Has strongSwan ask for both families, and put name servers into a file, whose path this gives.
pub(super) fn asks_for_both(place: &Place<'_>, end: &mut StrongSwan<'_>) -> Result<PathBuf> {
    let resolv = place.results.join("carol-resolv.conf");
    let plugins = "random nonce openssl gmp curve25519 aes sha1 sha2 hmac cmac xcbc kdf drbg ccm ctr gcm chapoly mgf1 pem \
                   pkcs1 pkcs8 x509 revocation constraints pubkey kernel-libipsec kernel-netlink socket-default vici counters \
                   error-notify resolve";
    let resolve = format!("plugins {{\n resolve {{\n file = {}\n }}\n }}", resolv.display());
    end.configure(&format!("charon {{\n load = {plugins}\n {resolve}\n}}\n"))?;
    end.append("connections {\n site {\n vips = 0.0.0.0, ::\n }\n}\n")?;
    Ok(resolv)
}

/// Wait until an end's log has these words; it is written by a thread of its own.
pub(super) fn says(end: &Tussock<'_>, words: &str) -> Result<()> {
    let said = process::until(Duration::from_secs(3), || Ok(log_text(end).contains(words).then_some(())))?;
    said.with_context(|| format!("the log of {} does not say `{words}`", end.maker()))
}

pub(super) fn grep(text: &str, word: &str) -> Vec<String> {
    text.lines().filter(|line| line.contains(word)).map(str::to_owned).collect()
}

fn names(place: &Place<'_>, steps: &mut Steps) -> Result<()> {
    let world = place.world;
    let scenario = Scenario { layout: Layout::Roadwarrior, ..SITES };
    let mut moon = StrongSwan::new(world, scenario.moon(), Release::Host, place.results)?;
    moon.append("pools {\n addresses {\n dns = 10.1.0.53\n }\n}\n")?;
    let mut carol = place.tussock(&scenario.far())?;
    carol.set(SITE, "virtual_ip", "{ request = [\"ipv4\"], dns = \"install\" }")?;
    // A file of its own, in the place of this machine's.
    let etc = Etc::of(world, "carol")?;
    let resolv = etc.0.join("resolv.conf");
    let before = fs::read_to_string(&resolv)?;
    steps.begin("strongSwan's name server is used while the tunnel is up");
    moon.start()?;
    carol.start()?;
    call(world, &carol, "carol")?;
    awaits(&resolv, |text| text.contains("nameserver 10.1.0.53") && text.contains("search lab.test"))?;
    steps.begin("and let go with it");
    carol.down()?;
    awaits(&resolv, |text| text == before)?;
    steps.begin("killed with the tunnel up: the next start puts it in order");
    call(world, &carol, "carol")?;
    awaits(&resolv, |text| text.contains("nameserver 10.1.0.53"))?;
    carol.kill_all()?;
    awaits(&resolv, |text| text.contains("nameserver 10.1.0.53"))?;
    carol.start()?;
    awaits(&resolv, |text| text == before)?;
    steps.begin("with domains, other names are asked for where they were before");
    carol.down().ok();
    moon.stop()?;
    moon.append("pools {\n addresses {\n 25 = corp.example\n }\n}\n")?;
    moon.start()?;
    call(world, &carol, "carol")?;
    let snippet = world.state("carol")?.join("secure/resolv.d/site.conf");
    awaits(&snippet, |text| text == "server=/corp.example/10.1.0.53\n")?;
    awaits(&resolv, |text| text == before)?;
    steps.begin("an end in order leaves nothing");
    carol.stop()?;
    if snippet.exists() {
        bail!("{} is left", snippet.display());
    }
    awaits(&resolv, |text| text == before)
}

/// Files of a host in the place of those in /etc: `ip netns exec` puts them there.
pub(super) struct Etc(pub(super) PathBuf);

impl Etc {
    pub(super) fn of(world: &World, host: &str) -> Result<Etc> {
        let folder = PathBuf::from("/etc/netns").join(world.net.name(host));
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("resolv.conf"), "search lab.test\nnameserver 192.0.2.53\n")?;
        Ok(Etc(folder))
    }
}

impl Drop for Etc {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub(super) fn awaits(file: &std::path::Path, is_right: impl Fn(&str) -> bool) -> Result<()> {
    let read = || fs::read_to_string(file).unwrap_or_default();
    let right = process::until(Duration::from_secs(5), || Ok(is_right(&read()).then_some(())))?;
    right.with_context(|| format!("{} is {:?}", file.display(), read()))
}

fn lan(place: &Place<'_>, steps: &mut Steps) -> Result<()> {
    let world = place.world;
    let scenario = Scenario { layout: Layout::Roadwarrior, ..SITES };
    world.join("erin", 101)?;
    world.net.ip("erin", &format!("route add default via {MOON}\n"))?;
    // Alice asks the LAN for these addresses, not her router.
    let neighbours = |family: &str| -> Result<String> {
        let net = world.net.name("moon");
        process::run(Command::new("ip").args(["-n", &net, family, "neigh", "show", "proxy"]))
    };
    let mut moon = server(place, &scenario, &["erin@lab.test"])?;
    let pool = "{ ranges = [\"10.1.3.10-10.1.3.19\", \"fec1::3:10-fec1::3:19\"], proxy = \"eth1\" }";
    moon.set(SITE, "pool", pool)?;
    moon.set("[[realm.site.child]]", "local", "[\"10.1.0.0/16\", \"fec1::/64\"]")?;
    let far = End { remote: vec!["10.1.0.0/16", MOON_NET6], ..scenario.far() };
    let mut carol = place.tussock(&far)?;
    let mut erin = place.tussock(&End { host: "erin", id: "erin@lab.test".into(), ..far })?;
    for warrior in [&carol, &erin] {
        warrior.set(SITE, "virtual_ip", "{ request = [\"ipv4\", \"ipv6\"] }")?;
    }
    steps.begin("two roadwarriors get addresses of the LAN");
    moon.start()?;
    carol.start()?;
    erin.start()?;
    call(world, &carol, "carol")?;
    call(world, &erin, "erin")?;
    let (carols, erins) = (inner(world, "carol")?, inner(world, "erin")?);
    let [carol4, carol6] = &carols[..] else { bail!("carol has {carols:?}") };
    let [erin4, erin6] = &erins[..] else { bail!("erin has {erins:?}") };
    if !(carol4.starts_with("10.1.3.") && carol6.starts_with("fec1::3:")) {
        bail!("carol has {carols:?}");
    }
    steps.begin("a host of the LAN reaches them, and they reach it");
    for address in [carol4, carol6, erin4, erin6] {
        ping::check(world, "alice", address)?;
    }
    for warrior in ["carol", "erin"] {
        ping::check(world, warrior, ALICE)?;
        ping::check(world, warrior, ALICE6)?;
    }
    steps.begin("and they reach each other");
    ping::check(world, "carol", erin4)?;
    ping::check(world, "erin", carol4)?;
    ping::check(world, "carol", erin6)?;
    steps.begin("nobody is answered for who is gone");
    erin.down()?;
    let gone = process::until(Duration::from_secs(5), || {
        let all = neighbours("-4")? + &neighbours("-6")?;
        let right = all.contains(carol4.as_str()) && all.contains(carol6.as_str());
        Ok((right && !all.contains(erin4.as_str()) && !all.contains(erin6.as_str())).then_some(()))
    })?;
    gone.with_context(|| format!("moon answers for {} {}", neighbours("-4").unwrap_or_default(), erin4))?;
    steps.begin("what a killed gateway answers for, the next start puts in order");
    moon.kill();
    if !neighbours("-4")?.contains(carol4.as_str()) {
        bail!("there is nothing to put in order");
    }
    moon.start()?;
    let left = neighbours("-4")? + &neighbours("-6")?;
    if !left.trim().is_empty() {
        bail!("still answered for: {left}");
    }
    Ok(())
}

/// dnsmasq on alice, as a DHCP server of moon's LAN; its leases are in `dnsmasq.leases` of the results.
pub(super) fn dnsmasq(place: &Place<'_>, more: &[&str]) -> Result<Daemon> {
    let mut dnsmasq = place.world.on("alice", "dnsmasq");
    dnsmasq.args(["--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--user=root", "--log-dhcp"]);
    dnsmasq.args(["--log-facility=-", "--no-ping", "--pid-file", "--dhcp-authoritative", "--interface=eth0"]);
    dnsmasq.args(more);
    dnsmasq.arg(format!("--dhcp-leasefile={}", place.results.join("dnsmasq.leases").display()));
    Daemon::start(&mut dnsmasq, &place.results.join("dnsmasq.log"))
}

fn dhcp(place: &Place<'_>, steps: &mut Steps) -> Result<()> {
    let world = place.world;
    let scenario = Scenario { layout: Layout::Roadwarrior, ..SITES };
    let mut moon = server(place, &scenario, &[])?;
    let pool =
        format!("{{ dhcp = {{ server = {}, relay = \"10.1.0.1/16\" }}, proxy = \"eth1\" }}", quoted(ALICE));
    moon.set(SITE, "pool", &pool)?;
    let mut carol = place.tussock(&scenario.far())?;
    let file = place.results.join("dnsmasq.leases");
    let begin = || dnsmasq(place, &["--dhcp-range=10.1.4.10,10.1.4.50,255.255.0.0,1h"]);
    steps.begin("dnsmasq has an address for carol, and knows her by her name");
    let mut server = begin()?;
    moon.start()?;
    carol.start()?;
    let carols = call(world, &carol, "carol")?;
    if !carols.starts_with("10.1.4.") {
        bail!("carol has {carols}");
    }
    // Type 0, and the name in hexadecimal.
    let name: String = "carol@lab.test".bytes().map(|octet| format!(":{octet:02x}")).collect();
    awaits(&file, |text| text.contains(&carols) && text.contains(&format!("00{name}")))?;
    steps.begin("she is reached at it, and reaches the LAN");
    ping::check(world, "alice", &carols)?;
    ping::check(world, "carol", ALICE)?;
    steps.begin("it is given back when she goes");
    carol.down()?;
    awaits(&file, |text| !text.contains(&carols))?;
    steps.begin("who comes back is asked for by the same address");
    let again = call(world, &carol, "carol")?;
    if again != carols {
        bail!("carol had {carols} and now has {again}");
    }
    carol.down()?;
    steps.begin("without an answer of the server there is no address, and both ends say so");
    server.kill();
    let Err(error) = carol.up() else { bail!("carol got {:?}", inner(world, "carol")) };
    if !format!("{error:#}").contains("INTERNAL_ADDRESS_FAILURE") {
        bail!("carol's error does not say why: {error:#}");
    }
    says(&moon, "the DHCP server 10.1.0.10 does not answer")?;
    carol.down()?;
    steps.begin("the server is back, and carol too");
    let mut server = begin()?;
    call(world, &carol, "carol")?;
    ping::check(world, "carol", ALICE)?;
    carol.stop()?;
    moon.stop()?;
    server.kill();
    Ok(())
}

fn behind_one_nat(place: &Place<'_>, steps: &mut Steps) -> Result<()> {
    let world = place.world;
    let scenario = Scenario { layout: Layout::BehindNat, encap: Encap::Auto, ..SITES };
    world.net.add("erin")?;
    world.net.link(("erin", "eth0"), ("nat", "eth2"))?;
    world.net.ip("erin", "addr add 10.8.0.10/24 dev eth0\nroute add default via 10.8.0.1\n")?;
    world.net.ip("nat", "addr add 10.8.0.1/24 dev eth2\n")?;
    let mut moon = server(place, &scenario, &["erin@lab.test"])?;
    let dave = scenario.far();
    let erin = End { host: "erin", id: "erin@lab.test".into(), lease: Lease::Request, ..dave.clone() };
    let mut dave = StrongSwan::new(world, dave, Release::Host, place.results)?;
    let mut erin = StrongSwan::new(world, erin, Release::Host, place.results)?;
    steps.begin("both come up through the same NAT");
    moon.start()?;
    dave.start()?;
    erin.start()?;
    dave.up()?;
    erin.up()?;
    let sas = moon.json("sas")?;
    let remotes: Vec<&str> =
        sas["ike_sas"].as_array().into_iter().flatten().filter_map(|sa| sa["remote"].as_str()).collect();
    let ports: std::collections::BTreeSet<&str> =
        remotes.iter().filter_map(|remote| remote.strip_prefix("192.168.0.50:")).collect();
    if remotes.len() != 2 || ports.len() != 2 {
        bail!("two clients at two ports of one address are expected: {remotes:?}");
    }
    let mut given: Vec<(String, String)> =
        leases(&moon)?.into_iter().map(|(address, who, _)| (who, address)).collect();
    given.sort();
    let [(_, daves), (_, erins)] = &given[..] else { bail!("leases: {given:?}") };
    if daves == erins {
        bail!("both have {daves}");
    }
    steps.begin("both at once ping and are pinged");
    let streams = [("dave", ALICE), ("erin", ALICE), ("alice", daves.as_str()), ("alice", erins.as_str())];
    let started = streams.iter().enumerate().map(|(n, (from, to))| {
        ping::Stream::start(world, from, to, &place.results.join(format!("ping-{n}.log")))
    });
    let started = started.collect::<Result<Vec<_>>>()?;
    std::thread::sleep(Duration::from_millis(1500));
    started.into_iter().try_for_each(|stream| stream.finish().map(drop))?;
    steps.begin("one goes, the other stays");
    erin.down()?;
    ping::check(world, "dave", ALICE)?;
    ping::check(world, "alice", daves)
}
