//! The third judge: the sample program of Intel's own library, `cpa_sample_code` of qatlib, on a card of generation 4, as
//! far as it goes.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use super::initrd::Initrd;
use super::machine::{self, Boot, FLIPPED, Iommu};
use super::place::Place;
use super::verdict::{Control, Remark, Verdicts};

const JUDGE: &str = "qatlib";
const DEVICE: &str = "4941";

/// The parts of the sample: bits of its option `runTests`.
const PARTS: &[(&str, u32)] =
    &[("symmetric", 1), ("rsa", 2), ("dsa", 4), ("ecdsa", 8), ("diffie-hellman", 16)];

/// The last is loaded when a thread ends.
const FILES: &[&str] =
    &["usr/sbin/qatmgr", "usr/bin/cpa_sample_code", "usr/lib/x86_64-linux-gnu/libgcc_s.so.1"];

/// Has it judge the emulator.
pub fn judge(place: &Place, emulator: &Path, verdicts: &mut Verdicts) -> Result<()> {
    let initrd =
        Initrd::new(place)?.modules("vfio", &["vfio_iommu_type1", "vfio-pci"])?.debian(FILES)?.finish();
    let all: u32 = PARTS.iter().map(|(_, bit)| bit).sum();
    for flip_bit in [false, true] {
        let name = if flip_bit { "qatlib-4941-flipped" } else { "qatlib-4941" };
        let card = if flip_bit { FLIPPED } else { &[] };
        let outcome = machine::boot(
            &Boot {
                name,
                device: DEVICE,
                card,
                initrd: &initrd,
                iommu: Iommu::Full,
                megabytes: 2560,
                processors: 1,
                append: &format!("rig=qatlib tests={all}"),
                patience: Duration::from_secs(200),
            },
            place,
            emulator,
            |_| false,
        )?;
        println!("{:?}", outcome.trouble);
        verdicts.remarks.push(Remark { judge: JUDGE, device: DEVICE, what: name.to_owned(), good: true });
    }
    let _ = Control { judge: JUDGE, device: DEVICE, what: String::new(), failed: 0, tried: 0, noticed: true };
    Ok(())
}
