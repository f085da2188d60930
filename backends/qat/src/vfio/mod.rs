//! A function on the PCI bus, through the kernel's VFIO: group and container, one of each for every card.
//!
//! | module | what it holds |
//! |---|---|
//! | `sysfs` | what is in the way, before anything is opened |

pub(crate) mod sysfs;

use std::io;
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};
use spi::Doorbell;
use vfio_ioctls::{VfioContainer, VfioDevice, VfioError, VfioOps};

use crate::pci::{Memory, PciError, PciFunction};
use crate::sys::vfio::{self, Bar};
use sysfs::{Found, Host};

/// Regions and interrupts as VFIO numbers them for PCI.
const BARS: u32 = 6;
const CONFIG: u32 = 7;
const MSI: u32 = 1;
const ERROR: u32 = 3;
const REQUEST: u32 = 4;

/// Where addresses end; every IOMMU in use can translate so many bits.
const LAST: u64 = (1 << 39) - 1;

/// A function that is ours.
pub(crate) struct Vfio {
    address: String,
    /// Dropped before the device: what is mapped keeps it open, and the kernel takes a group out of its container only when
    /// nothing of it is open any more.
    bars: [Option<Bar>; BARS as usize],
    device: VfioDevice,
    container: Arc<VfioContainer>,
    reserved: Vec<RangeInclusive<u64>>,
    /// Rung when the host wants the card back, or has found an error that cannot be corrected.
    alarms: [(u32, Doorbell, &'static str); 2],
    trouble: OnceLock<String>,
}

impl Vfio {
    /// Takes over a function that [`Host::look`] has found.
    ///
    /// # Errors
    /// [`PciError`] with what is in the way, and what to do about it.
    pub(crate) fn open(address: &str, found: &Found) -> Result<Vfio, PciError> {
        let container = Arc::new(VfioContainer::new(None).map_err(|error| explain(error, address, found))?);
        let ops: Arc<dyn VfioOps> = Arc::clone(&container) as Arc<dyn VfioOps>;
        let device =
            VfioDevice::new(&found.folder, ops, false).map_err(|error| explain(error, address, found))?;
        let mut bars = [const { None }; BARS as usize];
        for (number, bar) in (0..).zip(&mut bars) {
            let (len, flags) = (device.get_region_size(number), device.get_region_flags(number));
            // Read, write, map.
            if len > 0 && flags & 7 == 7 {
                let map = Bar::map(&device, device.get_region_offset(number), len as usize);
                *bar = Some(
                    map.map_err(|cause| PciError::refused(format!("BAR {number} of {address}"), cause))?,
                );
            }
        }
        let bell = || Doorbell::new().map_err(|cause| PciError::refused("an eventfd", cause));
        let alarms = [
            (ERROR, bell()?, "the bus has found an error of the card that cannot be corrected"),
            (REQUEST, bell()?, "the host wants the card back"),
        ];
        for (index, bell, _) in &alarms {
            if device.get_irq_info(*index).is_some_and(|irq| irq.count > 0) {
                // Whoever cannot have it finds out later that the card is gone.
                let _ = vfio::set_interrupt(&device, *index, Some(bell.as_fd()));
            }
        }
        let reserved = found.reserved.clone();
        Ok(Vfio {
            address: address.into(),
            container,
            device,
            bars,
            reserved,
            alarms,
            trouble: OnceLock::new(),
        })
    }

    fn lens(&self, number: u8) -> u64 {
        self.device.get_region_size(u32::from(number))
    }
}

/// What is wrong, and what to do.
fn explain(error: VfioError, address: &str, found: &Found) -> PciError {
    let group = found.group;
    let node = format!("/dev/vfio/{group}");
    let by_io = |what: &str, cause: io::Error| match cause.kind() {
        io::ErrorKind::PermissionDenied => PciError::Unusable(format!(
            "no permission to open {what}: give it to the gateway's user, for example with a udev rule"
        )),
        io::ErrorKind::NotFound => PciError::Unusable(format!(
            "{what} is not there: `modprobe vfio-pci` makes it when a card is bound"
        )),
        io::ErrorKind::ResourceBusy => PciError::Unusable(format!("{what} is in use by another program")),
        _ => PciError::refused(format!("opening {what}"), cause),
    };
    match error {
        VfioError::OpenContainer(cause) => by_io("/dev/vfio/vfio", cause),
        VfioError::OpenGroup(cause, _) => by_io(&node, cause),
        VfioError::GroupViable => PciError::Unusable(format!(
            "IOMMU group {group} of {address} is not viable: another function of the group belongs to a driver of the kernel's"
        )),
        VfioError::ContainerSetIOMMU(cause) if cause.errno() == Errno::PERM.raw_os_error() => {
            PciError::Unusable(format!(
                "the kernel does not give out {address} because interrupts are not remapped: the card could raise any interrupt of \
                 the host. Switch interrupt remapping on (firmware: VT-d with x2APIC; no `intremap=off`). Whoever trusts the \
                 card can load vfio_iommu_type1 with `allow_unsafe_interrupts=1` instead, and is without that protection"
            ))
        }
        VfioError::VfioType1V2 | VfioError::VfioExtension => PciError::Unusable(
            "the kernel's VFIO has no IOMMU of type 1 version 2: `modprobe vfio_iommu_type1`".into(),
        ),
        other => PciError::Unusable(format!("{address}: {other}")),
    }
}

/// Why memory cannot be mapped.
fn explain_map(cause: Errno, len: usize, limit: Option<u64>) -> PciError {
    let mib = len.div_ceil(1 << 20);
    match (cause, limit) {
        (Errno::NOMEM, Some(limit)) => PciError::Unusable(format!(
            "too little memory may be locked: {mib} MiB more are wanted for the card, and the limit is {} KiB in all. Raise it: \
             `LimitMEMLOCK=infinity` in the service, or `ulimit -l unlimited`",
            limit >> 10
        )),
        (Errno::NOSPC, _) => PciError::Unusable(
            "the kernel allows no more mappings for this card: use huge pages, or load vfio_iommu_type1 with a larger \
             `dma_entry_limit`"
                .into(),
        ),
        _ => PciError::refused(format!("mapping {mib} MiB for the card"), cause),
    }
}

impl PciFunction for Vfio {
    fn config_read(&self, at: u16, into: &mut [u8]) -> Result<(), PciError> {
        // What cannot be read stays as nobody drives it.
        into.fill(0xff);
        self.device.region_read(CONFIG, into, at.into());
        Ok(())
    }

    fn config_write(&self, at: u16, octets: &[u8]) -> Result<(), PciError> {
        self.device.region_write(CONFIG, octets, at.into());
        Ok(())
    }

    fn bar_len(&self, bar: u8) -> u64 {
        if u32::from(bar) < BARS { self.lens(bar) } else { 0 }
    }

    fn read(&self, bar: u8, at: u32) -> u32 {
        match self.bars.get(usize::from(bar)) {
            Some(Some(registers)) => registers.read(at),
            _ => {
                let mut octets = [0xff; 4];
                self.device.region_read(bar.into(), &mut octets, at.into());
                u32::from_le_bytes(octets)
            }
        }
    }

    fn write(&self, bar: u8, at: u32, value: u32) {
        match self.bars.get(usize::from(bar)) {
            Some(Some(registers)) => registers.write(at, value),
            _ => self.device.region_write(bar.into(), &value.to_le_bytes(), at.into()),
        }
    }

    fn map(&self, iova: u64, memory: &Memory<'_>) -> Result<(), PciError> {
        vfio::map(&self.container, iova, memory).map_err(|error| match error {
            VfioError::IommuDmaMap(cause) => {
                let limit = getrlimit(Resource::Memlock).current;
                explain_map(Errno::from_raw_os_error(cause.errno()), memory.len, limit)
            }
            other => PciError::Unusable(format!("{}: {other}", self.address)),
        })
    }

    fn unmap(&self, iova: u64, len: usize) -> Result<(), PciError> {
        self.container.vfio_dma_unmap(iova, len).map_err(|error| {
            PciError::Protocol(format!("memory of {} cannot be taken back: {error}", self.address))
        })
    }

    fn iovas(&self) -> Vec<RangeInclusive<u64>> {
        sysfs::usable(&self.reserved, LAST)
    }

    fn interrupt(&self, bell: Option<BorrowedFd<'_>>) -> Result<(), PciError> {
        if self.device.get_irq_info(MSI).is_none_or(|irq| irq.count == 0) {
            return Err(PciError::Unusable(format!("{} has no message-signalled interrupt", self.address)));
        }
        vfio::set_interrupt(&self.device, MSI, bell)
            .map_err(|cause| PciError::refused(format!("the interrupt of {}", self.address), cause))
    }

    fn reset(&self) -> Result<(), PciError> {
        vfio::reset(&self.device)
            .map_err(|cause| PciError::refused(format!("a reset of {}", self.address), cause))
    }

    fn trouble(&self) -> Option<String> {
        for (index, bell, what) in &self.alarms {
            // An error passes with the reset that follows; a card that is wanted back is.
            if bell.answer() {
                if *index == ERROR {
                    return Some((*what).into());
                }
                let _ = self.trouble.set((*what).into());
            }
        }
        self.trouble.get().cloned()
    }
}

/// Looks at a function and takes it over; warns of what only costs.
///
/// # Errors
/// [`PciError`] likewise.
pub(crate) fn open(root: &Path, address: &str) -> Result<(Vfio, Found), PciError> {
    let host = Host::new(root);
    let found = host.look(address)?;
    tracing::info!(card = address, product = found.product, group = found.group, "qat: taking over");
    if let Some(cost) = host.no_huge_pages() {
        tracing::warn!(card = address, "qat: {cost}");
    }
    Ok((Vfio::open(address, &found)?, found))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn found() -> Found {
        Found { product: "4xxx", folder: PathBuf::new(), group: 7, numa_node: None, reserved: Vec::new() }
    }

    fn text(error: VfioError) -> String {
        explain(error, "0000:6b:01.0", &found()).to_string()
    }

    #[test]
    fn what_the_kernel_refuses_is_explained() {
        let denied = || io::Error::from(io::ErrorKind::PermissionDenied);
        assert!(
            text(VfioError::OpenGroup(denied(), "7".into())).contains("no permission to open /dev/vfio/7")
        );
        assert!(text(VfioError::OpenContainer(denied())).contains("/dev/vfio/vfio"));
        let busy = io::Error::from_raw_os_error(Errno::BUSY.raw_os_error());
        assert!(text(VfioError::OpenGroup(busy, "7".into())).contains("in use by another program"));
        let eperm = vmm_sys_errno(Errno::PERM);
        assert!(text(VfioError::ContainerSetIOMMU(eperm)).contains("interrupts are not remapped"));
        assert!(text(VfioError::GroupViable).contains("not viable"));
        assert!(text(VfioError::VfioType1V2).contains("modprobe vfio_iommu_type1"));
    }

    #[test]
    fn too_little_locked_memory_is_named_with_its_limit() {
        let error = explain_map(Errno::NOMEM, 8 << 20, Some(64 << 10)).to_string();
        assert!(
            error.contains("8 MiB more") && error.contains("64 KiB") && error.contains("LimitMEMLOCK"),
            "{error}"
        );
        assert!(explain_map(Errno::NOSPC, 1, None).to_string().contains("dma_entry_limit"));
        assert!(explain_map(Errno::INVAL, 1 << 20, None).to_string().contains("mapping 1 MiB"));
    }

    fn vmm_sys_errno(errno: Errno) -> vmm_sys_util::errno::Error {
        vmm_sys_util::errno::Error::new(errno.raw_os_error())
    }
}
