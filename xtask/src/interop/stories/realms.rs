//! Who gets into which realm, at one address: by identity, by certificate, by whom the peer asks for; and who gets into none.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::{Place, Story};
use crate::interop::course::Steps;
use crate::interop::scenario::{SECRET, SITES, Scenario};
use crate::peer::{Peer, await_nothing, log_text};
use crate::ping;
use crate::pki::{Pki, shown};
use crate::process;
use crate::strongswan::{Release, StrongSwan};
use crate::tunnel::{Auth, End, KeyType};
use crate::tussock::{SITE, Tussock, quoted};
use crate::world::{ALICE, Layout, MOON, World};

pub const STORIES: &[Story] = &[
    Story::ours(
        "realms-by-identity",
        "two realms at one address, told apart by mail domain: each has its own pool and selectors; others get into none",
        by_identity,
    )
    .on(Layout::Roadwarrior)
    .cast("strongSwan x 2 -> tussock"),
    Story::ours(
        "realms-by-certificate",
        "two realms at one address, told apart by the OU of the certificate; the CA of one is no good in the other",
        by_certificate,
    )
    .on(Layout::Roadwarrior)
    .cast("strongSwan -> tussock"),
    Story::ours("realms-by-name", "whom the initiator asks for (IDr) decides between two names of ours", by_name)
        .on(Layout::Roadwarrior)
        .cast("strongSwan -> tussock"),
    Story::ours("mixed-auth", "a PSK one way and a certificate the other, all four ways, called from both sides", mixed)
        .cast("tussock <-> strongSwan"),
    Story::ours("methods", "a realm that takes only Ed25519 refuses ECDSA, and both logs say so", methods)
        .cast("strongSwan -> tussock"),
    Story::ours(
        "first-use",
        "self-signed certificates without a CA: the first key is remembered, another one is refused until the pin is removed",
        first_use,
    ),
    Story::ours("first-use-strongswan", "strongSwan's self-signed certificate is remembered, and another refused", first_use_of_another)
        .cast("strongSwan -> tussock"),
    Story::ours("no-secret", "a peer for which there is no secret: both logs say so, and nothing is left", no_secret)
        .on(Layout::Roadwarrior)
        .cast("strongSwan -> tussock"),
];

/// A realm of moon's for roadwarriors.
struct Realm<'a> {
    name: &'a str,
    local: &'a str,
    remote: &'a str,
    pool: &'a str,
    net: &'a str,
}

impl Realm<'_> {
    fn text(&self) -> String {
        let Realm { name, local, remote, pool, net } = self;
        format!(
            "\n[realm.{name}]\nlocal = [{moon}]\nencap = \"udp\"\nike = [{ike}]\nlocal_auth = {{ {local} }}\n\
             remote_auth = {{ {remote} }}\npool = {{ ipv4 = {pool} }}\n\n[[realm.{name}.child]]\nname = \"net\"\n\
             local = [{net}]\nremote = [\"dynamic\"]\nesp = [{esp}]\n",
            moon = quoted(MOON),
            ike = quoted(SITES.ike),
            esp = quoted(SITES.esp),
            pool = quoted(pool),
            net = quoted(net),
        )
    }
}

const ROADWARRIOR: Scenario = Scenario { layout: Layout::Roadwarrior, ..SITES };

/// Moon with these realms instead of its own.
fn moon<'a>(place: &Place<'a>, realms: &[Realm<'_>]) -> Result<Tussock<'a>> {
    let moon = place.tussock(&ROADWARRIOR.moon())?;
    let psk = format!("\n\n[[psk]]\nids = []\nsecret = {}\n", quoted(SECRET));
    moon.rewrite(|text| {
        let gateway = text.split("\n[").next().unwrap_or_default();
        let realms: String = realms.iter().map(Realm::text).collect();
        format!("{gateway}{psk}{realms}")
    })?;
    Ok(moon)
}

/// strongSwan on a host, under a name, calling moon by another.
fn caller<'a>(
    place: &Place<'a>,
    host: &'static str,
    id: &str,
    asks: &str,
    auth: Auth,
) -> Result<StrongSwan<'a>> {
    let end = End {
        host,
        id: id.to_owned(),
        peer_id: asks.to_owned(),
        auth,
        peer_auth: Auth::Psk,
        ..ROADWARRIOR.far()
    };
    StrongSwan::new(place.world, end, Release::Host, place.results)
}

