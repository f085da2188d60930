//! The functions, one for each line of the list in [`super`]: pointers in, a call of [`Token`], pointers out.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use cryptoki_sys::*;

use super::memory::{answer, attributes as template, mechanism, octets, put, put_list};
use crate::token::{SLOT, Token};

type Result<T> = std::result::Result<T, CK_RV>;

/// The module, while it is initialised.
static MODULE: Mutex<Option<Arc<Token>>> = Mutex::new(None);

/// What a function returns. A panic does not go over to the other language.
fn run(call: impl FnOnce(&Token) -> Result<()>) -> CK_RV {
    let module = MODULE.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let Some(module) = module else { return CKR_CRYPTOKI_NOT_INITIALIZED };
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| call(&module)));
    result.unwrap_or(Err(CKR_GENERAL_ERROR)).err().unwrap_or(CKR_OK)
}

fn in_slot(slot: CK_SLOT_ID) -> Result<()> {
    if slot == SLOT { Ok(()) } else { Err(CKR_SLOT_ID_INVALID) }
}

/// A text in a field of fixed length, blanks behind it.
fn padded<const N: usize>(text: &str) -> [u8; N] {
    let mut field = [b' '; N];
    field.iter_mut().zip(text.bytes()).for_each(|(to, from)| *to = from);
    field
}

pub(super) unsafe extern "C" fn initialize(_: *mut std::ffi::c_void) -> CK_RV {
    let mut module = MODULE.lock().unwrap_or_else(PoisonError::into_inner);
    if module.is_some() {
        return CKR_CRYPTOKI_ALREADY_INITIALIZED;
    }
    let Some(folder) = std::env::var_os("TUSSOCK_TOKEN").map(PathBuf::from) else {
        eprintln!("TUSSOCK_TOKEN does not name the folder of the emulated token");
        return CKR_GENERAL_ERROR;
    };
    *module = Some(Arc::new(Token::new(&folder)));
    CKR_OK
}

pub(super) unsafe extern "C" fn finalize(_: *mut std::ffi::c_void) -> CK_RV {
    match MODULE.lock().unwrap_or_else(PoisonError::into_inner).take() {
        Some(_) => CKR_OK,
        None => CKR_CRYPTOKI_NOT_INITIALIZED,
    }
}

pub(super) unsafe extern "C" fn info(to: *mut CK_INFO) -> CK_RV {
    run(|_| {
        let info = CK_INFO {
            cryptokiVersion: CK_VERSION { major: 2, minor: 40 },
            manufacturerID: padded("tussock"),
            flags: 0,
            libraryDescription: padded("emulated token"),
            libraryVersion: CK_VERSION { major: 0, minor: 1 },
        };
        // SAFETY: the caller owes null or a place.
        unsafe { put(to, info) }
    })
}

pub(super) unsafe extern "C" fn slots(
    with_token: CK_BBOOL,
    to: *mut CK_SLOT_ID,
    len: *mut CK_ULONG,
) -> CK_RV {
    run(|token| {
        let slots: &[CK_SLOT_ID] = if with_token == CK_FALSE || token.is_present() { &[SLOT] } else { &[] };
        // SAFETY: the caller owes a number, and null or as much room as it says.
        unsafe { put_list(slots, to, len) }
    })
}

pub(super) unsafe extern "C" fn slot_info(slot: CK_SLOT_ID, to: *mut CK_SLOT_INFO) -> CK_RV {
    run(|token| {
        in_slot(slot)?;
        let present = if token.is_present() { CKF_TOKEN_PRESENT } else { 0 };
        let version = CK_VERSION { major: 0, minor: 1 };
        let info = CK_SLOT_INFO {
            slotDescription: padded("emulated slot"),
            manufacturerID: padded("tussock"),
            flags: CKF_REMOVABLE_DEVICE | present,
            hardwareVersion: version,
            firmwareVersion: version,
        };
        // SAFETY: the caller owes null or a place.
        unsafe { put(to, info) }
    })
}

pub(super) unsafe extern "C" fn token_info(slot: CK_SLOT_ID, to: *mut CK_TOKEN_INFO) -> CK_RV {
    run(|token| {
        in_slot(slot)?;
        let told = token.info()?;
        let version = CK_VERSION { major: 0, minor: 1 };
        let max =
            if told.max_sessions == 0 { CK_EFFECTIVELY_INFINITE } else { told.max_sessions as CK_ULONG };
        let info = CK_TOKEN_INFO {
            label: padded(&told.label),
            manufacturerID: padded("tussock"),
            model: padded("emulator"),
            serialNumber: padded(&told.serial),
            flags: told.flags,
            ulMaxSessionCount: max,
            ulSessionCount: told.sessions as CK_ULONG,
            ulMaxRwSessionCount: max,
            ulRwSessionCount: CK_UNAVAILABLE_INFORMATION,
            ulMaxPinLen: 64,
            ulMinPinLen: 1,
            ulTotalPublicMemory: CK_UNAVAILABLE_INFORMATION,
            ulFreePublicMemory: CK_UNAVAILABLE_INFORMATION,
            ulTotalPrivateMemory: CK_UNAVAILABLE_INFORMATION,
            ulFreePrivateMemory: CK_UNAVAILABLE_INFORMATION,
            hardwareVersion: version,
            firmwareVersion: version,
            utcTime: [b' '; 16],
        };
        // SAFETY: the caller owes null or a place.
        unsafe { put(to, info) }
    })
}

