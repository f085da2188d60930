//! What the device wants instead of a key: the states of a hash after the two padded keys of HMAC, and the key of GHASH.

use aes::cipher::{BlockCipherEncrypt, KeyInit};
use spi::Integ;
use zeroize::{Zeroize, Zeroizing};

/// A hash as the device knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HashInfo {
    /// The device's number for it.
    pub(crate) algorithm: u32,
    /// Octets of a block.
    pub(crate) block: u8,
    /// Octets of a state in a content descriptor.
    pub(crate) state: u8,
}

/// The hash of an HMAC transform.
pub(crate) fn hash_of(integ: Integ) -> Option<HashInfo> {
    Some(match integ {
        Integ::HMAC_SHA1_96 => HashInfo { algorithm: 1, block: 64, state: 24 },
        Integ::HMAC_SHA2_256_128 => HashInfo { algorithm: 4, block: 64, state: 32 },
        Integ::HMAC_SHA2_384_192 => HashInfo { algorithm: 5, block: 128, state: 64 },
        Integ::HMAC_SHA2_512_256 => HashInfo { algorithm: 6, block: 128, state: 64 },
        _ => return None,
    })
}

/// FIPS 180-4 section 5.3: what the hashes begin with.
const SHA1: [u32; 5] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];
const SHA256: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];
const SHA384: [u64; 8] = [
    0xcbbb_9d5d_c105_9ed8,
    0x629a_292a_367c_d507,
    0x9159_015a_3070_dd17,
    0x152f_ecd8_f70e_5939,
    0x6733_2667_ffc0_0b31,
    0x8eb4_4a87_6858_1511,
    0xdb0c_2e0d_64f9_8fa7,
    0x47b5_481d_befa_4fa4,
];
const SHA512: [u64; 8] = [
    0x6a09_e667_f3bc_c908,
    0xbb67_ae85_84ca_a73b,
    0x3c6e_f372_fe94_f82b,
    0xa54f_f53a_5f1d_36f1,
    0x510e_527f_ade6_82d1,
    0x9b05_688c_2b3e_6c1f,
    0x1f83_d9ab_fb41_bd6b,
    0x5be0_cd19_137e_2179,
];

/// The inner and the outer state of HMAC (RFC 2104 section 4), one behind the other. The key is no longer than a block, as
/// those of ESP's transforms are.
pub(crate) fn hmac_states(integ: Integ, key: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let info = hash_of(integ)?;
    let mut states = Zeroizing::new(Vec::with_capacity(2 * usize::from(info.state)));
    for pad in [0x36, 0x5c] {
        let mut block = Zeroizing::new([pad; 128]);
        if key.len() > usize::from(info.block) {
            return None;
        }
        block.iter_mut().zip(key).for_each(|(to, key)| *to ^= key);
        let end = states.len() + usize::from(info.state);
        match info.block {
            64 => {
                let block = block.first_chunk::<64>()?;
                let mut words = if info.algorithm == 1 { [0; 8] } else { SHA256 };
                if info.algorithm == 1 {
                    let mut state = SHA1;
                    sha1::block_api::compress(&mut state, std::slice::from_ref(block));
                    words[..5].copy_from_slice(&state);
                    state.zeroize();
                } else {
                    sha2::block_api::compress256(&mut words, std::slice::from_ref(block));
                }
                let len = usize::from(info.state) / 4;
                words[..len].iter().for_each(|word| states.extend_from_slice(&word.to_be_bytes()));
                words.zeroize();
            }
            _ => {
                let mut words = if info.algorithm == 5 { SHA384 } else { SHA512 };
                sha2::block_api::compress512(&mut words, std::slice::from_ref(&*block));
                words.iter().for_each(|word| states.extend_from_slice(&word.to_be_bytes()));
                words.zeroize();
            }
        }
        debug_assert_eq!(states.len(), end);
    }
    Some(states)
}

/// The key of GHASH: a block of zeroes encrypted (NIST SP 800-38D section 7.1).
pub(crate) fn ghash_key(key: &[u8]) -> Option<Zeroizing<[u8; 16]>> {
    let mut block = aes::Block::default();
    match key.len() {
        16 => aes::Aes128::new_from_slice(key).ok()?.encrypt_block(&mut block),
        24 => aes::Aes192::new_from_slice(key).ok()?.encrypt_block(&mut block),
        32 => aes::Aes256::new_from_slice(key).ok()?.encrypt_block(&mut block),
        _ => return None,
    }
    let hash_key = Zeroizing::new(block.0);
    block.0.zeroize();
    Some(hash_key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hex::unhex;

    #[test]
    fn states_are_those_of_the_hash_after_one_padded_block() {
        // RFC 4231, first case, worked out by a library that shows its state.
        let states = hmac_states(Integ::HMAC_SHA2_256_128, &[0x0b; 20]).unwrap();
        assert_eq!(
            **states,
            unhex(
                "2bb2180423b95bf9b4e8258cfab5e65411f2921e4feb78ee9890e5fe64b78036\
                 27e7739fd956258356d666e25f810de8ec5e4f8a553d4fb83cff20ba10234b40"
            )
        );
        for (integ, len) in
            [(Integ::HMAC_SHA1_96, 48), (Integ::HMAC_SHA2_384_192, 128), (Integ::HMAC_SHA2_512_256, 128)]
        {
            let key = vec![3; integ.info().unwrap().key_len];
            let states = hmac_states(integ, &key).unwrap();
            assert_eq!(states.len(), len);
            assert_ne!(states[..len / 2], states[len / 2..]);
        }
        assert!(hmac_states(Integ::HMAC_SHA2_256_128, &[0; 65]).is_none());
        assert!(hmac_states(Integ::AES_CMAC_96, &[0; 16]).is_none());
    }

    #[test]
    fn the_hash_key_is_that_of_the_gcm_document() {
        // McGrew and Viega, "The Galois/Counter Mode of Operation", test cases 2 and 14.
        assert_eq!(ghash_key(&[0; 16]).unwrap()[..], unhex("66e94bd4ef8a2c3b884cfa59ca342b2e"));
        assert_eq!(ghash_key(&[0; 32]).unwrap()[..], unhex("dc95c078a2408989ad48a21492842087"));
        assert!(ghash_key(&[0; 17]).is_none());
    }
}
