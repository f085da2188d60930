//! What a provider can do, found out by having it done: each transform seals a packet and opens it again, each group makes a key, each
//! scheme begins to verify. What does not work is not offered.

use std::sync::Arc;

use spi::alg::{Curve, EncrKind};
use spi::caps::EspCap;
use spi::{Direction, Encr, Group, Hash, Integ, SaParams, Secret, SignScheme};

use crate::dh;
use crate::frame::Verdict;
use crate::keys::{SHA2, how};
use crate::sa::{Sa, cipher_name, hash_name};
use crate::sys::context::Context;
use crate::sys::errors;
use crate::sys::params::Value;
use crate::sys::pkey::{Half, Key};
use crate::sys::sign;

/// What was found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Found {
    pub(crate) esp: Vec<EspCap>,
    pub(crate) dh: Vec<Group>,
    pub(crate) sign: Vec<SignScheme>,
    pub(crate) verify: Vec<SignScheme>,
}

impl Found {
    /// Whether nothing was.
    pub(crate) fn is_empty(&self) -> bool {
        self.esp.is_empty() && self.dh.is_empty() && self.sign.is_empty() && self.verify.is_empty()
    }
}

/// Tries everything.
pub(crate) fn everything(context: &Arc<Context>) -> Found {
    let verify = verify(context);
    let found = Found {
        esp: esp(context),
        dh: Group::ALL.iter().copied().filter(|group| dh::works(context, *group)).collect(),
        // The same implementation signs and verifies; SHA-1 is not signed with.
        sign: verify.iter().copied().filter(|scheme| scheme.hash() != Hash::Sha1).collect(),
        verify,
    };
    errors::clear();
    found
}

fn esp(context: &Arc<Context>) -> Vec<EspCap> {
    let mut list = Vec::new();
    for encr in Encr::ALL.iter().copied().filter(|encr| cipher_name(*encr).is_some()) {
        let aead = encr.info().is_some_and(|info| info.kind == EncrKind::Aead);
        for integ in Integ::ALL.iter().copied() {
            let fits = if aead { integ == Integ::NONE } else { hash_name(integ).is_some() };
            if !fits || !carries(context, encr, integ, false) {
                continue;
            }
            list.push(EspCap { encr, integ, esn: carries(context, encr, integ, true) });
        }
    }
    list
}

/// Whether a packet that was sealed is another one, opens again, and does not when an octet of it was changed.
fn carries(context: &Arc<Context>, encr: Encr, integ: Integ, esn: bool) -> bool {
    const TEXT: [u8; 48] = [0x3c; 48];
    let (Some(info), Some(integ_info)) = (encr.info(), integ.info()) else { return false };
    let install = |dir| {
        let (encr_key, integ_key) =
            (vec![0x42; info.key_len + info.salt_len], vec![0x24; integ_info.key_len]);
        let (encr_key, integ_key) = (Secret::new(encr_key), Secret::new(integ_key));
        Sa::new(context, &SaParams { spi: 0x7057, dir, encr, integ, encr_key, integ_key, esn }).ok()
    };
    let (Some(seal), Some(open)) = (install(Direction::Seal), install(Direction::Open)) else { return false };
    let frame = seal.frame;
    let run = |sa: &Sa, packet: &mut [u8]| match sa.keys() {
        Some(mut keys) => sa.run(&mut keys, packet, 1 << 32 | 1),
        None => Verdict::Broken,
    };
    let text = frame.head_len..frame.head_len + TEXT.len();
    let mut packet = vec![7; text.end + frame.icv_len];
    packet[text.clone()].copy_from_slice(&TEXT);
    if run(&seal, &mut packet) != Verdict::Good || packet[text.clone()] == TEXT {
        return false;
    }
    let mut changed = packet.clone();
    changed[0] ^= 1;
    run(&open, &mut changed) == Verdict::BadIcv
        && run(&open, &mut packet) == Verdict::Good
        && packet[text] == TEXT
}

fn verify(context: &Context) -> Vec<SignScheme> {
    let mut list = Vec::new();
    let mut add = |key: Option<&Key>, schemes: &mut dyn Iterator<Item = SignScheme>| {
        let Some(key) = key else { return };
        list.extend(schemes.filter(|scheme| sign::can_verify(context, key, how(*scheme))));
    };
    // A modulus that is nobody's: it is odd and long enough, and nothing is verified with it.
    let rsa = [(c"n", Value::Number(&[0xff; 256])), (c"e", Value::Number(&[1, 0, 1]))];
    let rsa = Key::from_values(context, c"RSA", Half::Public, &rsa);
    add(rsa.as_ref(), &mut SHA2.into_iter().map(SignScheme::RsaPss));
    add(rsa.as_ref(), &mut SHA2.into_iter().map(SignScheme::RsaPkcs1));
    add(rsa.as_ref(), &mut [SignScheme::RsaPkcs1(Hash::Sha1), SignScheme::RsaPss(Hash::Sha1)].into_iter());
    for (curve, name) in [(Curve::P256, c"P-256"), (Curve::P384, c"P-384"), (Curve::P521, c"P-521")] {
        let key = Key::generate(context, c"EC", Some(name));
        add(key.as_ref(), &mut SHA2.into_iter().map(|hash| SignScheme::EcdsaDer(curve, hash)));
        add(key.as_ref(), &mut SHA2.into_iter().map(|hash| SignScheme::EcdsaPlain(curve, hash)));
    }
    for (scheme, name) in [(SignScheme::Ed25519, c"ED25519"), (SignScheme::Ed448, c"ED448")] {
        let key = Key::generate(context, name, None);
        add(key.as_ref(), &mut std::iter::once(scheme));
    }
    list
}
