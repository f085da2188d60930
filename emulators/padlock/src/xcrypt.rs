//! REP XCRYPT.
//!
//! | | |
//! |---|---|
//! | RAX | IV or counter block; not for ECB |
//! | RBX | key: 128 bits, or a schedule; 256 octets are read |
//! | RCX | blocks; zero afterwards |
//! | RDX | control word |
//! | RSI, RDI | source and destination, both behind the text afterwards |
//!
//! What is not known is done so that nobody can come to rely on it: RAX and the memory at it are of no use afterwards, but after
//! CBC, where RAX points to the last block of ciphertext. A counter whose low 16 bits are used up begins again without a carry.

use crate::aes::Cipher;
use crate::decode::{Instruction, Mode};
use crate::emulator::{Emulator, Fault, Units};
use crate::execute::{Memory, Registers, Trap, aligned};

const BLOCK: u64 = 16;

/// Blocks that are read and written in one go.
const BATCH: u64 = 32;

/// A page, behind whose end nothing may be mapped.
const PAGE: u64 = 4096;

/// What a processor keeps from one XCRYPT to the next: key and control word.
pub(crate) struct Loaded {
    cipher: Cipher,
    control: u32,
}

pub(crate) fn run(
    emulator: &Emulator,
    mode: Mode,
    registers: &mut Registers,
    memory: &mut impl Memory,
    loaded: &mut Option<Loaded>,
) -> Result<(), Trap> {
    if registers.rcx == 0 {
        return Ok(());
    }
    if loaded.is_some() {
        emulator.note_reuse();
    } else {
        *loaded = Some(load(registers, memory)?);
    }
    let Some(Loaded { cipher, control }) = loaded else { return Err(Trap::Protection) };
    let any_place = *control & ALIGN != 0 && emulator.options().units.contains(Units::ACE2);
    if !any_place {
        aligned(registers.rsi)?;
        aligned(registers.rdi)?;
    }
    let mut chain = [0; 16];
    if mode != Mode::Ecb {
        chain = memory.load(aligned(registers.rax)?)?;
    }
    over_read(mode, registers, memory)?;
    let decrypts = *control & DECRYPT != 0;
    let mut run = Run { mode, decrypts, cipher, chain, flips: emulator.suffers(Fault::XcryptFlips) };
    let iv = registers.rax;
    while registers.rcx > 0 {
        let blocks = registers.rcx.min(BATCH);
        // What does not go all at once goes block by block, so that a fault comes where it belongs.
        match run.some(blocks, registers, memory) {
            Err(_) if blocks > 1 => run.some(1, registers, memory)?,
            other => other?,
        }
    }
    if mode != Mode::Ecb {
        memory.write(iv, &[0xa5; 16])?;
    }
    registers.rax = match (mode, decrypts) {
        (Mode::Ecb, _) => iv,
        (Mode::Cbc, false) => registers.rdi - BLOCK,
        (Mode::Cbc, true) => {
            memory.write(iv, &run.chain)?;
            iv
        }
        _ => 0xa5a5_a5a5,
    };
    emulator.note(Instruction::Xcrypt(mode));
    Ok(())
}

const ALIGN: u32 = 1 << 5;
const SCHEDULED: u32 = 1 << 7;
const DECRYPT: u32 = 1 << 9;

/// Reads key and control word. A word that is not known to mean something is a fault: silicon would compute something.
fn load(registers: &Registers, memory: &impl Memory) -> Result<Loaded, Trap> {
    let octets: [u8; 16] = memory.load(aligned(registers.rdx)?)?;
    let control = u32::from_le_bytes([octets[0], octets[1], octets[2], octets[3]]);
    let (rounds, size) = (control & 15, control >> 10 & 3);
    let scheduled = control & SCHEDULED != 0;
    let known = size < 3
        && rounds == 10 + 2 * size
        && control & !(15 | ALIGN | SCHEDULED | DECRYPT | 3 << 10) == 0
        && (scheduled || size == 0)
        && octets[4..].iter().all(|octet| *octet == 0);
    if !known {
        return Err(Trap::Protection);
    }
    let key: [u8; 256] = memory.load(aligned(registers.rbx)?)?;
    let cipher = match key.first_chunk() {
        Some(raw) if !scheduled => Cipher::raw(raw),
        _ => Cipher::schedule(&key, rounds as usize),
    };
    Ok(Loaded { cipher, control })
}

/// The processor reads on behind the end of its source. That is a fault if nothing is there.
fn over_read(mode: Mode, registers: &Registers, memory: &impl Memory) -> Result<(), Trap> {
    let bound: u64 = match mode {
        Mode::Ecb | Mode::Cfb | Mode::Ofb => 128,
        Mode::Cbc => 64,
        Mode::Ctr => 32,
    };
    let length = registers.rcx.checked_mul(BLOCK).ok_or(Trap::Protection)?;
    let end = registers.rsi.checked_add(length).ok_or(Trap::Protection)?;
    let next_page = end.next_multiple_of(PAGE);
    if next_page < end.saturating_add(bound) {
        memory.load::<1>(next_page)?;
    }
    Ok(())
}

struct Run<'a> {
    mode: Mode,
    decrypts: bool,
    cipher: &'a Cipher,
    chain: [u8; 16],
    flips: bool,
}

impl Run<'_> {
    /// So many blocks, at most a batch. Registers and chain move on when they are done.
    fn some(&mut self, blocks: u64, registers: &mut Registers, memory: &mut impl Memory) -> Result<(), Trap> {
        let mut text = [0; (BATCH * BLOCK) as usize];
        let text = text.get_mut(..(blocks * BLOCK) as usize).ok_or(Trap::Protection)?;
        memory.read(registers.rsi, text)?;
        let before = self.chain;
        for block in text.as_chunks_mut().0 {
            *block = self.block(*block);
        }
        if self.flips {
            text[0] ^= 0x10;
        }
        if let Err(trap) = memory.write(registers.rdi, text) {
            self.chain = before;
            return Err(trap);
        }
        registers.rsi += blocks * BLOCK;
        registers.rdi += blocks * BLOCK;
        registers.rcx -= blocks;
        Ok(())
    }

    fn block(&mut self, block: [u8; 16]) -> [u8; 16] {
        let cipher = self.cipher;
        match (self.mode, self.decrypts) {
            (Mode::Ecb, false) => cipher.encrypt(block),
            (Mode::Ecb, true) => cipher.decrypt(block),
            (Mode::Cbc, false) => {
                self.chain = cipher.encrypt(xor(block, self.chain));
                self.chain
            }
            (Mode::Cbc, true) => xor(cipher.decrypt(block), std::mem::replace(&mut self.chain, block)),
            (Mode::Cfb, decrypts) => {
                let out = xor(block, cipher.encrypt(self.chain));
                self.chain = if decrypts { block } else { out };
                out
            }
            (Mode::Ofb, _) => {
                self.chain = cipher.encrypt(self.chain);
                xor(block, self.chain)
            }
            (Mode::Ctr, _) => {
                let stream = cipher.encrypt(self.chain);
                let low = u16::from_be_bytes([self.chain[14], self.chain[15]]).wrapping_add(1);
                self.chain[14..].copy_from_slice(&low.to_be_bytes());
                xor(block, stream)
            }
        }
    }
}

fn xor(a: [u8; 16], b: [u8; 16]) -> [u8; 16] {
    std::array::from_fn(|n| a[n] ^ b[n])
}
