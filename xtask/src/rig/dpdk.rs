//! The second judge: DPDK's own tests (`dpdk-test` of Debian's package) of its own driver, `crypto_qat`, both unmodified,
//! on both generations.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use super::initrd::Initrd;
use super::machine::{self, Boot, FLIPPED, Iommu, Outcome};
use super::place::Place;
use super::verdict::{Check, Control, Remark, Verdicts};

const JUDGE: &str = "dpdk";
const DEVICES: &[&str] = &["4941", "37c9"];
const TESTS: &[(&str, &str)] = &[("sym", "cryptodev_qat_autotest"), ("asym", "cryptodev_qat_asym_autotest")];
/// DPDK's tests of SNOW 3G and KASUMI, which no card here has, read through a null pointer when the card reports an error.
const QUIETLY: &[&str] = &["--quiet-refusals"];
/// So many failures prove that a flipped bit is noticed.
const ENOUGH: u64 = 25;

/// Times a test is run when the machine was too busy for it.
const TRIES: usize = 3;

const FILES: &[&str] = &[
    "usr/bin/dpdk-test",
    "usr/lib/x86_64-linux-gnu/librte_common_qat.so.25",
    "usr/lib/x86_64-linux-gnu/librte_crypto_openssl.so.25",
    "usr/lib/x86_64-linux-gnu/librte_mempool_ring.so.25",
    "usr/lib/x86_64-linux-gnu/librte_bus_pci.so.25",
    "usr/lib/x86_64-linux-gnu/librte_bus_vdev.so.25",
    "usr/lib/x86_64-linux-gnu/ossl-modules/legacy.so",
];

/// Has it judge the emulator.
pub fn judge(place: &Place, emulator: &Path, verdicts: &mut Verdicts) -> Result<()> {
    let initrd =
        Initrd::new(place)?.modules("vfio", &["vfio_iommu_type1", "vfio-pci"])?.debian(FILES)?.finish();
    for device in DEVICES {
        for (kind, test) in TESTS {
            let boot = |name: &str, card: &[&str], enough: &mut dyn FnMut(&str) -> bool| {
                machine::boot(
                    &Boot {
                        name,
                        device,
                        cards: 1,
                        card,
                        initrd: &initrd,
                        iommu: Iommu::Full,
                        megabytes: 1024,
                        processors: 1,
                        append: &format!("rig=dpdk test={test}"),
                        patience: Duration::from_secs(400),
                    },
                    place,
                    emulator,
                    enough,
                )
            };
            let name = format!("dpdk-{device}-{kind}");
            let mut straight = boot(&name, QUIETLY, &mut |_| false)?;
            for _ in 1..TRIES {
                if !was_starved(&straight) {
                    break;
                }
                straight = boot(&name, QUIETLY, &mut |_| false)?;
            }
            let cases = cases(&straight.console);
            verdicts.remarks.push(remark(device, test, &straight, &cases));
            verdicts.checks.extend(by_algorithm(device, &straight, &cases));

            let mut failures = 0;
            let flipped = boot(&format!("dpdk-{device}-{kind}-flipped"), FLIPPED, &mut |line| {
                failures += u64::from(Case::read("", line).is_some_and(|case| case.result == Ended::Failed));
                failures >= ENOUGH
            })?;
            let cases = self::cases(&flipped.console);
            let failed = count(&cases, Ended::Failed);
            verdicts.controls.push(Control {
                judge: JUDGE,
                device,
                what: (*test).to_owned(),
                failed,
                tried: failed + count(&cases, Ended::Passed),
                noticed: failed > 0,
            });
        }
    }
    Ok(())
}

