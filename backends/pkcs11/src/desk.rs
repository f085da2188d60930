//! What an operator does at a token: look at what is there, make a key, have a request signed, put a certificate beside its key.

use std::path::Path;

use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType, CertificateType, KeyType, ObjectClass};
use cryptoki::session::Session;
use cryptoki::types::Ulong;
use spi::alg::Curve;
use spi::{Hash, SignScheme};
use x509_cert::Certificate;
use x509_cert::der::{Decode, Encode};

use crate::find;
use crate::module::Module;
use crate::pin::PinSource;
use crate::public::{CURVES, ED25519, Kind};
use crate::sign;
use crate::token::{Site, Token};
use crate::trouble::{Failure, Trouble, What};
use crate::uri::{Class, Uri};

/// A key to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeySpec {
    /// RSA with a modulus of so many bits.
    Rsa(u32),
    /// ECDSA.
    Ec(Curve),
    /// Ed25519.
    Ed25519,
}

/// A token, and what is on it.
#[derive(Clone, Debug)]
pub struct Listing {
    /// The URI of the token.
    pub uri: String,
    /// What it says of itself.
    pub text: String,
    /// What is on it: everything after a login, otherwise what anybody may see.
    pub objects: Vec<Listed>,
    /// Why nobody is logged in, where that was tried.
    pub login: Option<Trouble>,
}

/// An object.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Its URI.
    pub uri: String,
    /// What it is.
    pub text: String,
}

/// One module, one token of it, and a PIN.
pub struct Desk {
    token: Token,
}

impl Desk {
    /// Sits down at a token. `uri` says which; nothing else is looked at yet.
    pub fn new(module: &Path, uri: Uri, pin: PinSource) -> Desk {
        let site = Site { token: uri, pin, ..Site::new("", module) };
        Desk { token: Token::new(site) }
    }

    /// All tokens of the module that fit, and what is on them.
    ///
    /// # Errors
    /// The module, or no token.
    pub fn list(&self, log_in: bool) -> Result<Vec<Listing>, Trouble> {
        let module = Module::open(&self.token.site.module)?;
        let mut listings = Vec::new();
        for (slot, info) in module.tokens()? {
            if !self.token.site.token.fits(&crate::module::words(&info), slot.id()) {
                continue;
            }
            let uri = Uri {
                token: Some(info.label().trim_end().into()),
                serial: Some(info.serial_number().trim_end().into())
                    .filter(|serial: &String| !serial.is_empty()),
                ..Uri::default()
            };
            let text = format!(
                "{} {}, {} sessions at most{}",
                info.manufacturer_id().trim_end(),
                info.model().trim_end(),
                format!("{:?}", info.max_session_count()).to_lowercase(),
                if info.user_pin_locked() { ", PIN locked" } else { "" }
            );
            let this = Desk { token: Token::new(Site { token: uri.clone(), ..self.token.site.clone() }) };
            let (session, login) = match log_in {
                true => match this.token.session(false) {
                    Ok((_, session)) => (Some(session), None),
                    Err(trouble) => (None, Some(trouble)),
                },
                false => (None, None),
            };
            let session = match session {
                Some(session) => session,
                None => module.context.open_ro_session(slot).map_err(|error| self.token.said(&error))?,
            };
            let objects = objects(&session, &uri).map_err(|failure| self.trouble(failure))?;
            listings.push(Listing { uri: uri.to_string(), text, objects, login });
        }
        if listings.is_empty() {
            module.slot(&self.token.site.token)?;
        }
        Ok(listings)
    }

