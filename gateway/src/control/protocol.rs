//! Requests and answers. A client sends one request; all but `events` and `capture` get one answer. Those two get an answer
//! and then, until the client goes, events as JSON lines, or the octets of a pcapng file.

use ike::Command;
use serde::{Deserialize, Serialize};

use crate::report::{Accel, Leases, Sas, Status};

/// Longest request, octets.
pub const MAX_REQUEST: usize = 16 * 1024;

/// What a client wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "cmd", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Bring up a realm, or one child of it.
    Up {
        /// The realm.
        realm: String,
        /// The child.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        child: Option<String>,
    },
    /// Take down a realm, or one child of it.
    Down {
        /// The realm.
        realm: String,
        /// The child.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        child: Option<String>,
    },
    /// Rekey the IKE SA of a realm, or one child of it.
    Rekey {
        /// The realm.
        realm: String,
        /// The child.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        child: Option<String>,
    },
    /// How things are.
    Status {},
    /// The accelerators.
    Accel {},
    /// All SAs.
    Sas {},
    /// The addresses of pools that are in use or remembered.
    Leases {},
    /// Forget who had addresses that are not in use.
    ReleaseLeases {
        /// Of one realm only.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        realm: Option<String>,
        /// Of one identity only.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        identity: Option<String>,
        /// One address only.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        address: Option<std::net::IpAddr>,
    },
    /// Read the configuration again.
    Reload {},
    /// Events from now on.
    Events {},
    /// Inner packets from now on.
    Capture {},
}

/// A secret on its way to the key side: wiped when dropped, never shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Hidden(pub String);

impl std::fmt::Debug for Hidden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("hidden")
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.0);
    }
}

/// What it is answered.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// Whether it worked.
    pub ok: bool,
    /// What was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Why it did not work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// To `status`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
    /// To `accel`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accel: Option<Accel>,
    /// To `sas`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sas: Option<Sas>,
    /// To `leases`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leases: Option<Leases>,
}

impl Answer {
    /// It worked.
    pub fn done(text: impl Into<String>) -> Answer {
        Answer { ok: true, text: Some(text.into()), ..Answer::default() }
    }

    /// It did not.
    pub fn failed(error: impl ToString) -> Answer {
        Answer { error: Some(error.to_string()), ..Answer::default() }
    }
}

impl Request {
    /// What of it is for the engine.
    pub fn command(&self) -> Option<Command> {
        match self.clone() {
            Request::Up { realm, child } => Some(Command::Up { realm, child }),
            Request::Down { realm, child } => Some(Command::Down { realm, child }),
            Request::Rekey { realm, child } => Some(Command::Rekey { realm, child }),
            Request::ReleaseLeases { realm, identity, address } => {
                Some(Command::ForgetLeases { realm, identity, address })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_flat_objects_and_unknown_ones_are_refused() {
        let up: Request = serde_json::from_str(r#"{"cmd":"up","realm":"a"}"#).unwrap();
        assert_eq!(up, Request::Up { realm: "a".into(), child: None });
        assert_eq!(serde_json::to_string(&Request::Sas {}).unwrap(), r#"{"cmd":"sas"}"#);
        for wrong in [r#"{"cmd":"dance"}"#, r#"{"cmd":"up"}"#, r#"{"cmd":"up","realm":"a","x":1}"#, "[]"] {
            assert!(serde_json::from_str::<Request>(wrong).is_err(), "{wrong}");
        }
    }

    /// Whoever serves this socket faces the network.
    #[test]
    fn there_is_no_place_for_a_password() {
        let line = r#"{"cmd":"password","realm":"home","password":"Ar3etTnp"}"#;
        let refused = serde_json::from_str::<Request>(line).unwrap_err().to_string();
        assert!(!refused.contains("Ar3etTnp"), "{refused}");
    }

    #[test]
    fn answers_leave_out_what_they_do_not_have() {
        assert_eq!(serde_json::to_string(&Answer::failed("no")).unwrap(), r#"{"ok":false,"error":"no"}"#);
    }
}
