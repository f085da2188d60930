//! Authenticated encryption as such: no descriptors, only octets.

use chacha20::ChaCha20;
use chacha20::cipher::{KeyIvInit, StreamCipher, StreamCipherSeek};
use ghash::GHash;
use ghash::universal_hash::UniversalHash;
use poly1305::Poly1305;

use super::auth::cbc_mac;
use super::block::Block;
use super::modes;
use crate::fw::Trouble;

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Seal,
    Open,
}

/// GCM (NIST SP 800-38D) in place; returns the full tag. `block` encrypts the counter and, unless it is given, makes the
/// hash key.
pub(super) fn gcm(
    block: &Block,
    hash_key: Option<[u8; 16]>,
    first_counter: [u8; 16],
    direction: Direction,
    aad: &[u8],
    data: &mut [u8],
) -> [u8; 16] {
    let key = hash_key.unwrap_or_else(|| block.of([0; 16]));
    let mut next = [first_counter; 1].concat();
    increment(&mut next);
    let counter = next.first_chunk().copied().unwrap_or(first_counter);
    let mut tag = [0; 16];
    if direction == Direction::Open {
        tag = ghash(&key, aad, data);
    }
    modes::ctr32(block, &counter, data);
    if direction == Direction::Seal {
        tag = ghash(&key, aad, data);
    }
    modes::xor(&mut tag, &block.of(first_counter));
    tag
}

/// GHASH over additional data, data, and their lengths.
pub(super) fn ghash(key: &[u8; 16], aad: &[u8], data: &[u8]) -> [u8; 16] {
    let mut hash = <GHash as ghash::universal_hash::KeyInit>::new(&(*key).into());
    hash.update_padded(aad);
    hash.update_padded(data);
    let lengths = ((8 * aad.len() as u128) << 64) | (8 * data.len() as u128);
    hash.update(&[lengths.to_be_bytes().into()]);
    hash.finalize().into()
}

/// The last 32 bits count.
fn increment(counter: &mut [u8]) {
    if let Some(last) = counter.last_chunk_mut::<4>() {
        *last = u32::from_be_bytes(*last).wrapping_add(1).to_be_bytes();
    }
}

/// CCM (RFC 3610) in place; returns the full tag. `head` is the first block and the additional data as they are
/// authenticated, padded; `counter` is the block of counter zero.
pub(super) fn ccm(
    block: &Block,
    mac: &Block,
    head: &[u8],
    counter: [u8; 16],
    direction: Direction,
    data: &mut [u8],
) -> [u8; 16] {
    let chain = cbc_mac(mac, [0; 16], head);
    let first = u128::from_be_bytes(counter).wrapping_add(1).to_be_bytes();
    let mut tag = [0; 16];
    if direction == Direction::Seal {
        tag = cbc_mac(mac, chain, data);
    }
    modes::ctr(block, &first, data);
    if direction == Direction::Open {
        tag = cbc_mac(mac, chain, data);
    }
    modes::xor(&mut tag, &block.of(counter));
    tag
}

/// ChaCha20-Poly1305 (RFC 8439) in place; returns the tag.
pub(super) fn chacha20_poly1305(
    key: &[u8],
    nonce: &[u8],
    direction: Direction,
    aad: &[u8],
    data: &mut [u8],
) -> Result<[u8; 16], Trouble> {
    let mut cipher = ChaCha20::new_from_slices(key, nonce)
        .map_err(|_| Trouble::Invalid("a key of ChaCha20 has 32 octets"))?;
    let mut one_time = [0; 32];
    cipher.apply_keystream(&mut one_time);
    cipher.try_seek(64u64).map_err(|_| Trouble::Invalid("data longer than ChaCha20 goes"))?;
    let mut tag = [0; 16];
    if direction == Direction::Open {
        tag = poly1305(&one_time, aad, data);
    }
    cipher.try_apply_keystream(data).map_err(|_| Trouble::Invalid("data longer than ChaCha20 goes"))?;
    if direction == Direction::Seal {
        tag = poly1305(&one_time, aad, data);
    }
    Ok(tag)
}

fn poly1305(key: &[u8; 32], aad: &[u8], data: &[u8]) -> [u8; 16] {
    let mut mac = <Poly1305 as poly1305::universal_hash::KeyInit>::new(&(*key).into());
    mac.update_padded(aad);
    mac.update_padded(data);
    let lengths = (data.len() as u128) << 64 | aad.len() as u128;
    mac.update(&[lengths.to_le_bytes().into()]);
    mac.finalize().into()
}
