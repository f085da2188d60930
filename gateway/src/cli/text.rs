//! Reports and events for people.

use std::collections::BTreeMap;
use std::time::Duration;

use super::table::Table;
use crate::config::units::{show_duration, show_size};
use crate::events::Record;
use crate::report::{ChildSa, IkeSa, Sas, Status, TrialCost};

/// `tussock status`
pub fn status(status: &Status) -> String {
    let mut text = format!("tussock {}, pid {}, up {}\n", status.version, status.pid, seconds(status.uptime));
    if let Some(dir) = &status.keylog {
        text += &format!("\nWARNING: keys of all SAs are written to {dir}\n");
    }
    text += "\nRealms\n";
    let mut table = Table::new(&["realm", "state", "ike sas", "child", "state", "sas"]);
    for realm in &status.realms {
        let mut first = vec![realm.name.clone(), realm.state.clone(), realm.ike_sas.to_string()];
        for child in &realm.children {
            let mut row = std::mem::replace(&mut first, vec![String::new(); 3]);
            row.extend([child.name.clone(), child.state.clone(), child.sas.to_string()]);
            table.row(row);
        }
        if realm.children.is_empty() {
            table.row(first);
        }
    }
    text += &table.text("  ");
    text += "\nDevices\n";
    let mut table =
        Table::new(&["device", "health", "sas", "packets out", "waiting", "operations out", "carries"]);
    for device in &status.devices {
        let carries = format!("{} ESP transforms, {} key exchanges", device.esp.len(), device.dh.len());
        table.row(vec![
            device.name.clone(),
            device.health.clone(),
            format!("{}/{}", device.sas, device.max_sas),
            device.packets_out.to_string(),
            device.packets_waiting.to_string(),
            (device.operations_out + device.waiting).to_string(),
            carries,
        ]);
    }
    text += &table.text("  ");
    for device in &status.devices {
        if let Some(why) = &device.why {
            text += &format!("  {} is {}: {why}\n", device.name, device.health);
        }
    }
    let trials =
        status.devices.iter().flat_map(|device| device.trials.iter().map(move |trial| (device, trial)));
    let mut table = Table::new(&["transform", "on", "CPU for each packet"]);
    for (device, trial) in trials {
        let cost = |cost: &TrialCost| {
            let many =
                if cost.burst == 1 { "alone".to_owned() } else { format!("in bursts of {}", cost.burst) };
            format!("{} ns ({} octets, {many})", cost.ns, cost.text)
        };
        let costs: Vec<String> = trial.costs.iter().map(cost).collect();
        let fault = trial.fault.as_ref().map(|fault| format!("failed: {fault}"));
        table.row(vec![trial.esp.clone(), device.name.clone(), fault.unwrap_or_else(|| costs.join(", "))]);
    }
    text += &table.text("  ");
    let engines =
        status.devices.iter().flat_map(|device| device.engines.iter().map(move |engine| (device, engine)));
    let mut table = Table::new(&["engine", "of", "for", "use"]);
    for (device, engine) in engines {
        table.row(vec![
            engine.name.clone(),
            device.name.clone(),
            engine.esp.clone().unwrap_or_else(|| "everything".into()),
            engine.why.clone(),
        ]);
    }
    text += &table.text("  ");
    text += "\nSockets\n";
    let mut table = Table::new(&[
        "kind",
        "address",
        "serves",
        "received",
        "per piece",
        "sent",
        "per piece",
        "unsent",
        "too big",
        "lost",
        "waiting",
        "offload",
    ]);
    for socket in &status.sockets {
        table.row(vec![
            socket.kind.clone(),
            socket.address.clone(),
            socket.serves.clone(),
            socket.received.to_string(),
            ratio(socket.received, socket.arrivals),
            socket.sent.to_string(),
            ratio(socket.sent, socket.departures),
            socket.unsent.to_string(),
            socket.too_big.to_string(),
            socket.lost.to_string(),
            show_size(socket.queued.into()),
            words(&socket.offload),
        ]);
    }
    text += &table.text("  ");
    text += "\nTUN devices\n";
    let mut table = Table::new(&[
        "name",
        "mtu",
        "queues",
        "read",
        "per read",
        "written",
        "per write",
        "refused",
        "offload",
    ]);
    for tun in &status.tuns {
        table.row(vec![
            tun.name.clone(),
            tun.mtu.to_string(),
            tun.queues.to_string(),
            tun.read.to_string(),
            ratio(tun.read, tun.reads),
            tun.written.to_string(),
            ratio(tun.written, tun.writes),
            tun.refused.to_string(),
            words(&tun.offload),
        ]);
    }
    text += &table.text("  ");
    text += "\nLanes\n";
    let mut table = Table::new(&[
        "lane",
        "sas",
        "sealed",
        "opened",
        "per burst",
        "handed over",
        "buffers free",
        "shares",
    ]);
    for lane in &status.lanes {
        let share = |(realm, rate, waiting): &(String, f64, usize)| {
            format!("{realm} {:.0} %, {waiting} waiting", rate * 100.0)
        };
        let shares: Vec<String> = lane.shares.iter().map(share).collect();
        table.row(vec![
            lane.lane.to_string(),
            lane.sas.to_string(),
            lane.sealed.to_string(),
            lane.opened.to_string(),
            ratio(lane.sealed + lane.opened, lane.bursts),
            lane.handed.to_string(),
            format!("{}/{}", lane.buffers_free, lane.buffers),
            words(&shares),
        ]);
    }
    text += &table.text("  ");
    text += "\nDispatch, first things first\n";
    let mut table = Table::new(&["class", "quota", "depth", "waiting", "turns", "cut short", "dropped"]);
    for row in &status.dispatch {
        let depth = if row.depth == 0 { "-".to_owned() } else { row.depth.to_string() };
        table.row(vec![
            row.class.clone(),
            row.quota.to_string(),
            depth,
            row.waiting.to_string(),
            row.turns.to_string(),
            row.cut.to_string(),
            row.dropped.to_string(),
        ]);
    }
    text += &table.text("  ");
    let ike = &status.ike;
    text += &format!(
        "\nIKE   {} SAs, {} half-open, cookies {}, {} operations and {} questions out; requests sent again {}, came again {}\n",
        ike.sas,
        ike.half_open,
        if ike.cookies { "on" } else { "off" },
        ike.in_flight,
        ike.questions,
        ike.sent_again,
        ike.came_again,
    );
    let esp = &status.esp;
    text += &format!(
        "ESP   {} packets ({}) sealed, {} ({}) opened, {} bypassed, {} routes\n",
        esp.sealed,
        show_size(esp.sealed_bytes),
        esp.opened,
        show_size(esp.opened_bytes),
        esp.bypassed,
        status.routes,
    );
    for (realm, count) in &status.leases {
        text += &format!("Pool  {realm}: {count} addresses handed out\n");
    }
    text + &drops("Drops ", &status.drops)
}

