//! Private keys in PKCS #11 tokens: strongSwan believes what they sign; a slow one holds up nobody but those who wait for it; one that is
//! pulled out is missed by new handshakes only.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::{Place, Story};
use crate::bench::crowd::{self, Crowd, Kind, Proof};
use crate::checkout::{self, Profile};
use crate::interop::course::Steps;
use crate::interop::scenario::SITES;
use crate::packages;
use crate::peer::{Peer, await_tunnel, log_text};
use crate::ping;
use crate::pki::{Pki, shown};
use crate::process;
use crate::strongswan::{Release, StrongSwan};
use crate::tokens::{Make, Token};
use crate::tunnel::{Auth, KeyType};
use crate::tussock::{GATEWAY, SITE, Tussock, quoted};
use crate::world::{BOB, MOON, MOON_NET};

/// A story of one kind of token and one kind of key, with strongSwan.
macro_rules! believed {
    ($name:literal, $shows:literal, $make:ident, $kind:ident) => {
        Story::ours($name, $shows, |place, steps| believed(place, steps, Make::$make, KeyType::$kind))
            .cast("tussock -> strongSwan")
    };
}

pub const STORIES: &[Story] = &[
    believed!(
        "token-softhsm-rsa",
        "our RSA key is made and stays in SoftHSM; strongSwan believes it",
        SoftHsm,
        Rsa
    ),
    believed!(
        "token-softhsm-ecdsa",
        "our ECDSA key is made and stays in SoftHSM; strongSwan believes it",
        SoftHsm,
        Ecdsa
    ),
    believed!(
        "token-kryoptic-rsa",
        "our RSA key is made and stays in Kryoptic; strongSwan believes it",
        Kryoptic,
        Rsa
    ),
    believed!(
        "token-kryoptic-ecdsa",
        "our ECDSA key is made and stays in Kryoptic; strongSwan believes it",
        Kryoptic,
        Ecdsa
    ),
    Story::ours(
        "token-slow",
        "64 handshakes at once with a token that takes 20 ms to sign: as fast as the token, and pings do not notice",
        slow,
    ),
    Story::ours(
        "token-pulled",
        "a token is pulled out: tunnels go on, new handshakes fail and say why, and work again when it is back",
        pulled,
    ),
    Story::ours(
        "token-pin",
        "a wrong PIN is tried once, however often it is asked for; the right one is taken without a restart",
        pin,
    ),
    Story::ours(
        "token-exchanges",
        "key exchanges are carried out in a token, and by software when it is pulled out",
        exchanges,
    ),
];

/// Operations that the slow token does at one time, and how many are wanted.
const PARALLEL: usize = 4;
const HANDSHAKES: u32 = 64;
const SIGN_MS: u64 = 20;

/// How `moon` proves itself with a key on the token.
fn own(key: &str, more: &str) -> String {
    format!("{{ method = \"pubkey\", id = \"moon.lab.test\", key = {}{more} }}", quoted(key))
}

fn token(place: &Place<'_>, make: Make) -> Result<Token> {
    packages::need(&[packages::TOKENS])?;
    Token::new(make, place.binary, &place.results.join("token"))
}

