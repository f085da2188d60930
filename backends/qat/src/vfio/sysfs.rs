//! What sysfs says of a function, and what is in the way of using it. Nothing is touched: everything here can be said before
//! anything is opened, and says what to do.

use std::fs;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use crate::generation::{INTEL, MODELS, Model, PHYSICAL, model};
use crate::pci::PciError;

/// The file systems that the kernel shows itself in; another root than `/` for tests.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    root: PathBuf,
}

/// A function that nothing is in the way of, as far as sysfs knows.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    /// Its product.
    pub(crate) product: &'static str,
    /// Its folder.
    pub(crate) folder: PathBuf,
    /// Number of its IOMMU group.
    pub(crate) group: u32,
    pub(crate) numa_node: Option<u8>,
    /// Addresses that the IOMMU does not translate.
    pub(crate) reserved: Vec<RangeInclusive<u64>>,
}

/// Drivers of bridges and of VFIO, which do no DMA of their own: they may share a group with us.
const HARMLESS: [&str; 3] = ["vfio-pci", "pcieport", "pci-stub"];

fn unusable<T>(why: String) -> Result<T, PciError> {
    Err(PciError::Unusable(why))
}

impl Host {
    pub(crate) fn new(root: &Path) -> Host {
        Host { root: root.into() }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    fn device(&self, address: &str) -> PathBuf {
        self.at("sys/bus/pci/devices").join(address)
    }

    /// Functions that this driver knows, by address.
    pub(crate) fn known(&self) -> Vec<(String, &'static Model)> {
        let entries = fs::read_dir(self.at("sys/bus/pci/devices")).into_iter().flatten().flatten();
        let mut list: Vec<_> = entries
            .filter_map(|entry| {
                let address = entry.file_name().into_string().ok()?;
                let (vendor, device) = ids(&entry.path())?;
                Some((address, model(vendor, device)?))
            })
            .collect();
        list.sort_by(|a, b| a.0.cmp(&b.0));
        list
    }

    /// Looks at a function.
    ///
    /// # Errors
    /// [`PciError::Unusable`] with the first thing that is in the way.
    pub(crate) fn look(&self, address: &str) -> Result<Found, PciError> {
        if !is_pci_address(address) {
            return unusable(format!("{address} is no PCI address: they look like 0000:6b:00.1"));
        }
        let folder = self.device(address);
        let Some((vendor, device)) = ids(&folder) else {
            let known: Vec<String> =
                self.known().iter().map(|(address, model)| format!("{address} ({})", model.name)).collect();
            return unusable(match known.is_empty() {
                true => format!(
                    "there is no PCI function {address}, nor any virtual function of a QAT card: make some on the host, for \
                     example with `echo 16 > /sys/bus/pci/devices/<card>/sriov_numvfs`"
                ),
                false => format!("there is no PCI function {address}; there are: {}", known.join(", ")),
            });
        };
        let model = self.model(address, vendor, device)?;
        // Without an IOMMU vfio-pci does not take the function either, so that comes first.
        let group = self.group(address, &folder)?;
        self.driver(address, &folder, model)?;
        let numa_node = text(&folder.join("numa_node")).and_then(|node| node.parse().ok());
        let reserved = self.reserved(group);
        Ok(Found { product: model.name, folder, group, numa_node, reserved })
    }

    fn model(&self, address: &str, vendor: u16, device: u16) -> Result<&'static Model, PciError> {
        match model(vendor, device) {
            Some(model) => Ok(model),
            None if vendor == INTEL && PHYSICAL.contains(&device) => unusable(format!(
                "{address} is a physical function (8086:{device:04x}), which the host's own driver has to keep: give it virtual \
                 ones with `echo 16 > /sys/bus/pci/devices/{address}/sriov_numvfs`, and configure one of those"
            )),
            None => {
                let known = MODELS.map(|model| format!("8086:{:04x}", model.device)).join(", ");
                unusable(format!(
                    "{address} is {vendor:04x}:{device:04x}, which is no QAT virtual function that this driver knows ({known})"
                ))
            }
        }
    }

    fn driver(&self, address: &str, folder: &Path, model: &Model) -> Result<(), PciError> {
        let bound = link_name(&folder.join("driver"));
        let bind = format!(
            "echo vfio-pci > /sys/bus/pci/devices/{address}/driver_override; echo {address} > /sys/bus/pci/drivers_probe"
        );
        match bound.as_deref() {
            Some("vfio-pci") => Ok(()),
            Some(other) => unusable(format!(
                "{address} belongs to the kernel's driver {other}: give it to vfio-pci with `echo {address} > \
                 /sys/bus/pci/devices/{address}/driver/unbind; {bind}`"
            )),
            None if !self.at("sys/bus/pci/drivers/vfio-pci").exists() => unusable(format!(
                "{address} has no driver, and vfio-pci is not loaded: `modprobe vfio-pci{}; {bind}`",
                if model.denylisted { " disable_denylist=1" } else { "" }
            )),
            None if model.denylisted && !self.denylist_is_off() => unusable(format!(
                "{address} has no driver: vfio-pci refuses every {} unless it is loaded with `disable_denylist=1`. The kernel's \
                 list has it because errata let whoever holds the card hang the host, so it must not go to a guest or a user who \
                 is not trusted; a gateway of the host's own owner is. Unload vfio-pci and load it again: `modprobe -r vfio-pci; \
                 modprobe vfio-pci disable_denylist=1; {bind}`",
                model.name
            )),
            None => unusable(format!("{address} has no driver: give it to vfio-pci with `{bind}`")),
        }
    }

