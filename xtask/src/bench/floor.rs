//! What this machine allows per packet, whoever writes the gateway: two namespaces joined by a veth pair, and one thread that
//! does what a packet's way through two gateways cannot do without.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::table::{Cell, Table};
use super::{Report, Setup};
use crate::netns::Netns;
use crate::process;

/// TCP payload of a packet of 1400 octets, with time stamps: what a gigabyte is counted in.
pub const PAYLOAD: f64 = 1348.0;

/// Measure.
pub fn run(setup: &Setup) -> Result<Report> {
    let floor = Floor::measure(&setup.world.net, &setup.bench, setup.quick)?;
    let notes = vec!["CPU time of one thread; the kernel's work in its system calls included".to_owned()];
    Ok(Report { tables: floor.tables(), notes })
}

/// What was measured, nanoseconds per packet.
#[derive(Default)]
pub struct Floor {
    all: Value,
}

impl Floor {
    /// Measure; `quick` for a look.
    pub fn measure(net: &Netns, bench: &Path, quick: bool) -> Result<Floor> {
        lay_out(net)?;
        // On a host of the map from the beginning, so that it ends with the map whenever that may be.
        let mut command = net.command(LEFT, bench);
        command.arg("floor").args(["--left", &net.name(LEFT), "--right", &net.name(RIGHT)]);
        if quick {
            command.args(["--trials", "3", "--trial", "5"]);
        }
        let done = process::finish(&mut command, Duration::from_secs(120))?;
        if !done.status.success() {
            bail!("the floor cannot be measured: {}", done.stderr.trim());
        }
        net.clear()?;
        Ok(Floor { all: serde_json::from_str(&done.stdout).context("an odd answer of tussock-bench")? })
    }

    /// CPU nanoseconds of a long packet on its way out and in, at a batch length, with the software device's cipher of a suite.
    /// Between the measured lengths, what is paid per batch is shared out: straight over one by the length.
    pub fn ways(&self, suite: &str, batch: f64) -> Option<[f64; 2]> {
        let [seal, open] = self.cipher(suite)?;
        let points: Vec<(f64, [f64; 2])> = self
            .rows("path")
            .filter_map(|row| {
                let [way_out, way_in] =
                    [out(row)? - number(row, "seal")?, back_in(row)? - number(row, "open")?];
                Some((1.0 / number(row, "batch")?, [way_out + seal, way_in + open]))
            })
            .collect();
        let at = 1.0 / batch.max(1.0);
        let above = points.iter().filter(|(x, _)| *x >= at).min_by(|a, b| a.0.total_cmp(&b.0))?;
        let below = points.iter().filter(|(x, _)| *x <= at).max_by(|a, b| a.0.total_cmp(&b.0));
        Some(match below {
            Some(below) if below.0 < above.0 => [0, 1].map(|way| {
                below.1[way] + (above.1[way] - below.1[way]) * (at - below.0) / (above.0 - below.0)
            }),
            _ => above.1,
        })
    }

    /// Sealing and opening of a long packet.
    fn cipher(&self, suite: &str) -> Option<[f64; 2]> {
        let text =
            |row: &Value, key: &str| row.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let fits = |row: &&Value| {
            text(row, "suite") == suite
                && text(row, "engine").contains("SPI")
                && number(row, "octets") > Some(1000.0)
        };
        let row = self.rows("crypto").find(fits)?;
        Some([number(row, "seal")?, number(row, "open")?])
    }

    fn rows(&self, table: &str) -> impl Iterator<Item = &Value> {
        self.all.get(table).and_then(Value::as_array).into_iter().flatten()
    }

