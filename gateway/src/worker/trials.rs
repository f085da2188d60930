//! What packets cost on each device, measured with throw-away packets: at the start for every transform the configuration has, and
//! for new ones when it is read again. Devices that have several engines inside pick theirs by the way.
//!
//! Between two devices of the list the later one goes first for a transform only when it is clearly cheaper; one that fails its
//! trial goes last.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use policy::{EspProposal, Realm};
use spi::measure::{Effort, Load, Meter};
use spi::{Device, Encr, Fault, Integ};

/// An ESP transform.
pub(in crate::worker) type Transform = (Encr, Integ);

/// What is measured: a small packet alone, and a full burst of large ones, by which devices are ranked.
const LOADS: [Load; 2] = [Load { text: 64, burst: 1 }, Load { text: 1400, burst: 32 }];
/// Enough for a ranking; a start is not to take long.
const EFFORT: Effort =
    Effort { packets: 64, rounds: 5, latency: false, patience: Duration::from_millis(500) };
/// How long a burst may take the second time.
const PATIENCE: Duration = Duration::from_secs(2);
/// A device goes before one that is ahead of it in the list when its cost is less than this part of the other's.
const CLEARLY: f64 = 0.9;

/// One device and one transform.
#[derive(Clone, Debug)]
pub(in crate::worker) struct Trial {
    pub(in crate::worker) transform: Transform,
    /// The device's number.
    pub(in crate::worker) device: usize,
    /// Nanoseconds of CPU per packet, for each of the loads: the mean of both directions.
    pub(in crate::worker) cost: Result<[f64; LOADS.len()], Fault>,
}

impl Trial {
    /// The loads and their costs.
    pub(in crate::worker) fn costs(&self) -> impl Iterator<Item = (Load, f64)> {
        LOADS.into_iter().zip(self.cost.iter().flatten().copied())
    }

    fn rank(&self) -> f64 {
        self.cost.map_or(f64::INFINITY, |costs| costs[LOADS.len() - 1])
    }
}

/// All trials so far; a clone is the same book.
#[derive(Clone, Default)]
pub(in crate::worker) struct Trials(Arc<Mutex<Vec<Trial>>>);

impl Trials {
    /// Tries every transform on every device that carries it, where that was not done yet. Some milliseconds for each.
    pub(in crate::worker) fn run(&self, devices: &[(usize, Arc<dyn Device>)], wanted: &[Wanted]) {
        for &Wanted { transform, esn } in wanted {
            for (number, device) in devices {
                let able = device.desc().caps.carries(transform.0, transform.1, esn);
                if !able || self.has(transform, *number) {
                    continue;
                }
                // A moment in which nothing on this machine got its turn must not count against a device for ever.
                let cost = measure(&**device, transform, esn, EFFORT)
                    .or_else(|_| measure(&**device, transform, esn, Effort { patience: PATIENCE, ..EFFORT }));
                if let Err(fault) = cost {
                    let (device, (encr, integ)) = (&device.desc().id, transform);
                    tracing::warn!(%device, %encr, %integ, %fault, "the device fails its trial of a transform");
                }
                self.book().push(Trial { transform, device: *number, cost });
            }
        }
    }

    /// The same on a thread of its own, for when packets must not wait.
    pub(in crate::worker) fn begin(&self, devices: Vec<(usize, Arc<dyn Device>)>, wanted: Vec<Wanted>) {
        let trials = self.clone();
        let thread = std::thread::Builder::new().name("trials".into());
        if let Err(error) = thread.spawn(move || trials.run(&devices, &wanted)) {
            tracing::warn!(%error, "no thread to try devices out");
        }
    }

    /// The devices in the order in which they should be asked to carry a transform.
    pub(in crate::worker) fn order(&self, transform: Transform, devices: usize) -> Vec<usize> {
        let book = self.book();
        let rank = |device: usize| {
            book.iter().find(|t| t.transform == transform && t.device == device).map_or(f64::MAX, Trial::rank)
        };
        let mut order: Vec<(usize, f64)> = Vec::with_capacity(devices);
        for device in 0..devices {
            let rank = rank(device);
            let place = order.iter().position(|(_, other)| rank < other * CLEARLY).unwrap_or(order.len());
            order.insert(place, (device, rank));
        }
        order.into_iter().map(|(device, _)| device).collect()
    }

    /// What is known of a device.
    pub(in crate::worker) fn of(&self, device: usize) -> Vec<Trial> {
        self.book().iter().filter(|trial| trial.device == device).cloned().collect()
    }

