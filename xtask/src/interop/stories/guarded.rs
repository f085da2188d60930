//! What must not go in the clear, and what others do to a TUN device.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::{Place, Story};
use crate::capture;
use crate::interop::course::Steps;
use crate::peer::Peer;
use crate::ping;
use crate::process;
use crate::tussock::NET;
use crate::world::BOB;

pub const STORIES: &[Story] = &[
    Story::ours(
        "blocked",
        "what a child protects goes nowhere before it is up and when it is down, unless on_down = \"clear\"",
        blocked,
    ),
    Story::ours(
        "device-lost",
        "a TUN device that is deleted or set down under a running gateway comes back with its routes",
        device_lost,
    ),
];

const WORDS: &[u8; 16] = b"is-this-in-clear";

fn blocked(place: &Place<'_>, steps: &mut Steps) -> Result<()> {
    let world = place.world;
    // Whether anything leaks is for the gateway to decide here.
    world.allow_leaks(&["moon", "sun"])?;
    let (mut moon, mut sun) = place.sites()?;
    let (file, wire) = (place.results.join("wire.pcap"), place.wire("wire.pcap")?);
    steps.begin("before the tunnel is up, nothing gets through");
    sun.start()?;
    moon.start()?;
    let nothing = |when: &str| match ping::with_words(world, "alice", BOB, WORDS) {
        Ok(()) => bail!("{when}, pings are answered"),
        Err(_) => Ok(()),
    };
    nothing("before the tunnel is up")?;
    place.come_up(steps, &moon, &sun)?;
    steps.begin("nor when it is down");
    moon.down()?;
    nothing("when the tunnel is down")?;
    let shown = moon.order(&["status", "--json"])?;
    if !shown.contains("\"blocked\"") {
        bail!("the status does not say so: {shown}");
    }
    wire.finish()?;
    if capture::holds(&file, WORDS)? {
        bail!("the pings are on the wire in the clear");
    }
    steps.begin("with on_down = \"clear\" it is as if there were no gateway");
    for end in [&moon, &sun] {
        end.set(NET, "on_down", "\"clear\"")?;
        end.order(&["reload"])?;
    }
    let wire = place.wire("clear.pcap")?;
    ping::with_words(world, "alice", BOB, WORDS)?;
    wire.finish()?;
    if !capture::holds(&place.results.join("clear.pcap"), WORDS)? {
        bail!("the pings are nowhere on the wire");
    }
    Ok(())
}

fn device_lost(place: &Place<'_>, steps: &mut Steps) -> Result<()> {
    let [before, _] = place.stock()?;
    let (mut moon, mut sun) = place.pair(steps)?;
    let pid = moon.pid().context("moon does not run")?;
    steps.begin("moon's device is deleted");
    place.world.net.ip("moon", "link del ipsec0\n")?;
    let back = || process::until(Duration::from_secs(5), || Ok(place.pings().is_ok().then_some(())));
    back()?.context("the tunnel does not come back")?;
    let ticks = ticks(pid)?;
    std::thread::sleep(Duration::from_secs(1));
    let spent = self::ticks(pid)? - ticks;
    if spent > 20 {
        bail!("moon spends {spent} ticks of a second with nothing to do");
    }
    steps.begin("it is set down and up again");
    place.world.net.ip("moon", "link set ipsec0 down\nlink set ipsec0 up\n")?;
    back()?.context("the tunnel does not come back")?;
    steps.begin("both end, nothing is left");
    moon.stop()?;
    sun.stop()?;
    before.must_return(place.world, "after the end")
}

/// Processor time a process has used, in hundredths of a second.
fn ticks(pid: u32) -> Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    // utime and stime are the 14th and 15th fields, the name the second.
    let times: Vec<u64> =
        after_name.split_whitespace().skip(11).take(2).filter_map(|word| word.parse().ok()).collect();
    Ok(times.iter().sum())
}
