//! What others send where certificates are concerned: peers, web servers, OCSP responders, directories, and whoever made a file. The
//! first octet says what the rest is to be.

use secure::fuzzing;

/// A CA, one below it, and somebody that this one issued a certificate for; made with OpenSSL.
pub(crate) const ROOT: &[u8] = include_bytes!("../testdata/certificates/root.der");
pub(crate) const BETWEEN: &[u8] = include_bytes!("../testdata/certificates/between.der");
pub(crate) const MOON: &[u8] = include_bytes!("../testdata/certificates/moon.der");

const URL: &str = "ldap://directory.lab.test/cn=CA,o=Lab?certificateRevocationList;binary";

/// What the first octet chooses from.
pub(crate) const KINDS: [&str; 7] = ["certificate", "chain", "list", "answer", "directory", "bundle", "file"];

/// Nothing panics, and what is taken is what it is said to be.
pub fn certificates(data: &[u8]) {
    certificates_taken(data);
}

/// The same; returns whether there was anything in it.
pub fn certificates_taken(data: &[u8]) -> bool {
    let Some((kind, octets)) = data.split_first() else { return false };
    match KINDS[usize::from(*kind) % KINDS.len()] {
        "certificate" => fuzzing::certificate(octets),
        "chain" => fuzzing::chain(octets, &[ROOT]),
        "list" => fuzzing::list(octets),
        "answer" => fuzzing::answer(octets, MOON, BETWEEN),
        "directory" => fuzzing::directory(octets, URL),
        "bundle" => fuzzing::bundles(octets),
        _ => fuzzing::file(octets),
    }
}
