//! Keys: made, read, taken apart, and agreed with. Everything is in a context, and carried out by what its query finds there.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_int, c_long};
use std::ptr::{NonNull, null_mut};

use openssl_sys::{self as ffi, EVP_PKEY, EVP_PKEY_CTX};
use spi::Secret;

use super::context::Context;
use super::params::{Params, Value};
use super::{errors, raw};

/// Longest value that is read out of a key: an exponent or a public value of the largest group.
const LONGEST: usize = 2048;

/// Which half of a key a list of values makes.
#[derive(Clone, Copy)]
pub(crate) enum Half {
    Private,
    Public,
}

/// A key of any kind.
pub(crate) struct Key(NonNull<EVP_PKEY>);

// SAFETY: counted; what is done with it works on contexts of its own, and a key that is shared is not written to.
unsafe impl Send for Key {}
// SAFETY: as above; its caches have a lock of their own.
unsafe impl Sync for Key {}

/// An operation on a key.
struct Operation(NonNull<EVP_PKEY_CTX>);

impl Operation {
    fn of_kind(context: &Context, kind: &CStr) -> Option<Self> {
        // SAFETY: the context is live, the strings end with a zero; null on failure.
        let made = unsafe { ffi::EVP_PKEY_CTX_new_from_name(context.lib(), kind.as_ptr(), context.query()) };
        NonNull::new(made).map(Operation)
    }

    fn on(context: &Context, key: &Key) -> Option<Self> {
        // SAFETY: both are live, and the key is held by the operation from now on; null on failure.
        let made = unsafe { raw::EVP_PKEY_CTX_new_from_pkey(context.lib(), key.0.as_ptr(), context.query()) };
        NonNull::new(made).map(Operation)
    }

    fn at(&self) -> *mut EVP_PKEY_CTX {
        self.0.as_ptr()
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        // SAFETY: made by one of the two above, freed once.
        unsafe { ffi::EVP_PKEY_CTX_free(self.0.as_ptr()) }
        errors::clear();
    }
}

impl Key {
    /// A fresh one.
    pub(crate) fn generate(context: &Context, kind: &CStr, group: Option<&CStr>) -> Option<Self> {
        let operation = Operation::of_kind(context, kind)?;
        let params = group.map(|group| Params::new(&[(c"group", Value::Text(group))]));
        let mut made = null_mut();
        // SAFETY: the operation is live; the list has its end, and is read while the call lasts.
        unsafe {
            if ffi::EVP_PKEY_keygen_init(operation.at()) != 1 {
                return None;
            }
            if let Some(params) = &params
                && ffi::EVP_PKEY_CTX_set_params(operation.at(), params.as_ptr()) != 1
            {
                return None;
            }
            if ffi::EVP_PKEY_generate(operation.at(), &mut made) != 1 {
                return None;
            }
        }
        NonNull::new(made).map(Key)
    }

    /// A key out of its values; `None`: they make none, or nobody here knows the kind.
    pub(crate) fn from_values(
        context: &Context,
        kind: &CStr,
        half: Half,
        values: &[(&'static CStr, Value<'_>)],
    ) -> Option<Self> {
        let operation = Operation::of_kind(context, kind)?;
        let params = Params::new(values);
        let selection = match half {
            Half::Private => ffi::EVP_PKEY_KEYPAIR,
            Half::Public => ffi::EVP_PKEY_PUBLIC_KEY,
        };
        let mut made = null_mut();
        // SAFETY: the operation is live. The list has its end, and is read while the call lasts; the pointer is to mutable for
        // historical reasons alone (EVP_PKEY_fromdata(3)).
        let ok = unsafe {
            ffi::EVP_PKEY_fromdata_init(operation.at()) == 1
                && ffi::EVP_PKEY_fromdata(operation.at(), &mut made, selection, params.as_ptr().cast_mut())
                    == 1
        };
        NonNull::new(made).filter(|_| ok).map(Key)
    }

    /// Reads a PrivateKeyInfo, RSAPrivateKey or ECPrivateKey.
    pub(crate) fn from_private_der(context: &Context, der: &[u8]) -> Option<Self> {
        let mut at = der.as_ptr();
        let len = c_long::try_from(der.len()).ok()?;
        // SAFETY: the context is live, der has the octets announced. Whatever provider can read it does: who carries operations
        // out with it is decided when they begin.
        let made =
            unsafe { raw::d2i_AutoPrivateKey_ex(null_mut(), &mut at, len, context.lib(), std::ptr::null()) };
        errors::clear();
        NonNull::new(made).map(Key)
    }

    /// Reads a SubjectPublicKeyInfo and nothing behind it.
    pub(crate) fn from_spki(context: &Context, der: &[u8]) -> Option<Self> {
        let mut at = der.as_ptr();
        let len = c_long::try_from(der.len()).ok()?;
        // SAFETY: as above.
        let made = unsafe { raw::d2i_PUBKEY_ex(null_mut(), &mut at, len, context.lib(), std::ptr::null()) };
        errors::clear();
        let key = NonNull::new(made).map(Key)?;
        // SAFETY: d2i moves the pointer within der, to where it stopped.
        let read = unsafe { at.offset_from(der.as_ptr()) };
        (usize::try_from(read) == Ok(der.len())).then_some(key)
    }

    /// Takes over a key that was given out counted.
    pub(super) fn take(key: *mut EVP_PKEY) -> Option<Self> {
        NonNull::new(key).map(Key)
    }