fn believed(place: &Place<'_>, steps: &mut Steps, make: Make, kind: KeyType) -> Result<()> {
    steps.begin("a key is made on the token, certified, and its certificate put beside it");
    let token = token(place, make)?;
    let (key, _) = token.certify(kind, "moon")?;
    let auth = Auth::Cert(kind);
    let mut end = SITES.moon();
    (end.auth, end.peer_auth) = (auth, auth);
    let mut moon = place.tussock(&end)?;
    moon.environment(token.environment());
    moon.append(&token.section(""))?;
    let mut far = SITES.far();
    (far.auth, far.peer_auth) = (auth, auth);
    let mut sun = StrongSwan::new(place.world, far, Release::Host, place.results)?;
    // The certificate by its URI, and then as what is found beside the key.
    let by_uri = key.replace("type=private", "type=cert");
    for (how, more) in
        [("by its URI", format!(", cert = [{}]", quoted(&by_uri))), ("beside the key", String::new())]
    {
        steps.begin(format!("the tunnel comes up, with the certificate {how}"));
        moon.set(SITE, "local_auth", &own(&key, &more))?;
        sun.start()?;
        moon.start()?;
        moon.up()?;
        let seen = await_tunnel(&moon, "one tunnel", |_| true)?;
        await_tunnel(&sun, "the same tunnel", |other| other.ike == seen.ike)?;
        place.pings()?;
        moon.rekey_ike()?;
        let signed = signatures(&moon)?;
        if signed != 1 {
            bail!("the token signed {signed} times for one handshake");
        }
        steps.begin("strongSwan begins, and the token signs again");
        moon.down()?;
        process::until(Duration::from_secs(5), || Ok(sun.sas()?.is_empty().then_some(())))?;
        sun.up()?;
        let seen = await_tunnel(&moon, "one tunnel", |_| true)?;
        await_tunnel(&sun, "the same tunnel", |other| other.ike == seen.ike)?;
        place.pings()?;
        if signatures(&moon)? != 2 {
            bail!("the token did not sign as responder");
        }
        moon.stop()?;
        sun.stop()?;
    }
    Ok(())
}

/// What moon says of the device with its keys.
fn keys(moon: &Tussock<'_>) -> Result<Value> {
    let all = moon.json("accel")?;
    let list = all.get("devices").and_then(Value::as_array).context("no devices")?;
    let found =
        list.iter().find(|device| device.pointer("/device/name").is_some_and(|name| name == "hsm:keys"));
    found.cloned().with_context(|| format!("no device hsm:keys in {all:#}"))
}

fn count(moon: &Tussock<'_>, name: &str) -> Result<u64> {
    let keys = keys(moon)?;
    let count = keys.pointer(&format!("/counters/{name}")).and_then(Value::as_u64);
    count.with_context(|| format!("no {name} in {keys:#}"))
}

fn signatures(moon: &Tussock<'_>) -> Result<u64> {
    count(moon, "signatures")
}

/// Moon with a key on the emulated token, and sun; the tunnel between them is by PSK unless something else is set.
fn stage<'w>(place: &Place<'w>, steps: &mut Steps) -> Result<(Token, String, Tussock<'w>, Tussock<'w>)> {
    steps.begin("a key is made on the emulated token");
    let token = token(place, Make::Emulated)?;
    let (key, _) = token.certify(KeyType::Ecdsa, "moon")?;
    let (mut moon, sun) = place.sites()?;
    moon.environment(token.environment());
    Ok((token, key, moon, sun))
}

