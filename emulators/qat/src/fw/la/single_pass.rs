//! Authenticated encryption in one pass, by the engine of generation 4: a cipher command that also makes or checks a tag.

use emu_model::Dma;

use super::aead::{self, Direction};
use super::cipher::{Algorithm, Cipher, Mode};
use super::request::{Digest, La};
use super::{Place, compare, put};
use crate::fw::Trouble;
use crate::fw::buffer::MAX_DATA;
use crate::fw::outcome::Outcome;

pub(super) fn run(la: &La<'_>, memory: &dyn Dma, outcome: &mut Outcome) -> Result<(), Trouble> {
    if !la.is_ucs() {
        return Err(Trouble::Refused("single pass in an engine without it"));
    }
    let cipher = Cipher::load(la, &la.descriptor(memory))?;
    let direction = if cipher.decrypt { Direction::Open } else { Direction::Seal };
    let way = if cipher.decrypt { "open" } else { "seal" };
    let chacha = cipher.algorithm == Algorithm::ChaCha20Poly1305;
    let name = if chacha { "chacha20-poly1305".to_string() } else { cipher.name() };
    outcome.rename(format!("{name} {way}"));

    let region = la.cipher_region();
    let source = la.source(memory)?;
    let mut data = source.read(memory, region.at, region.len)?;
    // Without an address it is the data itself that is authenticated and not encrypted: GMAC.
    let mut covered = region;
    let mut aad = match la.aad_address() {
        0 => {
            let len = la.single_pass_aad_len();
            if len > 0 {
                outcome.rename(format!("{name}: gmac {way}"));
                covered.len = covered.len.max(len);
            }
            source.read(memory, region.at, len)?
        }
        address => {
            let len = la.single_pass_aad_len();
            if len > MAX_DATA {
                return Err(Trouble::Invalid("more than 4 MiB of additional data"));
            }
            let mut aad = vec![0; len as usize];
            memory.read(address, &mut aad)?;
            aad
        }
    };
    outcome.charge(region.len);
    outcome.charge(aad.len() as u32);

    // Twelve octets of nonce, whatever the flags say.
    let iv = la.iv(memory)?;
    let (nonce, _) = iv.split_at(12);
    let tag = match (cipher.algorithm, cipher.mode) {
        (Algorithm::ChaCha20Poly1305, _) => {
            aead::chacha20_poly1305(&cipher.key, nonce, direction, &aad, &mut data)?
        }
        (Algorithm::Aes128 | Algorithm::Aes192 | Algorithm::Aes256, Mode::GcmSinglePass) => {
            let mut counter = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
            counter.iter_mut().zip(nonce).for_each(|(slot, octet)| *slot = *octet);
            aead::gcm(&cipher.block()?, None, counter, direction, &aad, &mut data)
        }
        (Algorithm::Aes128 | Algorithm::Aes192 | Algorithm::Aes256, Mode::CcmSinglePass) => {
            // First block, length and additional data, as the driver has laid them out; the padding is ours.
            aad.resize(aad.len().next_multiple_of(16), 0);
            let block = cipher.block()?;
            aead::ccm(&block, &block, &aad, iv, direction, &mut data)
        }
        _ => return Err(Trouble::Refused("a cipher in single pass that is not known")),
    };

    let len = [la.digest_len(), cipher.digest_len].into_iter().find(|len| *len > 0).unwrap_or(16).min(16);
    let tag = tag.get(..len).unwrap_or_default();
    let place = match la.digest_address() {
        0 if la.digest_in_buffer() => Place::Buffer(covered.end()?),
        address => Place::Address(address),
    };
    put(outcome, &la.destination(memory)?, region.at, &data)?;
    match la.digest() {
        Digest::None => Ok(()),
        Digest::Return => place.put(la, tag, memory, outcome),
        Digest::Compare => {
            let expected = place.read(&source, memory, len)?;
            compare(outcome, tag, &expected);
            Ok(())
        }
    }
}
