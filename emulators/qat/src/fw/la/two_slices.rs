//! GCM and CCM by two engines, one for the cipher and one for the hash, as generation 2 does them and generation 4 can.

use emu_model::Dma;

use super::aead::{self, Direction};
use super::auth::{Algorithm, Auth};
use super::block::Block;
use super::cipher::Cipher;
use super::request::{Digest, La, Region, command};
use super::{Place, compare, put};
use crate::fw::Trouble;
use crate::fw::outcome::Outcome;

pub(super) fn run(
    la: &La<'_>,
    auth: &Auth,
    cipher: Option<Cipher>,
    memory: &dyn Dma,
    outcome: &mut Outcome,
) -> Result<(), Trouble> {
    match auth.algorithm {
        Algorithm::Ghash => gcm(la, auth, cipher, memory, outcome),
        Algorithm::CbcMac => ccm(la, auth, cipher, memory, outcome),
        _ => Err(Trouble::Refused("a protocol with this hash")),
    }
}

fn gcm(
    la: &La<'_>,
    auth: &Auth,
    cipher: Option<Cipher>,
    memory: &dyn Dma,
    outcome: &mut Outcome,
) -> Result<(), Trouble> {
    let seals = la.command() != command::HASH_CIPHER;
    let way = if seals { "seal" } else { "open" };
    let name = cipher.as_ref().map_or("ghash".to_string(), |cipher| cipher.name().replace("ctr", "gcm"));
    outcome.rename(format!("{name} {way} (two slices)"));
    let descriptor = la.descriptor(memory);
    let state2 = descriptor.state2(40)?;
    let octets = |from: usize| state2.get(from..).and_then(|rest| rest.first_chunk::<16>()).copied();
    let (Some(key), Some(length), Some(mask)) = (octets(0), octets(16), octets(24)) else {
        return Err(Trouble::Invalid("a state that is too short"));
    };
    let source = la.source(memory)?;
    let [a, b, c, d, ..] = length;
    let true_len = u32::from_be_bytes([a, b, c, d]) as usize;

    let secret = if cipher.is_some() { la.cipher_region() } else { Region { at: 0, len: 0 } };
    let mut covered = la.auth_region();
    let (aad, data_region) = if secret.len == 0 && la.aad_len() == 0 {
        // GMAC: what is authenticated is in the buffer, and nothing is encrypted.
        if covered.len > 0 {
            outcome.rename(format!("{name}: gmac {way} (two slices)"));
        }
        (source.read(memory, covered.at, covered.len)?, Region { at: covered.at, len: 0 })
    } else {
        if true_len > la.aad_len() {
            return Err(Trouble::Invalid("more additional data than there is room for"));
        }
        let mut aad = vec![0; true_len];
        memory.read(la.aad_address(), &mut aad)?;
        covered = secret;
        (aad, secret)
    };
    outcome.charge(data_region.len);
    outcome.charge(aad.len() as u32);
    let mut data = source.read(memory, data_region.at, data_region.len)?;
    let tag = match &cipher {
        Some(cipher) => {
            let counter = first_counter(la, memory)?;
            let direction = if seals { Direction::Seal } else { Direction::Open };
            aead::gcm(&cipher.block()?, Some(key), counter, direction, &aad, &mut data)
        }
        // The hash engine by itself has no key to encrypt a counter with; its driver has done it.
        None => {
            let mut tag = aead::ghash(&key, &aad, &data);
            super::modes::xor(&mut tag, &mask);
            tag
        }
    };
    put(outcome, &la.destination(memory)?, data_region.at, &data)?;
    finish(la, auth, covered, &tag, memory, outcome)
}

/// The counter of the tag. A driver that has a whole block of it sets the flag for the short one all the same; a block
/// that ends in zeros is no counter.
fn first_counter(la: &La<'_>, memory: &dyn Dma) -> Result<[u8; 16], Trouble> {
    let mut iv = la.iv(memory)?;
    if la.short_iv()
        && let Some(last) = iv.last_chunk_mut::<4>()
        && *last == [0; 4]
    {
        *last = [0, 0, 0, 1];
    }
    Ok(iv)
}

fn ccm(
    la: &La<'_>,
    auth: &Auth,
    cipher: Option<Cipher>,
    memory: &dyn Dma,
    outcome: &mut Outcome,
) -> Result<(), Trouble> {
    let Some(cipher) = cipher else { return Err(Trouble::Invalid("CCM without a cipher")) };
    // The other way around than everywhere else: CCM authenticates what is not encrypted.
    let seals = la.command() == command::HASH_CIPHER;
    let name = cipher.name().replace("ctr", "ccm");
    outcome.rename(format!("{name} {} (two slices)", if seals { "seal" } else { "open" }));
    let key = la.descriptor(memory).state2(cipher.key.len())?;
    let mut head = vec![0; la.aad_len()];
    memory.read(la.aad_address(), &mut head)?;
    let region = la.cipher_region();
    outcome.charge(region.len);
    outcome.charge(head.len() as u32);
    let mut data = la.source(memory)?.read(memory, region.at, region.len)?;
    let direction = if seals { Direction::Seal } else { Direction::Open };
    let iv = la.iv(memory)?;
    let tag = aead::ccm(&cipher.block()?, &Block::aes(&key)?, &head, iv, direction, &mut data);
    put(outcome, &la.destination(memory)?, region.at, &data)?;
    finish(la, auth, region, &tag, memory, outcome)
}

fn finish(
    la: &La<'_>,
    auth: &Auth,
    covered: Region,
    tag: &[u8],
    memory: &dyn Dma,
    outcome: &mut Outcome,
) -> Result<(), Trouble> {
    let tag = tag.get(..auth.digest_len(la)).unwrap_or(tag);
    let place = Place::of(la, covered)?;
    match la.digest() {
        Digest::None => Ok(()),
        Digest::Return => place.put(la, tag, memory, outcome),
        Digest::Compare => {
            let expected = place.read(&la.source(memory)?, memory, tag.len())?;
            compare(outcome, tag, &expected);
            Ok(())
        }
    }
}
