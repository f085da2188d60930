//! What happens when the library is loaded into a process by `LD_PRELOAD`: nothing, unless the variable is there.

use std::io::Write;

use crate::emulator::Emulator;
use crate::options::Options;
use crate::sys;

/// The options of [`Options::parse`]; `on` for the default.
pub(crate) const VARIABLE: &str = "TUSSOCK_PADLOCK_EMULATOR";

/// Called by the loader, before the program's own beginning.
pub(crate) fn loaded() {
    let Some(text) = std::env::var_os(VARIABLE) else { return };
    // Programs that this one starts are none of our business.
    sys::forget_variables(&[VARIABLE, "LD_PRELOAD"]);
    let installed = Options::parse(&text.to_string_lossy()).map_err(|bad| bad.to_string());
    let installed = installed.and_then(|options| Emulator::install(options).map_err(|why| why.to_string()));
    match installed {
        Ok(emulator) if emulator.options().stats.is_some() => sys::at_exit(write_stats),
        Ok(_) => {}
        // Who asked for it and does not get it would compute with something else than they think.
        Err(why) => {
            let _ = writeln!(std::io::stderr(), "PadLock emulator: {VARIABLE}: {why}");
            std::process::exit(1);
        }
    }
}

extern "C" fn write_stats() {
    let Some(emulator) = Emulator::installed() else { return };
    let Some(path) = &emulator.options().stats else { return };
    // There is nobody to tell of an error.
    let _ = std::fs::write(path, emulator.counters());
}
