//! Key exchange: MODP, NIST curves, X25519, X448.
//!
//! Everything the peer sends is judged here (RFC 6989, RFC 7748 section 6), and whatever the provider thinks of it, too. Keys are made
//! from their values and taken apart again by name, so that any provider's key management will do. Secrets come out at full
//! length, leading zeroes and all (RFC 7296 section 2.14), whether the provider keeps them or not.

use std::ffi::CStr;

use spi::alg::GroupKind;
use spi::{FaultKind, Group, Outcome, Reject, Secret};

use crate::sys::context::Context;
use crate::sys::params::Value;
use crate::sys::pkey::{Half, Key};

const UNSUPPORTED: Outcome = Outcome::Failed(spi::Fault::new(FaultKind::Unsupported));
const INTERNAL: Outcome = Outcome::Failed(spi::Fault::new(FaultKind::Internal));
const BAD: Outcome = Outcome::Rejected(Reject::BadPublicInput);

/// OpenSSL's names of a group: of the kind of its keys, and of itself where keys of that kind have groups.
#[derive(Clone, Copy)]
pub(crate) struct Names {
    kind: &'static CStr,
    group: Option<&'static CStr>,
}

/// The names; `None`: not one of those that are offered here.
pub(crate) fn names(group: Group) -> Option<Names> {
    let of = |kind, group| Some(Names { kind, group: Some(group) });
    match group {
        Group::MODP2048 => of(c"DH", c"modp_2048"),
        Group::MODP3072 => of(c"DH", c"modp_3072"),
        Group::MODP4096 => of(c"DH", c"modp_4096"),
        Group::MODP6144 => of(c"DH", c"modp_6144"),
        Group::MODP8192 => of(c"DH", c"modp_8192"),
        Group::ECP256 => of(c"EC", c"P-256"),
        Group::ECP384 => of(c"EC", c"P-384"),
        Group::ECP521 => of(c"EC", c"P-521"),
        Group::X25519 => Some(Names { kind: c"X25519", group: None }),
        Group::X448 => Some(Names { kind: c"X448", group: None }),
        _ => None,
    }
}

/// Whether the context does this group: a key is made, and asked whether it would agree with another.
pub(crate) fn works(context: &Context, group: Group) -> bool {
    let (Some(names), Some(info)) = (names(group), group.info()) else { return false };
    let key = match info.kind {
        // Its own keys take too long to be made for nothing.
        GroupKind::Modp => private(context, names, info.kind, &[0x5a; 32]),
        _ => Key::generate(context, names.kind, names.group),
    };
    key.is_some_and(|key| key.can_derive(context))
}

/// A fresh key pair: private half and KE data.
pub(crate) fn generate(context: &Context, group: Group) -> Result<(Secret, Vec<u8>), Outcome> {
    let (names, info) = names(group).zip(group.info()).ok_or(UNSUPPORTED)?;
    let key = Key::generate(context, names.kind, names.group).ok_or(INTERNAL)?;
    let private = match info.kind {
        GroupKind::Modp => key.number(c"priv", None),
        GroupKind::Ecp => key.number(c"priv", Some(info.secret_len)),
        _ => key.octets(c"priv"),
    };
    let public = match info.kind {
        GroupKind::Modp => key.number(c"pub", Some(info.public_len)),
        _ => key.octets(c"encoded-pub-key"),
    };
    let public = public.ok_or(INTERNAL)?;
    let public = match info.kind {
        // RFC 5903 section 7: the coordinates alone, without the octet that says "uncompressed".
        GroupKind::Ecp => public.expose().strip_prefix(&[4]).ok_or(INTERNAL)?,
        _ => public.expose(),
    };
    match public.len() == info.public_len {
        true => Ok((private.ok_or(INTERNAL)?, public.to_vec())),
        false => Err(INTERNAL),
    }
}

