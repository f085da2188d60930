//! A hash or MAC as a content descriptor describes it.

use emu_model::Dma;

use super::block::Block;
use super::hash::Hash;
use super::modes;
use super::request::{Descriptor, La};
use crate::fw::Trouble;

/// Algorithms, as the settings number them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Algorithm {
    Null,
    Hash(Hash),
    /// XCBC and CMAC, which differ only in the keys that the driver makes.
    Xcbc,
    /// The MAC of CCM.
    CbcMac,
    /// The hash of GCM.
    Ghash,
}

/// How a hash is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Plain,
    /// HMAC with precomputed states.
    States,
    /// HMAC with the key before the data.
    Key,
}

/// An algorithm and what it needs.
pub(super) struct Auth {
    pub(super) algorithm: Algorithm,
    mode: Mode,
    config: u32,
}

impl Auth {
    /// Reads the settings.
    pub(super) fn load(descriptor: &Descriptor<'_>) -> Result<Auth, Trouble> {
        let config = descriptor.auth_config()?;
        let algorithm = match config & 0xf | config >> 18 & 0x30 {
            0 => Algorithm::Null,
            1 => Algorithm::Hash(Hash::Sha1),
            2 => Algorithm::Hash(Hash::Md5),
            3 => Algorithm::Hash(Hash::Sha224),
            4 => Algorithm::Hash(Hash::Sha256),
            5 => Algorithm::Hash(Hash::Sha384),
            6 => Algorithm::Hash(Hash::Sha512),
            7 => Algorithm::Xcbc,
            8 => Algorithm::CbcMac,
            10 => Algorithm::Ghash,
            15 => Algorithm::Hash(Hash::Sm3),
            16 => Algorithm::Hash(Hash::Sha3_224),
            17 => Algorithm::Hash(Hash::Sha3_256),
            18 => Algorithm::Hash(Hash::Sha3_384),
            19 => Algorithm::Hash(Hash::Sha3_512),
            9 | 12 => return Err(Trouble::Refused("KASUMI")),
            13 => return Err(Trouble::Refused("SNOW 3G")),
            14 | 25..=27 => return Err(Trouble::Refused("ZUC")),
            _ => return Err(Trouble::Refused("hash algorithm that is not known")),
        };
        let mode = match config >> 4 & 0xf {
            0 => Mode::Plain,
            1 => Mode::States,
            2 => Mode::Key,
            _ => return Err(Trouble::Refused("hash mode that is not known")),
        };
        Ok(Auth { algorithm, mode, config })
    }

    /// What people call it.
    pub(super) fn name(&self) -> String {
        match (self.algorithm, self.mode) {
            (Algorithm::Null, _) => "null".to_string(),
            (Algorithm::Hash(hash), Mode::Plain) => hash.name().to_string(),
            (Algorithm::Hash(hash), _) => format!("hmac-{}", hash.name()),
            (Algorithm::Xcbc, _) => "aes-128-xcbc/cmac".to_string(),
            (Algorithm::CbcMac, _) => "cbc-mac".to_string(),
            (Algorithm::Ghash, _) => "ghash".to_string(),
        }
    }

    /// How long the check value is: the first place that says it. Linux leaves the first one empty when it encrypts.
    pub(super) fn digest_len(&self, la: &La<'_>) -> usize {
        let natural = match self.algorithm {
            Algorithm::Null => 0,
            Algorithm::Hash(hash) => hash.len(),
            Algorithm::Xcbc | Algorithm::CbcMac | Algorithm::Ghash => 16,
        };
        let [last, inner] = la.control_digest_lens();
        let said = [la.digest_len(), last, inner, (self.config >> 8 & 0x7f) as usize];
        said.into_iter().find(|len| *len > 0).map_or(natural, |len| len.min(natural))
    }

    /// The check value over data, at its full length.
    pub(super) fn digest(
        &self,
        la: &La<'_>,
        descriptor: &Descriptor<'_>,
        memory: &dyn Dma,
        data: &[u8],
    ) -> Result<Vec<u8>, Trouble> {
        match self.algorithm {
            Algorithm::Null => Ok(Vec::new()),
            Algorithm::Hash(hash) => match self.mode {
                Mode::Plain => Ok(hash.digest(data)),
                Mode::States => {
                    let len = hash.state_len();
                    hash.hmac_from_states(&descriptor.state1(len)?, &descriptor.state2(len)?, data)
                }
                Mode::Key => {
                    // Padded with zeros to the length of a block, which does not change an HMAC.
                    let mut key = vec![0; la.prefix_len()];
                    memory.read(la.aad_address(), &mut key)?;
                    Ok(hash.hmac_with_key(&key, data))
                }
            },
            Algorithm::Xcbc => {
                let keys = descriptor.state2(48)?;
                let (keys, _) = keys.as_chunks::<16>();
                let [first, whole, part] = keys else { return Err(Trouble::Invalid("not three keys")) };
                Ok(xcbc(&Block::aes(first)?, whole, part, data).to_vec())
            }
            Algorithm::CbcMac | Algorithm::Ghash => {
                Err(Trouble::Invalid("a hash of GCM or CCM outside of these protocols"))
            }
        }
    }
}

/// The chain of RFC 3566 and RFC 4493: the last block is mixed with one key if it is whole, and with another if it had to
/// be padded.
fn xcbc(block: &Block, whole: &[u8; 16], part: &[u8; 16], data: &[u8]) -> [u8; 16] {
    let last = data.len().saturating_sub(1) / 16 * 16;
    let (body, end) = data.split_at(last);
    let mut chain = cbc_mac(block, [0; 16], body);
    let mut end = end.to_vec();
    let key = if end.len() == 16 { whole } else { part };
    if end.len() < 16 {
        end.push(0x80);
        end.resize(16, 0);
    }
    modes::xor(&mut chain, &end);
    modes::xor(&mut chain, key);
    block.of(chain)
}

/// The chain of CBC over data, padded with zeros.
pub(super) fn cbc_mac(block: &Block, chain: [u8; 16], data: &[u8]) -> [u8; 16] {
    data.chunks(16).fold(chain, |mut chain, chunk| {
        modes::xor(&mut chain, chunk);
        block.of(chain)
    })
}