fn slow(place: &Place<'_>, steps: &mut Steps) -> Result<()> {
    let (token, key, mut moon, mut sun) = stage(place, steps)?;
    moon.append(&token.section("sessions = 8\n"))?;
    moon.append(&realm_for_the_crowd(&key)?)?;
    moon.set(GATEWAY, "cookie_threshold", "100000")?;
    place.world.join(crowd::HOST, 100)?;
    crowd::make_room(place.world, "moon")?;
    place.begin(steps, &mut moon, &mut sun)?;
    steps.begin("pings by themselves");
    let every = Duration::from_millis(10);
    let quiet = ping::Stream::every(place.world, "alice", BOB, every, &place.results.join("quiet.log"))?;
    std::thread::sleep(Duration::from_secs(2));
    let quiet = quiet.round_trips()?;
    steps.begin("64 handshakes at once, and pings beside them");
    token.control(&format!("sign_ms = {SIGN_MS}\nparallel = {PARALLEL}"))?;
    let bench = checkout::build("tussock-bench", Profile::Dev, &[])?;
    let kind = Kind { window: HANDSHAKES, ..Kind::initiators(Proof::Ecdsa, true) };
    let certificate = place.results.join("token/moon.crt");
    let mut peers = Crowd::on(place.world, &bench, place.results, &kind, Some(&certificate))?;
    let busy = ping::Stream::every(place.world, "alice", BOB, every, &place.results.join("busy.log"))?;
    let began = Instant::now();
    let came = peers.bring_to(HANDSHAKES, Duration::from_secs(60))?;
    let took = began.elapsed();
    let busy = busy.round_trips()?;
    steps.begin("the token was used to the full, and signed once for each");
    let counts = token.counts()?;
    let peak = counts.get("peak").and_then(Value::as_u64);
    let signed = counts.pointer("/calls/C_Sign").and_then(Value::as_u64);
    if peak != Some(PARALLEL as u64) || signed != Some(u64::from(HANDSHAKES)) {
        bail!("{signed:?} signatures, at most {peak:?} at a time: {counts}");
    }
    let least = u64::from(HANDSHAKES) / PARALLEL as u64 * SIGN_MS;
    let latency = keys(&moon)?.pointer("/queues/0/latency").cloned();
    // All signatures behind each other would be this; nothing that waits for one takes so long.
    let one_by_one = Duration::from_millis(u64::from(HANDSHAKES) * SIGN_MS);
    let told = format!(
        "{HANDSHAKES} handshakes in {:.0} ms (the token alone: {least} ms); pings {} alone, {} beside; signatures {latency:?} ns",
        came.seconds * 1e3,
        quiet,
        busy
    );
    steps.begin(told.clone());
    println!("      {told}");
    if busy.lost > 0 || quiet.lost > 0 {
        bail!("pings were lost: {told}");
    }
    if busy.worst > one_by_one {
        bail!("a ping waited for the token: {told}");
    }
    if took > 20 * one_by_one {
        bail!("the handshakes took {took:?}: {told}");
    }
    Ok(())
}

fn realm_for_the_crowd(key: &str) -> Result<String> {
    Ok(format!(
        "[realm.crowd]\nlocal = [\"{MOON}\"]\nencap = \"udp\"\nike = [\"{}\"]\nunique = false\nike_rekey = \"0s\"\n\
         local_auth = {}\nremote_auth = {{ method = \"pubkey\", id = \"{}\", ca = [{}] }}\n\
         [[realm.crowd.child]]\nname = \"net\"\nlocal = [\"{MOON_NET}\"]\nremote = [\"{}\"]\nesp = [\"aes128gcm16\"]\n",
        SITES.ike,
        own(key, ""),
        crowd::ID,
        quoted(&shown(&Pki::of(KeyType::Ecdsa)?.ca())),
        crowd::INSIDE,
    ))
}

/// Sun wants a certificate of moon, whose key is on the token.
fn by_token(moon: &Tussock<'_>, sun: &Tussock<'_>, key: &str) -> Result<()> {
    moon.set(SITE, "local_auth", &own(key, ""))?;
    let ca = quoted(&shown(&Pki::of(KeyType::Ecdsa)?.ca()));
    sun.set(SITE, "remote_auth", &format!("{{ method = \"pubkey\", id = \"moon.lab.test\", ca = [{ca}] }}"))
}