/// It comes up with an address of this pool, and reaches alice.
fn comes_up(place: &Place<'_>, peer: &StrongSwan<'_>, host: &str, pool: &str) -> Result<()> {
    peer.up()?;
    if !addresses(place.world, host)?.iter().any(|address| address.starts_with(pool)) {
        bail!("{host} has no address of {pool}*: {:?}", addresses(place.world, host)?);
    }
    ping::check(place.world, host, ALICE)
}

fn addresses(world: &World, host: &str) -> Result<Vec<String>> {
    let has =
        process::run(Command::new("ip").args(["-n", &world.net.name(host), "-o", "-4", "addr", "show"]))?;
    Ok(has.split_whitespace().filter_map(|word| Some(word.split_once('/')?.0.to_owned())).collect())
}

/// It does not, the peer is told AUTHENTICATION_FAILED and no more, our log says why, and nothing is left.
pub fn is_refused(peer: &dyn Peer, moon: &Tussock<'_>, why: &str) -> Result<()> {
    let (theirs, ours) = (log_text(peer).len(), log_text(moon).len());
    if peer.up().is_ok() {
        bail!("it came up: {}", moon.shown_sas()?);
    }
    await_nothing(peer, "after the refusal")?;
    await_nothing(moon, "after the refusal")?;
    let said = |peer: &dyn Peer, from: usize| log_text(peer).get(from..).unwrap_or_default().to_owned();
    if !said(moon, ours).contains(why) {
        bail!("our log does not say `{why}`:\n{}", said(moon, ours));
    }
    let told = said(peer, theirs);
    if !["AUTH_FAILED", "AUTHENTICATION_FAILED"].iter().any(|words| told.contains(words)) {
        bail!("the log of {} does not say that authentication failed:\n{told}", peer.maker());
    }
    Ok(())
}

fn by_identity(place: &Place<'_>, steps: &mut Steps) -> Result<()> {
    place.world.join("erin", 101)?;
    place.world.net.ip("erin", &format!("route add default via {MOON}\n"))?;
    let us = "method = \"psk\", id = \"moon.lab.test\"";
    let mut moon = moon(
        place,
        &[
            Realm {
                name: "sales",
                local: us,
                remote: "method = \"psk\", id = \"*@sales.test\"",
                pool: "10.3.1.0/24",
                net: "10.1.0.0/16",
            },
            Realm {
                name: "tech",
                local: us,
                remote: "method = \"psk\", id = [\"*@tech.test\", \"*.tech.test\"]",
                pool: "10.3.2.0/24",
                net: "10.1.0.0/24",
            },
        ],
    )?;
    let mut carol = caller(place, "carol", "carol@sales.test", "moon.lab.test", Auth::Psk)?;
    let mut erin = caller(place, "erin", "pc7.TECH.test", "moon.lab.test", Auth::Psk)?;
    steps.begin("each gets an address of its realm's pool");
    moon.start()?;
    carol.start()?;
    erin.start()?;
    comes_up(place, &carol, "carol", "10.3.1.")?;
    comes_up(place, &erin, "erin", "10.3.2.")?;
    steps.begin("and the selectors of its realm");
    let (carols, erins) = (carol.shown_sas()?, erin.shown_sas()?);
    if !carols.contains("10.1.0.0/16") || !erins.contains("10.1.0.0/24") || erins.contains("10.1.0.0/16") {
        bail!("carol: {carols}\nerin: {erins}");
    }
    if moon.count("/leases/sales")? != 1 || moon.count("/leases/tech")? != 1 {
        bail!("one lease in each realm should be shown: {:#}", moon.json("status")?);
    }
    carol.down()?;
    erin.down()?;
    await_nothing(&moon, "after the end")?;
    carol.stop()?;
    steps.begin("who fits neither is refused");
    let mut stranger = caller(place, "carol", "carol@other.test", "moon.lab.test", Auth::Psk)?;
    stranger.start()?;
    is_refused(&stranger, &moon, "no realm for carol@other.test")
}

