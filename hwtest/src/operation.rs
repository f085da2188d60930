//! Operations of the key exchange: every declared group and scheme, and what must be refused; short primitives.

use spi::alg::{EncrKind, GroupKind};
use spi::crypto::{KeyInfo, KeySource};
use spi::pend::Pend;
use spi::short::ShortError;
use spi::{
    CryptoDone, CryptoOp, CryptoOutput, Device, DhPrivate, Driver, Encr, FaultKind, Group, Hash, Integ,
    KeyId, Outcome, QueueConfig, Reject, Secret, SignScheme, SkSuite,
};

use crate::note;
use crate::ring::{devices, wait_until_ready};

/// Keys for tests, which everybody has.
pub(crate) const KEYS: [&[u8]; 6] = [
    include_bytes!("../testdata/rsa2048.p8"),
    include_bytes!("../testdata/p256.p8"),
    include_bytes!("../testdata/p384.p8"),
    include_bytes!("../testdata/p521.p8"),
    include_bytes!("../testdata/ed25519.p8"),
    include_bytes!("../testdata/ed448.p8"),
];

/// A queue on which operations are run one by one.
pub(crate) struct Ops(Pend);

impl Ops {
    pub(crate) fn open(device: &dyn Device) -> Option<Self> {
        Some(Ops(Pend::new(device.crypto_queue(QueueConfig::default())?, 4)))
    }

    pub(crate) fn run(&self, op: CryptoOp) -> Result<CryptoOutput, Outcome> {
        match self.0.block_on(op) {
            Ok(CryptoDone { outcome: Outcome::Done, output, .. }) => Ok(output),
            Ok(CryptoDone { outcome, output, .. }) => {
                assert!(matches!(output, CryptoOutput::None), "{outcome:?} came with an output");
                Err(outcome)
            }
            Err(fault) => Err(Outcome::Failed(fault)),
        }
    }

    pub(crate) fn generate(&self, group: Group) -> (DhPrivate, Vec<u8>) {
        match self.run(CryptoOp::DhGenerate { group }) {
            Ok(CryptoOutput::DhPair(ours, public)) => (ours, public),
            Ok(_) => panic!("{group}: no pair came"),
            Err(outcome) => panic!("{group}: {outcome:?}"),
        }
    }

    pub(crate) fn derive(&self, group: Group, ours: DhPrivate, theirs: Vec<u8>) -> Result<Secret, Outcome> {
        match self.run(CryptoOp::DhDerive { group, ours, theirs })? {
            CryptoOutput::Secret(secret) => Ok(secret),
            _ => panic!("{group}: no secret came"),
        }
    }

    pub(crate) fn encapsulate(&self, group: Group, theirs: Vec<u8>) -> Result<(Vec<u8>, Secret), Outcome> {
        match self.run(CryptoOp::KemEncapsulate { group, theirs })? {
            CryptoOutput::Encapsulated(ciphertext, secret) => Ok((ciphertext, secret)),
            _ => panic!("{group}: no ciphertext came"),
        }
    }

    pub(crate) fn sign(&self, key: KeyId, scheme: SignScheme, octets: &[u8]) -> Result<Vec<u8>, Outcome> {
        match self.run(CryptoOp::Sign { key, scheme, octets: octets.to_vec() })? {
            CryptoOutput::Signature(signature) => Ok(signature),
            _ => panic!("{scheme:?}: no signature came"),
        }
    }

    pub(crate) fn verify(
        &self,
        spki: &[u8],
        scheme: SignScheme,
        octets: &[u8],
        signature: &[u8],
    ) -> Result<(), Outcome> {
        let (spki, octets, signature) = (spki.to_vec(), octets.to_vec(), signature.to_vec());
        self.run(CryptoOp::Verify { spki, scheme, octets, signature }).map(|_| ())
    }
}

/// Both ends come to the same secret, at the lengths of the table; a KEM's two halves likewise.
pub fn both_ends_of_every_declared_group_agree(driver: &dyn Driver) {
    for device in devices(driver) {
        let Some(ops) = Ops::open(&*device) else { continue };
        for group in device.desc().caps.dh.iter().copied() {
            let info = group.info().expect("declared groups are in the table");
            let (a, to_b) = ops.generate(group);
            assert_eq!(to_b.len(), info.public_len, "{group}: length of the public value");
            let (one, other) = if info.kind == GroupKind::Kem {
                let (to_a, secret) = ops.encapsulate(group, to_b).expect("a fresh key is good");
                assert_eq!(to_a.len(), info.response_len, "{group}: length of the ciphertext");
                (Ok(secret), ops.derive(group, a, to_a))
            } else {
                let (b, to_a) = ops.generate(group);
                assert_ne!(to_a, to_b, "{group}: the same key twice");
                (ops.derive(group, b, to_b), ops.derive(group, a, to_a))
            };
            let (Ok(one), Ok(other)) = (one, other) else { panic!("{group}: fresh values were refused") };
            assert_eq!(one.len(), info.secret_len, "{group}: length of the secret");
            assert!(one.ct_eq(other.expose()), "{group}: the ends disagree");
        }
    }
}

