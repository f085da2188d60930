//! What each engine costs on this machine: nanoseconds of CPU per packet, sealed and opened, by transform, size and burst.
//!
//!     cargo run --release -p tussock-soft --features ipsec-mb --example engines [part of a transform's name]
//!
//! Both engines are measured in turn, load by load, so that their ratio means something on a machine that does other things
//! besides. `*` marks the engine the backend picks for itself in such a burst. The last column is the latency of a burst alone.

use std::sync::Arc;

use anyhow::{Context, Result};
use soft::{EngineChoice, Soft};
use spi::measure::{Costs, Effort, Load, Meter};
use spi::{Device, Direction, Encr, Integ, SaParams, Secret};

const TRANSFORMS: &[(Encr, Integ)] = &[
    (Encr::AES128_GCM16, Integ::NONE),
    (Encr::AES192_GCM16, Integ::NONE),
    (Encr::AES256_GCM16, Integ::NONE),
    (Encr::CHACHA20_POLY1305, Integ::NONE),
    (Encr::AES128_CBC, Integ::HMAC_SHA1_96),
    (Encr::AES128_CBC, Integ::HMAC_SHA2_256_128),
    (Encr::AES256_CBC, Integ::HMAC_SHA2_256_128),
    (Encr::AES256_CBC, Integ::HMAC_SHA2_384_192),
    (Encr::AES256_CBC, Integ::HMAC_SHA2_512_256),
    (Encr::AES128_CTR, Integ::HMAC_SHA2_256_128),
    (Encr::NULL, Integ::HMAC_SHA2_256_128),
    (Encr::AES128_CCM16, Integ::NONE),
];

const EFFORT: Effort =
    Effort { packets: 64, rounds: 1, latency: true, patience: std::time::Duration::from_secs(1) };
const ROUNDS: usize = 21;

fn main() -> Result<()> {
    let wanted = std::env::args().nth(1).unwrap_or_default();
    let device = |engines| Soft::default().with_engines(engines).device();
    let auto = device(EngineChoice::Auto);
    for report in auto.engines() {
        println!("{:<9} {}", report.engine, report.why);
    }
    let engines = [EngineChoice::AwsLc, EngineChoice::IpsecMb].map(device);
    println!(
        "\n{:<24} {:>5} {:>5} {:>16} {:>16} {:>12} {:>22}",
        "ns/packet, seal/open", "text", "burst", "aws-lc", "ipsec-mb", "ratio", "latency of both, us"
    );
    for (encr, integ) in TRANSFORMS.iter().copied() {
        let name = if integ == Integ::NONE { encr.to_string() } else { format!("{encr}-{integ}") };
        if name.contains(&wanted) {
            transform(&name, (encr, integ), &engines, &*auto).with_context(|| name.clone())?;
        }
    }
    memory(&auto);
    Ok(())
}

fn transform(
    name: &str,
    (encr, integ): (Encr, Integ),
    engines: &[Arc<soft::SoftDevice>; 2],
    auto: &dyn Device,
) -> Result<()> {
    let [mut near, mut far] = [Meter::new(&*engines[0])?, Meter::new(&*engines[1])?];
    for meter in [&mut near, &mut far] {
        meter.install(encr, integ, true)?;
    }
    // The trial, whose picks are then reported.
    Meter::new(auto)?.install(encr, integ, true)?;
    let reports = auto.engines();
    let picked = |load, dir| {
        let mut all = reports.iter().filter(|report| report.transform == Some((encr, integ)));
        let far = all.find(|report| report.engine == "ipsec-mb");
        far.is_some_and(|far| {
            far.costs.iter().any(|cost| cost.load == load && cost.dir == dir && cost.picked)
        })
    };
    for text in [64, 512, 1400] {
        for burst in [1, 2, 4, 8, 16, 32, 64] {
            let load = Load { text, burst };
            let mut all: [Vec<Costs>; 2] = Default::default();
            for _ in 0..ROUNDS {
                for (meter, costs) in [&mut near, &mut far].into_iter().zip(&mut all) {
                    costs.push(meter.measure(load, EFFORT)?);
                }
            }
            let [near, far] = all.map(|costs| Costs::median(&costs));
            let as_picked =
                Load { burst: [32, 16, 8].into_iter().find(|most| *most <= burst).unwrap_or(1), ..load };
            let mark = |dir, mine| if picked(as_picked, dir) == mine { '*' } else { ' ' };
            let pair = |costs: Costs, mine| {
                let (seal, open) = (mark(Direction::Seal, mine), mark(Direction::Open, mine));
                format!("{:.0}{seal}/{:.0}{open}", costs.seal.cpu_ns, costs.open.cpu_ns)
            };
            let ratio = |of: fn(&Costs) -> f64| of(&near) / of(&far);
            println!(
                "{name:<24} {text:>5} {burst:>5} {:>16} {:>16} {:>12} {:>22}",
                pair(near, false),
                pair(far, true),
                format!("{:.2}/{:.2}", ratio(|c| c.seal.cpu_ns), ratio(|c| c.open.cpu_ns)),
                format!("{:.1} {:.1}", near.seal.latency_ns / 1e3, far.seal.latency_ns / 1e3),
            );
        }
    }
    Ok(())
}

/// Octets of memory that a pair of SAs takes, allocator and tables included: what the process grows by as it gets many.
fn memory(auto: &Arc<soft::SoftDevice>) {
    const PAIRS: usize = 20_000;
    println!("\n{:<24} {:>9} {:>9}", "octets for a pair of SAs", "aws-lc", "picked");
    for (encr, integ) in [TRANSFORMS[0], TRANSFORMS[3], TRANSFORMS[5]] {
        let grown = |device: &dyn Device| {
            let before = resident();
            let ids: Vec<_> = (0..PAIRS)
                .flat_map(|_| [Direction::Seal, Direction::Open])
                .filter_map(|dir| device.install_sa(&params(dir, encr, integ)).ok())
                .collect();
            let after = resident();
            // Kept until the end: what is freed would be used again by the next measurement.
            std::mem::forget(ids.clone());
            after.saturating_sub(before + size_of_val(&ids[..])) * 2 / ids.len().max(1)
        };
        let near = Soft::default().with_engines(EngineChoice::AwsLc).device();
        println!("{:<24} {:>9} {:>9}", format!("{encr} {integ}"), grown(&*near), grown(&**auto));
        std::mem::forget(near);
    }
}

fn params(dir: Direction, encr: Encr, integ: Integ) -> SaParams {
    let key = |len| Secret::new(vec![7; len]);
    let info = encr.info().map_or((0, 0), |info| (info.key_len, info.salt_len));
    SaParams {
        spi: 4711,
        dir,
        encr,
        integ,
        encr_key: key(info.0 + info.1),
        integ_key: key(integ.info().map_or(0, |info| info.key_len)),
        esn: true,
    }
}

/// Octets of this process that are in memory.
fn resident() -> usize {
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
    let line = rollup.lines().find_map(|line| line.strip_prefix("Rss:"));
    line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<usize>().ok()).unwrap_or(0) * 1024
}
