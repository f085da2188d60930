//! What virtual and physical function have to say to each other: which protocol, what the device can do, which ring pair carries
//! what, and that a reset is coming. The physical function belongs to the kernel's own driver.
//!
//! Everything here waits, in small steps that are counted and not timed: a process that was stopped meanwhile has not waited.
//!
//! | module | what it holds |
//! |---|---|
//! | `post` | one message there and one back, in the manner of each generation |
//! | `block` | tables read octet by octet, and their checksum |

mod block;
mod post;

use std::sync::Arc;

use crate::generation::Generation;
use crate::pci::{PciError, PciFunction};
use block::Block;
use post::{Message, Post};

/// The latest protocol this driver speaks.
const OURS: u32 = 5;
/// From which version on there are capabilities, and a map of ring pairs.
const WITH_CAPS: u8 = 2;
const WITH_MAP: u8 = 4;
/// From which version on the virtual function says when it is ready for a restart.
const WITH_FALLBACK: u8 = 5;

/// Messages to the physical function.
const INIT: u8 = 3;
const SHUTDOWN: u8 = 4;
const COMPATIBLE_VERSION: u8 = 6;
const RESTARTING_COMPLETE: u8 = 0x0a;
const RESET_PAIR: u8 = 0x10;
/// Messages from it.
const RESTARTING: u8 = 1;
const VERSION: u8 = 2;
const FATAL_ERROR: u8 = 4;
const RESTARTED: u8 = 5;
const PAIR_RESET: u8 = 0x10;

/// Tables.
const CAPABILITIES: u8 = 2;
const RING_MAP: u8 = 3;

/// How often an exchange is tried.
const TRIES: usize = 5;

/// Something the physical function said unasked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// It is about to reset; nothing more may be submitted.
    Restarting,
    /// It has.
    Restarted,
    /// All that is out is lost.
    FatalError,
}

/// What both sides agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Agreement {
    /// Protocol of the physical function; 0 when it does not answer.
    pub(crate) version: u8,
    /// Bit mask of what the device can do.
    pub(crate) caps: u32,
    /// Which ring pair carries what.
    pub(crate) map: u16,
}

/// The mailbox of one function; one thread uses it at a time.
pub(crate) struct Mailbox {
    post: Post,
    generation: &'static Generation,
}

impl Mailbox {
    pub(crate) fn new(function: &Arc<dyn PciFunction>, generation: &'static Generation) -> Self {
        Mailbox { post: Post::new(function, generation), generation }
    }

    /// Agrees on a version, and asks what there is.
    ///
    /// # Errors
    /// [`PciError`] when the two do not get along. A physical function that says nothing at all is none: the defaults of the
    /// generation hold then, as vendors' drivers take it.
    pub(crate) fn agree(&mut self) -> Result<Agreement, PciError> {
        let (default_caps, default_map) = (self.generation.default_caps, self.generation.default_map);
        self.post.speak(0);
        let asked = self.exchange(COMPATIBLE_VERSION, OURS, VERSION);
        let Some(answer) = asked? else {
            tracing::warn!(
                "qat: the physical function does not answer: taking the defaults of {}",
                self.generation.name
            );
            return Ok(Agreement { version: 0, caps: default_caps, map: default_map });
        };
        let (version, verdict) = (answer as u8, answer >> 8 & 3);
        // 3: the virtual function is newer than the physical one, and it is up to us. Every older version does.
        if version == 0 || !matches!(verdict, 1 | 3) {
            return Err(PciError::Unusable(format!(
                "the host's driver of the physical function speaks version {version} of the mailbox protocol and calls \
                 version {OURS}, which is ours, incompatible: update the host's kernel (or its out-of-tree qat driver) so \
                 that it and this program agree"
            )));
        }
        self.post.speak(version);
        let caps = if version >= WITH_CAPS { self.table(CAPABILITIES)?.caps()? } else { default_caps };
        let map = if version >= WITH_MAP { self.table(RING_MAP)?.map()? } else { default_map };
        Ok(Agreement { version, caps, map: if map == 0 { default_map } else { map } })
    }

    /// Says that rings are in use.
    pub(crate) fn say_init(&mut self) -> Result<(), PciError> {
        self.tell(INIT, 0)
    }

    /// Says that they are no longer.
    pub(crate) fn say_shutdown(&mut self) -> Result<(), PciError> {
        self.tell(SHUTDOWN, 0)
    }

    /// Says that the physical function may restart, where it wants to know.
    pub(crate) fn say_restarting_complete(&mut self) -> Result<(), PciError> {
        if self.post.version() < WITH_FALLBACK {
            return Ok(());
        }
        self.tell(RESTARTING_COMPLETE, 0)
    }

    /// Has one ring pair reset, where that exists.
    pub(crate) fn reset_pair(&mut self, bank: u8) -> Result<(), PciError> {
        if !self.generation.resets_pairs {
            return Ok(());
        }
        match self.exchange(RESET_PAIR, u32::from(bank), PAIR_RESET)? {
            // A physical function that cannot do it says 1; the function was reset as a whole before, which does as well.
            None | Some(0 | 1) => Ok(()),
            Some(code) => Err(PciError::Protocol(format!("ring pair {bank} was not reset: code {code}"))),
        }
    }

    /// What was said unasked since the last call.
    pub(crate) fn take(&mut self) -> Option<Event> {
        let kind = self.post.take_unasked()?;
        match kind {
            RESTARTING => Some(Event::Restarting),
            RESTARTED => Some(Event::Restarted),
            FATAL_ERROR => Some(Event::FatalError),
            _ => None,
        }
    }

    fn tell(&mut self, kind: u8, data: u32) -> Result<(), PciError> {
        for _ in 0..TRIES {
            if self.post.send(Message { kind, data }) {
                return Ok(());
            }
        }
        Err(PciError::Gone(format!("the physical function does not take message {kind}")))
    }

    /// The data of the answer; `None` when none ever came.
    fn exchange(&mut self, kind: u8, data: u32, answer: u8) -> Result<Option<u32>, PciError> {
        for _ in 0..TRIES {
            if !self.post.send(Message { kind, data }) {
                continue;
            }
            match self.post.receive() {
                Some(message) if message.kind == answer => return Ok(Some(message.data)),
                Some(message) => {
                    let got = message.kind;
                    return Err(PciError::Protocol(format!(
                        "the physical function answers message {kind} with {got} instead of {answer}"
                    )));
                }
                None => {}
            }
        }
        Ok(None)
    }

    /// Reads a table, until its checksum is right.
    fn table(&mut self, kind: u8) -> Result<Block, PciError> {
        let mut last = None;
        for _ in 0..TRIES {
            let read = |data| match self.exchange(block::SMALL_REQUEST, data, block::RESPONSE)? {
                Some(data) => Ok(data),
                None => Err(PciError::Gone("the physical function stopped answering".into())),
            };
            match Block::read(kind, read) {
                Err(error @ PciError::Protocol(_)) => last = Some(error),
                other => return other,
            }
        }
        Err(last.unwrap_or_else(|| PciError::Protocol("no table".into())))
    }
}

#[cfg(test)]
mod tests;