/// Values of the wrong length, zero, one and all ones are refused as bad public input.
pub fn unusable_public_values_are_refused(driver: &dyn Driver) {
    for device in devices(driver) {
        let Some(ops) = Ops::open(&*device) else { continue };
        for group in device.desc().caps.dh.iter().copied() {
            let info = group.info().expect("declared groups are in the table");
            let kem = info.kind == GroupKind::Kem;
            let right = if kem { info.response_len } else { info.public_len };
            let mut bad = vec![vec![], vec![9; right - 1], vec![9; right + 1]];
            let mut one = vec![0; right];
            match info.kind {
                GroupKind::Modp | GroupKind::Ecp => {
                    one[right - 1] = 1;
                    bad.extend([vec![0; right], one, vec![0xff; right]]);
                }
                GroupKind::Montgomery => {
                    one[0] = 1;
                    bad.extend([vec![0; right], one]);
                }
                GroupKind::Kem => {}
            }
            for theirs in bad {
                let name = format!("{group}: {} octets beginning with {:?}", theirs.len(), theirs.first());
                let (ours, _) = ops.generate(group);
                let got = ops.derive(group, ours, theirs).map(|_| ());
                assert_eq!(got, Err(Outcome::Rejected(Reject::BadPublicInput)), "{name}");
            }
            if kem {
                for theirs in [vec![0; info.public_len - 1], vec![0xff; info.public_len]] {
                    let got = ops.encapsulate(group, theirs).map(|_| ());
                    assert_eq!(got, Err(Outcome::Rejected(Reject::BadPublicInput)), "{group}: bad key");
                }
            }
        }
    }
}

/// Opens the keys that are there for tests; an empty list means that the device keeps no keys of this form.
pub fn open_keys(device: &dyn Device) -> Vec<KeyInfo> {
    KEYS.iter().filter_map(|der| device.open_key(KeySource::Der(Secret::from_slice(der))).ok()).collect()
}

/// What is signed verifies, and nothing else does: another message, a changed or cut signature, another scheme.
pub fn every_declared_scheme_signs_and_verifies(driver: &dyn Driver) {
    for device in devices(driver) {
        let Some(ops) = Ops::open(&*device) else { continue };
        let caps = &device.desc().caps;
        let keys = open_keys(&*device);
        if keys.is_empty() {
            if !caps.sign.is_empty() {
                note::skip(
                    "no signature was made: the device keeps keys that it was given in another way; name some",
                );
            }
            continue;
        }
        let bad = Err(Outcome::Rejected(Reject::BadSignature));
        for scheme in caps.sign.iter().copied() {
            let key = keys.iter().find(|key| key.schemes.contains(&scheme));
            let Some(key) = key else { panic!("{scheme:?} is declared and no key signs with it") };
            let signature = ops.sign(key.id, scheme, b"octets").expect("a declared scheme signs");
            if !caps.verify.contains(&scheme) {
                continue;
            }
            assert_eq!(ops.verify(&key.spki, scheme, b"octets", &signature), Ok(()), "{scheme:?}");
            assert_eq!(
                ops.verify(&key.spki, scheme, b"octet", &signature),
                bad,
                "{scheme:?}: another message"
            );
            let mut bent = signature.clone();
            if let Some(last) = bent.last_mut() {
                *last ^= 1;
            }
            assert_eq!(ops.verify(&key.spki, scheme, b"octets", &bent), bad, "{scheme:?}: a changed octet");
            let cut = signature.get(1..).unwrap_or_default();
            assert_eq!(ops.verify(&key.spki, scheme, b"octets", cut), bad, "{scheme:?}: an octet less");
            for len in [0, 1, key.spki.len() - 1] {
                let got = ops.verify(&key.spki[..len], scheme, b"octets", &signature);
                assert!(matches!(got, Err(Outcome::Rejected(_))), "{scheme:?}: {got:?} for a cut key");
            }
        }
        for key in &keys {
            let foreign = caps.sign.iter().find(|scheme| !key.schemes.contains(scheme));
            if let Some(scheme) = foreign {
                let got = ops.sign(key.id, *scheme, b"octets").map(|_| ());
                assert!(
                    matches!(got, Err(Outcome::Failed(_))),
                    "{scheme:?} with a key of another kind: {got:?}"
                );
            }
            device.close_key(key.id);
        }
    }
}