    /// DER of the SubjectPublicKeyInfo.
    pub(crate) fn spki(&self) -> Option<Vec<u8>> {
        // SAFETY: the key is live; null asks for the length alone.
        let len = unsafe { ffi::i2d_PUBKEY(self.0.as_ptr(), null_mut()) };
        let mut der = vec![0; usize::try_from(len).ok().filter(|len| *len > 0)?];
        let mut at = der.as_mut_ptr();
        // SAFETY: as above, and der is as long as was just said.
        let written = unsafe { ffi::i2d_PUBKEY(self.0.as_ptr(), &mut at) };
        errors::clear();
        (written == len).then_some(der)
    }

    /// Whether it is of that kind.
    pub(crate) fn is_a(&self, kind: &CStr) -> bool {
        // SAFETY: the key is live, the string ends with a zero.
        unsafe { ffi::EVP_PKEY_is_a(self.0.as_ptr(), kind.as_ptr()) == 1 }
    }

    /// Bits of its modulus, or of its field.
    pub(crate) fn bits(&self) -> u32 {
        // SAFETY: the key is live.
        unsafe { ffi::EVP_PKEY_get_bits(self.0.as_ptr()) }.try_into().unwrap_or(0)
    }

    /// The name of its group, as OpenSSL has it.
    pub(crate) fn group(&self) -> Option<String> {
        let (mut name, mut len) = ([0 as c_char; 80], 0);
        // SAFETY: the key is live, name has the octets announced, the last of which stays zero.
        let ok = unsafe {
            raw::EVP_PKEY_get_group_name(self.0.as_ptr(), name.as_mut_ptr(), name.len() - 1, &mut len)
        };
        errors::clear();
        if ok == 1 { errors::text(name.as_ptr()) } else { None }
    }

    /// Octets out of it.
    pub(crate) fn octets(&self, name: &CStr) -> Option<Secret> {
        let (mut out, mut len) = (vec![0; LONGEST], 0);
        // SAFETY: the key is live, out has the octets announced.
        let ok = unsafe {
            let (key, to) = (self.0.as_ptr(), out.as_mut_ptr());
            ffi::EVP_PKEY_get_octet_string_param(key, name.as_ptr(), to, out.len(), &mut len)
        };
        errors::clear();
        out.truncate(len);
        let out = Secret::new(out);
        (ok == 1 && out.len() == len).then_some(out)
    }

    /// A number out of it, big-endian: of that length with zeroes in front, or of its own.
    pub(crate) fn number(&self, name: &CStr, len: Option<usize>) -> Option<Secret> {
        let mut number = null_mut();
        // SAFETY: the key is live; a new number is made.
        let ok = unsafe { ffi::EVP_PKEY_get_bn_param(self.0.as_ptr(), name.as_ptr(), &mut number) };
        errors::clear();
        let number = NonNull::new(number)?;
        // SAFETY: the number is live.
        let own = unsafe { ffi::BN_num_bits(number.as_ptr()) };
        let len = len.unwrap_or(usize::try_from(own).unwrap_or(0).div_ceil(8));
        let mut out = vec![0; len];
        // SAFETY: the number is live, out has the octets announced; the call fails if they are too few. It is wiped, and not
        // used afterwards.
        let written = unsafe {
            let written =
                ffi::BN_bn2binpad(number.as_ptr(), out.as_mut_ptr(), c_int::try_from(len).unwrap_or(0));
            ffi::BN_clear_free(number.as_ptr());
            written
        };
        let out = Secret::new(out);
        (ok == 1 && usize::try_from(written) == Ok(len)).then_some(out)
    }

    /// Whether the public half is a point of its group, and not the one at infinity.
    pub(crate) fn is_sound(&self, context: &Context) -> bool {
        let Some(operation) = Operation::on(context, self) else { return false };
        // SAFETY: the operation is live.
        unsafe { raw::EVP_PKEY_public_check_quick(operation.at()) == 1 }
    }

    /// Whether this key could agree with another, as far as that can be known without one.
    pub(crate) fn can_derive(&self, context: &Context) -> bool {
        let Some(operation) = Operation::on(context, self) else { return false };
        // SAFETY: the operation is live.
        unsafe { raw::EVP_PKEY_derive_init_ex(operation.at(), std::ptr::null()) == 1 }
    }

    /// The shared secret of two keys as the provider gives it; `pad`: in MODP groups, with the zeroes in front.
    pub(crate) fn derive(&self, context: &Context, theirs: &Key, pad: bool) -> Option<Secret> {
        let operation = Operation::on(context, self)?;
        let params = Params::new(if pad { &[(c"pad", Value::Number(&[0, 0, 0, 1]))] } else { &[] });
        let mut out = vec![0; LONGEST];
        let mut len = out.len();
        // SAFETY: all are live, the list has its end, out has the octets announced. Public halves were judged before.
        let ok = unsafe {
            let at = operation.at();
            raw::EVP_PKEY_derive_init_ex(at, params.as_ptr()) == 1
                && raw::EVP_PKEY_derive_set_peer_ex(at, theirs.0.as_ptr(), 0) == 1
                && ffi::EVP_PKEY_derive(at, out.as_mut_ptr(), &mut len) == 1
        };
        // Cut by copying: what is beyond it is zero.
        out.truncate(len);
        let out = Secret::new(out);
        (ok && out.len() == len).then_some(out)
    }

    pub(super) fn as_ptr(&self) -> *mut EVP_PKEY {
        self.0.as_ptr()
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        // SAFETY: owned since it was made, freed once; the provider wipes it.
        unsafe { ffi::EVP_PKEY_free(self.0.as_ptr()) }
    }
}
