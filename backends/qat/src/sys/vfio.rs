//! The kernel's VFIO, as far as no crate has it safely: registers in memory, an interrupt, a reset that says how it went, and memory
//! that a device reaches.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{Ordering, fence};

use rustix::ioctl::{NoArg, Setter, ioctl};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use vfio_ioctls::{VfioContainer, VfioDevice, VfioError};

use crate::pci::Memory;

/// `VFIO_DEVICE_SET_IRQS` and `VFIO_DEVICE_RESET`: type `;`, numbers 110 and 111, no size in the code.
const SET_IRQS: u32 = 0x3b6e;
const RESET: u32 = 0x3b6f;

/// An eventfd is rung; nothing is.
const RING_EVENTFD: u32 = 1 << 2 | 1 << 5;
const SWITCH_OFF: u32 = 1 << 0 | 1 << 5;

/// The request of `VFIO_DEVICE_SET_IRQS`, with one descriptor.
#[repr(C)]
struct IrqSet {
    len: u32,
    flags: u32,
    index: u32,
    start: u32,
    count: u32,
    fd: i32,
}

fn device_fd(device: &VfioDevice) -> BorrowedFd<'_> {
    // SAFETY: the descriptor is the device's and stays open as long as the device, which the result borrows.
    unsafe { BorrowedFd::borrow_raw(device.as_raw_fd()) }
}

/// Rings `bell` for vector 0 of an interrupt; `None`: switches it off.
///
/// # Errors
/// What the kernel says.
pub(crate) fn set_interrupt(device: &VfioDevice, index: u32, bell: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let set = match bell {
        Some(bell) => {
            IrqSet { len: 24, flags: RING_EVENTFD, index, start: 0, count: 1, fd: bell.as_raw_fd() }
        }
        None => IrqSet { len: 20, flags: SWITCH_OFF, index, start: 0, count: 0, fd: -1 },
    };
    // SAFETY: the operation reads as many octets as the structure says it has, and writes nothing.
    unsafe { ioctl(device_fd(device), Setter::<SET_IRQS, IrqSet>::new(set)) }.map_err(Into::into)
}

/// Resets the function.
///
/// # Errors
/// What the kernel says.
pub(crate) fn reset(device: &VfioDevice) -> io::Result<()> {
    // SAFETY: the operation takes no argument.
    unsafe { ioctl(device_fd(device), NoArg::<RESET>::new()) }.map_err(Into::into)
}

/// Lets devices of a container reach memory.
///
/// # Errors
/// What the kernel says.
pub(crate) fn map(container: &VfioContainer, iova: u64, memory: &Memory<'_>) -> Result<(), VfioError> {
    // SAFETY: whoever maps keeps the memory until it is unmapped, and no references to octets that the device may touch exist
    // meanwhile: that is what `PciFunction::map` asks of its callers.
    unsafe { container.vfio_dma_map(iova, memory.len, memory.address as *mut u8) }
}

/// Registers of one BAR.
pub(crate) struct Bar {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: a Bar is an address and a length, and registers are read and written as whole words, which any thread may.
unsafe impl Send for Bar {}
// SAFETY: as above.
unsafe impl Sync for Bar {}

impl Bar {
    /// Maps `len` octets of a device's file from `offset` on.
    ///
    /// # Errors
    /// What the kernel says.
    pub(crate) fn map(device: &VfioDevice, offset: u64, len: usize) -> io::Result<Bar> {
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        let fd = device_fd(device);
        // SAFETY: a mapping of a device's registers at an address of the kernel's choice aliases nothing of this process.
        let base = unsafe { mmap(std::ptr::null_mut(), len, prot, MapFlags::SHARED, fd.as_fd(), offset) }?;
        let base = NonNull::new(base.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Bar { base, len })
    }

    fn register(&self, at: u32) -> Option<*mut u32> {
        let at = at as usize;
        // SAFETY: the offset is inside the mapping, as checked in the same expression.
        (at.is_multiple_of(4) && at + 4 <= self.len).then(|| unsafe { self.base.as_ptr().add(at) }.cast())
    }

    /// All ones outside.
    pub(crate) fn read(&self, at: u32) -> u32 {
        // SAFETY: `register` gives aligned addresses inside the mapping, which lives as long as self.
        self.register(at).map_or(u32::MAX, |at| u32::from_le(unsafe { at.read_volatile() }))
    }

    /// Everything written to memory before is there when the device sees this.
    pub(crate) fn write(&self, at: u32, value: u32) {
        // Stores keep their order on x86, also to registers; elsewhere that has to be asked for.
        fence(if cfg!(target_arch = "x86_64") { Ordering::Release } else { Ordering::SeqCst });
        if let Some(at) = self.register(at) {
            // SAFETY: as in `read`.
            unsafe { at.write_volatile(value.to_le()) }
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        // SAFETY: base and len are those of mmap, and no pointer into the mapping outlives a call of a method.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.len) };
    }
}
