//! Everything at once: threads, each with full rings, while SAs come and go and the device is reset; and what is left afterwards.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use spi::caps::Traits;
use spi::{Direction, Driver, FaultKind, Outcome};

use crate::ring::{DEADLINE, Ring, devices, is_fault, params, rings, wait_until_ready};

/// Threads, each with rings of its own.
const THREADS: usize = 3;
const DEPTH: usize = 64;
/// Jobs that each ring gets through.
const JOBS: usize = 1500;
const RESETS: usize = 8;

/// Several threads keep their rings full; meanwhile SAs are installed and removed, and a device that recovers is reset again and again.
/// Every job comes back once: done, or aborted or stale for which there was a reset; and every buffer comes home.
pub fn threads_with_full_rings_and_resets_lose_nothing(driver: &dyn Driver) {
    for device in devices(driver) {
        let device = &*device;
        let recovers = device.desc().caps.traits.contains(Traits::RECOVERS);
        let (busy, resets) = (AtomicUsize::new(THREADS), AtomicUsize::new(0));
        let failed = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..THREADS)
                .map(|_| {
                    scope.spawn(|| {
                        let _last = Leaves(&busy, &failed);
                        for mut ring in rings(device, DEPTH) {
                            keep_full(&mut *ring, device, &resets);
                        }
                    })
                })
                .collect();
            // Meanwhile, the control plane.
            while busy.load(Ordering::SeqCst) > 0 && !failed.load(Ordering::SeqCst) {
                for cap in device.desc().caps.esp.iter().take(4) {
                    if let Ok(sa) = device.install_sa(&params(cap, Direction::Open, false, 40)) {
                        device.remove_sa(sa);
                    }
                }
                if recovers && resets.load(Ordering::SeqCst) < RESETS {
                    std::thread::sleep(Duration::from_millis(5));
                    resets.fetch_add(1, Ordering::SeqCst);
                    device.begin_reset();
                    wait_until_ready(device);
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            for worker in workers {
                if let Err(panic) = worker.join() {
                    std::panic::resume_unwind(panic);
                }
            }
        });
    }
}

/// Counts a worker out, also one that panics.
struct Leaves<'a>(&'a AtomicUsize, &'a AtomicBool);

impl Drop for Leaves<'_> {
    fn drop(&mut self) {
        self.1.fetch_or(std::thread::panicking(), Ordering::SeqCst);
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn keep_full(ring: &mut dyn Ring, device: &dyn spi::Device, resets: &AtomicUsize) {
    let kind = ring.kind();
    let (mut taken, mut done) = (0, 0);
    let mut back = HashSet::new();
    let (mut seen_resets, mut quiet) = (resets.load(Ordering::SeqCst), Instant::now());
    while done < JOBS {
        // What did not fit waits in the ring's line; more is made only when that is empty.
        let wanted = if ring.left().is_empty() { DEPTH } else { 0 };
        taken += ring.offer(wanted).unwrap_or(0);
        let (polled, seen) = ring.poll(16);
        assert_eq!(polled.delivered, seen.len(), "{kind}: delivered and callbacks differ");
        let mut stale = false;
        for seen in &seen {
            assert!(back.insert(seen.token), "{kind}: {:?} came back twice", seen.token);
            let reset = resets.load(Ordering::SeqCst) > 0;
            match seen.outcome {
                Some(Outcome::Done) => done += 1,
                outcome if reset && is_fault(outcome, FaultKind::Aborted) => {}
                outcome if reset && is_fault(outcome, FaultKind::StaleHandle) => stale = true,
                // Of one burst some were done before the reset and some not.
                None if reset => {}
                outcome => panic!("{kind}: {outcome:?}"),
            }
        }
        assert_eq!(ring.in_flight(), taken - back.len(), "{kind}: jobs in flight are miscounted");
        let now = resets.load(Ordering::SeqCst);
        if stale || now != seen_resets {
            seen_resets = now;
            wait_until_ready(device);
            ring.reinstall(device);
        }
        match seen.is_empty() {
            false => quiet = Instant::now(),
            true => {
                assert!(
                    quiet.elapsed() < 2 * DEADLINE,
                    "{kind}: nothing comes, with {} out",
                    ring.in_flight()
                );
                std::thread::sleep(Duration::from_micros(50));
            }
        }
    }
    back.extend(ring.drain().iter().map(|seen| seen.token));
    assert_eq!(back.len(), taken, "{kind}: jobs were lost or invented");
    // What still waits before the ring has its buffer.
    let waiting = if kind == "packets" { ring.left().len() } else { 0 };
    assert_eq!(ring.away(), waiting, "{kind}: buffers did not come home");
}

/// Rounds of opening, installing, working and closing.
const ROUNDS: usize = 40;
/// Growth that is no leak: the allocator's own doing.
const SLACK: Usage = Usage { octets: 4 << 20, descriptors: 20, threads: 10 };

#[derive(Clone, Copy, Debug, Default)]
struct Usage {
    octets: usize,
    descriptors: usize,
    threads: usize,
}

impl Usage {
    fn now() -> Usage {
        let list = |path| std::fs::read_dir(path).map_or(0, Iterator::count);
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
        // Pages that are there; they have 4 KiB wherever this runs.
        let pages: usize = statm.split(' ').nth(1).and_then(|text| text.parse().ok()).unwrap_or(0);
        Usage { octets: pages * 4096, descriptors: list("/proc/self/fd"), threads: list("/proc/self/task") }
    }

    fn exceeds(self, before: Usage) -> bool {
        self.octets > before.octets + SLACK.octets
            || self.descriptors > before.descriptors + SLACK.descriptors
            || self.threads > before.threads + SLACK.threads
    }
}

/// Queues and SAs that come and go leave nothing behind: no memory, no descriptor, no thread. Others may be using this process, too, so
/// it is only a leak if it grows every time.
pub fn what_is_closed_leaves_nothing_behind(driver: &dyn Driver) {
    for device in devices(driver) {
        let round = || {
            for mut ring in rings(&*device, 16) {
                ring.offer(16).expect("a healthy device takes work");
                ring.drain();
                ring.release(&*device);
            }
            for cap in device.desc().caps.esp.iter().take(8) {
                let sa = device.install_sa(&params(cap, Direction::Seal, false, 41));
                device.remove_sa(sa.expect("a declared transform is installed"));
            }
        };
        // The first rounds fill pools and caches.
        (0..ROUNDS / 4).for_each(|_| round());
        let mut all = vec![Usage::now()];
        let grows = (0..4).all(|n| {
            (0..ROUNDS).for_each(|_| round());
            all.push(Usage::now());
            all[n + 1].exceeds(all[n])
        });
        assert!(!grows, "it grows and grows: {all:?}");
    }
}
