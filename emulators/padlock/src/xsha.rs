//! REP XSHA1 and REP XSHA256.
//!
//! | | |
//! |---|---|
//! | RAX | 0: a whole message, which is ended here; all ones: blocks |
//! | RCX | octets, or blocks; zero afterwards |
//! | RSI | data, and behind it afterwards |
//! | RDI | state: its words in the order of the processor, in 128 octets that are all used |

use crate::decode::Instruction;
use crate::emulator::{Emulator, Fault};
use crate::execute::{Memory, Registers, Trap, aligned};

const BLOCK: u64 = 64;

/// Octets of a state with all that is behind it.
const STATE: usize = 128;

#[derive(Clone, Copy)]
pub(crate) enum Kind {
    Sha1,
    Sha256,
}

pub(crate) fn run(
    emulator: &Emulator,
    kind: Kind,
    registers: &mut Registers,
    memory: &mut impl Memory,
) -> Result<(), Trap> {
    let ends = match registers.rax {
        0 => true,
        u64::MAX => emulator.suffers(Fault::XshaEnds),
        _ => return Err(Trap::Protection),
    };
    // Of blocks the count is of blocks, of messages of octets.
    let unit = if registers.rax == 0 { 1 } else { BLOCK };
    let total = registers.rcx.checked_mul(unit).ok_or(Trap::Protection)?;
    let state: [u8; STATE] = memory.load(aligned(registers.rdi)?)?;
    let mut words: [u32; 8] =
        std::array::from_fn(|n| u32::from_le_bytes(std::array::from_fn(|octet| state[4 * n + octet])));
    let mut left = total;
    while left >= BLOCK {
        let block: [u8; BLOCK as usize] = memory.load(registers.rsi)?;
        compress(kind, &mut words, &block);
        (left, registers.rsi) = (left - BLOCK, registers.rsi + BLOCK);
    }
    if ends {
        let mut rest = [0; BLOCK as usize];
        let used = left as usize;
        memory.read(registers.rsi, &mut rest[..used])?;
        registers.rsi += left;
        rest[used] = 0x80;
        if used + 9 > rest.len() {
            compress(kind, &mut words, &rest);
            rest = [0; BLOCK as usize];
        }
        rest[56..].copy_from_slice(&(total * 8).to_be_bytes());
        compress(kind, &mut words, &rest);
    }
    if emulator.suffers(Fault::XshaFlips) {
        words[0] ^= 1;
    }
    // What is behind the words is the processor's, and is of no use to anybody.
    let mut state = [0xa5; STATE];
    let used = if matches!(kind, Kind::Sha1) { 5 } else { 8 };
    for (to, word) in state.as_chunks_mut().0.iter_mut().zip(&words[..used]) {
        *to = word.to_le_bytes();
    }
    memory.write(registers.rdi, &state)?;
    registers.rcx = 0;
    emulator.note(match kind {
        Kind::Sha1 => Instruction::Xsha1,
        Kind::Sha256 => Instruction::Xsha256,
    });
    Ok(())
}

fn compress(kind: Kind, words: &mut [u32; 8], block: &[u8; 64]) {
    match kind {
        Kind::Sha1 => {
            let mut five = [words[0], words[1], words[2], words[3], words[4]];
            sha1::block_api::compress(&mut five, std::slice::from_ref(block));
            words[..5].copy_from_slice(&five);
        }
        Kind::Sha256 => sha2::block_api::compress256(words, std::slice::from_ref(block)),
    }
}
