//! What an operation costs, and who is to do it for that.
//!
//! To hand an operation to a helper thread and take it back costs two wake-ups, some 10 to 20 microseconds of processor time
//! and twice that of waiting. An operation of tens of microseconds is cheaper done at once, in `poll`, on the thread that
//! wants it; one of hundreds or thousands would keep that thread from its packets.
//!
//! Microseconds of one core of a server of 2023, as `examples/operations.rs` prints them:
//!
//! | | | | |
//! |---|---|---|---|
//! | x25519 | 18, 35 | modp2048 | 480, 510 |
//! | ecp256 | 22, 64 | modp3072 | 1300, 1380 |
//! | ecp384 | 89, 340 | modp4096 | 2700, 2550 |
//! | ecp521 | 180, 530 | modp8192 | 12100, 10400 |
//! | x448 | 290, 590 | mlkem512 to mlkem1024 | 21 to 44, 26 to 52 |
//! | *key exchange: generate, derive* | | | |
//! | ECDSA P-256 | 38, 87 | RSA 2048 | 280, 31 |
//! | ECDSA P-384 | 130, 270 | RSA 4096 | 1540, 90 |
//! | ECDSA P-521 | 200, 390 | RSA 8192 | 32000, 290 |
//! | Ed25519 | 18, 58 | *signatures: sign, verify* | |

use spi::alg::Curve;
use spi::{CryptoOp, Group, SignScheme};

/// Longest SubjectPublicKeyInfo of an RSA key of 4096 bits with a public exponent of 4 octets: longer ones cost more to verify
/// with than a helper does.
const RSA_4096: usize = 556;

/// Longest input that is hashed on the spot, octets.
const SHORT: usize = 64 * 1024;

/// Who does an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// The thread that polls.
    Here,
    /// A helper thread.
    Helper,
}

/// Who is to do it.
pub(crate) fn place(op: &CryptoOp) -> Place {
    let cheap = match op {
        CryptoOp::DhGenerate { group }
        | CryptoOp::DhDerive { group, .. }
        | CryptoOp::KemEncapsulate { group, .. } => is_cheap_group(*group),
        CryptoOp::Sign { scheme, octets, .. } => octets.len() <= SHORT && is_cheap_to_sign(*scheme),
        CryptoOp::Verify { scheme, octets, spki, .. } => {
            octets.len() <= SHORT && is_cheap_to_verify(*scheme, spki)
        }
        CryptoOp::Random { .. } => true,
        _ => false,
    };
    if cheap { Place::Here } else { Place::Helper }
}

fn is_cheap_group(group: Group) -> bool {
    matches!(group, Group::X25519 | Group::ECP256 | Group::MLKEM512 | Group::MLKEM768 | Group::MLKEM1024)
}

fn is_cheap_to_sign(scheme: SignScheme) -> bool {
    matches!(
        scheme,
        SignScheme::EcdsaPlain(Curve::P256, _) | SignScheme::EcdsaDer(Curve::P256, _) | SignScheme::Ed25519
    )
}

fn is_cheap_to_verify(scheme: SignScheme, spki: &[u8]) -> bool {
    match scheme {
        SignScheme::RsaPkcs1(_) | SignScheme::RsaPss(_) => spki.len() <= RSA_4096,
        other => is_cheap_to_sign(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use spi::{DhPrivate, Hash, KeyId, Secret};

    #[test]
    fn every_group_has_a_place_and_the_dear_ones_are_helped() {
        let here = [Group::X25519, Group::ECP256, Group::MLKEM512, Group::MLKEM768, Group::MLKEM1024];
        for group in Group::ALL.iter().copied() {
            let wanted = if here.contains(&group) { Place::Here } else { Place::Helper };
            let ours = DhPrivate::Bytes(Secret::new(vec![]));
            assert_eq!(place(&CryptoOp::DhGenerate { group }), wanted, "{group}");
            assert_eq!(place(&CryptoOp::DhDerive { group, ours, theirs: vec![] }), wanted, "{group}");
        }
    }

    #[test]
    fn what_a_peer_can_make_long_is_helped() {
        let verify = |scheme, spki: usize, octets: usize| {
            place(&CryptoOp::Verify {
                spki: vec![0; spki],
                scheme,
                octets: vec![0; octets],
                signature: vec![],
            })
        };
        let (rsa, p256) = (SignScheme::RsaPss(Hash::Sha256), SignScheme::EcdsaDer(Curve::P256, Hash::Sha256));
        assert_eq!(verify(rsa, 550, 1000), Place::Here, "4096 bits");
        assert_eq!(verify(rsa, 1062, 1000), Place::Helper, "8192 bits");
        assert_eq!(verify(p256, 91, 1000), Place::Here);
        assert_eq!(verify(p256, 91, 100_000), Place::Helper);
        assert_eq!(verify(SignScheme::EcdsaDer(Curve::P384, Hash::Sha384), 120, 1000), Place::Helper);
        let sign = |scheme| {
            place(&CryptoOp::Sign { key: KeyId { index: 0, epoch: 1 }, scheme, octets: vec![0; 500] })
        };
        assert_eq!((sign(rsa), sign(p256)), (Place::Helper, Place::Here));
    }
}
