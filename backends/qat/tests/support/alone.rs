//! Tests about a whole process run in one of their own: what is claimed there, other tests of the same binary would change.

use std::process::Command;

/// Says to the test program which of its tests it is to be.
const ALONE: &str = "TUSSOCK_TEST_ALONE";

/// Runs `test` in a process that does nothing else; `name` is that of the test it is called from.
pub(crate) fn alone(name: &str, test: impl FnOnce()) {
    if std::env::var(ALONE).as_deref() == Ok(name) {
        return test();
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    let said = command.args(["--exact", name, "--nocapture"]).env(ALONE, name).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
    assert!(said.status.success() && out.contains("1 passed"), "{out}\n{err}");
}
