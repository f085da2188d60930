//! What all instructions have in common: registers, memory that may not be there, and faults.

use crate::decode::Instruction;
use crate::emulator::Emulator;
use crate::xcrypt::Loaded;
use crate::{montmul, xcrypt, xsha, xstore};

/// The registers that the instructions use. They are written back also when an instruction ends in a fault: what is done by then
/// is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Registers {
    pub(crate) rax: u64,
    pub(crate) rbx: u64,
    pub(crate) rcx: u64,
    pub(crate) rdx: u64,
    pub(crate) rsi: u64,
    pub(crate) rdi: u64,
}

/// How an instruction ends that does not end well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trap {
    /// A general protection fault: an operand that is not aligned, or that means nothing that is known.
    Protection,
    /// A page fault at this address.
    Page(u64),
}

/// Memory of the process.
pub(crate) trait Memory {
    /// Reads all of it.
    fn read(&self, at: u64, to: &mut [u8]) -> Result<(), Trap>;
    /// Writes all of it.
    fn write(&mut self, at: u64, from: &[u8]) -> Result<(), Trap>;

    /// Reads as many octets as there are in the array.
    fn load<const N: usize>(&self, at: u64) -> Result<[u8; N], Trap>
    where
        Self: Sized,
    {
        let mut octets = [0; N];
        self.read(at, &mut octets)?;
        Ok(octets)
    }
}

/// Addresses must be multiples of 16.
pub(crate) fn aligned(address: u64) -> Result<u64, Trap> {
    if address.is_multiple_of(16) { Ok(address) } else { Err(Trap::Protection) }
}

/// Carries out one instruction. `loaded` is what the thread's processor has of an earlier one.
pub(crate) fn execute(
    emulator: &Emulator,
    instruction: Instruction,
    registers: &mut Registers,
    memory: &mut impl Memory,
    loaded: &mut Option<Loaded>,
) -> Result<(), Trap> {
    match instruction {
        Instruction::Xcrypt(mode) => xcrypt::run(emulator, mode, registers, memory, loaded),
        Instruction::Xsha1 => xsha::run(emulator, xsha::Kind::Sha1, registers, memory),
        Instruction::Xsha256 => xsha::run(emulator, xsha::Kind::Sha256, registers, memory),
        Instruction::Xstore => xstore::once(emulator, registers, memory),
        Instruction::RepXstore => xstore::repeated(emulator, registers, memory),
        Instruction::Montmul => montmul::run(emulator, registers, memory),
    }
}
