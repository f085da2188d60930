//! The rules an application relies on, and the troubles a test asks for.
#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

fn folder() -> PathBuf {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let folder = std::env::temp_dir().join(format!("tussock-token-{}-{number}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

fn control(folder: &Path, text: &str) {
    let fresh = folder.join("control.new");
    std::fs::write(&fresh, text).unwrap();
    std::fs::rename(fresh, folder.join("control.toml")).unwrap();
}

fn p256() -> Attributes {
    let oid = vec![6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
    Attributes::from([(CKA_EC_PARAMS, oid), (CKA_TOKEN, vec![CK_TRUE])])
}

fn signing() -> Attributes {
    Attributes::from([(CKA_SIGN, vec![CK_TRUE]), (CKA_TOKEN, vec![CK_TRUE])])
}

/// A token with a session, logged in, and a P-256 key that signs.
fn with_key() -> (PathBuf, Token, CK_SESSION_HANDLE, CK_OBJECT_HANDLE) {
    let folder = folder();
    let token = Token::new(&folder);
    let session = token.open(true).unwrap();
    token.login(session, b"1234").unwrap();
    let (_, key) = token.generate(session, CKM_EC_KEY_PAIR_GEN, p256(), signing()).unwrap();
    (folder, token, session, key)
}

fn sign(token: &Token, session: CK_SESSION_HANDLE, key: CK_OBJECT_HANDLE) -> Result<Vec<u8>> {
    token.sign_init(session, CKM_ECDSA, Parameter::None, key)?;
    token.sign(session, &[7; 32])
}

#[test]
fn a_key_is_used_by_the_logged_in_only_and_for_what_it_is_for() {
    let (_, token, session, key) = with_key();
    assert_eq!(sign(&token, session, key).unwrap().len(), 64);
    assert_eq!(token.sign_init(session, CKM_EDDSA, Parameter::None, key), Err(CKR_KEY_TYPE_INCONSISTENT));
    let (_, mute) = token.generate(session, CKM_EC_KEY_PAIR_GEN, p256(), Attributes::new()).unwrap();
    assert_eq!(sign(&token, session, mute), Err(CKR_KEY_FUNCTION_NOT_PERMITTED));
    token.logout(session).unwrap();
    assert_eq!(sign(&token, session, key), Err(CKR_USER_NOT_LOGGED_IN));
    assert_eq!(sign(&token, session + 1, key), Err(CKR_SESSION_HANDLE_INVALID));
}

#[test]
fn what_is_stored_outlives_the_process_and_the_rest_its_session_not() {
    let (folder, token, session, key) = with_key();
    let own = Attributes::from([(CKA_DERIVE, vec![CK_TRUE])]);
    let (_, ephemeral) = token.generate(session, CKM_EC_KEY_PAIR_GEN, p256(), own).unwrap();
    token.close(session).unwrap();
    let session = token.open(false).unwrap();
    token.login(session, b"1234").unwrap();
    assert_eq!(token.read(session, ephemeral, &mut |_| CKR_OK), Err(CKR_OBJECT_HANDLE_INVALID));
    drop(token);
    let again = Token::new(&folder);
    let session = again.open(false).unwrap();
    again.login(session, b"1234").unwrap();
    sign(&again, session, key).unwrap();
}

#[test]
fn wrong_pins_are_counted_to_the_end_even_in_another_process() {
    let folder = folder();
    let login = |pin: &[u8]| {
        let token = Token::new(&folder);
        let session = token.open(false).unwrap();
        let result = token.login(session, pin);
        (result, token.info().unwrap().flags)
    };
    let (result, flags) = login(b"wrong");
    assert_eq!(result, Err(CKR_PIN_INCORRECT));
    assert_eq!(flags & (CKF_USER_PIN_COUNT_LOW | CKF_USER_PIN_FINAL_TRY), CKF_USER_PIN_COUNT_LOW);
    assert_ne!(login(b"wrong").1 & CKF_USER_PIN_FINAL_TRY, 0);
    assert_eq!(login(b"1234").0, Ok(()), "the last try is right, and the count begins anew");
    for _ in 0..3 {
        assert_eq!(login(b"wrong").0, Err(CKR_PIN_INCORRECT));
    }
    let (result, flags) = login(b"1234");
    assert_eq!(result, Err(CKR_PIN_LOCKED));
    assert_ne!(flags & CKF_USER_PIN_LOCKED, 0);
}

#[test]
fn a_token_that_is_pulled_out_takes_sessions_and_login_along() {
    let (folder, token, session, key) = with_key();
    control(&folder, "present = false");
    assert_eq!(token.open(false), Err(CKR_TOKEN_NOT_PRESENT));
    assert!(!token.is_present());
    control(&folder, "present = true");
    assert_eq!(sign(&token, session, key), Err(CKR_SESSION_HANDLE_INVALID));
    let session = token.open(false).unwrap();
    assert_eq!(sign(&token, session, key), Err(CKR_USER_NOT_LOGGED_IN));
    token.login(session, b"1234").unwrap();
    sign(&token, session, key).unwrap();
    control(&folder, "lose_sessions = 1");
    assert_eq!(sign(&token, session, key), Err(CKR_SESSION_HANDLE_INVALID));
}

#[test]
fn signatures_fail_as_often_as_asked_and_sessions_have_their_bound() {
    let (folder, token, session, key) = with_key();
    control(&folder, "fail_every = 2\nmax_sessions = 2");
    let failed = (0..10).filter(|_| sign(&token, session, key) == Err(CKR_DEVICE_ERROR)).count();
    assert_eq!(failed, 5);
    token.open(false).unwrap();
    assert_eq!(token.open(false), Err(CKR_SESSION_COUNT));
}

#[test]
fn no_more_operations_run_at_once_than_the_token_has_engines() {
    let (folder, token, first, key) = with_key();
    control(&folder, "parallel = 2\nsign_ms = 5");
    let sessions: Vec<_> = (0..6).map(|_| token.open(false).unwrap()).chain([first]).collect();
    std::thread::scope(|scope| {
        for session in sessions {
            let token = &token;
            scope.spawn(move || (0..4).for_each(|_| drop(sign(token, session, key).unwrap())));
        }
    });
    let counts: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder.join("counts.json")).unwrap()).unwrap();
    assert_eq!(counts["peak"], 2, "both were busy at one time, and never a third");
    assert_eq!(counts["calls"]["C_Sign"], 28);
}

#[test]
fn both_ends_of_an_exchange_agree_and_a_point_off_the_curve_is_refused() {
    let (_, token, session, _) = with_key();
    let own = || Attributes::from([(CKA_DERIVE, vec![CK_TRUE])]);
    let public = || Attributes::from([(CKA_EC_PARAMS, p256()[&CKA_EC_PARAMS].clone())]);
    let a = token.generate(session, CKM_EC_KEY_PAIR_GEN, public(), own()).unwrap();
    let b = token.generate(session, CKM_EC_KEY_PAIR_GEN, public(), own()).unwrap();
    let point = |handle| {
        let mut point = Vec::new();
        token
            .read(session, handle, &mut |object| {
                point = object.read(CKA_EC_POINT).unwrap()[2..].to_vec();
                CKR_OK
            })
            .unwrap();
        point
    };
    let readable = Attributes::from([(CKA_EXTRACTABLE, vec![CK_TRUE]), (CKA_SENSITIVE, vec![CK_FALSE])]);
    let derive = |public, key| {
        let parameter = Parameter::Ecdh { kdf: CKD_NULL, public };
        let secret = token.derive(session, CKM_ECDH1_DERIVE, &parameter, key, readable.clone())?;
        let mut value = Vec::new();
        token.read(session, secret, &mut |object| {
            value = object.read(CKA_VALUE).unwrap().to_vec();
            CKR_OK
        })?;
        Ok(value)
    };
    assert_eq!(derive(point(a.0), b.1), derive(point(b.0), a.1));
    assert_eq!(derive([vec![4], vec![9; 64]].concat(), a.1), Err(CKR_MECHANISM_PARAM_INVALID));
}
