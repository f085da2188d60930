//! Content descriptors: keys and configurations as the slices of the device want them, and the request that goes with them.
//!
//! | transform | generation 4 | generation 2 |
//! |---|---|---|
//! | AES-GCM | one pass | CTR, then GHASH; opening the other way round |
//! | ChaCha20-Poly1305 | one pass | |
//! | AES-CBC, AES-CTR with HMAC | cipher, then hash; opening the other way round | likewise |
//! | NULL with HMAC | hash | hash |

use spi::alg::EncrKind;
use spi::{Direction, Encr, SaParams};
use zeroize::Zeroizing;

use super::precompute::{ghash_key, hash_of, hmac_states};
use super::request::{
    AUTHENTICATE, CIPHER, CIPHER_THEN_HASH, COMPARE_DIGEST, DIGEST_BEHIND, HASH_THEN_CIPHER, IV_INLINE,
    IV_OF_12, ONE_PASS, PROTOCOL_GCM, RETURN_DIGEST, Request, UCS_SLICE,
};

/// Octets of the longest descriptor, rounded up: AES-256-CTR with HMAC-SHA-512 in 192, and more to spare.
pub(crate) const LONGEST: usize = 256;

/// How a packet is turned into a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Combined mode in one pass: associated data on the side, digest behind the text.
    OnePass,
    /// AES-GCM in two slices: associated data on the side, digest by address.
    TwoSlices,
    /// Authentication over header, IV and text, with the digest behind; with ESN, a list of pieces.
    Chain,
}

/// Content descriptor and request of an SA.
pub(crate) struct Descriptor {
    /// What goes into the device's memory; secret.
    pub(crate) octets: Zeroizing<Vec<u8>>,
    /// The request, without what each packet brings.
    pub(crate) template: Request,
    pub(crate) form: Form,
}

/// Numbers of ciphers and modes in a cipher's configuration.
const AES_128: u32 = 3;
const CHACHA: u32 = 11;
const CBC: u32 = 1 << 4;
const CTR: u32 = 2 << 4;
const COMBINED: u32 = 4 << 4;
const DECRYPT: u32 = 1 << 8;
/// The device derives the schedule of decryption from the key.
const CONVERT_KEY: u32 = 1 << 9;

const GHASH: u32 = 10;
/// The hash begins with states that were computed before.
const PRECOMPUTED: u32 = 1 << 4;

/// Slices, as the control words name them.
const CIPHER_SLICE: u8 = 1;
const AUTH_SLICE: u8 = 2;
const MEMORY: u8 = 4;

/// Places in the control words.
const CIPHER_STATE: usize = 0;
const CIPHER_KEY: usize = 1;
const CIPHER_AT: usize = 2;
const CIPHER_NEXT: usize = 3;
const HASH_AT: usize = 6;
const HASH_NEXT: usize = 7;
const FINAL_LEN: usize = 10;
const INNER_LEN: usize = 11;
const STATE1_LEN: usize = 13;
const STATE2_AT: usize = 14;
const STATE2_LEN: usize = 15;

/// Builds what an SA needs; `None` when the generation does not carry the transform.
pub(crate) fn build(params: &SaParams, fourth: bool) -> Option<Descriptor> {
    let info = params.encr.info()?;
    let key = params.encr_key.expose().get(..info.key_len)?;
    let digest = u8::try_from(params.icv_len()).ok()?;
    let verdict = match params.dir {
        Direction::Seal => RETURN_DIGEST,
        Direction::Open => COMPARE_DIGEST,
    };
    let built = match info.kind {
        EncrKind::Aead if fourth => one_pass(params, key, digest, verdict)?,
        EncrKind::Aead if is_gcm(params.encr) => two_slices(params, key, digest, verdict)?,
        EncrKind::Cbc | EncrKind::Ctr | EncrKind::Null => chain(params, key, digest, verdict, fourth)?,
        EncrKind::Aead | EncrKind::Gmac => return None,
    };
    debug_assert!(built.octets.len() <= LONGEST && built.octets.len().is_multiple_of(8));
    Some(built)
}

