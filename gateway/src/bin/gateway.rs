//! The program `tussock-gateway`: what faces the network. `tussock run` starts it.

use std::process::ExitCode;

fn main() -> ExitCode {
    tussock::processes::gateway::main()
}