    /// Makes a key pair for signing, which never leaves the token. Returns the URI of its private half.
    ///
    /// # Errors
    /// The token, or there is one of this name already.
    pub fn generate(&self, spec: KeySpec, label: &str, id: Option<Vec<u8>>) -> Result<String, Trouble> {
        let (_, session) = self.token.session(true)?;
        let made = || -> Result<Vec<u8>, Failure> {
            let uri = Uri { object: Some(label.to_owned()), ..self.token.site.token.clone() };
            let same = [Attribute::Class(ObjectClass::PRIVATE_KEY), Attribute::Label(label.into())];
            if !find::all(&session, &same)?.is_empty() {
                let text = format!("there is a private key {uri} already; take another label");
                return Err(Trouble::new(What::ManyObjects, text).into());
            }
            let id = match id.clone() {
                Some(id) => id,
                None => session.generate_random_vec(8)?,
            };
            let (mechanism, kind, own) = match spec {
                KeySpec::Rsa(bits) => (
                    Mechanism::RsaPkcsKeyPairGen,
                    KeyType::RSA,
                    vec![
                        Attribute::ModulusBits(Ulong::new(u64::from(bits))),
                        Attribute::PublicExponent(vec![1, 0, 1]),
                    ],
                ),
                KeySpec::Ec(curve) => {
                    let der = CURVES.iter().find(|(_, of)| *of == curve).map_or(&[][..], |(der, _)| der);
                    (Mechanism::EccKeyPairGen, KeyType::EC, vec![Attribute::EcParams(der.to_vec())])
                }
                KeySpec::Ed25519 => (
                    Mechanism::EccEdwardsKeyPairGen,
                    KeyType::EC_EDWARDS,
                    vec![Attribute::EcParams(ED25519.to_vec())],
                ),
            };
            let both = [
                Attribute::Token(true),
                Attribute::KeyType(kind),
                Attribute::Label(label.into()),
                Attribute::Id(id.clone()),
            ];
            let mut public = both.to_vec();
            public.extend(own);
            public.extend([Attribute::Private(false), Attribute::Verify(true)]);
            let mut private = both.to_vec();
            private.extend([
                Attribute::Private(true),
                Attribute::Sensitive(true),
                Attribute::Extractable(false),
                Attribute::Sign(true),
            ]);
            session.generate_key_pair(&mechanism, &public, &private)?;
            Ok(id)
        };
        let id = made().map_err(|failure| self.trouble(failure))?;
        let uri = Uri {
            object: Some(label.to_owned()),
            id: Some(id),
            class: Some(Class::Private),
            ..self.token.site.token.clone()
        };
        Ok(uri.to_string())
    }

    /// A key that signs, for as long as somebody is at the desk.
    ///
    /// # Errors
    /// The token, or no such key.
    pub fn signer(&self, uri: &Uri) -> Result<Signer, Trouble> {
        self.token.hint(uri);
        let mechanisms = self.token.mechanisms()?;
        let (_, session) = self.token.session(false)?;
        let found = find::signing_key(&session, uri).map_err(|failure| self.trouble(failure))?;
        let scheme = match found.kind {
            Kind::Rsa(_) => SignScheme::RsaPkcs1(Hash::Sha256),
            Kind::Ec(curve @ Curve::P256) => SignScheme::EcdsaDer(curve, Hash::Sha256),
            Kind::Ec(curve @ Curve::P384) => SignScheme::EcdsaDer(curve, Hash::Sha384),
            Kind::Ec(curve @ Curve::P521) => SignScheme::EcdsaDer(curve, Hash::Sha512),
            Kind::Ed25519 => SignScheme::Ed25519,
            Kind::Ed448 => SignScheme::Ed448,
        };
        Ok(Signer { session, found, mechanisms, scheme })
    }

    /// Puts a certificate on the token, under the CKA_ID and the label of its private key. Returns its URI.
    ///
    /// # Errors
    /// The token; not a certificate; no private key of it on the token, or another's.
    pub fn import(&self, certificate: &[u8], key: &Uri) -> Result<String, Trouble> {
        let parsed = Certificate::from_der(certificate)
            .map_err(|error| Trouble::new(What::Unfit, format!("this is no certificate: {error}")))?;
        let tbs = parsed.tbs_certificate();
        let der = |result: Result<Vec<u8>, x509_cert::der::Error>| {
            result.map_err(|error| {
                Trouble::new(What::Unfit, format!("this certificate makes no sense: {error}"))
            })
        };
        let (subject, issuer) = (der(tbs.subject().to_der())?, der(tbs.issuer().to_der())?);
        let (serial, spki) =
            (der(tbs.serial_number().to_der())?, der(tbs.subject_public_key_info().to_der())?);
        self.token.hint(key);
        let (_, session) = self.token.session(true)?;
        let put = || -> Result<find::Name, Failure> {
            let found = find::signing_key(&session, key)?;
            if found.spki != spki {
                let text = format!("this certificate is not of the key {key}, but of another");
                return Err(Trouble::new(What::Unfit, text).into());
            }
            let name = find::name(&session, found.handle)?;
            // One that is there already in the same words is enough; an older one for the same key makes room.
            let same = [Attribute::Class(ObjectClass::CERTIFICATE), Attribute::Id(name.id.clone())];
            for old in find::all(&session, &same)? {
                if find::value(&session, old)?.as_deref() == Some(certificate) {
                    return Ok(name);
                }
                session.destroy_object(old)?;
            }
            session.create_object(&[
                Attribute::Class(ObjectClass::CERTIFICATE),
                Attribute::CertificateType(CertificateType::X_509),
                Attribute::Token(true),
                Attribute::Private(false),
                Attribute::Label(name.label.clone().into_bytes()),
                Attribute::Id(name.id.clone()),
                Attribute::Subject(subject.clone()),
                Attribute::Issuer(issuer.clone()),
                Attribute::SerialNumber(serial.clone()),
                Attribute::Value(certificate.to_vec()),
            ])?;
            Ok(name)
        };
        let name = put().map_err(|failure| self.trouble(failure))?;
        let uri = Uri {
            object: Some(name.label).filter(|label| !label.is_empty()),
            id: Some(name.id).filter(|id| !id.is_empty()),
            class: Some(Class::Cert),
            ..self.token.site.token.clone()
        };
        Ok(uri.to_string())
    }

