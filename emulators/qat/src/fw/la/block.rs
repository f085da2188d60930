//! Block ciphers with a key.

use aes::cipher::{Array, BlockCipherDecrypt, BlockCipherEncrypt, BlockSizeUser, KeyInit};
use aes::{Aes128, Aes192, Aes256};
use des::{Des, TdesEde2, TdesEde3};
use sm4::Sm4;

use super::schedule;
use crate::fw::Trouble;

/// A block cipher with a key.
pub(super) enum Block {
    Aes128(Box<Aes128>),
    Aes192(Box<Aes192>),
    Aes256(Box<Aes256>),
    Des(Box<Des>),
    Tdes(Box<TdesEde3>),
    Sm4(Box<Sm4>),
}

impl Block {
    /// AES by the length of the key.
    pub(super) fn aes(key: &[u8]) -> Result<Block, Trouble> {
        let wrong = |_| Trouble::Invalid("a key of AES has 16, 24 or 32 octets");
        match key.len() {
            24 => Aes192::new_from_slice(key).map(|key| Block::Aes192(Box::new(key))).map_err(wrong),
            32 => Aes256::new_from_slice(key).map(|key| Block::Aes256(Box::new(key))).map_err(wrong),
            _ => Aes128::new_from_slice(key).map(|key| Block::Aes128(Box::new(key))).map_err(wrong),
        }
    }

    /// AES from the end of its key schedule, which is what decryption begins with.
    pub(super) fn aes_from_last_keys(last: &[u8]) -> Result<Block, Trouble> {
        Block::aes(&schedule::first_key(last)?)
    }

    /// DES.
    pub(super) fn des(key: &[u8]) -> Result<Block, Trouble> {
        let key = Des::new_from_slice(key).map_err(|_| Trouble::Invalid("a key of DES has 8 octets"))?;
        Ok(Block::Des(Box::new(key)))
    }

    /// Triple DES.
    pub(super) fn tdes(key: &[u8]) -> Result<Block, Trouble> {
        let key = match TdesEde2::new_from_slice(key) {
            // Two keys, the first of which is also the third.
            Ok(_) => [key, key.get(..8).unwrap_or_default()].concat(),
            Err(_) => key.to_vec(),
        };
        let key =
            TdesEde3::new_from_slice(&key).map_err(|_| Trouble::Invalid("a key of 3DES has 24 octets"))?;
        Ok(Block::Tdes(Box::new(key)))
    }

    /// SM4.
    pub(super) fn sm4(key: &[u8]) -> Result<Block, Trouble> {
        let key = Sm4::new_from_slice(key).map_err(|_| Trouble::Invalid("a key of SM4 has 16 octets"))?;
        Ok(Block::Sm4(Box::new(key)))
    }

    /// Octets of a block.
    pub(super) fn len(&self) -> usize {
        match self {
            Block::Des(_) | Block::Tdes(_) => 8,
            _ => 16,
        }
    }

    /// Encrypts blocks, one after the other and independently. An incomplete last one is left alone.
    pub(super) fn encrypt(&self, octets: &mut [u8]) {
        match self {
            Block::Aes128(key) => encrypt(&**key, octets),
            Block::Aes192(key) => encrypt(&**key, octets),
            Block::Aes256(key) => encrypt(&**key, octets),
            Block::Des(key) => encrypt(&**key, octets),
            Block::Tdes(key) => encrypt(&**key, octets),
            Block::Sm4(key) => encrypt(&**key, octets),
        }
    }

    /// Decrypts blocks, likewise.
    pub(super) fn decrypt(&self, octets: &mut [u8]) {
        match self {
            Block::Aes128(key) => decrypt(&**key, octets),
            Block::Aes192(key) => decrypt(&**key, octets),
            Block::Aes256(key) => decrypt(&**key, octets),
            Block::Des(key) => decrypt(&**key, octets),
            Block::Tdes(key) => decrypt(&**key, octets),
            Block::Sm4(key) => decrypt(&**key, octets),
        }
    }

    /// One block of sixteen octets, encrypted.
    pub(super) fn of(&self, mut block: [u8; 16]) -> [u8; 16] {
        self.encrypt(&mut block);
        block
    }
}

fn encrypt<C: BlockCipherEncrypt + BlockSizeUser>(cipher: &C, octets: &mut [u8]) {
    let (blocks, _) = Array::<u8, C::BlockSize>::slice_as_chunks_mut(octets);
    cipher.encrypt_blocks(blocks);
}

fn decrypt<C: BlockCipherDecrypt + BlockSizeUser>(cipher: &C, octets: &mut [u8]) {
    let (blocks, _) = Array::<u8, C::BlockSize>::slice_as_chunks_mut(octets);
    cipher.decrypt_blocks(blocks);
}
