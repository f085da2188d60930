//! `tussock-qat-emulator`: cards at vfio-user sockets.
#![forbid(unsafe_code)]

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Parser;
use emu_qat::fault::{Fault, Kind, Plan};
use emu_qat::{Card, Counters, Options, Personality, SERVICES};
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;
use vfio_user::Server;

/// An emulated virtual function of Intel QuickAssist, at a vfio-user socket.
///
/// QEMU: -device '{"driver":"vfio-user-pci","socket":{"type":"unix","path":"PATH"}}', with guest memory that is shared
/// (memory-backend-memfd,share=on). It serves until SIGINT or SIGTERM, removes its sockets, and prints what it has done;
/// SIGUSR1 prints that at any time.
#[derive(Parser)]
#[command(name = "tussock-qat-emulator", version)]
struct Arguments {
    /// Where to listen. Several times for several cards.
    #[arg(long = "socket", value_name = "PATH", required = true)]
    sockets: Vec<PathBuf>,

    /// Which card: 4941, 4943, 4945, 4947 (generation 4) or 37c9 (generation 2). Once for all sockets, or once for each.
    #[arg(long = "device", value_name = "ID", default_value = "4941")]
    devices: Vec<Personality>,

    /// What goes wrong, and when: a file in TOML, see docs/hardware/qat-emulator.md.
    #[arg(long, value_name = "FILE")]
    faults: Option<PathBuf>,

    /// Seed of everything that is left to chance, instead of the plan's.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,

    /// Flip one bit in every result: a driver or test that does not notice proves nothing.
    #[arg(long)]
    flip_bit: bool,

    /// Ring-to-service map that the mailbox tells, such as 0x06db for four symmetric pairs.
    #[arg(long, value_name = "HEX", value_parser = hex16)]
    ring_map: Option<u16>,

    /// Capability mask that the mailbox tells.
    #[arg(long, value_name = "HEX", value_parser = hex32)]
    capabilities: Option<u32>,

    /// Write what was done to a file, too, as JSON: an object for each card.
    #[arg(long, value_name = "FILE")]
    stats: Option<PathBuf>,

    /// Print what was done as JSON.
    #[arg(long)]
    json: bool,

    /// What to tell about clients and registers: off, error, warn, info, debug or trace.
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log: tracing_subscriber::filter::LevelFilter,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tussock-qat-emulator: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    tracing_subscriber::fmt().with_max_level(arguments.log).with_writer(std::io::stderr).init();
    let options = options(arguments)?;
    let personalities = match arguments.devices.as_slice() {
        [one] => vec![*one; arguments.sockets.len()],
        several if several.len() == arguments.sockets.len() => several.to_vec(),
        several => bail!("{} sockets and {} devices", arguments.sockets.len(), several.len()),
    };

    // Before the sockets are there, so that a signal that comes at once finds somebody who removes them.
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGUSR1]).context("cannot handle signals")?;
    let mut server = Server::new().context("cannot serve")?;
    let mut cards = Vec::new();
    for (socket, personality) in arguments.sockets.iter().zip(personalities) {
        let card = Card::running(personality, &options).context("cannot make a card")?;
        server.listen(socket, Arc::new(card.clone()))?;
        cards.push(card);
    }
    let stopper = server.stopper();
    let handle = signals.handle();
    let watched = cards.clone();
    let (json, stats) = (arguments.json, arguments.stats.clone());
    let watcher = std::thread::spawn(move || {
        for signal in signals.forever() {
            if signal != SIGUSR1 {
                stopper.stop();
                return;
            }
            if let Err(error) = report(&watched, json, stats.as_ref()) {
                eprintln!("tussock-qat-emulator: {error:#}");
            }
        }
    });
    let served = server.run().context("cannot wait for clients");
    handle.close();
    drop(server);
    let _ = watcher.join();
    report(&cards, arguments.json, arguments.stats.as_ref())?;
    served
}

fn options(arguments: &Arguments) -> Result<Options> {
    let mut plan = match &arguments.faults {
        Some(file) => {
            let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
            Plan::parse(&file.display().to_string(), &text, &SERVICES)?
        }
        None => Plan::default(),
    };
    plan.seed = arguments.seed.unwrap_or(plan.seed);
    if arguments.flip_bit {
        plan.faults.push(Fault::new(Kind::FlipBit).always());
    }
    Ok(Options {
        plan,
        ring_map: arguments.ring_map,
        capabilities: arguments.capabilities,
        ..Options::default()
    })
}

/// Prints what the cards have done, and writes it to a file.
fn report(cards: &[Card], json: bool, stats: Option<&PathBuf>) -> Result<()> {
    let all: Vec<(Personality, Duration, Counters)> =
        cards.iter().map(|card| (card.personality(), card.age(), card.counters())).collect();
    let objects: Vec<_> = all
        .iter()
        .map(|(personality, age, counters)| {
            serde_json::json!({ "device": personality.to_string(), "seconds": age.as_secs_f64(), "counters": counters })
        })
        .collect();
    let text = serde_json::to_string_pretty(&objects)?;
    if let Some(file) = stats {
        fs::write(file, format!("{text}\n")).with_context(|| format!("cannot write {}", file.display()))?;
    }
    let mut out = std::io::stdout().lock();
    if json {
        writeln!(out, "{text}")?;
    } else {
        for (personality, age, counters) in &all {
            writeln!(out, "8086:{personality}, {:.1} s", age.as_secs_f64())?;
            write!(out, "{counters}")?;
        }
    }
    Ok(())
}

fn hex16(text: &str) -> Result<u16, String> {
    u16::try_from(hex32(text)?).map_err(|_| format!("{text} has more than 16 bits"))
}

fn hex32(text: &str) -> Result<u32, String> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    u32::from_str_radix(digits, 16).map_err(|_| format!("{text} is no hexadecimal number of 32 bits"))
}
