//! The words proposals are made of, and what to say about the others.

use spi::alg::GroupKind;
use spi::{Encr, Group, Integ, Prf};

use crate::proposal::ProposalError;

/// One word of a proposal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    Encr(Encr),
    Integ(Integ),
    Prf(Prf),
    Group(Group),
    Esn(bool),
}

const WEAK_GROUP: &str = "a group of this size can be broken (RFC 8247 section 2.4); use x25519 or modp3072";
const SMALL_SUBGROUP: &str = "its parameters are not trusted (RFC 8247 section 2.4); use x25519 or modp3072";
const WEAK_CIPHER: &str = "64-bit blocks or short keys can be broken (RFC 8247, RFC 8221); use aes128gcm16";
const WEAK_HASH: &str = "MD5 is broken (RFC 8247, RFC 8221); use sha256";
const KEM: &str = "key encapsulation cannot be negotiated yet; use x25519";

/// Algorithms operators may find in old configurations, and why they are not offered.
const REFUSED: [(&str, &str); 26] = [
    ("3des", WEAK_CIPHER),
    ("des", WEAK_CIPHER),
    ("des40", WEAK_CIPHER),
    ("blowfish", WEAK_CIPHER),
    ("blowfish128", WEAK_CIPHER),
    ("blowfish192", WEAK_CIPHER),
    ("blowfish256", WEAK_CIPHER),
    ("cast128", WEAK_CIPHER),
    ("idea", WEAK_CIPHER),
    ("rc5", WEAK_CIPHER),
    ("md5", WEAK_HASH),
    ("md5_128", WEAK_HASH),
    ("prfmd5", WEAK_HASH),
    ("sha256_96", "a truncation of a draft, never standardised; use sha256"),
    ("sha1_160", "only Fibre Channel uses it; use sha256"),
    ("modp768", WEAK_GROUP),
    ("modp1024", WEAK_GROUP),
    ("modp1536", WEAK_GROUP),
    ("modp1024s160", SMALL_SUBGROUP),
    ("modp2048s224", SMALL_SUBGROUP),
    ("modp2048s256", SMALL_SUBGROUP),
    ("ecp192", WEAK_GROUP),
    ("ecp224", WEAK_GROUP),
    ("none", "nothing without integrity or key exchange can be configured; leave the word out"),
    ("modpnone", "leave the word out for no perfect forward secrecy"),
    ("prfnone", "there is no IKE SA without a PRF"),
];

/// Spellings of other gateways, and ours.
const ALIASES: [(&str, &str); 24] = [
    ("aes", "aes128"),
    ("aes128cbc", "aes128"),
    ("aes256cbc", "aes256"),
    ("aes128gcm", "aes128gcm16"),
    ("aes192gcm", "aes192gcm16"),
    ("aes256gcm", "aes256gcm16"),
    ("aes128gcm128", "aes128gcm16"),
    ("aes192gcm128", "aes192gcm16"),
    ("aes256gcm128", "aes256gcm16"),
    ("aes_gcm", "aes128gcm16"),
    ("aes128ccm", "aes128ccm16"),
    ("aes256ccm", "aes256ccm16"),
    ("chacha20", "chacha20poly1305"),
    ("sha", "sha1"),
    ("sha2", "sha256"),
    ("sha2_256", "sha256"),
    ("sha2_384", "sha384"),
    ("sha2_512", "sha512"),
    ("hmac_sha2_256", "sha256"),
    ("curve25519", "x25519"),
    ("dh19", "ecp256"),
    ("dh31", "x25519"),
    ("secp256r1", "ecp256"),
    ("secp384r1", "ecp384"),
];