fn by_certificate(place: &Place<'_>, steps: &mut Steps) -> Result<()> {
    let (ours, theirs) = (Pki::of(KeyType::Ecdsa)?, Pki::of(KeyType::Rsa)?);
    let us = "method = \"psk\", id = \"moon.lab.test\"";
    let by = |pki: &Pki, unit: &str| {
        format!(
            "method = \"pubkey\", id = \"subject: O=Lab, OU={unit}\", ca = [{}]",
            quoted(&shown(&pki.ca()))
        )
    };
    let (sales, tech) = (by(&ours, "Sales"), by(&theirs, "Tech"));
    let mut moon = moon(
        place,
        &[
            Realm { name: "sales", local: us, remote: &sales, pool: "10.3.1.0/24", net: "10.1.0.0/16" },
            Realm { name: "tech", local: us, remote: &tech, pool: "10.3.2.0/24", net: "10.1.0.0/24" },
        ],
    )?;
    moon.start()?;
    for (kind, pki, unit, pool) in [
        (KeyType::Ecdsa, &ours, "Sales", Ok("10.3.1.")),
        (KeyType::Rsa, &theirs, "TECH", Ok("10.3.2.")),
        (KeyType::Ecdsa, &ours, "Tech", Err("no path to a trusted CA")),
        (KeyType::Ecdsa, &ours, "Other", Err("whom the realm accepts")),
    ] {
        steps.begin(format!("OU={unit} of the {} CA", kind.name()));
        let mut carol = caller(place, "carol", "carol@lab.test", "moon.lab.test", Auth::Cert(kind))?;
        let names = "subjectAltName=email:carol@lab.test";
        issue(
            pki,
            &format!("/C=CH/O=Lab/OU={unit}/CN=carol"),
            names,
            &credential(place, "x509", "carol.crt"),
        )?;
        carol.start()?;
        match pool {
            Ok(pool) => {
                comes_up(place, &carol, "carol", pool)?;
                carol.down()?;
                await_nothing(&moon, "after the end")?;
            }
            Err(why) => is_refused(&carol, &moon, why)?,
        }
        carol.stop()?;
    }
    Ok(())
}

fn by_name(place: &Place<'_>, steps: &mut Steps) -> Result<()> {
    let remote = "method = \"psk\", id = \"*@lab.test\"";
    let mut moon = moon(
        place,
        &[
            Realm {
                name: "one",
                local: "method = \"psk\", id = \"vpn1.lab.test\"",
                remote,
                pool: "10.3.1.0/24",
                net: "10.1.0.0/16",
            },
            Realm {
                name: "two",
                local: "method = \"psk\", id = [\"vpn2.lab.test\", \"old.lab.test\"]",
                remote,
                pool: "10.3.2.0/24",
                net: "10.1.0.0/16",
            },
        ],
    )?;
    steps.begin("that both fit is a warning with the places of both");
    moon.start()?;
    for (asks, pool) in [
        ("vpn1.lab.test", Ok("10.3.1.")),
        ("vpn2.lab.test", Ok("10.3.2.")),
        ("old.lab.test", Ok("10.3.2.")),
        ("vpn3.lab.test", Err("looking for vpn3.lab.test")),
    ] {
        steps.begin(format!("carol asks for {asks}"));
        let mut carol = caller(place, "carol", "carol@lab.test", asks, Auth::Psk)?;
        carol.start()?;
        match pool {
            Ok(pool) => {
                comes_up(place, &carol, "carol", pool)?;
                if !carol.shown_sas()?.contains(asks) {
                    bail!("moon is not called {asks}: {}", carol.shown_sas()?);
                }
                carol.down()?;
                await_nothing(&moon, "after the end")?;
            }
            Err(why) => is_refused(&carol, &moon, why)?,
        }
        carol.stop()?;
    }
    if !log_text(&moon).contains("a peer that asks for none of them gets `one`") {
        bail!("the log does not warn of two realms that fit the same peers");
    }
    Ok(())
}

