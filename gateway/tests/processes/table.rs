//! What privilege each process has, as the kernel tells it, is what docs/privsep.md says.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::can;
use crate::pair::{Pair, children};

/// Lines of the table: what the kernel says of a process.
fn privileges(pid: u32) -> Vec<(String, String)> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let of = |text: &str, key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        line.unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let user = |number: &str| match number.parse().unwrap() {
        0x7473_6701u32 => "its own".to_owned(),
        0x7473_6702 => "its own".to_owned(),
        0 => "root".to_owned(),
        other => other.to_string(),
    };
    let users = |key| {
        let mut all: Vec<String> = of(&status, key).split(' ').map(user).collect();
        all.dedup();
        all.join(", ")
    };
    let or = |text: String, none: &str| if text.is_empty() { none.to_owned() } else { text };
    let capabilities = |key| {
        let set = u64::from_str_radix(&of(&status, key), 16).unwrap();
        match set {
            0 => "none".to_owned(),
            0x1000 => "CAP_NET_ADMIN".to_owned(),
            _ => "what root has".to_owned(),
        }
    };
    // A process that may not be looked into belongs to root in /proc, whoever runs it.
    let looked_into = fs::metadata(format!("/proc/{pid}/environ")).unwrap().uid() == 0;
    let is_root = of(&status, "Uid").starts_with("0 ");
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    let core = if core.split_whitespace().filter(|word| *word == "0").count() == 2 { "no" } else { "yes" };
    let mut filters: Vec<String> = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
        let task = task.unwrap().path();
        let name = fs::read_to_string(task.join("comm")).unwrap();
        let text = fs::read_to_string(task.join("status")).unwrap();
        let kind = if name.starts_with("lane") { "lanes" } else { "threads" };
        let line = format!("{kind}: {} filters", of(&text, "Seccomp_filters"));
        if !filters.contains(&line) {
            filters.push(line);
        }
    }
    filters.sort_unstable_by(|a, b| b.cmp(a));
    let seccomp = if of(&status, "Seccomp") == "2" { filters.join("; ") } else { "none".to_owned() };
    [
        ("user", users("Uid")),
        ("group", users("Gid")),
        ("further groups", or(of(&status, "Groups"), "none")),
        ("capabilities, effective", capabilities("CapEff")),
        ("permitted", capabilities("CapPrm")),
        ("inheritable", capabilities("CapInh")),
        ("ambient", capabilities("CapAmb")),
        ("bounding set", capabilities("CapBnd")),
        ("no_new_privs", if of(&status, "NoNewPrivs") == "1" { "yes" } else { "no" }.to_owned()),
        ("seccomp", seccomp),
        ("may be looked into", if looked_into || is_root { "by root" } else { "by its user" }.to_owned()),
        ("core dumps", core.to_owned()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .to_vec()
}

#[test]
fn each_process_has_the_privilege_that_the_page_says() {
    if !can("a look at the processes") {
        return;
    }
    let (pair, supervisor) = Pair::with_tunnel("priv");
    let [gateway, secure] = children(supervisor);
    let [all, gateway, secure] = [supervisor, gateway, secure].map(privileges);
    let mut table =
        String::from("| | supervisor | `tussock-gateway` | `tussock-secure` |\n|---|---|---|---|\n");
    for (((key, a), (_, b)), (_, c)) in all.iter().zip(&gateway).zip(&secure) {
        table += &format!("| {key} | {a} | {b} | {c} |\n");
    }
    drop(pair);
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/privsep.md");
    let page = fs::read_to_string(page).unwrap();
    assert!(page.contains(&table), "docs/privsep.md does not have this table:\n{table}");
}

/// Names of the Unix sockets that a process has.
fn sockets(pid: u32) -> Vec<String> {
    let all = fs::read_to_string(format!("/proc/{pid}/net/unix")).unwrap();
    let held: Vec<String> = fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .filter_map(|entry| Some(fs::read_link(entry.unwrap().path()).ok()?.to_string_lossy().into_owned()))
        .collect();
    let named = all.lines().skip(1).filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (number, path) = (words.get(6)?, words.get(7)?);
        held.contains(&format!("socket:[{number}]")).then(|| path.rsplit('/').next().unwrap().to_owned())
    });
    named.collect()
}

#[test]
fn passwords_cannot_come_to_the_process_that_faces_the_network() {
    if !can("a look at the processes") {
        return;
    }
    let (_pair, supervisor) = Pair::with_tunnel("sock");
    let [gateway, secure] = children(supervisor);
    let has = |pid, name: &str| sockets(pid).iter().any(|socket| socket == name);
    let [control, keys] = ["control.sock", "keys.sock"];
    assert!(has(supervisor, control) && has(supervisor, keys), "{:?}", sockets(supervisor));
    assert!(has(gateway, control) && !has(gateway, keys), "{:?}", sockets(gateway));
    assert!(!has(secure, control) && has(secure, keys), "{:?}", sockets(secure));
}
