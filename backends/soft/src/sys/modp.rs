//! Modular exponentiation in the groups of RFC 3526, in constant time, results at full length.
#![allow(unsafe_code)]

use std::ptr::{NonNull, null_mut};

use aws_lc_sys as lc;
use spi::{Group, Secret};

struct Num(NonNull<lc::BIGNUM>);

impl Num {
    fn new() -> Option<Self> {
        // SAFETY: no arguments; null on failure.
        NonNull::new(unsafe { lc::BN_new() }).map(Num)
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        // SAFETY: bytes is a live slice of the length given; a null destination makes a new number.
        NonNull::new(unsafe { lc::BN_bin2bn(bytes.as_ptr(), bytes.len(), null_mut()) }).map(Num)
    }

    fn padded(&self, len: usize) -> Option<Vec<u8>> {
        let mut out = vec![0; len];
        // SAFETY: out has `len` octets; the call fails when the number does not fit.
        let ok = unsafe { lc::BN_bn2bin_padded(out.as_mut_ptr(), len, self.0.as_ptr()) };
        (ok == 1).then_some(out)
    }
}

impl Drop for Num {
    fn drop(&mut self) {
        // SAFETY: the pointer came from BN_new or BN_bin2bn and is freed, and wiped, once, here.
        unsafe { lc::BN_clear_free(self.0.as_ptr()) }
    }
}

struct Scratch(NonNull<lc::BN_CTX>);

impl Drop for Scratch {
    fn drop(&mut self) {
        // SAFETY: the pointer came from BN_CTX_new and is freed once, here.
        unsafe { lc::BN_CTX_free(self.0.as_ptr()) }
    }
}

struct Mont(NonNull<lc::BN_MONT_CTX>);

impl Drop for Mont {
    fn drop(&mut self) {
        // SAFETY: the pointer came from BN_MONT_CTX_new_for_modulus and is freed once, here.
        unsafe { lc::BN_MONT_CTX_free(self.0.as_ptr()) }
    }
}

fn prime(group: Group) -> Option<Num> {
    // SAFETY (each): with a null destination a new number is made; null on failure.
    let p = match group {
        // SAFETY: see above.
        Group::MODP2048 => unsafe { lc::BN_get_rfc3526_prime_2048(null_mut()) },
        // SAFETY: see above.
        Group::MODP3072 => unsafe { lc::BN_get_rfc3526_prime_3072(null_mut()) },
        // SAFETY: see above.
        Group::MODP4096 => unsafe { lc::BN_get_rfc3526_prime_4096(null_mut()) },
        // SAFETY: see above.
        Group::MODP6144 => unsafe { lc::BN_get_rfc3526_prime_6144(null_mut()) },
        // SAFETY: see above.
        Group::MODP8192 => unsafe { lc::BN_get_rfc3526_prime_8192(null_mut()) },
        _ => return None,
    };
    NonNull::new(p).map(Num)
}

/// Whether 1 < `value` < p - 1 (RFC 6989 section 2.1: all that a group over a safe prime needs).
pub(crate) fn in_range(group: Group, value: &[u8]) -> Option<bool> {
    let (value, below) = (Num::from_bytes(value)?, prime(group)?);
    // SAFETY: the number is live.
    if unsafe { lc::BN_sub_word(below.0.as_ptr(), 1) } != 1 {
        return None;
    }
    // SAFETY: both numbers are live.
    let small = unsafe { lc::BN_cmp(value.0.as_ptr(), below.0.as_ptr()) } < 0;
    // SAFETY: the number is live.
    Some(small && unsafe { lc::BN_cmp_word(value.0.as_ptr(), 1) } > 0)
}

/// `base ^ exponent mod p`, left-padded to the length of the prime (RFC 7296 section 2.14). `base` must be below p.
pub(crate) fn power(group: Group, base: &[u8], exponent: &Secret) -> Option<Vec<u8>> {
    let prime = prime(group)?;
    let (base, exponent) = (Num::from_bytes(base)?, Num::from_bytes(exponent.expose())?);
    let result = Num::new()?;
    // SAFETY: no arguments; null on failure.
    let scratch = Scratch(NonNull::new(unsafe { lc::BN_CTX_new() })?);
    // SAFETY: prime and scratch are live, the prime is odd; null on failure.
    let mont = unsafe { lc::BN_MONT_CTX_new_for_modulus(prime.0.as_ptr(), scratch.0.as_ptr()) };
    let mont = Mont(NonNull::new(mont)?);
    // SAFETY: all six are live; the result aliases none of the inputs; the call fails when base is not reduced.
    let ok = unsafe {
        lc::BN_mod_exp_mont_consttime(
            result.0.as_ptr(),
            base.0.as_ptr(),
            exponent.0.as_ptr(),
            prime.0.as_ptr(),
            scratch.0.as_ptr(),
            mont.0.as_ptr(),
        )
    };
    if ok != 1 {
        return None;
    }
    result.padded(group.info()?.public_len)
}