fn mixed(place: &Place<'_>, steps: &mut Steps) -> Result<()> {
    let cert = Auth::Cert(KeyType::Ecdsa);
    for (ours, theirs) in [(cert, Auth::Psk), (Auth::Psk, cert)] {
        let mut moon = place.tussock(&End { auth: ours, peer_auth: theirs, ..SITES.moon() })?;
        let far = End { auth: theirs, peer_auth: ours, ..SITES.far() };
        let mut sun = StrongSwan::new(place.world, far, Release::Host, place.results)?;
        sun.start()?;
        moon.start()?;
        for by_us in [true, false] {
            steps.begin(format!(
                "we by {ours:?}, they by {theirs:?}; {} call",
                if by_us { "we" } else { "they" }
            ));
            if by_us {
                moon.up()?
            } else {
                sun.up()?
            }
            place.pings()?;
            if by_us {
                moon.down()?
            } else {
                sun.down()?
            }
            await_nothing(&moon, "after the end")?;
            await_nothing(&sun, "after the end")?;
        }
        moon.stop()?;
        sun.stop()?;
    }
    Ok(())
}

fn methods(place: &Place<'_>, steps: &mut Steps) -> Result<()> {
    let cert = Auth::Cert(KeyType::Ecdsa);
    let both = |end: End| End { auth: cert, peer_auth: cert, ..end };
    let mut moon = place.tussock(&both(SITES.moon()))?;
    let mut sun = StrongSwan::new(place.world, both(SITES.far()), Release::Host, place.results)?;
    let ca = quoted(&shown(&Pki::of(KeyType::Ecdsa)?.ca()));
    let takes = |method: &str| {
        format!("{{ method = \"pubkey\", id = \"sun.lab.test\", methods = [\"{method}\"], ca = [{ca}] }}")
    };
    moon.set(SITE, "remote_auth", &takes("ed25519"))?;
    sun.start()?;
    moon.start()?;
    steps.begin("ECDSA is refused");
    is_refused(
        &sun,
        &moon,
        "the peer signed with ECDSA P-256 SHA2-256, and realm `site` takes only ed25519",
    )?;
    steps.begin("where it is taken it comes up");
    moon.set(SITE, "remote_auth", &takes("ecdsa"))?;
    moon.order(&["reload"])?;
    sun.up()?;
    place.pings()
}

fn first_use(place: &Place<'_>, steps: &mut Steps) -> Result<()> {
    let (mut moon, mut sun) = place.sites()?;
    steps.begin("both make themselves a certificate");
    for (end, host, peer) in [(&moon, "moon", "sun"), (&sun, "sun", "moon")] {
        remember_nothing(end)?;
        trust_first(place, end, host, peer, "1")?;
    }
    steps.begin("the first time, with a warning");
    place.begin(steps, &mut moon, &mut sun)?;
    let print = fingerprint(&log_text(&moon)).context("moon's log does not warn with a fingerprint")?;
    if !pins(place, &moon, &[])?.contains(&print) {
        bail!("`tussock pki pins` does not show {print}: {}", pins(place, &moon, &[])?);
    }
    moon.down()?;
    await_nothing(&sun, "after the end")?;
    steps.begin("again, with the key that is remembered, also after a restart");
    moon.stop()?;
    moon.start()?;
    moon.up()?;
    place.pings()?;
    moon.down()?;
    await_nothing(&sun, "after the end")?;
    steps.begin("another key is refused, and both are named");
    trust_first(place, &sun, "sun", "moon", "2")?;
    sun.order(&["reload"])?;
    let said = log_text(&moon).len();
    if moon.up().is_ok() {
        bail!("it came up with another key");
    }
    let text = log_text(&moon);
    let text = text.get(said..).unwrap_or_default();
    if !text.contains("has another key than the one that was remembered") || !text.contains(&print) {
        bail!("moon's log does not say why:\n{text}");
    }
    await_nothing(&moon, "after the refusal")?;
    await_nothing(&sun, "after the refusal")?;
    steps.begin("after `tussock pki pins --remove` the new one is");
    pins(place, &moon, &["--remove", "site/sun.lab.test"])?;
    moon.up()?;
    place.pings()?;
    if pins(place, &moon, &[])?.contains(&print) {
        bail!("the old key is still there");
    }
    Ok(())
}

