//! TUN devices: one IP packet for each read and write, without any header before it.
//!
//! The seam for segmentation offload is here: with IFF_VNET_HDR every packet would come with a `virtio_net_hdr`, which
//! [`esp::Offload`] has the fields of.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

/// A TUN device of ours.
pub struct Tun {
    name: String,
    fd: OwnedFd,
    /// Packets written and what the kernel did not take.
    written: u64,
    refused: u64,
    read: u64,
}

/// What a TUN device carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TunTraffic {
    /// Packets the kernel gave us.
    pub read: u64,
    /// Packets we gave the kernel.
    pub written: u64,
    /// Packets the kernel did not take.
    pub refused: u64,
}

impl Tun {
    /// Takes over a descriptor of the device.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn new(name: String, fd: OwnedFd) -> io::Result<Tun> {
        fcntl_setfl(&fd, fcntl_getfl(&fd)? | OFlags::NONBLOCK)?;
        Ok(Tun { name, fd, written: 0, refused: 0, read: 0 })
    }

    /// Reads one packet; `None` when there is no more.
    pub fn read<'a>(&mut self, buffer: &'a mut [u8]) -> Option<&'a [u8]> {
        let length = rustix::io::retry_on_intr(|| rustix::io::read(&self.fd, &mut *buffer)).ok()?;
        self.read += 1;
        buffer.get(..length)
    }

    /// Writes one packet. One the kernel does not take is counted and gone, as on any wire.
    pub fn write(&mut self, packet: &[u8]) {
        match rustix::io::retry_on_intr(|| rustix::io::write(&self.fd, packet)) {
            Ok(_) => self.written += 1,
            Err(_) => self.refused += 1,
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it carried.
    pub fn traffic(&self) -> TunTraffic {
        TunTraffic { read: self.read, written: self.written, refused: self.refused }
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
