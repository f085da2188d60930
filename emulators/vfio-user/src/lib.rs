//! A vfio-user server: PCI functions in software, for QEMU and for anyone who speaks the protocol over a Unix socket.
//!
//! A device implements [`Function`]; [`Server`] offers any number of them, each on a socket of its own, from one thread
//! that never waits for anything but all of its descriptors at once. [`Session`] is the protocol without the socket:
//! messages in, replies out.
//!
//! The other side is not trusted. Every length, offset, index and count is checked before it is used; what one client
//! can make the server hold is bounded; a message that makes no sense is answered with an error, and one that makes the
//! stream unreadable ends the connection, and only that.
#![forbid(unsafe_code)]

mod connection;
mod function;
mod listener;
mod message;
mod server;
mod session;
mod version;

pub use function::{Action, DmaWindow, Function, Interrupts, IrqData, IrqRequest, Region};
pub use listener::ListenError;
pub use message::{HEADER_LEN, Header, MAX_DATA, MAX_FDS, MAX_MESSAGE};
pub use server::{Server, Stopper};
pub use session::{Disconnect, Session};

/// Indices of regions, as Linux numbers them for PCI.
pub mod region {
    /// Base address registers 0 to 5.
    pub const BAR0: u32 = 0;
    /// The last base address register.
    pub const BAR5: u32 = 5;
    /// Configuration space.
    pub const CONFIG: u32 = 7;
    /// Octets of the configuration space of PCI Express.
    pub const CONFIG_LEN: u64 = 4096;
    /// How many there are.
    pub const COUNT: u32 = 9;
}

/// Indices of interrupt kinds, as Linux numbers them for PCI.
pub mod irq {
    /// A wire.
    pub const INTX: u32 = 0;
    /// Message-signalled.
    pub const MSI: u32 = 1;
    /// Message-signalled, with a table.
    pub const MSIX: u32 = 2;
    /// An error that the device reports.
    pub const ERR: u32 = 3;
    /// The device asks to be given back.
    pub const REQ: u32 = 4;
    /// How many kinds there are.
    pub const COUNT: u32 = 5;
}
