//! The token: sessions, login, objects, operations, by the rules of PKCS #11 v2.40. Everything that an application may rely on is
//! checked as a real token checks it: whose session it is, whether the user is logged in, what a key may be used for.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use cryptoki_sys::*;

use crate::control::{Control, Watched};
use crate::counts::Counts;
use crate::engine::Engine;
use crate::object::{self, Attributes, Object, octets};
use crate::work::{self, Parameter};

type Result<T> = std::result::Result<T, CK_RV>;

/// The one slot.
pub const SLOT: CK_SLOT_ID = 7;

/// Objects that live no longer than their session have handles from here on.
const OF_SESSIONS: CK_OBJECT_HANDLE = 1 << 32;

/// The module between `C_Initialize` and `C_Finalize`.
pub struct Token {
    folder: PathBuf,
    state: Mutex<State>,
    engine: Engine,
}

struct State {
    watched: Watched,
    counts: Counts,
    sessions: BTreeMap<CK_SESSION_HANDLE, Session>,
    objects: BTreeMap<CK_OBJECT_HANDLE, Object>,
    next_session: CK_SESSION_HANDLE,
    next_object: CK_OBJECT_HANDLE,
    logged_in: bool,
    /// What the control file said of these when it was looked at last.
    lost: u64,
    logged_out: u64,
    signatures: u64,
}

#[derive(Default)]
struct Session {
    writable: bool,
    found: Option<Vec<CK_OBJECT_HANDLE>>,
    signing: Option<(CK_MECHANISM_TYPE, Parameter, CK_OBJECT_HANDLE)>,
    /// Objects that go with it.
    own: Vec<CK_OBJECT_HANDLE>,
}

/// What `C_GetTokenInfo` tells.
pub struct Info {
    /// Its label.
    pub label: String,
    /// Its serial number.
    pub serial: String,
    /// Flags.
    pub flags: CK_FLAGS,
    /// Open sessions.
    pub sessions: usize,
    /// Most sessions there may be; 0: any number.
    pub max_sessions: usize,
}

impl Token {
    /// The token in this folder.
    pub fn new(folder: &Path) -> Token {
        let mut watched = Watched::new(folder);
        let control = watched.look().clone();
        Token {
            folder: folder.to_owned(),
            engine: Engine::default(),
            state: Mutex::new(State {
                watched,
                counts: Counts::new(folder),
                sessions: BTreeMap::new(),
                objects: object::load(folder),
                next_session: 1,
                next_object: OF_SESSIONS,
                logged_in: false,
                lost: control.lose_sessions,
                logged_out: control.log_out,
                signatures: 0,
            }),
        }
    }

