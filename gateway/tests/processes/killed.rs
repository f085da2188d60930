//! What happens when a process is killed.

use std::fs;
use std::time::Duration;

use crate::pair::{Pair, children};
use crate::{can, tool};

#[test]
fn killed_processes_come_back_and_tunnels_with_them() {
    if !can("killing processes") {
        return;
    }
    let (pair, supervisor) = Pair::with_tunnel("kill");
    let kill = |pid: u32| tool("kill", &["-9", &pid.to_string()]);
    let [gateway, secure] = children(supervisor);
    kill(secure);
    for _ in 0..10 {
        assert!(pair.pings(), "SAs that are up need no key side");
        std::thread::sleep(Duration::from_millis(50));
    }
    pair.until("there is another key side", || {
        fs::read_to_string(pair.place("moon", "log")).unwrap().contains("there is a key side again")
    });
    assert_eq!(children(supervisor)[0], gateway, "the same gateway");
    assert!(pair.command("moon", &["rekey", "site", "--ike"]).is_some());
    // A proof is asked of the new one.
    assert!(pair.command("moon", &["down", "site"]).is_some());
    assert!(pair.command("moon", &["up", "site"]).is_some());
    assert!(pair.pings());
    let [gateway, secure] = children(supervisor);
    kill(gateway);
    pair.until("another gateway has its tunnel", || {
        let now = fs::read_to_string(format!("/proc/{supervisor}/task/{supervisor}/children")).unwrap();
        now.split_whitespace().count() == 2 && !now.contains(&gateway.to_string()) && pair.pings()
    });
    assert_ne!(children(supervisor)[1], secure, "the key side begins anew, too");
    let left = children(supervisor);
    kill(supervisor);
    pair.until("nobody is left without a supervisor", || {
        left.iter().all(|pid| fs::read_to_string(format!("/proc/{pid}/status")).is_err())
    });
}
