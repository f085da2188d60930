//! Proposals as the operator writes them: lists of alternatives, in order of preference.

use spi::{Encr, Group, Integ, Prf};

/// One IKE proposal. Each list is in order of preference; combined modes have an empty `integ`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IkeProposal {
    /// Encryption.
    pub encr: Vec<Encr>,
    /// Integrity; empty with combined modes.
    pub integ: Vec<Integ>,
    /// Pseudo-random functions.
    pub prf: Vec<Prf>,
    /// Key exchange methods.
    pub groups: Vec<Group>,
}

/// One ESP proposal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EspProposal {
    /// Encryption.
    pub encr: Vec<Encr>,
    /// Integrity; empty with combined modes.
    pub integ: Vec<Integ>,
    /// Key exchange methods for perfect forward secrecy; empty: none. Left out in IKE_AUTH (RFC 7296 section 1.2).
    pub groups: Vec<Group>,
    /// Acceptable values of the extended-sequence-numbers transform, preferred first.
    pub esn: Vec<bool>,
}
