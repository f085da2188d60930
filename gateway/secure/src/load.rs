//! Certificates and keys from files: PEM (RFC 7468) or DER, with errors that name the file and say what is in it.

use base64ct::{Base64, Encoding};
use spi::{KeySource, Secret};
use thiserror::Error;
use x509_cert::der::asn1::{AnyRef, BitString, ObjectIdentifier};
use x509_cert::der::{Decode, Encode};
use x509_cert::spki::{AlgorithmIdentifier, SubjectPublicKeyInfoRef};
use zeroize::Zeroizing;

use crate::config::{Certificate, RawKey};

/// Longest file that is read, octets. A certificate has 1-4 KiB.
pub const MAX_FILE: usize = 1 << 20;
/// Longest file of CRLs that is read, octets.
pub const MAX_CRL_FILE: usize = 12 << 20;
/// Certificates in one file.
pub const MAX_CERTS: usize = 256;

/// Why a file is no certificate or key.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{file}: {what}")]
pub struct LoadError {
    /// The file.
    pub file: String,
    /// What is wrong with it. Never shows what is in it.
    pub what: String,
}

/// Every certificate of a file: one in DER, or any number in PEM. Private keys and anything else in it are passed over.
///
/// # Errors
/// [`LoadError`] when there is none, or one that does not parse.
pub fn certificates(file: &str, bytes: &[u8]) -> Result<Vec<Certificate>, LoadError> {
    let fail = |what: String| LoadError { file: file.into(), what };
    let ders: Vec<Vec<u8>> = if is_der(bytes) {
        vec![bytes.to_vec()]
    } else {
        let blocks = pem_blocks(file, bytes)?;
        let wanted = ["CERTIFICATE", "X509 CERTIFICATE", "TRUSTED CERTIFICATE"];
        let certs: Vec<_> = blocks.iter().filter(|b| wanted.contains(&b.label.as_str())).collect();
        if certs.is_empty() {
            return Err(fail(format!("no certificate in it{}", found(&blocks))));
        }
        certs.into_iter().map(|b| b.der.to_vec()).collect()
    };
    if ders.len() > MAX_CERTS {
        return Err(fail(format!("more than {MAX_CERTS} certificates")));
    }
    let many = ders.len() > 1;
    let certs = ders.into_iter().enumerate().map(|(i, der)| {
        let name = if many { format!("{file} (certificate {})", i + 1) } else { file.to_owned() };
        match crate::cert::Cert::parse(&der) {
            Ok(_) => Ok(Certificate { name, der }),
            Err(e) => Err(LoadError { file: name, what: e.to_string() }),
        }
    });
    certs.collect()
}

/// Every list of revoked certificates of a file: one in DER, or any number in PEM. What is in them is looked at where they are used.
///
/// # Errors
/// [`LoadError`] when there is none.
pub fn crls(file: &str, bytes: &[u8]) -> Result<Vec<Vec<u8>>, LoadError> {
    if is_der(bytes) {
        return Ok(vec![bytes.to_vec()]);
    }
    let blocks = pem_blocks(file, bytes)?;
    let lists: Vec<Vec<u8>> =
        blocks.iter().filter(|b| b.label == "X509 CRL").map(|b| b.der.to_vec()).collect();
    if lists.is_empty() {
        return Err(LoadError { file: file.into(), what: format!("no CRL in it{}", found(&blocks)) });
    }
    Ok(lists)
}

/// Whether a URL is one that could be fetched.
///
/// # Errors
/// What is wrong with it.
pub fn url(text: &str) -> Result<(), String> {
    crate::fetch::Url::parse(text).map(drop)
}

/// The private key of a file: PKCS #8, PKCS #1 or SEC 1, in PEM or DER, not encrypted. Whether a device understands it shows
/// when it is opened.
///
/// # Errors
/// [`LoadError`] when there is none, more than one, or an encrypted one.
pub fn private_key(file: &str, bytes: &Secret) -> Result<KeySource, LoadError> {
    let fail = |what: String| LoadError { file: file.into(), what };
    let bytes = bytes.expose();
    if is_der(bytes) {
        return Ok(KeySource::Der(Secret::from_slice(bytes)));
    }
    let blocks = pem_blocks(file, bytes)?;
    if blocks.iter().any(|b| b.label == "ENCRYPTED PRIVATE KEY" || b.encrypted) {
        return Err(fail("the private key is encrypted; decrypt it with `openssl pkey -in … -out …`".into()));
    }
    if blocks.iter().any(|b| b.label == "OPENSSH PRIVATE KEY") {
        return Err(fail("an OpenSSH key; convert it with `ssh-keygen -p -m PKCS8 -f …`".into()));
    }
    let wanted = ["PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY"];
    let mut keys = blocks.iter().filter(|b| wanted.contains(&b.label.as_str()));
    match (keys.next(), keys.next()) {
        (Some(key), None) => Ok(KeySource::Der(Secret::from_slice(&key.der))),
        (Some(_), Some(_)) => Err(fail("more than one private key in it".into())),
        (None, _) => Err(fail(format!("no private key in it{}", found(&blocks)))),
    }
}

