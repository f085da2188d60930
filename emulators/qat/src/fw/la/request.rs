//! The fields of a lookaside request, and the content descriptor that it points to.

use emu_model::Dma;

use super::constants;
use crate::fw::Trouble;
use crate::fw::buffer::Stream;
use crate::fw::message::Request;

/// Commands.
pub(super) mod command {
    pub(crate) const CIPHER: u8 = 0;
    pub(crate) const AUTH: u8 = 1;
    pub(crate) const CIPHER_HASH: u8 = 2;
    pub(crate) const HASH_CIPHER: u8 = 3;
}

/// Protocols that change how cipher and hash work together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    None,
    Ccm,
    Gcm,
    Other,
}

/// What happens with the check value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Digest {
    None,
    Return,
    Compare,
}

/// Octets `at` to `at + len - 1` of the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Region {
    pub(super) at: u32,
    pub(super) len: u32,
}

impl Region {
    pub(super) fn end(&self) -> Result<u32, Trouble> {
        self.at.checked_add(self.len).ok_or(Trouble::Invalid("offset and length overflow"))
    }
}

/// A lookaside request.
pub(super) struct La<'a> {
    request: Request<'a>,
    flags: u16,
    common: u8,
}

impl<'a> La<'a> {
    pub(super) fn new(request: &Request<'a>) -> Self {
        La { request: *request, flags: request.u16(4), common: request.u8(6) }
    }

    pub(super) fn command(&self) -> u8 {
        self.request.command()
    }

    /// A packet in several requests.
    pub(super) fn is_partial(&self) -> bool {
        self.flags & 3 != 0
    }

    pub(super) fn protocol(&self) -> Protocol {
        match self.flags >> 7 & 7 {
            0 => Protocol::None,
            1 => Protocol::Ccm,
            2 => Protocol::Gcm,
            _ => Protocol::Other,
        }
    }

    pub(super) fn digest(&self) -> Digest {
        match (self.flags >> 5 & 1, self.flags >> 6 & 1) {
            (_, 1) => Digest::Compare,
            (1, 0) => Digest::Return,
            _ => Digest::None,
        }
    }

    /// The check value is behind the data that it covers.
    pub(super) fn digest_in_buffer(&self) -> bool {
        self.flags >> 10 & 1 != 0
    }

    /// The IV of GCM has 12 octets and not 16.
    pub(super) fn short_iv(&self) -> bool {
        self.flags >> 11 & 1 != 0
    }

    pub(super) fn is_single_pass(&self) -> bool {
        self.flags >> 13 & 1 != 0
    }

    /// The engine of generation 4, whose descriptors are longer.
    pub(super) fn is_ucs(&self) -> bool {
        self.flags >> 14 == 1
    }

    pub(super) fn source(&self, memory: &dyn Dma) -> Result<Stream, Trouble> {
        self.stream(memory, self.request.u64(32))
    }

    /// Where results go; where the data comes from, if nothing else is said.
    pub(super) fn destination(&self, memory: &dyn Dma) -> Result<Stream, Trouble> {
        match self.request.u64(40) {
            0 => self.source(memory),
            address => self.stream(memory, address),
        }
    }

    fn stream(&self, memory: &dyn Dma, address: u64) -> Result<Stream, Trouble> {
        if self.common & 1 != 0 { Stream::listed(memory, address) } else { Ok(Stream::flat(address)) }
    }

    pub(super) fn cipher_region(&self) -> Region {
        Region { at: self.request.u32(56), len: self.request.u32(60) }
    }

    pub(super) fn auth_region(&self) -> Region {
        Region { at: self.request.u32(80), len: self.request.u32(84) }
    }

    /// Sixteen octets of IV, wherever they are.
    pub(super) fn iv(&self, memory: &dyn Dma) -> Result<[u8; 16], Trouble> {
        if self.flags >> 2 & 1 != 0 {
            return Ok(self.request.array(64));
        }
        let mut iv = [0; 16];
        memory.read(self.request.u64(64), &mut iv)?;
        Ok(iv)
    }

    /// Additional data, and in single-pass requests how much there is.
    pub(super) fn aad_address(&self) -> u64 {
        self.request.u64(88)
    }

    pub(super) fn single_pass_aad_len(&self) -> u32 {
        self.request.u32(84)
    }

