//! Lookaside requests: ciphers, hashes, and both over the same data.

mod aead;
mod auth;
mod block;
mod cipher;
mod constants;
mod hash;
mod modes;
mod request;
mod schedule;
mod single_pass;
mod two_slices;

use emu_model::Dma;
use subtle::ConstantTimeEq;

use auth::{Algorithm, Auth};
use cipher::Cipher;
use request::{Digest, La, Protocol, Region, command};

use super::Trouble;
use super::buffer::Stream;
use super::message::Request;
use super::outcome::{Cost, Outcome};
use crate::personality::Generation;

/// Does a lookaside request.
pub(super) fn execute(request: &Request<'_>, generation: Generation, memory: &dyn Dma) -> Outcome {
    let la = La::new(request);
    let mut outcome = Outcome::new(request, format!("la command {}", la.command()), Cost::Data(0));
    if let Err(trouble) = run(&la, generation, memory, &mut outcome) {
        outcome.fail(trouble.into());
    }
    outcome
}

fn run(la: &La<'_>, generation: Generation, memory: &dyn Dma, outcome: &mut Outcome) -> Result<(), Trouble> {
    if la.is_partial() {
        return Err(Trouble::Refused("packets in several requests"));
    }
    if generation == Generation::Two && (la.is_single_pass() || la.is_ucs()) {
        return Err(Trouble::Refused("engines of generation 4"));
    }
    match la.command() {
        command::CIPHER if la.is_single_pass() => single_pass::run(la, memory, outcome),
        command::CIPHER => cipher_alone(la, memory, outcome),
        command::AUTH => hash_alone(la, memory, outcome),
        command::CIPHER_HASH | command::HASH_CIPHER => both(la, memory, outcome),
        4 => Err(Trouble::Refused("random numbers")),
        6..=16 => Err(Trouble::Refused("key derivation")),
        17 => Err(Trouble::Refused("cipher with CRC")),
        _ => Err(Trouble::Refused("LA command that is not known")),
    }
}

fn cipher_alone(la: &La<'_>, memory: &dyn Dma, outcome: &mut Outcome) -> Result<(), Trouble> {
    let cipher = Cipher::load(la, &la.descriptor(memory))?;
    outcome.rename(format!("{} {}", cipher.name(), way(cipher.decrypt)));
    let region = la.cipher_region();
    outcome.charge(region.len);
    let mut data = la.source(memory)?.read(memory, region.at, region.len)?;
    cipher.apply(&la.iv(memory)?, &mut data)?;
    put(outcome, &la.destination(memory)?, region.at, &data)
}

fn hash_alone(la: &La<'_>, memory: &dyn Dma, outcome: &mut Outcome) -> Result<(), Trouble> {
    let descriptor = la.descriptor(memory);
    let auth = Auth::load(&descriptor)?;
    if matches!(auth.algorithm, Algorithm::Ghash | Algorithm::CbcMac) {
        return two_slices::run(la, &auth, None, memory, outcome);
    }
    outcome.rename(format!("{} {}", auth.name(), purpose(la.digest())));
    let region = la.auth_region();
    outcome.charge(region.len);
    let data = la.source(memory)?.read(memory, region.at, region.len)?;
    let mut digest = auth.digest(la, &descriptor, memory, &data)?;
    digest.truncate(auth.digest_len(la));
    let place = Place::of(la, region)?;
    match la.digest() {
        Digest::None => Ok(()),
        Digest::Return => place.put(la, &digest, memory, outcome),
        Digest::Compare => {
            let expected = place.read(&la.source(memory)?, memory, digest.len())?;
            compare(outcome, &digest, &expected);
            Ok(())
        }
    }
}

fn both(la: &La<'_>, memory: &dyn Dma, outcome: &mut Outcome) -> Result<(), Trouble> {
    let descriptor = la.descriptor(memory);
    let cipher = Cipher::load(la, &descriptor)?;
    let auth = Auth::load(&descriptor)?;
    if matches!(auth.algorithm, Algorithm::Ghash | Algorithm::CbcMac)
        || matches!(la.protocol(), Protocol::Gcm | Protocol::Ccm)
    {
        return two_slices::run(la, &auth, Some(cipher), memory, outcome);
    }
    let (way, purpose) = (way(cipher.decrypt), purpose(la.digest()));
    outcome.rename(format!("{} {way}, {} {purpose}", cipher.name(), auth.name()));
    let (secret, covered) = (la.cipher_region(), la.auth_region());
    outcome.charge(secret.len);
    outcome.charge(covered.len);
    let source = la.source(memory)?;
    let place = Place::of(la, covered)?;
    let len = auth.digest_len(la);

    // What both regions cover, as it is; the cipher works on a copy of it in the meantime.
    let mut view = View::load(&source, memory, secret, covered)?;
    let ciphered = |view: &mut View| cipher.apply(&la.iv(memory)?, view.part(secret)?);
    let digest = |view: &mut View| {
        let mut digest = auth.digest(la, &descriptor, memory, view.part(covered)?)?;
        digest.truncate(len);
        Ok::<_, Trouble>(digest)
    };
    if la.command() == command::CIPHER_HASH {
        ciphered(&mut view)?;
        let digest = digest(&mut view)?;
        put(outcome, &la.destination(memory)?, secret.at, view.part(secret)?)?;
        match la.digest() {
            Digest::None => {}
            Digest::Return => place.put(la, &digest, memory, outcome)?,
            Digest::Compare => {
                // If the check value was encrypted with the data, it is the decrypted one that counts.
                let inside = place.in_buffer().and_then(|at| view.peek(at, len));
                let expected = match inside {
                    Some(expected) => expected,
                    None => place.read(&source, memory, len)?,
                };
                compare(outcome, &digest, &expected);
            }
        }
        return Ok(());
    }
    let digest = digest(&mut view)?;
    let mut pending = None;
    match la.digest() {
        Digest::None => {}
        Digest::Return => match place.in_buffer() {
            // The check value becomes part of what is encrypted, as far as the cipher's region reaches.
            Some(at) => {
                view.patch(at, &digest, secret)?;
                pending = Some(at);
            }
            None => place.put(la, &digest, memory, outcome)?,
        },
        Digest::Compare => {
            let expected = place.read(&source, memory, len)?;
            compare(outcome, &digest, &expected);
        }
    }
    ciphered(&mut view)?;
    put(outcome, &la.destination(memory)?, secret.at, view.part(secret)?)?;
    if let Some(at) = pending {
        // Its part behind the cipher's region, which may be all of it.
        let hidden = secret.end()?.saturating_sub(at).min(digest.len() as u32);
        let hidden = if at < secret.at { 0 } else { hidden };
        let rest = digest.get(hidden as usize..).unwrap_or_default();
        put(outcome, &la.destination(memory)?, at.saturating_add(hidden), rest)?;
    }
    Ok(())
}

