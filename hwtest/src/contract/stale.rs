use spi::caps::EspCap;
use spi::{Device, Direction, Driver, EspOp, FaultKind, Outcome, SaId};

use crate::packet::Bench;
use crate::ring::{devices, is_fault, params};

/// A handle is good until its SA is removed, and never afterwards, whoever lives in its place then.
pub fn a_removed_sa_is_stale_and_its_place_is_safe(driver: &dyn Driver) {
    for device in devices(driver) {
        let Some(cap) = device.desc().caps.esp.first().copied() else { continue };
        let install = |seed| install(&*device, &cap, seed);
        let mut bench = Bench::new(&*device);
        let mut run = |sa| bench.one(sa, Direction::Seal, EspOp::new(0, 64, 1)).map(|op| op.outcome);
        let (first, bystander) = (install(1), install(2));
        assert_eq!(run(first), Some(Outcome::Done));
        device.remove_sa(first);
        assert!(is_fault(run(first), FaultKind::StaleHandle), "a removed SA still answers");
        let later: Vec<SaId> = (3..10).map(install).collect();
        assert!(is_fault(run(first), FaultKind::StaleHandle), "an old handle reaches a new SA");
        device.remove_sa(first);
        for sa in later.iter().chain([&bystander]) {
            assert_eq!(run(*sa), Some(Outcome::Done), "removing twice took another SA away");
        }
        let invented = SaId { index: u32::MAX, epoch: first.epoch };
        assert!(is_fault(run(invented), FaultKind::StaleHandle), "an invented handle answers");
        for sa in later.into_iter().chain([bystander]) {
            device.remove_sa(sa);
        }
    }
}

fn install(device: &dyn Device, cap: &EspCap, seed: u64) -> SaId {
    device.install_sa(&params(cap, Direction::Seal, false, seed)).expect("a declared transform is installed")
}
