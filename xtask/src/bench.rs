//! `cargo xtask bench`: for now, the demo's throughput for a few suites. Tables of single stages, of key exchange
//! rates and of other peers come later.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use crate::checkout::{self, Profile};
use crate::demo::Pair;
use crate::interop::course::{Maker, fresh};
use crate::interop::scenario::SITES;
use crate::packages;
use crate::throughput;
use crate::tunnel::Encap;
use crate::world::{Layout, World};

/// What to measure.
#[derive(Args)]
pub struct Options {
    /// Seconds for each line.
    #[arg(long, default_value_t = 5)]
    seconds: u32,
    /// strongSwan's user-space ESP at both ends instead of ours.
    #[arg(long)]
    strongswan: bool,
}

/// ESP suites worth a line: AEAD in hardware, AEAD in software, cipher and MAC apart.
const SUITES: &[&str] = &["aes128gcm16", "aes256gcm16", "chacha20poly1305", "aes128-sha256"];

/// Measure and print a line each.
pub fn run(options: &Options) -> Result<bool> {
    packages::need_root("bench")?;
    packages::need(&[packages::BUILD, packages::LAB, packages::DEMO])?;
    let (maker, binary) = if options.strongswan {
        packages::need(&[packages::INTEROP])?;
        (Maker::StrongSwan, PathBuf::new())
    } else {
        (Maker::Tussock, checkout::build_gateway(Profile::Release)?)
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    println!(
        "One TCP stream through two gateways ({}), all on this machine's {cores} cores: two hosts'",
        maker.name()
    );
    println!("stacks, iperf3 and both gateways share them. Good for comparing lines, not for a data sheet.");
    println!("There are no tables per stage or per driver yet.\n");
    println!("{:<20} {:<5} {:>9} {:>14} {:>14}", "ESP", "", "Gbit/s", "sender s/GB", "receiver s/GB");
    let world = World::claim("demo")?;
    let results = checkout::target().join("bench");
    for esp in SUITES {
        fresh(&results)?;
        world.build(Layout::Sites)?;
        let (mut moon, mut sun) = (SITES.moon(), SITES.far());
        for end in [&mut moon, &mut sun] {
            end.esp = (*esp).to_owned();
            end.encap = Encap::Udp;
        }
        let mut pair = Pair::new(&world, maker, (moon, sun), &binary, &results)?;
        pair.come_up()?;
        let measure = throughput::measure(&world, pair.pids()?, options.seconds, &results)?;
        let (sender, receiver) = measure.cpu_per_gb();
        println!("{esp:<20} {:<5} {:>9.2} {sender:>14.2} {receiver:>14.2}", "udp", measure.gbit());
    }
    Ok(true)
}
