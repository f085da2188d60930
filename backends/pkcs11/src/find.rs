//! Objects by URI: the one that is meant, or what is there instead.

use cryptoki::mechanism::MechanismType;
use cryptoki::object::{Attribute, AttributeType, CertificateType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;
use x509_cert::Certificate;
use x509_cert::der::{Decode, Encode};

use crate::public::{Kind, Told};
use crate::trouble::{Failure, Trouble, What};
use crate::uri::{Class, Uri};

/// Objects of one class that are looked at; a token with more has another problem.
const MOST: usize = 1024;

/// A private key that signs.
pub(crate) struct Found {
    pub(crate) handle: ObjectHandle,
    pub(crate) kind: Kind,
    pub(crate) spki: Vec<u8>,
    /// What it may be used with, if the token restricts that.
    pub(crate) allowed: Option<Vec<MechanismType>>,
}

/// What an object is called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Name {
    pub(crate) label: String,
    pub(crate) id: Vec<u8>,
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let object = (!self.label.is_empty()).then(|| self.label.clone());
        let id = (!self.id.is_empty()).then(|| self.id.clone());
        let uri = Uri { object, id, ..Uri::default() }.to_string();
        f.write_str(uri.trim_start_matches("pkcs11:"))
    }
}

/// The attributes by which a URI finds objects of a class.
fn template(uri: &Uri, class: ObjectClass) -> Vec<Attribute> {
    let mut template = vec![Attribute::Class(class)];
    template.extend(uri.object.as_ref().map(|label| Attribute::Label(label.clone().into_bytes())));
    template.extend(uri.id.as_ref().map(|id| Attribute::Id(id.clone())));
    template
}

/// The handles of all objects that a template fits.
pub(crate) fn all(session: &Session, template: &[Attribute]) -> Result<Vec<ObjectHandle>, Failure> {
    let mut found = Vec::new();
    for handle in session.iter_objects(template)?.take(MOST) {
        found.push(handle?);
    }
    Ok(found)
}

/// What an object is called.
pub(crate) fn name(session: &Session, object: ObjectHandle) -> Result<Name, Failure> {
    let mut name = Name::default();
    for attribute in session.get_attributes(object, &[AttributeType::Label, AttributeType::Id])? {
        match attribute {
            Attribute::Label(label) => name.label = String::from_utf8_lossy(&label).into_owned(),
            Attribute::Id(id) => name.id = id,
            _ => {}
        }
    }
    Ok(name)
}

fn names(session: &Session, objects: &[ObjectHandle]) -> Result<String, Failure> {
    let names: Result<Vec<String>, Failure> =
        objects.iter().take(8).map(|object| name(session, *object).map(|name| format!("`{name}`"))).collect();
    Ok(names?.join(", "))
}

/// The one private key that the URI means.
pub(crate) fn private_key(session: &Session, uri: &Uri) -> Result<(ObjectHandle, Name), Failure> {
    if uri.class.is_some_and(|class| class != Class::Private) {
        let text = format!("{uri} is no private key; leave type away, or write type=private");
        return Err(Trouble::new(What::BadUri, text).into());
    }
    let found = all(session, &template(uri, ObjectClass::PRIVATE_KEY))?;
    match found[..] {
        [handle] => Ok((handle, name(session, handle)?)),
        [] => {
            let there = all(session, &[Attribute::Class(ObjectClass::PRIVATE_KEY)])?;
            let seen = match there.is_empty() {
                true => "the token has none at all; make one with `tussock pki token generate`".to_owned(),
                false => format!("there is {}", names(session, &there)?),
            };
            Err(Trouble::new(What::NoObject, format!("no private key fits {uri}; {seen}")).into())
        }
        _ => {
            let names = names(session, &found)?;
            let text =
                format!("{} private keys fit {uri}: {names}; say which by object= and id=", found.len());
            Err(Trouble::new(What::ManyObjects, text).into())
        }
    }
}

/// The private key that the URI means, with its public half, fit for signing.
pub(crate) fn signing_key(session: &Session, uri: &Uri) -> Result<Found, Failure> {
    let (handle, name) = private_key(session, uri)?;
    let unfit = |text: String| Failure::Trouble(Trouble::new(What::Unfit, text));
    let wanted = [
        AttributeType::KeyType,
        AttributeType::Sign,
        AttributeType::AlwaysAuthenticate,
        AttributeType::Modulus,
        AttributeType::PublicExponent,
        AttributeType::EcParams,
        AttributeType::EcPoint,
    ];
    let attributes = session.get_attributes(handle, &wanted)?;
    for attribute in &attributes {
        match attribute {
            Attribute::Sign(false) => {
                return Err(unfit(format!(
                    "the private key `{name}` may not sign (CKA_SIGN is false); use a key that is made for signing"
                )));
            }
            Attribute::AlwaysAuthenticate(true) => {
                return Err(unfit(format!(
                    "the private key `{name}` wants its PIN for every signature (CKA_ALWAYS_AUTHENTICATE), which no \
                     gateway can give; use another key"
                )));
            }
            _ => {}
        }
    }
    let mut told = Told::default();
    told.take(&attributes);
    let spki = match told.spki() {
        Some(spki) => spki,
        None => public_half(session, &name, &mut told)?,
    };
    let kind = told.kind().ok_or_else(|| {
        unfit(format!("the private key `{name}` is of a kind that is not understood; RSA, P-256, P-384, P-521 and Ed25519 are"))
    })?;
    // Asked for alone: not every module knows it, and some take offence.
    let allowed = session.get_attributes(handle, &[AttributeType::AllowedMechanisms]).ok();
    let allowed = allowed.into_iter().flatten().find_map(|attribute| match attribute {
        Attribute::AllowedMechanisms(list) if !list.is_empty() => Some(list),
        _ => None,
    });
    Ok(Found { handle, kind, spki, allowed })
}

