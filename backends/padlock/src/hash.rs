//! SHA-1 and SHA-256 over blocks, from any state, and HMAC on top of that (RFC 2104).
//!
//! The instructions are used in the form that does not end a message: an SA keeps the states after its key's two blocks, and
//! each packet goes on from there. What ends a message, padding and length, is done here.

use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::blocks::State;
use crate::sys::isa;

/// Octets of a block.
const BLOCK: usize = 64;

/// Which hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// 20 octets.
    Sha1,
    /// 32 octets.
    Sha256,
}

impl Kind {
    /// Octets of a digest.
    pub(crate) const fn len(self) -> usize {
        match self {
            Kind::Sha1 => 20,
            Kind::Sha256 => 32,
        }
    }

    /// The state that a message begins with (FIPS 180-4 section 5.3).
    const fn initial(self) -> Words {
        Words(match self {
            Kind::Sha1 => [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0, 0, 0, 0],
            Kind::Sha256 => [
                0x6a09_e667,
                0xbb67_ae85,
                0x3c6e_f372,
                0xa54f_f53a,
                0x510e_527f,
                0x9b05_688c,
                0x1f83_d9ab,
                0x5be0_cd19,
            ],
        })
    }
}

/// The words of a state.
#[derive(Zeroize, ZeroizeOnDrop)]
struct Words([u32; 8]);

/// The hash of the concatenation of `parts`, at the front of what is returned.
pub(crate) fn hash(kind: Kind, parts: &[&[u8]], state: &mut State) -> [u8; 32] {
    run(kind, &kind.initial(), 0, parts, state)
}

/// An HMAC key: the states behind the inner and the outer block.
pub(crate) struct Hmac {
    kind: Kind,
    inner: Words,
    outer: Words,
}

impl Hmac {
    /// From a key of any length.
    pub(crate) fn new(kind: Kind, key: &[u8], state: &mut State) -> Hmac {
        let mut block = [0; BLOCK];
        if key.len() > BLOCK {
            block[..kind.len()].copy_from_slice(&hash(kind, &[key], state)[..kind.len()]);
        } else {
            block[..key.len()].copy_from_slice(key);
        }
        let mut after = |pad: u8| {
            let mut padded = block.map(|octet| octet ^ pad);
            load(state, &kind.initial());
            isa::xsha(kind, state, &padded);
            padded.zeroize();
            words(state)
        };
        let (inner, outer) = (after(0x36), after(0x5c));
        block.zeroize();
        Hmac { kind, inner, outer }
    }

    /// The MAC of the concatenation of `parts`, at the front of what is returned.
    pub(crate) fn mac(&self, parts: &[&[u8]], state: &mut State) -> [u8; 32] {
        let inner = run(self.kind, &self.inner, BLOCK as u64, parts, state);
        run(self.kind, &self.outer, BLOCK as u64, &[&inner[..self.kind.len()]], state)
    }
}

/// Goes on from a state in which `before` octets are hashed already, to the end of a message.
fn run(kind: Kind, from: &Words, before: u64, parts: &[&[u8]], state: &mut State) -> [u8; 32] {
    load(state, from);
    let mut block = [0; BLOCK];
    let (mut filled, mut total) = (0, before);
    for part in parts {
        let mut part = *part;
        total += part.len() as u64;
        if filled > 0 {
            let take = part.len().min(BLOCK - filled);
            block[filled..filled + take].copy_from_slice(&part[..take]);
            (filled, part) = (filled + take, &part[take..]);
            if filled < BLOCK {
                continue;
            }
            isa::xsha(kind, state, &block);
        }
        let (whole, rest) = part.split_at(part.len() / BLOCK * BLOCK);
        isa::xsha(kind, state, whole);
        block[..rest.len()].copy_from_slice(rest);
        filled = rest.len();
    }
    // FIPS 180-4 section 5.1.1: a one, zeroes, and the length in bits at the end of a block.
    block[filled] = 0x80;
    block[filled + 1..].fill(0);
    if filled + 1 + 8 > BLOCK {
        isa::xsha(kind, state, &block);
        block.fill(0);
    }
    block[BLOCK - 8..].copy_from_slice(&(total * 8).to_be_bytes());
    isa::xsha(kind, state, &block);
    let mut out = [0; 32];
    for (to, word) in out.chunks_exact_mut(4).zip(&state.0) {
        to.copy_from_slice(&word.to_be_bytes());
    }
    out
}

fn load(state: &mut State, from: &Words) {
    state.0[..8].copy_from_slice(&from.0);
}

fn words(state: &State) -> Words {
    let mut words = Words([0; 8]);
    words.0.copy_from_slice(&state.0[..8]);
    words
}
