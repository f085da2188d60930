//! Times in which nothing came, and those in which nothing could: a machine that stood still has not lost a packet.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How often the machine is felt.
const BEAT: Duration = Duration::from_millis(10);
/// A beat that comes so late is a machine that stood still.
const LATE: Duration = Duration::from_millis(60);

/// A time in which nothing came, by the clock: seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Silence {
    /// When something came the last time.
    pub from: f64,
    /// When something came again.
    pub to: f64,
}

/// The clock.
pub fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

impl Silence {
    /// How long it was, without the times in which the machine stood still.
    pub fn counts(&self, still: &[Silence]) -> Duration {
        let overlap = |other: &Silence| (self.to.min(other.to) - self.from.max(other.from)).max(0.0);
        let seconds = self.to - self.from - still.iter().map(overlap).sum::<f64>();
        Duration::from_secs_f64(seconds.max(0.0))
    }
}

/// The longest of some.
pub fn longest(silences: &[Silence], still: &[Silence]) -> Duration {
    silences.iter().map(|silence| silence.counts(still)).max().unwrap_or_default()
}

/// The times between moments that are not nearer to each other than this.
pub fn between(moments: &[f64], least: Duration) -> Vec<Silence> {
    let pairs = moments.iter().zip(moments.iter().skip(1));
    let silences = pairs.map(|(from, to)| Silence { from: *from, to: *to });
    silences.filter(|silence| silence.to - silence.from >= least.as_secs_f64()).collect()
}

/// Feels whether the machine runs.
pub struct Pulse {
    stop: Arc<AtomicBool>,
    still: Arc<Mutex<Vec<Silence>>>,
    beats: JoinHandle<()>,
}

impl Pulse {
    /// From now on.
    pub fn begin() -> Pulse {
        let (stop, still) = (Arc::new(AtomicBool::new(false)), Arc::<Mutex<Vec<Silence>>>::default());
        let (stopped, noted) = (Arc::clone(&stop), Arc::clone(&still));
        let beats = thread::spawn(move || {
            let mut last = now();
            while !stopped.load(Ordering::Relaxed) {
                thread::sleep(BEAT);
                let beat = now();
                if beat - last > (BEAT + LATE).as_secs_f64() {
                    list(&noted).push(Silence { from: last + BEAT.as_secs_f64(), to: beat });
                }
                last = beat;
            }
        });
        Pulse { stop, still, beats }
    }

    /// The longest time that it stood still since a moment.
    pub fn longest_since(&self, moment: f64) -> Duration {
        let still = list(&self.still);
        let late: Vec<Silence> = still.iter().filter(|silence| silence.to > moment).copied().collect();
        longest(&late, &[])
    }

    /// When it stood still.
    pub fn end(self) -> Vec<Silence> {
        self.stop.store(true, Ordering::Relaxed);
        self.beats.join().ok();
        list(&self.still).clone()
    }
}

fn list(still: &Mutex<Vec<Silence>>) -> MutexGuard<'_, Vec<Silence>> {
    still.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_counts_is_silence_in_which_the_machine_ran() {
        let silences = between(&[1.0, 1.1, 2.1, 2.2, 2.7], Duration::from_millis(400));
        assert_eq!(silences, [Silence { from: 1.1, to: 2.1 }, Silence { from: 2.2, to: 2.7 }]);
        let still = [Silence { from: 1.5, to: 2.15 }, Silence { from: 3.0, to: 4.0 }];
        assert_eq!(longest(&silences, &[]), Duration::from_secs(1));
        assert_eq!(longest(&silences, &still), Duration::from_millis(500));
        assert_eq!(silences[0].counts(&still).as_millis(), 400);
    }
}
