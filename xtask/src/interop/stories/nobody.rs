//! NULL authentication (RFC 7619): nobody meets nobody, or somebody; ours with ours, and with libreswan's.

use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::realms::is_refused;
use super::{PATIENCE, Place, Story};
use crate::interop::course::Steps;
use crate::interop::scenario::SITES;
use crate::libreswan::{self, Libreswan};
use crate::peer::{Peer, await_nothing, log_text};
use crate::process;
use crate::tussock::{GATEWAY, SITE, quoted};

pub const STORIES: &[Story] = &[
    Story::ours("nobody", "NULL authentication, both ways and one way; a realm that wants a name refuses nobody", nobody),
    Story::ours(
        "nobody-libreswan",
        "NULL authentication with libreswan, called from both sides, up to the IKE SA; a realm that wants a name refuses it",
        nobody_of_another,
    )
    .asking(libreswan::need)
    .cast("tussock <-> libreswan"),
];

fn nobody(place: &Place<'_>, steps: &mut Steps) -> Result<()> {
    let (mut moon, mut sun) = place.sites()?;
    let null = "{ method = \"null\" }";
    let of = |id: &str| format!("{{ method = \"psk\", id = {} }}", quoted(id));
    for end in [&moon, &sun] {
        end.set(SITE, "local_auth", null)?;
        end.set(SITE, "remote_auth", null)?;
    }
    place.begin(steps, &mut moon, &mut sun)?;
    if !sun.shown_sas()?.contains("anonymous-") {
        bail!("sun does not show that it does not know its peer: {}", sun.shown_sas()?);
    }
    moon.down()?;
    await_nothing(&sun, "after the end")?;
    steps.begin("one side alone says who it is");
    // Who is nobody shares a secret with sun all the same, but not under a name.
    for end in [&moon, &sun] {
        end.set("[[psk]]", "ids", "[\"sun.lab.test\"]")?;
    }
    sun.set(SITE, "local_auth", &of("sun.lab.test"))?;
    moon.set(SITE, "remote_auth", &of("sun.lab.test"))?;
    moon.order(&["reload"])?;
    sun.order(&["reload"])?;
    moon.up()?;
    place.pings()?;
    moon.down()?;
    await_nothing(&sun, "after the end")?;
    steps.begin("a realm that wants a name refuses nobody");
    sun.set(SITE, "remote_auth", &of("moon.lab.test"))?;
    sun.order(&["reload"])?;
    is_refused(&moon, &sun, "no realm for anonymous")
}

/// pluto, which is nobody and takes nobody. Its packets are the kernel's business, and where that has no ESP, its Child SAs fail.
const NOBODY: &str = "
conn null
    ikev2=insist
    left=192.168.0.2
    right=192.168.0.1
    leftid=%null
    rightid=%null
    authby=null
    leftsubnet=10.2.0.0/16
    rightsubnet=10.1.0.0/16
    ike=aes_gcm128-sha2_256-dh31
    esp=aes_gcm128
    auto=add
";

fn nobody_of_another(place: &Place<'_>, steps: &mut Steps) -> Result<()> {
    let mut moon = place.tussock(&SITES.moon())?;
    let null = "{ method = \"null\" }";
    moon.set(SITE, "local_auth", null)?;
    moon.set(SITE, "remote_auth", null)?;
    // pluto goes without a word when the kernel fails it.
    moon.set(GATEWAY, "retransmit", PATIENCE)?;
    moon.start()?;
    let mut sun = Libreswan::new(place.world, "sun", place.results, NOBODY)?;
    sun.start()?;
    let up = || Ok(moon.sas()?.iter().any(|sa| sa.established).then_some(()));
    steps.begin("we call, and each takes the other's proof");
    moon.up().ok();
    sun.await_words(0, "responder established IKE SA; authenticated peer using authby=null")?;
    process::until(Duration::from_secs(10), up)?.context("we have no IKE SA")?;
    moon.down()?;
    steps.begin("it calls, and each takes the other's proof");
    let (ours, theirs) = (log_text(&moon).len(), sun.text().len());
    sun.call("null")?;
    sun.await_words(theirs, "initiator established IKE SA; authenticated peer using authby=null")?;
    let said = |words: &str| {
        let text = log_text(&moon);
        let found = text.get(ours..).is_some_and(|text| text.lines().any(|line| line.contains(words)));
        Ok(found.then_some(()))
    };
    let established = "how=NULL authentication: it may be anybody";
    process::until(Duration::from_secs(10), || said(established))?.context("our log does not say how")?;
    steps.begin("a realm that wants a name refuses it");
    moon.set(SITE, "local_auth", "{ method = \"psk\", id = \"moon.lab.test\" }")?;
    moon.set(SITE, "remote_auth", "{ method = \"psk\", id = \"sun.lab.test\" }")?;
    moon.order(&["reload"])?;
    let theirs = sun.text().len();
    sun.call("null")?;
    sun.await_words(theirs, "AUTHENTICATION_FAILED")?;
    process::until(Duration::from_secs(10), || said("no realm for anonymous"))?
        .context("our log does not say why")?;
    sun.end("null")?;
    await_nothing(&moon, "after the refusal")
}
