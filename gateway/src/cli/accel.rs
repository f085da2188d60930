//! `tussock accel` for people.

use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;

use super::table::Table;
use super::text::{self, seconds, words};
use super::{Show, print};
use crate::control::client::Client;
use crate::control::protocol::Request;
use crate::events::Record;
use crate::report::{Accel, AccelDevice};

/// Between two lines about an accelerator.
const PACE: Duration = Duration::from_secs(1);

/// Columns of a terminal that lists are fitted to.
const WIDTH: usize = 100;

/// `tussock accel`
pub fn text(accel: &Accel) -> String {
    let all: Vec<String> = accel.devices.iter().map(device).collect();
    all.join("\n")
}

/// `tussock accel --follow`: what happens to accelerators, as it happens, and what each of them does every second. Ends with the
/// gateway.
pub(super) fn follow(show: &Show) -> anyhow::Result<()> {
    let mut events = Client::connect(&show.reach.socket)?;
    events.ask(&Request::Events {})?;
    let mut client = Client::connect(&show.reach.socket)?;
    let mut look = move || -> anyhow::Result<(Accel, Instant)> {
        let answer = client.ask(&Request::Accel {})?;
        Ok((answer.accel.context("no accelerators in the answer")?, Instant::now()))
    };
    let (mut before, mut since) = look()?;
    let json = show.json;
    thread::spawn(move || -> anyhow::Result<()> {
        loop {
            thread::sleep(PACE);
            let (accel, now) = look()?;
            let text = match json {
                true => serde_json::to_string(&accel)? + "\n",
                false => lines(&before, &accel, now.duration_since(since)),
            };
            print(&text)?;
            (before, since) = (accel, now);
        }
    });
    while let Some(line) = events.line()? {
        match serde_json::from_str::<Record>(&line) {
            Ok(record) if !record.notice.is_about_devices() => {}
            Ok(record) if !json => print(&text::event(&record))?,
            _ => print(&line)?,
        }
    }
    Ok(())
}

/// A line for each accelerator: what it is doing.
fn lines(before: &Accel, now: &Accel, passed: Duration) -> String {
    let at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
    let line = |device: &AccelDevice| {
        let old = before.devices.iter().find(|old| old.device.name == device.device.name);
        let packets = device.packets.saturating_sub(old.map_or(device.packets, |old| old.packets));
        let rate = packets as f64 / passed.as_secs_f64().max(f64::MIN_POSITIVE);
        let sum = |of: fn(&crate::report::AccelQueue) -> usize| device.queues.iter().map(of).sum::<usize>();
        let mut text = format!(
            "{} {:<8} {:<9} {:>5} SAs {:>9.0} packets/s {:>9.1} Mbit/s {:>5} in flight {:>5} waiting",
            text::time(at),
            device.device.name,
            device.device.health,
            device.device.sas,
            rate,
            device.load as f64 * 8e-6,
            sum(|queue| queue.in_flight),
            sum(|queue| queue.waiting),
        );
        if let Some(why) = &device.device.why {
            text += &format!("  {why}");
        }
        text + "\n"
    };
    now.devices.iter().map(line).collect()
}

