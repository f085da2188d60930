use std::time::{Duration, Instant};

use spi::Driver;

use crate::ring::{DEADLINE, devices, rings};

/// Rule 1, the end of it: a queue dropped with work out waits for the device and gives every buffer back.
pub fn a_dropped_queue_gives_its_buffers_back(driver: &dyn Driver) {
    for device in devices(driver) {
        for mut ring in rings(&*device, 32) {
            ring.offer(32).expect("a healthy device takes work");
            ring.poll(3);
            let start = Instant::now();
            ring.close();
            while ring.away() > 0 {
                assert!(start.elapsed() < DEADLINE, "{}: {} buffers are lost", ring.kind(), ring.away());
                std::thread::sleep(Duration::from_millis(1));
            }
            assert!(start.elapsed() < DEADLINE, "{}: dropping takes too long", ring.kind());
        }
    }
}
