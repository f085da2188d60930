//! How a digest is dressed up before RSA: PKCS#1 v1.5 and PSS (RFC 8017).

use openssl::rand::rand_bytes;
use sha2::Digest;
use spi::Hash;
use subtle::ConstantTimeEq;

use super::{INTERNAL, UNSUPPORTED};
use spi::Outcome;

/// A digest over pieces.
pub(super) fn digest(hash: Hash, pieces: &[&[u8]]) -> Result<Vec<u8>, Outcome> {
    fn of<D: Digest>(pieces: &[&[u8]]) -> Vec<u8> {
        let mut digest = D::new();
        pieces.iter().for_each(|piece| digest.update(piece));
        digest.finalize().to_vec()
    }
    Ok(match hash {
        Hash::Sha1 => of::<sha1::Sha1>(pieces),
        Hash::Sha256 => of::<sha2::Sha256>(pieces),
        Hash::Sha384 => of::<sha2::Sha384>(pieces),
        Hash::Sha512 => of::<sha2::Sha512>(pieces),
        Hash::Identity => return Err(UNSUPPORTED),
    })
}

/// What stands before a digest in a DigestInfo (RFC 8017 section 9.2).
fn prefix(hash: Hash) -> Option<&'static [u8]> {
    Some(match hash {
        Hash::Sha1 => {
            &[0x30, 0x21, 0x30, 0x09, 0x06, 0x05, 0x2b, 0x0e, 0x03, 0x02, 0x1a, 0x05, 0x00, 0x04, 0x14]
        }
        Hash::Sha256 => &[
            0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05,
            0x00, 0x04, 0x20,
        ],
        Hash::Sha384 => &[
            0x30, 0x41, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02, 0x05,
            0x00, 0x04, 0x30,
        ],
        Hash::Sha512 => &[
            0x30, 0x51, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x03, 0x05,
            0x00, 0x04, 0x40,
        ],
        Hash::Identity => return None,
    })
}

/// RFC 8017 section 9.2, for a modulus of `len` octets.
pub(crate) fn pkcs1(hash: Hash, octets: &[u8], len: usize) -> Result<Vec<u8>, Outcome> {
    let (prefix, digest) = (prefix(hash).ok_or(UNSUPPORTED)?, digest(hash, &[octets])?);
    let filling = len.checked_sub(3 + prefix.len() + digest.len()).filter(|filling| *filling >= 8);
    let mut padded = vec![0, 1];
    padded.resize(2 + filling.ok_or(UNSUPPORTED)?, 0xff);
    padded.push(0);
    padded.extend_from_slice(prefix);
    padded.extend_from_slice(&digest);
    Ok(padded)
}

/// RFC 8017 section 9.1.1, for a modulus of `bits` bits, with a salt as long as the hash.
pub(crate) fn pss(hash: Hash, octets: &[u8], bits: usize) -> Result<Vec<u8>, Outcome> {
    let mut salt = vec![0; hash.len()];
    rand_bytes(&mut salt).map_err(|_| INTERNAL)?;
    pss_with(hash, octets, bits, &salt)
}

fn pss_with(hash: Hash, octets: &[u8], bits: usize, salt: &[u8]) -> Result<Vec<u8>, Outcome> {
    let first = digest(hash, &[octets])?;
    let seal = digest(hash, &[&[0; 8], &first, salt])?;
    let (len, whole) = ((bits - 1).div_ceil(8), bits.div_ceil(8));
    let filling = len.checked_sub(salt.len() + seal.len() + 2).ok_or(UNSUPPORTED)?;
    let mut data = vec![0; filling];
    data.push(1);
    data.extend_from_slice(salt);
    mask(hash, &seal, &mut data)?;
    data.iter_mut().take(1).for_each(|octet| *octet &= 0xff >> (8 * len - (bits - 1)));
    let mut padded = vec![0; whole - len];
    padded.append(&mut data);
    padded.extend_from_slice(&seal);
    padded.push(0xbc);
    Ok(padded)
}