    /// Counts a call and looks at what the token is like now.
    fn enter(&self, what: &'static str) -> (MutexGuard<'_, State>, Control) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.counts.count(what);
        let control = state.watched.look().clone();
        let lost = std::mem::replace(&mut state.lost, control.lose_sessions) != control.lose_sessions;
        if !control.present || lost {
            state.lose_everything();
        }
        if std::mem::replace(&mut state.logged_out, control.log_out) != control.log_out {
            state.logged_in = false;
        }
        (state, control)
    }

    /// Whether the token is in its slot.
    pub fn is_present(&self) -> bool {
        self.enter("C_GetSlotInfo").1.present
    }

    /// What it says of itself.
    ///
    /// # Errors
    /// `CKR_TOKEN_NOT_PRESENT`.
    pub fn info(&self) -> Result<Info> {
        let (state, control) = self.enter("C_GetTokenInfo");
        if !control.present {
            return Err(CKR_TOKEN_NOT_PRESENT);
        }
        let mut flags = CKF_RNG | CKF_LOGIN_REQUIRED | CKF_USER_PIN_INITIALIZED | CKF_TOKEN_INITIALIZED;
        let wrong = self.wrong_pins();
        if wrong >= control.tries {
            flags |= CKF_USER_PIN_LOCKED;
        } else if wrong + 1 == control.tries {
            flags |= CKF_USER_PIN_FINAL_TRY | CKF_USER_PIN_COUNT_LOW;
        } else if wrong > 0 {
            flags |= CKF_USER_PIN_COUNT_LOW;
        }
        let sessions = state.sessions.len();
        let Control { label, serial, max_sessions, .. } = control;
        Ok(Info { label, serial, flags, sessions, max_sessions })
    }

    /// What it can do.
    ///
    /// # Errors
    /// `CKR_TOKEN_NOT_PRESENT`.
    pub fn mechanisms(&self) -> Result<Vec<(CK_MECHANISM_TYPE, CK_FLAGS)>> {
        let control = self.enter("C_GetMechanismList").1;
        if !control.present {
            return Err(CKR_TOKEN_NOT_PRESENT);
        }
        Ok(work::MECHANISMS
            .iter()
            .filter(|(mechanism, _)| !control.without.contains(mechanism))
            .copied()
            .collect())
    }

    /// `C_OpenSession`.
    pub fn open(&self, writable: bool) -> Result<CK_SESSION_HANDLE> {
        let (mut state, control) = self.enter("C_OpenSession");
        if !control.present {
            return Err(CKR_TOKEN_NOT_PRESENT);
        }
        if control.max_sessions > 0 && state.sessions.len() >= control.max_sessions {
            return Err(CKR_SESSION_COUNT);
        }
        // What another process has stored meanwhile is seen by whoever opens a session now.
        let stored = object::load(&self.folder);
        state.objects.retain(|handle, _| *handle >= OF_SESSIONS);
        state.objects.extend(stored);
        let handle = state.next_session;
        state.next_session += 1;
        state.sessions.insert(handle, Session { writable, ..Session::default() });
        Ok(handle)
    }

    /// `C_CloseSession`.
    pub fn close(&self, session: CK_SESSION_HANDLE) -> Result<()> {
        let (mut state, _) = self.enter("C_CloseSession");
        let closed = state.sessions.remove(&session).ok_or(CKR_SESSION_HANDLE_INVALID)?;
        for handle in closed.own {
            state.objects.remove(&handle);
        }
        // Section 5.6: the login goes with the last session.
        if state.sessions.is_empty() {
            state.logged_in = false;
        }
        Ok(())
    }

    /// `C_CloseAllSessions`.
    pub fn close_all(&self) {
        self.enter("C_CloseAllSessions").0.lose_everything();
    }

    /// The state and the flags of a session.
    pub fn session(&self, session: CK_SESSION_HANDLE) -> Result<(CK_STATE, CK_FLAGS)> {
        let (state, _) = self.enter("C_GetSessionInfo");
        let open = state.sessions.get(&session).ok_or(CKR_SESSION_HANDLE_INVALID)?;
        Ok(match (open.writable, state.logged_in) {
            (false, false) => (CKS_RO_PUBLIC_SESSION, CKF_SERIAL_SESSION),
            (false, true) => (CKS_RO_USER_FUNCTIONS, CKF_SERIAL_SESSION),
            (true, false) => (CKS_RW_PUBLIC_SESSION, CKF_SERIAL_SESSION | CKF_RW_SESSION),
            (true, true) => (CKS_RW_USER_FUNCTIONS, CKF_SERIAL_SESSION | CKF_RW_SESSION),
        })
    }

    /// `C_Login` of the user.
    pub fn login(&self, session: CK_SESSION_HANDLE, pin: &[u8]) -> Result<()> {
        let (mut state, control) = self.enter("C_Login");
        state.counts.save();
        if !state.sessions.contains_key(&session) {
            return Err(CKR_SESSION_HANDLE_INVALID);
        }
        if state.logged_in {
            return Err(CKR_USER_ALREADY_LOGGED_IN);
        }
        std::thread::sleep(std::time::Duration::from_millis(control.login_ms));
        let wrong = self.wrong_pins();
        if wrong >= control.tries {
            return Err(CKR_PIN_LOCKED);
        }
        let right = pin == control.pin.as_bytes();
        let now = if right { 0 } else { wrong + 1 };
        std::fs::write(self.folder.join("wrong-pins"), now.to_string()).map_err(|_| CKR_DEVICE_MEMORY)?;
        state.logged_in = right;
        if right { Ok(()) } else { Err(CKR_PIN_INCORRECT) }
    }

    /// `C_Logout`.
    pub fn logout(&self, session: CK_SESSION_HANDLE) -> Result<()> {
        let (mut state, _) = self.enter("C_Logout");
        if !state.sessions.contains_key(&session) {
            return Err(CKR_SESSION_HANDLE_INVALID);
        }
        match std::mem::replace(&mut state.logged_in, false) {
            true => Ok(()),
            false => Err(CKR_USER_NOT_LOGGED_IN),
        }
    }

    /// `C_CreateObject`.
    pub fn create(&self, session: CK_SESSION_HANDLE, mut attributes: Attributes) -> Result<CK_OBJECT_HANDLE> {
        let (mut state, _) = self.enter("C_CreateObject");
        let class = attributes.get(&CKA_CLASS).and_then(|class| object::number(class));
        let object = match class {
            Some(CKO_PRIVATE_KEY) => {
                let private = Some(work::import(&attributes)?);
                for secret in [
                    CKA_VALUE,
                    CKA_PRIVATE_EXPONENT,
                    CKA_PRIME_1,
                    CKA_PRIME_2,
                    CKA_EXPONENT_1,
                    CKA_EXPONENT_2,
                    CKA_COEFFICIENT,
                ] {
                    attributes.remove(&secret);
                }
                attributes.entry(CKA_PRIVATE).or_insert_with(|| vec![CK_TRUE]);
                Object { attributes, private }
            }
            Some(CKO_CERTIFICATE | CKO_PUBLIC_KEY | CKO_DATA) => Object { attributes, private: None },
            Some(_) => return Err(CKR_ATTRIBUTE_VALUE_INVALID),
            None => return Err(CKR_TEMPLATE_INCOMPLETE),
        };
        self.keep(&mut state, session, object)
    }

    /// `C_DestroyObject`.
    pub fn destroy(&self, session: CK_SESSION_HANDLE, handle: CK_OBJECT_HANDLE) -> Result<()> {
        let (mut state, _) = self.enter("C_DestroyObject");
        state.visible(session, handle)?;
        state.objects.remove(&handle);
        object::remove(&self.folder, handle);
        Ok(())
    }

    /// One attribute after the other.
    pub fn read(
        &self,
        session: CK_SESSION_HANDLE,
        handle: CK_OBJECT_HANDLE,
        each: &mut dyn FnMut(&Object) -> CK_RV,
    ) -> Result<()> {
        let (state, _) = self.enter("C_GetAttributeValue");
        match each(state.visible(session, handle)?) {
            CKR_OK => Ok(()),
            error => Err(error),
        }
    }

    /// `C_FindObjectsInit`.
    pub fn find(&self, session: CK_SESSION_HANDLE, template: &Attributes) -> Result<()> {
        let (mut state, _) = self.enter("C_FindObjectsInit");
        let logged_in = state.logged_in;
        let seen = |object: &Object| logged_in || !object.is(CKA_PRIVATE);
        let found = state.objects.iter().filter(|(_, object)| seen(object) && object.matches(template));
        let found = found.map(|(handle, _)| *handle).collect();
        let session = state.sessions.get_mut(&session).ok_or(CKR_SESSION_HANDLE_INVALID)?;
        if session.found.is_some() {
            return Err(CKR_OPERATION_ACTIVE);
        }
        session.found = Some(found);
        Ok(())
    }

    /// `C_FindObjects`.
    pub fn found(&self, session: CK_SESSION_HANDLE, most: usize) -> Result<Vec<CK_OBJECT_HANDLE>> {
        let (mut state, _) = self.enter("C_FindObjects");
        let session = state.sessions.get_mut(&session).ok_or(CKR_SESSION_HANDLE_INVALID)?;
        let found = session.found.as_mut().ok_or(CKR_OPERATION_NOT_INITIALIZED)?;
        Ok(found.drain(..most.min(found.len())).collect())
    }

    /// `C_FindObjectsFinal`.
    pub fn found_all(&self, session: CK_SESSION_HANDLE) -> Result<()> {
        let (mut state, _) = self.enter("C_FindObjectsFinal");
        let session = state.sessions.get_mut(&session).ok_or(CKR_SESSION_HANDLE_INVALID)?;
        session.found.take().map(drop).ok_or(CKR_OPERATION_NOT_INITIALIZED)
    }

    /// `C_SignInit`.
    pub fn sign_init(
        &self,
        session: CK_SESSION_HANDLE,
        mechanism: CK_MECHANISM_TYPE,
        parameter: Parameter,
        key: CK_OBJECT_HANDLE,
    ) -> Result<()> {
        let (mut state, control) = self.enter("C_SignInit");
        if control.without.contains(&mechanism) {
            return Err(CKR_MECHANISM_INVALID);
        }
        let object = state.key(session, key, CKA_SIGN)?;
        work::check_sign(mechanism, &parameter, object)?;
        let session = state.sessions.get_mut(&session).ok_or(CKR_SESSION_HANDLE_INVALID)?;
        if session.signing.is_some() {
            return Err(CKR_OPERATION_ACTIVE);
        }
        session.signing = Some((mechanism, parameter, key));
        Ok(())
    }

    /// How long the signature will be at most; the operation stays active.
    pub fn sign_len(&self, session: CK_SESSION_HANDLE) -> Result<usize> {
        let (state, _) = self.enter("C_Sign for a length");
        let open = state.sessions.get(&session).ok_or(CKR_SESSION_HANDLE_INVALID)?;
        let (_, _, key) = open.signing.as_ref().ok_or(CKR_OPERATION_NOT_INITIALIZED)?;
        work::signature_len(state.visible(session, *key)?)
    }

    /// `C_Sign`: takes its place in the engine and its time.
    pub fn sign(&self, session: CK_SESSION_HANDLE, data: &[u8]) -> Result<Vec<u8>> {
        let (mut state, control) = self.enter("C_Sign");
        let open = state.sessions.get_mut(&session).ok_or(CKR_SESSION_HANDLE_INVALID)?;
        let (mechanism, parameter, key) = open.signing.take().ok_or(CKR_OPERATION_NOT_INITIALIZED)?;
        let key = state.key(session, key, CKA_SIGN)?.clone();
        state.signatures += 1;
        if control.fail_every > 0 && state.signatures % control.fail_every == 0 {
            state.counts.count("failed as asked");
            state.counts.save();
            return Err(control.fail_with);
        }
        drop(state);
        let signature =
            self.in_engine(&control, control.sign_ms, || work::sign(mechanism, &parameter, &key, data));
        // Who pulls a token out while it signs gets no signature.
        let (state, control) = self.enter("signature");
        state.counts.save();
        if !control.present {
            return Err(CKR_DEVICE_REMOVED);
        }
        if !state.sessions.contains_key(&session) {
            return Err(CKR_SESSION_HANDLE_INVALID);
        }
        signature
    }

    /// `C_GenerateKeyPair`.
    pub fn generate(
        &self,
        session: CK_SESSION_HANDLE,
        mechanism: CK_MECHANISM_TYPE,
        public: Attributes,
        private: Attributes,
    ) -> Result<(CK_OBJECT_HANDLE, CK_OBJECT_HANDLE)> {
        let (state, control) = self.enter("C_GenerateKeyPair");
        if !state.sessions.contains_key(&session) {
            return Err(CKR_SESSION_HANDLE_INVALID);
        }
        if !state.logged_in {
            return Err(CKR_USER_NOT_LOGGED_IN);
        }
        drop(state);
        let made = self.in_engine(&control, control.derive_ms, || work::generate(mechanism, &public))?;
        let (mut state, _) = self.enter("pair");
        let (mut first, mut second) = made;
        let flag = |value: bool| vec![if value { CK_TRUE } else { CK_FALSE }];
        first.attributes.extend(public);
        first.attributes.insert(CKA_CLASS, octets(CKO_PUBLIC_KEY));
        second.attributes.insert(CKA_PRIVATE, flag(true));
        second.attributes.insert(CKA_SENSITIVE, flag(true));
        second.attributes.insert(CKA_EXTRACTABLE, flag(false));
        second.attributes.extend(private);
        second.attributes.insert(CKA_CLASS, octets(CKO_PRIVATE_KEY));
        let first = self.keep(&mut state, session, first)?;
        let second = self.keep(&mut state, session, second)?;
        Ok((first, second))
    }

    /// `C_DeriveKey`.
    pub fn derive(
        &self,
        session: CK_SESSION_HANDLE,
        mechanism: CK_MECHANISM_TYPE,
        parameter: &Parameter,
        key: CK_OBJECT_HANDLE,
        mut attributes: Attributes,
    ) -> Result<CK_OBJECT_HANDLE> {
        let (state, control) = self.enter("C_DeriveKey");
        if mechanism != CKM_ECDH1_DERIVE || control.without.contains(&mechanism) {
            return Err(CKR_MECHANISM_INVALID);
        }
        let key = state.key(session, key, CKA_DERIVE)?.clone();
        drop(state);
        let mut value = self.in_engine(&control, control.derive_ms, || work::derive(parameter, &key))?;
        let (mut state, _) = self.enter("secret");
        if let Some(len) = attributes.get(&CKA_VALUE_LEN).and_then(|len| object::number(len)) {
            // CKD_NULL: octets from the left.
            value.truncate(len as usize);
        }
        attributes.insert(CKA_VALUE_LEN, octets(value.len() as CK_ULONG));
        attributes.entry(CKA_CLASS).or_insert_with(|| octets(CKO_SECRET_KEY));
        self.keep(&mut state, session, Object { attributes, private: Some(value) })
    }

    /// `C_GenerateRandom`.
    pub fn random(&self, session: CK_SESSION_HANDLE, out: &mut [u8]) -> Result<()> {
        let (state, _) = self.enter("C_GenerateRandom");
        if !state.sessions.contains_key(&session) {
            return Err(CKR_SESSION_HANDLE_INVALID);
        }
        work::random(out)
    }

    fn in_engine<T>(&self, control: &Control, ms: u64, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let place = self.engine.enter(control.parallel);
        {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.counts.peak = state.counts.peak.max(place.busy);
        }
        place.work(ms);
        work()
    }

    fn keep(
        &self,
        state: &mut State,
        session: CK_SESSION_HANDLE,
        object: Object,
    ) -> Result<CK_OBJECT_HANDLE> {
        let logged_in = state.logged_in;
        let open = state.sessions.get_mut(&session).ok_or(CKR_SESSION_HANDLE_INVALID)?;
        let stored = object.is(CKA_TOKEN);
        if stored && !open.writable {
            return Err(CKR_SESSION_READ_ONLY);
        }
        if (object.is(CKA_PRIVATE) || object.private.is_some()) && !logged_in {
            return Err(CKR_USER_NOT_LOGGED_IN);
        }
        if stored {
            let last = state.objects.range(..OF_SESSIONS).next_back().map_or(0, |(handle, _)| *handle);
            object::save(&self.folder, last + 1, &object)?;
            state.objects.insert(last + 1, object);
            return Ok(last + 1);
        }
        let handle = state.next_object;
        open.own.push(handle);
        state.next_object += 1;
        state.objects.insert(handle, object);
        Ok(handle)
    }

    fn wrong_pins(&self) -> u32 {
        let text = std::fs::read_to_string(self.folder.join("wrong-pins")).unwrap_or_default();
        text.trim().parse().unwrap_or(0)
    }
}

