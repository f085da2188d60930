//! Two gateways of ours in a guest, each with a card of its own on the kernel's real /dev/vfio, and an ESP tunnel between them.
//!
//! Their realm forbids anything but a card (`fallback = "never"`), so that what arrives was sealed by one card and opened by
//! the other. That they were is counted by the cards and not by us: no octet can have got through without a request for it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use super::initrd::Initrd;
use super::machine::{self, Boot, FLIPPED, Iommu, Outcome};
use super::place::Place;
use super::verdict::{Check, Control, Remark, Verdicts};
use crate::checkout;
use crate::process;

const JUDGE: &str = "driver";
const DEVICES: &[&str] = &["4941", "37c9"];
const WHAT: &str = "esp tunnel";
/// A file of this size goes through in each direction.
const KILOBYTES: u64 = 1024;
/// No packet carries more of it: the tunnel's MTU is 1400.
const LARGEST: u64 = 1400;

/// Has the emulator judge our gateway, and the kernel both.
pub fn judge(place: &Place, emulator: &Path, gateway: &Path, verdicts: &mut Verdicts) -> Result<()> {
    let initrd = Initrd::new(place)?
        .modules("vfio", &["vfio_iommu_type1", "vfio-pci"])?
        .modules("network", &["veth", "tun"])?
        .program("tussock", &without_symbols(gateway)?)?
        .program("tussock-gateway", &without_symbols(&gateway.with_file_name("tussock-gateway"))?)?
        .program("tussock-secure", &without_symbols(&gateway.with_file_name("tussock-secure"))?)?
        .finish();
    let boot = |name: &str, device, card: &[&str]| {
        let boot = Boot {
            name,
            device,
            cards: 2,
            card,
            initrd: &initrd,
            iommu: Iommu::Full,
            megabytes: 1024,
            processors: 1,
            append: &format!("rig=tunnel kilobytes={KILOBYTES}"),
            patience: Duration::from_secs(240),
        };
        machine::boot(&boot, place, emulator, |_| false)
    };
    for device in DEVICES {
        let outcome = boot(&format!("tunnel-{device}"), device, &[])?;
        let (passed, failed) = outcome.passes();
        verdicts.checks.push(Check {
            judge: JUDGE,
            device,
            algorithm: WHAT.to_owned(),
            passed,
            failed: failed + u64::from(!outcome.complete),
            skipped: 0,
            served: Some(outcome.served(is_esp)),
            counts: true,
            note: outcome.first_trouble(),
        });
        verdicts.remarks.push(by_the_cards(device, &outcome));
        let outcome = boot(&format!("tunnel-{device}-flipped"), device, FLIPPED)?;
        let (passed, failed) = outcome.passes();
        // For its own reason, and not because nothing works here at all.
        let noticed = outcome.console.iter().any(|line| line.contains("a wrong answer"));
        verdicts.controls.push(Control {
            judge: JUDGE,
            device,
            what: WHAT.to_owned(),
            failed,
            tried: passed + failed,
            noticed: failed > 0 && noticed,
        });
    }
    Ok(())
}

/// Whether each card has had a request for every packet that must have been there, and software none.
fn by_the_cards(device: &'static str, outcome: &Outcome) -> Remark {
    let least = 2 * KILOBYTES * 1024 / LARGEST;
    let served = [0, 1].map(|card| outcome.served_by(card, is_esp));
    let in_software: Vec<u64> =
        outcome.said("packets").filter_map(|line| line.split_whitespace().nth(2)?.parse().ok()).collect();
    let transferred = 2 * KILOBYTES;
    Remark {
        judge: JUDGE,
        device,
        what: format!(
            "esp tunnel: {transferred} kB in {least} packets at least; moon's card has served {} requests of ESP, sun's {}; \
             software {} and {} packets",
            served[0],
            served[1],
            in_software.first().map_or("?".to_owned(), u64::to_string),
            in_software.get(1).map_or("?".to_owned(), u64::to_string),
        ),
        good: served.iter().all(|served| *served >= least) && in_software == [0, 0],
    }
}

fn is_esp(request: &str) -> bool {
    request.contains("gcm")
}

/// The program without what only a debugger reads: the guest unpacks it slowly, and into memory.
fn without_symbols(program: &Path) -> Result<PathBuf> {
    let folder = checkout::target().join("rig");
    std::fs::create_dir_all(&folder)?;
    let small = folder.join(program.file_name().context("a program without a name")?);
    process::run(Command::new("strip").arg("-o").arg(&small).arg(program))?;
    Ok(small)
}
