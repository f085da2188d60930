//! `spi::measure` over devices of all sorts. That it measures is checked; what it measures is not.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use hwtest::{Pace, SlowDevice};
use soft::Soft;
use spi::measure::{Costs, Effort, Load, Meter};
use spi::{Device, Encr, FaultKind, Integ};

const SMALL: Effort = Effort { packets: 16, rounds: 3, latency: true, patience: Duration::from_secs(5) };

#[test]
fn every_declared_transform_can_be_measured() {
    let device = Soft::default().device();
    let mut meter = Meter::new(&*device).unwrap();
    for cap in &device.desc().caps.esp {
        meter.install(cap.encr, cap.integ, cap.esn).unwrap();
        for load in [Load { text: 64, burst: 1 }, Load { text: 1400, burst: 32 }, Load { text: 1, burst: 64 }]
        {
            let costs = meter.measure(load, SMALL).unwrap();
            let values = [costs.seal.cpu_ns, costs.open.cpu_ns, costs.seal.latency_ns, costs.open.latency_ns];
            assert!(values.iter().all(|value| *value > 0.0), "{} {}: {costs:?}", cap.encr, cap.integ);
        }
    }
}

#[test]
fn a_device_that_answers_late_and_out_of_order_is_waited_for() {
    let device = SlowDevice::new(Soft::default().device(), Pace::new(3));
    let mut meter = Meter::new(&device).unwrap();
    meter.install(Encr::AES128_GCM16, Integ::NONE, false).unwrap();
    let costs = meter.measure(Load { text: 512, burst: 4 }, SMALL).unwrap();
    assert!(costs.seal.latency_ns > 0.0 && costs.open.cpu_ns > 0.0);
    let quick = Effort { latency: false, ..SMALL };
    assert_eq!(meter.measure(Load { text: 512, burst: 4 }, quick).unwrap().seal.latency_ns, 0.0);
}

#[test]
fn a_device_that_loses_bursts_is_given_up() {
    let never = Pace { least: u64::MAX / 4, most: u64::MAX / 4, shuffle: false, seed: 1 };
    let device = SlowDevice::new(Soft::default().device(), never);
    let mut meter = Meter::new(&device).unwrap();
    meter.install(Encr::AES128_GCM16, Integ::NONE, false).unwrap();
    let effort = Effort { patience: Duration::from_millis(20), ..SMALL };
    for _ in 0..2 {
        let fault = meter.measure(Load { text: 64, burst: 1 }, effort).map_err(|fault| fault.kind);
        assert_eq!(fault, Err(FaultKind::Internal));
    }
}

#[test]
fn what_cannot_be_measured_is_said_and_nothing_stays_installed() {
    let device = Soft::default().device();
    let mut meter = Meter::new(&*device).unwrap();
    let load = Load { text: 64, burst: 1 };
    assert_eq!(meter.measure(load, SMALL), Err(FaultKind::Unsupported.into()), "nothing is installed");
    assert_eq!(meter.install(Encr::AES128_CBC, Integ::NONE, false), Err(FaultKind::Unsupported.into()));
    meter.install(Encr::AES128_GCM16, Integ::NONE, false).unwrap();
    let huge = Load { text: 60_000, burst: 3 };
    assert_eq!(meter.measure(huge, SMALL), Err(FaultKind::Unsupported.into()), "no room for such a burst");
    assert!(meter.measure(load, SMALL).is_ok(), "which was not the device's fault");
    drop(meter);
    let taken =
        device.install_sa(&hwtest::ring::params(&device.desc().caps.esp[0], spi::Direction::Seal, false, 1));
    assert!(taken.unwrap().index < 2, "the places of the two SAs are free again");
}

#[test]
fn the_median_and_the_least_are_taken_value_by_value() {
    let of = |seal, open| {
        let mut costs = Costs::default();
        (costs.seal.cpu_ns, costs.open.latency_ns) = (seal, open);
        costs
    };
    let rounds = [of(3.0, 10.0), of(1.0, 30.0), of(2.0, 20.0)];
    assert_eq!(Costs::median(&rounds), of(2.0, 20.0));
    assert_eq!(Costs::least(&rounds), of(1.0, 10.0));
    assert_eq!(Costs::median(&[]), Costs::default());
}
