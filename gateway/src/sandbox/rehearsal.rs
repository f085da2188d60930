//! What a process of ours gives up, given up by a process that is none: for whoever wants to see what is held back.

use super::{Needs, Side, become_user, harden, lift_limits, shut_in};
use crate::config::Settings;
use crate::processes::User;

/// Gives up what that process does, by the same steps; says what this kernel does not do. There must be one thread.
///
/// # Errors
/// Whatever is in the way.
pub fn enter(side: Side, settings: &Settings, user: &User) -> anyhow::Result<Vec<String>> {
    let mut notes = harden();
    lift_limits();
    let parent = rustix::process::getppid().map_or(0, |parent| parent.as_raw_nonzero().get());
    become_user(user, side.keeps(), parent)?;
    notes.extend(shut_in(side, settings, &Needs::of(side, settings))?);
    Ok(notes)
}

/// Gives up what a lane does, on this thread.
///
/// # Errors
/// The kernel's.
pub fn enter_lane() -> anyhow::Result<()> {
    super::tighten_lane()
}
