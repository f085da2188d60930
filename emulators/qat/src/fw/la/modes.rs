//! Modes of operation of block ciphers.

use super::block::Block;
use crate::fw::Trouble;

const WHOLE: Trouble = Trouble::Invalid("data that is no multiple of the block");

/// Electronic code book.
pub(super) fn ecb(block: &Block, decrypt: bool, data: &mut [u8]) -> Result<(), Trouble> {
    if !data.len().is_multiple_of(block.len()) {
        return Err(WHOLE);
    }
    if decrypt {
        block.decrypt(data)
    } else {
        block.encrypt(data)
    }
    Ok(())
}

/// Cipher block chaining.
pub(super) fn cbc(block: &Block, decrypt: bool, iv: &[u8; 16], data: &mut [u8]) -> Result<(), Trouble> {
    let len = block.len();
    if !data.len().is_multiple_of(len) {
        return Err(WHOLE);
    }
    let mut chain = iv.get(..len).unwrap_or_default().to_vec();
    for chunk in data.chunks_exact_mut(len) {
        if decrypt {
            let next = chunk.to_vec();
            block.decrypt(chunk);
            xor(chunk, &chain);
            chain = next;
        } else {
            xor(chunk, &chain);
            block.encrypt(chunk);
            chain.copy_from_slice(chunk);
        }
    }
    Ok(())
}

/// Counter mode; the whole block counts.
pub(super) fn ctr(block: &Block, counter: &[u8; 16], data: &mut [u8]) {
    let len = block.len();
    let mut counter = counter.get(..len).unwrap_or_default().to_vec();
    for chunk in data.chunks_mut(len) {
        let mut key = counter.clone();
        block.encrypt(&mut key);
        xor(chunk, &key);
        for octet in counter.iter_mut().rev() {
            *octet = octet.wrapping_add(1);
            if *octet != 0 {
                break;
            }
        }
    }
}

/// Counter mode as GCM has it (NIST SP 800-38D section 6.5): only the last 32 bits count.
pub(super) fn ctr32(block: &Block, counter: &[u8; 16], data: &mut [u8]) {
    let mut counter = u128::from_be_bytes(*counter);
    for chunk in data.chunks_mut(16) {
        xor(chunk, &block.of(counter.to_be_bytes()));
        counter = counter & !0xffff_ffff | u128::from((counter as u32).wrapping_add(1));
    }
}

/// XTS (IEEE 1619) with the tweak already encrypted. The last block may be incomplete and steals from the one before.
pub(super) fn xts(block: &Block, decrypt: bool, tweak: [u8; 16], data: &mut [u8]) -> Result<(), Trouble> {
    if data.len() < 16 {
        return Err(Trouble::Invalid("less than a block of XTS"));
    }
    let one = |tweak: u128, chunk: &mut [u8]| {
        xor(chunk, &tweak.to_le_bytes());
        if decrypt {
            block.decrypt(chunk)
        } else {
            block.encrypt(chunk)
        }
        xor(chunk, &tweak.to_le_bytes());
    };
    let mut tweak = u128::from_le_bytes(tweak);
    let rest = data.len() % 16;
    let whole = data.len() - rest - if rest > 0 { 16 } else { 0 };
    let (body, end) = data.split_at_mut(whole);
    for chunk in body.chunks_exact_mut(16) {
        one(tweak, chunk);
        tweak = doubled(tweak);
    }
    if rest == 0 {
        return Ok(());
    }
    // Decryption meets the last two tweaks in the other order.
    let (first, second) = if decrypt { (doubled(tweak), tweak) } else { (tweak, doubled(tweak)) };
    let (full, part) = end.split_at_mut(16);
    one(first, full);
    full.iter_mut().zip(part.iter_mut()).for_each(|(stolen, short)| std::mem::swap(stolen, short));
    one(second, full);
    Ok(())
}

/// Times x in the field of 2^128 elements.
fn doubled(tweak: u128) -> u128 {
    tweak << 1 ^ if tweak >> 127 != 0 { 0x87 } else { 0 }
}

pub(super) fn xor(into: &mut [u8], with: &[u8]) {
    into.iter_mut().zip(with).for_each(|(octet, other)| *octet ^= other);
}
