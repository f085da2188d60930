//! Key exchange. The private half is made here, by the operating system's randomness, and goes to the card as an operand; so any
//! other device can finish what this one began.
//!
//! What the peer sends is judged here, before the card meets it (RFC 6989): out of range, off the curve or of the wrong length is
//! refused. Results come out at full length (RFC 7296 section 2.14).

use std::sync::OnceLock;

use openssl::bn::BigNum;
use openssl::rand::rand_priv_bytes;
use spi::alg::{Curve, GroupKind};
use spi::{CryptoOutput, DhPrivate, Group, Outcome, Secret};

use super::{BAD_INPUT, Call, INTERNAL, Octets, Reply, Step, UNSUPPORTED, Work};
use crate::curve::{self, is_in_range};
use crate::fw::pke::{self, Montgomery};

/// The first request for a fresh pair.
pub(super) fn generate(group: Group, fourth: bool) -> Result<(Box<dyn Work>, Call), Outcome> {
    let info = group.info().ok_or(UNSUPPORTED)?;
    let (private, call) = match info.kind {
        GroupKind::Modp => {
            let private = random(exponent_len(group))?;
            (private.clone(), modp(group, None, &private, fourth)?)
        }
        GroupKind::Ecp => {
            let curve = curve_of(group).ok_or(UNSUPPORTED)?;
            let scalar = scalar(curve)?;
            let call = multiply(curve, None, &scalar, fourth)?;
            (scalar, call)
        }
        GroupKind::Montgomery => {
            let private = random(info.public_len)?;
            let functions = montgomery(group).ok_or(UNSUPPORTED)?;
            let call = Call::new(functions.generate, 1).with(&reversed(&clamped(&private)));
            (private, call)
        }
        GroupKind::Kem => return Err(UNSUPPORTED),
    };
    Ok((Box::new(Exchange { group, private: Some(private), fourth }), call))
}

/// The first request for a shared secret.
pub(super) fn derive(
    group: Group,
    fourth: bool,
    ours: &Secret,
    theirs: &[u8],
) -> Result<(Box<dyn Work>, Call), Outcome> {
    let info = group.info().ok_or(UNSUPPORTED)?;
    if theirs.len() != info.public_len {
        return Err(BAD_INPUT);
    }
    let call = match info.kind {
        GroupKind::Modp => {
            let prime = prime(group).ok_or(INTERNAL)?;
            if ours.is_empty() || ours.len() > prime.len() {
                return Err(INTERNAL);
            }
            if !is_usable(theirs, prime) {
                return Err(BAD_INPUT);
            }
            modp(group, Some(theirs), ours.expose(), fourth)?
        }
        GroupKind::Ecp => {
            let curve = curve_of(group).ok_or(UNSUPPORTED)?;
            let n = &curve::info(curve).ok_or(INTERNAL)?.n;
            // What another device made may lack zeroes in front.
            let scalar = padded(ours.expose(), n.len()).ok_or(INTERNAL)?;
            if !is_in_range(&scalar, n) {
                return Err(INTERNAL);
            }
            let point = curve::point(curve, &[&[4], theirs].concat()).ok_or(BAD_INPUT)?;
            multiply(curve, Some(point), &scalar, fourth)?
        }
        GroupKind::Montgomery => {
            if ours.len() != info.public_len {
                return Err(INTERNAL);
            }
            let functions = montgomery(group).ok_or(UNSUPPORTED)?;
            let mut theirs = theirs.to_vec();
            if group == Group::X25519 {
                // RFC 7748 section 5: the highest bit of the coordinate does not count.
                theirs.iter_mut().last().into_iter().for_each(|octet| *octet &= 0x7f);
            }
            Call::new(functions.multiply, 1).with(&reversed(&theirs)).with(&reversed(&clamped(ours.expose())))
        }
        GroupKind::Kem => return Err(UNSUPPORTED),
    };
    Ok((Box::new(Exchange { group, private: None, fourth }), call))
}

/// A power or a multiple that the card works out: a public value, if `private` is there, or a secret.
struct Exchange {
    group: Group,
    private: Option<Octets>,
    fourth: bool,
}

impl Work for Exchange {
    fn go_on(&mut self, reply: Reply) -> Step {
        self.finish(&reply).unwrap_or_else(Step::Ended)
    }
}

