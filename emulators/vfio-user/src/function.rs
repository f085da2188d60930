//! What a device has to do to be served.

use std::os::fd::OwnedFd;

use rustix::io::Errno;

/// A PCI function. Calls come from the server's thread and must return soon: whatever takes time is begun here and done
/// elsewhere. Ranges have been checked against [`region`](Function::region) and [`interrupts`](Function::interrupts).
pub trait Function: Send + Sync {
    /// A region by index; `None` where there is none. It may not change while a client is connected.
    fn region(&self, index: u32) -> Option<Region>;

    /// A kind of interrupt by index; `None` where the device has none.
    fn interrupts(&self, index: u32) -> Option<Interrupts>;

    /// Reads from a region.
    fn read(&self, region: u32, offset: u64, into: &mut [u8]);

    /// Writes to a region.
    fn write(&self, region: u32, offset: u64, from: &[u8]);

    /// Connects, masks or raises interrupts.
    ///
    /// # Errors
    /// What to tell the client.
    fn set_irqs(&self, request: IrqRequest) -> Result<(), Errno>;

    /// Lets the device reach memory. Without a descriptor it takes up the addresses and cannot be reached.
    ///
    /// # Errors
    /// What to tell the client; `EXIST` if the window overlaps another.
    fn map(&self, window: DmaWindow, file: Option<OwnedFd>) -> Result<(), Errno>;

    /// Takes memory away from the device. `iova + len` may be 2^64, and nothing need be mapped there. When this returns,
    /// the device no longer touches it.
    ///
    /// # Errors
    /// What to tell the client.
    fn unmap(&self, iova: u64, len: u64) -> Result<(), Errno>;

    /// A function-level reset.
    ///
    /// # Errors
    /// What to tell the client.
    fn reset(&self) -> Result<(), Errno>;

    /// The client has gone: its memory and its interrupts are to be let go.
    fn client_gone(&self);
}

/// A region and what may be done with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// Octets.
    pub len: u64,
    /// It can be read.
    pub read: bool,
    /// It can be written.
    pub write: bool,
}

/// The interrupts of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interrupts {
    /// How many.
    pub count: u32,
    /// Whether they can be masked through the protocol.
    pub maskable: bool,
    /// Whether more can only be connected by connecting all anew, as with MSI.
    pub no_resize: bool,
}

/// Memory for the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DmaWindow {
    /// First address on the bus.
    pub iova: u64,
    /// Octets; not zero, and the last address exists.
    pub len: u64,
    /// Where in the file it begins.
    pub offset: u64,
    /// The device may read it.
    pub read: bool,
    /// The device may write it.
    pub write: bool,
}

/// What is asked of interrupts `start` to `start + count - 1`, which exist.
#[derive(Debug)]
pub struct IrqRequest {
    /// The kind of interrupt.
    pub index: u32,
    /// The first one.
    pub start: u32,
    /// How many. Zero with [`IrqData::All`] and [`Action::Trigger`] disconnects all of this kind.
    pub count: u32,
    /// What to do.
    pub action: Action,
    /// To which of them, or with what.
    pub data: IrqData,
}

/// What to do with interrupts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Mask.
    Mask,
    /// Unmask.
    Unmask,
    /// Raise, or with eventfds: connect.
    Trigger,
}

/// Which interrupts, or what to connect them with.
#[derive(Debug)]
pub enum IrqData {
    /// All in the range.
    All,
    /// Those for which it is true; as many as the range is long.
    Some(Vec<bool>),
    /// Connect them with these, as many as the range is long.
    Eventfds(Vec<OwnedFd>),
    /// Disconnect them.
    Disconnect,
}
