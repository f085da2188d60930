//! A token by configuration: where it is, how to log in, and sessions on it.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::MechanismType;
use cryptoki::session::{Session, SessionState, UserType};
use cryptoki::slot::{Slot, TokenInfo};
use cryptoki::types::RawAuthPin;
use spi::Secret;

use crate::module::{Module, Pins};
use crate::pin::PinSource;
use crate::trouble::{Trouble, What, name};
use crate::uri::Uri;

/// Where key exchanges are carried out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dh {
    /// Elsewhere: by whoever else can.
    #[default]
    Host,
    /// In the token, where it can.
    Token,
}

/// One token, as it is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// The operator's name for it; none for whoever needs no name.
    pub name: String,
    /// The module that reaches it.
    pub module: PathBuf,
    /// Which of the module's tokens.
    pub token: Uri,
    /// Where its PIN is. Without, that of the first URI with a pin-source.
    pub pin: PinSource,
    /// Sessions for each queue, and so the operations under way at one time.
    pub sessions: usize,
    /// Where key exchanges are carried out.
    pub dh: Dh,
}

impl Site {
    /// The only token of a module, without a PIN.
    pub fn new(name: impl Into<String>, module: impl Into<PathBuf>) -> Site {
        Site {
            name: name.into(),
            module: module.into(),
            token: Uri::default(),
            pin: PinSource::None,
            sessions: 1,
            dh: Dh::Host,
        }
    }

    /// What the token says it is. It is looked for, and nobody logs in.
    ///
    /// # Errors
    /// The module or the token is not there.
    pub fn look(&self) -> Result<String, Trouble> {
        Ok(identity(&Token::new(self.clone()).find()?.2))
    }
}

/// What a token says it is, in a line.
pub(crate) fn identity(info: &TokenInfo) -> String {
    format!(
        "token `{}`, {} {}, serial {}",
        info.label().trim_end(),
        info.manufacturer_id().trim_end(),
        info.model().trim_end(),
        info.serial_number().trim_end()
    )
}

impl std::fmt::Display for Site {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.name.as_str() {
            "" => f.write_str("the token"),
            name => write!(f, "the token of accel.{name}"),
        }
    }
}

/// A token that may be used.
pub(crate) struct Token {
    pub(crate) site: Site,
    pin: Mutex<PinSource>,
    pub(crate) logins: AtomicU64,
    pub(crate) opened: AtomicU64,
}

impl Token {
    pub(crate) fn new(site: Site) -> Token {
        let pin = match (&site.pin, &site.token.pin_source) {
            (PinSource::None, Some(path)) => PinSource::File(path.clone()),
            (pin, _) => pin.clone(),
        };
        Token { pin: Mutex::new(pin), site, logins: AtomicU64::new(0), opened: AtomicU64::new(0) }
    }

    /// What a URI says of the PIN is taken if nothing was known.
    pub(crate) fn hint(&self, uri: &Uri) {
        let mut pin = self.pin.lock().unwrap_or_else(PoisonError::into_inner);
        if let (PinSource::None, Some(path)) = (&*pin, &uri.pin_source) {
            *pin = PinSource::File(path.clone());
        }
    }

    /// The module and the slot, if the token is there.
    pub(crate) fn find(&self) -> Result<(Arc<Module>, Slot, TokenInfo), Trouble> {
        let module = Module::open(&self.site.module)?;
        let (slot, info) = module.slot(&self.site.token)?;
        Ok((module, slot, info))
    }

    /// What the token can do.
    pub(crate) fn mechanisms(&self) -> Result<Vec<MechanismType>, Trouble> {
        let (module, slot, _) = self.find()?;
        module.context.get_mechanism_list(slot).map_err(|error| self.said(&error))
    }

    /// A session, logged in.
    pub(crate) fn session(&self, writable: bool) -> Result<(Arc<Module>, Session), Trouble> {
        let (module, slot, info) = self.find()?;
        let session = match writable {
            true => module.context.open_rw_session(slot),
            false => module.context.open_ro_session(slot),
        };
        let session = session.map_err(|error| match error {
            Error::Pkcs11(RvError::SessionCount, _) => {
                let text = format!(
                    "{} has no session left; lower `sessions`, or see who else uses it",
                    self.shown(&info)
                );
                Trouble::new(What::Token, text)
            }
            error => self.said(&error),
        })?;
        self.opened.fetch_add(1, Ordering::Relaxed);
        self.log_in(&module, &session, &info, slot)?;
        Ok((module, session))
    }