fn is_gcm(encr: Encr) -> bool {
    (Encr::AES128_GCM8.id..=Encr::AES128_GCM16.id).contains(&encr.id)
}

/// The device's number of an AES by the length of its key.
fn aes(key: &[u8]) -> Option<u32> {
    match key.len() {
        16 => Some(AES_128),
        24 => Some(AES_128 + 1),
        32 => Some(AES_128 + 2),
        _ => None,
    }
}

fn one_pass(params: &SaParams, key: &[u8], digest: u8, verdict: u16) -> Option<Descriptor> {
    let direction = if params.dir == Direction::Open { DECRYPT } else { 0 };
    let cipher = match params.encr {
        Encr::CHACHA20_POLY1305 => CHACHA | CTR,
        encr if is_gcm(encr) => aes(key)? | COMBINED,
        _ => return None,
    };
    // RFC 4106 section 5, RFC 7634 section 2.1: SPI and sequence number, all of it with ESN.
    let associated: u32 = if params.esn { 12 } else { 8 };
    let mut octets = Zeroizing::new(Vec::with_capacity(LONGEST));
    octets.extend_from_slice(&(cipher | direction | u32::from(digest) << 10).to_le_bytes());
    octets.extend_from_slice(&(associated << 24).to_le_bytes());
    octets.resize(16, 0);
    let key_len = wide_key(&mut octets, key);
    let mut template = Request::new(CIPHER, UCS_SLICE | ONE_PASS | DIGEST_BEHIND | IV_INLINE | verdict);
    template.set_auth(0, associated);
    template.set_lengths(0, 0, digest);
    template.set_control(CIPHER_STATE, 2);
    template.set_control(CIPHER_KEY, key_len);
    Some(Descriptor { octets, template, form: Form::OnePass })
}

/// A key for the newer cipher slice: in whole blocks of 16 octets. Gives its length in units of 8.
fn wide_key(octets: &mut Vec<u8>, key: &[u8]) -> u8 {
    let end = octets.len() + key.len().next_multiple_of(16);
    octets.extend_from_slice(key);
    octets.resize(end, 0);
    (key.len().next_multiple_of(16) / 8) as u8
}

fn two_slices(params: &SaParams, key: &[u8], digest: u8, verdict: u16) -> Option<Descriptor> {
    let associated: u32 = if params.esn { 12 } else { 8 };
    let cipher = |octets: &mut Vec<u8>| {
        octets.extend_from_slice(&(aes(key)? | CTR).to_le_bytes());
        octets.extend_from_slice(&[0; 4]);
        octets.extend_from_slice(key);
        Some(())
    };
    let hash = |octets: &mut Vec<u8>| {
        let config = GHASH | PRECOMPUTED | u32::from(digest) << 8;
        auth_setup(octets, config, 16);
        octets.extend_from_slice(&[0; 16]);
        octets.extend_from_slice(&*ghash_key(key)?);
        octets.extend_from_slice(&associated.to_be_bytes());
        octets.extend_from_slice(&[0; 4 + 16]);
        Some(())
    };
    let mut octets = Zeroizing::new(Vec::with_capacity(LONGEST));
    let flags = PROTOCOL_GCM | IV_OF_12 | IV_INLINE | verdict;
    let (command, cipher_at, hash_at) = match params.dir {
        Direction::Seal => {
            cipher(&mut octets)?;
            let at = octets.len();
            hash(&mut octets)?;
            (CIPHER_THEN_HASH, 0, at)
        }
        Direction::Open => {
            hash(&mut octets)?;
            let at = octets.len();
            cipher(&mut octets)?;
            (HASH_THEN_CIPHER, at, 0)
        }
    };
    let mut template = Request::new(command, flags);
    // The associated data is filled up to a block; how much of it counts is in the descriptor.
    template.set_lengths(16, 16, digest);
    template.set_control(CIPHER_STATE, 2);
    template.set_control(CIPHER_KEY, (key.len() / 8) as u8);
    slices(&mut template, params.dir, cipher_at, hash_at);
    hash_control(&mut template, hash_at, digest, 16, 40);
    Some(Descriptor { octets, template, form: Form::TwoSlices })
}

