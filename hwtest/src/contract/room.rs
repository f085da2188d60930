use spi::Driver;

use crate::ring::{devices, rings};
use crate::seed::Seeded;

/// Rule 5: a full ring takes what fits from the front and leaves the rest, in order.
pub fn what_does_not_fit_stays_in_place(driver: &dyn Driver) {
    for device in devices(driver) {
        for mut ring in rings(&*device, 8) {
            let kind = ring.kind();
            let room = ring.room();
            assert!(room > 0, "{kind}: a fresh ring has no room");
            let offered = room + 5;
            let taken = ring.offer(offered).expect("a full ring is not an error");
            let left = ring.left();
            assert_eq!(taken + left.len(), offered, "{kind}: jobs went missing in submit");
            // Tokens count from one.
            let expected: Vec<u64> = (taken as u64 + 1..=offered as u64).collect();
            let left: Vec<u64> = left.iter().map(|token| token.0).collect();
            assert_eq!(left, expected, "{kind}: what stayed is not the end of what was offered");
            ring.drain();
        }
    }
}

/// Rule 6: what `room` says, the next `submit` takes, whatever was polled in between.
pub fn room_is_a_promise(driver: &dyn Driver) {
    for device in devices(driver) {
        for mut ring in rings(&*device, 16) {
            let kind = ring.kind();
            let mut seeded = Seeded::new(12);
            let mut promised_something = false;
            for _ in 0..100 {
                let room = ring.room();
                promised_something |= room > 0;
                ring.poll(seeded.below(4));
                let offered = seeded.below(room + 1);
                let taken = ring.offer(offered).expect("a healthy device takes work");
                assert_eq!(taken, offered, "{kind}: room for {room} was promised");
                ring.poll(seeded.below(8));
            }
            assert!(promised_something, "{kind}: never any room");
            ring.drain();
        }
    }
}
