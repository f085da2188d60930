//! The pieces of memory that the instructions take by address. All lie on 16 octets, as they must, and are wiped when they go.

use zeroize::{Zeroize, ZeroizeOnDrop};

/// Octets of a cipher block.
pub(crate) const BLOCK: usize = 16;

/// A key or a key schedule. The processor reads more than the 15 round keys of the longest one.
#[derive(Zeroize, ZeroizeOnDrop)]
#[repr(C, align(16))]
pub(crate) struct Key(pub(crate) [u8; 256]);

/// A control word, of which the first 32 bits mean something.
#[derive(Clone, Copy)]
#[repr(C, align(16))]
pub(crate) struct Control(pub(crate) [u32; 4]);

/// An IV or a counter block.
#[derive(Clone, Copy, Zeroize)]
#[repr(C, align(16))]
pub(crate) struct Iv(pub(crate) [u8; BLOCK]);

/// The state of a hash: five or eight words, and what the processor needs besides.
#[derive(Zeroize, ZeroizeOnDrop)]
#[repr(C, align(16))]
pub(crate) struct State(pub(crate) [u32; 32]);

/// Octets that go through the bounce buffer at a time.
pub(crate) const CHUNK: usize = 512;

/// Where texts go that the processor cannot take as they lie, with as much room behind as it may read.
#[derive(Zeroize, ZeroizeOnDrop)]
#[repr(C, align(16))]
pub(crate) struct Bounce(pub(crate) [u8; CHUNK + 128]);

/// What one thread needs to work with any number of keys.
pub(crate) struct Work {
    pub(crate) bounce: Bounce,
    pub(crate) iv: Iv,
    pub(crate) state: State,
}

impl Work {
    pub(crate) fn new() -> Box<Work> {
        Box::new(Work { bounce: Bounce([0; CHUNK + 128]), iv: Iv([0; BLOCK]), state: State([0; 32]) })
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.iv.zeroize();
    }
}
