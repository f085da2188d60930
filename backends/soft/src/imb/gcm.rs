//! AES-GCM: packet by packet, for its own steps keep the processor busy already.

use spi::{Direction, Encr, EspOp, Fault, FaultKind, SaParams};

use super::fail;
use crate::esp::{Frame, Keys, aad};
use crate::scratch::Scratch;
use crate::sys::imb::{Gcm, GcmWork, Manager};
use crate::transform::{AeadKey, Salt, nonce, own, same, split};

pub(super) fn carries(encr: Encr) -> bool {
    AeadKey::carries(encr) && encr != Encr::CHACHA20_POLY1305
}

/// A key with its salt.
pub(super) struct Key {
    gcm: Gcm,
    salt: Salt<4>,
}

impl Key {
    pub(super) fn new(manager: &Manager, params: &SaParams) -> Result<Self, Fault> {
        let info = params.encr.info().ok_or(FaultKind::Unsupported)?;
        let (key, salt) = split(&info, params.encr_key.expose())?;
        let gcm = Gcm::new(manager, key).ok_or(FaultKind::Exhausted)?;
        Ok(Key { gcm, salt: own(salt).ok_or(FaultKind::Internal)? })
    }
}

impl Keys for Key {
    fn each(&self, frame: &Frame, bytes: &mut [u8], ops: &mut [EspOp], scratch: &mut Scratch) {
        let Ok(manager) = Manager::shared() else { return fail(ops) };
        let kept = &mut scratch.imb.gcm;
        if kept.is_none() {
            *kept = GcmWork::new();
        }
        let Some(work) = kept else { return fail(ops) };
        frame.each(bytes, ops, |mut packet, dir| {
            let (seq, high, mut room) = (packet.seq, packet.high, [0; 12]);
            let (header, iv, text, icv) = packet.parts();
            let aad = aad(header, high, &mut room);
            if dir == Direction::Seal {
                iv.copy_from_slice(&seq.to_be_bytes());
            }
            let Some(nonce) = nonce(&self.salt, iv) else { return false };
            match dir {
                Direction::Seal => self.gcm.seal(manager, work, &nonce, aad, text, icv),
                Direction::Open => {
                    let tag = self.gcm.open(manager, work, &nonce, aad, text);
                    tag.get(..icv.len()).is_some_and(|tag| same(tag, icv))
                }
            }
        });
        work.wipe();
    }
}
