//! What binds the method inside PEAP to the tunnel (\[MS-PEAP\] 3.1.5.5): one TLV each way, with a MAC under a key of both,
//! and an MSK of both. It shows that the tunnel has the same ends as the method.

use aws_lc_rs::hmac;
use spi::Secret;
use zeroize::Zeroizing;

/// Cryptobinding TLV, not mandatory, 56 octets.
const HEADER: [u8; 4] = [0, 12, 0, 56];
/// Where in it the nonce and the MAC are, from its header on.
const NONCE: usize = 8;
const MAC: usize = 40;
/// Octets of it.
const LEN: usize = 60;
/// What the MAC covers after the TLV: the type of PEAP.
const PEAP: u8 = 25;

/// Whose TLV it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum From {
    Server,
    Peer,
}

/// The keys of tunnel and method together.
pub(crate) struct Binding {
    mac: hmac::Key,
    key: Secret,
}

impl Binding {
    /// Of the tunnel's MSK, and of the inner method's if it has one.
    pub(crate) fn new(tunnel: &Secret, inner: Option<&Secret>) -> Self {
        // A method without a key counts as zeroes; of a key only the beginning does.
        let mut isk = Zeroizing::new([0; 32]);
        if let Some(inner) = inner {
            isk.iter_mut().zip(inner.expose()).for_each(|(to, octet)| *to = *octet);
        }
        let tunnel = tunnel.expose();
        let both = expand(tunnel.get(..40).unwrap_or(tunnel), &[b"Inner Methods Compound Keys", &*isk], 60);
        let (key, mac) = both.split_at(40);
        Binding {
            mac: hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, mac),
            key: Secret::from_slice(key),
        }
    }

    /// The TLV.
    pub(crate) fn tlv(&self, from: From, nonce: &[u8; 32]) -> Vec<u8> {
        // Reserved; version, and the version that was received; whose.
        let fields = [0, 0, 0, u8::from(from == From::Peer)];
        let mut tlv = [&HEADER[..], &fields, nonce, &[0; 20]].concat();
        let mac = self.sum(&tlv);
        tlv[MAC..].copy_from_slice(mac.as_ref());
        tlv
    }

    /// The nonce of a TLV that came from the other side; `None` if its MAC is wrong.
    pub(crate) fn check(&self, from: From, value: &[u8]) -> Option<[u8; 32]> {
        let mut tlv = [&HEADER[..], value].concat();
        if tlv.len() != LEN || tlv.get(7) != Some(&u8::from(from == From::Peer)) {
            return None;
        }
        let mac = tlv.split_off(MAC);
        tlv.resize(LEN, 0);
        tlv.push(PEAP);
        hmac::verify(&self.mac, &tlv, &mac).ok()?;
        tlv.get(NONCE..MAC)?.try_into().ok()
    }

    /// The MSK, 64 octets.
    pub(crate) fn msk(&self) -> Secret {
        Secret::from_slice(&expand(self.key.expose(), &[b"Session Key Generating Function", &[0]], 64))
    }

    fn sum(&self, tlv: &[u8]) -> hmac::Tag {
        hmac::sign(&self.mac, &[tlv, &[PEAP]].concat())
    }
}

/// PRF+ of PEAP version 0: each block is a MAC of the one before, the seed, its number and two octets of zero.
fn expand(key: &[u8], seed: &[&[u8]], len: usize) -> Zeroizing<Vec<u8>> {
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, key);
    let mut out = Zeroizing::new(Vec::with_capacity(len + 20));
    let mut last = Zeroizing::new(Vec::new());
    for n in 1.. {
        let mut context = hmac::Context::with_key(&key);
        context.update(&last);
        seed.iter().for_each(|part| context.update(part));
        context.update(&[n, 0, 0]);
        last = Zeroizing::new(context.sign().as_ref().to_vec());
        out.extend_from_slice(&last);
        if out.len() >= len {
            break;
        }
    }
    out.truncate(len);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_binding_holds_for_the_same_keys_and_the_same_sender_only() {
        let of = |tunnel: u8, inner: Option<u8>| {
            let inner = inner.map(|octet| Secret::new(vec![octet; 64]));
            Binding::new(&Secret::new(vec![tunnel; 64]), inner.as_ref())
        };
        let tlv = of(1, Some(2)).tlv(From::Server, &[9; 32]);
        assert_eq!(tlv.len(), LEN);
        let value = &tlv[4..];
        assert_eq!(of(1, Some(2)).check(From::Server, value), Some([9; 32]));
        assert_eq!(of(1, Some(2)).check(From::Peer, value), None);
        assert_eq!(of(1, Some(3)).check(From::Server, value), None);
        assert_eq!(of(1, None).check(From::Server, value), None);
        assert_eq!(of(3, Some(2)).check(From::Server, value), None);
        assert_eq!(of(1, Some(2)).check(From::Server, &value[1..]), None);
        for at in 0..value.len() {
            let mut other = value.to_vec();
            other[at] ^= 1;
            assert_eq!(of(1, Some(2)).check(From::Server, &other), None, "octet {at}");
        }
        assert!(!of(1, Some(2)).msk().ct_eq(of(1, Some(3)).msk().expose()));
    }
}
