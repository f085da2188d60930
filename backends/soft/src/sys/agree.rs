//! Agreement by our private value alone: X25519, and ECDH on the NIST curves. The general interface wants a key pair, and makes
//! the public half anew where it was not kept, which costs as much as half the agreement.
#![allow(unsafe_code)]

use std::ptr::{NonNull, null_mut};

use aws_lc_sys as lc;
use spi::Secret;
use spi::alg::Curve;

/// A fresh pair: private and public value.
pub(crate) fn x25519_generate() -> (Secret, [u8; 32]) {
    let (mut private, mut public) = (vec![0; 32], [0; 32]);
    // SAFETY: both have the 32 octets that are written.
    unsafe { lc::X25519_keypair(public.as_mut_ptr(), private.as_mut_ptr()) };
    (Secret::new(private), public)
}

/// The shared secret; `None` when it is all zeroes, or a length is wrong.
pub(crate) fn x25519(private: &[u8], public: &[u8]) -> Option<Secret> {
    if private.len() != 32 || public.len() != 32 {
        return None;
    }
    let mut shared = vec![0; 32];
    // SAFETY: all three have 32 octets; the call fails for points of small order (RFC 7748 section 6.1).
    let ok = unsafe { lc::X25519(shared.as_mut_ptr(), private.as_ptr(), public.as_ptr()) };
    let shared = Secret::new(shared);
    (ok == 1).then_some(shared)
}

struct Key(NonNull<lc::EC_KEY>);

impl Drop for Key {
    fn drop(&mut self) {
        // SAFETY: the pointer came from EC_KEY_new_by_curve_name and is freed, and wiped, once, here.
        unsafe { lc::EC_KEY_free(self.0.as_ptr()) }
    }
}

struct Point(NonNull<lc::EC_POINT>);

impl Drop for Point {
    fn drop(&mut self) {
        // SAFETY: the pointer came from EC_POINT_new and is freed once, here.
        unsafe { lc::EC_POINT_free(self.0.as_ptr()) }
    }
}

struct Number(NonNull<lc::BIGNUM>);

impl Drop for Number {
    fn drop(&mut self) {
        // SAFETY: the pointer came from BN_bin2bn and is freed, and wiped, once, here.
        unsafe { lc::BN_clear_free(self.0.as_ptr()) }
    }
}

/// The first coordinate of the shared point at full length; `None` when the uncompressed `point` is not on the curve, or the
/// scalar is none.
pub(crate) fn ecdh(curve: Curve, scalar: &[u8], point: &[u8]) -> Option<Secret> {
    let nid = match curve {
        Curve::P256 => lc::NID_X9_62_prime256v1,
        Curve::P384 => lc::NID_secp384r1,
        Curve::P521 => lc::NID_secp521r1,
    };
    // SAFETY: no pointers; null on failure.
    let key = Key(NonNull::new(unsafe { lc::EC_KEY_new_by_curve_name(nid) })?);
    // SAFETY: scalar is a live slice of the length given; a null destination makes a new number.
    let number = Number(NonNull::new(unsafe { lc::BN_bin2bn(scalar.as_ptr(), scalar.len(), null_mut()) })?);
    // SAFETY: both are live; the call copies the number and fails when it is zero or not below the order.
    if unsafe { lc::EC_KEY_set_private_key(key.0.as_ptr(), number.0.as_ptr()) } != 1 {
        return None;
    }
    // SAFETY: the key is live and has its group, which lives as long.
    let group = unsafe { lc::EC_KEY_get0_group(key.0.as_ptr()) };
    // SAFETY: the group is live; null on failure.
    let theirs = Point(NonNull::new(unsafe { lc::EC_POINT_new(group) })?);
    // SAFETY: all are live, point a slice of the length given; the call fails for what is not on the curve.
    let on_curve =
        unsafe { lc::EC_POINT_oct2point(group, theirs.0.as_ptr(), point.as_ptr(), point.len(), null_mut()) };
    if on_curve != 1 {
        // SAFETY: touches only the thread's error queue.
        unsafe { lc::ERR_clear_error() };
        return None;
    }
    let mut shared = vec![0u8; curve.coordinate_len()];
    // SAFETY: key and point are live and of one group; shared has the octets announced.
    let written = unsafe {
        lc::ECDH_compute_key(
            shared.as_mut_ptr().cast(),
            shared.len(),
            theirs.0.as_ptr(),
            key.0.as_ptr(),
            None,
        )
    };
    let (whole, shared) = (usize::try_from(written) == Ok(shared.len()), Secret::new(shared));
    whole.then_some(shared)
}
