//! EAP payload (RFC 7296 section 3.16): one EAP message.

use alloc::vec::Vec;

/// One EAP message, from its code octet on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Eap(pub Vec<u8>);
