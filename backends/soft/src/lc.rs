//! The engine that is always there: AWS-LC. It carries every transform.
//!
//! AES-GCM and ChaCha20-Poly1305 need no state that changes, so bursts of one SA on several workers do not wait for each other;
//! the other transforms take one lock per burst.

use std::sync::{Arc, Mutex, PoisonError};

use spi::{Direction, EspOp, Fault, FaultKind, SaParams};

use crate::esp::{Frame, Keys, Packet, Run, Sa, aad};
use crate::scratch::{Ivs, Scratch};
use crate::transform::{AeadKey, CcmKey, Cipher, GmacKey, Keyed, Mac, same};

/// An SA of any transform.
pub(crate) fn install(params: &SaParams, frame: Frame) -> Result<Arc<dyn Run>, Fault> {
    if AeadKey::carries(params.encr) {
        let mut sa = Arc::new(Sa { frame, keys: AeadKey::unkeyed() });
        // Keyed where it lies: there is no other link to it yet.
        let inside = Arc::get_mut(&mut sa).ok_or(FaultKind::Internal)?;
        inside.keys.schedule(params.encr, params.encr_key.expose())?;
        return Ok(sa);
    }
    Ok(Arc::new(Sa { frame, keys: Exclusive::new(params)? }))
}

impl Keys for AeadKey {
    fn each(&self, frame: &Frame, bytes: &mut [u8], ops: &mut [EspOp], _: &mut Scratch) {
        frame.each(bytes, ops, |mut packet, dir| {
            let (seq, high, mut room) = (packet.seq, packet.high, [0; 12]);
            let (header, iv, text, icv) = packet.parts();
            let aad = aad(header, high, &mut room);
            match dir {
                Direction::Seal => {
                    iv.copy_from_slice(&seq.to_be_bytes());
                    self.seal(iv, aad, text, icv)
                }
                Direction::Open => self.open(iv, aad, text, icv),
            }
        });
    }
}

/// Keys whose contexts change as they are used.
pub(crate) struct Exclusive(Mutex<Box<State>>);

enum State {
    Ccm(CcmKey),
    Gmac(GmacKey),
    Separate(Cipher, Mac),
}

impl Exclusive {
    /// Schedules the keys of any transform that is not [`AeadKey`]'s.
    pub(crate) fn new(params: &SaParams) -> Result<Self, Fault> {
        let state = match Keyed::new(params.encr, params.encr_key.expose(), params.dir)? {
            Keyed::Aead(_) => return Err(FaultKind::Unsupported.into()),
            Keyed::Ccm(key) => State::Ccm(key),
            Keyed::Gmac(key) => State::Gmac(key),
            Keyed::Plain(cipher) => {
                State::Separate(cipher, Mac::new(params.integ, params.integ_key.expose())?)
            }
        };
        Ok(Exclusive(Mutex::new(Box::new(state))))
    }
}

impl Keys for Exclusive {
    fn each(&self, frame: &Frame, bytes: &mut [u8], ops: &mut [EspOp], scratch: &mut Scratch) {
        // No code under this lock panics; and every packet sets its own IV, so nothing can be half done.
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        frame.each(bytes, ops, |packet, dir| state.crypt(packet, dir, &mut scratch.ivs));
    }
}

impl State {
    fn crypt(&mut self, mut packet: Packet<'_>, dir: Direction, ivs: &mut Ivs) -> bool {
        let (seq, high, mut room) = (packet.seq, packet.high, [0; 12]);
        let tail = packet.tail();
        match (self, dir) {
            (State::Ccm(key), Direction::Seal) => {
                let (header, iv, text, icv) = packet.parts();
                iv.copy_from_slice(&seq.to_be_bytes());
                key.seal(iv, aad(header, high, &mut room), text, icv)
            }
            (State::Ccm(key), Direction::Open) => {
                let (header, iv, text, icv) = packet.parts();
                key.open(iv, aad(header, high, &mut room), text, icv)
            }
            (State::Gmac(key), Direction::Seal) => {
                let (header, iv, text, icv) = packet.parts();
                iv.copy_from_slice(&seq.to_be_bytes());
                gmac(key, aad(header, high, &mut room), iv, text).is_some_and(|tag| {
                    icv.copy_from_slice(&tag);
                    true
                })
            }
            (State::Gmac(key), Direction::Open) => {
                let (header, iv, text, icv) = packet.parts();
                gmac(key, aad(header, high, &mut room), iv, text).is_some_and(|tag| same(&tag, icv))
            }
            (State::Separate(cipher, mac), Direction::Seal) => {
                let (_, iv, text, _) = packet.parts();
                ivs.write(cipher.wants_blocks(), seq, iv);
                cipher.apply(iv, text) && mac.write(&[packet.body, &tail.0[..tail.1]], packet.icv)
            }
            (State::Separate(cipher, mac), Direction::Open) => {
                mac.check(&[packet.body, &tail.0[..tail.1]], packet.icv) && {
                    let (_, iv, text, _) = packet.parts();
                    cipher.apply(iv, text)
                }
            }
        }
    }
}

/// RFC 4543 section 3.3: everything is associated data, the header in the form of [`aad`], then IV and text.
fn gmac(key: &mut GmacKey, aad: &[u8], iv: &[u8], text: &[u8]) -> Option<[u8; 16]> {
    key.tag(iv, &[aad, iv, text])
}
