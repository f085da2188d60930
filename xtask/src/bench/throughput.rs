//! Throughput: CPU seconds per gigabyte and microseconds per datagram of two gateways, ours and others in turns.

use std::rc::Rc;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum as _};

use super::contest::{Cipher, Contestant, Read, Versus};
use super::floor::Floor;
use super::table::{Cell, Table, median};
use super::{Report, Setup, openvpn, wireguard};
use crate::packages;
use crate::strongswan::Release;
use crate::traffic::{self, Carried, Load, RATE, Way};
use crate::trixie;

/// What to compare.
#[derive(Args, Clone, Default)]
pub struct Options {
    /// Others to measure in turns with us, in the same namespaces.
    #[arg(long, value_delimiter = ',')]
    versus: Vec<Versus>,
    /// Ciphers; without it all, with --quick the first.
    #[arg(long, value_delimiter = ',')]
    cipher: Vec<Cipher>,
}

const CIPHERS: [Cipher; 4] = [Cipher::Aes128gcm, Cipher::Aes256gcm, Cipher::Chacha20, Cipher::Aes128cbc];

/// Longest datagram whose packet has 1400 octets.
const LONG: u32 = 1372;

impl Options {
    /// Against everybody, with all ciphers.
    pub fn all() -> Options {
        Options { versus: Versus::value_variants().to_vec(), cipher: Vec::new() }
    }

    fn ciphers(&self, quick: bool) -> Vec<Cipher> {
        match (self.cipher.is_empty(), quick) {
            (false, _) => self.cipher.clone(),
            (true, true) => vec![Cipher::Aes128gcm],
            (true, false) => CIPHERS.to_vec(),
        }
    }
}

/// One contestant in one round.
struct Turn {
    who: Contestant,
    carried: Vec<(Load, Carried)>,
    /// The floor in this round.
    floor: Rc<Floor>,
    /// What both ends read from inside while one TCP connection was as fast as it goes.
    read: Option<[Read; 2]>,
}

impl Turn {
    /// The floor's part of what one TCP connection cost, percent: its packets at the length of its superpackets, and the
    /// acknowledgements at theirs.
    fn share(&self) -> Option<f64> {
        let both = |read: Read| {
            let ways = self.floor.ways(self.who.cipher.esp(), read.batch())?;
            Some(read.packets as f64 * ways.iter().sum::<f64>() / 1e9)
        };
        let [data, acknowledgements] = self.read?;
        let carried = self.carried.iter().find(|(load, _)| *load == Load::Tcp(1))?.1;
        Some(100.0 * (both(data)? + both(acknowledgements)?) / carried.cpu.iter().sum::<f64>())
    }
}

/// Measure.
pub fn run(setup: &Setup, options: &Options) -> Result<Report> {
    let mut report = Report::default();
    let mut contestants = contestants(&options.ciphers(setup.quick), &options.versus, setup.has_ipsec_mb);
    for versus in &options.versus {
        match need(*versus) {
            Ok(version) => report.notes.push(version),
            Err(error) => {
                report.notes.push(format!("not measured: {error:#}"));
                contestants.retain(|who| who.product != Some(*versus));
            }
        }
    }
    let mut rounds: Vec<Vec<Turn>> = Vec::new();
    for round in 1..=setup.runs {
        // In each round anew: how fast the machine is changes from minute to minute.
        let floor = Rc::new(Floor::measure(&setup.world.net, &setup.bench, setup.quick)?);
        let mut turns = Vec::new();
        for who in &contestants {
            eprintln!("round {round} of {}: {} {}", setup.runs, who.name(), who.cipher.name());
            match turn(setup, *who, &floor) {
                Ok((turn, failed)) => {
                    let notes = failed.iter().map(|error| format!("round {round}: {error:#}"));
                    report.notes.extend(notes);
                    turns.push(turn);
                }
                Err(error) if who.product.is_some() => {
                    report.notes.push(format!("round {round} without {}: {error:#}", who.name()));
                }
                Err(error) => return Err(error),
            }
        }
        rounds.push(turns);
    }
    report.notes.push(format!(
        "{} rounds of {} s; UDP at {RATE} datagrams a second; CPU time of both gateways' threads",
        setup.runs, setup.seconds
    ));
    report.tables = vec![medians(&contestants, &rounds), ratios(&contestants, &rounds), every(&rounds)];
    Ok(report)
}

