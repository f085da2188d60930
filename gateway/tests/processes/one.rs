//! All of it in one process, for developers.

use std::fs;
use std::io::Write;
use std::process::Stdio;

use crate::can;
use crate::pair::Pair;

#[test]
fn one_process_has_a_tunnel_takes_passwords_and_removes_its_sockets() {
    if !can("a gateway") {
        return;
    }
    let mut pair = Pair::new("one");
    let (moon, sun) = (pair.psk("moon", 1, 2), pair.psk("sun", 2, 1));
    pair.run("sun", &sun);
    let pid = pair.run_with("moon", &moon, &["--one-process"]);
    pair.until("there is a tunnel", || pair.pings());
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    assert_eq!(children, "", "it has no others");
    assert!(pair.command("moon", &["reload"]).is_some());
    let mut typed = pair.order("moon", &["credentials", "site"]).stdin(Stdio::piped()).spawn().unwrap();
    typed.stdin.take().unwrap().write_all(b"swordfish\n").unwrap();
    assert!(typed.wait().unwrap().success());
    pair.until("the key side has it", || {
        fs::read_to_string(pair.place("moon", "log"))
            .unwrap()
            .contains("a password came, and nobody's is wanted")
    });
    let sockets = ["control.sock", "keys.sock"].map(|name| pair.place("moon", "run").join(name));
    assert!(sockets.iter().all(|socket| socket.exists()));
    crate::tool("kill", &[&pid.to_string()]);
    pair.until("its sockets are gone", || !sockets.iter().any(|socket| socket.exists()));
}
