//! One PCI function, however it is reached: the seam between this driver and the kernel's VFIO, a vfio-user server, or a model
//! in the same process.
//!
//! Registers are read and written as PCI does it: a function that is gone reads as all ones, and what is written to it is lost.
//! That keeps the data path free of errors nobody could handle there; [`PciFunction::trouble`] has the reason, and whoever
//! watches over the device asks for it.

use std::io;
use std::ops::RangeInclusive;
use std::os::fd::BorrowedFd;
use std::time::Duration;

/// Memory that a function is to reach by DMA.
#[derive(Clone, Copy, Debug)]
pub struct Memory<'a> {
    /// Address of the first octet in this process.
    pub address: usize,
    /// Octets; whole pages.
    pub len: usize,
    /// The file behind it, whose first octet is that of the memory, where there is one.
    pub file: Option<BorrowedFd<'a>>,
}

/// Why a function cannot be used, or no longer.
#[derive(Debug, thiserror::Error)]
pub enum PciError {
    /// The other side has gone away, or does not answer.
    #[error("{0}")]
    Gone(String),
    /// The other side has said no.
    #[error("{what}: {cause}")]
    Refused {
        /// What was asked for.
        what: String,
        /// What the kernel or the server said.
        cause: io::Error,
    },
    /// The other side speaks otherwise than agreed.
    #[error("{0}")]
    Protocol(String),
    /// It is there and cannot be used as it is; says what to do.
    #[error("{0}")]
    Unusable(String),
}

impl PciError {
    /// The other side has said no to `what`.
    pub fn refused(what: impl Into<String>, cause: impl Into<io::Error>) -> Self {
        PciError::Refused { what: what.into(), cause: cause.into() }
    }
}

/// One PCI function that is open, and ours alone.
///
/// Any thread may call; what is reset or mapped by one is seen by all.
pub trait PciFunction: Send + Sync {
    /// Reads configuration space; `into` is 1, 2 or 4 octets long and aligned to that.
    ///
    /// # Errors
    /// [`PciError`] when it cannot be read.
    fn config_read(&self, at: u16, into: &mut [u8]) -> Result<(), PciError>;

    /// Writes configuration space, likewise.
    ///
    /// # Errors
    /// [`PciError`] when it cannot be written.
    fn config_write(&self, at: u16, octets: &[u8]) -> Result<(), PciError>;

    /// Octets of a memory BAR; 0 when there is none of that number.
    fn bar_len(&self, bar: u8) -> u64;

    /// Reads a register of 32 bits; all ones when the function is gone or the offset is outside the BAR.
    fn read(&self, bar: u8, at: u32) -> u32;

    /// Writes a register of 32 bits; need not have arrived when this returns, but does not overtake what was written before,
    /// to registers or to memory.
    fn write(&self, bar: u8, at: u32, value: u32);

    /// Makes memory reachable at an address of our choice, to read and to write. The memory must stay until it is unmapped or
    /// the function is closed, and Rust references to octets that the function may touch must not exist meanwhile.
    ///
    /// # Errors
    /// [`PciError`] when it cannot be mapped.
    fn map(&self, iova: u64, memory: &Memory<'_>) -> Result<(), PciError>;

    /// Takes such memory back. After this the function cannot reach it.
    ///
    /// # Errors
    /// [`PciError`]; the function may still reach it then.
    fn unmap(&self, iova: u64, len: usize) -> Result<(), PciError>;

    /// Addresses that [`map`](PciFunction::map) may be given.
    fn iovas(&self) -> Vec<RangeInclusive<u64>>;

    /// Octets of the smallest piece of memory that can be mapped.
    fn page_len(&self) -> usize {
        4096
    }

    /// Rings `bell`, an eventfd, for the first MSI vector; `None` switches interrupts off.
    ///
    /// # Errors
    /// [`PciError`] when the function has no such vector.
    fn interrupt(&self, bell: Option<BorrowedFd<'_>>) -> Result<(), PciError>;

    /// Resets the function. When this has returned well it does no more DMA, its registers are as at power-on, and its command
    /// register is clear. May take long.
    ///
    /// # Errors
    /// [`PciError`]; nothing is known then.
    fn reset(&self) -> Result<(), PciError>;

    /// Why the function is gone, if it is.
    fn trouble(&self) -> Option<String> {
        None
    }
}

/// Command register (PCI Local Bus 3.0 section 6.2.2).
const COMMAND: u16 = 0x04;
const MEMORY: u16 = 1 << 1;
const BUS_MASTER: u16 = 1 << 2;
/// Value of a word that nobody drives.
const NOBODY: u16 = 0xffff;

/// Steps, and their length, until a function has to answer after a reset.
const PRESENCE: usize = 1000;
const PRESENCE_STEP: Duration = Duration::from_millis(2);

fn config_word(function: &dyn PciFunction, at: u16) -> Result<u16, PciError> {
    let mut word = [0; 2];
    function.config_read(at, &mut word)?;
    Ok(u16::from_le_bytes(word))
}

/// A double word of configuration space.
pub(crate) fn config_double(function: &dyn PciFunction, at: u16) -> Result<u32, PciError> {
    let mut double = [0; 4];
    function.config_read(at, &mut double)?;
    Ok(u32::from_le_bytes(double))
}

/// Vendor and device.
pub(crate) fn identity(function: &dyn PciFunction) -> Result<(u16, u16), PciError> {
    let ids = (config_word(function, 0)?, config_word(function, 2)?);
    if ids.0 == NOBODY {
        return Err(PciError::Gone(
            "the function does not answer: its configuration space reads as all ones".into(),
        ));
    }
    Ok(ids)
}

/// Whether the function answers at all.
pub(crate) fn is_present(function: &dyn PciFunction) -> bool {
    config_word(function, 0).is_ok_and(|vendor| vendor != NOBODY)
}

/// Waits until a function that was reset answers again.
///
/// # Errors
/// [`PciError::Gone`]: it does not.
pub(crate) fn await_presence(function: &dyn PciFunction) -> Result<(), PciError> {
    for _ in 0..PRESENCE {
        if is_present(function) {
            return Ok(());
        }
        if let Some(why) = function.trouble() {
            return Err(PciError::Gone(why));
        }
        std::thread::sleep(PRESENCE_STEP);
    }
    Err(PciError::Gone("the card is not there any more: its configuration space reads as all ones".into()))
}

/// Lets the function read and write memory, or stops it from doing so.
pub(crate) fn bus_master(function: &dyn PciFunction, on: bool) -> Result<(), PciError> {
    let old = config_word(function, COMMAND)?;
    let new = if on { old | MEMORY | BUS_MASTER } else { (old | MEMORY) & !BUS_MASTER };
    function.config_write(COMMAND, &new.to_le_bytes())?;
    let now = config_word(function, COMMAND)?;
    // The memory bit of a virtual function may always read as zero (SR-IOV 1.1 section 3.4.1.3).
    if now == NOBODY || (now ^ new) & BUS_MASTER != 0 {
        return Err(PciError::Protocol(format!(
            "the command register is {now:#06x} after {new:#06x} was written"
        )));
    }
    Ok(())
}