/// `tussock sas`
pub fn sas(sas: &Sas) -> String {
    if sas.ike_sas.is_empty() {
        return "no SAs\n".to_owned();
    }
    let parts: Vec<String> = sas.ike_sas.iter().map(ike_sa).collect();
    parts.join("\n")
}

/// One event.
pub fn event(record: &Record) -> String {
    let time = time(record.at);
    let fields = match serde_json::to_value(&record.notice) {
        Ok(serde_json::Value::Object(fields)) => fields,
        _ => return format!("{time}\n"),
    };
    let name = fields.get("event").and_then(|name| name.as_str()).unwrap_or("event").to_owned();
    let words: Vec<String> = fields
        .iter()
        .filter(|(key, value)| *key != "event" && !value.is_null())
        .map(|(key, value)| match value {
            serde_json::Value::String(text) if text.contains(' ') || text.is_empty() => {
                format!("{key}={text:?}")
            }
            serde_json::Value::String(text) => format!("{key}={text}"),
            other => format!("{key}={other}"),
        })
        .collect();
    format!("{time} {name} {}\n", words.join(" "))
}

/// The time of day. UTC, since events are compared between machines.
pub(super) fn time(at: f64) -> String {
    let at = at.max(0.0);
    let day = (at as u64) % 86_400;
    let milliseconds = (at.fract() * 1000.0) as u32;
    format!("{:02}:{:02}:{:02}.{milliseconds:03}Z", day / 3600, day / 60 % 60, day % 60)
}

