//! What units a processor has, by CPUID.
//!
//! Two leaves of a vendor's own range: 0xC0000000 says how far that range goes, EDX of 0xC0000001 has two bits for each unit,
//! present and enabled. Enabling is privileged (the firmware does it, or the kernel), so a unit that is present only is
//! reported and left alone.

use std::fmt;

use crate::sys::cpuid;

/// Where CPUID's answers come from: the seam for tests and emulators.
pub trait Cpuid: Send + Sync {
    /// EAX, EBX, ECX and EDX of a leaf, subleaf 0.
    fn leaf(&self, number: u32) -> [u32; 4];
}

/// The processor this runs on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Native;

impl Cpuid for Native {
    fn leaf(&self, number: u32) -> [u32; 4] {
        cpuid::leaf(number)
    }
}

impl<F: Fn(u32) -> [u32; 4] + Send + Sync> Cpuid for F {
    fn leaf(&self, number: u32) -> [u32; 4] {
        self(number)
    }
}

const HIGHEST: u32 = 0xc000_0000;
const FEATURES: u32 = 0xc000_0001;

bitflags::bitflags! {
    /// The units that this backend uses.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct Units: u32 {
        /// Random numbers: XSTORE.
        const RNG = 1 << 2;
        /// AES: XCRYPT.
        const ACE = 1 << 6;
        /// Its second version, which has counter mode.
        const ACE2 = 1 << 8;
        /// SHA-1 and SHA-256: XSHA1, XSHA256.
        const PHE = 1 << 10;
        /// Montgomery multiplication: MONTMUL.
        const PMM = 1 << 12;
    }
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Processor {
    /// The vendor's twelve letters.
    pub(crate) vendor: String,
    /// Family, model and stepping.
    pub(crate) signature: (u32, u32, u32),
    /// Units that are there and enabled.
    pub(crate) units: Units,
    /// Units that are there and not enabled.
    pub(crate) asleep: Units,
}

/// Why a processor is of no use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    /// Made by somebody else.
    Vendor(String),
    /// The range of leaves does not begin, or ends before the one with the features.
    Leaf { vendor: String, number: u32, highest: u32 },
    /// The features are there, and those that packets need are not.
    Units { vendor: String, edx: u32, asleep: Units },
}

impl Processor {
    /// Looks.
    ///
    /// # Errors
    /// What is missing for packets.
    pub(crate) fn detect(cpuid: &dyn Cpuid) -> Result<Processor, Missing> {
        let [_, b, c, d] = cpuid.leaf(0);
        let letters: Vec<u8> = [b, d, c].into_iter().flat_map(u32::to_le_bytes).collect();
        let vendor: String = letters.iter().map(|letter| char::from(*letter)).collect();
        if !matches!(vendor.as_str(), "CentaurHauls" | "  Shanghai  ") {
            return Err(Missing::Vendor(vendor));
        }
        let [highest, ..] = cpuid.leaf(HIGHEST);
        // Of a leaf that does not exist a processor may say anything; what it says of one that does begins like this.
        if !(FEATURES..FEATURES + 0x1_0000).contains(&highest) {
            let number = if highest < HIGHEST { HIGHEST } else { FEATURES };
            return Err(Missing::Leaf { vendor, number, highest });
        }
        let [.., edx] = cpuid.leaf(FEATURES);
        let present = Units::from_bits_truncate(edx);
        // Each unit's second bit is the one above its first.
        let enabled = Units::from_bits_truncate(edx >> 1);
        let (units, asleep) = (present & enabled, present - enabled);
        if !units.contains(Units::ACE | Units::PHE) {
            return Err(Missing::Units { vendor, edx, asleep });
        }
        let [version, ..] = cpuid.leaf(1);
        Ok(Processor { vendor, signature: signature(version), units, asleep })
    }
}

/// Family, model and stepping of leaf 1.
fn signature(eax: u32) -> (u32, u32, u32) {
    let (family, model, stepping) = (eax >> 8 & 15, eax >> 4 & 15, eax & 15);
    let far = if family == 15 { eax >> 20 & 255 } else { 0 };
    let wide = if matches!(family, 6 | 15) { eax >> 16 & 15 } else { 0 };
    (family + far, wide << 4 | model, stepping)
}

