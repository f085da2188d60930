//! How secrets are handed to the key side's process. `spi::Secret` cannot be serialised, so that none gets into anything by
//! accident; the fields of [`crate::config`] that hold one say so: `#[serde(with = "crate::handed::secret")]`.

use std::fmt;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use spi::{KeySource, Secret};

/// For a [`Secret`].
pub(crate) mod secret {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(secret: &Secret, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(secret.expose())
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Secret, D::Error> {
        from.deserialize_bytes(Octets).map(|octets| Secret::from_slice(octets))
    }
}

/// For a [`KeySource`].
pub(crate) mod key {
    use super::*;

    #[derive(Serialize, Deserialize)]
    enum Handed {
        Der(#[serde(with = "super::secret")] Secret),
        Uri(String),
    }

    pub(crate) fn serialize<S: Serializer>(key: &KeySource, to: S) -> Result<S::Ok, S::Error> {
        match key {
            KeySource::Der(der) => Handed::Der(der.duplicate()).serialize(to),
            KeySource::Uri(uri) => Handed::Uri(uri.clone()).serialize(to),
            _ => Err(serde::ser::Error::custom("a kind of key that cannot be handed over")),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<KeySource, D::Error> {
        Ok(match Handed::deserialize(from)? {
            Handed::Der(der) => KeySource::Der(der),
            Handed::Uri(uri) => KeySource::Uri(uri),
        })
    }
}

/// Borrowed where they lie: no copy on the way is left behind.
struct Octets;

impl<'de> Visitor<'de> for Octets {
    type Value = &'de [u8];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the octets of a secret")
    }

    fn visit_borrowed_bytes<E: Error>(self, octets: &'de [u8]) -> Result<&'de [u8], E> {
        Ok(octets)
    }
}
