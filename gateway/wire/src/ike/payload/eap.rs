//! EAP payload (RFC 7296 section 3.16): one EAP message.

use crate::eap::{EapError, EapMessage};
use alloc::vec::Vec;
use core::fmt;

/// One EAP message, from its code octet on, not looked into.
#[derive(Clone, PartialEq, Eq)]
pub struct Eap(pub Vec<u8>);

impl Eap {
    /// The message's frame.
    ///
    /// # Errors
    /// See [`EapError`].
    pub fn message(&self) -> Result<EapMessage<'_>, EapError> {
        EapMessage::parse(&self.0)
    }
}

impl fmt::Debug for Eap {
    // Some methods carry passwords: the content does not belong in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Eap({} octets)", self.0.len())
    }
}