pub(super) unsafe extern "C" fn mechanisms(
    slot: CK_SLOT_ID,
    to: *mut CK_MECHANISM_TYPE,
    len: *mut CK_ULONG,
) -> CK_RV {
    run(|token| {
        in_slot(slot)?;
        let all: Vec<CK_MECHANISM_TYPE> =
            token.mechanisms()?.into_iter().map(|(mechanism, _)| mechanism).collect();
        // SAFETY: the caller owes a number, and null or as much room as it says.
        unsafe { put_list(&all, to, len) }
    })
}

pub(super) unsafe extern "C" fn mechanism_info(
    slot: CK_SLOT_ID,
    mechanism: CK_MECHANISM_TYPE,
    to: *mut CK_MECHANISM_INFO,
) -> CK_RV {
    run(|token| {
        in_slot(slot)?;
        let all = token.mechanisms()?;
        let flags = all.iter().find(|(known, _)| *known == mechanism).ok_or(CKR_MECHANISM_INVALID)?.1;
        // SAFETY: the caller owes null or a place.
        unsafe { put(to, CK_MECHANISM_INFO { ulMinKeySize: 0, ulMaxKeySize: 8192, flags }) }
    })
}

pub(super) unsafe extern "C" fn open_session(
    slot: CK_SLOT_ID,
    flags: CK_FLAGS,
    _: *mut std::ffi::c_void,
    _: CK_NOTIFY,
    to: *mut CK_SESSION_HANDLE,
) -> CK_RV {
    run(|token| {
        in_slot(slot)?;
        if flags & CKF_SERIAL_SESSION == 0 {
            return Err(CKR_SESSION_PARALLEL_NOT_SUPPORTED);
        }
        if to.is_null() {
            return Err(CKR_ARGUMENTS_BAD);
        }
        let handle = token.open(flags & CKF_RW_SESSION != 0)?;
        // SAFETY: not null.
        unsafe { put(to, handle) }
    })
}

pub(super) unsafe extern "C" fn close_session(session: CK_SESSION_HANDLE) -> CK_RV {
    run(|token| token.close(session))
}

pub(super) unsafe extern "C" fn close_all(slot: CK_SLOT_ID) -> CK_RV {
    run(|token| in_slot(slot).map(|()| token.close_all()))
}

pub(super) unsafe extern "C" fn session_info(session: CK_SESSION_HANDLE, to: *mut CK_SESSION_INFO) -> CK_RV {
    run(|token| {
        let (state, flags) = token.session(session)?;
        // SAFETY: the caller owes null or a place.
        unsafe { put(to, CK_SESSION_INFO { slotID: SLOT, state, flags, ulDeviceError: 0 }) }
    })
}

pub(super) unsafe extern "C" fn login(
    session: CK_SESSION_HANDLE,
    user: CK_USER_TYPE,
    pin: *mut CK_UTF8CHAR,
    len: CK_ULONG,
) -> CK_RV {
    run(|token| {
        if user != CKU_USER {
            return Err(CKR_USER_TYPE_INVALID);
        }
        // SAFETY: the caller owes null or so many octets.
        token.login(session, unsafe { octets(pin, len)? })
    })
}

pub(super) unsafe extern "C" fn logout(session: CK_SESSION_HANDLE) -> CK_RV {
    run(|token| token.logout(session))
}

pub(super) unsafe extern "C" fn create(
    session: CK_SESSION_HANDLE,
    from: *mut CK_ATTRIBUTE,
    len: CK_ULONG,
    to: *mut CK_OBJECT_HANDLE,
) -> CK_RV {
    run(|token| {
        // SAFETY: the caller owes so many attributes.
        let handle = token.create(session, unsafe { template(from, len)? })?;
        // SAFETY: the caller owes null or a place.
        unsafe { put(to, handle) }
    })
}

pub(super) unsafe extern "C" fn destroy(session: CK_SESSION_HANDLE, object: CK_OBJECT_HANDLE) -> CK_RV {
    run(|token| token.destroy(session, object))
}

pub(super) unsafe extern "C" fn attributes(
    session: CK_SESSION_HANDLE,
    object: CK_OBJECT_HANDLE,
    to: *mut CK_ATTRIBUTE,
    len: CK_ULONG,
) -> CK_RV {
    run(|token| {
        token.read(session, object, &mut |object| {
            let read = |attribute| object.read(attribute).map(<[u8]>::to_vec);
            // SAFETY: the caller owes so many attributes.
            unsafe { answer(to, len, &read) }
        })
    })
}

pub(super) unsafe extern "C" fn find(
    session: CK_SESSION_HANDLE,
    from: *mut CK_ATTRIBUTE,
    len: CK_ULONG,
) -> CK_RV {
    // SAFETY: the caller owes so many attributes.
    run(|token| token.find(session, &unsafe { template(from, len)? }))
}

