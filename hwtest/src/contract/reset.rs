use std::collections::HashSet;
use std::time::{Duration, Instant};

use spi::caps::Traits;
use spi::{Driver, FaultKind, Outcome};

use crate::note;
use crate::ring::{devices, is_fault, rings, wait_until_ready};

/// Rule 1 across a reset: all that was out comes back once, aborted unless it was finished before; afterwards old handles
/// are stale and new ones work. Only for devices that declare [`Traits::RECOVERS`].
pub fn a_reset_gives_everything_back_and_leaves_old_handles_stale(driver: &dyn Driver) {
    for device in devices(driver) {
        if !device.desc().caps.traits.contains(Traits::RECOVERS) {
            note::skip("the device does not declare that it recovers from a reset");
            continue;
        }
        for mut ring in rings(&*device, 32) {
            let kind = ring.kind();
            let taken = ring.offer(24).expect("a healthy device takes work");
            let start = Instant::now();
            device.begin_reset();
            assert!(start.elapsed() < Duration::from_secs(1), "{kind}: begin_reset does not return at once");
            let mut back = HashSet::new();
            for seen in ring.drain() {
                assert!(back.insert(seen.token), "{kind}: {:?} came back twice", seen.token);
                let fine = seen.outcome == Some(Outcome::Done) || is_fault(seen.outcome, FaultKind::Aborted);
                assert!(fine, "{kind}: {:?} after a reset", seen.outcome);
            }
            assert_eq!(back.len(), taken, "{kind}: jobs were lost in a reset");
            wait_until_ready(&*device);
            if kind == "packets" {
                ring.offer(3).expect("the device is ready");
                for seen in ring.drain() {
                    assert!(
                        is_fault(seen.outcome, FaultKind::StaleHandle),
                        "an old handle gives {:?}",
                        seen.outcome
                    );
                }
            }
            ring.reinstall(&*device);
            ring.offer(3).expect("the device is ready");
            let again = ring.drain();
            assert!(!again.is_empty(), "{kind}: nothing comes after a reset");
            assert!(again.iter().all(|seen| seen.outcome == Some(Outcome::Done)), "{kind}: {again:?}");
            assert_eq!(ring.away(), 0, "{kind}: buffers did not come home");
        }
    }
}
