//! The one suite that all peers speak: aes128gcm16-prfsha256-x25519 for IKE, aes128gcm16 for ESP.

use anyhow::{Context, Result, anyhow, ensure};
use aws_lc_rs::agreement::{self, PrivateKey, UnparsedPublicKey, X25519};
use ike::keymat::{IkeKeys, IkeSuite, skeyseed};
use spi::{Encr, Group, Integ, Prf, Secret, ShortOps};
use wire::ike::{Ke, Payload, Proposal, Sa, Spi, Transform};
use wire::numbers::{EncrId, EsnId, KeId, PrfId, ProtocolId, TransformType};

/// For IKE.
pub const SUITE: IkeSuite =
    IkeSuite { encr: Encr::AES128_GCM16, integ: Integ::NONE, prf: Prf::HMAC_SHA2_256, group: Group::X25519 };

/// What is offered, or chosen, for IKE.
pub fn ike_sa(number: u8) -> Payload {
    let transforms = vec![
        Transform::with_key_bits(TransformType::ENCR, EncrId::AES_GCM_16, 128),
        Transform::new(TransformType::PRF, PrfId::HMAC_SHA2_256),
        Transform::new(TransformType::KE, KeId(Group::X25519.0)),
    ];
    Sa::new(vec![Proposal::new(number, ProtocolId::IKE, Vec::new(), transforms)]).into()
}

/// What is offered, or chosen, for ESP.
pub fn esp_sa(number: u8, spi: u32) -> Payload {
    let transforms = vec![
        Transform::with_key_bits(TransformType::ENCR, EncrId::AES_GCM_16, 128),
        Transform::new(TransformType::SN, EsnId(0)),
    ];
    Sa::new(vec![Proposal::new(number, ProtocolId::ESP, spi.to_be_bytes().into(), transforms)]).into()
}

/// The number of the first proposal that has all transforms of ours.
///
/// # Errors
/// None has: the gateway is configured for something else.
pub fn choose(offer: &Sa, ours: &Payload) -> Result<u8> {
    let wire::ike::Body::Sa(ours) = &ours.body else { return Err(anyhow!("no SA")) };
    let wanted = &ours.proposals.first().context("no proposal")?.transforms;
    let has = |proposal: &&Proposal| {
        wanted.iter().all(|want| {
            proposal
                .transforms
                .iter()
                .any(|t| (t.kind, t.id, t.key_bits()) == (want.kind, want.id, want.key_bits()))
        })
    };
    let fits =
        offer.proposals.iter().find(has).context("the gateway offers another suite than the peers'")?;
    Ok(fits.number)
}

/// One key pair for all peers: RFC 7296 section 2.12 lets one be used again, and the load is cheaper for it.
pub struct KeyPair {
    private: PrivateKey,
    public: Vec<u8>,
}

impl KeyPair {
    /// A fresh one.
    pub fn generate() -> Result<KeyPair> {
        let private = PrivateKey::generate(&X25519).map_err(|_| anyhow!("no X25519 key"))?;
        let public = private.compute_public_key().map_err(|_| anyhow!("no X25519 public key"))?;
        let public = public.as_ref().to_vec();
        Ok(KeyPair { private, public })
    }

    /// The KE payload.
    pub fn ke(&self) -> Payload {
        Ke::new(KeId(Group::X25519.0), self.public.clone()).into()
    }

    /// The keys of an IKE SA.
    ///
    /// # Errors
    /// A public value that is none.
    pub fn keys(
        &self,
        ops: &dyn ShortOps,
        theirs: &Ke,
        nonces: [&[u8]; 2],
        spis: [Spi; 2],
    ) -> Result<IkeKeys> {
        ensure!(theirs.method.0 == Group::X25519.0, "a key exchange by {}", theirs.method);
        let peer = UnparsedPublicKey::new(&X25519, &theirs.data);
        let secret = agreement::agree(&self.private, peer, anyhow!("an unusable public value"), |secret| {
            Ok(Secret::from_slice(secret))
        })?;
        let [ni, nr] = nonces;
        let seed = skeyseed(ops, SUITE.prf, ni, nr, &secret).map_err(|fault| anyhow!("{fault}"))?;
        IkeKeys::derive(ops, &SUITE, &seed, ni, nr, spis[0], spis[1]).map_err(|fault| anyhow!("{fault}"))
    }
}
