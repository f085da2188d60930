//! Certificate and certificate request payloads (RFC 7296 sections 3.6 and 3.7).

use crate::ike::error::ParseError;
use crate::ike::reader::Reader;
use crate::numbers::CertEncoding;
use alloc::vec::Vec;

/// A certificate, a revocation list, a raw key, or the hash and URL of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cert {
    /// What the data is.
    pub encoding: CertEncoding,
    /// The data.
    pub data: Vec<u8>,
}

/// What certificates the sender would accept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertReq {
    /// The encoding asked for.
    pub encoding: CertEncoding,
    /// For X.509: concatenated 20-octet SHA-1 hashes of trusted CAs' SubjectPublicKeyInfo.
    pub authorities: Vec<u8>,
}

impl Cert {
    /// Hash and URL of an X.509 certificate or bundle: the SHA-1 hash and the URL's octets. `None` for other
    /// encodings and when there is no URL.
    pub fn hash_and_url(&self) -> Option<(&[u8; 20], &[u8])> {
        match self.encoding {
            CertEncoding::HASH_AND_URL_X509 | CertEncoding::HASH_AND_URL_BUNDLE => {
                self.data.split_first_chunk::<20>().filter(|(_, url)| !url.is_empty())
            }
            _ => None,
        }
    }

    pub(crate) fn parse(r: &mut Reader<'_>) -> Result<Self, ParseError> {
        Ok(Cert { encoding: CertEncoding(r.u8()?), data: r.rest().into() })
    }

    pub(crate) fn emit_into(&self, out: &mut Vec<u8>) {
        out.push(self.encoding.0);
        out.extend_from_slice(&self.data);
    }
}

impl CertReq {
    /// The CA key hashes; a rest shorter than 20 octets is left out.
    pub fn key_hashes(&self) -> impl Iterator<Item = &[u8; 20]> {
        self.authorities.as_chunks::<20>().0.iter()
    }

    pub(crate) fn parse(r: &mut Reader<'_>) -> Result<Self, ParseError> {
        Ok(CertReq { encoding: CertEncoding(r.u8()?), authorities: r.rest().into() })
    }

    pub(crate) fn emit_into(&self, out: &mut Vec<u8>) {
        out.push(self.encoding.0);
        out.extend_from_slice(&self.authorities);
    }
}
