//! Addresses from DHCP servers of either family, asked as a relay or on a LAN; networks that a server names; pools at their ends.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::remote::{Etc, asks_for_both, awaits, call, dnsmasq, grep, inner, leases, says, server};
use super::{Place, Story};
use crate::interop::course::Steps;
use crate::interop::scenario::{SITES, Scenario};
use crate::peer::{Peer, await_tunnel, log_text};
use crate::ping;
use crate::process::{self, Daemon};
use crate::resolved::{self, Resolved};
use crate::strongswan::{Release, StrongSwan};
use crate::tunnel::End;
use crate::tussock::{SITE, Tussock};
use crate::world::{ALICE, ALICE6, Layout, MOON_NET6, World};

pub const STORIES: &[Story] = &[
    Story::ours(
        "pool-dhcp6",
        "strongSwan has an IPv6 and an IPv4 address of a DHCP server that we ask as a relay, with its name servers",
        relayed,
    )
    .on(Layout::Roadwarrior)
    .cast("strongSwan -> tussock")
    .with(&["dnsmasq-base"]),
    Story::ours(
        "dhcp-lan",
        "a roadwarrior has addresses of the LAN from the LAN's own DHCP server, which no configuration names",
        on_the_lan,
    )
    .on(Layout::Roadwarrior)
    .with(&["dnsmasq-base"]),
    Story::ours(
        "subnets-taken",
        "networks that strongSwan names have routes while the tunnel is up, and others are ignored and told of",
        subnets,
    )
    .on(Layout::Roadwarrior)
    .cast("tussock -> strongSwan"),
    Story::ours(
        "dns-resolved",
        "systemd-resolved is told of strongSwan's name servers and domains over D-Bus, once polkit lets us, and forgets them after us",
        by_resolved,
    )
    .on(Layout::Roadwarrior)
    .cast("tussock -> strongSwan")
    .with(resolved::PACKAGES),
];

const BOTH: &str = "[\"10.1.0.0/16\", \"fec1::/64\"]";

/// What dnsmasq gives out of both families, with a name server and a domain of each.
const GIVES: &[&str] = &[
    "--dhcp-range=10.1.4.10,10.1.4.50,255.255.0.0,1h",
    "--dhcp-option=option:dns-server,10.1.0.53",
    "--dhcp-option=option6:dns-server,[fec1::53]",
    "--dhcp-option=option6:domain-search,lan.example",
];