fn known() -> impl Iterator<Item = (&'static str, Token)> {
    let encr = Encr::ALL.iter().filter_map(|e| Some((e.info()?.name, Token::Encr(*e))));
    let integ = Integ::ALL.iter().filter(|i| **i != Integ::NONE);
    let integ = integ.filter_map(|i| Some((i.info()?.name, Token::Integ(*i))));
    let prf = Prf::ALL.iter().filter_map(|p| Some((p.info()?.name, Token::Prf(*p))));
    let groups = Group::ALL.iter().filter(|g| **g != Group::NONE);
    let groups = groups.filter_map(|g| Some((g.info()?.name, Token::Group(*g))));
    let esn = [("esn", Token::Esn(true)), ("noesn", Token::Esn(false))];
    encr.chain(integ).chain(prf).chain(groups).chain(esn)
}

/// The token a word stands for.
pub(crate) fn parse(proposal: &str, word: &str) -> Result<Token, ProposalError> {
    let word = word.trim().to_ascii_lowercase();
    let refused = |reason| ProposalError::Refused { proposal: proposal.into(), token: word.clone(), reason };
    if let Some((_, reason)) = REFUSED.iter().find(|(name, _)| *name == word) {
        return Err(refused(reason));
    }
    match known().find(|(name, _)| *name == word) {
        Some((_, Token::Group(g))) if g.info().is_some_and(|i| i.kind == GroupKind::Kem) => Err(refused(KEM)),
        Some((_, token)) => Ok(token),
        None => {
            Err(ProposalError::Unknown { proposal: proposal.into(), nearest: nearest(&word), token: word })
        }
    }
}

fn nearest(word: &str) -> Option<&'static str> {
    if let Some((_, ours)) = ALIASES.iter().find(|(theirs, _)| *theirs == word) {
        return Some(ours);
    }
    // Two slips at most, and never more than half the word: `foo` is no misspelt `esn`.
    let limit = 2.min(word.len() / 2);
    known()
        .map(|(name, _)| (distance(word, name), name))
        .filter(|(d, _)| *d <= limit)
        .min_by_key(|(d, _)| *d)
        .map(|(_, n)| n)
}

/// Edits (insert, delete, replace an octet) between two words, as Levenshtein counts them. Words longer than any token
/// by far are not compared.
fn distance(a: &str, b: &str) -> usize {
    if a.len() > 40 {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, y) in row.iter_mut().skip(1).zip(b.bytes()) {
            let above = *cell;
            let best = (diagonal + usize::from(x != y)).min(above + 1).min(left + 1);
            (diagonal, left, *cell) = (above, best, best);
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_words_get_the_nearest_known_one() {
        for (word, ours) in [
            ("aes128gcm", Some("aes128gcm16")),
            ("aes129", Some("aes128")),
            ("sha265", Some("sha256")),
            ("x25518", Some("x25519")),
            ("curve25519", Some("x25519")),
            ("chacha20poly130", Some("chacha20poly1305")),
            ("foobar", None),
            ("", None),
            (&"x".repeat(1000), None),
        ] {
            match parse("p", word) {
                Err(ProposalError::Unknown { nearest, token, .. }) => {
                    assert_eq!((nearest, token.as_str()), (ours, word))
                }
                other => panic!("{word}: {other:?}"),
            }
        }
    }

    #[test]
    fn weak_algorithms_are_refused_by_name_and_reason() {
        for (word, why) in [
            ("modp1024", "RFC 8247"),
            ("3des", "RFC 8221"),
            ("md5", "MD5"),
            ("none", "integrity"),
            ("mlkem768", "yet"),
        ] {
            let error = parse("p", word).unwrap_err();
            assert!(
                matches!(error, ProposalError::Refused { .. }) && error.to_string().contains(why),
                "{error}"
            );
        }
    }

    #[test]
    fn aliases_and_refusals_agree_with_the_table() {
        assert!(
            ALIASES
                .iter()
                .all(|(theirs, ours)| known().any(|(n, _)| n == *ours) && parse("", theirs).is_err())
        );
        assert!(REFUSED.iter().all(|(name, _)| known().all(|(n, _)| n != *name)));
    }

    #[test]
    fn distance_counts_edits() {
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("abc", "abc"), 0);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("abc", ""), 3);
    }
}
