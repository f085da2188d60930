//! Certificates, lists and answers of a small CA, in each of the forms they come in.

use crate::certificates::{BETWEEN, KINDS, MOON, ROOT};

const LIST: &[u8] = include_bytes!("../../testdata/certificates/list.der");
const LIST_IN_PEM: &[u8] = include_bytes!("../../testdata/certificates/list.pem");
const FILE: &[u8] = include_bytes!("../../testdata/certificates/file.pem");
const EMPTY_LIST: &[u8] = include_bytes!("../../testdata/certificates/empty-list.der");
const GOOD: &[u8] = include_bytes!("../../testdata/certificates/good.der");
const REVOKED: &[u8] = include_bytes!("../../testdata/certificates/revoked.der");
const CONSTRAINED: &[u8] = include_bytes!("../../testdata/certificates/constrained.der");

pub(super) fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let of = |kind: &str, octets: &[u8]| {
        let number = KINDS.iter().position(|known| *known == kind).unwrap_or_default();
        [&[number as u8], octets].concat()
    };
    vec![
        ("end_entity", of("certificate", MOON)),
        ("ca", of("certificate", ROOT)),
        ("constrained", of("certificate", CONSTRAINED)),
        ("chain", of("chain", &chain(&[MOON, BETWEEN]))),
        ("chain_with_root", of("chain", &chain(&[MOON, ROOT, BETWEEN]))),
        ("chain_constrained", of("chain", &chain(&[MOON, CONSTRAINED]))),
        ("list", of("list", LIST)),
        ("empty_list", of("list", EMPTY_LIST)),
        ("list_in_pem", of("list", LIST_IN_PEM)),
        ("good", of("answer", GOOD)),
        ("revoked", of("answer", REVOKED)),
        ("try_later", of("answer", &[0x30, 3, 0x0a, 1, 3])),
        ("directory", of("directory", &directory(EMPTY_LIST))),
        ("no_such_entry", of("directory", &[bound(), tagged(0x30, &done(32))].concat())),
        ("bundle", of("bundle", &tagged(0x30, &[tagged(0xa0, MOON), tagged(0xa1, EMPTY_LIST)].concat()))),
        ("file", of("file", FILE)),
    ]
}

fn chain(certs: &[&[u8]]) -> Vec<u8> {
    certs.iter().flat_map(|der| [&(der.len() as u16).to_be_bytes()[..], der].concat()).collect()
}

/// An LDAP server's part: the bind is fine, here is the entry, and that was all.
fn directory(value: &[u8]) -> Vec<u8> {
    let values = tagged(0x31, &tagged(4, value));
    let attribute = tagged(0x30, &[tagged(4, b"certificateRevocationList;binary"), values].concat());
    let entry = tagged(0x64, &[tagged(4, b"cn=CA,o=Lab"), tagged(0x30, &attribute)].concat());
    [bound(), tagged(0x30, &[tagged(2, &[2]), entry].concat()), tagged(0x30, &done(0))].concat()
}

fn bound() -> Vec<u8> {
    tagged(0x30, &[tagged(2, &[1]), tagged(0x61, &result(0))].concat())
}

fn done(code: u8) -> Vec<u8> {
    [tagged(2, &[2]), tagged(0x65, &result(code))].concat()
}

fn result(code: u8) -> Vec<u8> {
    [tagged(0x0a, &[code]), tagged(4, b""), tagged(4, b"")].concat()
}

fn tagged(tag: u8, value: &[u8]) -> Vec<u8> {
    let len = value.len();
    let mut out = match len {
        0..0x80 => vec![tag, len as u8],
        0x80..0x100 => vec![tag, 0x81, len as u8],
        _ => vec![tag, 0x82, (len >> 8) as u8, len as u8],
    };
    out.extend_from_slice(value);
    out
}
