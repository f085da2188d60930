//! AUTH: by the shared secret, or by signatures of RFC 7427 with one key pair that all peers share.

use std::path::PathBuf;

use anyhow::{Context, Result, anyhow, bail, ensure};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_SHA256, RSA_PSS_2048_8192_SHA256, RsaKeyPair, UnparsedPublicKey, VerificationAlgorithm,
};
use clap::Args;
use ike::keymat::IkeKeys;
use ipc::Role;
use spi::{Secret, ShortOps};
use wire::ike::{Auth, Cert, Id, Notify, Payload};
use wire::numbers::{AuthMethod, CertEncoding, HashId, IdType};
use x509_cert::Certificate;
use x509_cert::der::{DecodePem, Encode};

use super::suite::SUITE;

/// What RFC 7296 section 2.15 keys the outer PRF with.
const KEY_PAD: &[u8] = b"Key Pad for IKEv2";

/// AlgorithmIdentifiers, DER (RFC 7427 appendix A): sha256WithRSAEncryption, ecdsa-with-SHA256.
const RSA_SHA256: [u8; 15] =
    [0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b, 0x05, 0x00];
const ECDSA_SHA256: [u8; 12] = [0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];

/// The object identifier of an AlgorithmIdentifier that has parameters behind it. The hash in them is the only one that we
/// announce.
const RSASSA_PSS: [u8; 11] = [0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0a];

/// How peers prove who they are, and how the gateway does.
#[derive(Args)]
#[group(id = "proof")]
pub struct Options {
    /// The secret that all peers share with the gateway.
    #[arg(long, required_unless_present_any = ["key", "eap"])]
    secret: Option<String>,
    /// The password of all peers, each a user of its own by EAP-MSCHAPv2. The gateway has a certificate.
    #[arg(long, requires = "gateway_cert")]
    eap: Option<String>,
    /// The one certificate of all peers, PEM.
    #[arg(long, requires = "key")]
    cert: Option<PathBuf>,
    /// Its private key, PEM (PKCS#8).
    #[arg(long, requires_all = ["cert", "gateway_cert", "id"])]
    key: Option<PathBuf>,
    /// The gateway's certificate, PEM.
    #[arg(long)]
    gateway_cert: Option<PathBuf>,
    /// The one identity of all peers; without it, peer n is `p<n>@load.lab.test`.
    #[arg(long)]
    id: Option<String>,
}

/// Who proves, and what it is about.
pub struct Octets<'a> {
    /// The IKE_SA_INIT message of the side that proves itself.
    pub message: &'a [u8],
    /// The nonce of the other side.
    pub nonce: &'a [u8],
    /// Keys of the IKE SA.
    pub keys: &'a IkeKeys,
    /// Which side proves itself.
    pub whose: Role,
    /// Its identity.
    pub id: &'a Id,
}

/// What proofs are made with.
pub struct Prover {
    id: Option<String>,
    how: How,
}

enum How {
    Psk(Secret),
    Signature { key: SigningKey, cert: Vec<u8>, gateway: Vec<u8> },
    Eap { password: String, gateway: Vec<u8> },
}

enum SigningKey {
    Rsa(RsaKeyPair),
    Ecdsa(EcdsaKeyPair),
}

impl Prover {
    /// Reads what the options name.
    ///
    /// # Errors
    /// A file that is not what it should be.
    pub fn new(ops: &dyn ShortOps, options: &Options) -> Result<Prover> {
        let spki = |path| {
            Ok::<_, anyhow::Error>(certificate(path)?.tbs_certificate().subject_public_key_info().to_der()?)
        };
        if let (Some(password), Some(gateway)) = (&options.eap, &options.gateway_cert) {
            let how = How::Eap { password: password.clone(), gateway: spki(gateway)? };
            return Ok(Prover { id: None, how });
        }
        let how = match (&options.secret, &options.key, &options.cert, &options.gateway_cert) {
            (_, Some(key), Some(cert), Some(gateway)) => {
                let spki = spki(gateway)?;
                let key = SigningKey::read(key)?;
                How::Signature { key, cert: certificate(cert)?.to_der()?, gateway: spki }
            }
            (Some(secret), ..) => return Prover::with_secret(ops, secret),
            _ => bail!("neither a secret nor a key"),
        };
        Ok(Prover { id: options.id.clone(), how })
    }

    /// By a shared secret, each peer with an identity of its own.
    ///
    /// # Errors
    /// The provider cannot.
    pub fn with_secret(ops: &dyn ShortOps, secret: &str) -> Result<Prover> {
        let key = ops.prf(SUITE.prf, secret.as_bytes(), &[KEY_PAD]).map_err(|fault| anyhow!("{fault}"))?;
        Ok(Prover { id: None, how: How::Psk(key) })
    }

    /// The password, where peers prove themselves by EAP.
    pub fn password(&self) -> Option<&str> {
        match &self.how {
            How::Eap { password, .. } => Some(password),
            _ => None,
        }
    }

    /// What a peer calls itself.
    pub fn id(&self, peer: u32) -> Id {
        let name = self.id.clone().unwrap_or_else(|| format!("p{peer}@load.lab.test"));
        let kind = if name.contains('@') { IdType::RFC822_ADDR } else { IdType::FQDN };
        Id::new(kind, name.into_bytes())
    }

