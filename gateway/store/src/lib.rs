//! What must be there again after a restart: leases of inner addresses. A store is an address book and no authority: a gateway without
//! one works, and forgets.

#![forbid(unsafe_code)]

pub mod sqlite;

use std::future::Future;
use std::net::IpAddr;

/// A lease that is to be remembered.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Lease {
    /// The realm.
    pub realm: String,
    /// The address.
    pub address: IpAddr,
    /// Whose it is: the type of the identity as IKE has it (RFC 7296 section 3.5), and its octets.
    pub identity: (u8, Vec<u8>),
    /// The identity for people.
    pub who: String,
    /// Whether it is in use.
    pub held: bool,
    /// Seconds since 1970 at which it came into use, or was last in use.
    pub since: i64,
}

/// What is to be done to what is remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Remember, in the place of what was known of the address.
    Put(Lease),
    /// Forget.
    Remove {
        /// The realm.
        realm: String,
        /// The address.
        address: IpAddr,
    },
}

impl Change {
    /// What it is about.
    pub fn key(&self) -> (&str, IpAddr) {
        match self {
            Change::Put(lease) => (&lease.realm, lease.address),
            Change::Remove { realm, address } => (realm, *address),
        }
    }
}

/// Why something could not be stored or read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has it.
    #[error("another gateway uses it")]
    Taken,
    /// What is there makes no sense.
    #[error("it is damaged: {0}")]
    Damaged(String),
    /// It was written by a later version of the program, which alone may touch it.
    #[error("a later version of the program wrote it (format {0})")]
    Later(i64),
    /// Anything else: a disk that is full or cannot be written to, a folder that is not there.
    #[error("{0}")]
    Failed(String),
}

/// Where leases are kept.
pub trait Store: Send {
    /// All that is remembered; what is of no sense is left out.
    fn load(&mut self) -> impl Future<Output = Result<Vec<Lease>, StoreError>> + Send;

    /// Writes all of these, or none.
    fn write(&mut self, changes: &[Change]) -> impl Future<Output = Result<(), StoreError>> + Send;
}