/// The driver gives the firmware a fifth of a second to say its version, and gives up the case otherwise: on a machine that has other
/// things to do, a guest in translation can stand still for that long. Nothing is wrong with an answer then; there was none.
fn was_starved(outcome: &Outcome) -> bool {
    outcome.console.iter().any(|line| line.contains("qat_cq_get_fw_version(): No response received"))
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ended {
    Passed,
    Failed,
    Skipped,
}

/// A case of the test program.
#[derive(Debug, PartialEq, Eq)]
struct Case {
    suite: String,
    name: String,
    result: Ended,
}

impl Case {
    /// From a line like ` + TestCase [ 3] : AES-128-CBC HMAC-SHA1 Encryption succeeded`.
    fn read(suite: &str, line: &str) -> Option<Case> {
        let rest = line.trim_start().strip_prefix("+ TestCase [")?;
        let (_, rest) = rest.split_once("] : ")?;
        let (name, word) = rest.rsplit_once(' ')?;
        let result = match word {
            "succeeded" => Ended::Passed,
            "failed" => Ended::Failed,
            "skipped" | "unsupported" => Ended::Skipped,
            _ => return None,
        };
        Some(Case { suite: suite.to_owned(), name: name.to_owned(), result })
    }
}

fn cases(console: &[String]) -> Vec<Case> {
    let mut suite = String::new();
    let mut cases = Vec::new();
    for line in console {
        if let Some(name) = line.trim_start().strip_prefix("+ Test Suite : ") {
            suite = name.trim().to_owned();
        }
        cases.extend(Case::read(&suite, line));
    }
    cases
}

fn count(cases: &[Case], result: Ended) -> u64 {
    cases.iter().filter(|case| case.result == result).count() as u64
}

fn remark(device: &'static str, test: &str, outcome: &Outcome, cases: &[Case]) -> Remark {
    let exit = outcome.said("exit").next();
    let mut what = format!(
        "{test}: {} passed, {} failed, {} skipped; {} requests served; ",
        count(cases, Ended::Passed),
        count(cases, Ended::Failed),
        count(cases, Ended::Skipped),
        outcome.served(|_| true),
    );
    match (exit, &outcome.trouble) {
        (Some("0"), _) => what.push_str("the program ended by itself"),
        (Some(code), _) => {
            what.push_str(&format!("the program ended with {code}, see {}", outcome.logs.display()))
        }
        (None, trouble) => what.push_str(&format!(
            "{}, see {}",
            trouble.as_deref().unwrap_or("the program did not run"),
            outcome.logs.display()
        )),
    }
    Remark {
        judge: JUDGE,
        device,
        what,
        good: exit == Some("0") && count(cases, Ended::Passed) > 0 && outcome.served(|_| true) > 0,
    }
}

/// The cases, algorithm by algorithm.
fn by_algorithm(device: &'static str, outcome: &Outcome, cases: &[Case]) -> Vec<Check> {
    let mut found: BTreeMap<String, [u64; 3]> = BTreeMap::new();
    for case in cases {
        let counts = found.entry(algorithm(case)).or_default();
        counts[match case.result {
            Ended::Passed => 0,
            Ended::Failed => 1,
            Ended::Skipped => 2,
        }] += 1;
    }
    let checks = found.into_iter().filter(|(_, [passed, failed, _])| passed + failed > 0);
    checks
        .map(|(algorithm, [passed, failed, skipped])| {
            let beyond = BEYOND.iter().any(|word| algorithm.contains(word));
            Check {
                judge: JUDGE,
                device,
                passed,
                failed,
                skipped,
                served: served(outcome, &algorithm),
                counts: !beyond,
                note: if beyond { "the card does not say that it can" } else { "" }.to_owned(),
                algorithm,
            }
        })
        .collect()
}

/// Requests that the card has counted under names that mean the same algorithm; none where the names do not tell.
fn served(outcome: &Outcome, wanted: &str) -> Option<u64> {
    // One request for both: the card cannot know which of the two it computes.
    let wanted = wanted.replace("cmac", "xcbc");
    let same = |name: &str| {
        algorithm(&Case { suite: String::new(), name: name.to_owned(), result: Ended::Passed }) == wanted
    };
    Some(outcome.served(same)).filter(|served| *served > 0)
}

/// What the driver has compiled in and the card does not claim.
const BEYOND: &[&str] = &["snow3g", "zuc", "kasumi"];

/// Words in the names of cases, the first that is there counts, and what they mean.
const CIPHERS: &[(&str, &str)] = &[
    ("snow3g", "snow3g"),
    ("snow-3g", "snow3g"),
    ("zuc", "zuc"),
    ("kasumi", "kasumi"),
    ("docsis", "docsis"),
    ("chacha20", "chacha20-poly1305"),
    ("aes-gmac", "aes-gmac"),
    ("gmac", "aes-gmac"),
    ("gcm", "aes-gcm"),
    ("ccm", "aes-ccm"),
    ("sm4-cbc", "sm4-cbc"),
    ("sm4-ecb", "sm4-ecb"),
    ("sm4-ctr", "sm4-ctr"),
    ("xts", "aes-xts"),
    ("3des", "3des"),
    ("des-cbc", "des"),
    ("-ecb", "aes-ecb"),
    ("-cbc", "aes-cbc"),
    ("-ctr", "aes-ctr"),
    ("rsa", "rsa"),
    ("mod-exp", "modexp"),
    ("mod-inv", "modinv"),
    ("modular exponentiation", "modexp"),
    ("modex", "modexp"),
    ("ecdsa", "ecdsa"),
    ("ecpm", "ec multiply"),
    ("ecdh", "ecdh"),
    ("sm2", "sm2"),
    ("-dh-", "dh"),
    ("modular inverse", "modinv"),
    ("null", "null"),
    ("eddsa", "eddsa"),
    ("dsa", "dsa"),
];

const HASHES: &[(&str, &str)] = &[
    ("hmac-sha1", "hmac-sha1"),
    ("hmac-sha224", "hmac-sha224"),
    ("hmac-sha256", "hmac-sha256"),
    ("hmac-sha384", "hmac-sha384"),
    ("hmac-sha512", "hmac-sha512"),
    ("hmac-md5", "hmac-md5"),
    ("md5-hmac", "hmac-md5"),
    ("hmac-sm3", "hmac-sm3"),
    ("sm3", "sm3"),
    ("sha3-", "sha3"),
    ("xcbc", "aes-xcbc"),
    ("cmac", "aes-cmac"),
    ("sha1", "sha1"),
    ("sha224", "sha224"),
    ("sha256", "sha256"),
    ("sha384", "sha384"),
    ("sha512", "sha512"),
    ("md5", "md5"),
];

/// What a case is about, as far as its name and its suite's tell.
fn algorithm(case: &Case) -> String {
    let plain = |text: &str| text.to_lowercase().replace('_', "-");
    let (name, suite) = (plain(&case.name), plain(&case.suite));
    let find = |words: &[(&'static str, &'static str)], text: &str| {
        words.iter().find(|(word, _)| text.contains(word)).map(|(_, meaning)| *meaning)
    };
    let cipher = find(CIPHERS, &name);
    let hash = find(HASHES, &name);
    match (cipher, hash) {
        (Some(cipher @ ("aes-cbc" | "aes-ctr" | "3des" | "des")), Some(hash)) => format!("{cipher} + {hash}"),
        (None | Some("null"), Some(hash)) => hash.to_owned(),
        (Some(cipher), _) => cipher.to_owned(),
        (None, None) => {
            find(CIPHERS, &suite).or_else(|| find(HASHES, &suite)).unwrap_or("handling").to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_are_read_with_their_suites() {
        let console = [
            " + Test Suite : AES Chain",
            " + TestCase [ 0] : AES-128-CTR HMAC-SHA1 Encryption Digest succeeded",
            " + TestCase [ 1] : AES-256-CBC HMAC-SHA512 Decryption failed",
            " + Test Suite : AES GCM Authentication Test Suite",
            " + TestCase [10] : test_AES_GCM_authenticated_encryption_test_case_1 unsupported",
        ]
        .map(str::to_owned);
        let cases = cases(&console);
        let found: Vec<_> = cases.iter().map(|case| (algorithm(case), case.result)).collect();
        assert_eq!(
            found,
            [
                ("aes-ctr + hmac-sha1".to_owned(), Ended::Passed),
                ("aes-cbc + hmac-sha512".to_owned(), Ended::Failed),
                ("aes-gcm".to_owned(), Ended::Skipped),
            ]
        );
    }
}
