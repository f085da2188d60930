//! The key that a server gives along with its yes: MS-MPPE-Send-Key and MS-MPPE-Recv-Key (RFC 2548 section 2.4).
//!
//! Hidden by MD5 of the shared secret and the Request Authenticator, so whoever knows the secret reads it: on a path that is
//! not trusted this wants RadSec.

use md5::{Digest, Md5};
use spi::Secret;
use zeroize::Zeroizing;

use crate::attribute::{Attributes, MICROSOFT};

const SEND_KEY: u8 = 16;
const RECV_KEY: u8 = 17;
/// Octets of an MSK at least (RFC 3748 section 7.10).
const MSK: usize = 64;

/// The MSK in an Access-Accept: the receiving key, then the sending key, seen from the server, then zeros up to 64
/// octets. `None` when not both are there or one does not make sense.
pub(crate) fn msk(attributes: Attributes<'_>, request: &[u8; 16], secret: &Secret) -> Option<Secret> {
    let key = |kind| {
        let hidden = attributes.vendor(MICROSOFT, kind).next()?;
        reveal(hidden, request, secret)
    };
    let (recv, send) = (key(RECV_KEY)?, key(SEND_KEY)?);
    let mut msk = Vec::with_capacity(MSK.max(recv.len() + send.len()));
    msk.extend_from_slice(&recv);
    msk.extend_from_slice(&send);
    msk.resize(msk.len().max(MSK), 0);
    Some(Secret::new(msk))
}

/// What a salted attribute hides: a length octet, the key, padding.
fn reveal(hidden: &[u8], request: &[u8; 16], secret: &Secret) -> Option<Zeroizing<Vec<u8>>> {
    let (salt, blocks) = hidden.split_first_chunk::<2>()?;
    // RFC 2548 section 2.4.2: the most significant bit of the salt is set.
    if salt[0] & 0x80 == 0 || blocks.is_empty() || blocks.len() % 16 != 0 {
        return None;
    }
    let mut clear = Zeroizing::new(Vec::with_capacity(blocks.len()));
    let first = [request.as_slice(), salt].concat();
    let mut before = first.as_slice();
    for block in blocks.chunks(16) {
        let mask = Zeroizing::new(<[u8; 16]>::from(
            Md5::new().chain_update(secret.expose()).chain_update(before).finalize(),
        ));
        clear.extend(block.iter().zip(mask.iter()).map(|(c, b)| c ^ b));
        before = block;
    }
    let length = usize::from(clear[0]);
    let key = clear.get(1..=length).filter(|key| !key.is_empty())?;
    Some(Zeroizing::new(key.to_vec()))
}

/// The other direction, for servers of tests.
#[cfg(test)]
pub(crate) fn hide(key: &[u8], salt: [u8; 2], request: &[u8; 16], secret: &Secret) -> Vec<u8> {
    let mut clear = vec![key.len() as u8];
    clear.extend_from_slice(key);
    clear.resize(clear.len().next_multiple_of(16), 0);
    let mut hidden = salt.to_vec();
    let mut before = [request.as_slice(), &salt].concat();
    for block in clear.chunks(16) {
        let mask = Md5::new().chain_update(secret.expose()).chain_update(&before).finalize();
        before = block.iter().zip(mask).map(|(p, b)| p ^ b).collect();
        hidden.extend_from_slice(&before);
    }
    hidden
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attribute::{Kind, Written};

    fn accept(recv: &[u8], send: &[u8]) -> Written {
        let mut written = Written::new();
        for (kind, value) in [(SEND_KEY, send), (RECV_KEY, recv)] {
            let mut vendor = MICROSOFT.to_be_bytes().to_vec();
            vendor.extend_from_slice(&[kind, value.len() as u8 + 2]);
            vendor.extend_from_slice(value);
            written.push(Kind::VENDOR_SPECIFIC, &vendor).unwrap();
        }
        written
    }

    #[test]
    fn keys_come_out_in_the_order_of_the_msk_and_padded() {
        let (secret, request) = (Secret::from_slice(b"s3cret"), [5; 16]);
        for length in [1usize, 15, 16, 32, 50] {
            let (recv, send) = (vec![1; length], vec![2; length]);
            let hidden = |key: &[u8], salt| hide(key, salt, &request, &secret);
            let written = accept(&hidden(&recv, [0x80, 1]), &hidden(&send, [0x80, 2]));
            let mut want = [recv, send].concat();
            want.resize(want.len().max(64), 0);
            assert!(msk(written.read(), &request, &secret).unwrap().ct_eq(&want), "{length}");
        }
    }

    #[test]
    fn damaged_keys_are_none() {
        let (secret, request) = (Secret::from_slice(b"s3cret"), [5; 16]);
        let good = hide(&[1; 32], [0x80, 1], &request, &secret);
        let salted = hide(&[1; 32], [0, 1], &request, &secret);
        for bad in [&salted[..], &good[..17], &good[..2], &good[..1], &[]] {
            assert!(msk(accept(&good, bad).read(), &request, &secret).is_none(), "{bad:?}");
        }
        let long = hide(&[1; 15], [0x80, 1], &request, &secret);
        let mut lies = long.clone();
        // The length octet says 31 of 15.
        lies[2] ^= 15 ^ 31;
        assert!(msk(accept(&good, &lies).read(), &request, &secret).is_none());
        assert!(msk(Written::new().read(), &request, &secret).is_none());
    }
}
