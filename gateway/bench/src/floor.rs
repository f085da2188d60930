//! `tussock-bench floor`: what this machine allows per packet, whoever writes the gateway.

pub mod crypto;
mod packet;
pub mod path;
mod place;
mod tun;
mod udp;
mod wake;

use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};

use crate::clock::Effort;
use place::Place;

/// Where and how long.
#[derive(Args)]
pub struct Options {
    /// The namespace that packets leave from.
    #[arg(long)]
    left: String,
    /// The namespace that they go to.
    #[arg(long)]
    right: String,
    /// Packets per superpacket.
    #[arg(long, value_delimiter = ',', default_value = "1,2,4,8,16,32,44")]
    batches: Vec<usize>,
    /// Trials of which the median is taken.
    #[arg(long, default_value_t = 7)]
    trials: usize,
    /// CPU time of a trial, milliseconds.
    #[arg(long, default_value_t = 25)]
    trial: u64,
}

/// All tables; times are nanoseconds per packet.
pub fn run(options: &Options) -> Result<Value> {
    let place = Place::new(&options.left, &options.right);
    let effort = Effort { trials: options.trials.max(1), trial: options.trial.max(1) * 1_000_000 };
    Ok(json!({
        "crypto": crypto::table(effort)?,
        "udp": udp::table(&place, effort, &options.batches)?,
        "tun": tun::table(&place, effort, path::LONGEST)?,
        "wake": wake::table(effort)?,
        "path": path::table(&place, effort, &options.batches)?,
        "packet": tun::PACKET,
    }))
}