fn chain(params: &SaParams, key: &[u8], digest: u8, verdict: u16, fourth: bool) -> Option<Descriptor> {
    let hash = hash_of(params.integ)?;
    let states = hmac_states(params.integ, params.integ_key.expose())?;
    // Generation 4 does AES-CTR in its newer slice, whose keys and configurations are wider.
    let kind = params.encr.info()?.kind;
    let wide = fourth && kind == EncrKind::Ctr;
    let put_hash = |octets: &mut Vec<u8>| {
        let config = hash.algorithm | PRECOMPUTED | u32::from(digest) << 8;
        // One block has been hashed before: the padded key.
        auth_setup(octets, config, u32::from(hash.block));
        octets.extend_from_slice(&states);
    };
    let put_cipher = |octets: &mut Vec<u8>| {
        let cipher = match (kind, params.dir) {
            (EncrKind::Cbc, Direction::Seal) => aes(key)? | CBC,
            (EncrKind::Cbc, Direction::Open) => aes(key)? | CBC | DECRYPT | CONVERT_KEY,
            _ => aes(key)? | CTR,
        };
        octets.extend_from_slice(&cipher.to_le_bytes());
        octets.extend_from_slice(&[0; 12][..if wide { 12 } else { 4 }]);
        match wide {
            true => Some(wide_key(octets, key)),
            false => {
                octets.extend_from_slice(key);
                Some((key.len() / 8) as u8)
            }
        }
    };
    let mut octets = Zeroizing::new(Vec::with_capacity(LONGEST));
    let flags = DIGEST_BEHIND | IV_INLINE | verdict | if wide { UCS_SLICE } else { 0 };
    let mut template;
    let hash_at;
    match (kind, params.dir) {
        (EncrKind::Null, _) => {
            put_hash(&mut octets);
            hash_at = 0;
            template = Request::new(AUTHENTICATE, flags);
            template.set_control(HASH_NEXT, MEMORY << 4 | AUTH_SLICE);
        }
        (_, Direction::Seal) => {
            let key_len = put_cipher(&mut octets)?;
            hash_at = octets.len();
            put_hash(&mut octets);
            template = Request::new(CIPHER_THEN_HASH, flags);
            template.set_control(CIPHER_KEY, key_len);
            slices(&mut template, params.dir, 0, hash_at);
        }
        (_, Direction::Open) => {
            put_hash(&mut octets);
            let cipher_at = octets.len();
            let key_len = put_cipher(&mut octets)?;
            hash_at = 0;
            template = Request::new(HASH_THEN_CIPHER, flags);
            template.set_control(CIPHER_KEY, key_len);
            slices(&mut template, params.dir, cipher_at, hash_at);
        }
    }
    if kind != EncrKind::Null {
        template.set_control(CIPHER_STATE, 2);
    }
    template.set_lengths(0, 0, digest);
    hash_control(&mut template, hash_at, digest, hash.state, hash.state);
    if params.esn {
        template.set_pieces();
    }
    Some(Descriptor { octets, template, form: Form::Chain })
}

/// Configuration and counter of a hash.
fn auth_setup(octets: &mut Vec<u8>, config: u32, counter: u32) {
    octets.extend_from_slice(&config.to_le_bytes());
    octets.extend_from_slice(&[0; 4]);
    octets.extend_from_slice(&counter.to_be_bytes());
    octets.extend_from_slice(&[0; 4]);
}

