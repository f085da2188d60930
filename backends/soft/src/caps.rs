//! What this backend can do: the whole table.

use spi::alg::{Curve, EncrKind};
use spi::caps::{EspCap, Traits};
use spi::{Caps, Encr, Group, Hash, Integ, Prf, SignScheme};

/// Jobs one ring holds at most.
pub(crate) const RING: usize = 8192;

/// SAs at one time.
pub(crate) const MAX_SAS: usize = 1 << 18;

/// Long-term keys at one time.
pub(crate) const MAX_KEYS: usize = 1 << 16;

/// The hashes that signatures are made with. SHA-1 is verified for old peers (RFC 7296 section 2.15) and never made.
pub(crate) const SHA2: [Hash; 3] = [Hash::Sha256, Hash::Sha384, Hash::Sha512];

pub(crate) fn caps() -> Caps {
    let sign = sign();
    let mut verify = sign.clone();
    verify.extend([SignScheme::RsaPkcs1(Hash::Sha1), SignScheme::RsaPss(Hash::Sha1)]);
    Caps {
        esp: esp(),
        dh: Group::ALL.iter().copied().filter(|group| *group != Group::NONE).collect(),
        sign,
        verify,
        prf: Prf::ALL.to_vec(),
        traits: Traits::IN_ORDER | Traits::RECOVERS,
        ring: RING,
        max_sas: MAX_SAS,
        max_len: u16::MAX as usize,
    }
}

fn esp() -> Vec<EspCap> {
    let mut list = Vec::new();
    for encr in Encr::ALL.iter().copied() {
        let aead = encr.info().is_some_and(|info| matches!(info.kind, EncrKind::Aead | EncrKind::Gmac));
        for integ in Integ::ALL.iter().copied().filter(|integ| aead == (*integ == Integ::NONE)) {
            list.push(EspCap { encr, integ, esn: true });
        }
    }
    list
}

fn sign() -> Vec<SignScheme> {
    let mut list = Vec::new();
    list.extend(SHA2.map(SignScheme::RsaPss));
    list.extend(SHA2.map(SignScheme::RsaPkcs1));
    for curve in [Curve::P256, Curve::P384, Curve::P521] {
        list.extend(SHA2.map(|hash| SignScheme::EcdsaDer(curve, hash)));
        list.extend(SHA2.map(|hash| SignScheme::EcdsaPlain(curve, hash)));
    }
    list.push(SignScheme::Ed25519);
    list
}