fn device(accel: &AccelDevice) -> String {
    let device = &accel.device;
    let place = accel.place.as_ref().map_or(String::new(), |place| format!(" at {place}"));
    let mut text = format!("{}{place}: {} since {}\n", device.name, device.health, seconds(accel.since));
    if let Some(why) = &device.why {
        text += &format!("  why           {why}\n");
    }
    let node = accel.numa_node.map(|node| format!("NUMA node {node}"));
    let about: Vec<String> = accel.identity.clone().into_iter().chain(node).collect();
    if !about.is_empty() {
        text += &format!("  is            {}\n", about.join(", "));
    }
    text += &format!("  SAs           {} of {}", device.sas, device.max_sas);
    text += &format!(", {} left it, {} returned\n", accel.sas_left, accel.sas_returned);
    text += &format!("  has done      {} packets, {} operations", accel.packets, accel.operations);
    text += &format!("; now {:.1} Mbit/s\n", accel.load as f64 * 8e-6);
    text += &wrapped("  ESP           ", &device.esp);
    text += &wrapped("  key exchange  ", &device.dh);
    text += &format!("  known answers {} right, {} wrong", accel.known_right, accel.known_wrong);
    text += &format!(", {} resets\n", accel.resets);
    let errors: Vec<String> = accel.errors.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
    text += &format!("  errors        {}", words(&errors));
    text += &format!(", {} operations issued again\n", accel.operations_reissued);
    let counters = accel.counters.iter().filter(|(_, count)| **count > 0);
    let counters: Vec<String> = counters.map(|(name, count)| format!("{name} {count}")).collect();
    if !counters.is_empty() {
        text += &format!("  driver        {}\n", counters.join(", "));
    }
    let mut table =
        Table::new(&["queue", "depth", "in flight", "waiting", "lost", "half within", "90 %", "99 %", "all"]);
    for queue in &accel.queues {
        let mut row = vec![
            queue.name.clone(),
            queue.depth.to_string(),
            queue.in_flight.to_string(),
            queue.waiting.to_string(),
            queue.lost.to_string(),
        ];
        row.extend(queue.latency.map(time));
        table.row(row);
    }
    if !table.is_empty() {
        text += &table.text("  ");
    }
    text
}

/// A list that may be long, below each other.
fn wrapped(what: &str, list: &[String]) -> String {
    let (mut text, mut line) = (what.to_owned(), what.len());
    for (index, word) in list.iter().enumerate() {
        if index > 0 && line + word.len() > WIDTH {
            text += &format!("\n{}", " ".repeat(what.len()));
            line = what.len();
        }
        let comma = if index + 1 < list.len() { ", " } else { "" };
        text += &format!("{word}{comma}");
        line += word.len() + comma.len();
    }
    let text: Vec<&str> = text.lines().map(str::trim_end).collect();
    text.join("\n") + if list.is_empty() { "  -\n" } else { "\n" }
}

fn time(ns: u64) -> String {
    let time = Duration::from_nanos(ns);
    match ns {
        0 => "-".to_owned(),
        ns if ns < 1_000_000 => format!("{:.1} us", time.as_secs_f64() * 1e6),
        _ => format!("{:.1} ms", time.as_secs_f64() * 1e3),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{AccelQueue, Device};

    #[test]
    fn what_an_operator_asks_first_stands_first() {
        let device = Device {
            name: "qat0".into(),
            health: "missing".into(),
            why: Some("there is no such device".into()),
            ..Device::default()
        };
        let queue =
            AccelQueue { name: "lane 0".into(), latency: [900, 1500, 2_500_000, 0], ..AccelQueue::default() };
        let accel = AccelDevice {
            device,
            place: Some("/run/qat0.sock".into()),
            since: 65,
            queues: vec![queue],
            ..AccelDevice::default()
        };
        let text = text(&Accel { devices: vec![accel] });
        assert!(
            text.starts_with(
                "qat0 at /run/qat0.sock: missing since 1m5s\n  why           there is no such device\n"
            ),
            "{text}"
        );
        let packets = |packets| AccelDevice {
            device: Device { name: "qat0".into(), health: "ready".into(), sas: 6, ..Device::default() },
            packets,
            load: 1_250_000,
            ..AccelDevice::default()
        };
        let [before, now] = [1000, 3000].map(|count| Accel { devices: vec![packets(count)] });
        let line = lines(&before, &now, Duration::from_secs(2));
        assert!(line.contains("1000 packets/s") && line.contains("10.0 Mbit/s"), "{line}");
        let list: Vec<String> = (0..30).map(|n| format!("aes{n}gcm16")).collect();
        let wrapped = wrapped("  ESP  ", &list);
        assert!(wrapped.lines().all(|line| line.len() <= WIDTH + 2), "{wrapped}");
        assert_eq!(wrapped.split_whitespace().filter(|word| word.starts_with("aes")).count(), 30);
        assert!(text.contains("0.9 us") && text.contains("1.5 us") && text.contains("2.5 ms"), "{text}");
    }
}