/// The public key of a file: a SubjectPublicKeyInfo or a PKCS #1 RSA key, in PEM or (the former) DER, or that of a
/// certificate.
///
/// # Errors
/// [`LoadError`] when there is none, or one that does not parse.
pub fn public_key(file: &str, bytes: &[u8]) -> Result<RawKey, LoadError> {
    let fail = |what: String| LoadError { file: file.into(), what };
    let spki = if is_der(bytes) {
        bytes.to_vec()
    } else {
        let blocks = pem_blocks(file, bytes)?;
        let of = |label: &str| blocks.iter().find(|b| b.label == label).map(|b| b.der.to_vec());
        match (of("PUBLIC KEY"), of("RSA PUBLIC KEY"), of("CERTIFICATE")) {
            (Some(spki), _, _) => spki,
            (None, Some(rsa), _) => wrap_rsa(&rsa).ok_or_else(|| fail("not an RSA public key".into()))?,
            (None, None, Some(cert)) => {
                crate::cert::Cert::parse(&cert).map_err(|e| fail(e.to_string()))?.spki
            }
            (None, None, None) => return Err(fail(format!("no public key in it{}", found(&blocks)))),
        }
    };
    SubjectPublicKeyInfoRef::from_der(&spki).map_err(|_| fail("not a public key".into()))?;
    Ok(RawKey { name: file.into(), spki })
}

/// SubjectPublicKeyInfo around an RSAPublicKey (RFC 8017 appendix A.1).
fn wrap_rsa(rsa: &[u8]) -> Option<Vec<u8>> {
    const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
    let algorithm = AlgorithmIdentifier { oid: RSA, parameters: Some(AnyRef::NULL) };
    let key = BitString::from_bytes(rsa).ok()?;
    x509_cert::spki::SubjectPublicKeyInfo { algorithm, subject_public_key: key }.to_der().ok()
}

fn is_der(bytes: &[u8]) -> bool {
    // A SEQUENCE with a length of more than one octet, which no text begins with: `0` and a control or high octet.
    matches!(bytes, [0x30, len, ..] if *len >= 0x80 || (*len < 0x20 && *len != b'\n' && *len != b'\r'))
        || matches!(bytes, [0x30, len, rest @ ..] if rest.len() == usize::from(*len))
}

struct Block {
    label: String,
    der: Zeroizing<Vec<u8>>,
    encrypted: bool,
}

fn found(blocks: &[Block]) -> String {
    let mut labels: Vec<&str> = blocks.iter().map(|b| b.label.as_str()).collect();
    labels.dedup();
    if labels.is_empty() { String::new() } else { format!(", only {}", labels.join(", ")) }
}

/// The blocks between `-----BEGIN X-----` and `-----END X-----`; text around them is passed over (RFC 7468 section 2).
fn pem_blocks(file: &str, bytes: &[u8]) -> Result<Vec<Block>, LoadError> {
    let fail = |what: String| LoadError { file: file.into(), what };
    if bytes.len() > MAX_CRL_FILE {
        return Err(fail(format!("longer than {MAX_CRL_FILE} octets")));
    }
    let not_pem = || fail("neither PEM nor DER".into());
    let text = std::str::from_utf8(bytes).map_err(|_| not_pem())?;
    let mut blocks = Vec::new();
    let mut open: Option<(&str, Zeroizing<String>, bool)> = None;
    for line in text.lines().map(str::trim) {
        if let Some(label) = line.strip_prefix("-----BEGIN ").and_then(|l| l.strip_suffix("-----")) {
            if open.is_some() {
                return Err(fail("a PEM block without its end".into()));
            }
            // Room for all there can be, so that growing leaves no copy of a key behind.
            open = Some((label, Zeroizing::new(String::with_capacity(bytes.len())), false));
        } else if let Some(end) = line.strip_prefix("-----END ").and_then(|l| l.strip_suffix("-----")) {
            let Some((label, body, encrypted)) = open.take().filter(|(label, ..)| *label == end) else {
                return Err(fail(format!("a PEM block ends with `{}` that did not begin", clean(end))));
            };
            let der = if encrypted {
                Vec::new()
            } else {
                Base64::decode_vec(&body).map_err(|_| fail(format!("the {} is not base64", clean(label))))?
            };
            blocks.push(Block { label: clean(label), der: Zeroizing::new(der), encrypted });
        } else if let Some((_, body, encrypted)) = &mut open {
            // Headers of RFC 1421; the one that matters says that the key is encrypted.
            if line.contains(':') {
                *encrypted |= line.starts_with("Proc-Type:") && line.contains("ENCRYPTED");
                *encrypted |= line.starts_with("DEK-Info:");
            } else {
                body.push_str(line);
            }
        }
    }
    if open.is_some() {
        return Err(fail("a PEM block without its end".into()));
    }
    if blocks.is_empty() { Err(not_pem()) } else { Ok(blocks) }
}

