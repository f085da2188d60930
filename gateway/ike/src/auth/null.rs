//! NULL authentication (RFC 7619): a proof that the peer of IKE_AUTH is the one of IKE_SA_INIT, and of nothing else. There is no
//! long-term secret in it, so it is made and looked at here; whether a realm wants it is for the key side to say.

use ipc::AuthInput;
use spi::{Fault, Secret, ShortOps};

/// What RFC 7296 section 2.15 keys the outer PRF with.
const KEY_PAD: &[u8] = b"Key Pad for IKEv2";

/// The AUTH data of the side whose SK_p it is (RFC 7619 section 2.1: SK_p in the place of the shared secret, as after EAP methods
/// without a key, RFC 7296 section 2.16).
///
/// # Errors
/// An unknown PRF.
pub(super) fn proof(ops: &dyn ShortOps, sk_p: &Secret, input: &AuthInput) -> Result<Secret, Fault> {
    let key = ops.prf(input.prf, sk_p.expose(), &[KEY_PAD])?;
    ops.prf(input.prf, key.expose(), &[&input.message, &input.nonce, &input.maced_id, &input.int_auth])
}
