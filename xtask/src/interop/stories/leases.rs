//! Several roadwarriors and one pool.

use anyhow::{Result, bail};

use super::{Place, Story};
use crate::interop::course::{Steps, virtual_address};
use crate::interop::scenario::{SECRET, SITES, Scenario};
use crate::peer::{Peer, await_nothing, log_text};
use crate::ping;
use crate::process;
use crate::tunnel::End;
use crate::tussock::{SITE, Tussock, quoted};
use crate::world::{ALICE, Layout, MOON};

pub const STORIES: &[Story] = &[Story::ours(
    "leases",
    "two roadwarriors at once get an address each, and keep it; an empty pool is said clearly",
    leases,
)
.on(Layout::Roadwarrior)];

fn leases(place: &Place<'_>, steps: &mut Steps) -> Result<()> {
    let world = place.world;
    let scenario = Scenario { layout: Layout::Roadwarrior, ..SITES };
    world.join("erin", 101)?;
    world.net.ip("erin", &format!("route add default via {MOON}\n"))?;
    let mut moon = place.tussock(&scenario.moon())?;
    let mut carol = place.tussock(&scenario.far())?;
    let mut erin = place.tussock(&End { host: "erin", id: "erin@lab.test".into(), ..scenario.far() })?;
    moon.set(SITE, "remote_auth", "{ method = \"psk\", id = \"*@lab.test\" }")?;
    let ids = "ids = [\"moon.lab.test\", \"erin@lab.test\"]";
    moon.append(&format!("[[psk]]\n{ids}\nsecret = {}", quoted(SECRET)))?;
    steps.begin("both get an address, and it is not the same");
    moon.start()?;
    carol.start()?;
    erin.start()?;
    let call = |end: &Tussock<'_>, host: &str| -> Result<String> {
        end.up()?;
        crate::peer::await_tunnel(end, "after coming up", |_| true)?;
        virtual_address(world, host)
    };
    let (carols, erins) = (call(&carol, "carol")?, call(&erin, "erin")?);
    if carols == erins {
        bail!("both got {carols}");
    }
    if moon.count("/leases/site")? != 2 {
        bail!("two leases should be shown: {:#}", moon.json("status")?);
    }
    steps.begin("both at once reach alice and are reached");
    let streams = [("carol", ALICE), ("erin", ALICE), ("alice", carols.as_str()), ("alice", erins.as_str())];
    let started = streams.iter().enumerate().map(|(n, (from, to))| {
        ping::Stream::start(world, from, to, &place.results.join(format!("ping-{n}.log")))
    });
    let started = started.collect::<Result<Vec<_>>>()?;
    std::thread::sleep(std::time::Duration::from_millis(700));
    started.into_iter().try_for_each(|stream| stream.finish().map(drop))?;
    steps.begin("who comes back has the same address, and none in between");
    carol.down()?;
    await_nothing(&carol, "after the end")?;
    let gone = process::until(std::time::Duration::from_secs(3), || {
        Ok(virtual_address(world, "carol").is_err().then_some(()))
    })?;
    if gone.is_none() {
        bail!("carol still has {carols}");
    }
    let again = call(&carol, "carol")?;
    if again != carols {
        bail!("carol had {carols} and now has {again}");
    }
    steps.begin("from a pool of one address, the second is told that there is none");
    carol.down()?;
    erin.down()?;
    moon.set(SITE, "pool", "{ ipv4 = \"10.3.0.0/30\" }")?;
    moon.order(&["reload"])?;
    call(&carol, "carol")?;
    // The IKE SA stays, without a child (RFC 7296 section 3.15.4).
    let Err(error) = erin.up() else { bail!("erin got {:?}", virtual_address(world, "erin")) };
    let error = format!("{error:#}");
    if !error.contains("INTERNAL_ADDRESS_FAILURE") {
        bail!("erin's error does not say why: {error}");
    }
    if !log_text(&moon).contains("configuration: no address left in the pool") {
        bail!("moon's log does not say that the pool is empty");
    }
    ping::check(world, "carol", ALICE)
}
