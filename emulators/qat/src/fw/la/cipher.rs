//! A cipher as a content descriptor describes it.

use super::block::Block;
use super::modes;
use super::request::{Descriptor, La};
use crate::fw::Trouble;

/// Algorithms, as the settings number them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Algorithm {
    Null,
    Des,
    Tdes,
    Aes128,
    Aes192,
    Aes256,
    Sm4,
    ChaCha20Poly1305,
}

/// Modes, likewise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Ecb,
    Cbc,
    Ctr,
    GcmSinglePass,
    CcmSinglePass,
    Xts,
}

/// A cipher, its mode, its key.
pub(super) struct Cipher {
    pub(super) algorithm: Algorithm,
    pub(super) mode: Mode,
    pub(super) decrypt: bool,
    /// The engine makes the keys of decryption by itself.
    convert: bool,
    /// The check value of a single pass.
    pub(super) digest_len: usize,
    pub(super) key: Vec<u8>,
    /// The key of the tweak is not here: the driver has encrypted the tweak.
    ready_tweak: bool,
}

impl Cipher {
    /// Reads settings and key.
    pub(super) fn load(la: &La<'_>, descriptor: &Descriptor<'_>) -> Result<Cipher, Trouble> {
        let config = descriptor.cipher_config()?;
        let algorithm = match config & 0xf {
            0 => Algorithm::Null,
            1 => Algorithm::Des,
            2 => Algorithm::Tdes,
            3 => Algorithm::Aes128,
            4 => Algorithm::Aes192,
            5 => Algorithm::Aes256,
            10 => Algorithm::Sm4,
            11 => Algorithm::ChaCha20Poly1305,
            6 => return Err(Trouble::Refused("ARC4")),
            7 => return Err(Trouble::Refused("KASUMI")),
            8 => return Err(Trouble::Refused("SNOW 3G")),
            9 | 12 => return Err(Trouble::Refused("ZUC")),
            _ => return Err(Trouble::Refused("cipher algorithm that is not known")),
        };
        let mode = match config >> 4 & 0xf {
            0 => Mode::Ecb,
            1 => Mode::Cbc,
            2 => Mode::Ctr,
            4 => Mode::GcmSinglePass,
            5 => Mode::CcmSinglePass,
            6 => Mode::Xts,
            3 => return Err(Trouble::Refused("F8 mode")),
            _ => return Err(Trouble::Refused("cipher mode that is not known")),
        };
        let ready_tweak = mode == Mode::Xts && la.is_ucs();
        let key_len = match algorithm {
            Algorithm::Null => 0,
            Algorithm::Des => 8,
            // Two keys or three: the control header knows.
            Algorithm::Tdes => la.key_len().clamp(16, 24),
            Algorithm::Aes128 | Algorithm::Sm4 => 16,
            Algorithm::Aes192 => 24,
            Algorithm::Aes256 | Algorithm::ChaCha20Poly1305 => 32,
        };
        let keys = if mode == Mode::Xts && !ready_tweak { 2 } else { 1 };
        Ok(Cipher {
            algorithm,
            mode,
            decrypt: config >> 8 & 1 != 0,
            convert: config >> 9 & 1 != 0,
            digest_len: (config >> 10 & 0x1f) as usize,
            key: descriptor.key(key_len * keys)?,
            ready_tweak,
        })
    }

    /// What people call it.
    pub(super) fn name(&self) -> String {
        let algorithm = match self.algorithm {
            Algorithm::Null => return "null".to_string(),
            Algorithm::Des => "des",
            Algorithm::Tdes => "3des",
            Algorithm::Aes128 => "aes-128",
            Algorithm::Aes192 => "aes-192",
            Algorithm::Aes256 => "aes-256",
            Algorithm::Sm4 => "sm4",
            Algorithm::ChaCha20Poly1305 => return "chacha20".to_string(),
        };
        let mode = match self.mode {
            Mode::Ecb => "ecb",
            Mode::Cbc => "cbc",
            Mode::Ctr => "ctr",
            Mode::GcmSinglePass => "gcm",
            Mode::CcmSinglePass => "ccm",
            Mode::Xts => "xts",
        };
        format!("{algorithm}-{mode}")
    }

    /// The block cipher for encryption, which is all that counters need.
    pub(super) fn block(&self) -> Result<Block, Trouble> {
        self.block_with(self.first_key(), false)
    }

    /// Encrypts or decrypts data in place.
    pub(super) fn apply(&self, iv: &[u8; 16], data: &mut [u8]) -> Result<(), Trouble> {
        if self.algorithm == Algorithm::Null {
            return Ok(());
        }
        match self.mode {
            Mode::Ecb => modes::ecb(&self.keyed()?, self.decrypt, data),
            Mode::Cbc => modes::cbc(&self.keyed()?, self.decrypt, iv, data),
            // Both directions are the same.
            Mode::Ctr => {
                modes::ctr(&self.block()?, iv, data);
                Ok(())
            }
            Mode::Xts => {
                let tweak = if self.ready_tweak { *iv } else { Block::aes(self.second_key())?.of(*iv) };
                modes::xts(&self.keyed()?, self.decrypt, tweak, data)
            }
            Mode::GcmSinglePass | Mode::CcmSinglePass => {
                Err(Trouble::Invalid("a mode of single pass in a request that is none"))
            }
        }
    }

    /// The block cipher for the direction of this cipher.
    fn keyed(&self) -> Result<Block, Trouble> {
        self.block_with(self.first_key(), self.decrypt && !self.convert)
    }

    fn block_with(&self, key: &[u8], last_keys: bool) -> Result<Block, Trouble> {
        match self.algorithm {
            Algorithm::Des => Block::des(key),
            Algorithm::Tdes => Block::tdes(key),
            Algorithm::Sm4 => Block::sm4(key),
            Algorithm::Aes128 | Algorithm::Aes192 | Algorithm::Aes256 if last_keys => {
                Block::aes_from_last_keys(key)
            }
            Algorithm::Aes128 | Algorithm::Aes192 | Algorithm::Aes256 => Block::aes(key),
            Algorithm::Null | Algorithm::ChaCha20Poly1305 => Err(Trouble::Invalid("no block cipher")),
        }
    }

    fn first_key(&self) -> &[u8] {
        let keys = if self.mode == Mode::Xts && !self.ready_tweak { 2 } else { 1 };
        self.key.get(..self.key.len() / keys).unwrap_or_default()
    }

    fn second_key(&self) -> &[u8] {
        self.key.get(self.key.len() / 2..).unwrap_or_default()
    }
}