/// A key that was closed does not sign, whoever lives in its place then; nor does any key after a reset.
pub fn handles_of_keys_turn_stale(driver: &dyn Driver) {
    for device in devices(driver) {
        let Some(ops) = Ops::open(&*device) else { continue };
        let stale = Err(Outcome::Failed(FaultKind::StaleHandle.into()));
        let Some(first) = open_keys(&*device).into_iter().next() else { continue };
        let scheme = *first.schemes.first().expect("a key signs with something");
        assert!(ops.sign(first.id, scheme, b"octets").is_ok());
        device.close_key(first.id);
        let later = open_keys(&*device);
        assert_eq!(ops.sign(first.id, scheme, b"octets"), stale, "a closed key signs");
        if device.desc().caps.traits.contains(spi::caps::Traits::RECOVERS) {
            device.begin_reset();
            wait_until_ready(&*device);
            for key in later {
                let scheme = *key.schemes.first().expect("a key signs with something");
                assert_eq!(ops.sign(key.id, scheme, b"octets"), stale, "a key outlives a reset");
            }
        }
    }
}

/// Random octets come in the length asked for, and differ.
pub fn random_octets_come_as_asked(driver: &dyn Driver) {
    for device in devices(driver) {
        let Some(ops) = Ops::open(&*device) else { continue };
        let random = |len| match ops.run(CryptoOp::Random { len }) {
            Ok(CryptoOutput::Secret(secret)) => Some(secret),
            Ok(_) => panic!("no octets came"),
            Err(Outcome::Failed(fault)) if fault.kind == FaultKind::Unsupported => None,
            Err(outcome) => panic!("{len} random octets: {outcome:?}"),
        };
        let (Some(a), Some(b)) = (random(32), random(32)) else {
            note::skip("the device makes no random octets");
            continue;
        };
        assert!(!a.ct_eq(b.expose()), "the same octets twice");
        for len in [1, 2, 4096, 65_536] {
            assert_eq!(random(len).map(|secret| secret.len()), Some(len));
        }
    }
}

/// PRFs and hashes give their lengths; suites for IKE messages open what they sealed and nothing else.
pub fn short_primitives_keep_their_lengths(driver: &dyn Driver) {
    for device in devices(driver) {
        let Some(short) = device.short_ops() else { continue };
        for prf in device.desc().caps.prf.iter().copied() {
            let info = prf.info().expect("declared PRFs are in the table");
            for key in [&[][..], &[1; 16], &[1; 200]] {
                let whole = short.prf(prf, key, &[b"some octets"]).expect("a declared PRF works");
                let parts = short.prf(prf, key, &[b"some", b"", b" octets"]).expect("a declared PRF works");
                assert_eq!(whole.len(), info.out_len, "{prf}: length");
                assert!(whole.ct_eq(parts.expose()), "{prf}: parts are not their concatenation");
            }
        }
        for hash in [Hash::Sha1, Hash::Sha256, Hash::Sha384, Hash::Sha512] {
            if let Ok(digest) = short.hash(hash, &[b"octets"]) {
                assert_eq!(digest.len(), hash.len(), "{hash:?}: length");
            }
        }
        for encr in Encr::ALL.iter().copied() {
            let info = encr.info().expect("in the table");
            for integ in Integ::ALL.iter().copied() {
                let fits = match info.kind {
                    EncrKind::Aead => integ == Integ::NONE,
                    EncrKind::Cbc | EncrKind::Ctr => integ != Integ::NONE,
                    EncrKind::Gmac | EncrKind::Null => false,
                };
                let suite = SkSuite { encr, integ };
                let encr_key = Secret::new(vec![5; info.key_len + info.salt_len]);
                let integ_key = Secret::new(vec![6; integ.info().map_or(0, |info| info.key_len)]);
                let at = 32;
                let plain = at + suite.iv_len() + 48;
                let mut message = vec![7; plain];
                let sealed = short.sk_seal(suite, &encr_key, &integ_key, &mut message, at);
                match sealed {
                    Ok(()) => assert!(fits, "{suite:?} must not protect an IKE SA"),
                    Err(fault) => {
                        assert_eq!(fault.kind, FaultKind::Unsupported, "{suite:?}");
                        continue;
                    }
                }
                assert_eq!(message.len(), plain + suite.icv_len(), "{suite:?}: length");
                let mut bent = message.clone();
                bent[3] ^= 1;
                let got = short.sk_open(suite, &encr_key, &integ_key, &mut bent, at);
                assert_eq!(got, Err(ShortError::Rejected(Reject::BadIcv)), "{suite:?}: a changed header");
                let got = short.sk_open(suite, &encr_key, &integ_key, &mut message, at);
                assert_eq!(got, Ok(at + suite.iv_len()..plain), "{suite:?}");
                assert!(
                    message[at + suite.iv_len()..plain].iter().all(|octet| *octet == 7),
                    "{suite:?}: text"
                );
                let got = short.sk_open(suite, &encr_key, &integ_key, &mut message[..at], at);
                assert_eq!(got, Err(ShortError::Rejected(Reject::BadLength)), "{suite:?}: cut");
            }
        }
    }
}
