//! What setting up an IKE SA costs, measured in memory: processor time and allocations of each stage at each end, and what is
//! held afterwards, by part. No sockets and no kernel: for those measure a running gateway.
//!
//!     cargo run --release --example rate -- --sas 2000 --certificates --child
//!
//! or what a flood of strangers costs:
//!
//!     cargo run --release --example rate -- --flood 100000
//!
//! The two ends take turns, a window of SAs at a time, so the processor time of the process during a turn is the time of that
//! end: its engine, its key side and the helpers of its devices.

mod flood;
mod mem;
mod setting;
mod side;

use std::time::Duration;

use clap::Parser;
use ike::Command;
use rustix::time::{ClockId, clock_gettime};

use mem::Part;
use setting::Setting;
use side::Side;

#[global_allocator]
static ALLOCATOR: mem::Counting = mem::Counting;

/// What to measure.
#[derive(Parser)]
struct Options {
    /// How many IKE SAs.
    #[arg(long, default_value_t = 2000)]
    sas: usize,
    /// How many at a time.
    #[arg(long, default_value_t = 32)]
    window: usize,
    /// ECDSA P-256 certificates instead of a PSK.
    #[arg(long)]
    certificates: bool,
    /// A Child SA each.
    #[arg(long)]
    child: bool,
    /// IKE proposal.
    #[arg(long, default_value = "aes128gcm16-prfsha256-x25519")]
    ike: String,
    /// ESP proposal.
    #[arg(long, default_value = "aes128gcm16")]
    esp: String,
    /// Instead, so many IKE_SA_INIT requests from addresses that are nobody's.
    #[arg(long)]
    flood: Option<usize>,
    /// Count allocations; times are then a little longer.
    #[arg(long)]
    count: bool,
}

/// Its number as an end.
const RESPONDER: usize = 1;

const STAGES: [(usize, &str); 5] = [
    (0, "IKE_SA_INIT request"),
    (1, "IKE_SA_INIT response"),
    (0, "IKE_AUTH request"),
    (1, "IKE_AUTH response"),
    (0, "established"),
];

#[derive(Clone, Copy, Default)]
struct Cost {
    time: Duration,
    calls: u64,
    octets: u64,
}

fn processor() -> Duration {
    let at = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(at.tv_sec as u64, at.tv_nsec as u32)
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let setting = Setting {
        sas: options.sas,
        certificates: options.certificates,
        child: options.child,
        ike: options.ike.clone(),
        esp: options.esp.clone(),
    };
    mem::on_behalf(Part::Harness, || match options.flood {
        Some(packets) => flood::flood(&setting, packets, options.count),
        None => measure(&options, &setting),
    })
}

fn measure(options: &Options, setting: &Setting) -> anyhow::Result<()> {
    let [initiator, responder] = setting.configs()?;
    let mut sides = [Side::new(initiator.0, initiator.1)?, Side::new(responder.0, responder.1)?];
    let mut costs = [Cost::default(); STAGES.len()];
    mem::count(options.count);
    for first in (0..options.sas).step_by(options.window.max(1)) {
        let last = (first + options.window.max(1)).min(options.sas);
        let mut datagrams = Vec::new();
        for (stage, (role, _)) in STAGES.iter().enumerate() {
            mem::turn(*role);
            let (began, (calls, octets)) = (processor(), mem::calls());
            let side = &mut sides[*role];
            if stage == 0 {
                for n in first..last {
                    side.command(n as u64 + 1, Command::Up { realm: format!("r{n}"), child: None });
                }
            }
            datagrams.iter().for_each(|datagram| side.datagram(datagram));
            side.settle();
            let (calls_now, octets_now) = mem::calls();
            costs[stage].time += processor() - began;
            costs[stage].calls += calls_now - calls;
            costs[stage].octets += octets_now - octets;
            // What one side sends from, the other sends to.
            datagrams = std::mem::take(&mut side.sent);
            for (path, _) in &mut datagrams {
                std::mem::swap(&mut path.local, &mut path.remote);
            }
        }
    }
    mem::count(false);
    for (side, name) in sides.iter().zip(["initiator", "responder"]) {
        for wrong in side.wrong.iter().take(3) {
            println!("{name}: {wrong}");
        }
        let children = if options.child { options.sas } else { 0 };
        anyhow::ensure!(
            side.up == options.sas && side.children == children,
            "{name}: {} IKE SAs and {} Child SAs came up",
            side.up,
            side.children
        );
    }
    report(options, &costs);
    if options.count {
        report_held(options, sides.each_ref().map(|side| side.outside));
    }
    Ok(())
}

fn report(options: &Options, costs: &[Cost]) {
    let per = |n: u64| n as f64 / options.sas as f64;
    println!("{:<10} {:<22} {:>10} {:>12} {:>12}", "", "stage", "us/SA", "allocations", "octets");
    let mut sums = [Cost::default(); 2];
    for ((role, name), cost) in STAGES.iter().zip(costs) {
        let who = ["initiator", "responder"][*role];
        let time = cost.time.as_secs_f64() * 1e6 / options.sas as f64;
        println!("{who:<10} {name:<22} {time:>10.1} {:>12.1} {:>12.0}", per(cost.calls), per(cost.octets));
        sums[*role].time += cost.time;
        sums[*role].calls += cost.calls;
        sums[*role].octets += cost.octets;
    }
    for (cost, who) in sums.iter().zip(["initiator", "responder"]) {
        let time = cost.time.as_secs_f64() * 1e6 / options.sas as f64;
        println!("{who:<10} {:<22} {time:>10.1} {:>12.1} {:>12.0}", "all", per(cost.calls), per(cost.octets));
    }
}

fn report_held(options: &Options, outside: [i64; 2]) {
    println!("\nheld per SA, as malloc rounds it:\n{:<12} {:>20} {:>20}", "", "initiator", "responder");
    let mut sums = [(0.0, 0.0); 2];
    for (part, name) in mem::PARTS {
        print!("{name:<12}");
        for (role, sum) in sums.iter_mut().enumerate() {
            let (octets, blocks) = mem::held(role, part);
            let (octets, blocks) = (octets as f64 / options.sas as f64, blocks as f64 / options.sas as f64);
            print!(" {octets:>11.0} in {blocks:>5.1}");
            *sum = (sum.0 + octets, sum.1 + blocks);
        }
        println!();
    }
    let outside = outside.map(|octets| octets as f64 / options.sas as f64);
    println!("{:<12} {:>11.0} {:>8} {:>11.0}", "device, in C", outside[0], "", outside[1]);
    for (sum, outside) in sums.iter_mut().zip(outside) {
        sum.0 += outside;
    }
    println!(
        "{:<12} {:>11.0} in {:>5.1} {:>11.0} in {:>5.1}",
        "all", sums[0].0, sums[0].1, sums[1].0, sums[1].1
    );
}
