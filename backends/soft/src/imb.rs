//! The engine beside AWS-LC: Intel's ipsec-mb.
//!
//! | transform | how |
//! |---|---|
//! | AES-GCM | `gcm`: a call for each packet, on keys all threads share |
//! | ChaCha20-Poly1305 | `jobs` |
//! | AES-CBC, AES-CTR, NULL with HMAC | `jobs`: the packets of a burst side by side in the lanes of SIMD registers |
//!
//! CBC and hashes are chains, each step of which waits for the one before, so one packet alone leaves most of the processor
//! idle, and eight or more fill it. That is why an SA may hold the keys of both engines: see [`Both`].
//!
//! An ICV is computed here and compared in constant time. Unlike AWS-LC, the library decrypts whether or not it is right; what
//! is then in the buffer is nobody's text, for the operation says that it was refused.

mod gcm;
mod jobs;

use std::sync::Arc;

use spi::{Encr, EspOp, Fault, FaultKind, Integ, Outcome, SaParams};

use crate::choose::Picks;
use crate::esp::{Frame, Keys, Run, Sa};
use crate::lc::Exclusive;
use crate::scratch::Scratch;
use crate::sys::imb::{GcmWork, Manager};
use crate::transform::AeadKey;

/// The version of the library, or why it cannot be used on this machine.
pub(crate) fn presence() -> Result<String, &'static str> {
    Manager::shared().map(|_| crate::sys::imb::version())
}

/// Whether the library carries a transform.
pub(crate) fn carries(encr: Encr, integ: Integ) -> bool {
    gcm::carries(encr) || jobs::carries(encr, integ)
}

/// An SA with the keys that its picks need; `None`: this engine has no part in it.
pub(crate) fn install(params: &SaParams, frame: Frame, picks: Picks) -> Result<Option<Arc<dyn Run>>, Fault> {
    let Ok(manager) = Manager::shared() else { return Ok(None) };
    if picks.is_none() || !carries(params.encr, params.integ) {
        return Ok(None);
    }
    if gcm::carries(params.encr) {
        install_with(params, frame, picks, gcm::Key::new(manager, params)?).map(Some)
    } else {
        install_with(params, frame, picks, jobs::Key::new(manager, params)?).map(Some)
    }
}

fn install_with<M: Keys + 'static>(
    params: &SaParams,
    frame: Frame,
    picks: Picks,
    mb: M,
) -> Result<Arc<dyn Run>, Fault> {
    if picks.is_all() {
        return Ok(Arc::new(Sa { frame, keys: mb }));
    }
    if !AeadKey::carries(params.encr) {
        return Ok(Arc::new(Sa { frame, keys: Both { picks, lc: Exclusive::new(params)?, mb } }));
    }
    let mut sa = Arc::new(Sa { frame, keys: Both { picks, lc: AeadKey::unkeyed(), mb } });
    // Keyed where it lies: there is no other link to it yet.
    let inside = Arc::get_mut(&mut sa).ok_or(FaultKind::Internal)?;
    inside.keys.lc.schedule(params.encr, params.encr_key.expose())?;
    Ok(sa)
}

/// The keys of both engines, for a transform that now AWS-LC, now the library carries faster.
struct Both<L, M> {
    picks: Picks,
    lc: L,
    mb: M,
}

impl<L: Keys, M: Keys> Keys for Both<L, M> {
    fn each(&self, frame: &Frame, bytes: &mut [u8], ops: &mut [EspOp], scratch: &mut Scratch) {
        if self.picks.take(ops) {
            self.mb.each(frame, bytes, ops, scratch);
        } else {
            self.lc.each(frame, bytes, ops, scratch);
        }
    }
}

/// What a ring keeps for this engine, each part made when it is first needed.
#[derive(Default)]
pub(crate) struct Kept {
    gcm: Option<GcmWork>,
    jobs: Option<jobs::Lanes>,
}

/// Marks every operation as failed: the library was there when the SA was installed, and has no memory now.
fn fail(ops: &mut [EspOp]) {
    ops.iter_mut().for_each(|op| op.outcome = Outcome::Failed(FaultKind::Exhausted.into()));
}
