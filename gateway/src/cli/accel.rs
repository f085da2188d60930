//! `tussock accel` for people.

use std::time::Duration;

use super::table::Table;
use super::text::{seconds, words};
use crate::report::{Accel, AccelDevice};

/// Columns of a terminal that lists are fitted to.
const WIDTH: usize = 100;

/// `tussock accel`
pub fn text(accel: &Accel) -> String {
    let all: Vec<String> = accel.devices.iter().map(device).collect();
    all.join("\n")
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
    text += &format!("  has done      {} packets, {} operations\n", accel.packets, accel.operations);
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
        let list: Vec<String> = (0..30).map(|n| format!("aes{n}gcm16")).collect();
        let wrapped = wrapped("  ESP  ", &list);
        assert!(wrapped.lines().all(|line| line.len() <= WIDTH + 2), "{wrapped}");
        assert_eq!(wrapped.split_whitespace().filter(|word| word.starts_with("aes")).count(), 30);
        assert!(text.contains("0.9 us") && text.contains("1.5 us") && text.contains("2.5 ms"), "{text}");
    }
}
