//! One measurement: TCP from alice to bob through the tunnel, and what it cost the two gateways.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use serde_json::Value;

use crate::process::{self, Daemon};
use crate::world::{BOB, World};

/// What was measured.
pub struct Measure {
    /// TCP payload received, in bits per second.
    pub bits_per_second: f64,
    /// TCP payload received, in bytes.
    pub bytes: f64,
    /// CPU seconds each gateway used meanwhile, user and system.
    pub cpu: (f64, f64),
}

impl Measure {
    /// TCP payload in Gbit/s.
    pub fn gbit(&self) -> f64 {
        self.bits_per_second / 1e9
    }

    /// CPU seconds per 10^9 bytes of TCP payload, for each gateway.
    pub fn cpu_per_gb(&self) -> (f64, f64) {
        let gigabytes = (self.bytes / 1e9).max(f64::MIN_POSITIVE);
        (self.cpu.0 / gigabytes, self.cpu.1 / gigabytes)
    }
}

/// Run iperf3 for some seconds; `gateways` are the process ids whose time is counted.
pub fn measure(world: &World, gateways: (u32, u32), seconds: u32, results: &Path) -> Result<Measure> {
    let log = results.join("iperf3.log");
    std::fs::remove_file(&log).ok();
    let mut server = world.on("bob", "iperf3");
    let mut server = Daemon::start(server.args(["--server", "--one-off", "--forceflush"]), &log)?;
    let ready = process::until(Duration::from_secs(5), || {
        Ok(std::fs::read_to_string(&log).is_ok_and(|text| text.contains("listening")).then_some(()))
    })?;
    if ready.is_none() {
        bail!("the iperf3 server does not start:\n{}", process::tail(&log, 5));
    }
    let used = || -> Result<(f64, f64)> {
        Ok((process::cpu_seconds(gateways.0)?, process::cpu_seconds(gateways.1)?))
    };
    let before = used().context("a gateway has ended")?;
    let mut client = world.on("alice", "iperf3");
    client.args(["--client", BOB, "--json", "--connect-timeout", "3000", "--time", &seconds.to_string()]);
    let done = process::finish(&mut client, Duration::from_secs(u64::from(seconds) + 20));
    let after = used().context("a gateway has ended under load")?;
    server.stop(Signal::TERM, Duration::from_secs(2))?;
    let done = done?;
    let answer: Value =
        serde_json::from_str(&done.stdout).with_context(|| format!("iperf3: {}", done.text()))?;
    if let Some(error) = answer.get("error") {
        bail!("iperf3: {error}");
    }
    let number = |key: &str| answer.pointer(&format!("/end/sum_received/{key}")).and_then(Value::as_f64);
    let (bits, bytes) = number("bits_per_second").zip(number("bytes")).context("iperf3 reports no sum")?;
    let cpu = (after.0 - before.0, after.1 - before.1);
    Ok(Measure { bits_per_second: bits, bytes, cpu })
}