fn ike_sa(sa: &IkeSa) -> String {
    let realm = sa.realm.as_deref().unwrap_or("?");
    let since =
        sa.established.map_or(format!("for {}", seconds(sa.age)), |up| format!("since {}", seconds(up)));
    let mut text = format!("{realm}: IKE SA {} {} {since}, {}\n", sa.id, sa.state, sa.role);
    let id = |id: &Option<String>| id.clone().unwrap_or_else(|| "?".to_owned());
    let nat = |behind: bool| if behind { " behind NAT" } else { "" };
    text += &format!("  {} ({}{})", id(&sa.own_id), sa.local, nat(sa.we_behind_nat));
    let called = sa.ike_id.as_ref().map_or(String::new(), |id| format!(", in IKE {id}"));
    text += &format!(" <-> {}{called} ({}{})", id(&sa.peer_id), sa.remote, nat(sa.peer_behind_nat));
    text += &sa.how.as_ref().map_or("\n".to_owned(), |how| format!(", by {how}\n"));
    text +=
        &format!("  {}  spi {} {}", if sa.suite.is_empty() { "-" } else { &sa.suite }, sa.spi_i, sa.spi_r);
    text += &format!("  heard {} ago", seconds(sa.heard));
    text += &in_future("rekey", sa.rekey_in);
    text += &in_future("reauthentication", sa.reauth_in);
    text += &in_future("end of session", sa.session_left);
    text.push('\n');
    if !sa.addresses.is_empty() {
        text += &format!("  inner addresses {}\n", sa.addresses.join(", "));
    }
    if !sa.groups.is_empty() {
        text += &format!("  groups {}\n", sa.groups.join(", "));
    }
    for child in &sa.children {
        text += &child_sa(child);
    }
    text
}

fn child_sa(child: &ChildSa) -> String {
    let mut text =
        format!("  {}: Child SA {} {} since {}", child.name, child.id, child.state, seconds(child.age));
    text += &child.resource.map_or_else(String::new, |worker| format!(", for worker {worker} alone"));
    text += &format!(", {} mode, ESP {}", child.mode, if child.encap == "udp" { "in UDP" } else { "raw" });
    text += &in_future("rekey", child.rekey_in);
    text += &format!("\n    {} <-> {}\n", child.local.join(", "), child.remote.join(", "));
    text += &format!("    {}\n", child.suite);
    let sending = if child.sending { "" } else { ", not sending with it" };
    text +=
        &format!("    in  {}  {} packets, {}\n", child.spi_in, child.packets_in, show_size(child.bytes_in));
    text += &format!(
        "    out {}  {} packets, {}{sending}\n",
        child.spi_out,
        child.packets_out,
        show_size(child.bytes_out)
    );
    text + &drops("    dropped ", &child.drops)
}

/// How many there were in one of something.
fn ratio(count: u64, of: u64) -> String {
    if of == 0 { "-".to_owned() } else { format!("{:.1}", count as f64 / of as f64) }
}

pub(super) fn words(list: &[String]) -> String {
    if list.is_empty() { "-".to_owned() } else { list.join(", ") }
}

fn drops(what: &str, drops: &BTreeMap<String, u64>) -> String {
    if drops.is_empty() {
        return String::new();
    }
    let words: Vec<String> = drops.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
    format!("{what}{}\n", words.join(", "))
}

fn in_future(what: &str, time: Option<u64>) -> String {
    time.map_or(String::new(), |time| format!(", {what} in {}", seconds(time)))
}

pub(super) fn seconds(count: u64) -> String {
    show_duration(Duration::from_secs(count))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::Notice;

    #[test]
    fn an_event_is_one_line_with_its_fields() {
        let notice =
            Notice::ChildFailed { realm: "a".into(), name: "net".into(), why: "no answer: x".into() };
        let text = event(&Record { at: 3723.25, notice });
        assert_eq!(text, "01:02:03.250Z child-failed name=net realm=a why=\"no answer: x\"\n");
    }

    #[test]
    fn reports_show_what_matters() {
        let child =
            ChildSa { name: "net".into(), state: "installed".into(), packets_in: 7, ..ChildSa::default() };
        let sa = IkeSa { realm: Some("site".into()), children: vec![child], ..IkeSa::default() };
        let text = sas(&Sas { ike_sas: vec![sa] });
        assert!(
            text.contains("site: IKE SA 0") && text.contains("7 packets") && text.contains("not sending"),
            "{text}"
        );
        let text = status(&Status { keylog: Some("/k".into()), ..Status::default() });
        assert!(text.contains("WARNING: keys of all SAs are written to /k"), "{text}");
    }
}
