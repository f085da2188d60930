//! Foreign memory: read into ours, and written from ours.

use cryptoki_sys::*;

use crate::object::Attributes;
use crate::work::Parameter;

/// Longest attribute or input that is taken, octets.
const MOST: CK_ULONG = 1 << 20;

type Result<T> = std::result::Result<T, CK_RV>;

/// The octets at `from`; null and empty is empty.
pub(super) unsafe fn octets<'a>(from: *const CK_BYTE, len: CK_ULONG) -> Result<&'a [u8]> {
    match (from.is_null(), len) {
        (_, 0) => Ok(&[]),
        (true, _) => Err(CKR_ARGUMENTS_BAD),
        (false, MOST..) => Err(CKR_DATA_LEN_RANGE),
        // SAFETY: not null, and the caller owes so many octets there.
        (false, _) => Ok(unsafe { std::slice::from_raw_parts(from, len as usize) }),
    }
}

/// Puts one value into a place of the caller's.
pub(super) unsafe fn put<T>(to: *mut T, value: T) -> Result<()> {
    if to.is_null() {
        return Err(CKR_ARGUMENTS_BAD);
    }
    // SAFETY: not null, and the caller owes a place for such a value.
    unsafe { to.write(value) };
    Ok(())
}

/// Puts a list by the rule of section 5.2: null asks for the length, a place that is too short is told so.
pub(super) unsafe fn put_list<T: Copy>(values: &[T], to: *mut T, len: *mut CK_ULONG) -> Result<()> {
    if len.is_null() {
        return Err(CKR_ARGUMENTS_BAD);
    }
    // SAFETY: not null, and the caller owes a number there.
    let room = unsafe { len.read() };
    // SAFETY: as before.
    unsafe { len.write(values.len() as CK_ULONG) };
    if to.is_null() {
        return Ok(());
    }
    if (room as usize) < values.len() {
        return Err(CKR_BUFFER_TOO_SMALL);
    }
    // SAFETY: the caller says that there is room for as many.
    unsafe { std::ptr::copy_nonoverlapping(values.as_ptr(), to, values.len()) };
    Ok(())
}

/// A template.
pub(super) unsafe fn attributes(from: *const CK_ATTRIBUTE, len: CK_ULONG) -> Result<Attributes> {
    if len > 64 || (from.is_null() && len > 0) {
        return Err(CKR_ARGUMENTS_BAD);
    }
    let mut all = Attributes::new();
    for place in 0..len as usize {
        // SAFETY: not null, and the caller owes `len` of them.
        let attribute = unsafe { *from.add(place) };
        // SAFETY: the attribute says where its value is and how long.
        let value = unsafe { octets(attribute.pValue.cast(), attribute.ulValueLen) };
        all.insert(attribute.type_, value.map_err(|_| CKR_ATTRIBUTE_VALUE_INVALID)?.to_vec());
    }
    Ok(all)
}

/// Answers a template, attribute by attribute, by the rule of `C_GetAttributeValue`: each gets its value or is marked, and the
/// first trouble is what is returned.
pub(super) unsafe fn answer(
    template: *mut CK_ATTRIBUTE,
    len: CK_ULONG,
    read: &dyn Fn(CK_ATTRIBUTE_TYPE) -> std::result::Result<Vec<u8>, CK_RV>,
) -> CK_RV {
    if template.is_null() || len > 64 {
        return CKR_ARGUMENTS_BAD;
    }
    let mut said = CKR_OK;
    for place in 0..len as usize {
        // SAFETY: not null, and the caller owes `len` of them; nobody else has them while this call lasts.
        let attribute = unsafe { &mut *template.add(place) };
        let (value, trouble) = match read(attribute.type_) {
            Ok(value) if attribute.pValue.is_null() => {
                attribute.ulValueLen = value.len() as CK_ULONG;
                continue;
            }
            Ok(value) if attribute.ulValueLen < value.len() as CK_ULONG => (None, CKR_BUFFER_TOO_SMALL),
            Ok(value) => (Some(value), CKR_OK),
            Err(trouble) => (None, trouble),
        };
        match value {
            Some(value) => {
                // SAFETY: the attribute says that there is room for so many octets.
                unsafe {
                    std::ptr::copy_nonoverlapping(value.as_ptr(), attribute.pValue.cast(), value.len())
                };
                attribute.ulValueLen = value.len() as CK_ULONG;
            }
            None => {
                attribute.ulValueLen = CK_UNAVAILABLE_INFORMATION;
                said = if said == CKR_OK { trouble } else { said };
            }
        }
    }
    said
}

/// A mechanism and its parameter.
pub(super) unsafe fn mechanism(from: *const CK_MECHANISM) -> Result<(CK_MECHANISM_TYPE, Parameter)> {
    if from.is_null() {
        return Err(CKR_ARGUMENTS_BAD);
    }
    // SAFETY: not null, and the caller owes a mechanism there.
    let given = unsafe { *from };
    let (at, len) = (given.pParameter, given.ulParameterLen as usize);
    let parameter = match given.mechanism {
        CKM_RSA_PKCS_PSS | CKM_SHA256_RSA_PKCS_PSS | CKM_SHA384_RSA_PKCS_PSS | CKM_SHA512_RSA_PKCS_PSS => {
            if at.is_null() || len != size_of::<CK_RSA_PKCS_PSS_PARAMS>() {
                return Err(CKR_MECHANISM_PARAM_INVALID);
            }
            // SAFETY: not null, and of the right size.
            let pss = unsafe { at.cast::<CK_RSA_PKCS_PSS_PARAMS>().read_unaligned() };
            Parameter::Pss { hash: pss.hashAlg, mgf: pss.mgf, salt: pss.sLen }
        }
        CKM_ECDH1_DERIVE => {
            if at.is_null() || len != size_of::<CK_ECDH1_DERIVE_PARAMS>() {
                return Err(CKR_MECHANISM_PARAM_INVALID);
            }
            // SAFETY: not null, and of the right size.
            let ecdh = unsafe { at.cast::<CK_ECDH1_DERIVE_PARAMS>().read_unaligned() };
            // SAFETY: the parameter says where the value is and how long.
            let public = unsafe { octets(ecdh.pPublicData, ecdh.ulPublicDataLen) };
            Parameter::Ecdh {
                kdf: ecdh.kdf,
                public: public.map_err(|_| CKR_MECHANISM_PARAM_INVALID)?.to_vec(),
            }
        }
        _ => Parameter::None,
    };
    Ok((given.mechanism, parameter))
}