pub(super) unsafe extern "C" fn found(
    session: CK_SESSION_HANDLE,
    to: *mut CK_OBJECT_HANDLE,
    most: CK_ULONG,
    len: *mut CK_ULONG,
) -> CK_RV {
    run(|token| {
        if to.is_null() || len.is_null() {
            return Err(CKR_ARGUMENTS_BAD);
        }
        let handles = token.found(session, most as usize)?;
        // SAFETY: the caller owes room for `most` handles, and there are no more.
        unsafe { std::ptr::copy_nonoverlapping(handles.as_ptr(), to, handles.len()) };
        // SAFETY: not null.
        unsafe { put(len, handles.len() as CK_ULONG) }
    })
}

pub(super) unsafe extern "C" fn found_all(session: CK_SESSION_HANDLE) -> CK_RV {
    run(|token| token.found_all(session))
}

pub(super) unsafe extern "C" fn sign_init(
    session: CK_SESSION_HANDLE,
    by: *mut CK_MECHANISM,
    key: CK_OBJECT_HANDLE,
) -> CK_RV {
    run(|token| {
        // SAFETY: the caller owes null or a mechanism.
        let (mechanism, parameter) = unsafe { mechanism(by)? };
        token.sign_init(session, mechanism, parameter, key)
    })
}

pub(super) unsafe extern "C" fn sign(
    session: CK_SESSION_HANDLE,
    data: *mut CK_BYTE,
    data_len: CK_ULONG,
    to: *mut CK_BYTE,
    len: *mut CK_ULONG,
) -> CK_RV {
    run(|token| {
        if len.is_null() {
            return Err(CKR_ARGUMENTS_BAD);
        }
        let needed = token.sign_len(session)?;
        // SAFETY: not null, and the caller owes a number there.
        let room = unsafe { len.read() } as usize;
        if to.is_null() || room < needed {
            // SAFETY: not null.
            unsafe { put(len, needed as CK_ULONG)? };
            return if to.is_null() { Ok(()) } else { Err(CKR_BUFFER_TOO_SMALL) };
        }
        // SAFETY: the caller owes so many octets.
        let signature = token.sign(session, unsafe { octets(data, data_len)? })?;
        // SAFETY: the caller owes as much room as it says.
        unsafe { put_list(&signature, to, len) }
    })
}

pub(super) unsafe extern "C" fn generate(
    session: CK_SESSION_HANDLE,
    by: *mut CK_MECHANISM,
    public: *mut CK_ATTRIBUTE,
    public_len: CK_ULONG,
    private: *mut CK_ATTRIBUTE,
    private_len: CK_ULONG,
    to_public: *mut CK_OBJECT_HANDLE,
    to_private: *mut CK_OBJECT_HANDLE,
) -> CK_RV {
    run(|token| {
        if to_public.is_null() || to_private.is_null() {
            return Err(CKR_ARGUMENTS_BAD);
        }
        // SAFETY: the caller owes null or a mechanism.
        let (mechanism, _) = unsafe { mechanism(by)? };
        // SAFETY: the caller owes so many attributes.
        let (public, private) = unsafe { (template(public, public_len)?, template(private, private_len)?) };
        let pair = token.generate(session, mechanism, public, private)?;
        // SAFETY: not null.
        unsafe { put(to_public, pair.0)? };
        // SAFETY: not null.
        unsafe { put(to_private, pair.1) }
    })
}

pub(super) unsafe extern "C" fn derive(
    session: CK_SESSION_HANDLE,
    by: *mut CK_MECHANISM,
    key: CK_OBJECT_HANDLE,
    from: *mut CK_ATTRIBUTE,
    len: CK_ULONG,
    to: *mut CK_OBJECT_HANDLE,
) -> CK_RV {
    run(|token| {
        // SAFETY: the caller owes null or a mechanism.
        let (mechanism, parameter) = unsafe { mechanism(by)? };
        // SAFETY: the caller owes so many attributes.
        let attributes = unsafe { template(from, len)? };
        let handle = token.derive(session, mechanism, &parameter, key, attributes)?;
        // SAFETY: the caller owes null or a place.
        unsafe { put(to, handle) }
    })
}

pub(super) unsafe extern "C" fn random(session: CK_SESSION_HANDLE, to: *mut CK_BYTE, len: CK_ULONG) -> CK_RV {
    run(|token| {
        if to.is_null() {
            return Err(CKR_ARGUMENTS_BAD);
        }
        let mut out = vec![0; (len as usize).min(1 << 20)];
        token.random(session, &mut out)?;
        // SAFETY: not null, and the caller owes room for at least as many.
        unsafe { std::ptr::copy_nonoverlapping(out.as_ptr(), to, out.len()) };
        Ok(())
    })
}

pub(super) unsafe extern "C" fn event(_: CK_FLAGS, _: *mut CK_SLOT_ID, _: *mut std::ffi::c_void) -> CK_RV {
    run(|_| Err(CKR_NO_EVENT))
}
