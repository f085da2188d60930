//! Five hundred roadwarriors of another make at once, through FreeRADIUS, and a tunnel between two sites that does not notice.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::{Place, Story};
use crate::freeradius::{FreeRadius, SECRET};
use crate::interop::course::Steps;
use crate::interop::residue::Residue;
use crate::interop::scenario::{SITES, Scenario};
use crate::packages;
use crate::peer::{Peer, log_text};
use crate::ping::Stream;
use crate::pki::{Pki, shown};
use crate::process;
use crate::strongswan::{Release, StrongSwan};
use crate::tunnel::{Auth, KeyType};
use crate::tussock::{GATEWAY, Tussock, quoted};
use crate::world::{ALICE, BOB, MOON, MOON_NET};

pub const STORIES: &[Story] = &[Story::ours(
    "roadwarriors-500",
    "500 connections of strongSwan at once by EAP-MSCHAPv2 through FreeRADIUS: all up, nothing sent again, no ping of the sites lost",
    five_hundred,
)
.with(packages::RADIUS)
.cast("strongSwan -> tussock, FreeRADIUS")];

const COUNT: usize = 500;
/// Where they are. They are as many connections of one charon: what a client says and waits for is each one's own.
const HOST: &str = "carol";
const REALM: &str = "road";
/// Their inner addresses; a smaller pool would not do.
const POOL: &str = "10.3.0.0/22";
/// Between two pings of the sites.
const PAUSE: Duration = Duration::from_millis(5);
/// For those of before.
const QUIET: Duration = Duration::from_secs(2);
/// How long it may take on a slow machine.
const PATIENCE: Duration = Duration::from_secs(100);

const KEYS: Auth = Auth::Cert(KeyType::Ecdsa);

fn scenario() -> Scenario {
    Scenario { auth: KEYS, ..SITES }
}

fn user(number: usize) -> String {
    format!("w{number:03}@lab.test")
}

fn password(number: usize) -> String {
    format!("Ar3etTnp-{number}")
}

/// Moon's other realm, for everybody whom FreeRADIUS knows.
fn let_in(moon: &Tussock<'_>) -> Result<()> {
    let pki = Pki::of(KeyType::Ecdsa)?;
    let own =
        format!("cert = [{}], key = {}", quoted(&shown(&pki.cert("moon"))), quoted(&shown(&pki.key("moon"))));
    // With cookies strongSwan is answered faster than it can bear: it takes no answer to the second IKE_SA_INIT while it is busy with the
    // one to the first, and waits for its own retransmission.
    moon.set(GATEWAY, "cookie_threshold", "4000")?;
    moon.append(&format!(
        "[radius]\n[[radius.server]]\naddress = \"{ALICE}\"\nsecret = {}\n\
         [realm.{REALM}]\nlocal = [\"{MOON}\"]\nencap = \"udp\"\nike = [\"{}\"]\n\
         local_auth = {{ method = \"pubkey\", id = \"moon.lab.test\", {own} }}\n\
         remote_auth = {{ method = \"eap\", radius = true, id = \"*@lab.test\" }}\n\
         pool = {{ ipv4 = \"{POOL}\" }}\n\
         [[realm.{REALM}.child]]\nname = \"net\"\nlocal = [\"{MOON_NET}\"]\nremote = [\"dynamic\"]\n\
         esp = [\"{}\"]\n",
        quoted(SECRET),
        SITES.ike,
        SITES.esp,
    ))
}

/// One charon with all of them, which calls for each as soon as it is loaded.
fn callers<'a>(place: &Place<'a>) -> Result<StrongSwan<'a>> {
    let end = crate::tunnel::End { host: HOST, ..scenario().far() };
    let callers = StrongSwan::new(place.world, end, Release::Host, place.results)?;
    let mut text = format!(
        "roadwarrior {{\n  version = 2\n  mobike = no\n  encap = yes\n  remote_addrs = {MOON}\n  vips = 0.0.0.0\n  proposals = {}\n  \
         local {{\n    auth = eap-mschapv2\n  }}\n  remote {{\n    auth = pubkey\n    id = moon.lab.test\n  }}\n  \
         children {{\n    net {{\n      remote_ts = {MOON_NET}\n      esp_proposals = {}\n      start_action = start\n    }}\n  }}\n}}\n",
        SITES.ike, SITES.esp
    );
    let (mut connections, mut secrets) = (String::new(), String::new());
    for number in 0..COUNT {
        let (user, password) = (user(number), password(number));
        writeln!(
            connections,
            "  w{number} : roadwarrior {{\n    local {{\n      id = {user}\n      eap_id = {user}\n    }}\n  }}"
        )?;
        writeln!(secrets, "  eap-{number} {{\n    id = {user}\n    secret = \"{password}\"\n  }}")?;
    }
    write!(text, "connections {{\n{connections}}}\nsecrets {{\n{secrets}}}\n")?;
    callers.rewrite(|_| text.clone())?;
    // A request that gets lost is found by its being sent again, and not a slow machine: hence the long wait. One route into its TUN
    // device is enough for all of them.
    callers.configure(
        "charon {\n  retransmit_timeout = 30.0\n  install_routes = no\n  ikesa_table_size = 1024\n  ikesa_table_segments = 16\n  \
         filelog {\n    lab {\n      ike = 1\n      cfg = 1\n    }\n  }\n}",
    )?;
    Ok(callers)
}