fn relayed(place: &Place<'_>, steps: &mut Steps) -> Result<()> {
    let world = place.world;
    let scenario = Scenario { layout: Layout::Roadwarrior, ..SITES };
    let mut moon = server(place, &scenario, &[])?;
    let pool = "{ dhcp = { server = \"10.1.0.10\", relay = \"10.1.0.1/16\" }, \
                dhcp6 = { server = \"fec1::10\", relay = \"fec1::1/64\" }, proxy = \"eth1\" }";
    moon.set(SITE, "pool", pool)?;
    moon.set("[[realm.site.child]]", "local", BOTH)?;
    let far = End { remote: vec!["10.1.0.0/16", MOON_NET6], ..scenario.far() };
    let mut carol = StrongSwan::new(world, far, Release::Host, place.results)?;
    let resolv = asks_for_both(place, &mut carol)?;
    let file = place.results.join("dnsmasq.leases");
    // Addresses of IPv6 are for those alone whose DUID the server knows, and this is what we make of carol's name.
    let known = [
        "--dhcp-host=id:00:04:a8:ea:1f:04:e3:f6:8b:1e:94:de:be:69:ae:58:b8:2f,[fec1::4:77]",
        "--dhcp-range=fec1::4:0,static,64,1h",
    ];
    steps.begin("strongSwan gets addresses of both families from dnsmasq, which knows who it is");
    let mut dhcp = dnsmasq(place, &[GIVES, &known].concat())?;
    moon.start()?;
    carol.start()?;
    carol.up()?;
    await_tunnel(&carol, "after coming up", |_| true)?;
    let log = log_text(&carol);
    let mut given = leases(&moon)?.into_iter().map(|(address, ..)| address).collect::<Vec<_>>();
    given.sort();
    let [four, six] = &given[..] else { bail!("leases: {given:?}") };
    if !(four.starts_with("10.1.4.") && six == "fec1::4:77") {
        bail!("carol has {given:?}");
    }
    for address in [four, six] {
        let words = format!("installing new virtual IP {address}");
        if !log.contains(&words) {
            bail!("strongSwan's log does not say `{words}`: {:?}", grep(&log, "virtual IP"));
        }
    }
    awaits(&file, |text| text.contains(four.as_str()) && text.contains(six.as_str()))?;
    steps.begin("and the server's name servers");
    awaits(&resolv, |text| text.contains("nameserver 10.1.0.53") && text.contains("nameserver fec1::53"))?;
    steps.begin("both families carry packets");
    ping::check(world, "carol", ALICE)?;
    ping::check(world, "carol", ALICE6)?;
    ping::check(world, "alice", six)?;
    steps.begin("both are given back when it goes");
    carol.down()?;
    awaits(&file, |text| !text.contains(four.as_str()) && !text.contains(six.as_str()))?;
    steps.begin("without an answer there is no address, and both ends say so");
    dhcp.kill();
    if carol.up().is_ok() {
        bail!("strongSwan is up, with {:?}", leases(&moon)?);
    }
    says(&moon, "the DHCP server 10.1.0.10 does not answer; the DHCP server fec1::10 does not answer")?;
    let log = log_text(&carol);
    if !log.contains("INTERNAL_ADDRESS_FAILURE") {
        bail!("strongSwan was not told: {:?}", grep(&log, "notify"));
    }
    carol.down().ok();
    steps.begin("a server without an address for it is heard, and one family is enough");
    let mut dhcp = dnsmasq(place, &[GIVES, &known[1..]].concat())?;
    carol.up()?;
    await_tunnel(&carol, "with one family", |_| true)?;
    ping::check(world, "carol", ALICE)?;
    let given = leases(&moon)?.into_iter().filter(|(.., held)| *held).map(|(address, ..)| address);
    let given: Vec<String> = given.collect();
    if !matches!(&given[..], [one] if one.starts_with("10.1.4.")) {
        bail!("leases: {given:?}");
    }
    carol.stop()?;
    moon.stop()?;
    dhcp.kill();
    Ok(())
}

fn on_the_lan(place: &Place<'_>, steps: &mut Steps) -> Result<()> {
    let world = place.world;
    let scenario = Scenario { layout: Layout::Roadwarrior, ..SITES };
    let mut moon = server(place, &scenario, &[])?;
    moon.set(SITE, "pool", "{ dhcp = \"eth1\", dhcp6 = \"eth1\", proxy = \"eth1\" }")?;
    moon.set("[[realm.site.child]]", "local", BOTH)?;
    let far = End { remote: vec!["10.1.0.0/16", MOON_NET6], ..scenario.far() };
    let mut carol = place.tussock(&far)?;
    carol.set(SITE, "virtual_ip", "{ request = [\"ipv4\", \"ipv6\"] }")?;
    let file = place.results.join("dnsmasq.leases");
    steps.begin("the LAN's own server gives carol addresses, whoever it is");
    let mut dhcp = dnsmasq(place, &[GIVES, &["--dhcp-range=fec1::4:10,fec1::4:50,64,1h"]].concat())?;
    moon.start()?;
    carol.start()?;
    call(world, &carol, "carol")?;
    let carols = inner(world, "carol")?;
    let [four, six] = &carols[..] else { bail!("carol has {carols:?}") };
    if !(four.starts_with("10.1.4.") && six.starts_with("fec1::4:")) {
        bail!("carol has {carols:?}");
    }
    awaits(&file, |text| text.contains(four.as_str()) && text.contains(six.as_str()))?;
    steps.begin("she is a host of the LAN to the LAN");
    ping::check(world, "alice", four)?;
    ping::check(world, "alice", six)?;
    ping::check(world, "carol", ALICE)?;
    ping::check(world, "carol", ALICE6)?;
    steps.begin("she has the LAN's name servers and domains");
    says(&carol, "10.1.0.53")?;
    says(&carol, "lan.example")?;
    steps.begin("and gives it all back");
    carol.down()?;
    awaits(&file, |text| !text.contains(four.as_str()) && !text.contains(six.as_str()))?;
    steps.begin("where no server answers, both ends say so");
    dhcp.kill();
    let Err(error) = carol.up() else { bail!("carol got {:?}", inner(world, "carol")) };
    if !format!("{error:#}").contains("INTERNAL_ADDRESS_FAILURE") {
        bail!("carol's error does not say why: {error:#}");
    }
    says(&moon, "a DHCP server on eth1 does not answer")?;
    carol.stop()?;
    moon.stop()
}

