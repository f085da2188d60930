//! The side that holds the keys: long-term secrets, the proofs made with them, the verification of peers, and the changes to
//! the machine's network. It runs on a thread of its own behind [`ipc`]; nothing of it faces the network.
//!
//! | module | what it holds |
//! |---|---|
//! | [`config`], [`load`], `handed` | what it is told, and how files become that, and how it gets to a process of its own |
//! | `run` | the thread: [`spawn`], [`Running`], [`Handle`] |
//! | `authority` | proofs made and checked |
//! | `octets` | what a proof is about, put together here and nowhere else |
//! | `method`, `algorithm` | authentication methods and algorithm identifiers |
//! | `eap`, `eap_methods`, `eap_judge` | EAP conversations, and what they bring; what they are made of; who judges certificates in them |
//! | `psk` | pre-shared keys by identity |
//! | `radius` | RADIUS servers: conversations through them, accounts of sessions, and orders about them |
//! | `candidates` | which of its realms a peer belongs to |
//! | [`pins`] | keys that were believed at first use |
//! | `vault`, `devices` | keys that are open, and where |
//! | `validator`, `path`, `usage`, `cert`, `key`, `identity` | certificates: from CERT payloads to a key that speaks for an identity |
//! | `constraints` | which names a CA may vouch for |
//! | `revocation`, `crl`, `ocsp` | whether a certificate was revoked |
//! | `fetch` | what has to be fetched from elsewhere, by threads of their own |
//! | `known` | chains that were found good |
//! | `permit`, `kernel`, `rules`, `netlink`, `tun_ioctl` | TUN devices, addresses, routes: who may ask, and how it is done |
//! | `neighbours`, `names` | addresses of clients answered for on other devices; name servers of peers |

mod algorithm;
mod authority;
mod candidates;
mod cert;
pub mod config;
mod constraints;
mod crl;
mod dbus;
mod devices;
mod eap;
mod eap_judge;
mod eap_methods;
mod fetch;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod handed;
mod identity;
mod kernel;
mod key;
mod known;
pub mod load;
mod method;
mod names;
mod neighbours;
mod netlink;
mod ocsp;
mod octets;
mod path;
mod permit;
pub mod pins;
mod psk;
mod radius;
mod resolved;
mod revocation;
mod rules;
mod run;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod tun_ioctl;
mod usage;
mod validator;
mod vault;

pub use config::{
    Certificate, Config, Credentials, CrlSource, EapCredentials, EapInner, EapUser, Lookups, OwnCertificate,
    OwnKey, Psk, Radius, RadiusDynamic, RadiusServer, RadiusTls, RawKey, Revocation, RevocationMode, Rules,
    Trust,
};
pub use load::LoadError;
/// Opens the machine's resolv.conf, for a key side that will not be able to; see [`Config::resolv_conf`].
///
/// # Errors
/// What the system says.
pub fn open_resolv_conf() -> std::io::Result<std::fs::File> {
    names::open(std::path::Path::new("/etc/resolv.conf"))
}

pub use run::{Handle, Passwords, Running, Served, check, serve, spawn, spawn_on};
pub use validator::Validator;
pub use vault::{Problem, authorities};