/// Enters the writes for octets of a stream.
fn put(outcome: &mut Outcome, stream: &Stream, at: u32, octets: &[u8]) -> Result<(), Trouble> {
    for write in stream.writes(at, octets)? {
        outcome.write(write.iova, write.octets);
    }
    Ok(())
}

/// Compares check values; a shorter one than there should be is a wrong one.
fn compare(outcome: &mut Outcome, computed: &[u8], expected: &[u8]) {
    if !bool::from(computed.ct_eq(expected)) {
        outcome.mismatch();
    }
}

/// Where a check value is.
#[derive(Clone, Copy)]
enum Place {
    /// Behind the data that it covers.
    Buffer(u32),
    Address(u64),
}

impl Place {
    fn of(la: &La<'_>, covered: Region) -> Result<Place, Trouble> {
        if la.digest_in_buffer() {
            Ok(Place::Buffer(covered.end()?))
        } else {
            Ok(Place::Address(la.digest_address()))
        }
    }

    fn in_buffer(self) -> Option<u32> {
        match self {
            Place::Buffer(at) => Some(at),
            Place::Address(_) => None,
        }
    }

    fn put(self, la: &La<'_>, digest: &[u8], memory: &dyn Dma, outcome: &mut Outcome) -> Result<(), Trouble> {
        match self {
            Place::Buffer(at) => put(outcome, &la.destination(memory)?, at, digest)?,
            Place::Address(address) => outcome.write(address, digest.to_vec()),
        }
        outcome.aim(0);
        Ok(())
    }

    fn read(self, source: &Stream, memory: &dyn Dma, len: usize) -> Result<Vec<u8>, Trouble> {
        match self {
            Place::Buffer(at) => source.read(memory, at, len as u32),
            Place::Address(address) => {
                let mut digest = vec![0; len];
                memory.read(address, &mut digest)?;
                Ok(digest)
            }
        }
    }
}

/// A copy of the part of the data that a request is about.
struct View {
    at: u32,
    octets: Vec<u8>,
}

impl View {
    fn load(source: &Stream, memory: &dyn Dma, one: Region, other: Region) -> Result<View, Trouble> {
        let regions = [one, other].into_iter().filter(|region| region.len > 0);
        let (mut from, mut to) = (u32::MAX, 0);
        for region in regions {
            from = from.min(region.at);
            to = to.max(region.end()?);
        }
        if from > to {
            return Ok(View { at: 0, octets: Vec::new() });
        }
        Ok(View { at: from, octets: source.read(memory, from, to - from)? })
    }

    fn part(&mut self, region: Region) -> Result<&mut [u8], Trouble> {
        if region.len == 0 {
            return Ok(&mut []);
        }
        let from = region.at.wrapping_sub(self.at) as usize;
        self.octets
            .get_mut(from..from + region.len as usize)
            .ok_or(Trouble::Invalid("a region outside of the data"))
    }

    /// Octets, if all of them are here.
    fn peek(&self, at: u32, len: usize) -> Option<Vec<u8>> {
        let from = at.checked_sub(self.at)? as usize;
        self.octets.get(from..from.checked_add(len)?).map(<[u8]>::to_vec)
    }

    /// Overwrites what of `octets` falls into a region.
    fn patch(&mut self, at: u32, octets: &[u8], region: Region) -> Result<(), Trouble> {
        let first = self.at;
        let end = region.end()?;
        for (place, octet) in (at..end).zip(octets) {
            if let Some(slot) =
                self.octets.get_mut(place.wrapping_sub(first) as usize).filter(|_| place >= region.at)
            {
                *slot = *octet;
            }
        }
        Ok(())
    }
}

fn way(decrypt: bool) -> &'static str {
    if decrypt { "decrypt" } else { "encrypt" }
}

fn purpose(digest: Digest) -> &'static str {
    match digest {
        Digest::None => "ignore",
        Digest::Return => "generate",
        Digest::Compare => "verify",
    }
}