/// The public half of a key that does not say it itself: from the public key beside it, or a certificate.
fn public_half(session: &Session, name: &Name, told: &mut Told) -> Result<Vec<u8>, Failure> {
    let beside = |class| -> Result<Vec<ObjectHandle>, Failure> {
        let mut template = vec![Attribute::Class(class)];
        // RFC 7512 leaves it open; every tool gives both halves the same CKA_ID.
        match name.id.is_empty() {
            false => template.push(Attribute::Id(name.id.clone())),
            true => template.push(Attribute::Label(name.label.clone().into_bytes())),
        }
        all(session, &template)
    };
    for public in beside(ObjectClass::PUBLIC_KEY)? {
        let wanted = [
            AttributeType::KeyType,
            AttributeType::Modulus,
            AttributeType::PublicExponent,
            AttributeType::EcParams,
            AttributeType::EcPoint,
        ];
        told.take(&session.get_attributes(public, &wanted)?);
        if let Some(spki) = told.spki() {
            return Ok(spki);
        }
    }
    for certificate in beside(ObjectClass::CERTIFICATE)? {
        if let Some(der) = value(session, certificate)?
            && let Ok(certificate) = Certificate::from_der(&der)
            && let Ok(spki) = certificate.tbs_certificate().subject_public_key_info().to_der()
        {
            return Ok(spki);
        }
    }
    let text = format!(
        "neither a public key nor a certificate on the token belongs to the private key `{name}` (by CKA_ID), so nobody knows \
         its public half; import one of them"
    );
    Err(Trouble::new(What::Unfit, text).into())
}

/// DER of the certificates that a URI means: those it fits, or, where it means a key, those with the key's CKA_ID.
pub(crate) fn certificates(session: &Session, uri: &Uri) -> Result<Vec<Vec<u8>>, Failure> {
    let class = Attribute::Class(ObjectClass::CERTIFICATE);
    if uri.class != Some(Class::Private) {
        let found = read(session, &all(session, &template(uri, ObjectClass::CERTIFICATE))?)?;
        match (found.len(), uri.class) {
            (1, _) => return Ok(found),
            (0, Some(Class::Cert)) => {
                let there = all(session, &[class])?;
                let seen = match there.is_empty() {
                    true => "the token has none; import it with `tussock pki token import`".to_owned(),
                    false => format!("there is {}", names(session, &there)?),
                };
                return Err(Trouble::new(What::NoObject, format!("no certificate fits {uri}; {seen}")).into());
            }
            (2.., Some(Class::Cert)) => {
                let text = format!("{} certificates fit {uri}; say which by object= and id=", found.len());
                return Err(Trouble::new(What::ManyObjects, text).into());
            }
            // Not certificates alone were meant: the key decides.
            _ => {}
        }
    }
    let key = Uri { class: Some(Class::Private), ..uri.clone() };
    let (_, name) = private_key(session, &key)?;
    if name.id.is_empty() {
        return Ok(Vec::new());
    }
    read(session, &all(session, &[class, Attribute::Id(name.id)])?)
}

fn read(session: &Session, objects: &[ObjectHandle]) -> Result<Vec<Vec<u8>>, Failure> {
    let mut certificates = Vec::new();
    for object in objects {
        let kind = session.get_attributes(*object, &[AttributeType::CertificateType])?;
        if !kind.contains(&Attribute::CertificateType(CertificateType::X_509)) {
            continue;
        }
        certificates.extend(value(session, *object)?.filter(|der| !der.is_empty()));
    }
    Ok(certificates)
}

/// CKA_VALUE, where it may be read.
pub(crate) fn value(session: &Session, object: ObjectHandle) -> Result<Option<Vec<u8>>, Failure> {
    let attributes = session.get_attributes(object, &[AttributeType::Value])?;
    Ok(attributes.into_iter().find_map(|attribute| match attribute {
        Attribute::Value(value) => Some(value),
        _ => None,
    }))
}