/// The shared secret of our half and the peer's KE data.
pub(crate) fn derive(
    context: &Context,
    group: Group,
    ours: &Secret,
    theirs: &[u8],
) -> Result<Secret, Outcome> {
    let (names, info) = names(group).zip(group.info()).ok_or(UNSUPPORTED)?;
    if theirs.len() != info.public_len {
        return Err(BAD);
    }
    let ours = private(context, names, info.kind, ours.expose()).ok_or(INTERNAL)?;
    if info.kind == GroupKind::Modp {
        // RFC 6989 section 2.1.
        let prime = ours.number(c"p", Some(info.public_len)).ok_or(INTERNAL)?;
        if !is_in_range(theirs, prime.expose()) {
            return Err(BAD);
        }
    }
    let theirs = public(context, names, info.kind, theirs).ok_or(BAD)?;
    if info.kind == GroupKind::Ecp && !theirs.is_sound(context) {
        return Err(BAD);
    }
    let secret = ours.derive(context, &theirs, info.kind == GroupKind::Modp);
    let secret = match (secret, info.kind) {
        (Some(secret), _) => secret,
        // OpenSSL refuses a result of all zeroes (RFC 7748 section 6).
        (None, GroupKind::Montgomery) => return Err(BAD),
        (None, _) => return Err(INTERNAL),
    };
    let secret = at_full_length(secret, info.secret_len).ok_or(INTERNAL)?;
    if info.kind == GroupKind::Montgomery && secret.ct_eq(&vec![0; info.secret_len]) {
        return Err(BAD);
    }
    Ok(secret)
}

fn private(context: &Context, names: Names, kind: GroupKind, value: &[u8]) -> Option<Key> {
    let value = match kind {
        GroupKind::Montgomery => Value::Octets(value),
        _ => Value::Number(value),
    };
    from(context, names, Half::Private, (c"priv", value))
}

fn public(context: &Context, names: Names, kind: GroupKind, value: &[u8]) -> Option<Key> {
    match kind {
        GroupKind::Modp => from(context, names, Half::Public, (c"pub", Value::Number(value))),
        GroupKind::Ecp => {
            let point = [&[4], value].concat();
            from(context, names, Half::Public, (c"pub", Value::Octets(&point)))
        }
        _ => from(context, names, Half::Public, (c"pub", Value::Octets(value))),
    }
}

fn from(context: &Context, names: Names, half: Half, value: (&'static CStr, Value<'_>)) -> Option<Key> {
    match names.group {
        Some(group) => Key::from_values(context, names.kind, half, &[(c"group", Value::Text(group)), value]),
        None => Key::from_values(context, names.kind, half, &[value]),
    }
}

/// Whether a number is more than one and less than a prime less one; both have the same length, and the prime is odd.
fn is_in_range(number: &[u8], prime: &[u8]) -> bool {
    let Some((last, high)) = number.split_last() else { return false };
    let (Some((end, rest)), more_than_one) = (prime.split_last(), *last > 1 || high.iter().any(|o| *o != 0))
    else {
        return false;
    };
    more_than_one && (high, *last) < (rest, end - 1)
}

/// With the zeroes in front that a provider may have left out.
fn at_full_length(secret: Secret, len: usize) -> Option<Secret> {
    if secret.len() == len {
        return Some(secret);
    }
    let missing = len.checked_sub(secret.len())?;
    let mut whole = vec![0; len];
    whole.get_mut(missing..)?.copy_from_slice(secret.expose());
    Some(Secret::new(whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_numbers_lie_between_one_and_the_prime_less_one() {
        let prime = [0xff, 0x17];
        for (good, number) in
            [(false, [0, 0]), (false, [0, 1]), (true, [0, 2]), (true, [0xff, 0x15]), (true, [1, 0])]
        {
            assert_eq!(is_in_range(&number, &prime), good, "{number:?}");
        }
        for number in [[0xff, 0x16], [0xff, 0x17], [0xff, 0xff]] {
            assert!(!is_in_range(&number, &prime), "{number:?}");
        }
    }

    #[test]
    fn what_is_too_short_gets_its_zeroes_back() {
        let secret = |octets: &[u8]| Secret::from_slice(octets);
        assert!(at_full_length(secret(&[7, 8]), 4).unwrap().ct_eq(&[0, 0, 7, 8]));
        assert!(at_full_length(secret(&[1, 2, 3]), 2).is_none());
    }
}
