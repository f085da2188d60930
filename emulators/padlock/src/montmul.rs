//! REP MONTMUL.
//!
//! | | |
//! |---|---|
//! | RAX | zero |
//! | RCX | bits of the modulus: a multiple of 128 from 256 to 32768; zero afterwards |
//! | RSI | operand block: -1/M mod 2^32, and the addresses of A, B, T, M and of 32 octets of scratch; 32 bits each |
//!
//! T becomes A * B / 2^bits mod M, not fully reduced, with a word of carry behind it. Whether 64-bit mode has the same block is
//! not published; this one has. All operands are followed by 16 octets of zeroes, T is zero before and is neither A nor B: where
//! that is not so there is a fault, since nobody knows what silicon would do.

use num_bigint::BigUint;

use crate::decode::Instruction;
use crate::emulator::{Emulator, Fault};
use crate::execute::{Memory, Registers, Trap, aligned};

/// Octets of zeroes behind each operand.
const BEHIND: usize = 16;

pub(crate) fn run(
    emulator: &Emulator,
    registers: &mut Registers,
    memory: &mut impl Memory,
) -> Result<(), Trap> {
    let bits = registers.rcx;
    if registers.rax != 0 || !(256..=32_768).contains(&bits) || !bits.is_multiple_of(128) {
        return Err(Trap::Protection);
    }
    let octets: [u8; 24] = memory.load(registers.rsi)?;
    let field = |n: usize| u32::from_le_bytes(std::array::from_fn(|octet| octets[4 * n + octet]));
    let operand = |n: usize| aligned(field(n).into());
    let (a, b, t, m) = (operand(1)?, operand(2)?, operand(3)?, operand(4)?);
    let scratch = operand(5)?;
    if t == a || t == b {
        return Err(Trap::Protection);
    }
    let len = bits as usize / 8;
    let read = |at| {
        let mut octets = vec![0; len + BEHIND];
        memory.read(at, &mut octets)?;
        let zeroes = octets.split_off(len);
        if zeroes.iter().any(|octet| *octet != 0) {
            return Err(Trap::Protection);
        }
        Ok(BigUint::from_bytes_le(&octets))
    };
    let (a, b, m, zero) = (read(a)?, read(b)?, read(m)?, read(t)?);
    if zero != BigUint::ZERO {
        return Err(Trap::Protection);
    }
    let mut product = a * b;
    for _ in 0..bits / 32 {
        let low = product.iter_u32_digits().next().unwrap_or(0);
        product += &m * low.wrapping_mul(field(0));
        product >>= 32;
    }
    let mut out = product.to_bytes_le();
    out.resize(len + BEHIND, 0);
    if emulator.suffers(Fault::MontmulFlips) {
        out[1] ^= 0x10;
    }
    memory.write(t, &out)?;
    memory.write(scratch, &[0xa5; 32])?;
    (registers.rcx, registers.rsi, registers.rdx, registers.rdi) = (0, 0xa5, 0xa5, 0xa5);
    emulator.note(Instruction::Montmul);
    Ok(())
}
