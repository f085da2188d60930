use std::collections::HashSet;

use spi::{Driver, Outcome};

use crate::ring::{Seen, devices, rings};
use crate::seed::Seeded;

/// Rule 1, and the counting that goes with it: whatever the pattern of submitting and polling, each job comes back once,
/// decided, and `in_flight` is what was taken less what was given back.
pub fn every_job_comes_back_exactly_once(driver: &dyn Driver) {
    for device in devices(driver) {
        for mut ring in rings(&*device, 32) {
            let kind = ring.kind();
            let mut seeded = Seeded::new(11);
            let mut back = HashSet::new();
            let mut note = |seen: &[Seen]| {
                for seen in seen {
                    assert!(back.insert(seen.token), "{kind}: {:?} came back twice", seen.token);
                    assert_eq!(seen.outcome, Some(Outcome::Done), "{kind}: {:?}", seen.token);
                }
            };
            let (mut taken, mut given) = (0, 0);
            for _ in 0..60 {
                taken += ring.offer(seeded.below(20)).expect("a healthy device takes work");
                let budget = seeded.below(24);
                let (polled, seen) = ring.poll(budget);
                assert_eq!(polled.delivered, seen.len(), "{kind}: delivered and callbacks differ");
                given += seen.len();
                note(&seen);
                assert_eq!(ring.in_flight(), taken - given, "{kind}: jobs in flight are miscounted");
            }
            let waiting = ring.left().len();
            let mut rest = ring.drain();
            while !ring.left().is_empty() {
                taken += ring.offer(0).expect("a healthy device takes work");
                rest.extend(ring.drain());
            }
            note(&rest);
            assert!(taken >= 100, "{kind}: only {taken} jobs were taken, {waiting} waited");
            assert_eq!(back.len(), taken, "{kind}: jobs were lost or invented");
            assert_eq!(ring.away(), 0, "{kind}: buffers did not come home");
        }
    }
}
