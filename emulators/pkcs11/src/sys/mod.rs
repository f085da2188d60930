//! The C interface. Foreign pointers are believed as PKCS #11 has them: the caller owes a valid pointer or a null one, and the
//! length beside it is right. Everything behind these files is safe code.
#![allow(unsafe_code)]

mod calls;
mod memory;

use cryptoki_sys::*;

/// What applications ask for first.
///
/// # Safety
/// `list` is null or a place for a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_GetFunctionList(list: *mut *mut CK_FUNCTION_LIST) -> CK_RV {
    if list.is_null() {
        return CKR_ARGUMENTS_BAD;
    }
    // SAFETY: not null, and the caller owes a place for a pointer. The list is never written to, whatever its type says.
    unsafe { list.write((&raw const FUNCTIONS).cast_mut()) };
    CKR_OK
}

static FUNCTIONS: CK_FUNCTION_LIST = CK_FUNCTION_LIST {
    version: CK_VERSION { major: 2, minor: 40 },
    C_Initialize: Some(calls::initialize),
    C_Finalize: Some(calls::finalize),
    C_GetInfo: Some(calls::info),
    C_GetFunctionList: Some(C_GetFunctionList),
    C_GetSlotList: Some(calls::slots),
    C_GetSlotInfo: Some(calls::slot_info),
    C_GetTokenInfo: Some(calls::token_info),
    C_GetMechanismList: Some(calls::mechanisms),
    C_GetMechanismInfo: Some(calls::mechanism_info),
    C_InitToken: None,
    C_InitPIN: None,
    C_SetPIN: None,
    C_OpenSession: Some(calls::open_session),
    C_CloseSession: Some(calls::close_session),
    C_CloseAllSessions: Some(calls::close_all),
    C_GetSessionInfo: Some(calls::session_info),
    C_GetOperationState: None,
    C_SetOperationState: None,
    C_Login: Some(calls::login),
    C_Logout: Some(calls::logout),
    C_CreateObject: Some(calls::create),
    C_CopyObject: None,
    C_DestroyObject: Some(calls::destroy),
    C_GetObjectSize: None,
    C_GetAttributeValue: Some(calls::attributes),
    C_SetAttributeValue: None,
    C_FindObjectsInit: Some(calls::find),
    C_FindObjects: Some(calls::found),
    C_FindObjectsFinal: Some(calls::found_all),
    C_EncryptInit: None,
    C_Encrypt: None,
    C_EncryptUpdate: None,
    C_EncryptFinal: None,
    C_DecryptInit: None,
    C_Decrypt: None,
    C_DecryptUpdate: None,
    C_DecryptFinal: None,
    C_DigestInit: None,
    C_Digest: None,
    C_DigestUpdate: None,
    C_DigestKey: None,
    C_DigestFinal: None,
    C_SignInit: Some(calls::sign_init),
    C_Sign: Some(calls::sign),
    C_SignUpdate: None,
    C_SignFinal: None,
    C_SignRecoverInit: None,
    C_SignRecover: None,
    C_VerifyInit: None,
    C_Verify: None,
    C_VerifyUpdate: None,
    C_VerifyFinal: None,
    C_VerifyRecoverInit: None,
    C_VerifyRecover: None,
    C_DigestEncryptUpdate: None,
    C_DecryptDigestUpdate: None,
    C_SignEncryptUpdate: None,
    C_DecryptVerifyUpdate: None,
    C_GenerateKey: None,
    C_GenerateKeyPair: Some(calls::generate),
    C_WrapKey: None,
    C_UnwrapKey: None,
    C_DeriveKey: Some(calls::derive),
    C_SeedRandom: None,
    C_GenerateRandom: Some(calls::random),
    C_GetFunctionStatus: None,
    C_CancelFunction: None,
    C_WaitForSlotEvent: Some(calls::event),
};