fn five_hundred(place: &Place<'_>, steps: &mut Steps) -> Result<()> {
    place.world.join(HOST, 100)?;
    let mut users = String::new();
    for number in 0..COUNT {
        writeln!(users, "{} Cleartext-Password := \"{}\"", user(number), password(number))?;
    }
    let server = FreeRadius::start_quiet(place.world, place.results, ("alice", ALICE), &users)?;
    let mut moon = place.tussock(&scenario().moon())?;
    let_in(&moon)?;
    let mut sun = place.tussock(&scenario().far())?;
    place.begin(steps, &mut moon, &mut sun)?;
    let stock = Residue::of(place.world, "moon")?;
    steps.begin("pings between the sites, with nobody else there");
    let stream = |name: &str| {
        Stream::every(place.world, "alice", BOB, PAUSE, &place.results.join(format!("ping-{name}.log")))
    };
    let before = stream("before")?;
    std::thread::sleep(QUIET);
    let before = before.round_trips()?;
    steps.begin("all of them call at once");
    let stream = stream("meanwhile")?;
    let mut callers = callers(place)?;
    let began = Instant::now();
    callers.start()?;
    let up = process::until(PATIENCE, || {
        Ok((moon.count("/leases/road")? == COUNT as u64 && callers.ike_sas()? == COUNT as u64)
            .then(|| began.elapsed()))
    })?;
    let meanwhile = stream.round_trips()?;
    let Some(up) = up else {
        bail!(
            "{} of {COUNT} have an address: {:#}",
            moon.count("/leases/road")?,
            moon.json("status")?["ike"]
        );
    };
    steps.begin("each is up, under its own name and with its own address");
    let theirs = each_is_up(&moon)?;
    steps.begin("nothing was sent again, nobody was given up");
    nothing_again(&moon, &callers)?;
    steps.begin("no ping between the sites was lost");
    for (when, pings) in [("before", before), ("meanwhile", meanwhile)] {
        if pings.lost > 0 {
            bail!("{when}: {pings}");
        }
    }
    // Nothing is decided by it: the callers and their server have the same cores.
    println!(
        "      {COUNT} are up after {:.1} s; pings between the sites take {before} before, {meanwhile} meanwhile",
        up.as_secs_f64()
    );
    steps.begin("each reaches the network behind the gateway");
    place.world.net.ip(HOST, &format!("route add {MOON_NET} dev ipsec0\n"))?;
    each_reaches(place, &theirs)?;
    steps.begin("each is in the books");
    let booked = process::until(PATIENCE, || {
        let starts =
            server.records().into_iter().filter(|record| record.contains("Acct-Status-Type = Start"));
        Ok((starts.count() == COUNT).then_some(()))
    })?;
    booked.context("FreeRADIUS has not as many records of a start as there are roadwarriors")?;
    steps.begin("they go, and nothing of them is left");
    callers.stop()?;
    let gone = process::until(PATIENCE, || Ok((moon.count("/ike/sas")? == 1).then_some(())))?;
    gone.context("some are still there")?;
    stock.must_return(place.world, "they went")?;
    place.pings()
}

/// Their addresses. All of them are different, and so are their names.
fn each_is_up(moon: &Tussock<'_>) -> Result<BTreeSet<String>> {
    let sas = moon.json("sas")?;
    let all = sas["ike_sas"].as_array().context("no list of IKE SAs")?;
    let (mut names, mut addresses) = (BTreeSet::new(), BTreeSet::new());
    for sa in all.iter().filter(|sa| sa["realm"] == REALM) {
        let up = sa["state"] == "established"
            && sa["how"] == "RADIUS, EAP-MSCHAPv2"
            && sa.pointer("/children/0/state").is_some_and(|state| state == "installed");
        let address = sa.pointer("/addresses/0").and_then(Value::as_str);
        let Some((name, address)) = sa["peer_id"].as_str().zip(address).filter(|_| up) else {
            bail!("one of them is not as it should be: {sa:#}");
        };
        names.insert(name.to_owned());
        addresses.insert(address.split('/').next().unwrap_or(address).to_owned());
    }
    if names != (0..COUNT).map(user).collect() {
        bail!("{} names are there, and not all of the {COUNT}", names.len());
    }
    if addresses.len() != COUNT {
        bail!("{} addresses for {COUNT} roadwarriors", addresses.len());
    }
    Ok(addresses)
}

fn nothing_again(moon: &Tussock<'_>, callers: &StrongSwan<'_>) -> Result<()> {
    for counter in ["/ike/sent_again", "/ike/came_again"] {
        let count = moon.count(counter)?;
        if count > 0 {
            bail!("{counter} of moon is {count}");
        }
    }
    said_none(&log_text(callers), "strongSwan", &["retransmit", "giving up", "failed"])?;
    said_none(&log_text(moon), "moon", &["IKE SA closed", "EAP failed", "RADIUS server is down"])
}

fn said_none(text: &str, who: &str, words: &[&str]) -> Result<()> {
    match text.lines().find(|line| words.iter().any(|words| line.contains(words))) {
        Some(line) => bail!("{who} says: {line}"),
        None => Ok(()),
    }
}

fn each_reaches(place: &Place<'_>, addresses: &BTreeSet<String>) -> Result<()> {
    let script = place.results.join("each.sh");
    let list: Vec<&str> = addresses.iter().map(String::as_str).collect();
    fs::write(
        &script,
        format!(
            "for a in {}; do ping -n -q -c 1 -W 5 -I $a {ALICE} >/dev/null || echo $a; done\n",
            list.join(" ")
        ),
    )?;
    let mut command = place.world.on(HOST, "sh");
    let done = process::finish(command.arg(&script), PATIENCE)?;
    match done.text().lines().count() {
        0 => Ok(()),
        silent => bail!("{silent} of them get no answer from alice, {:?} first", done.text().lines().next()),
    }
}
