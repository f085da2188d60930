//! XSTORE and REP XSTORE.
//!
//! | | |
//! |---|---|
//! | RDI | destination, and behind what was stored afterwards |
//! | EDX | quality in its low two bits: 8, 4, 2 or 1 octets in one go |
//! | RCX | with REP: octets; zero afterwards |
//! | EAX | afterwards: how many octets were stored last (low four bits), and that the unit is on (bit 6) |
//!
//! Now and then the unit is not ready: nothing is stored then.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::decode::Instruction;
use crate::emulator::{Emulator, Fault};
use crate::execute::{Memory, Registers, Trap};
use crate::sys;

const ON: u64 = 1 << 6;

pub(crate) fn once(
    emulator: &Emulator,
    registers: &mut Registers,
    memory: &mut impl Memory,
) -> Result<(), Trap> {
    let stored = store(emulator, 8 >> (registers.rdx & 3), registers, memory)?;
    registers.rax = stored | ON;
    emulator.note(Instruction::Xstore);
    Ok(())
}

pub(crate) fn repeated(
    emulator: &Emulator,
    registers: &mut Registers,
    memory: &mut impl Memory,
) -> Result<(), Trap> {
    let mut stored = 0;
    while registers.rcx > 0 {
        if emulator.suffers(Fault::RngDry) {
            // Silicon would wait for ever.
            return Err(Trap::Protection);
        }
        let most = (8 >> (registers.rdx & 3)).min(registers.rcx);
        stored = store(emulator, most, registers, memory)?;
        registers.rcx -= stored;
    }
    registers.rax = stored | ON;
    emulator.note(Instruction::RepXstore);
    Ok(())
}

fn store(
    emulator: &Emulator,
    most: u64,
    registers: &mut Registers,
    memory: &mut impl Memory,
) -> Result<u64, Trap> {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let call = CALLS.fetch_add(1, Ordering::Relaxed);
    if emulator.suffers(Fault::RngDry) || call % 7 == 3 {
        return Ok(0);
    }
    let mut octets = [0; 8];
    let octets = octets.get_mut(..most as usize).ok_or(Trap::Protection)?;
    sys::random(octets);
    if emulator.suffers(Fault::RngStuck) {
        octets.fill(0x55);
    }
    if emulator.suffers(Fault::RngBiased) && call.is_multiple_of(5) {
        octets.fill(0x55);
    }
    memory.write(registers.rdi, octets)?;
    registers.rdi += most;
    Ok(most)
}
