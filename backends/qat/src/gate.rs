//! Whether a card takes work, and which life it is in: an epoch ends with every reset.

use std::sync::atomic::{AtomicU64, Ordering};

/// What may be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Everything.
    Open,
    /// Nothing may be submitted. The card may still write to memory.
    Closing,
    /// It does not any more: what was out in this epoch may be given back.
    Quiet,
}

/// Epoch and phase, for any thread to look at.
pub(crate) struct Gate(AtomicU64);

impl Gate {
    /// Quiet, before the first epoch.
    pub(crate) fn new() -> Self {
        Gate(AtomicU64::new(Phase::Quiet as u64))
    }

    pub(crate) fn look(&self) -> (u32, Phase) {
        let now = self.0.load(Ordering::Acquire);
        let phase = match now & 3 {
            0 => Phase::Open,
            1 => Phase::Closing,
            _ => Phase::Quiet,
        };
        ((now >> 2) as u32, phase)
    }

    /// The next epoch begins.
    pub(crate) fn open(&self) {
        let (epoch, _) = self.look();
        self.set(epoch.wrapping_add(1), Phase::Open);
    }

    /// Nothing is taken any more; false when nothing was taken before either.
    pub(crate) fn close(&self) -> bool {
        let closing = |now| (now & 3 == Phase::Open as u64).then_some(now | Phase::Closing as u64);
        self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, closing).is_ok()
    }

    /// The card does not reach any memory now.
    pub(crate) fn quiet(&self) {
        let (epoch, _) = self.look();
        self.set(epoch, Phase::Quiet);
    }

    fn set(&self, epoch: u32, phase: Phase) {
        self.0.store(u64::from(epoch) << 2 | phase as u64, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_begin_when_it_opens() {
        let gate = Gate::new();
        assert!(!gate.close(), "it was never open");
        gate.open();
        assert_eq!(gate.look(), (1, Phase::Open));
        assert!(gate.close() && !gate.close());
        assert_eq!(gate.look(), (1, Phase::Closing));
        gate.quiet();
        assert_eq!(gate.look(), (1, Phase::Quiet));
        gate.open();
        assert_eq!(gate.look(), (2, Phase::Open));
    }
}
