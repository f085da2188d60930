//! The little DER that keys and signatures need: written in full, read one element at a time.

/// SEQUENCE.
pub(crate) const SEQUENCE: u8 = 0x30;
/// INTEGER.
pub(crate) const INTEGER: u8 = 2;
/// BIT STRING.
pub(crate) const BIT_STRING: u8 = 3;
/// OCTET STRING.
pub(crate) const OCTET_STRING: u8 = 4;

/// One element.
pub(crate) fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let len = content.len();
    let mut out = vec![tag];
    match len {
        0..=0x7f => out.push(len as u8),
        _ => {
            let octets = len.to_be_bytes();
            let skip = octets.iter().take_while(|octet| **octet == 0).count();
            out.push(0x80 | (octets.len() - skip) as u8);
            out.extend(octets.iter().skip(skip));
        }
    }
    out.extend_from_slice(content);
    out
}

/// An unsigned number, big-endian, of any length.
pub(crate) fn unsigned(number: &[u8]) -> Vec<u8> {
    let start = number.iter().position(|octet| *octet != 0).unwrap_or(number.len());
    let digits = number.get(start..).unwrap_or_default();
    match digits.first() {
        None => element(INTEGER, &[0]),
        Some(first) if first & 0x80 != 0 => element(INTEGER, &[&[0], digits].concat()),
        Some(_) => element(INTEGER, digits),
    }
}

/// A SubjectPublicKeyInfo: the whole AlgorithmIdentifier, and the key.
pub(crate) fn spki(algorithm: &[u8], key: &[u8]) -> Vec<u8> {
    let bits = element(BIT_STRING, &[&[0], key].concat());
    element(SEQUENCE, &[algorithm, &bits].concat())
}

/// The content of the one element that the octets are.
pub(crate) fn only(tag: u8, octets: &[u8]) -> Option<&[u8]> {
    match octets {
        [t, len @ ..=0x7f, content @ ..] if *t == tag => {
            (content.len() == usize::from(*len)).then_some(content)
        }
        [t, long, rest @ ..] if *t == tag => {
            let (len, content) = rest.split_at_checked(usize::from(long & 0x7f))?;
            if len.is_empty() || len.len() > 3 {
                return None;
            }
            let len = len.iter().fold(0, |len, octet| len << 8 | usize::from(*octet));
            (content.len() == len).then_some(content)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for len in [0, 1, 127, 128, 255, 256, 70_000] {
            let content = vec![7; len];
            let written = element(OCTET_STRING, &content);
            assert_eq!(only(OCTET_STRING, &written), Some(&content[..]), "{len}");
            assert_eq!(only(SEQUENCE, &written), None);
            assert_eq!(only(OCTET_STRING, &written[..written.len() - 1]), None);
        }
        for bad in [&[][..], &[4], &[4, 0x80], &[4, 0x84, 0, 0, 0, 0], &[4, 0x81]] {
            assert_eq!(only(OCTET_STRING, bad), None, "{bad:?}");
        }
    }

    #[test]
    fn numbers_are_as_short_as_can_be_and_never_negative() {
        assert_eq!(unsigned(&[0, 0, 1]), [2, 1, 1]);
        assert_eq!(unsigned(&[0, 0x80]), [2, 2, 0, 0x80]);
        assert_eq!(unsigned(&[0, 0]), [2, 1, 0]);
    }
}