/// Ours with every cipher, with each of its engines where there are two, and next to it the others that have it. Who has none of
/// them comes with what he has.
fn contestants(ciphers: &[Cipher], versus: &[Versus], engines: bool) -> Vec<Contestant> {
    let mut all = Vec::new();
    for cipher in ciphers {
        let ours = Contestant::new(None, *cipher);
        all.push(ours);
        if engines {
            all.push(Contestant { aws_lc: true, ..ours });
        }
        let others = versus.iter().map(|product| Contestant::new(Some(*product), *cipher));
        all.extend(others.filter(|who| who.exists()));
    }
    for product in versus {
        if !all.iter().any(|who| who.product == Some(*product)) {
            all.push(Contestant::new(Some(*product), Cipher::Chacha20));
        }
    }
    all
}

/// Make sure that a product is there; what it is.
pub fn need(versus: Versus) -> Result<String> {
    packages::need(&[packages::INTEROP, packages::PEERS])?;
    match versus {
        Versus::Strongswan => {
            trixie::need()?;
            Ok(format!("strongSwan {} (kernel-libipsec)", Release::Trixie.version()))
        }
        Versus::WireguardGo => wireguard::need_wireguard_go(),
        Versus::Boringtun => wireguard::need_boringtun(),
        Versus::Openvpn => openvpn::version(),
    }
}

/// What somebody carried, and what others could not carry.
fn turn(setup: &Setup, who: Contestant, floor: &Rc<Floor>) -> Result<(Turn, Vec<anyhow::Error>)> {
    let mut carrier = who.start(setup)?;
    let loads: &[Load] = match setup.quick {
        true => &[Load::Tcp(1), Load::Udp(64)],
        false => &[Load::Tcp(1), Load::Tcp(4), Load::Udp(64), Load::Udp(512), Load::Udp(LONG)],
    };
    let (mut carried, mut read, mut failed) = (Vec::new(), None, Vec::new());
    for load in loads {
        let before = carrier.read();
        let one = traffic::measure(
            &setup.world,
            Way::BETWEEN,
            carrier.pids()?,
            *load,
            setup.seconds,
            &setup.results,
        );
        match one.with_context(|| format!("{} with {} under {load:?}", who.name(), who.cipher.name())) {
            Ok(one) => carried.push((*load, one)),
            Err(error) if who.product.is_some() => failed.push(error),
            Err(error) => return Err(error),
        }
        if *load == Load::Tcp(1) {
            read =
                before.zip(carrier.read()).map(|(before, now)| [0, 1].map(|end| now[end].since(before[end])));
        }
    }
    carrier.stop()?;
    Ok((Turn { who, carried, floor: Rc::clone(floor), read }, failed))
}

/// Each figure's median over the rounds.
fn medians(contestants: &[Contestant], rounds: &[Vec<Turn>]) -> Table {
    let mut table = Table::new(
        "throughput",
        "CPU seconds per GB of TCP payload (sender + receiver), CPU microseconds per datagram (both ends)",
        &[
            "who",
            "cipher",
            "TCP×1 s/GB",
            "sender",
            "receiver",
            "Gbit/s",
            "TCP×4 s/GB",
            "Gbit/s ×4",
            "UDP 64 µs",
            "lost %",
            "UDP 512 µs",
            "UDP 1400 µs",
            "packets/batch",
            "floor share %",
        ],
    );
    for who in contestants {
        let turns = || rounds.iter().flatten().filter(|turn| turn.who == *who);
        let of = |load: Load, figure: fn(&Carried) -> f64| {
            median(turns().filter_map(|turn| turn.figure(load, figure)))
        };
        let tcp = of(Load::Tcp(1), both);
        let batch = median(turns().filter_map(|turn| turn.read.map(|[moon, _]| moon.batch())));
        let share = median(turns().filter_map(|turn| turn.share()));
        table.row([
            who.name().into(),
            who.cipher.name().into(),
            Cell::number(tcp, 2),
            Cell::number(of(Load::Tcp(1), |carried| carried.per_gb()[0]), 2),
            Cell::number(of(Load::Tcp(1), |carried| carried.per_gb()[1]), 2),
            Cell::number(of(Load::Tcp(1), Carried::gbit), 2),
            Cell::number(of(Load::Tcp(4), both), 2),
            Cell::number(of(Load::Tcp(4), Carried::gbit), 2),
            Cell::number(of(Load::Udp(64), Carried::per_datagram), 1),
            Cell::number(of(Load::Udp(64), |carried| 100.0 * carried.lost), 1),
            Cell::number(of(Load::Udp(512), Carried::per_datagram), 1),
            Cell::number(of(Load::Udp(LONG), Carried::per_datagram), 1),
            Cell::number(batch, 1),
            Cell::number(share, 0),
        ]);
    }
    table
}