    /// All of it.
    pub fn tables(&self) -> Vec<Table> {
        let mut path = Table::new(
            "floor-path",
            "A packet of 1400 octets through two gateways, AES-128-GCM, ns per packet by phase and batch length",
            &[
                "batch",
                "read",
                "split",
                "seal",
                "send",
                "OUT",
                "receive",
                "open",
                "coalesce",
                "write",
                "IN",
                "sum",
                "s/GB both ends",
            ],
        );
        for row in self.rows("path") {
            let phase = |name: &str| Cell::number(number(row, name), 0);
            let (way_out, way_in) = (out(row), back_in(row));
            let sum = way_out.zip(way_in).map(|(out, back)| out + back);
            path.row([
                phase("batch"),
                phase("read"),
                phase("split"),
                phase("seal"),
                phase("send"),
                Cell::number(way_out, 0),
                phase("receive"),
                phase("open"),
                phase("coalesce"),
                phase("write"),
                Cell::number(way_in, 0),
                Cell::number(sum, 0),
                Cell::number(sum.map(|sum| sum / PAYLOAD), 3),
            ]);
        }
        let mut udp = Table::new(
            "floor-udp",
            "UDP over a veth pair, ns per datagram; batch 1: send and recv, else UDP_SEGMENT and UDP_GRO",
            &["octets", "batch", "send", "receive", "sum"],
        );
        for row in self.rows("udp") {
            let sum = number(row, "send").zip(number(row, "receive")).map(|(send, receive)| send + receive);
            let figure = |name: &str| Cell::number(number(row, name), 0);
            udp.row([
                figure("octets"),
                figure("batch"),
                figure("send"),
                figure("receive"),
                Cell::number(sum, 0),
            ]);
        }
        let mut tun = Table::new(
            "floor-tun",
            "TUN devices, packets of 1400 octets, ns per packet; written ones end at a blackhole route",
            &["packets", "batch", "read", "write"],
        );
        for row in self.rows("tun") {
            let figure = |name: &str| Cell::number(number(row, name), 0);
            tun.row([word(row, "packets"), figure("batch"), figure("read"), figure("write")]);
        }
        let mut crypto = Table::new(
            "floor-crypto",
            "Ciphers, ns per packet, bursts of 44",
            &["engine", "suite", "octets", "seal", "open"],
        );
        for row in self.rows("crypto") {
            let figure = |name: &str| Cell::number(number(row, name), 0);
            crypto.row([
                word(row, "engine"),
                word(row, "suite"),
                figure("octets"),
                figure("seal"),
                figure("open"),
            ]);
        }
        let mut wake = Table::new(
            "floor-wake",
            "Waking a thread that sleeps in epoll, ns of both threads",
            &["cores", "wake"],
        );
        for row in self.rows("wake") {
            wake.row([word(row, "cores"), Cell::number(number(row, "wake"), 0)]);
        }
        vec![path, udp, tun, crypto, wake]
    }
}

const LEFT: &str = "left";
const RIGHT: &str = "right";

/// What `tussock-bench floor` wants to find.
fn lay_out(net: &Netns) -> Result<()> {
    net.clear()?;
    net.add(LEFT)?;
    net.add(RIGHT)?;
    net.link((LEFT, "eth0"), (RIGHT, "eth0"))?;
    let forward = ["net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"];
    process::run(net.command(LEFT, "sysctl").arg("-qw").args(forward))?;
    net.ip(
        LEFT,
        "addr add 10.0.0.1/24 dev eth0
tuntap add name tun0 mode tun
tuntap add name tun1 mode tun
link set tun0 up mtu 1400
link set tun1 up mtu 1400
addr add 10.8.0.1/24 dev tun0
addr add 10.7.0.1/24 dev tun1
addr add fd07::1/64 dev tun1 nodad
route add 10.9.0.0/16 dev tun0
route add fd09::/64 dev tun0
route add blackhole 10.66.0.0/16
route add blackhole fd66::/64
",
    )?;
    net.ip(
        RIGHT,
        "addr add 10.0.0.2/24 dev eth0
tuntap add name tun0 mode tun
link set tun0 up mtu 1400
addr add 10.9.0.2/16 dev tun0
",
    )
}

fn number(row: &Value, key: &str) -> Option<f64> {
    row.get(key)?.as_f64()
}

fn word(row: &Value, key: &str) -> Cell {
    row.get(key).and_then(Value::as_str).unwrap_or_default().into()
}

fn sum_of(row: &Value, phases: [&str; 4]) -> Option<f64> {
    phases.iter().map(|phase| number(row, phase)).sum()
}

fn out(row: &Value) -> Option<f64> {
    sum_of(row, ["read", "split", "seal", "send"])
}

fn back_in(row: &Value) -> Option<f64> {
    sum_of(row, ["receive", "open", "coalesce", "write"])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn row(batch: u32, each: f64) -> Value {
        json!({ "batch": batch, "read": each, "split": each, "seal": each, "send": each,
                "receive": each, "open": each, "coalesce": each, "write": each })
    }

    #[test]
    fn between_two_batch_lengths_the_cost_per_batch_is_shared_out_and_the_cipher_is_the_suites() {
        let suite = |suite: &str, each: f64| json!({ "engine": "soft, through the SPI", "suite": suite, "octets": 1392, "seal": each, "open": each });
        let crypto = [suite("free", 0.0), suite("dear", 500.0)];
        // Three phases besides the cipher's each way.
        let path = [row(1, 400.0), row(2, 200.0)];
        let floor = Floor { all: json!({ "path": path, "crypto": crypto }) };
        let near = |suite: &str, batch: f64, expected: f64| {
            floor.ways(suite, batch).unwrap().iter().all(|way| (way - expected).abs() < 1e-9)
        };
        assert!(near("free", 1.0, 1200.0) && near("free", 2.0, 600.0) && near("free", 50.0, 600.0));
        assert!(near("free", 4.0 / 3.0, 900.0), "half-way between one by one and one by two");
        assert!(near("dear", 2.0, 1100.0));
        assert_eq!(floor.ways("unknown", 2.0), None);
    }
}
