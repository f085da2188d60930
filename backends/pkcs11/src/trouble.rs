//! What can be wrong with a token, and what to do about it.

use cryptoki::context::Function;
use cryptoki::error::{Error, RvError};
use spi::{Fault, FaultKind, Reject};

/// Kinds of trouble, by what is to be done. The number is the vendor code of the [`Fault`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum What {
    /// The module does not load or start.
    NoModule = 1,
    /// The token is not there.
    NoToken = 2,
    /// Several tokens fit.
    ManyTokens = 3,
    /// No such object.
    NoObject = 4,
    /// Several objects fit.
    ManyObjects = 5,
    /// The key may not be used for this, or is of an unknown kind.
    Unfit = 6,
    /// There is no PIN to log in with.
    NoPin = 7,
    /// The PIN is wrong, or was.
    WrongPin = 8,
    /// The PIN is locked, or the next wrong one would lock it.
    LockedPin = 9,
    /// The URI makes no sense, or is none of a key.
    BadUri = 10,
    /// Not this token's business.
    NotMine = 11,
    /// The token returned an error.
    Token = 12,
    /// The token returned nonsense.
    Nonsense = 13,
    /// The token does not have a mechanism.
    Unsupported = 14,
}

/// Something is wrong. The text is for people, names what is meant, and holds no PIN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// Its kind.
    pub what: What,
    /// What is wrong and what to do.
    pub text: String,
}

impl Trouble {
    pub(crate) fn new(what: What, text: impl Into<String>) -> Trouble {
        Trouble { what, text: text.into() }
    }

    /// As the SPI has it.
    pub(crate) fn fault(&self) -> Fault {
        let kind = match self.what {
            What::NotMine | What::Unsupported => FaultKind::Unsupported,
            _ => FaultKind::Internal,
        };
        Fault { kind, vendor: self.what as u32 }
    }
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Trouble {}

/// Why a piece of work in a session did not end well.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The token said so.
    Token(Error),
    /// It is plain what is wrong, and trying again would change nothing.
    Trouble(Trouble),
    /// The input was judged.
    Reject(Reject),
    /// A handle that means nothing any more.
    Stale,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Token(error)
    }
}

impl From<Trouble> for Failure {
    fn from(trouble: Trouble) -> Failure {
        Failure::Trouble(trouble)
    }
}

/// Whether with another session it may go better: the session or the token was lost, the user logged out, handles of objects mean
/// something else since, or something happened inside that says no more than that.
pub(crate) fn is_lost(error: &Error) -> bool {
    let Error::Pkcs11(rv, _) = error else { return false };
    matches!(
        rv,
        RvError::SessionHandleInvalid
            | RvError::SessionClosed
            | RvError::TokenNotPresent
            | RvError::TokenNotRecognized
            | RvError::DeviceRemoved
            | RvError::SlotIdInvalid
            | RvError::UserNotLoggedIn
            | RvError::KeyHandleInvalid
            | RvError::ObjectHandleInvalid
            | RvError::OperationActive
            | RvError::OperationNotInitialized
            | RvError::DeviceError
            | RvError::FunctionFailed
            | RvError::GeneralError
            | RvError::FunctionCanceled
    )
}

/// An error by the name the standard gives it, and the function it came from.
pub(crate) fn name(error: &Error) -> String {
    match error {
        Error::Pkcs11(RvError::VendorDefined(code), function) => {
            format!("vendor's error {code:#x} from {}", c_name(function))
        }
        Error::Pkcs11(RvError::UnknownErrorCode(code), function) => {
            format!("unknown error {code:#x} from {}", c_name(function))
        }
        Error::Pkcs11(rv, function) => {
            let mut name = String::from("CKR");
            for letter in format!("{rv:?}").chars() {
                if letter.is_ascii_uppercase() {
                    name.push('_');
                }
                name.push(letter.to_ascii_uppercase());
            }
            format!("{name} from {}", c_name(function))
        }
        other => other.to_string(),
    }
}

fn c_name(function: &Function) -> String {
    format!("C_{function:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_the_names_of_the_standard() {
        let of = |rv| name(&Error::Pkcs11(rv, Function::Sign));
        assert!(
            of(RvError::PinIncorrect).starts_with("CKR_PIN_INCORRECT from C_Sign"),
            "{}",
            of(RvError::PinIncorrect)
        );
        assert!(of(RvError::SessionHandleInvalid).starts_with("CKR_SESSION_HANDLE_INVALID"));
        assert!(of(RvError::VendorDefined(0x8000_0001)).contains("0x80000001"));
    }
}
