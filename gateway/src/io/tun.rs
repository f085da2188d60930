//! TUN devices: one IP packet for each read and write, without any header before it.
//!
//! The seam for segmentation offload is here: with IFF_VNET_HDR every packet would come with a `virtio_net_hdr`, which
//! [`esp::Offload`] has the fields of.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;

/// What a read gave.
#[derive(Debug, PartialEq, Eq)]
pub enum Read<'a> {
    /// One packet.
    Packet(&'a [u8]),
    /// Nothing now.
    Nothing,
    /// Nothing ever again: somebody deleted the device. A sleeping place would report the descriptor without end.
    Gone,
}

/// A TUN device of ours.
pub struct Tun {
    name: String,
    fd: OwnedFd,
    /// Packets written and what the kernel did not take.
    written: u64,
    refused: u64,
    read: u64,
    gone: bool,
    down: bool,
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
        set_nonblocking(&fd)?;
        Ok(Tun { name, fd, written: 0, refused: 0, read: 0, gone: false, down: false })
    }

    /// Takes over a descriptor of a device that was made in the place of one that is gone.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn renew(&mut self, fd: OwnedFd) -> io::Result<()> {
        set_nonblocking(&fd)?;
        (self.fd, self.gone, self.down) = (fd, false, false);
        Ok(())
    }

    /// Reads one packet.
    pub fn read<'a>(&mut self, buffer: &'a mut [u8]) -> Read<'a> {
        match rustix::io::retry_on_intr(|| rustix::io::read(&self.fd, &mut *buffer)) {
            Ok(length) => {
                self.read += 1;
                Read::Packet(buffer.get(..length).unwrap_or_default())
            }
            Err(Errno::BADFD) => Read::Gone,
            Err(_) => Read::Nothing,
        }
    }

    /// Writes one packet. One the kernel does not take is counted and gone, as on any wire.
    pub fn write(&mut self, packet: &[u8]) {
        match rustix::io::retry_on_intr(|| rustix::io::write(&self.fd, packet)) {
            Ok(_) => self.written += 1,
            Err(_) => self.refused += 1,
        }
    }

    /// Notes that the device is gone; true when that is news.
    pub fn lose(&mut self) -> bool {
        !std::mem::replace(&mut self.gone, true)
    }

    /// Notes whether the device was set down; true when that is news.
    pub fn set_down(&mut self, down: bool) -> bool {
        std::mem::replace(&mut self.down, down) != down
    }

    /// Whether the device is there.
    pub fn is_there(&self) -> bool {
        !self.gone
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

fn set_nonblocking(fd: &OwnedFd) -> io::Result<()> {
    Ok(fcntl_setfl(fd, fcntl_getfl(fd)? | OFlags::NONBLOCK)?)
}
