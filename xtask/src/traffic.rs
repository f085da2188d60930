//! Traffic through a tunnel, and what it cost the two gateways.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use serde_json::Value;

use crate::meter;
use crate::process::{self, Daemon};
use crate::world::{ALICE, BOB, MOON_INSIDE, SUN_INSIDE, World};

/// What is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Load {
    /// As much as so many TCP connections carry.
    Tcp(u32),
    /// Datagrams with so many octets of payload, [`RATE`] a second.
    Udp(u32),
}

/// Datagrams a second: few enough that everybody can carry them.
pub const RATE: u32 = 20_000;

/// Between whom.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    hosts: [&'static str; 2],
    addresses: [&'static str; 2],
}

impl Way {
    /// From host to host behind the gateways.
    pub const THROUGH: Way = Way { hosts: ["alice", "bob"], addresses: [ALICE, BOB] };
    /// From gateway to gateway: no other wire and no forwarding in what it costs.
    pub const BETWEEN: Way = Way { hosts: ["moon", "sun"], addresses: [MOON_INSIDE, SUN_INSIDE] };
}

/// What was measured.
#[derive(Clone, Copy, Debug)]
pub struct Carried {
    /// Payload received, octets.
    pub octets: f64,
    /// Datagrams received; 0 for TCP.
    pub datagrams: f64,
    /// The share of datagrams that got lost.
    pub lost: f64,
    /// For how long, seconds.
    pub seconds: f64,
    /// CPU seconds of the sending and of the receiving gateway.
    pub cpu: [f64; 2],
}

impl Carried {
    /// CPU seconds per 10^9 octets of payload, sender's and receiver's.
    pub fn per_gb(&self) -> [f64; 2] {
        self.cpu.map(|seconds| seconds / (self.octets / 1e9).max(f64::MIN_POSITIVE))
    }

    /// CPU microseconds per datagram received, both ends together.
    pub fn per_datagram(&self) -> f64 {
        (self.cpu[0] + self.cpu[1]) * 1e6 / self.datagrams.max(f64::MIN_POSITIVE)
    }

    /// Gbit/s of payload.
    pub fn gbit(&self) -> f64 {
        self.octets * 8e-9 / self.seconds.max(f64::MIN_POSITIVE)
    }
}

/// Send for some seconds; `gateways` are the processes whose time is counted.
pub fn measure(
    world: &World,
    way: Way,
    gateways: [u32; 2],
    load: Load,
    seconds: u32,
    results: &Path,
) -> Result<Carried> {
    let log = results.join("iperf3.log");
    std::fs::remove_file(&log).ok();
    let mut server = world.on(way.hosts[1], "iperf3");
    // Bound: it answers datagrams from the address they came to, also where the way back begins at a device with its own.
    let bound = ["--server", "--one-off", "--forceflush", "--bind", way.addresses[1]];
    let mut server = Daemon::start(server.args(bound), &log)?;
    let ready = process::until(Duration::from_secs(5), || {
        Ok(std::fs::read_to_string(&log).is_ok_and(|text| text.contains("listening")).then_some(()))
    })?;
    if ready.is_none() {
        bail!("the iperf3 server does not start:\n{}", process::tail(&log, 5));
    }
    let mut client = world.on(way.hosts[0], "iperf3");
    client.args(["--client", way.addresses[1], "--bind", way.addresses[0], "--json"]);
    client.args(["--connect-timeout", "3000", "--time", &seconds.to_string()]);
    match load {
        // Others pace what they send by timers, which is then in what the gateway seems to cost.
        Load::Tcp(connections) => {
            client.args(["--parallel", &connections.to_string(), "--congestion", "cubic"])
        }
        Load::Udp(octets) => {
            let bits = u64::from(octets) * 8 * u64::from(RATE);
            client.args(["--udp", "--length", &octets.to_string(), "--bitrate", &bits.to_string()])
        }
    };
    let before = meter::cpus(gateways).context("a gateway has ended")?;
    let done = process::finish(&mut client, Duration::from_secs(u64::from(seconds) + 20));
    let after = meter::cpus(gateways).context("a gateway has ended under load")?;
    server.stop(Signal::TERM, Duration::from_secs(2))?;
    let done = done?;
    let answer: Value =
        serde_json::from_str(&done.stdout).with_context(|| format!("iperf3: {}", done.text()))?;
    if let Some(error) = answer.get("error") {
        bail!("iperf3: {error}");
    }
    let cpu = [after[0] - before[0], after[1] - before[1]];
    read(&answer, load, cpu).context("iperf3 reports no sum")
}

/// What iperf3's report says.
fn read(answer: &Value, load: Load, cpu: [f64; 2]) -> Option<Carried> {
    match load {
        Load::Tcp(_) => {
            let sum = answer.pointer("/end/sum_received")?;
            let number = |key: &str| sum.get(key).and_then(Value::as_f64);
            let (octets, seconds) = (number("bytes")?, number("seconds")?);
            Some(Carried { octets, datagrams: 0.0, lost: 0.0, seconds, cpu })
        }
        Load::Udp(length) => {
            let sum = answer.pointer("/end/sum")?;
            let number = |key: &str| sum.get(key).and_then(Value::as_f64);
            let (sent, lost, seconds) = (number("packets")?, number("lost_packets")?, number("seconds")?);
            let datagrams = (sent - lost).max(0.0);
            let octets = datagrams * f64::from(length);
            Some(Carried { octets, datagrams, lost: lost / sent.max(1.0), seconds, cpu })
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn figures_are_per_octet_and_per_datagram_that_arrived() {
        let tcp = json!({ "end": { "sum_received": { "bytes": 2e9, "seconds": 4.0 } } });
        let carried = read(&tcp, Load::Tcp(1), [3.0, 5.0]).unwrap();
        assert_eq!((carried.per_gb(), carried.gbit()), ([1.5, 2.5], 4.0));
        let udp = json!({ "end": { "sum": { "packets": 1000, "lost_packets": 200, "seconds": 1.0 } } });
        let carried = read(&udp, Load::Udp(64), [0.004, 0.004]).unwrap();
        assert_eq!((carried.per_datagram(), carried.lost), (10.0, 0.2));
        assert!(read(&json!({}), Load::Udp(64), [0.0; 2]).is_none());
    }
}
