//! What a card counts: everything it says that is not so, everything that goes wrong, and everything that wakes somebody up.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::ring::Lie;

macro_rules! counters {
    ($($name:ident $text:literal $doc:literal;)*) => {
        /// Counters, from the opening of the card on.
        #[derive(Default)]
        pub(crate) struct Counters {
            $(#[doc = $doc] pub(crate) $name: Count,)*
        }

        impl Counters {
            /// All of them, by name.
            pub(crate) fn all(&self) -> Vec<(&'static str, u64)> {
                vec![$(($text, self.$name.value())),*]
            }
        }
    };
}

counters! {
    packets "packets" "Packets that came back, however they ended.";
    operations "operations" "Requests on large numbers that came back, likewise.";
    bad_icv "bad-icv" "Packets whose ICV did not match.";
    refused "refused" "Requests on numbers the card refused.";
    errors "device-errors" "Requests that came back with an error of the card.";
    ill "device-ill" "Those of them that say that an engine needs a reset.";
    malformed "malformed-responses" "Responses that were none.";
    invented "invented-responses" "Responses to what was never asked, or was forgotten in a reset.";
    doubled "doubled-responses" "Responses to what was answered before.";
    wrong "wrong-results" "Results that were checked and found wrong.";
    aborted "aborted" "Jobs that came back without an answer, because of a reset.";
    resets "resets" "Resets.";
    stuck "stuck" "Resets because something did not come back in time.";
    probes "probes" "Known answers that were asked for.";
    probes_failed "probes-failed" "And that were wrong or did not come.";
    interrupts "interrupts" "Interrupts.";
    interrupts_spurious "interrupts-spurious" "Interrupts for which there was no reason.";
    interrupts_lost "interrupts-lost" "Responses that were found waiting without one.";
    notices "notices" "Messages of the physical function that nobody asked for.";
    leaked "leaked" "Jobs whose memory cannot be given back: the card could not be stopped.";
}

/// One counter.
#[derive(Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    pub(crate) fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Counters {
    pub(crate) fn lie(&self, lie: Lie) {
        match lie {
            Lie::Malformed => self.malformed.add(1),
            Lie::Invented => self.invented.add(1),
            Lie::Doubled => self.doubled.add(1),
        }
    }
}
