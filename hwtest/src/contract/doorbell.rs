use std::os::fd::BorrowedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use spi::Driver;

use crate::note;
use crate::ring::{DEADLINE, devices, rings};

/// A worker that sleeps on the doorbell whenever `poll` has nothing more to say sees every completion. And it does sleep:
/// once all is delivered, the bell is silent.
pub fn the_doorbell_rings_for_every_completion(driver: &dyn Driver) {
    for device in devices(driver) {
        for mut ring in rings(&*device, 16) {
            let kind = ring.kind();
            if ring.doorbell().is_none() {
                note::skip(format!("the queue for {kind} has no doorbell: it is polled"));
                continue;
            }
            for round in 0..20 {
                let taken = ring.offer(1 + round % 5).expect("a healthy device takes work");
                let (mut given, mut more) = (0, false);
                while given < taken {
                    let rang = more || ring.doorbell().is_some_and(|bell| readable(bell, DEADLINE));
                    assert!(rang, "{kind}: {given} of {taken} came back, and the bell does not ring");
                    let (polled, seen) = ring.poll(2);
                    (given, more) = (given + seen.len(), polled.more);
                }
                // Whoever rang for one of them may have done so after it was taken: once for each, and no more.
                let rings = (0..=taken).all(|_| {
                    ring.poll(1);
                    let rings = ring.doorbell().is_some_and(|bell| readable(bell, Duration::ZERO));
                    if rings {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                    rings
                });
                assert!(!rings, "{kind}: the bell rings on with nothing to say");
            }
        }
    }
}

fn readable(bell: BorrowedFd<'_>, limit: Duration) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(bell, PollFlags::IN)];
    let limit = Timespec { tv_sec: limit.as_secs() as i64, tv_nsec: 0 };
    matches!(poll(&mut fds, Some(&limit)), Ok(1))
}
