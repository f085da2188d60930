//! In a gateway's place, what no gateway can do without (`tussock-bench bare`): the floor, as two processes on the same map.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use serde_json::Value;

use super::Setup;
use super::trains::{Counts, Ends};
use crate::process::{self, Daemon};
use crate::world::{MOON, MOON_INSIDE, MOON_NET, SUN, SUN_INSIDE, SUN_NET};

const DEVICE: &str = "bare0";
const PORT: u16 = 4500;
/// A packet of the floor fits, and what becomes of it fits the wire.
const MTU: u16 = 1400;

/// A pair.
pub struct Bare {
    moon: Daemon,
    sun: Daemon,
    logs: [PathBuf; 2],
}

impl Bare {
    /// Both started, on a map built anew.
    pub fn start(setup: &Setup) -> Result<Bare> {
        setup.world.build_pair()?;
        let logs = ["moon", "sun"].map(|host| setup.results.join(format!("bare-{host}.log")));
        let moon = end(setup, ("moon", MOON, MOON_INSIDE, &logs[0]), (SUN, SUN_NET))?;
        let sun = end(setup, ("sun", SUN, SUN_INSIDE, &logs[1]), (MOON, MOON_NET))?;
        Ok(Bare { moon, sun, logs })
    }

    /// End both.
    pub fn stop(&mut self) -> Result<()> {
        for daemon in [&mut self.moon, &mut self.sun] {
            daemon.stop(Signal::TERM, Duration::from_secs(3))?;
        }
        Ok(())
    }
}

impl Ends for Bare {
    fn pids(&self) -> Result<[u32; 2]> {
        Ok([self.moon.pid(), self.sun.pid()])
    }

    fn counts(&self) -> Result<Counts> {
        let [moon, sun] = self.logs.each_ref().map(|log| {
            let text = fs::read_to_string(log).unwrap_or_default();
            let line = text.lines().rev().find_map(|line| serde_json::from_str::<Value>(line).ok());
            move |key: &str| line.as_ref().and_then(|line| line.get(key)?.as_u64()).unwrap_or_default()
        });
        Ok(Counts {
            sealed: moon("sealed"),
            opened: sun("opened"),
            reads: moon("reads"),
            writes: sun("writes"),
        })
    }
}

fn end(setup: &Setup, own: (&str, &str, &str, &PathBuf), peer: (&str, &str)) -> Result<Daemon> {
    let (host, address, inside, log) = own;
    let (other, network) = peer;
    fs::remove_file(log).ok();
    let mut command = setup.world.on(host, &setup.bench);
    command.args(["bare", "--from", &format!("{address}:{PORT}"), "--to", &format!("{other}:{PORT}")]);
    let mut daemon = Daemon::start(command.args(["--tun", DEVICE]), log)?;
    let ready = process::until(Duration::from_secs(5), || {
        let ready = fs::read_to_string(log).is_ok_and(|text| text.contains("ready"));
        Ok((ready || daemon.has_ended()).then_some(ready))
    })?;
    if ready != Some(true) {
        bail!("tussock-bench does not start on {host}:\n{}", process::tail(log, 5));
    }
    setup
        .world
        .net
        .ip(host, &format!("link set {DEVICE} up mtu {MTU}\nroute add {network} dev {DEVICE} src {inside}\n"))
        .context("the TUN device of tussock-bench")?;
    Ok(daemon)
}