    /// What IKE_SA_INIT has to say about proofs.
    pub fn announcement(&self) -> Option<Payload> {
        match self.how {
            How::Psk(_) => None,
            How::Signature { .. } | How::Eap { .. } => {
                Some(Notify::hash_algorithms(&[HashId::SHA2_256]).into())
            }
        }
    }

    /// The certificate, where there is one.
    pub fn cert(&self) -> Option<Payload> {
        match &self.how {
            How::Psk(_) | How::Eap { .. } => None,
            How::Signature { cert, .. } => {
                Some(Cert { encoding: CertEncoding::X509_SIGNATURE, data: cert.clone() }.into())
            }
        }
    }

    /// The proof of a peer.
    pub fn prove(&self, ops: &dyn ShortOps, octets: &Octets<'_>) -> Result<Payload> {
        let signed = octets.build(ops)?;
        Ok(match &self.how {
            How::Psk(key) => Auth::new(AuthMethod::SHARED_KEY_MIC, mic(ops, key, &signed)?.expose().to_vec()),
            How::Signature { key, .. } => {
                let (algorithm, signature) = key.sign(&signed)?;
                Auth::digital_signature(algorithm, &signature).context("a long algorithm identifier")?
            }
            How::Eap { .. } => bail!("EAP has proofs of its own"),
        }
        .into())
    }

    /// Checks the gateway's proof.
    ///
    /// # Errors
    /// It is wrong, or made another way than the peers'.
    pub fn check(&self, ops: &dyn ShortOps, octets: &Octets<'_>, auth: &Auth) -> Result<()> {
        let signed = octets.build(ops)?;
        match &self.how {
            How::Psk(key) => {
                ensure!(auth.method == AuthMethod::SHARED_KEY_MIC, "the gateway's proof is {}", auth.method);
                ensure!(mic(ops, key, &signed)?.ct_eq(&auth.data), "the gateway's proof is wrong");
            }
            How::Signature { gateway, .. } | How::Eap { gateway, .. } => {
                let (algorithm, signature) = auth.signature().context("the gateway does not sign")?;
                let algorithm: &dyn VerificationAlgorithm = if algorithm == RSA_SHA256 {
                    &RSA_PKCS1_2048_8192_SHA256
                } else if algorithm.get(2..).is_some_and(|oid| oid.starts_with(&RSASSA_PSS)) {
                    &RSA_PSS_2048_8192_SHA256
                } else if algorithm == ECDSA_SHA256 {
                    &ECDSA_P256_SHA256_ASN1
                } else {
                    bail!("the gateway signs in an unknown way");
                };
                let result = UnparsedPublicKey::new(algorithm, gateway).verify(&signed, signature);
                result.map_err(|_| anyhow!("the gateway's signature is wrong"))?;
            }
        }
        Ok(())
    }
}

impl Octets<'_> {
    /// RFC 7296 section 2.15.
    fn build(&self, ops: &dyn ShortOps) -> Result<Vec<u8>> {
        let maced = self.keys.maced_id(ops, SUITE.prf, self.whose, &self.id.body());
        Ok([self.message, self.nonce, &maced.map_err(|fault| anyhow!("{fault}"))?].concat())
    }
}

/// The proof by a key that EAP gave.
pub fn mic_with(ops: &dyn ShortOps, key: &Secret, octets: &Octets<'_>) -> Result<Auth> {
    let key = ops.prf(SUITE.prf, key.expose(), &[KEY_PAD]).map_err(|fault| anyhow!("{fault}"))?;
    let mic = mic(ops, &key, &octets.build(ops)?)?;
    Ok(Auth::new(AuthMethod::SHARED_KEY_MIC, mic.expose().to_vec()))
}

fn mic(ops: &dyn ShortOps, key: &Secret, signed: &[u8]) -> Result<Secret> {
    ops.prf(SUITE.prf, key.expose(), &[signed]).map_err(|fault| anyhow!("{fault}"))
}

impl SigningKey {
    fn read(path: &PathBuf) -> Result<SigningKey> {
        let pem = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let (_, der) = x509_cert::der::pem::decode_vec(&pem).map_err(|error| anyhow!("{error}"))?;
        if let Ok(key) = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &der) {
            return Ok(SigningKey::Ecdsa(key));
        }
        let key = RsaKeyPair::from_pkcs8(&der);
        let key = key.map_err(|_| anyhow!("{} is no RSA or P-256 key (PKCS#8)", path.display()))?;
        Ok(SigningKey::Rsa(key))
    }

    fn sign(&self, signed: &[u8]) -> Result<(&'static [u8], Vec<u8>)> {
        let random = SystemRandom::new();
        match self {
            SigningKey::Rsa(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, signed, &mut signature)
                    .map_err(|_| anyhow!("RSA does not sign"))?;
                Ok((&RSA_SHA256, signature))
            }
            SigningKey::Ecdsa(key) => {
                let signature = key.sign(&random, signed).map_err(|_| anyhow!("ECDSA does not sign"))?;
                Ok((&ECDSA_SHA256, signature.as_ref().to_vec()))
            }
        }
    }
}

fn certificate(path: &PathBuf) -> Result<Certificate> {
    let pem = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Certificate::from_pem(&pem).with_context(|| format!("{} is no certificate", path.display()))
}