/// RFC 8017 section 9.1.2; `padded` is as long as the modulus.
pub(crate) fn is_pss(hash: Hash, octets: &[u8], bits: usize, padded: &[u8]) -> Result<bool, Outcome> {
    let (len, whole) = ((bits - 1).div_ceil(8), bits.div_ceil(8));
    let Some((front, rest)) = padded.split_at_checked(whole - len) else { return Ok(false) };
    if padded.len() != whole || front.iter().any(|octet| *octet != 0) {
        return Ok(false);
    }
    let Some((0xbc, rest)) = rest.split_last().map(|(last, rest)| (*last, rest)) else { return Ok(false) };
    let Some(at) = rest.len().checked_sub(hash.len()) else { return Ok(false) };
    let (masked, seal) = rest.split_at(at);
    let above = !(0xffu8 >> (8 * len - (bits - 1)));
    if masked.first().is_none_or(|first| first & above != 0) {
        return Ok(false);
    }
    let mut data = masked.to_vec();
    mask(hash, seal, &mut data)?;
    data.iter_mut().take(1).for_each(|octet| *octet &= !above);
    let Some(at) = data.len().checked_sub(hash.len() + 1) else { return Ok(false) };
    let (filling, salt) = data.split_at(at);
    let Some((1, salt)) = salt.split_first().map(|(first, salt)| (*first, salt)) else { return Ok(false) };
    if filling.iter().any(|octet| *octet != 0) {
        return Ok(false);
    }
    let first = digest(hash, &[octets])?;
    Ok(digest(hash, &[&[0; 8], &first, salt])?.ct_eq(seal).into())
}

/// MGF1 (RFC 8017 section B.2.1), added to `data`.
fn mask(hash: Hash, seed: &[u8], data: &mut [u8]) -> Result<(), Outcome> {
    for (counter, part) in data.chunks_mut(hash.len().max(1)).enumerate() {
        let mask = digest(hash, &[seed, &(counter as u32).to_be_bytes()])?;
        part.iter_mut().zip(mask).for_each(|(to, mask)| *to ^= mask);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use openssl::hash::MessageDigest;
    use openssl::pkey::PKey;
    use openssl::rsa::{Padding, Rsa};
    use openssl::sign::{RsaPssSaltlen, Signer, Verifier};

    fn md(hash: Hash) -> MessageDigest {
        match hash {
            Hash::Sha1 => MessageDigest::sha1(),
            Hash::Sha256 => MessageDigest::sha256(),
            Hash::Sha384 => MessageDigest::sha384(),
            _ => MessageDigest::sha512(),
        }
    }

    #[test]
    fn paddings_are_those_of_an_independent_implementation() {
        // An odd number of bits moves the boundaries of PSS.
        for bits in [2048, 2047, 2041] {
            let rsa = Rsa::generate(bits).unwrap();
            let key = PKey::from_rsa(rsa.clone()).unwrap();
            let (bits, len) = (bits as usize, (bits as usize).div_ceil(8));
            for hash in [Hash::Sha1, Hash::Sha256, Hash::Sha384, Hash::Sha512] {
                let raw_sign = |padded: &[u8]| {
                    let mut signature = vec![0; len];
                    rsa.private_encrypt(padded, &mut signature, Padding::NONE).unwrap();
                    signature
                };
                let verify = |padding, signature: &[u8]| {
                    let mut verifier = Verifier::new(md(hash), &key).unwrap();
                    verifier.set_rsa_padding(padding).unwrap();
                    if padding == Padding::PKCS1_PSS {
                        verifier.set_rsa_pss_saltlen(RsaPssSaltlen::DIGEST_LENGTH).unwrap();
                    }
                    verifier.verify_oneshot(signature, b"octets").unwrap()
                };
                assert!(verify(Padding::PKCS1, &raw_sign(&pkcs1(hash, b"octets", len).unwrap())));
                assert!(verify(Padding::PKCS1_PSS, &raw_sign(&pss(hash, b"octets", bits).unwrap())));
                let mut signer = Signer::new(md(hash), &key).unwrap();
                signer.set_rsa_padding(Padding::PKCS1_PSS).unwrap();
                signer.set_rsa_pss_saltlen(RsaPssSaltlen::DIGEST_LENGTH).unwrap();
                let theirs = signer.sign_oneshot_to_vec(b"octets").unwrap();
                let mut padded = vec![0; len];
                rsa.public_decrypt(&theirs, &mut padded, Padding::NONE).unwrap();
                assert!(is_pss(hash, b"octets", bits, &padded).unwrap());
                assert!(!is_pss(hash, b"octet", bits, &padded).unwrap());
                for at in [0, 1, len / 2, len - 2, len - 1] {
                    padded[at] ^= 1;
                    assert!(!is_pss(hash, b"octets", bits, &padded).unwrap(), "{bits} bits, octet {at}");
                    padded[at] ^= 1;
                }
                assert!(!is_pss(hash, b"octets", bits, &padded[1..]).unwrap());
            }
        }
        assert!(pkcs1(Hash::Sha512, b"octets", 93).is_err() && pss(Hash::Sha512, b"octets", 1000).is_err());
    }
}