/// What is compared: a name, the load, the figure.
type Figure = (&'static str, Load, fn(&Carried) -> f64);

const FIGURES: [Figure; 3] = [
    ("TCP×1 s/GB", Load::Tcp(1), both),
    ("TCP×4 s/GB", Load::Tcp(4), both),
    ("UDP 64 µs", Load::Udp(64), Carried::per_datagram),
];

/// Others' cost in multiples of ours, round by round: with the same cipher where we were measured with it; and with our first,
/// where theirs has no such cipher.
fn ratios(contestants: &[Contestant], rounds: &[Vec<Turn>]) -> Table {
    let mut table = Table::new(
        "ratios",
        "Their CPU time in multiples of ours, in the same round",
        &["who", "cipher", "ours", "figure", "rounds", "median"],
    );
    let ours: Vec<Contestant> =
        contestants.iter().copied().filter(|who| who.product.is_none() && !who.aws_lc).collect();
    for them in contestants.iter().filter(|who| who.product.is_some()) {
        let same = ours.iter().find(|us| us.cipher == them.cipher);
        let has = |us: &&Contestant| Contestant { cipher: us.cipher, ..*them }.exists();
        let first = ours.first().filter(|us| !has(us));
        for us in first.into_iter().chain(same) {
            for (name, load, figure) in FIGURES {
                let ratio = |turns: &Vec<Turn>| {
                    let of =
                        |who: &Contestant| turns.iter().find(|turn| turn.who == *who)?.figure(load, figure);
                    Some(of(them)? / of(us)?)
                };
                let all: Vec<f64> = rounds.iter().filter_map(ratio).collect();
                if all.is_empty() {
                    continue;
                }
                let shown: Vec<String> = all.iter().map(|ratio| format!("{ratio:.1}")).collect();
                table.row([
                    them.name().into(),
                    them.cipher.name().into(),
                    us.cipher.name().into(),
                    name.into(),
                    shown.join(" ").into(),
                    Cell::number(median(all), 1),
                ]);
            }
        }
    }
    table
}

/// Every single measurement.
fn every(rounds: &[Vec<Turn>]) -> Table {
    let mut table = Table::new(
        "throughput-rounds",
        "Every measurement",
        &[
            "round",
            "who",
            "cipher",
            "load",
            "Gbit/s",
            "lost %",
            "sender CPU s",
            "receiver CPU s",
            "s/GB",
            "µs/datagram",
        ],
    );
    for (round, turns) in rounds.iter().enumerate() {
        for turn in turns {
            for (load, carried) in &turn.carried {
                let is_udp = matches!(load, Load::Udp(_));
                table.row([
                    Cell::number((round + 1) as f64, 0),
                    turn.who.name().into(),
                    turn.who.cipher.name().into(),
                    format!("{load:?}").into(),
                    Cell::number(carried.gbit(), 3),
                    Cell::number(is_udp.then_some(100.0 * carried.lost), 2),
                    Cell::number(carried.cpu[0], 3),
                    Cell::number(carried.cpu[1], 3),
                    Cell::number(both(carried), 2),
                    Cell::number(is_udp.then(|| carried.per_datagram()), 2),
                ]);
            }
        }
    }
    table
}

impl Turn {
    fn figure(&self, load: Load, figure: fn(&Carried) -> f64) -> Option<f64> {
        self.carried.iter().find(|(of, _)| *of == load).map(|(_, carried)| figure(carried))
    }
}

fn both(carried: &Carried) -> f64 {
    carried.per_gb().iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_is_next_to_us_with_a_cipher_he_has() {
        let all = contestants(&[Cipher::Aes128gcm], &[Versus::Strongswan, Versus::Boringtun], false);
        let names: Vec<_> = all.iter().map(|who| (who.name(), who.cipher)).collect();
        let gcm = Cipher::Aes128gcm;
        assert_eq!(names, [("tussock", gcm), ("strongSwan", gcm), ("boringtun", Cipher::Chacha20)]);
    }

    #[test]
    fn ratios_are_of_the_same_round() {
        let carried =
            |cost: f64| Carried { octets: 1e9, datagrams: 0.0, lost: 0.0, seconds: 1.0, cpu: [cost, 0.0] };
        let us = Contestant::new(None, Cipher::Aes128gcm);
        let them = Contestant { product: Some(Versus::Openvpn), ..us };
        let floor = Rc::new(Floor::default());
        let turn = |who, cost| {
            let carried = vec![(Load::Tcp(1), carried(cost))];
            Turn { who, carried, floor: Rc::clone(&floor), read: None }
        };
        let rounds = [vec![turn(us, 1.0), turn(them, 5.0)], vec![turn(us, 2.0), turn(them, 6.0)]];
        let table = ratios(&[us, them], &rounds).json();
        assert_eq!(table["rows"][0]["rounds"], "5.0 3.0");
        assert_eq!(table["rows"][0]["median"], 4.0);
    }
}