fn first_use_of_another(place: &Place<'_>, steps: &mut Steps) -> Result<()> {
    let cert = Auth::Cert(KeyType::Ecdsa);
    let both = |end: End| End { auth: cert, peer_auth: cert, ..end };
    let mut moon = place.tussock(&both(SITES.moon()))?;
    moon.set(SITE, "remote_auth", "{ method = \"pubkey\", id = \"sun.lab.test\", trust = \"first-use\" }")?;
    let ours = || -> Result<StrongSwan<'_>> {
        let mut sun = StrongSwan::new(place.world, both(SITES.far()), Release::Host, place.results)?;
        self_signed("sun", &credential(place, "private", "sun.key"), &credential(place, "x509", "sun.crt"))?;
        let conf = place.results.join("sun/swanctl/swanctl.conf");
        let text =
            fs::read_to_string(&conf)?.replacen("version = 2\n", "version = 2\n    send_cert = always\n", 1);
        fs::write(&conf, text)?;
        sun.start()?;
        Ok(sun)
    };
    remember_nothing(&moon)?;
    moon.start()?;
    for again in [false, true] {
        steps.begin(if again { "another certificate of its own is refused" } else { "the first is taken" });
        let mut sun = ours()?;
        if again {
            is_refused(&sun, &moon, "has another key than the one that was remembered")?;
        } else {
            sun.up()?;
            place.pings()?;
            sun.down()?;
            sun.up()?;
            sun.down()?;
            await_nothing(&moon, "after the end")?;
        }
        sun.stop()?;
    }
    steps.begin("we prove ourselves by a raw key, and send it along");
    let public = place.results.join("sun/swanctl/pubkey/moon.pub");
    let key = Pki::of(KeyType::Ecdsa)?.key("moon");
    moon.set(
        SITE,
        "local_auth",
        &format!("{{ method = \"pubkey\", id = \"moon.lab.test\", key = {} }}", quoted(&shown(&key))),
    )?;
    moon.stop()?;
    remember_nothing(&moon)?;
    moon.start()?;
    let mut sun = ours()?;
    sun.stop()?;
    fs::create_dir_all(place.results.join("sun/swanctl/pubkey"))?;
    process::run(openssl(&["pkey", "-pubout"]).arg("-in").arg(&key).arg("-out").arg(&public))?;
    let conf = place.results.join("sun/swanctl/swanctl.conf");
    let text = fs::read_to_string(&conf)?;
    let remote = text.find("    remote {").context("no section `remote`")?;
    let (before, after) = text.split_at(remote);
    fs::write(
        &conf,
        before.to_owned()
            + &after.replacen("auth = pubkey\n", "auth = pubkey\n      pubkeys = moon.pub\n", 1),
    )?;
    sun.start()?;
    sun.up()?;
    place.pings()
}

fn no_secret(place: &Place<'_>, steps: &mut Steps) -> Result<()> {
    let us = "method = \"psk\", id = \"moon.lab.test\"";
    let remote = "method = \"psk\", id = \"*@lab.test\"";
    let mut moon =
        moon(place, &[Realm { name: "sales", local: us, remote, pool: "10.3.1.0/24", net: "10.1.0.0/16" }])?;
    moon.rewrite(|text| text.replacen("ids = []", "ids = [\"moon.lab.test\", \"dave@lab.test\"]", 1))?;
    moon.start()?;
    steps.begin("carol has a secret and moon none for her");
    let mut carol = caller(place, "carol", "carol@lab.test", "moon.lab.test", Auth::Psk)?;
    carol.start()?;
    is_refused(&carol, &moon, "no pre-shared key for `moon.lab.test` and `carol@lab.test`")
}