    /// Whether a device has failed its trial of a transform.
    pub(in crate::worker) fn failed(&self, transform: Transform, device: usize) -> bool {
        self.book().iter().any(|t| t.transform == transform && t.device == device && t.cost.is_err())
    }

    fn has(&self, transform: Transform, device: usize) -> bool {
        self.book().iter().any(|trial| trial.transform == transform && trial.device == device)
    }

    fn book(&self) -> std::sync::MutexGuard<'_, Vec<Trial>> {
        // Nobody leaves it half-written.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn measure(
    device: &dyn Device,
    (encr, integ): Transform,
    esn: bool,
    effort: Effort,
) -> Result<[f64; LOADS.len()], Fault> {
    let mut meter = Meter::new(device)?;
    meter.install(encr, integ, esn)?;
    let mut costs = [0.0; LOADS.len()];
    for (cost, load) in costs.iter_mut().zip(LOADS) {
        let measured = meter.measure(load, effort)?;
        *cost = (measured.seal.cpu_ns + measured.open.cpu_ns) / 2.0;
    }
    Ok(costs)
}

/// A transform the configuration has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::worker) struct Wanted {
    transform: Transform,
    /// Whether to try it with extended sequence numbers.
    esn: bool,
}

/// What the realms' children may come to.
pub(in crate::worker) fn wanted(realms: &[Arc<Realm>]) -> Vec<Wanted> {
    let children = realms.iter().flat_map(|realm| &realm.children);
    wanted_of(children.flat_map(|child| &child.esp))
}

fn wanted_of<'a>(proposals: impl Iterator<Item = &'a EspProposal>) -> Vec<Wanted> {
    let mut all: Vec<Wanted> = Vec::new();
    for EspProposal { encr, integ, esn, .. } in proposals {
        let none = [Integ::NONE];
        let integ = if integ.is_empty() { &none[..] } else { integ };
        for transform in encr.iter().flat_map(|encr| integ.iter().map(move |integ| (*encr, *integ))) {
            if all.iter().all(|known| known.transform != transform) {
                all.push(Wanted { transform, esn: esn.first().copied().unwrap_or(true) });
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    const GCM: Transform = (Encr::AES128_GCM16, Integ::NONE);

    fn trials(costs: &[(usize, Result<f64, Fault>)]) -> Trials {
        let trial = |(device, cost): &(usize, Result<f64, Fault>)| Trial {
            transform: GCM,
            device: *device,
            cost: cost.map(|cost| [1.0, cost]),
        };
        Trials(Arc::new(Mutex::new(costs.iter().map(trial).collect())))
    }

    #[test]
    fn the_list_decides_unless_a_later_device_is_clearly_cheaper() {
        let fault = Fault::new(spi::FaultKind::Internal);
        for (costs, order) in [
            (vec![], vec![0, 1, 2]),
            (vec![(0, Ok(100.0)), (1, Ok(95.0)), (2, Ok(89.0))], vec![2, 0, 1]),
            (vec![(0, Err(fault)), (1, Ok(500.0))], vec![1, 2, 0]),
            (vec![(2, Ok(500.0))], vec![2, 0, 1]),
        ] {
            let trials = trials(&costs);
            let got = trials.order(GCM, 3);
            assert_eq!(got, order, "{costs:?}");
            assert_eq!(
                trials.order((Encr::AES256_GCM16, Integ::NONE), 3),
                [0, 1, 2],
                "of another nothing is known"
            );
        }
    }

    #[test]
    fn a_device_is_measured_once_for_each_transform() {
        let drivers = registry::network_drivers(&registry::Config::default());
        let devices: Vec<_> =
            registry::open_all(&drivers).0.into_iter().map(|opened| opened.device).enumerate().collect();
        let esp: Vec<EspProposal> =
            ["aes128gcm16-x25519", "aes128gcm16", "aes256-sha256"].map(|text| text.parse().unwrap()).to_vec();
        let wanted = wanted_of(esp.iter());
        assert_eq!(wanted.len(), 2, "key exchange methods do not make another transform");
        let trials = Trials::default();
        for _ in 0..2 {
            trials.run(&devices, &wanted);
            let all = trials.of(devices.len() - 1);
            assert_eq!(all.len(), 2, "{all:?}");
            assert!(
                all.iter()
                    .all(|trial| trial.costs().count() == LOADS.len() && trial.costs().all(|c| c.1 > 0.0))
            );
        }
    }
}
