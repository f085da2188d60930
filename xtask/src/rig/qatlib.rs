//! The third judge: the sample program of Intel's own library, `cpa_sample_code` of qatlib, on a card of generation 4.
//!
//! It measures and does not test: of all results it compares the secrets of Diffie-Hellman only, and of the rest it counts
//! that they came. What it proves is that the library finds its way: the manager's conversation with the physical function,
//! rings, constants in the device's memory, fixed curves. The control is over Diffie-Hellman accordingly.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use super::initrd::Initrd;
use super::machine::{self, Boot, FLIPPED, Iommu, Outcome};
use super::place::Place;
use super::verdict::{Check, Control, Remark, Verdicts};

const JUDGE: &str = "qatlib";
const DEVICE: &str = "4941";

/// Bits of the sample's option `runTests`: symmetric, RSA, DSA, ECDSA, Diffie-Hellman.
const ALL: u32 = 1 | 2 | 4 | 8 | DIFFIE_HELLMAN;
const DIFFIE_HELLMAN: u32 = 16;

/// The last of these is loaded when a thread ends.
const FILES: &[&str] =
    &["usr/sbin/qatmgr", "usr/bin/cpa_sample_code", "usr/lib/x86_64-linux-gnu/libgcc_s.so.1"];

/// What the sample runs: its title for it, ours, and the requests it takes.
const PARTS: &[(&str, &str, &str)] = &[
    ("Cipher AES128-CBC", "aes-128-cbc", "aes-128-cbc encrypt"),
    ("Cipher AES256-CBC", "aes-256-cbc", "aes-256-cbc encrypt"),
    (
        "Algorithm Chaining - AES256-CBC HMAC-SHA2-512",
        "aes-cbc + hmac-sha512",
        "aes-256-cbc encrypt, hmac-sha512 generate",
    ),
    (
        "Algorithm Chaining - AES256-CBC AES-XCBC",
        "aes-cbc + aes-xcbc",
        "aes-256-cbc encrypt, aes-128-xcbc/cmac generate",
    ),
    ("RSA CRT DECRYPT", "rsa", "rsa-2048 private crt"),
    ("DIFFIE-HELLMAN PHASE 2", "dh", "dh-2048"),
    ("DSA VERIFY", "dsa", "dsa-2048 verify"),
    ("ECDSA VERIFY", "ecdsa", "ecdsa gfp-512 verify"),
];

/// Has it judge the emulator.
pub fn judge(place: &Place, emulator: &Path, verdicts: &mut Verdicts) -> Result<()> {
    let initrd =
        Initrd::new(place)?.modules("vfio", &["vfio_iommu_type1", "vfio-pci"])?.debian(FILES)?.finish();
    let boot = |name: &str, card: &[&str], tests: u32| {
        machine::boot(
            &Boot {
                name,
                device: DEVICE,
                cards: 1,
                card,
                initrd: &initrd,
                iommu: Iommu::Full,
                megabytes: 2560,
                processors: 1,
                append: &format!("rig=qatlib tests={tests}"),
                patience: Duration::from_secs(240),
            },
            place,
            emulator,
            |_| false,
        )
    };
    let straight = boot("qatlib-4941", &[], ALL)?;
    verdicts.remarks.push(remark(&straight));
    for (title, algorithm, request) in PARTS {
        let (passed, failed) = rounds(&straight, title);
        let compared = if *algorithm == "dh" { "" } else { "the sample does not look at results" };
        verdicts.checks.push(Check {
            judge: JUDGE,
            device: DEVICE,
            algorithm: (*algorithm).to_owned(),
            passed,
            failed,
            skipped: 0,
            served: Some(straight.served(|name| name == *request)),
            counts: true,
            note: compared.to_owned(),
        });
    }
    let flipped = boot("qatlib-4941-flipped", FLIPPED, DIFFIE_HELLMAN)?;
    let failed = complaints(&flipped).filter(|line| line.contains("do not match")).count() as u64;
    verdicts.controls.push(Control {
        judge: JUDGE,
        device: DEVICE,
        what: "dh".to_owned(),
        failed,
        tried: flipped.served(|name| name == "dh-2048").max(failed),
        noticed: failed > 0,
    });
    Ok(())
}

fn remark(outcome: &Outcome) -> Remark {
    let finished = outcome.console.iter().any(|line| line == "Sample code completed successfully.");
    let complaint = complaints(outcome).next();
    let what = match (complaint, finished) {
        (Some(line), _) => format!("{line}; see {}", outcome.logs.display()),
        (None, true) => format!("the sample came to its end; {} requests served", outcome.served(|_| true)),
        (None, false) => {
            let why = outcome.trouble.as_deref().unwrap_or("the sample ended early");
            format!("{why}; see {}", outcome.logs.display())
        }
    };
    let good = complaint.is_none() && finished && outcome.said("exit").next() == Some("0");
    Remark { judge: JUDGE, device: DEVICE, what, good }
}

/// Lines in which the sample is not content.
fn complaints(outcome: &Outcome) -> impl Iterator<Item = &String> {
    outcome.console.iter().filter(|line| {
        !line.starts_with("rig: ")
            && (line.contains("Error") || line.contains("FAILED") || line.contains("ailed"))
    })
}

/// Rounds under a title in which as many responses came as requests went, and those in which not.
fn rounds(outcome: &Outcome, title: &str) -> (u64, u64) {
    let (mut passed, mut failed) = (0, 0);
    let mut lines = outcome.console.iter();
    while lines.by_ref().any(|line| line == title) {
        let mut value = |what: &str| {
            let line = lines.by_ref().find(|line| line.starts_with(what))?;
            line.split_whitespace().last()?.parse::<u64>().ok()
        };
        match (value("Total Submissions"), value("Total Responses")) {
            (Some(sent), Some(came)) if sent == came && sent > 0 => passed += 1,
            _ => failed += 1,
        }
    }
    (passed, failed)
}
