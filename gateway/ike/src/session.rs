//! Sessions of peers that an authentication server let in: what it granted, and what it wants changed later.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipc::{EapGrant, Role};

use crate::core::Timer;
use crate::effect::{Effect, IkeSaId, Why};
use crate::engine::Engine;

/// Why a session ended, as far as others than us want to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The peer said so.
    Peer,
    /// The peer does not answer.
    Silence,
    /// Its time was over.
    Time,
    /// The same peer came anew.
    Replaced,
    /// We wanted it.
    Meant,
    /// Something went wrong.
    Failure,
}

pub(crate) const BY_PEER: &str = "deleted by the peer";
pub(crate) const TIME_OVER: &str = "the time is over for which the peer was let in";
pub(crate) const NEWER: &str = "the same peer has a newer IKE SA";
pub(crate) const INITIAL_CONTACT: &str = "INITIAL_CONTACT of the same peer";

impl Why {
    /// What kind of end this is for a session.
    pub fn ending(&self) -> Ending {
        match self {
            Why::Normal(text) => match text.as_str() {
                BY_PEER => Ending::Peer,
                TIME_OVER => Ending::Time,
                NEWER | INITIAL_CONTACT => Ending::Replaced,
                _ => Ending::Meant,
            },
            Why::Timeout(_) => Ending::Silence,
            _ => Ending::Failure,
        }
    }
}

impl Engine {
    /// What a server granted the peer of an IKE SA, and the inner addresses the peer has.
    pub fn granted(&self, id: IkeSaId) -> Option<(Arc<EapGrant>, Vec<IpAddr>)> {
        let sa = self.sas.get(&id).filter(|sa| sa.role == Role::Responder || sa.granted.is_some())?;
        let addresses = sa.ext.cfg().leased.iter().map(|inner| inner.address).collect();
        Some((sa.granted.clone()?, addresses))
    }

    /// Ends the IKE SA.
    pub fn end_session(&mut self, now: Instant, id: IkeSaId, why: &str, fx: &mut Vec<Effect>) {
        self.core.now = now;
        self.with(id, |sa, cx| sa.finish(cx, why));
        self.settle(fx);
    }

    /// Lets the peer stay for so long from now.
    pub fn extend_session(&mut self, now: Instant, id: IkeSaId, time: Duration, fx: &mut Vec<Effect>) {
        self.core.now = now;
        self.with(id, |sa, cx| {
            sa.session_until = now.checked_add(time);
            cx.arm(Timer::Session(id), time);
        });
        self.settle(fx);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_told_apart() {
        for (text, ending) in [
            (BY_PEER, Ending::Peer),
            (TIME_OVER, Ending::Time),
            (NEWER, Ending::Replaced),
            (INITIAL_CONTACT, Ending::Replaced),
            ("deleted", Ending::Meant),
        ] {
            assert_eq!(Why::Normal(text.into()).ending(), ending);
        }
        assert_eq!(Why::Timeout("x".into()).ending(), Ending::Silence);
        assert_eq!(Why::Device("x".into()).ending(), Ending::Failure);
    }
}