    fn denylist_is_off(&self) -> bool {
        text(&self.at("sys/module/vfio_pci/parameters/disable_denylist")).as_deref() == Some("Y")
    }

    fn group(&self, address: &str, folder: &Path) -> Result<u32, PciError> {
        let Some(group) = link_name(&folder.join("iommu_group")).and_then(|name| name.parse::<u32>().ok())
        else {
            return unusable(format!(
                "{address} is behind no IOMMU, so nothing would keep the card from memory that is not ours: switch VT-d or AMD-Vi \
                 on in the firmware, boot with `intel_iommu=on` where the processor is Intel's, and look for \"DMAR\" or \"AMD-Vi\" in \
                 the kernel's log"
            ));
        };
        let of_group = self.at("sys/kernel/iommu_groups").join(group.to_string());
        let unguarded = text(&of_group.join("name")).is_some_and(|name| name.contains("noiommu"));
        if unguarded || self.at("dev/vfio").join(format!("noiommu-{group}")).exists() {
            return unusable(format!(
                "{address} is given out in VFIO's no-IOMMU mode, which this driver refuses: the card could read and write all of \
                 the host's memory. Switch the IOMMU on, and `enable_unsafe_noiommu_mode` off"
            ));
        }
        let mut others = Vec::new();
        for entry in fs::read_dir(of_group.join("devices")).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let driver = link_name(&self.device(&name).join("driver"));
            if name != address && driver.as_deref().is_some_and(|driver| !HARMLESS.contains(&driver)) {
                others.push(format!("{name} ({})", driver.unwrap_or_default()));
            }
        }
        if !others.is_empty() {
            others.sort();
            return unusable(format!(
                "IOMMU group {group} of {address} is not viable: the IOMMU cannot tell it from {}, which the kernel uses. Give those \
                 to vfio-pci too, or unbind them, or put the card into a slot with a group of its own (ACS)",
                others.join(", ")
            ));
        }
        Ok(group)
    }

    fn reserved(&self, group: u32) -> Vec<RangeInclusive<u64>> {
        let path = self.at("sys/kernel/iommu_groups").join(group.to_string()).join("reserved_regions");
        let hex = |word: &str| u64::from_str_radix(word.strip_prefix("0x")?, 16).ok();
        let range = |line: &str| {
            let mut words = line.split_whitespace();
            let (start, end) = (hex(words.next()?)?, hex(words.next()?)?);
            (start <= end).then_some(start..=end)
        };
        text(&path).unwrap_or_default().lines().filter_map(range).collect()
    }

    /// What is worse without huge pages, where none are free; `None`: there are some.
    pub(crate) fn no_huge_pages(&self) -> Option<String> {
        let path = self.at("sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages");
        let free: u64 = text(&path).and_then(|count| count.parse().ok()).unwrap_or(0);
        (free == 0).then(|| {
            "no huge pages of 2 MiB are free: pools and rings use small pages, of which the IOMMU translates each by itself, so \
             that it looks addresses up in memory more often and mapping takes longer. Set some aside with `sysctl \
             vm.nr_hugepages=256`"
                .into()
        })
    }
}

/// Whether a text is the address of a PCI function as the kernel writes it: `0000:6b:00.1`.
pub fn is_pci_address(text: &str) -> bool {
    let digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    let fits = |(at, b): (usize, u8)| match at {
        4 | 7 => b == b':',
        10 => b == b'.',
        _ => digit(b),
    };
    text.len() == 12 && text.bytes().enumerate().all(fits)
}

/// Addresses that are free, given those that are not.
pub(crate) fn usable(reserved: &[RangeInclusive<u64>], last: u64) -> Vec<RangeInclusive<u64>> {
    let mut holes: Vec<_> = reserved.to_vec();
    holes.sort_by_key(|range| *range.start());
    let (mut free, mut next) = (Vec::new(), 0);
    for hole in holes {
        if *hole.start() > next {
            free.push(next..=(hole.start() - 1).min(last));
        }
        next = next.max(hole.end().saturating_add(1));
        if next > last {
            return free;
        }
    }
    free.push(next..=last);
    free
}

fn ids(folder: &Path) -> Option<(u16, u16)> {
    let hex = |name| u16::from_str_radix(text(&folder.join(name))?.strip_prefix("0x")?, 16).ok();
    Some((hex("vendor")?, hex("device")?))
}

fn text(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_string())
}

/// What a link leads to, without its folder.
fn link_name(path: &Path) -> Option<String> {
    Some(fs::read_link(path).ok()?.file_name()?.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests;