/// Where strongSwan on carol, or on the host that the name begins with, looks for a credential.
fn credential(place: &Place<'_>, folder: &str, name: &str) -> PathBuf {
    let host = name.split('.').next().unwrap_or("carol");
    place.results.join(host).join("swanctl").join(folder).join(name)
}

/// Another certificate for carol's key of this authority, in the place of the one that is there.
fn issue(pki: &Pki, subject: &str, names: &str, to: &Path) -> Result<()> {
    let (request, more) = (to.with_extension("csr"), to.with_extension("ext"));
    process::run(
        openssl(&["req", "-new", "-subj", subject, "-key"]).arg(pki.key("carol")).arg("-out").arg(&request),
    )?;
    fs::write(
        &more,
        format!("basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\n{names}\n"),
    )?;
    let mut sign = openssl(&["x509", "-req", "-days", "30", "-in"]);
    sign.arg(&request).arg("-CA").arg(pki.ca()).arg("-CAkey").arg(pki.key("ca"));
    sign.args(["-set_serial", "7", "-extfile"]).arg(&more).arg("-out").arg(to);
    process::run(&mut sign)?;
    // What swanctl would take for certificates, too.
    fs::remove_file(&request)?;
    fs::remove_file(&more).map_err(Into::into)
}

/// A key, and a certificate that it has signed itself.
fn self_signed(host: &str, key: &Path, cert: &Path) -> Result<()> {
    process::run(
        openssl(&["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]).arg("-out").arg(key),
    )?;
    let mut make = openssl(&["req", "-x509", "-new", "-days", "30", "-subj", &format!("/CN={host}"), "-key"]);
    make.arg(key).args(["-addext", &format!("subjectAltName=DNS:{host}.lab.test"), "-out"]).arg(cert);
    process::run(&mut make).map(drop)
}

/// One of ours with a certificate of its own making, the `nth`, that believes the first key of the other.
fn trust_first(place: &Place<'_>, end: &Tussock<'_>, host: &str, peer: &str, nth: &str) -> Result<()> {
    let file = |ending: &str| place.results.join(format!("{host}-{nth}.{ending}"));
    self_signed(host, &file("key"), &file("crt"))?;
    let path = |ending: &str| quoted(&shown(&file(ending)));
    end.set(
        SITE,
        "local_auth",
        &format!(
            "{{ method = \"pubkey\", id = \"{host}.lab.test\", cert = [{}], key = {} }}",
            path("crt"),
            path("key")
        ),
    )?;
    end.set(
        SITE,
        "remote_auth",
        &format!("{{ method = \"pubkey\", id = \"{peer}.lab.test\", trust = \"first-use\" }}"),
    )
}

/// What stories before this one have remembered.
fn remember_nothing(end: &Tussock<'_>) -> Result<()> {
    let state = end.socket();
    match fs::remove_file(state.with_file_name("secure").join("pins")) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

fn pins(place: &Place<'_>, end: &Tussock<'_>, more: &[&str]) -> Result<String> {
    let state = end.socket();
    let state = state.parent().context("a socket in no folder")?;
    process::run(Command::new(place.binary).args(["pki", "pins", "--state-dir"]).arg(state).args(more))
}

fn fingerprint(log: &str) -> Option<String> {
    let line = log.lines().find(|line| line.contains("first use: nobody vouches"))?;
    let at = line.find("SHA256:")?;
    line.get(at..at + 71).map(str::to_owned)
}

fn openssl(arguments: &[&str]) -> Command {
    let mut command = Command::new("openssl");
    command.args(arguments);
    command
}