impl fmt::Display for Processor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (family, model, stepping) = self.signature;
        write!(f, "{} family {family} model {model} stepping {stepping}", self.vendor.trim())?;
        write!(f, ", units {}", names(self.units))?;
        if !self.asleep.is_empty() {
            write!(f, "; not enabled {}", names(self.asleep))?;
        }
        Ok(())
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Missing::Vendor(vendor) => write!(
                f,
                "this processor has no PadLock: CPUID leaf 0 says {vendor:?}, and those that have it say \"CentaurHauls\" (VIA) \
                 or \"  Shanghai  \" (Zhaoxin)"
            ),
            Missing::Leaf { vendor, number, highest } => write!(
                f,
                "this processor ({}) has no PadLock: CPUID leaf {number:#X} is missing (leaf {HIGHEST:#X} says {highest:#X})",
                vendor.trim()
            ),
            Missing::Units { vendor, edx, asleep } => {
                let vendor = vendor.trim();
                write!(
                    f,
                    "this processor ({vendor}) lacks AES or SHA: CPUID leaf {FEATURES:#X} says EDX {edx:#010x}, "
                )?;
                write!(f, "and bits 6, 7 (ACE) and 10, 11 (PHE) must be set")?;
                if !asleep.is_empty() {
                    write!(
                        f,
                        "; {} is there and not enabled, which firmware or kernel would have to do",
                        names(*asleep)
                    )?;
                }
                Ok(())
            }
        }
    }
}

fn names(units: Units) -> String {
    let names: Vec<&str> = units.iter_names().map(|(name, _)| name).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VIA: [u32; 4] = [1, 0x746e_6543, 0x736c_7561, 0x4872_7561];

    fn via(highest: u32, edx: u32) -> impl Cpuid {
        move |leaf| match leaf {
            0 => VIA,
            1 => [0x6f8, 0, 0, 0],
            HIGHEST => [highest, 0, 0, 0],
            FEATURES => [0, 0, 0, edx],
            _ => [0; 4],
        }
    }

    fn missing(cpuid: &dyn Cpuid) -> String {
        Processor::detect(cpuid).unwrap_err().to_string()
    }

    #[test]
    fn a_unit_counts_when_it_is_present_and_enabled() {
        let all = Processor::detect(&via(0xc000_0004, 0x3fcc)).unwrap();
        assert_eq!((all.units, all.asleep), (Units::all(), Units::empty()));
        assert_eq!(all.to_string(), "CentaurHauls family 6 model 15 stepping 8, units RNG ACE ACE2 PHE PMM");
        // RNG present only; ACE2 enabled and not present, which makes no sense and so does not count.
        let some = Processor::detect(&via(0xc000_0001, 0x0cc4 | 0x200)).unwrap();
        assert_eq!((some.units, some.asleep), (Units::ACE | Units::PHE, Units::RNG));
        assert!(some.to_string().ends_with("units ACE PHE; not enabled RNG"));
    }

    #[test]
    fn what_is_missing_is_named_with_its_leaf() {
        let amd = |leaf| if leaf == 0 { [16, 0x6874_7541, 0x444d_4163, 0x6974_6e65] } else { [0; 4] };
        assert!(missing(&amd).contains("CPUID leaf 0 says \"AuthenticAMD\""), "{}", missing(&amd));
        assert!(missing(&via(0, 0)).contains("CPUID leaf 0xC0000000 is missing"));
        assert!(missing(&via(0xc000_0000, 0)).contains("CPUID leaf 0xC0000001 is missing"));
        assert!(missing(&via(0xffff_ffff, 0)).contains("CPUID leaf 0xC0000001 is missing"), "nonsense");
        let asleep = missing(&via(0xc000_0001, 0x0c40));
        assert!(
            asleep.contains("EDX 0x00000c40") && asleep.contains("ACE is there and not enabled"),
            "{asleep}"
        );
    }
}
