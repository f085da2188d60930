//! Modules: shared libraries, each loaded and initialised once in this process, whoever asks. Two contexts of one module are two
//! callers of C_Initialize in one process, which some modules answer with a crash.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::slot::{Slot, TokenInfo};
use spi::Secret;

use crate::trouble::{Trouble, What, name};
use crate::uri::{Uri, Words};

/// All that were ever loaded. They stay: others in this process may be in them, and nobody can tell.
static MODULES: Mutex<Vec<Arc<Module>>> = Mutex::new(Vec::new());

/// A module that is initialised.
pub(crate) struct Module {
    path: PathBuf,
    pub(crate) context: Pkcs11,
    pins: Mutex<Pins>,
}

/// What is known of PINs. Whoever logs in holds it, so that two threads do not try the same wrong PIN.
#[derive(Default)]
pub(crate) struct Pins {
    /// Refused ones, by token.
    refused: Vec<(String, Secret)>,
    /// Typed ones, by token: a terminal is asked once.
    typed: Vec<(String, Secret)>,
}

impl Module {
    /// Loads a module, or finds it loaded.
    pub(crate) fn open(path: &Path) -> Result<Arc<Module>, Trouble> {
        let no_module = |why: String| {
            let text = format!("the PKCS #11 module {} {why}", path.display());
            Trouble::new(What::NoModule, text)
        };
        // One file by two names is one module.
        let real = path.canonicalize().map_err(|error| {
            no_module(format!("cannot be found: {error}; install the token's software, or correct `module`"))
        })?;
        let mut modules = MODULES.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(module) = modules.iter().find(|module| module.path == real) {
            return Ok(Arc::clone(module));
        }
        let context = Pkcs11::new(&real).map_err(|error| {
            no_module(format!("does not load: {}; is it a PKCS #11 module?", name(&error)))
        })?;
        // Several threads call it at a time, and it may lock as the system does.
        match context.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
            // Somebody else in this process was first.
            Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {}
            Err(error) => {
                return Err(no_module(format!(
                    "does not start: {}; its own log and configuration say why",
                    name(&error)
                )));
            }
        }
        let module = Arc::new(Module { path: real, context, pins: Mutex::default() });
        modules.push(Arc::clone(&module));
        Ok(module)
    }

    /// The slot with the one token that fits.
    pub(crate) fn slot(&self, uri: &Uri) -> Result<(Slot, TokenInfo), Trouble> {
        let all = self.tokens()?;
        let fits = |(slot, info): &&(Slot, TokenInfo)| uri.fits(&words(info), slot.id());
        let mut fitting = all.iter().filter(fits);
        let seen = || {
            let names: Vec<String> =
                all.iter().map(|(_, info)| format!("`{}`", info.label())).take(8).collect();
            if names.is_empty() {
                "there is none".to_owned()
            } else {
                format!("there is {}", names.join(", "))
            }
        };
        match (fitting.next(), fitting.next()) {
            (Some((slot, info)), None) => Ok((*slot, info.clone())),
            (None, _) => {
                let text = format!("no token fits {uri}; {}: insert it, or correct the URI", seen());
                Err(Trouble::new(What::NoToken, text))
            }
            (Some(_), Some(_)) => {
                let text = format!("several tokens fit {uri}; {}: name one by token= or serial=", seen());
                Err(Trouble::new(What::ManyTokens, text))
            }
        }
    }

    /// All initialised tokens that are there.
    pub(crate) fn tokens(&self) -> Result<Vec<(Slot, TokenInfo)>, Trouble> {
        let slots = self.context.get_slots_with_token().map_err(|error| {
            let text = format!("the module {} lists no slots: {}", self.path.display(), name(&error));
            Trouble::new(What::Token, text)
        })?;
        // One that was pulled out between the two questions is not there.
        let told = slots.into_iter().filter_map(|slot| Some((slot, self.context.get_token_info(slot).ok()?)));
        Ok(told.filter(|(_, info)| info.token_initialized()).collect())
    }

    pub(crate) fn pins(&self) -> MutexGuard<'_, Pins> {
        self.pins.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pins {
    /// Remembers that this token refused this PIN.
    pub(crate) fn refuse(&mut self, token: &str, pin: &Secret) {
        self.forget(token);
        self.typed.retain(|(of, _)| of != token);
        self.refused.push((token.to_owned(), pin.duplicate()));
    }

    /// The token took a PIN.
    pub(crate) fn forget(&mut self, token: &str) {
        self.refused.retain(|(of, _)| of != token);
    }

    /// Whether it was this PIN that the token refused.
    pub(crate) fn is_refused(&self, token: &str, pin: &Secret) -> bool {
        self.refused.iter().any(|(of, refused)| of == token && refused.ct_eq(pin.expose()))
    }

    /// Whether the token refused any.
    pub(crate) fn any_refused(&self, token: &str) -> bool {
        self.refused.iter().any(|(of, _)| of == token)
    }

    pub(crate) fn typed(&self, token: &str) -> Option<Secret> {
        self.typed.iter().find(|(of, _)| of == token).map(|(_, pin)| pin.duplicate())
    }

    pub(crate) fn type_in(&mut self, token: &str, pin: &Secret) {
        self.typed.push((token.to_owned(), pin.duplicate()));
    }
}

/// What a token says of itself.
pub(crate) fn words(info: &TokenInfo) -> Words<'_> {
    Words {
        label: info.label(),
        manufacturer: info.manufacturer_id(),
        model: info.model(),
        serial: info.serial_number(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(path: &str) -> Trouble {
        Module::open(Path::new(path)).err().unwrap()
    }

    #[test]
    fn a_missing_module_and_one_that_is_none_are_named() {
        let missing = wrong("/nonexistent/p11.so");
        assert_eq!(missing.what, What::NoModule);
        assert!(missing.text.contains("/nonexistent/p11.so cannot be found"), "{missing}");
        let none = wrong("/etc/passwd");
        assert!(
            none.text.contains("does not load") && none.text.contains("is it a PKCS #11 module?"),
            "{none}"
        );
    }

    #[test]
    fn a_refused_pin_is_known_again_and_another_one_is_not_it() {
        let mut pins = Pins::default();
        let (wrong, other) = (Secret::from_slice(b"1111"), Secret::from_slice(b"1234"));
        pins.refuse("a", &wrong);
        assert!(
            pins.is_refused("a", &wrong) && !pins.is_refused("a", &other) && !pins.is_refused("b", &wrong)
        );
        pins.forget("a");
        assert!(!pins.any_refused("a"));
    }
}