/// A label fit for a message.
fn clean(label: &str) -> String {
    label.chars().filter(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || *c == ' ').take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Secret {
        Secret::from_slice(text.as_bytes())
    }

    fn key_error(text: &str) -> String {
        private_key("moon.key", &secret(text)).err().unwrap().to_string()
    }

    #[test]
    fn several_certificates_with_text_around_them_are_all_found() {
        let one = rcgen::generate_simple_self_signed(["a.test".into()]).unwrap().cert;
        let two = rcgen::generate_simple_self_signed(["b.test".into()]).unwrap().cert;
        let text = format!("subject=a\n{}\nsome text: yes\n{}", one.pem(), two.pem());
        let certs = certificates("ca.crt", text.as_bytes()).unwrap();
        assert_eq!(certs.len(), 2);
        assert_eq!(certs[1], Certificate { name: "ca.crt (certificate 2)".into(), der: two.der().to_vec() });
        assert_eq!(certificates("ca.der", one.der()).unwrap()[0].der, one.der().to_vec());
    }

    #[test]
    fn keys_of_every_wrapping_are_taken_and_parameters_passed_over() {
        let body = Base64::encode_string(b"0\x03abc");
        for label in ["PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY"] {
            let text = format!(
                "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n\
                 -----BEGIN {label}-----\r\n{body}\r\n-----END {label}-----\r\n"
            );
            let KeySource::Der(der) = private_key("k", &secret(&text)).unwrap() else { panic!() };
            assert!(der.ct_eq(b"0\x03abc"));
        }
    }

    #[test]
    fn errors_name_the_file_and_what_is_in_it() {
        assert_eq!(key_error("hello"), "moon.key: neither PEM nor DER");
        let cert = rcgen::generate_simple_self_signed(["a.test".into()]).unwrap();
        assert_eq!(key_error(&cert.cert.pem()), "moon.key: no private key in it, only CERTIFICATE");
        let two = cert.signing_key.serialize_pem() + &cert.signing_key.serialize_pem();
        assert!(key_error(&two).contains("more than one"));
        let encrypted = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA\n\
                         -----END RSA PRIVATE KEY-----\n";
        assert!(key_error(encrypted).contains("openssl pkey"));
        assert!(key_error("-----BEGIN PRIVATE KEY-----\nAAAA\n").contains("without its end"));
        assert!(key_error("-----BEGIN A-----\nAAAA\n-----END B-----\n").contains("did not begin"));
        let bad = key_error("-----BEGIN PRIVATE KEY-----\nTOPSECRET!!\n-----END PRIVATE KEY-----\n");
        assert!(bad.contains("not base64") && !bad.contains("TOPSECRET"), "{bad}");
        let bad = certificates("x.crt", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
        assert!(bad.unwrap_err().to_string().starts_with("x.crt: "));
    }

    #[test]
    fn public_keys_come_alone_or_from_a_certificate() {
        let cert = rcgen::generate_simple_self_signed(["a.test".into()]).unwrap();
        use rcgen::PublicKeyData;
        let spki = cert.signing_key.subject_public_key_info();
        let alone = cert.signing_key.public_key_pem();
        assert_eq!(public_key("p", alone.as_bytes()).unwrap().spki, spki);
        assert_eq!(public_key("p", &spki).unwrap().spki, spki);
        assert_eq!(public_key("p", cert.cert.pem().as_bytes()).unwrap().spki, spki);
        assert!(public_key("p", b"0\x03abc").is_err());
        assert!(wrap_rsa(&[0x30, 6, 2, 1, 5, 2, 1, 3]).is_some());
    }
}