    /// Logs in, unless somebody in this process has. One try for each PIN: a token counts wrong ones, and locks.
    fn log_in(
        &self,
        module: &Module,
        session: &Session,
        info: &TokenInfo,
        slot: Slot,
    ) -> Result<(), Trouble> {
        if !info.login_required() {
            return Ok(());
        }
        let mut pins = module.pins();
        let state = session.get_session_info().map_err(|error| self.said(&error))?.session_state();
        if matches!(state, SessionState::RoUser | SessionState::RwUser) {
            return Ok(());
        }
        let which = format!("{}/{}", info.label().trim_end(), info.serial_number().trim_end());
        let shown = self.shown(info);
        // The flags may be others since somebody else tried.
        let info = module.context.get_token_info(slot).map_err(|error| self.said(&error))?;
        if info.user_pin_locked() {
            return Err(locked(&shown));
        }
        if !info.user_pin_initialized() {
            let text = format!("{shown} has no user PIN yet; set one with its own tools");
            return Err(Trouble::new(What::NoPin, text));
        }
        let pin = self.read_pin(&mut pins, &which, &shown)?;
        if let Some(pin) = &pin {
            if pins.is_refused(&which, pin) {
                let text = format!(
                    "{shown} refused this PIN before, and it is not tried again, so that the token does not lock; \
                     correct the PIN, and it is used at the next attempt"
                );
                return Err(Trouble::new(What::WrongPin, text));
            }
            if info.user_pin_final_try() {
                let text = format!(
                    "{shown} would lock after one more wrong PIN, so none is tried; check the PIN, and log in once with \
                     another tool (for example pkcs11-tool --login --test), which clears the count"
                );
                return Err(Trouble::new(What::LockedPin, text));
            }
        } else if !info.protected_authentication_path() {
            let text = format!("{shown} wants a PIN; name it by pin_file, pin_env, pin_prompt or pin-source");
            return Err(Trouble::new(What::NoPin, text));
        }
        self.logins.fetch_add(1, Ordering::Relaxed);
        let result = match &pin {
            Some(pin) => {
                session.login_with_raw(UserType::User, &RawAuthPin::new(Box::new(pin.expose().to_vec())))
            }
            None => session.login(UserType::User, None),
        };
        match result {
            Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => {
                pins.forget(&which);
                Ok(())
            }
            Err(Error::Pkcs11(RvError::PinIncorrect | RvError::PinInvalid | RvError::PinLenRange, _)) => {
                if let Some(pin) = &pin {
                    pins.refuse(&which, pin);
                }
                let text = format!(
                    "{shown} refuses the PIN; it is not tried again, so that the token does not lock; correct the PIN, and it \
                     is used at the next attempt"
                );
                tracing::error!("{text}");
                Err(Trouble::new(What::WrongPin, text))
            }
            Err(Error::Pkcs11(RvError::PinLocked, _)) => Err(locked(&shown)),
            Err(Error::Pkcs11(RvError::PinExpired, _)) => {
                let text =
                    format!("the PIN of {shown} has expired; set another one with the token's own tools");
                Err(Trouble::new(What::LockedPin, text))
            }
            Err(error) => Err(self.said(&error)),
        }
    }

    fn read_pin(&self, pins: &mut Pins, which: &str, shown: &str) -> Result<Option<Secret>, Trouble> {
        let source = self.pin.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if source != PinSource::Prompt {
            return source.read(which);
        }
        if let Some(pin) = pins.typed(which) {
            return Ok(Some(pin));
        }
        if pins.any_refused(which) {
            let text = format!("{shown} refused the PIN that was typed; start again to be asked anew");
            return Err(Trouble::new(What::WrongPin, text));
        }
        let pin = source.read(which)?;
        if let Some(pin) = &pin {
            pins.type_in(which, pin);
        }
        Ok(pin)
    }

    /// An error of the token, for people.
    pub(crate) fn said(&self, error: &Error) -> Trouble {
        let (what, hint) = match error {
            Error::Pkcs11(RvError::TokenNotPresent | RvError::DeviceRemoved | RvError::SlotIdInvalid, _) => {
                (What::NoToken, "; insert the token")
            }
            Error::Pkcs11(RvError::MechanismInvalid | RvError::FunctionNotSupported, _) => {
                (What::Unsupported, "")
            }
            _ => (What::Token, ""),
        };
        Trouble::new(what, format!("{} says {}{hint}", self.site, name(error)))
    }

    fn shown(&self, info: &TokenInfo) -> String {
        let name = &self.site.name;
        let accel = if name.is_empty() { String::new() } else { format!(" (accel.{name})") };
        format!("token `{}`{accel}", info.label().trim_end())
    }
}

fn locked(shown: &str) -> Trouble {
    let text = format!("the PIN of {shown} is locked, and none is tried; unlock it as its security officer");
    Trouble::new(What::LockedPin, text)
}
