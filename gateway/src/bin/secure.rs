//! The program `tussock-secure`: what holds the keys. `tussock run` starts it.

use std::process::ExitCode;

fn main() -> ExitCode {
    tussock::processes::key_side::main()
}
