//! What the supervisor and its processes say to each other. Each answer has the token of what it answers.

use std::os::fd::OwnedFd;

use ipc::codec::{Broken, Message};
use serde::{Deserialize, Serialize};

use super::users::User;

/// Which build this is; processes of two builds do not talk.
pub(super) const BUILD: &str = env!("CARGO_PKG_VERSION");

/// A word. Who may say what is with each; whoever hears another ignores it.
#[derive(Serialize, Deserialize)]
pub(super) enum Word {
    /// To a process: begin. Answered by `Ready` or `Failed`.
    Begin(Begin),
    /// To the gateway: the channel to another key side.
    Channel {
        /// The key side's process and user.
        party: (i32, u32),
        #[serde(skip)]
        fds: Vec<OwnedFd>,
    },
    /// To a process: another configuration. Answered by `Done` or `Failed`.
    Reload {
        #[serde(skip)]
        fds: Vec<OwnedFd>,
    },
    /// To a process: end.
    Stop,
    /// From a process: it has begun. With what is worth a word.
    Ready(Vec<String>),
    /// Done, and what came of it.
    Done(String),
    /// It did not work.
    Failed(String),
    /// From the reader: the public part and the secret part, and what is worth a word.
    Parts {
        warnings: Vec<String>,
        #[serde(skip)]
        fds: Vec<OwnedFd>,
    },
    /// From the gateway: have the configuration read again. Answered by `Done` or `Failed`.
    PleaseReload,
    /// From the gateway, and to the key side: how are the devices that hold keys? Answered by `Devices`.
    PleaseLook,
    /// `report::AccelDevice`s, in JSON.
    Devices(String),
}

/// What a process needs to begin.
#[derive(Serialize, Deserialize)]
pub(super) struct Begin {
    /// Its build must be the supervisor's.
    pub(super) build: String,
    /// Whom to become; `None`: nobody else.
    pub(super) user: Option<User>,
    /// The supervisor's process: without it there is no reason to live.
    pub(super) supervisor: i32,
    /// The process at the other end of the channel, and its user.
    pub(super) party: (i32, u32),
    /// Whether another key side was here before, for a gateway that still runs.
    pub(super) inherits: bool,
    /// The configuration, the channel, the listening socket: the gateway's or the key side's.
    #[serde(skip)]
    pub(super) fds: Vec<OwnedFd>,
}

impl Message for Word {
    fn check(&self) -> Result<(), Broken> {
        // All of it is bounded by the length of a message.
        Ok(())
    }

    fn take_fds(&mut self) -> Vec<OwnedFd> {
        self.fds().map(std::mem::take).unwrap_or_default()
    }

    fn give_fds(&mut self, came: Vec<OwnedFd>) -> Result<(), Broken> {
        match self.fds() {
            Some(fds) => *fds = came,
            None if came.is_empty() => {}
            None => return Err(Broken::Descriptors),
        }
        Ok(())
    }
}

impl Word {
    fn fds(&mut self) -> Option<&mut Vec<OwnedFd>> {
        match self {
            Word::Begin(Begin { fds, .. })
            | Word::Channel { fds, .. }
            | Word::Reload { fds }
            | Word::Parts { fds, .. } => Some(fds),
            _ => None,
        }
    }
}
