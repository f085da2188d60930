//! The only files of this crate with unsafe code: memory that is shared with a device, registers, and the kernel's VFIO.

pub(crate) mod mem;
pub(crate) mod vfio;