    /// In two-slice requests: additional data with its padding.
    pub(super) fn aad_len(&self) -> usize {
        usize::from(self.request.u8(104))
    }

    pub(super) fn digest_address(&self) -> u64 {
        self.request.u64(96)
    }

    /// The length of the check value, as far as the parameters have it.
    pub(super) fn digest_len(&self) -> usize {
        usize::from(self.request.u8(107))
    }

    /// An octet of the control header that goes with the content descriptor.
    fn control(&self, at: usize) -> usize {
        usize::from(self.request.u8(108 + at))
    }

    /// The length of a cipher's key, as the control header has it.
    pub(super) fn key_len(&self) -> usize {
        self.control(1) * 8
    }

    /// What else may say how long the check value is.
    pub(super) fn control_digest_lens(&self) -> [usize; 2] {
        [self.control(10), self.control(11)]
    }

    pub(super) fn inner_state1_len(&self) -> usize {
        self.control(13)
    }

    /// Whether hash and key are given as a prefix of the data (mode 2), and where they are.
    pub(super) fn prefix_len(&self) -> usize {
        usize::from(self.request.u8(104))
    }

    pub(super) fn descriptor<'m>(&self, memory: &'m dyn Dma) -> Descriptor<'m> {
        Descriptor {
            memory,
            address: self.request.u64(8),
            key: (self.common & 2 != 0).then(|| self.request.array(8)),
            constants: self.flags >> 3 & 1 != 0,
            cipher: self.control(2) * 8,
            hash: self.control(6) * 8,
            state2: self.control(14) * 8,
            state1_len: self.inner_state1_len(),
            header: if self.is_ucs() { 16 } else { 8 },
        }
    }
}

/// The content descriptor: what the engines are to be set to, and keys.
pub(super) struct Descriptor<'m> {
    memory: &'m dyn Dma,
    address: u64,
    /// The key, if the request itself holds it in the place of the descriptor's address.
    key: Option<[u8; 16]>,
    /// Settings are named by their place in a table of constants that the device has, and only keys are here.
    constants: bool,
    cipher: usize,
    hash: usize,
    state2: usize,
    state1_len: usize,
    /// Octets of a cipher's settings.
    header: usize,
}

impl Descriptor<'_> {
    /// The settings of the cipher.
    pub(super) fn cipher_config(&self) -> Result<u32, Trouble> {
        if self.constants {
            return constants::cipher(self.cipher / 8);
        }
        self.word(self.cipher)
    }

    /// A key of so many octets.
    pub(super) fn key(&self, len: usize) -> Result<Vec<u8>, Trouble> {
        if let Some(key) = &self.key {
            return key
                .get(..len)
                .map(<[u8]>::to_vec)
                .ok_or(Trouble::Invalid("a key of more than 16 octets inline"));
        }
        let at = if self.constants { 0 } else { self.cipher + self.header };
        self.octets(at, len)
    }

    /// The settings of the hash.
    pub(super) fn auth_config(&self) -> Result<u32, Trouble> {
        if self.constants {
            return constants::auth(self.hash / 8);
        }
        self.word(self.hash)
    }

    /// The first state of the hash: behind its settings, or before the second state if they are not here.
    pub(super) fn state1(&self, len: usize) -> Result<Vec<u8>, Trouble> {
        if self.constants {
            let before = self.state1_len.next_multiple_of(8);
            let at = self.state2.checked_sub(before).ok_or(Trouble::Invalid("no room for a first state"))?;
            return self.octets(at, len);
        }
        self.octets(self.hash + 16, len)
    }

    /// The second state of the hash.
    pub(super) fn state2(&self, len: usize) -> Result<Vec<u8>, Trouble> {
        self.octets(self.state2, len)
    }

    fn word(&self, at: usize) -> Result<u32, Trouble> {
        let octets = self.octets(at, 4)?;
        Ok(octets.first_chunk().map_or(0, |word| u32::from_le_bytes(*word)))
    }

    fn octets(&self, at: usize, len: usize) -> Result<Vec<u8>, Trouble> {
        let mut octets = vec![0; len];
        self.memory.read(self.address.wrapping_add(at as u64), &mut octets)?;
        Ok(octets)
    }
}