/// Destinations of routes of ours on a host.
fn routes(world: &World, host: &str) -> Result<Vec<String>> {
    let net = world.net.name(host);
    let show = |family: &str| {
        let arguments = ["-n", &net, family, "route", "show", "table", "all", "proto", "116"];
        process::run(Command::new("ip").args(arguments))
    };
    let all = show("-4")? + &show("-6")?;
    Ok(all.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect())
}

fn subnets(place: &Place<'_>, steps: &mut Steps) -> Result<()> {
    let world = place.world;
    let scenario = Scenario { layout: Layout::Roadwarrior, ..SITES };
    let mut moon = StrongSwan::new(world, scenario.moon(), Release::Host, place.results)?;
    moon.append("pools {\n addresses {\n subnet = 10.1.0.0/24, 172.16.0.0/12\n }\n}\n")?;
    let mut carol = place.tussock(&scenario.far())?;
    steps.begin("strongSwan names a network within the selectors, and one that is not");
    moon.start()?;
    carol.start()?;
    call(world, &carol, "carol")?;
    let there = process::until(Duration::from_secs(5), || {
        Ok(routes(world, "carol")?.iter().any(|route| route == "10.1.0.0/24").then_some(()))
    })?;
    there.with_context(|| format!("carol's routes: {:?}", routes(world, "carol")))?;
    ping::check(world, "carol", ALICE)?;
    steps.begin("the other is ignored, and told of");
    says(&carol, "172.16.0.0/12")?;
    if routes(world, "carol")?.iter().any(|route| route.starts_with("172.16.")) {
        bail!("carol's routes: {:?}", routes(world, "carol")?);
    }
    steps.begin("its route goes with the tunnel");
    carol.down()?;
    let gone = process::until(Duration::from_secs(5), || {
        Ok((!routes(world, "carol")?.iter().any(|route| route == "10.1.0.0/24")).then_some(()))
    })?;
    gone.with_context(|| format!("carol's routes: {:?}", routes(world, "carol")))?;
    carol.stop()?;
    moon.stop()
}

