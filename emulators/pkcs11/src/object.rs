//! Objects: attributes by number, each as the octets that go over the interface; and a private part that never does.

use std::collections::BTreeMap;
use std::path::Path;

use cryptoki_sys::*;
use serde::{Deserialize, Serialize};

/// Attributes by type.
pub type Attributes = BTreeMap<CK_ATTRIBUTE_TYPE, Vec<u8>>;

/// One object.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Object {
    /// What may be read.
    pub attributes: Attributes,
    /// PKCS #8 of a private key, or the octets of a secret.
    pub private: Option<Vec<u8>>,
}

impl Object {
    /// Whether an attribute is there and true.
    pub fn is(&self, attribute: CK_ATTRIBUTE_TYPE) -> bool {
        self.attributes.get(&attribute).is_some_and(|value| value == &[CK_TRUE])
    }

    /// An attribute that is a number.
    pub fn number(&self, attribute: CK_ATTRIBUTE_TYPE) -> Option<CK_ULONG> {
        number(self.attributes.get(&attribute)?)
    }

    /// Whether it has all of these.
    pub fn matches(&self, template: &Attributes) -> bool {
        template.iter().all(|(attribute, value)| self.attributes.get(attribute) == Some(value))
    }

    /// One attribute, as it may be read.
    ///
    /// # Errors
    /// `CKR_ATTRIBUTE_SENSITIVE` or `CKR_ATTRIBUTE_TYPE_INVALID`.
    pub fn read(&self, attribute: CK_ATTRIBUTE_TYPE) -> Result<&[u8], CK_RV> {
        if let Some(value) = self.attributes.get(&attribute) {
            return Ok(value);
        }
        let hidden = [CKA_VALUE, CKA_PRIVATE_EXPONENT, CKA_PRIME_1, CKA_PRIME_2, CKA_EXPONENT_1];
        match &self.private {
            Some(private) if self.number(CKA_CLASS) == Some(CKO_SECRET_KEY) && attribute == CKA_VALUE => {
                if self.is(CKA_EXTRACTABLE) && !self.is(CKA_SENSITIVE) {
                    return Ok(private);
                }
                Err(CKR_ATTRIBUTE_SENSITIVE)
            }
            Some(_) if hidden.contains(&attribute) => Err(CKR_ATTRIBUTE_SENSITIVE),
            _ => Err(CKR_ATTRIBUTE_TYPE_INVALID),
        }
    }
}

/// A number as it goes over the interface.
pub fn octets(number: CK_ULONG) -> Vec<u8> {
    number.to_ne_bytes().to_vec()
}

/// And back.
pub fn number(octets: &[u8]) -> Option<CK_ULONG> {
    octets.try_into().ok().map(CK_ULONG::from_ne_bytes)
}

/// What is stored, by handle.
pub fn load(folder: &Path) -> BTreeMap<CK_OBJECT_HANDLE, Object> {
    let files = std::fs::read_dir(folder.join("objects")).into_iter().flatten().flatten();
    let read = files.filter_map(|file| {
        let handle = file.path().file_stem()?.to_str()?.parse().ok()?;
        let object = serde_json::from_slice(&std::fs::read(file.path()).ok()?).ok()?;
        Some((handle, object))
    });
    read.collect()
}

/// Stores one.
///
/// # Errors
/// `CKR_DEVICE_MEMORY` when it cannot.
pub fn save(folder: &Path, handle: CK_OBJECT_HANDLE, object: &Object) -> Result<(), CK_RV> {
    let objects = folder.join("objects");
    let text = serde_json::to_vec(object).map_err(|_| CKR_DEVICE_MEMORY)?;
    std::fs::create_dir_all(&objects)
        .and_then(|()| std::fs::write(objects.join(format!("{handle}.json")), text))
        .map_err(|_| CKR_DEVICE_MEMORY)
}

/// Forgets one.
pub fn remove(folder: &Path, handle: CK_OBJECT_HANDLE) {
    let _ = std::fs::remove_file(folder.join("objects").join(format!("{handle}.json")));
}
