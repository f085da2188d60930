//! Lists of named values, as OpenSSL's functions take them.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::marker::PhantomData;
use std::ptr::{null, null_mut};

use openssl_sys::OSSL_PARAM;
use zeroize::Zeroizing;

use super::raw;

/// A value.
#[derive(Clone, Copy)]
pub(crate) enum Value<'a> {
    /// A name.
    Text(&'a CStr),
    /// A number of any length, big-endian.
    Number(&'a [u8]),
    /// Octets.
    Octets(&'a [u8]),
}

/// A list that borrows what is in it.
pub(crate) struct Params<'a> {
    list: Vec<OSSL_PARAM>,
    /// Numbers in the order of the machine, which OpenSSL wants. A vector that moves leaves its octets where they are.
    numbers: Vec<Zeroizing<Vec<u8>>>,
    borrowed: PhantomData<&'a [u8]>,
}

impl<'a> Params<'a> {
    pub(crate) fn new(values: &[(&'static CStr, Value<'a>)]) -> Self {
        let mut params = Params { list: Vec::new(), numbers: Vec::new(), borrowed: PhantomData };
        for (key, value) in values {
            let (data_type, data, data_size) = match value {
                Value::Text(text) => (raw::PARAM_UTF8, text.as_ptr().cast::<u8>(), text.count_bytes()),
                Value::Octets(octets) => (raw::PARAM_OCTETS, octets.as_ptr(), octets.len()),
                Value::Number(number) => {
                    let mut native = Zeroizing::new(number.to_vec());
                    if cfg!(target_endian = "little") {
                        native.reverse();
                    }
                    let place = (raw::PARAM_UNSIGNED, native.as_ptr(), native.len());
                    params.numbers.push(native);
                    place
                }
            };
            params.list.push(OSSL_PARAM {
                key: key.as_ptr(),
                data_type,
                data: data.cast_mut().cast(),
                data_size,
                return_size: raw::UNMODIFIED,
            });
        }
        params.list.push(OSSL_PARAM {
            key: null(),
            data_type: 0,
            data: null_mut(),
            data_size: 0,
            return_size: 0,
        });
        params
    }

    /// The list, for a call that reads it and writes nothing.
    pub(super) fn as_ptr(&self) -> *const OSSL_PARAM {
        self.list.as_ptr()
    }
}
