//! The arithmetic of MS-CHAP version 2 (RFC 2759 section 8) and of its keys (RFC 3079 section 3).
//!
//! MD4 and DES are what it is made of. An attacker who sees an exchange finds the password with 2^56 tries, so it belongs
//! inside a tunnel or inside IKE's own encryption, towards a server that has proved who it is.

use des::Des;
use des::cipher::{Array, BlockCipherEncrypt, KeyInit};
use md4::{Digest, Md4};
use sha1::Sha1;
use spi::Secret;
use zeroize::{Zeroize, Zeroizing};

use crate::account::domainless;

/// Everything both sides can calculate from one exchange.
pub(crate) struct Exchange {
    /// What proves the password to the server.
    pub(crate) response: [u8; 24],
    hash_of_hash: Zeroizing<[u8; 16]>,
    challenge: [u8; 8],
}

impl Exchange {
    /// Of the server's and the peer's challenge, the user's name as it is in the response, and the password. `None` if
    /// the password is no text.
    pub(crate) fn new(server: &[u8; 16], peer: &[u8; 16], name: &[u8], password: &Secret) -> Option<Self> {
        let hash = hash(password)?;
        let hash_of_hash = Zeroizing::new(<[u8; 16]>::from(Md4::digest(hash.as_slice())));
        // Section 8.2: the name is hashed without the domain.
        let name = std::str::from_utf8(name).ok().and_then(domainless).map_or(name, str::as_bytes);
        let sum = Sha1::new().chain_update(peer).chain_update(server).chain_update(name).finalize();
        let mut challenge = [0; 8];
        challenge.copy_from_slice(&sum[..8]);
        Some(Exchange { response: respond(&challenge, &hash), hash_of_hash, challenge })
    }

    /// What proves to the peer that the server knows the password: `S=` and 40 digits.
    pub(crate) fn authenticator(&self) -> String {
        const MAGIC_1: &[u8] = b"Magic server to client signing constant";
        const MAGIC_2: &[u8] = b"Pad to make it do more than one iteration";
        let sum = Sha1::new()
            .chain_update(*self.hash_of_hash)
            .chain_update(self.response)
            .chain_update(MAGIC_1)
            .finalize();
        let sum = Sha1::new().chain_update(sum).chain_update(self.challenge).chain_update(MAGIC_2).finalize();
        let digits: String = sum.iter().map(|octet| format!("{octet:02X}")).collect();
        format!("S={digits}")
    }

    /// The MSK: what the server receives with, what it sends with, and 32 octets of zero.
    pub(crate) fn msk(&self) -> Secret {
        let master = Sha1::new()
            .chain_update(*self.hash_of_hash)
            .chain_update(self.response)
            .chain_update(b"This is the MPPE Master Key")
            .finalize();
        let mut master = Zeroizing::new(<[u8; 20]>::from(master));
        let mut msk = Vec::with_capacity(64);
        for magic in [PEER_SENDS, SERVER_SENDS] {
            let mut key = Sha1::new()
                .chain_update(&master[..16])
                .chain_update([0; 40])
                .chain_update(magic)
                .chain_update([0xf2; 40])
                .finalize();
            msk.extend_from_slice(&key[..16]);
            key.as_mut_slice().zeroize();
        }
        master.zeroize();
        msk.resize(64, 0);
        Secret::new(msk)
    }
}

/// The hash that stands for a password; `None` if that is no text.
fn hash(password: &Secret) -> Option<Zeroizing<[u8; 16]>> {
    let mut unicode = Zeroizing::new(Vec::with_capacity(2 * password.len()));
    let text = std::str::from_utf8(password.expose()).ok()?;
    unicode.extend(text.encode_utf16().flat_map(u16::to_le_bytes));
    Some(Zeroizing::new(Md4::digest(&unicode).into()))
}

const PEER_SENDS: &[u8] =
    b"On the client side, this is the send key; on the server side, it is the receive key.";
const SERVER_SENDS: &[u8] =
    b"On the client side, this is the receive key; on the server side, it is the send key.";

/// Three times DES over the challenge, with the hash for keys: 56 bits, 56 bits, and 16.
fn respond(challenge: &[u8; 8], hash: &[u8; 16]) -> [u8; 24] {
    let mut padded = Zeroizing::new([0; 21]);
    padded[..16].copy_from_slice(hash);
    let mut response = [0; 24];
    for (key, out) in padded.chunks_exact(7).zip(response.chunks_exact_mut(8)) {
        let mut block = Array::from(*challenge);
        Des::new(&Array::from(*spread(key))).encrypt_block(&mut block);
        out.copy_from_slice(&block);
    }
    response
}

/// 56 bits as the eight octets DES takes, whose lowest bits are for parity, which nobody looks at.
fn spread(key: &[u8]) -> Zeroizing<[u8; 8]> {
    let bits = key.iter().fold(0u64, |bits, octet| bits << 8 | u64::from(*octet));
    Zeroizing::new(std::array::from_fn(|n| (bits >> (49 - 7 * n) << 1) as u8))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        let octet = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        digits.chunks(2).map(octet).collect()
    }

    fn example() -> Exchange {
        let server = hex("5B 5D 7C 7D 7B 3F 2F 3E 3C 2C 60 21 32 26 26 28");
        let peer = hex("21 40 23 24 25 5E 26 2A 28 29 5F 2B 3A 33 7C 7E");
        let password = Secret::from_slice(b"clientPass");
        Exchange::new(&server.try_into().unwrap(), &peer.try_into().unwrap(), b"User", &password).unwrap()
    }

    #[test]
    fn rfc_2759_section_9_2() {
        let Exchange { hash_of_hash, challenge, .. } = example();
        let hash = hash(&Secret::from_slice(b"clientPass")).unwrap();
        assert_eq!(hash.to_vec(), hex("44 EB BA 8D 53 12 B8 D6 11 47 44 11 F5 69 89 AE"));
        assert_eq!(hash_of_hash.to_vec(), hex("41 C0 0C 58 4B D2 D9 1C 40 17 A2 A1 2F A5 9F 3F"));
        assert_eq!(challenge.to_vec(), hex("D0 2E 43 86 BC E9 12 26"));
        let response = hex("82 30 9E CD 8D 70 8B 5E A0 8F AA 39 81 CD 83 54 42 33 11 4A 3D 85 D6 DF");
        assert_eq!(example().response.to_vec(), response);
        assert_eq!(example().authenticator(), "S=407A5589115FD0D6209F510FE9C04566932CDA56");
    }

    #[test]
    fn rfc_3079_section_3_5_3() {
        let msk = example().msk();
        assert_eq!(msk.len(), 64);
        // The example has the server's key to send with.
        assert_eq!(&msk.expose()[16..32], hex("8B 7C DC 14 9B 99 3A 1B A1 18 CB 15 3F 56 DC CB"));
        assert_eq!(&msk.expose()[32..], [0; 32]);
    }

    #[test]
    fn the_domain_is_not_part_of_the_name() {
        let password = Secret::from_slice("p\u{e4}ss".as_bytes());
        let of = |name: &[u8]| Exchange::new(&[1; 16], &[2; 16], name, &password).unwrap().response;
        assert_eq!(of(b"WORK\\alice"), of(b"alice"));
        assert_ne!(of(b"alice"), of(b"bob"));
        assert!(Exchange::new(&[1; 16], &[2; 16], b"alice", &Secret::from_slice(&[0xff])).is_none());
    }
}