fn pulled(place: &Place<'_>, steps: &mut Steps) -> Result<()> {
    let (token, key, mut moon, mut sun) = stage(place, steps)?;
    moon.append(&token.section(""))?;
    by_token(&moon, &sun, &key)?;
    place.begin(steps, &mut moon, &mut sun)?;
    steps.begin("the token is pulled out: the tunnel goes on, and is rekeyed");
    token.control("present = false")?;
    let pings = ping::Stream::start(place.world, "alice", BOB, &place.results.join("pings.log"))?;
    moon.rekey_child()?;
    moon.rekey_ike()?;
    std::thread::sleep(Duration::from_millis(500));
    pings.finish()?;
    steps.begin("a new handshake fails at once, and both the answer and the log say why");
    moon.down()?;
    process::until(Duration::from_secs(5), || Ok(sun.sas()?.is_empty().then_some(())))?;
    for _ in 0..3 {
        let refused = match moon.up() {
            Ok(()) => bail!("it came up without the token"),
            Err(error) => format!("{error:#}"),
        };
        if !refused.contains("insert it") && !log_text(&moon).contains("insert it") {
            bail!("it says {refused}");
        }
    }
    steps.begin("the token is put back, and the next handshake works");
    token.control("present = true")?;
    moon.up()?;
    place.pings()?;
    if count(&moon, "logins")? < 2 {
        bail!("nobody logged in again: {:#}", keys(&moon)?);
    }
    steps.begin("without it at the start, the gateway waits for it");
    moon.down()?;
    moon.stop()?;
    token.control("present = false")?;
    moon.start()?;
    if moon.up().is_ok() {
        bail!("it came up without the token");
    }
    token.control("present = true")?;
    moon.up()?;
    place.pings()?;
    moon.stop()?;
    sun.stop()
}

fn pin(place: &Place<'_>, steps: &mut Steps) -> Result<()> {
    let (token, key, mut moon, mut sun) = stage(place, steps)?;
    moon.append(&token.section(""))?;
    by_token(&moon, &sun, &key)?;
    let right = std::fs::read_to_string(token.pin_file())?;
    std::fs::write(token.pin_file(), "00000000")?;
    steps.begin("both gateways start, moon with a wrong PIN");
    sun.start()?;
    moon.start()?;
    for _ in 0..3 {
        if moon.up().is_ok() {
            bail!("it came up with a wrong PIN");
        }
        moon.order(&["reload"])?;
    }
    let tried = token.counts()?.pointer("/calls/C_Login").and_then(Value::as_u64);
    let text = log_text(&moon);
    if tried != Some(1) || !text.contains("refuses the PIN") || text.contains("00000000") {
        bail!("the PIN was tried {tried:?} times; the log ends\n{}", process::tail(moon.log(), 10));
    }
    steps.begin("the PIN is corrected, and nothing has to be started again");
    std::fs::write(token.pin_file(), right)?;
    moon.up()?;
    place.pings()?;
    moon.stop()?;
    sun.stop()
}

fn exchanges(place: &Place<'_>, steps: &mut Steps) -> Result<()> {
    let (token, _, mut moon, mut sun) = stage(place, steps)?;
    moon.append(&token.section("dh = \"token\"\nsessions = 2\n"))?;
    place.begin(steps, &mut moon, &mut sun)?;
    steps.begin("the token has made pairs and secrets");
    let exchanged = |moon: &Tussock<'_>| -> Result<u64> {
        let all = moon.json("accel")?;
        let list = all.get("devices").and_then(Value::as_array).context("no devices")?;
        let hsm = list.iter().find(|device| device.pointer("/device/name").is_some_and(|name| name == "hsm"));
        let hsm = hsm.with_context(|| format!("no device hsm in {all:#}"))?;
        let of = |name: &str| hsm.pointer(&format!("/counters/{name}")).and_then(Value::as_u64).unwrap_or(0);
        Ok(of("pairs").min(of("secrets")))
    };
    let before = exchanged(&moon)?;
    if before == 0 {
        bail!("the token has exchanged nothing: {:#}", moon.json("accel")?);
    }
    moon.rekey_ike()?;
    await_tunnel(&moon, "the IKE SA is another", |_| true)?;
    if exchanged(&moon)? <= before {
        bail!("the rekey was not exchanged in the token");
    }
    steps.begin("the token is pulled out, and software does it");
    token.control("present = false")?;
    process::until(Duration::from_secs(5), || {
        let _ = moon.rekey_ike();
        let health = moon.json("accel")?.pointer("/devices/0/device/health").cloned();
        Ok((health != Some("ready".into())).then_some(()))
    })?;
    moon.rekey_ike()?;
    moon.rekey_child()?;
    place.pings()?;
    moon.stop()?;
    sun.stop()
}