/// Which slice comes after which, and where in the descriptor each begins.
fn slices(template: &mut Request, dir: Direction, cipher_at: usize, hash_at: usize) {
    let (after_cipher, after_hash) = match dir {
        Direction::Seal => (AUTH_SLICE, MEMORY),
        Direction::Open => (MEMORY, CIPHER_SLICE),
    };
    template.set_control(CIPHER_AT, (cipher_at / 8) as u8);
    template.set_control(CIPHER_NEXT, after_cipher << 4 | CIPHER_SLICE);
    template.set_control(HASH_AT, (hash_at / 8) as u8);
    template.set_control(HASH_NEXT, after_hash << 4 | AUTH_SLICE);
}

/// Lengths of the hash, and where its second state is: behind the setup of 16 octets and the first state.
fn hash_control(template: &mut Request, hash_at: usize, digest: u8, state1: u8, state2: u8) {
    template.set_control(FINAL_LEN, digest);
    template.set_control(INNER_LEN, digest);
    template.set_control(STATE1_LEN, state1);
    template.set_control(STATE2_AT, ((hash_at + 16 + usize::from(state1)) / 8) as u8);
    template.set_control(STATE2_LEN, state2);
}

#[cfg(test)]
mod tests {
    use super::*;
    use spi::{Integ, Secret};

    fn params(encr: Encr, integ: Integ, dir: Direction, esn: bool) -> SaParams {
        let (e, i) = (encr.info().unwrap(), integ.info().unwrap());
        SaParams {
            spi: 1,
            dir,
            encr,
            integ,
            encr_key: Secret::new(vec![0x11; e.key_len + e.salt_len]),
            integ_key: Secret::new(vec![0x22; i.key_len]),
            esn,
        }
    }

    fn word(descriptor: &Descriptor, at: usize) -> u32 {
        u32::from_le_bytes(*descriptor.octets[at..].first_chunk().unwrap())
    }

    #[test]
    fn gcm_in_one_pass_is_the_example_of_the_specification() {
        let built = build(&params(Encr::AES256_GCM16, Integ::NONE, Direction::Seal, false), true).unwrap();
        assert_eq!((word(&built, 0), word(&built, 4), word(&built, 8)), (0x4045, 0x0800_0000, 0));
        assert_eq!(built.octets.len(), 48);
        assert_eq!(built.octets[16..], [0x11; 32]);
        let words = built.template.0;
        assert_eq!((words[0], words[1]), (0x8004_0000, 0x6424));
        assert_eq!((words[20], words[21], words[26], words[27]), (0, 8, 0x1000_0000, 0x0402));
        assert_eq!(words[28..], [0; 4]);
    }

    #[test]
    fn ciphers_have_the_configurations_of_known_drivers() {
        let config = |encr, integ, dir, esn, fourth, at| {
            word(&build(&params(encr, integ, dir, esn), fourth).unwrap(), at)
        };
        use Direction::{Open, Seal};
        let none = Integ::NONE;
        assert_eq!(config(Encr::AES128_GCM16, none, Seal, false, true, 0), 0x4043);
        assert_eq!(config(Encr::AES128_GCM16, none, Open, true, true, 0), 0x4143);
        assert_eq!(config(Encr::AES128_GCM16, none, Open, true, true, 4), 0x0c00_0000);
        assert_eq!(config(Encr::AES256_GCM16, none, Open, false, true, 0), 0x4145);
        assert_eq!(config(Encr::CHACHA20_POLY1305, none, Seal, false, true, 0), 0x402b);
        assert_eq!(config(Encr::CHACHA20_POLY1305, none, Open, false, true, 0), 0x412b);
        let sha256 = Integ::HMAC_SHA2_256_128;
        assert_eq!(config(Encr::AES128_CBC, sha256, Seal, false, true, 0), 0x013);
        assert_eq!(config(Encr::AES256_CBC, sha256, Seal, false, false, 0), 0x015);
        // Opening: setup of the hash, two states of 32 octets, then the cipher.
        assert_eq!(config(Encr::AES128_CBC, sha256, Open, false, true, 80), 0x313);
        assert_eq!(config(Encr::AES256_CBC, sha256, Open, false, true, 80), 0x315);
        assert_eq!(config(Encr::AES128_CTR, sha256, Seal, false, false, 0), 0x023);
        assert_eq!(config(Encr::AES256_CTR, sha256, Open, false, false, 80), 0x025);
        let hash = |integ| config(Encr::NULL, integ, Seal, false, true, 0);
        assert_eq!(hash(Integ::HMAC_SHA1_96), 0x0c11);
        assert_eq!(hash(sha256), 0x1014);
        assert_eq!(hash(Integ::HMAC_SHA2_384_192), 0x1815);
        assert_eq!(hash(Integ::HMAC_SHA2_512_256), 0x2016);
        assert_eq!(config(Encr::NULL, sha256, Seal, false, true, 8), 0x4000_0000, "64, big-endian");
        assert_eq!(
            config(Encr::AES128_GCM16, none, Seal, false, false, 24),
            0x101a,
            "GHASH behind the cipher"
        );
    }

