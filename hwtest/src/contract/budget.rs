use std::time::{Duration, Instant};

use spi::Driver;

use crate::ring::{DEADLINE, devices, rings};

/// A poll calls back no more often than its budget says, and with none it loses nothing.
pub fn a_poll_delivers_no_more_than_its_budget(driver: &dyn Driver) {
    for device in devices(driver) {
        for mut ring in rings(&*device, 16) {
            let kind = ring.kind();
            let taken = ring.offer(12).expect("a healthy device takes work");
            let start = Instant::now();
            let mut given = 0;
            while given < taken {
                for budget in [0, 1, 0, 3] {
                    let (polled, seen) = ring.poll(budget);
                    assert!(seen.len() <= budget, "{kind}: {} came with a budget of {budget}", seen.len());
                    assert_eq!(polled.delivered, seen.len(), "{kind}: delivered and callbacks differ");
                    given += seen.len();
                    assert_eq!(ring.in_flight(), taken - given, "{kind}: jobs in flight are miscounted");
                }
                assert!(start.elapsed() < DEADLINE, "{kind}: {given} of {taken} came back");
                std::thread::sleep(Duration::from_micros(20));
            }
        }
    }
}

/// When a poll says that there is more, the next one delivers at once.
pub fn more_is_the_truth(driver: &dyn Driver) {
    for device in devices(driver) {
        for mut ring in rings(&*device, 16) {
            let kind = ring.kind();
            ring.offer(16).expect("a healthy device takes work");
            let start = Instant::now();
            let mut more = false;
            while ring.in_flight() > 0 {
                let (polled, seen) = ring.poll(1);
                assert!(!more || seen.len() == 1, "{kind}: more was said and nothing came");
                more = polled.more;
                assert!(!more || ring.in_flight() > 0, "{kind}: more was said and nothing is out");
                assert!(start.elapsed() < DEADLINE, "{kind}: jobs have not come back");
            }
        }
    }
}