impl Exchange {
    fn finish(&mut self, reply: &Reply) -> Result<Step, Outcome> {
        let info = self.group.info().ok_or(UNSUPPORTED)?;
        let result = match info.kind {
            GroupKind::Modp => self.power(reply, info.public_len),
            GroupKind::Ecp => self.multiple(reply),
            _ => self.montgomery(reply, info.public_len),
        };
        let Some(result) = result? else { return Ok(Step::Wrong) };
        Ok(Step::Done(match self.private.take() {
            Some(private) => {
                let private = DhPrivate::Bytes(Secret::from_slice(&private));
                CryptoOutput::DhPair(private, result.to_vec())
            }
            None => CryptoOutput::Secret(Secret::from_slice(result.get(..info.secret_len).ok_or(INTERNAL)?)),
        }))
    }

    /// `None`: it cannot be right.
    fn power(&self, reply: &Reply, len: usize) -> Result<Option<Octets>, Outcome> {
        let size = modp_size(self.group, self.private.is_some(), self.fourth).ok_or(INTERNAL)?;
        let [number] = reply.numbers(size)?;
        let (front, power) = number.split_at_checked(size - len).ok_or(INTERNAL)?;
        let prime = prime(self.group).ok_or(INTERNAL)?;
        let good = front.iter().all(|octet| *octet == 0) && is_in_range(power, prime);
        Ok(good.then(|| Octets::new(power.to_vec())))
    }

    fn multiple(&self, reply: &Reply) -> Result<Option<Octets>, Outcome> {
        let curve = curve_of(self.group).ok_or(UNSUPPORTED)?;
        let len = curve.coordinate_len();
        let size = multiply_size(curve, self.fourth);
        let [x, y] = reply.numbers(size)?;
        let mut point = Octets::new(Vec::with_capacity(2 * len + 1));
        point.push(4);
        for number in [x, y] {
            let (front, coordinate) = number.split_at_checked(size - len).ok_or(INTERNAL)?;
            if front.iter().any(|octet| *octet != 0) {
                return Ok(None);
            }
            point.extend_from_slice(coordinate);
        }
        // What goes to the peer, or into keys, is at least a point.
        if curve::point(curve, &point).is_none() {
            return Ok(None);
        }
        Ok(Some(Octets::new(point.get(1..).unwrap_or_default().to_vec())))
    }

    fn montgomery(&self, reply: &Reply, len: usize) -> Result<Option<Octets>, Outcome> {
        // RFC 7748 section 6: a result of zero is a point of small order. Whether the card says so or gives zero is not known.
        if reply.answer.is_refusal() {
            return Err(BAD_INPUT);
        }
        let size = montgomery(self.group).ok_or(INTERNAL)?.multiply.size;
        let [number] = reply.numbers(size)?;
        let (front, x) = number.split_at_checked(size - len).ok_or(INTERNAL)?;
        if front.iter().any(|octet| *octet != 0) {
            return Ok(None);
        }
        if x.iter().fold(0, |all, octet| all | octet) == 0 {
            return Err(BAD_INPUT);
        }
        Ok(Some(reversed(x)))
    }
}

/// Exponents are random and as long as RFC 3526 section 8 estimates for the strength of the group (the higher column), in octets:
/// longer ones cost time and add nothing in a group over a safe prime.
pub(crate) fn exponent_len(group: Group) -> usize {
    match group {
        Group::MODP2048 => 40,
        Group::MODP3072 => 53,
        Group::MODP4096 => 60,
        Group::MODP6144 => 68,
        _ => 78,
    }
}

/// Octets of the numbers of the function that a group's powers are worked out with.
fn modp_size(group: Group, of_two: bool, fourth: bool) -> Option<usize> {
    let len = group.info()?.public_len;
    let of_two = of_two.then(|| pke::power_of_two(len, fourth)).flatten();
    of_two.or_else(|| pke::power(len, fourth)).map(|function| function.size)
}

/// A power of two, or of `base`.
fn modp(group: Group, base: Option<&[u8]>, exponent: &[u8], fourth: bool) -> Result<Call, Outcome> {
    let len = group.info().ok_or(UNSUPPORTED)?.public_len;
    let prime = prime(group).ok_or(INTERNAL)?;
    if base.is_none()
        && let Some(function) = pke::power_of_two(len, fourth)
    {
        return Ok(Call::new(function, 1).with(exponent).with(prime));
    }
    let function = pke::power(len, fourth).ok_or(UNSUPPORTED)?;
    Ok(Call::new(function, 1).with(base.unwrap_or(&[2])).with(exponent).with(prime))
}