impl State {
    fn lose_everything(&mut self) {
        self.sessions.clear();
        self.objects.retain(|handle, _| *handle < OF_SESSIONS);
        self.logged_in = false;
    }

    fn visible(&self, session: CK_SESSION_HANDLE, handle: CK_OBJECT_HANDLE) -> Result<&Object> {
        if !self.sessions.contains_key(&session) {
            return Err(CKR_SESSION_HANDLE_INVALID);
        }
        let object = self.objects.get(&handle).ok_or(CKR_OBJECT_HANDLE_INVALID)?;
        match object.is(CKA_PRIVATE) && !self.logged_in {
            true => Err(CKR_OBJECT_HANDLE_INVALID),
            false => Ok(object),
        }
    }

    /// A key that may be used for this.
    fn key(
        &self,
        session: CK_SESSION_HANDLE,
        handle: CK_OBJECT_HANDLE,
        usage: CK_ATTRIBUTE_TYPE,
    ) -> Result<&Object> {
        if self.sessions.contains_key(&session) && !self.logged_in {
            return Err(CKR_USER_NOT_LOGGED_IN);
        }
        let object = self.visible(session, handle).map_err(|error| match error {
            CKR_OBJECT_HANDLE_INVALID => CKR_KEY_HANDLE_INVALID,
            error => error,
        })?;
        match object.is(usage) {
            true => Ok(object),
            false => Err(CKR_KEY_FUNCTION_NOT_PERMITTED),
        }
    }
}

#[cfg(test)]
mod tests;