fn by_resolved(place: &Place<'_>, steps: &mut Steps) -> Result<()> {
    let world = place.world;
    let scenario = Scenario { layout: Layout::Roadwarrior, ..SITES };
    // A name server behind moon.
    world.net.ip("alice", "addr add 10.1.0.53/16 dev eth0\n")?;
    let mut dnsmasq = world.on("alice", "dnsmasq");
    dnsmasq.args([
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--user=root",
        "--pid-file",
        "--no-resolv",
        "--no-hosts",
    ]);
    dnsmasq.args(["--listen-address=10.1.0.53", "--bind-interfaces", "--address=/corp.example/10.1.0.77"]);
    dnsmasq.args(["--log-queries", "--log-facility=-"]);
    let mut server = Daemon::start(&mut dnsmasq, &place.results.join("dnsmasq.log"))?;
    let mut moon = StrongSwan::new(world, scenario.moon(), Release::Host, place.results)?;
    moon.append("pools {\n addresses {\n dns = 10.1.0.53\n }\n}\n")?;
    let etc = Etc::of(world, "carol")?;
    let before = fs::read_to_string(etc.0.join("resolv.conf"))?;
    let mut resolved = Resolved::start(world, "carol", &etc.0, place.results)?;
    let binary = resolved.wrapped(place.binary)?;
    let mut carol = Tussock::new(world, &scenario.far(), &binary, place.results)?;
    carol.set(SITE, "virtual_ip", "{ request = [\"ipv4\"], dns = \"install\" }")?;
    let shows = |resolved: &Resolved<'_>, what: &str, words: &str| -> Result<()> {
        let show = || resolved.resolvectl(&[what, "ipsec0"]);
        let right = process::until(Duration::from_secs(5), || Ok(show()?.contains(words).then_some(())))?;
        right.with_context(|| format!("`resolvectl {what}` shows {:?} and not `{words}`", show()))
    };
    steps.begin("without a rule of polkit the tunnel is up, and the log says what it takes");
    moon.start()?;
    carol.start()?;
    call(world, &carol, "carol")?;
    says(&carol, "it takes a rule of polkit for our user")?;
    if !resolved.resolvectl(&["dns", "ipsec0"])?.trim().ends_with(':') {
        bail!("resolved knows {:?}", resolved.resolvectl(&["dns", "ipsec0"]));
    }
    carol.down()?;
    steps.begin("with it, resolved asks strongSwan's name server for everything");
    resolved.allow()?;
    call(world, &carol, "carol")?;
    shows(&resolved, "dns", "10.1.0.53")?;
    shows(&resolved, "domain", "~.")?;
    let answer = resolved.resolvectl(&["query", "--cache=no", "host.corp.example"])?;
    if !answer.contains("10.1.0.77") {
        bail!("host.corp.example is {answer:?}");
    }
    steps.begin("a key side that comes after one that was killed knows of it, and lets go with the tunnel");
    let gateway = carol.pid().context("carol does not run")?;
    let status = fs::read_to_string(format!("/proc/{gateway}/status"))?;
    let supervisor = status.lines().find_map(|line| line.strip_prefix("PPid:")).context("no parent")?;
    let sibling = ["--signal", "KILL", "--parent", supervisor.trim(), "--exact", "tussock-secure"];
    process::run(Command::new("pkill").args(sibling))?;
    says(&carol, "there is a key side again")?;
    let again = || grep(&log_text(&carol), "name servers").len();
    shows(&resolved, "dns", "10.1.0.53")?;
    let told = again();
    carol.down()?;
    let none = process::until(Duration::from_secs(5), || {
        Ok(resolved.resolvectl(&["dns", "ipsec0"])?.trim().ends_with(':').then_some(()))
    })?;
    none.with_context(|| format!("resolved knows {:?}", resolved.resolvectl(&["dns", "ipsec0"])))?;
    if again() > told {
        bail!("{:?}", grep(&log_text(&carol), "name servers"));
    }
    steps.begin("with domains, it is asked for those alone");
    moon.stop()?;
    moon.append("pools {\n addresses {\n 25 = corp.example\n }\n}\n")?;
    moon.start()?;
    call(world, &carol, "carol")?;
    shows(&resolved, "domain", "~corp.example")?;
    steps.begin("killed with the tunnel up, nothing of it is left");
    carol.kill();
    let gone = process::until(Duration::from_secs(5), || {
        Ok((!resolved.resolvectl(&["dns"])?.contains("10.1.0.53")).then_some(()))
    })?;
    gone.with_context(|| format!("resolved knows {:?}", resolved.resolvectl(&["dns"])))?;
    if fs::read_to_string(etc.0.join("resolv.conf"))? != before {
        bail!("resolv.conf was written, too");
    }
    moon.stop()?;
    server.kill();
    resolved.stop();
    Ok(())
}
