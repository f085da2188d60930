//! The terminal that somebody is asked at without being shown what he types. Whatever ends us in the middle of that, the shell that has
//! the terminal next shows what is typed.

use std::fs::{File, OpenOptions};

use rustix::process::getpgrp;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetpgrp, tcsetattr};
use tokio::signal::unix::{SignalKind, signal};

/// The terminal as it was.
pub(crate) struct Terminal {
    file: File,
    before: Termios,
}

impl Terminal {
    /// Ours, if we are the ones who may be asked at it.
    pub(crate) fn own() -> Option<Terminal> {
        let file = OpenOptions::new().read(true).write(true).open("/dev/tty").ok()?;
        let before = tcgetattr(&file).ok()?;
        let terminal = Terminal { file, before };
        terminal.is_ours().then_some(terminal)
    }

    /// Makes it what it was.
    pub(crate) fn put_right(&self) {
        let modes = tcgetattr(&self.file).map(|now| now.local_modes);
        // In the background nothing of it is ours to change, and whoever tries is stopped.
        if modes.is_ok_and(|modes| modes != self.before.local_modes) && self.is_ours() {
            let _ = tcsetattr(&self.file, OptionalActions::Now, &self.before);
        }
    }

    fn is_ours(&self) -> bool {
        tcgetpgrp(&self.file).is_ok_and(|foreground| foreground == getpgrp())
    }
}

/// From now on a signal that ends this program puts the terminal right before.
pub(crate) fn outlives_this_program() {
    let Some(terminal) = Terminal::own() else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
    let Ok(runtime) = runtime else { return };
    let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::quit()];
    let signals = {
        let _inside = runtime.enter();
        kinds.map(signal)
    };
    let [Ok(mut interrupt), Ok(mut terminate), Ok(mut quit)] = signals else { return };
    // Without the thread nobody would hear the signals: then nothing ends this program but its work.
    let run = move || {
        let number = runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => kinds[0],
                _ = terminate.recv() => kinds[1],
                _ = quit.recv() => kinds[2],
            }
        });
        terminal.put_right();
        // As a shell says of whom a signal has ended.
        std::process::exit(128 + number.as_raw_value());
    };
    let _ = std::thread::Builder::new().name("signals".into()).spawn(run);
}
