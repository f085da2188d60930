//! Our own driver in a guest: a program of ours on the kernel's real /dev/vfio, with an IOMMU between it and the card.
//!
//! The program gets the card's place on the bus (`0000:00:05.0`) as its argument and prints a line `PASS name` or
//! `FAIL name` for each thing it tries. With `probe` before the place it only opens the card; where the machine or the
//! kernel's settings make that impossible it has to fail and to name what is missing.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use super::initrd::Initrd;
use super::machine::{self, Boot, FLIPPED, Iommu};
use super::place::Place;
use super::verdict::{Check, Control, Remark, Verdicts};

const JUDGE: &str = "driver";
const DEVICES: &[&str] = &["4941", "37c9"];

/// So many failures prove that a flipped bit is noticed.
const ENOUGH: u64 = 3;

/// A machine on which the card cannot be used.
struct Obstacle {
    name: &'static str,
    device: &'static str,
    iommu: Iommu,
    append: &'static str,
    /// What the error must speak of.
    word: &'static str,
}

const OBSTACLES: &[Obstacle] = &[
    Obstacle { name: "no-iommu", device: "4941", iommu: Iommu::None, append: "", word: "iommu" },
    Obstacle {
        name: "no-remapping",
        device: "4941",
        iommu: Iommu::NoRemapping,
        append: "",
        word: "interrupt remapping",
    },
    Obstacle {
        name: "denylist",
        device: "37c9",
        iommu: Iommu::Full,
        append: "denylist=kept",
        word: "disable_denylist",
    },
    Obstacle { name: "not-bound", device: "4941", iommu: Iommu::Full, append: "bind=no", word: "vfio-pci" },
];

/// Has the emulator judge the driver, and the kernel both.
pub fn judge(place: &Place, emulator: &Path, program: &Path, verdicts: &mut Verdicts) -> Result<()> {
    let initrd = Initrd::new(place)?
        .modules("vfio", &["vfio_iommu_type1", "vfio-pci"])?
        .program("program", program)?
        .finish();
    let boot = |name: &str, device, card: &[&str], iommu, append: &str, most: u64| {
        let mut failures = 0;
        machine::boot(
            &Boot {
                name,
                device,
                cards: 1,
                card,
                initrd: &initrd,
                iommu,
                megabytes: 1024,
                processors: 1,
                append: &format!("rig=driver {append}"),
                patience: Duration::from_secs(200),
            },
            place,
            emulator,
            |line| {
                failures += u64::from(line.starts_with("FAIL "));
                failures >= most
            },
        )
    };
    for device in DEVICES {
        let outcome = boot(&format!("driver-{device}"), device, &[], Iommu::Full, "", u64::MAX)?;
        let (passed, failed) = outcome.passes();
        let exit = outcome.said("exit").next();
        verdicts.checks.push(Check {
            judge: JUDGE,
            device,
            algorithm: "all".to_owned(),
            passed,
            failed: failed + u64::from(exit != Some("0")),
            skipped: 0,
            served: Some(outcome.served(|_| true)),
            counts: true,
            note: outcome.first_trouble(),
        });
        let outcome = boot(&format!("driver-{device}-flipped"), device, FLIPPED, Iommu::Full, "", ENOUGH)?;
        let (passed, failed) = outcome.passes();
        verdicts.controls.push(Control {
            judge: JUDGE,
            device,
            what: "all".to_owned(),
            failed,
            tried: passed + failed,
            noticed: failed > 0,
        });
    }
    for obstacle in OBSTACLES {
        let name = format!("driver-{}", obstacle.name);
        let append = format!("only=probe {}", obstacle.append);
        let outcome = boot(&name, obstacle.device, &[], obstacle.iommu, &append, u64::MAX)?;
        let refused = outcome.said("exit").next().is_some_and(|code| code != "0");
        let spoken = outcome
            .console
            .iter()
            .find(|line| !line.starts_with("rig: ") && line.to_lowercase().contains(obstacle.word));
        verdicts.remarks.push(Remark {
            judge: JUDGE,
            device: obstacle.device,
            what: format!(
                "{}: {}",
                obstacle.name,
                spoken.map_or_else(|| format!("no error that speaks of {}", obstacle.word), String::clone)
            ),
            good: refused && spoken.is_some(),
        });
    }
    Ok(())
}