/// RFC 3526 sections 3 to 7.
pub(crate) fn prime(group: Group) -> Option<&'static [u8]> {
    static ALL: [OnceLock<Vec<u8>>; 5] = [const { OnceLock::new() }; 5];
    let (place, get): (usize, fn() -> _) = match group {
        Group::MODP2048 => (0, BigNum::get_rfc3526_prime_2048),
        Group::MODP3072 => (1, BigNum::get_rfc3526_prime_3072),
        Group::MODP4096 => (2, BigNum::get_rfc3526_prime_4096),
        Group::MODP6144 => (3, BigNum::get_rfc3526_prime_6144),
        Group::MODP8192 => (4, BigNum::get_rfc3526_prime_8192),
        _ => return None,
    };
    let prime = ALL.get(place)?.get_or_init(|| get().map(|prime| prime.to_vec()).unwrap_or_default());
    Some(prime.as_slice()).filter(|prime| !prime.is_empty())
}

/// Whether a peer's value may be used. RFC 6989 section 2.1: 1 < value < p - 1, all that a group over a safe prime needs. Values of
/// another length than the prime's may not.
pub(crate) fn is_usable(theirs: &[u8], prime: &[u8]) -> bool {
    let right_len = theirs.len() == prime.len();
    right_len && is_in_range(theirs, prime) && !is_one(theirs) && !is_one_below(theirs, prime)
}

fn is_one(number: &[u8]) -> bool {
    matches!(number.split_last(), Some((1, rest)) if rest.iter().all(|octet| *octet == 0))
}

/// Whether `number + 1 == limit`, which is odd.
fn is_one_below(number: &[u8], limit: &[u8]) -> bool {
    match (number.split_last(), limit.split_last()) {
        (Some((last, rest)), Some((limit_last, limit_rest))) => *last == limit_last - 1 && rest == limit_rest,
        _ => false,
    }
}

pub(super) fn curve_of(group: Group) -> Option<Curve> {
    Some(match group {
        Group::ECP256 => Curve::P256,
        Group::ECP384 => Curve::P384,
        Group::ECP521 => Curve::P521,
        _ => return None,
    })
}

fn multiply_size(curve: Curve, fourth: bool) -> usize {
    let functions = curve::functions(curve);
    functions.fixed.filter(|_| fourth).map_or(functions.multiply.size, |fixed| fixed.multiply.size)
}

/// A multiple of a point, or of the one that generates the others.
fn multiply(
    curve: Curve,
    point: Option<(Vec<u8>, Vec<u8>)>,
    scalar: &[u8],
    fourth: bool,
) -> Result<Call, Outcome> {
    let functions = curve::functions(curve);
    if let Some(fixed) = functions.fixed.filter(|_| fourth) {
        return Ok(match point {
            Some((x, y)) => Call::new(fixed.multiply, 2).with(&x).with(&y).with(scalar),
            None => Call::new(fixed.generate, 2).with(scalar),
        });
    }
    let info = curve::info(curve).ok_or(INTERNAL)?;
    let (x, y) = point.as_ref().unwrap_or(&info.g);
    let call = Call::new(functions.multiply, 2);
    Ok(call.with(scalar).with(x).with(y).with(&info.a).with(&info.b).with(&info.p).with(&[1]))
}

/// A random number from 1 to n - 1, each as likely as the others.
pub(super) fn scalar(curve: Curve) -> Result<Octets, Outcome> {
    let n = &curve::info(curve).ok_or(INTERNAL)?.n;
    // The first octet of n is 0xff, or 1 with P-521: with the bits above cut off, hardly any try fails.
    let mask = n
        .first()
        .map_or(0, |first| first.checked_next_power_of_two().map_or(0xff, |next| (next * 2 - 1) | first));
    for _ in 0..128 {
        let mut number = random(n.len())?;
        number.iter_mut().take(1).for_each(|octet| *octet &= mask);
        if is_in_range(&number, n) {
            return Ok(number);
        }
    }
    Err(INTERNAL)
}

fn montgomery(group: Group) -> Option<&'static Montgomery> {
    match group {
        Group::X25519 => Some(&pke::X25519),
        Group::X448 => Some(&pke::X448),
        _ => None,
    }
}

/// RFC 7748 section 5. The card does it too; doing it twice changes nothing.
fn clamped(scalar: &[u8]) -> Octets {
    let mut scalar = Octets::new(scalar.to_vec());
    let (low, clear, set) = if scalar.len() == 32 { (0xf8, 0x7f, 0x40) } else { (0xfc, 0xff, 0x80) };
    scalar.iter_mut().take(1).for_each(|octet| *octet &= low);
    scalar.iter_mut().last().into_iter().for_each(|octet| *octet = *octet & clear | set);
    scalar
}

