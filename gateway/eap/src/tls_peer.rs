//! The peer's side of the methods in TLS: the counterpart of the server's, packet by packet.

use std::sync::Arc;

use zeroize::Zeroizing;

use crate::config::{MethodKind, PeerConfig, Random};
use crate::eap_tls::TlsWithin;
use crate::judge::{Inquiry, Judge};
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
    judge: Option<Arc<dyn Judge>>,
) -> Result<Box<dyn PeerMethod>, String> {
    let tls = config.tls.as_ref().ok_or("there are no CAs to verify the server with")?;
    let carrier = Carrier::new(tls.open()?);
    let (keys, inner): (Keys, Box<dyn Inner>) = match kind {
        MethodKind::Ttls => (Keys::Ttls, Box::new(TtlsWithin::new(config, random))),
        MethodKind::Peap => (Keys::Peap, Box::new(PeapWithin::new(config, random))),
        _ => (Keys::Tls, Box::new(TlsWithin::new(config))),
    };
    Ok(Box::new(TlsPeerMethod { kind, keys, carrier, inner, judge, phase: Phase::Asleep }))
}

struct TlsPeerMethod {
    kind: MethodKind,
    keys: Keys,
    carrier: Carrier,
    inner: Box<dyn Inner>,
    judge: Option<Arc<dyn Judge>>,
    phase: Phase,
}

enum Phase {
    /// The server has not started.
    Asleep,
    Handshake,
    /// A judge is asked about the server, and then what it wrote is looked at; with the identifier of its packet.
    Judging(Box<dyn Inquiry>, Zeroizing<Vec<u8>>, u8),
    Inside,
}

impl TlsPeerMethod {
    fn on_message(&mut self, plain: &[u8], id: u8) -> Reply {
        if matches!(self.phase, Phase::Handshake) {
            if !self.carrier.channel.is_up() {
                return Reply::Answer(self.speak());
            }
            if let Some(judge) = &self.judge {
                let inquiry = judge.begin(self.carrier.channel.certificates());
                self.phase = Phase::Judging(inquiry, Zeroizing::new(plain.to_vec()), id);
                return self.poll();
            }
            return self.enter(plain, id);
        }
        self.inside(plain, id)
    }

    /// The handshake is over, and the server is to be believed.
    fn enter(&mut self, plain: &[u8], id: u8) -> Reply {
        self.phase = Phase::Inside;
        let next = self.inner.begin(&self.carrier.channel);
        if plain.is_empty() || !matches!(next, Next::Listen) {
            return self.go_on(next);
        }
        self.inside(plain, id)
    }

    fn inside(&mut self, plain: &[u8], id: u8) -> Reply {
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
        if matches!(self.phase, Phase::Judging(..)) {
            return Reply::Ignore;
        }
        if matches!(self.phase, Phase::Asleep) {
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
        let Phase::Judging(inquiry, plain, id) = &mut self.phase else {
            let next = self.inner.poll();
            return self.go_on(next);
        };
        match inquiry.poll() {
            None => Reply::Wait,
            Some(Ok(())) => {
                let (plain, id) = (std::mem::take(plain), *id);
                self.enter(&plain, id)
            }
            Some(Err(why)) => Reply::Fail(None, why),
        }
    }

    fn is_judging(&self) -> bool {
        matches!(self.phase, Phase::Judging(..))
    }

    fn succeed(&self) -> Option<Result<Proof, String>> {
        if !matches!(self.phase, Phase::Inside) {
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
