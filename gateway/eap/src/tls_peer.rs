//! The peer's side of the methods in TLS: the counterpart of the server's, packet by packet.

use std::sync::Arc;

use crate::config::{MethodKind, PeerConfig, Random};
use crate::eap_tls::TlsWithin;
use crate::method::{Found, PeerMethod, Proof, Reply};
use crate::peap::PeapWithin;
use crate::tls::{Carrier, Channel, Got, Keys, start};
use crate::ttls::TtlsWithin;

/// What the peer does inside TLS.
pub(crate) trait Inner: Send {
    /// The handshake is over.
    fn begin(&mut self, channel: &Channel) -> Next;

    /// Takes what the server wrote; nothing, if it sent an empty packet. `id` is the identifier of its packet.
    fn receive(&mut self, plain: &[u8], id: u8, channel: &Channel) -> Next;

    /// Goes on after [`Next::Wait`].
    fn poll(&mut self) -> Next {
        Next::Wait
    }

    /// What came of it, if the server may call it a success now.
    fn succeed(&self) -> Option<Found>;
}

/// What to do next inside.
pub(crate) enum Next {
    /// Write this.
    Write(Vec<u8>),
    /// Nothing to say: the server goes on.
    Listen,
    /// Somebody is asked for the password.
    Wait,
    /// It failed; the server is told this, if anything.
    Fail(Option<Vec<u8>>, String),
}

/// A method in TLS.
pub(crate) fn method(
    kind: MethodKind,
    config: Arc<PeerConfig>,
    random: Random,
) -> Result<Box<dyn PeerMethod>, String> {
    let tls = config.tls.as_ref().ok_or("there are no CAs to verify the server with")?;
    let carrier = Carrier::new(tls.open()?);
    let (keys, inner): (Keys, Box<dyn Inner>) = match kind {
        MethodKind::Ttls => (Keys::Ttls, Box::new(TtlsWithin::new(config, random))),
        MethodKind::Peap => (Keys::Peap, Box::new(PeapWithin::new(config, random))),
        _ => (Keys::Tls, Box::new(TlsWithin::new(config))),
    };
    Ok(Box::new(TlsPeerMethod { kind, keys, carrier, inner, phase: Phase::Asleep }))
}

struct TlsPeerMethod {
    kind: MethodKind,
    keys: Keys,
    carrier: Carrier,
    inner: Box<dyn Inner>,
    phase: Phase,
}

#[derive(PartialEq)]
enum Phase {
    /// The server has not started.
    Asleep,
    Handshake,
    Inside,
}

impl TlsPeerMethod {
    fn on_message(&mut self, plain: &[u8], id: u8) -> Reply {
        if self.phase == Phase::Handshake {
            if !self.carrier.channel.is_up() {
                return Reply::Answer(self.speak());
            }
            self.phase = Phase::Inside;
            let next = self.inner.begin(&self.carrier.channel);
            if plain.is_empty() || !matches!(next, Next::Listen) {
                return self.go_on(next);
            }
        }
        let next = self.inner.receive(plain, id, &self.carrier.channel);
        self.go_on(next)
    }

    fn go_on(&mut self, next: Next) -> Reply {
        match next {
            Next::Write(plain) => match self.carrier.channel.write(&plain) {
                Ok(()) => Reply::Answer(self.speak()),
                Err(why) => Reply::Fail(None, why),
            },
            Next::Listen => Reply::Answer(self.speak()),
            Next::Wait => Reply::Wait,
            Next::Fail(None, why) => Reply::Fail(None, why),
            Next::Fail(Some(plain), why) => match self.carrier.channel.write(&plain) {
                Ok(()) => Reply::Fail(Some(self.speak()), why),
                Err(_) => Reply::Fail(None, why),
            },
        }
    }

    /// What TLS has to say, or an empty packet.
    fn speak(&mut self) -> Vec<u8> {
        self.carrier.flush().unwrap_or_else(|| vec![0])
    }
}

impl PeerMethod for TlsPeerMethod {
    fn receive(&mut self, data: &[u8], id: u8) -> Reply {
        if self.phase == Phase::Asleep {
            // A server that offers a later version of PEAP takes ours, which is 0, for an answer.
            if start(data).is_none() {
                return Reply::Ignore;
            }
            self.phase = Phase::Handshake;
            return Reply::Answer(self.speak());
        }
        match self.carrier.receive(data) {
            Ok(Got::Reply(packet)) => Reply::Answer(packet),
            Ok(Got::Message(plain)) => self.on_message(&plain, id),
            // The server is told by an alert if it was our doing; if it was its own, it waits for an empty packet.
            Ok(Got::Dead(why)) => Reply::Fail(Some(self.speak()), why),
            Err(why) => Reply::Fail(None, why),
        }
    }

    fn poll(&mut self) -> Reply {
        let next = self.inner.poll();
        self.go_on(next)
    }

    fn succeed(&self) -> Option<Result<Proof, String>> {
        if self.phase != Phase::Inside {
            return None;
        }
        let Found { identity, inner, msk } = self.inner.succeed()?;
        let method = match inner {
            Some(inner) => format!("{} with {inner}", self.kind),
            None => self.kind.to_string(),
        };
        let msk = msk.map_or_else(|| self.keys.msk(&self.carrier.channel), Ok);
        Some(msk.map(|msk| Proof { identity, method, msk: Some(msk) }))
    }
}
