//! What a flood of IKE_SA_INIT from addresses that are nobody's costs: as long as strangers are believed, and when they must
//! return a cookie.

use std::net::{IpAddr, Ipv4Addr};

use ike::Command;

use crate::mem::{self, Part};
use crate::setting::Setting;
use crate::side::{Datagram, Side};
use crate::{Cost, RESPONDER, processor};

/// Floods a responder and prints what it took.
pub(crate) fn flood(setting: &Setting, packets: usize, count: bool) -> anyhow::Result<()> {
    let [initiator, mut responder] = setting.configs()?;
    let limits = ike::Config::default();
    (responder.0.cookie_threshold, responder.0.half_open_limit) =
        (limits.cookie_threshold, limits.half_open_limit);
    let mut sender = Side::new(initiator.0, initiator.1)?;
    sender.command(1, Command::Up { realm: "r0".into(), child: None });
    sender.settle();
    let request = sender.sent.pop().ok_or_else(|| anyhow::anyhow!("no IKE_SA_INIT request"))?;
    let mut victim = Side::new(responder.0, responder.1)?;
    mem::turn(RESPONDER);
    mem::count(count);
    println!("{:<34} {:>8} {:>10} {:>12} {:>12}", "", "packets", "us each", "allocations", "octets");
    let believed = limits.cookie_threshold.min(packets);
    let first = batch(&mut victim, &request, 0..believed);
    print("believed", believed, first);
    let (octets, blocks) = mem::held(RESPONDER, Part::Engine);
    print("asked for a cookie", packets - believed, batch(&mut victim, &request, believed..packets));
    mem::count(false);
    if count {
        let per = |n: i64| n as f64 / believed as f64;
        println!("held for each half-open IKE SA: {:.0} octets in {:.1} blocks", per(octets), per(blocks));
        let more = mem::held(RESPONDER, Part::Engine).0 - octets;
        println!("held after the rest, more: {more} octets");
    }
    Ok(())
}

fn batch(victim: &mut Side, (path, message): &Datagram, which: std::ops::Range<usize>) -> Cost {
    let (began, (calls, octets)) = (processor(), mem::calls());
    let mut message = message.clone();
    for n in which {
        let mut path = ike::Path { local: path.remote, remote: path.local };
        path.remote.set_ip(IpAddr::V4(Ipv4Addr::from(0x0b00_0000 + n as u32)));
        // The initiator's SPI.
        message[..8].copy_from_slice(&(n as u64 + 1).to_be_bytes());
        victim.datagram(&(path, message.clone()));
        // As often as a worker that is kept busy looks after the rest.
        if n % 64 == 63 {
            victim.settle();
            victim.sent.clear();
        }
    }
    victim.settle();
    let (calls_now, octets_now) = mem::calls();
    Cost { time: processor() - began, calls: calls_now - calls, octets: octets_now - octets }
}

fn print(what: &str, packets: usize, cost: Cost) {
    let per = |n: u64| n as f64 / packets.max(1) as f64;
    let time = cost.time.as_secs_f64() * 1e6 / packets.max(1) as f64;
    println!("{what:<34} {packets:>8} {time:>10.2} {:>12.1} {:>12.0}", per(cost.calls), per(cost.octets));
}