    fn trouble(&self, failure: Failure) -> Trouble {
        trouble(&self.token, failure)
    }
}

fn trouble(token: &Token, failure: Failure) -> Trouble {
    match failure {
        Failure::Trouble(trouble) => trouble,
        Failure::Token(error) => token.said(&error),
        Failure::Reject(_) | Failure::Stale => {
            Trouble::new(What::Nonsense, "the token gave no answer that makes sense")
        }
    }
}

/// A key on a token that signs.
pub struct Signer {
    session: Session,
    found: find::Found,
    mechanisms: Vec<cryptoki::mechanism::MechanismType>,
    scheme: SignScheme,
}

impl Signer {
    /// DER of its SubjectPublicKeyInfo.
    pub fn spki(&self) -> &[u8] {
        &self.found.spki
    }

    /// The key inside that (subjectPublicKey).
    pub fn public_key(&self) -> Option<Vec<u8>> {
        let spki = x509_cert::spki::SubjectPublicKeyInfoRef::from_der(&self.found.spki).ok()?;
        spki.subject_public_key.as_bytes().map(<[u8]>::to_vec)
    }

    /// How it signs.
    pub fn scheme(&self) -> SignScheme {
        self.scheme
    }

    /// Signs.
    ///
    /// # Errors
    /// The token.
    pub fn sign(&self, octets: &[u8]) -> Result<Vec<u8>, Trouble> {
        let Signer { session, found, mechanisms, scheme } = self;
        sign::sign(session, found.handle, found.kind, mechanisms, *scheme, octets).map_err(|failure| {
            match failure {
                Failure::Trouble(trouble) => trouble,
                Failure::Token(error) => Trouble::new(What::Token, crate::trouble::name(&error)),
                Failure::Reject(_) | Failure::Stale => Trouble::new(What::Nonsense, "the token did not sign"),
            }
        })
    }
}

fn objects(session: &Session, token: &Uri) -> Result<Vec<Listed>, Failure> {
    let classes = [
        (ObjectClass::PRIVATE_KEY, Class::Private, "private key"),
        (ObjectClass::PUBLIC_KEY, Class::Public, "public key"),
        (ObjectClass::CERTIFICATE, Class::Cert, "certificate"),
    ];
    let mut listed = Vec::new();
    for (class, kind, text) in classes {
        for object in find::all(session, &[Attribute::Class(class)])? {
            let name = find::name(session, object)?;
            let told = match class {
                ObjectClass::CERTIFICATE => {
                    let der = find::value(session, object)?.unwrap_or_default();
                    match Certificate::from_der(&der) {
                        Ok(certificate) => certificate.tbs_certificate().subject().to_string(),
                        Err(_) => "not understood".to_owned(),
                    }
                }
                _ => {
                    let wanted = [AttributeType::KeyType, AttributeType::Modulus, AttributeType::EcParams];
                    let mut told = crate::public::Told::default();
                    told.take(&session.get_attributes(object, &wanted)?);
                    told.kind().map_or_else(|| "of another kind".to_owned(), |kind| kind.to_string())
                }
            };
            let uri = Uri {
                object: Some(name.label).filter(|label| !label.is_empty()),
                id: Some(name.id).filter(|id| !id.is_empty()),
                class: Some(kind),
                ..token.clone()
            };
            listed.push(Listed { uri: uri.to_string(), text: format!("{text}, {told}") });
        }
    }
    Ok(listed)
}
