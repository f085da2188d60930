//! Memory that a plug-in may write to at any time, also when it must not: reached through raw pointers only, and copied out.

use std::ptr::NonNull;

use zeroize::Zeroize;

use crate::abi::{self, MAX_PACKETS};

/// The packets of one burst as the plug-in sees them.
pub(crate) struct Packets(NonNull<[abi::Packet; MAX_PACKETS]>);

// SAFETY: an address; what is there is plain numbers, reached by copying alone.
unsafe impl Send for Packets {}

impl Packets {
    pub(crate) fn new() -> Packets {
        Packets(NonNull::from(Box::leak(Box::new([abi::Packet::default(); MAX_PACKETS]))))
    }

    /// Where the plug-in finds them.
    pub(crate) fn at(&self) -> *mut abi::Packet {
        self.0.as_ptr().cast()
    }

    /// Writes one; the plug-in does not have them yet. Nothing for an index that is none.
    pub(crate) fn set(&mut self, index: usize, packet: abi::Packet) {
        if index < MAX_PACKETS {
            // SAFETY: inside the array, which is ours.
            unsafe { self.at().add(index).write_volatile(packet) }
        }
    }

    /// What is there now; nothing but zeroes for an index that is none.
    pub(crate) fn see(&self, index: usize) -> abi::Packet {
        if index >= MAX_PACKETS {
            return abi::Packet::default();
        }
        // SAFETY: inside the array. Read as it is at this moment, since the plug-in may write although it must not any more.
        unsafe { self.at().add(index).read_volatile() }
    }
}

impl Drop for Packets {
    fn drop(&mut self) {
        // SAFETY: made by a Box in new, and dropped once.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

/// Octets for the plug-in, overwritten when they go.
pub(crate) struct Octets {
    at: NonNull<u8>,
    len: usize,
}

// SAFETY: an address; the octets are reached by copying alone.
unsafe impl Send for Octets {}

impl Octets {
    pub(crate) fn new(from: &[u8]) -> Octets {
        let boxed: Box<[u8]> = from.into();
        let len = boxed.len();
        Octets { at: NonNull::from(Box::leak(boxed)).cast(), len }
    }

    pub(crate) fn zeroes(len: usize) -> Octets {
        Octets { at: NonNull::from(Box::leak(vec![0u8; len].into_boxed_slice())).cast(), len }
    }

    pub(crate) fn at(&self) -> *mut u8 {
        self.at.as_ptr()
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// A copy of the first `len` octets, or of all there are.
    pub(crate) fn copy(&self, len: usize) -> Vec<u8> {
        let len = len.min(self.len);
        let mut octets = vec![0; len];
        // SAFETY: both are at least so long, and apart.
        unsafe { self.at.as_ptr().copy_to_nonoverlapping(octets.as_mut_ptr(), len) };
        octets
    }
}

impl Drop for Octets {
    fn drop(&mut self) {
        let slice = std::ptr::slice_from_raw_parts_mut(self.at.as_ptr(), self.len);
        // SAFETY: made by a Box in new or zeroes, and dropped once; whoever drops it knows that the plug-in is done with it.
        let mut boxed = unsafe { Box::from_raw(slice) };
        boxed.zeroize();
    }
}

/// A buffer that a burst lends, by its address.
#[derive(Clone, Copy)]
pub(crate) struct Room {
    at: usize,
    len: usize,
}

impl Room {
    pub(crate) fn of(buf: &spi::PacketBuf) -> Room {
        Room { at: buf.address(), len: buf.capacity() }
    }

    pub(crate) fn at(self) -> *mut u8 {
        std::ptr::with_exposed_provenance_mut(self.at)
    }

    pub(crate) fn len(self) -> u32 {
        u32::try_from(self.len).unwrap_or(u32::MAX)
    }
}
