//! Hashes, whole and from the middle: HMAC comes as two states behind their first blocks.

use sha2::Digest;

use crate::fw::Trouble;

/// Hashes, as the settings number them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hash {
    Md5,
    Sha1,
    Sha224,
    Sha256,
    Sha384,
    Sha512,
    Sm3,
    Sha3_224,
    Sha3_256,
    Sha3_384,
    Sha3_512,
}

impl Hash {
    pub(super) fn name(self) -> &'static str {
        match self {
            Hash::Md5 => "md5",
            Hash::Sha1 => "sha1",
            Hash::Sha224 => "sha224",
            Hash::Sha256 => "sha256",
            Hash::Sha384 => "sha384",
            Hash::Sha512 => "sha512",
            Hash::Sm3 => "sm3",
            Hash::Sha3_224 => "sha3-224",
            Hash::Sha3_256 => "sha3-256",
            Hash::Sha3_384 => "sha3-384",
            Hash::Sha3_512 => "sha3-512",
        }
    }

    /// Octets of the result.
    pub(super) fn len(self) -> usize {
        match self {
            Hash::Md5 => 16,
            Hash::Sha1 => 20,
            Hash::Sha224 | Hash::Sha3_224 => 28,
            Hash::Sha256 | Hash::Sm3 | Hash::Sha3_256 => 32,
            Hash::Sha384 | Hash::Sha3_384 => 48,
            Hash::Sha512 | Hash::Sha3_512 => 64,
        }
    }

    /// Octets of a state in the middle.
    pub(super) fn state_len(self) -> usize {
        match self {
            Hash::Md5 => 16,
            Hash::Sha1 => 20,
            Hash::Sha384 | Hash::Sha512 => 64,
            _ => 32,
        }
    }

    /// Octets of a block.
    fn block_len(self) -> usize {
        match self {
            Hash::Md5 | Hash::Sha1 | Hash::Sha224 | Hash::Sha256 | Hash::Sm3 => 64,
            Hash::Sha384 | Hash::Sha512 => 128,
            Hash::Sha3_224 => 144,
            Hash::Sha3_256 => 136,
            Hash::Sha3_384 => 104,
            Hash::Sha3_512 => 72,
        }
    }

    /// The hash of data.
    pub(super) fn digest(self, data: &[u8]) -> Vec<u8> {
        match self {
            Hash::Md5 => md5::Md5::digest(data).to_vec(),
            Hash::Sha1 => sha1::Sha1::digest(data).to_vec(),
            Hash::Sha224 => sha2::Sha224::digest(data).to_vec(),
            Hash::Sha256 => sha2::Sha256::digest(data).to_vec(),
            Hash::Sha384 => sha2::Sha384::digest(data).to_vec(),
            Hash::Sha512 => sha2::Sha512::digest(data).to_vec(),
            Hash::Sm3 => sm3::Sm3::digest(data).to_vec(),
            Hash::Sha3_224 => sha3::Sha3_224::digest(data).to_vec(),
            Hash::Sha3_256 => sha3::Sha3_256::digest(data).to_vec(),
            Hash::Sha3_384 => sha3::Sha3_384::digest(data).to_vec(),
            Hash::Sha3_512 => sha3::Sha3_512::digest(data).to_vec(),
        }
    }

    /// HMAC (RFC 2104) with the states that the two pads lead to.
    pub(super) fn hmac_from_states(
        self,
        inner: &[u8],
        outer: &[u8],
        data: &[u8],
    ) -> Result<Vec<u8>, Trouble> {
        let inside = self.continued(inner, data)?;
        self.continued(outer, &inside)
    }

    /// HMAC with the key itself.
    pub(super) fn hmac_with_key(self, key: &[u8], data: &[u8]) -> Vec<u8> {
        let mut block = if key.len() > self.block_len() { self.digest(key) } else { key.to_vec() };
        block.resize(self.block_len(), 0);
        let pad = |with: u8| -> Vec<u8> { block.iter().map(|octet| octet ^ with).collect() };
        let inside = self.digest(&[pad(0x36), data.to_vec()].concat());
        self.digest(&[pad(0x5c), inside].concat())
    }

    /// The hash of one block, which led to `state`, and then `data`.
    fn continued(self, state: &[u8], data: &[u8]) -> Result<Vec<u8>, Trouble> {
        let block = self.block_len();
        let message = padded(data, block, self == Hash::Md5);
        let mut state = match self {
            Hash::Md5 => {
                let mut words: [u32; 4] = words(state, u32::from_le_bytes)?;
                message
                    .chunks_exact(64)
                    .for_each(|chunk| md5::block_api::compress(&mut words, chunk.as_chunks().0));
                words.into_iter().flat_map(u32::to_le_bytes).collect::<Vec<u8>>()
            }
            Hash::Sha1 => {
                let mut words: [u32; 5] = words(state, u32::from_be_bytes)?;
                sha1::block_api::compress(&mut words, message.as_chunks().0);
                words.into_iter().flat_map(u32::to_be_bytes).collect()
            }
            Hash::Sha224 | Hash::Sha256 => {
                let mut words: [u32; 8] = words(state, u32::from_be_bytes)?;
                sha2::block_api::compress256(&mut words, message.as_chunks().0);
                words.into_iter().flat_map(u32::to_be_bytes).collect()
            }
            Hash::Sha384 | Hash::Sha512 => {
                let mut words: [u64; 8] = words(state, u64::from_be_bytes)?;
                sha2::block_api::compress512(&mut words, message.as_chunks().0);
                words.into_iter().flat_map(u64::to_be_bytes).collect()
            }
            _ => return Err(Trouble::Refused("HMAC with states of this hash")),
        };
        state.truncate(self.len());
        Ok(state)
    }
}

/// Data with its padding, as the second and later blocks of a message.
fn padded(data: &[u8], block: usize, little: bool) -> Vec<u8> {
    let bits = 8 * (block + data.len()) as u64;
    let length = if block == 128 { 16 } else { 8 };
    let mut message = data.to_vec();
    message.push(0x80);
    message.resize((message.len() + length).next_multiple_of(block) - 8, 0);
    message.extend(if little { bits.to_le_bytes() } else { bits.to_be_bytes() });
    message
}

/// The words of a state.
fn words<T: Copy + Default, const N: usize, const W: usize>(
    state: &[u8],
    read: impl Fn([u8; W]) -> T,
) -> Result<[T; N], Trouble> {
    let mut words = [T::default(); N];
    let (chunks, _) = state.as_chunks::<W>();
    if chunks.len() < N {
        return Err(Trouble::Invalid("a state that is too short"));
    }
    words.iter_mut().zip(chunks).for_each(|(word, chunk)| *word = read(*chunk));
    Ok(words)
}
