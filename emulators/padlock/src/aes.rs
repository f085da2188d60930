//! One block of AES, from a key or from round keys that were made elsewhere.

use aes::Block;
use aes::cipher::{BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};
use aes::hazmat::{cipher_round, equiv_inv_cipher_round, inv_mix_columns, mix_columns};

/// What encrypts or decrypts.
pub(crate) enum Cipher {
    /// A raw key of 128 bits.
    Raw(Box<aes::Aes128>),
    /// Round keys: 10, 12 or 14 rounds, and whatever follows.
    Schedule { keys: Box<[Block; 16]>, rounds: usize },
}

impl Cipher {
    pub(crate) fn raw(key: &[u8; 16]) -> Cipher {
        Cipher::Raw(Box::new(aes::Aes128::new(&(*key).into())))
    }

    /// A schedule is used as it is: nobody checks that it is one.
    pub(crate) fn schedule(octets: &[u8; 256], rounds: usize) -> Cipher {
        let (blocks, _) = octets.as_chunks::<16>();
        Cipher::Schedule { keys: Box::new(std::array::from_fn(|n| blocks[n].into())), rounds }
    }

    pub(crate) fn encrypt(&self, block: [u8; 16]) -> [u8; 16] {
        let mut block = Block::from(block);
        match self {
            Cipher::Raw(key) => key.encrypt_block(&mut block),
            Cipher::Schedule { keys, rounds } => {
                add(&mut block, &keys[0]);
                keys[1..*rounds].iter().for_each(|key| cipher_round(&mut block, key));
                // The last round does not mix columns.
                cipher_round(&mut block, &Block::default());
                inv_mix_columns(&mut block);
                add(&mut block, &keys[*rounds]);
            }
        }
        block.into()
    }

    pub(crate) fn decrypt(&self, block: [u8; 16]) -> [u8; 16] {
        let mut block = Block::from(block);
        match self {
            Cipher::Raw(key) => key.decrypt_block(&mut block),
            Cipher::Schedule { keys, rounds } => {
                add(&mut block, &keys[0]);
                keys[1..*rounds].iter().for_each(|key| equiv_inv_cipher_round(&mut block, key));
                equiv_inv_cipher_round(&mut block, &Block::default());
                mix_columns(&mut block);
                add(&mut block, &keys[*rounds]);
            }
        }
        block.into()
    }
}

fn add(block: &mut Block, key: &Block) {
    block.iter_mut().zip(key).for_each(|(octet, key)| *octet ^= key);
}
