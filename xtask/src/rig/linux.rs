//! The first judge: Linux's own driver for 8086:37c9, `qat_c62xvf`, unmodified. As it registers its algorithms the kernel
//! tests each with its own vectors (`crypto/testmgr.h`), and says in /proc/crypto how that went.
//!
//! A test can pass without the card having seen a request: where an algorithm's software fallback cannot be had, the kernel
//! takes that for a reason not to test at all. So the modules with the fallbacks are loaded first, and a test counts only
//! if the card has served requests by that name.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use super::initrd::Initrd;
use super::machine::{self, Boot, FLIPPED, Iommu, Outcome};
use super::place::Place;
use super::verdict::{Check, Control, Remark, Verdicts};

const JUDGE: &str = "linux";
const DEVICE: &str = "37c9";

/// What must be there before the driver is: templates and fallbacks that are modules in Debian's kernel.
const ALGORITHMS: &[&str] = &["authenc", "xts", "cbc", "ctr", "ecb", "hmac"];
const DRIVER: &[&str] = &["qat_c62xvf"];

/// An algorithm of the driver.
struct Algorithm {
    /// As the driver calls it.
    driver: &'static str,
    /// As we do.
    name: &'static str,
    /// Whether a request that the card has counted is one of it.
    fits: fn(&str) -> bool,
}

const ALGORITHMS_OF_DRIVER: &[Algorithm] = &[
    Algorithm { driver: "qat_aes_cbc", name: "aes-cbc", fits: |name| alone(name, "-cbc ") },
    Algorithm { driver: "qat_aes_ctr", name: "aes-ctr", fits: |name| alone(name, "-ctr ") },
    Algorithm { driver: "qat_aes_xts", name: "aes-xts", fits: |name| alone(name, "-xts ") },
    Algorithm {
        driver: "qat_aes_cbc_hmac_sha1",
        name: "aes-cbc + hmac-sha1",
        fits: |name| both(name, "hmac-sha1 "),
    },
    Algorithm {
        driver: "qat_aes_cbc_hmac_sha256",
        name: "aes-cbc + hmac-sha256",
        fits: |name| both(name, "hmac-sha256 "),
    },
    Algorithm {
        driver: "qat_aes_cbc_hmac_sha512",
        name: "aes-cbc + hmac-sha512",
        fits: |name| both(name, "hmac-sha512 "),
    },
    Algorithm { driver: "qat-rsa", name: "rsa", fits: |name| name.starts_with("rsa-") },
    Algorithm { driver: "qat-dh", name: "dh", fits: |name| name.starts_with("dh-") },
];

fn alone(name: &str, mode: &str) -> bool {
    name.starts_with("aes-") && name.contains(mode) && !name.contains(", ")
}

fn both(name: &str, hash: &str) -> bool {
    name.starts_with("aes-") && name.contains("-cbc ") && name.contains(hash)
}

/// Has it judge the emulator.
pub fn judge(place: &Place, emulator: &Path, verdicts: &mut Verdicts) -> Result<()> {
    let initrd = Initrd::new(place)?.modules("algorithms", ALGORITHMS)?.modules("driver", DRIVER)?.finish();
    let boot = |name: &str, card: &[&str]| {
        machine::boot(
            &Boot {
                name,
                device: DEVICE,
                cards: 1,
                card,
                initrd: &initrd,
                iommu: Iommu::Full,
                megabytes: 512,
                processors: 1,
                append: "rig=linux",
                patience: Duration::from_secs(150),
            },
            place,
            emulator,
            |_| false,
        )
    };
    let straight = boot("linux-37c9", &[])?;
    verdicts.remarks.push(bound(&straight));
    for algorithm in ALGORITHMS_OF_DRIVER {
        let word = selftest(&straight, algorithm.driver);
        let passed = word == Some("passed");
        let mut note = word.map_or_else(|| "not registered".to_owned(), |word| format!("self-test {word}"));
        if let Some(line) = complaint(&straight, algorithm.driver) {
            note.push_str(": ");
            note.push_str(line);
        }
        verdicts.checks.push(Check {
            judge: JUDGE,
            device: DEVICE,
            algorithm: algorithm.name.to_owned(),
            passed: u64::from(passed),
            failed: u64::from(!passed),
            skipped: 0,
            served: Some(straight.served(algorithm.fits)),
            counts: true,
            note,
        });
    }

    let flipped = boot("linux-37c9-flipped", FLIPPED)?;
    for algorithm in ALGORITHMS_OF_DRIVER {
        let noticed = selftest(&flipped, algorithm.driver) != Some("passed")
            && complaint(&flipped, algorithm.driver).is_some();
        verdicts.controls.push(Control {
            judge: JUDGE,
            device: DEVICE,
            what: algorithm.name.to_owned(),
            failed: u64::from(noticed),
            tried: 1,
            noticed,
        });
    }
    Ok(())
}

fn bound(outcome: &Outcome) -> Remark {
    let driver = outcome.said("bound").next().unwrap_or("nothing").to_owned();
    let state = outcome.said("state").next().unwrap_or("unknown");
    let trouble =
        outcome.trouble.as_ref().map(|trouble| format!("; {trouble}, see {}", outcome.logs.display()));
    Remark {
        judge: JUDGE,
        device: DEVICE,
        what: format!("bound by {driver}, state {state}{}", trouble.unwrap_or_default()),
        good: outcome.complete && driver.ends_with("c6xxvf"),
    }
}

/// What /proc/crypto says of a driver's test.
fn selftest<'a>(outcome: &'a Outcome, driver: &str) -> Option<&'a str> {
    outcome.said("crypto").find_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some(driver)).then(|| words.last()).flatten()
    })
}

/// What the kernel's log says of a test that failed.
fn complaint<'a>(outcome: &'a Outcome, driver: &str) -> Option<&'a str> {
    outcome.said("dmesg").find(|line| {
        line.contains("alg:")
            && line.split_whitespace().any(|word| word.trim_matches([':', '"', '(', ')']) == driver)
    })
}