    #[test]
    fn offsets_point_at_what_they_name() {
        let built =
            build(&params(Encr::AES192_CBC, Integ::HMAC_SHA1_96, Direction::Open, false), true).unwrap();
        let control = built.template.octets()[27 * 4..].to_vec();
        // Setup 16, states of 24 each, then the cipher's 8 and a key of 24.
        assert_eq!(built.octets.len(), 16 + 48 + 8 + 24);
        assert_eq!((control[CIPHER_AT], control[HASH_AT], control[STATE2_AT]), (8, 0, 5));
        assert_eq!((control[CIPHER_KEY], control[CIPHER_STATE]), (3, 2));
        assert_eq!((control[CIPHER_NEXT], control[HASH_NEXT]), (0x41, 0x12));
        assert_eq!((control[FINAL_LEN], control[STATE1_LEN], control[STATE2_LEN]), (12, 24, 24));
        let wide =
            build(&params(Encr::AES192_CTR, Integ::HMAC_SHA1_96, Direction::Seal, false), true).unwrap();
        let control = wide.template.octets()[27 * 4..].to_vec();
        assert_eq!(
            (control[CIPHER_KEY], control[HASH_AT]),
            (4, 6),
            "a key of 32 after a configuration of 16"
        );
        assert_eq!(wide.template.0[1], 0x4424);
        let gcm = build(&params(Encr::AES192_GCM12, Integ::NONE, Direction::Open, true), false).unwrap();
        let control = gcm.template.octets()[27 * 4..].to_vec();
        assert_eq!((control[CIPHER_AT], control[STATE2_AT], control[STATE2_LEN]), (9, 4, 40));
        assert_eq!(gcm.octets[48..52], [0, 0, 0, 12], "length of the associated data");
        assert_eq!(gcm.template.0[26], 0x0c02_0010);
        assert_eq!((gcm.template.0[0], gcm.template.0[1]), (0x8004_0300, 0x0944));
    }

    #[test]
    fn esn_with_hmac_needs_pieces_and_without_does_not() {
        for (esn, common) in [(false, 0), (true, 1)] {
            let built =
                build(&params(Encr::NULL, Integ::HMAC_SHA2_256_128, Direction::Seal, esn), true).unwrap();
            assert_eq!(built.template.0[1] >> 16, common);
            assert_eq!(built.form, Form::Chain);
        }
    }

    #[test]
    fn what_a_generation_lacks_is_not_built() {
        let none = Integ::NONE;
        for (encr, integ, fourth) in [
            (Encr::CHACHA20_POLY1305, none, false),
            (Encr::AES128_CCM16, none, true),
            (Encr::AES128_CCM16, none, false),
            (Encr::AES128_GMAC, none, true),
            (Encr::AES128_CBC, Integ::AES_CMAC_96, true),
        ] {
            assert!(build(&params(encr, integ, Direction::Seal, false), fourth).is_none(), "{encr} {integ}");
        }
    }
}