/// Little-endian to big-endian, and back.
fn reversed(number: &[u8]) -> Octets {
    Octets::new(number.iter().rev().copied().collect())
}

fn padded(number: &[u8], len: usize) -> Option<Octets> {
    let start = len.checked_sub(number.len())?;
    let mut padded = Octets::new(vec![0; len]);
    padded.get_mut(start..)?.copy_from_slice(number);
    Some(padded)
}

pub(crate) fn random(len: usize) -> Result<Octets, Outcome> {
    let mut octets = Octets::new(vec![0; len]);
    rand_priv_bytes(&mut octets).map_err(|_| INTERNAL)?;
    Ok(octets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn primes_are_as_long_as_their_groups_and_end_in_ones() {
        for group in [Group::MODP2048, Group::MODP3072, Group::MODP4096, Group::MODP6144, Group::MODP8192] {
            let prime = prime(group).unwrap();
            assert_eq!(prime.len(), group.info().unwrap().public_len);
            assert!(prime.starts_with(&[0xff; 8]) && prime.ends_with(&[0xff; 8]));
        }
        assert!(prime(Group::X25519).is_none());
    }

    #[test]
    fn unusable_values_never_become_a_request() {
        let ours = Secret::new(vec![3; 40]);
        let prime = prime(Group::MODP2048).unwrap();
        let mut below = prime.to_vec();
        *below.last_mut().unwrap() -= 1;
        let mut one = vec![0; 256];
        one[255] = 1;
        let mut two = one.clone();
        two[255] = 2;
        for bad in [vec![0; 256], one, below, prime.to_vec(), vec![0xff; 256], vec![2; 255]] {
            assert_eq!(derive(Group::MODP2048, true, &ours, &bad).err(), Some(BAD_INPUT), "{:?}", &bad[..2]);
        }
        assert!(derive(Group::MODP2048, true, &ours, &two).is_ok());
        let scalar = Secret::new(vec![3; 32]);
        assert_eq!(derive(Group::ECP256, true, &scalar, &[5; 64]).err(), Some(BAD_INPUT));
        let huge = Secret::new(vec![0xff; 32]);
        let g = &curve::info(Curve::P256).unwrap().g;
        let point = [g.0.clone(), g.1.clone()].concat();
        assert_eq!(derive(Group::ECP256, true, &huge, &point).err(), Some(INTERNAL));
        assert!(derive(Group::ECP256, true, &scalar, &point).is_ok());
    }

    #[test]
    fn scalars_are_in_range_and_differ() {
        for curve in [Curve::P256, Curve::P384, Curve::P521] {
            let (a, b) = (scalar(curve).unwrap(), scalar(curve).unwrap());
            assert_ne!(*a, *b);
            assert!(is_in_range(&a, &curve::info(curve).unwrap().n));
        }
        let highest = (0..64).map(|_| scalar(Curve::P521).unwrap()[0]).max();
        assert_eq!(highest, Some(1), "the highest bit is never set, or more than it");
    }

    #[test]
    fn results_that_cannot_be_right_are_wrong() {
        let reply = |len: usize, octet| Reply {
            answer: crate::fw::response::Answer::GOOD,
            output: Octets::new(vec![octet; len]),
        };
        let (mut work, _) = generate(Group::MODP2048, true).unwrap();
        assert!(matches!(work.go_on(reply(256, 0xff)), Step::Wrong), "not below the prime");
        let (mut work, _) = generate(Group::ECP256, true).unwrap();
        assert!(matches!(work.go_on(reply(128, 5)), Step::Wrong), "not on the curve");
        let (mut work, _) = generate(Group::X448, true).unwrap();
        assert!(matches!(work.go_on(reply(64, 5)), Step::Wrong), "longer than the curve's numbers");
        let (mut work, _) = derive(Group::X25519, true, &Secret::new(vec![7; 32]), &[9; 32]).unwrap();
        assert!(matches!(work.go_on(reply(64, 0)), Step::Ended(BAD_INPUT)), "small order");
        let (mut work, _) = derive(Group::X25519, true, &Secret::new(vec![7; 32]), &[9; 32]).unwrap();
        assert!(matches!(work.go_on(reply(0, 0)), Step::Ended(INTERNAL)), "too little came out");
    }
}
