//! AES in every mode XCRYPT has, over texts of any place and length.
//!
//! 1. Make the processor forget the key it has ([`isa::forget_key`]): once for a text, since no other key is used meanwhile.
//! 2. As much of the text as can be reached where it lies goes in one instruction; the rest goes through the bounce buffer,
//!    [`CHUNK`] octets at a time: what is not aligned, and what lies so close to the end of a page that the processor would
//!    read into the next one.
//! 3. Between two instructions the chain (or the counter) is carried on here. The processor counts in 16 bits, so an
//!    instruction ends where those are used up.

use spi::Direction;

use crate::blocks::{BLOCK, CHUNK, Control, Key, Work};
use crate::mode::Mode;
use crate::sys::isa;
use crate::{control, schedule};

/// A key, for either direction.
pub(crate) struct Cipher {
    keys: Box<Keys>,
}

struct Keys {
    /// The raw key, or the schedule for encryption. Feedback and counter modes use it both ways.
    forward: Key,
    /// The raw key, or the schedule for decryption.
    backward: Key,
    seal: Control,
    open: Control,
}

impl Cipher {
    /// `None`: no length of an AES key.
    pub(crate) fn new(key: &[u8]) -> Option<Cipher> {
        if !control::KEYS.contains(&key.len()) {
            return None;
        }
        let (forward, backward) = if key.len() == 16 {
            // The processor makes these schedules itself.
            let (mut forward, mut backward) = (Key([0; 256]), Key([0; 256]));
            forward.0[..16].copy_from_slice(key);
            backward.0[..16].copy_from_slice(key);
            (forward, backward)
        } else {
            let forward = schedule::forward(key);
            let backward = schedule::backward(&forward, key.len());
            (forward, backward)
        };
        let word = |dir| control::word(key.len(), dir);
        let keys = Keys { forward, backward, seal: word(Direction::Seal), open: word(Direction::Open) };
        Some(Cipher { keys: Box::new(keys) })
    }

    /// Encrypts or decrypts in place, beginning with this IV or counter block. False, and nothing done: a text that is not
    /// whole blocks where it has to be.
    pub(crate) fn apply(
        &self,
        mode: Mode,
        dir: Direction,
        iv: &[u8; BLOCK],
        text: &mut [u8],
        work: &mut Work,
    ) -> bool {
        if !text.len().is_multiple_of(BLOCK) && !mode.is_stream() {
            return false;
        }
        let keys = &*self.keys;
        let (key, control) = match (mode, dir) {
            (Mode::Ecb | Mode::Cbc, Direction::Open) => (&keys.backward, &keys.open),
            (Mode::Cfb, Direction::Open) => (&keys.forward, &keys.open),
            // Output feedback and counter only ever encrypt.
            _ => (&keys.forward, &keys.seal),
        };
        isa::forget_key();
        let mut chain = *iv;
        let mut at = 0;
        while at < text.len() {
            let most = if mode == Mode::Ctr { until_wrap(&chain) * BLOCK } else { usize::MAX };
            let rest = &mut text[at..];
            let reached = isa::reach(mode, rest).min(most);
            let len = if reached > 0 { reached } else { rest.len().min(CHUNK).min(most) };
            work.iv.0 = chain;
            let (before, after);
            if reached > 0 {
                before = last_block(&rest[..len]);
                isa::xcrypt(mode, key, control, &mut work.iv, rest, len / BLOCK);
                after = last_block(&rest[..len]);
            } else {
                let whole = len.next_multiple_of(BLOCK);
                let bounce = &mut work.bounce.0;
                bounce[..len].copy_from_slice(&rest[..len]);
                bounce[len..whole].fill(0);
                before = last_block(&bounce[..whole]);
                isa::xcrypt(mode, key, control, &mut work.iv, bounce, whole / BLOCK);
                after = last_block(&bounce[..whole]);
                rest[..len].copy_from_slice(&bounce[..len]);
            }
            chain = match (mode, dir) {
                (Mode::Ecb, _) => chain,
                (Mode::Cbc | Mode::Cfb, Direction::Seal) => after,
                (Mode::Cbc | Mode::Cfb, Direction::Open) => before,
                (Mode::Ofb, _) => std::array::from_fn(|n| before[n] ^ after[n]),
                (Mode::Ctr, _) => {
                    u128::from_be_bytes(chain).wrapping_add(len.div_ceil(BLOCK) as u128).to_be_bytes()
                }
            };
            at += len;
        }
        true
    }
}

/// Blocks until the low 16 bits of a counter are used up.
fn until_wrap(counter: &[u8; BLOCK]) -> usize {
    0x1_0000 - usize::from(u16::from_be_bytes([counter[14], counter[15]]))
}

fn last_block(text: &[u8]) -> [u8; BLOCK] {
    text.last_chunk().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instruction_ends_where_sixteen_bits_do() {
        let counter = |low: u16| (u128::MAX << 16 | u128::from(low)).to_be_bytes();
        assert_eq!(until_wrap(&counter(0)), 0x1_0000);
        assert_eq!(until_wrap(&counter(1)), 0xffff);
        assert_eq!(until_wrap(&counter(0xffff)), 1);
    }
}
