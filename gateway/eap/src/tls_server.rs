//! The server's side of the methods in TLS: a handshake, and then what runs inside.
//!
//! 1. Start: a packet with the S flag.
//! 2. The handshake, in messages of one or more fragments. A failed one ends with TLS's own alert.
//! 3. A client that showed a certificate: whether that was revoked.
//! 4. The phase inside, when TLS has nothing more to say: EAP-TLS is through, EAP-TTLS waits for the peer, PEAP asks.

use std::sync::Arc;

use zeroize::Zeroizing;

use crate::config::{MethodKind, Random, ServerConfig};
use crate::eap_tls::TlsInside;
use crate::judge::{Inquiry, Judge};
use crate::method::{Found, Proof, ServerMethod, Turn};
use crate::peap::PeapInside;
use crate::tls::{Carrier, Channel, Got, Keys, START};
use crate::ttls::TtlsInside;

/// What runs inside TLS.
pub(crate) trait Inside: Send {
    /// The handshake is over and everything of it is sent. `id` is the identifier of the packet that the answer will
    /// be in.
    fn begin(&mut self, channel: &Channel, id: u8) -> Within;

    /// Takes what the peer wrote; nothing, if it sent an empty packet.
    fn receive(&mut self, plain: &[u8], channel: &Channel, id: u8) -> Within;

    /// Why it has failed, if what was written last says so.
    fn failed(&self) -> Option<String> {
        None
    }
}

/// What to do next inside.
pub(crate) enum Within {
    /// Write this.
    Write(Vec<u8>),
    /// The peer is to write.
    Listen,
    /// The peer is who it says.
    Accept(Found),
    /// It failed.
    Refuse(String),
}

/// A method in TLS.
pub(crate) fn method(
    kind: MethodKind,
    config: Arc<ServerConfig>,
    claimed: Option<String>,
    random: Random,
    judge: Option<Arc<dyn Judge>>,
) -> Result<Box<dyn ServerMethod>, String> {
    let tls = config.tls.as_ref().ok_or("there is no certificate of the server")?;
    let channel = tls.open(kind == MethodKind::Tls)?;
    let (keys, inside): (Keys, Box<dyn Inside>) = match kind {
        MethodKind::Ttls => (Keys::Ttls, Box::new(TtlsInside::new(config, random))),
        MethodKind::Peap => (Keys::Peap, Box::new(PeapInside::new(config, random))),
        _ => (Keys::Tls, Box::new(TlsInside::new(claimed))),
    };
    Ok(Box::new(TlsServerMethod {
        kind,
        keys,
        carrier: Carrier::new(channel),
        inside,
        judge,
        phase: Phase::Handshake,
    }))
}

struct TlsServerMethod {
    kind: MethodKind,
    keys: Keys,
    carrier: Carrier,
    inside: Box<dyn Inside>,
    judge: Option<Arc<dyn Judge>>,
    phase: Phase,
}

enum Phase {
    Handshake,
    /// The handshake is over, and its last message on its way.
    Last,
    /// A judge is asked, and then what the peer wrote is looked at; with the identifier of the packet that the answer will be in.
    Judging(Box<dyn Inquiry>, Zeroizing<Vec<u8>>, u8),
    Inside,
    /// An alert is on its way.
    Dead(String),
}

impl TlsServerMethod {
    fn on_message(&mut self, plain: &[u8], id: u8) -> Turn {
        match &mut self.phase {
            Phase::Handshake => {
                if !self.carrier.channel.is_up() {
                    return Turn::Ask(self.carrier.flush().unwrap_or_else(|| vec![0]));
                }
                if let Some(last) = self.carrier.flush() {
                    self.phase = Phase::Last;
                    return Turn::Ask(last);
                }
                self.enter(plain, id)
            }
            Phase::Last => self.enter(plain, id),
            Phase::Judging(..) => Turn::Ignore,
            Phase::Inside => {
                let next = self.inside.receive(plain, &self.carrier.channel, id);
                self.go_on(next)
            }
            Phase::Dead(why) => Turn::Refuse(std::mem::take(why)),
        }
    }

    fn enter(&mut self, plain: &[u8], id: u8) -> Turn {
        let chain = self.carrier.channel.certificates();
        if let Some(judge) = self.judge.as_ref().filter(|_| !chain.is_empty()) {
            self.phase = Phase::Judging(judge.begin(chain), Zeroizing::new(plain.to_vec()), id);
            return self.poll();
        }
        self.inside(plain, id)
    }

    fn inside(&mut self, plain: &[u8], id: u8) -> Turn {
        self.phase = Phase::Inside;
        let mut next = self.inside.begin(&self.carrier.channel, id);
        if matches!(next, Within::Listen) && !plain.is_empty() {
            next = self.inside.receive(plain, &self.carrier.channel, id);
        }
        self.go_on(next)
    }

    fn go_on(&mut self, next: Within) -> Turn {
        match next {
            Within::Write(plain) => {
                if let Err(why) = self.carrier.channel.write(&plain) {
                    return Turn::Refuse(why);
                }
                self.listen()
            }
            Within::Listen => self.listen(),
            Within::Refuse(why) => Turn::Refuse(why),
            Within::Accept(Found { identity, inner, msk }) => {
                let method = match inner {
                    Some(inner) => format!("{} with {inner}", self.kind),
                    None => self.kind.to_string(),
                };
                match msk.map_or_else(|| self.keys.msk(&self.carrier.channel), Ok) {
                    Ok(msk) => Turn::Accept(Proof { identity, method, msk: Some(msk) }),
                    Err(why) => Turn::Refuse(why),
                }
            }
        }
    }

    /// Lets the peer speak: after what TLS has to say, or after an empty packet.
    fn listen(&mut self) -> Turn {
        Turn::Ask(self.carrier.flush().unwrap_or_else(|| vec![0]))
    }
}

impl ServerMethod for TlsServerMethod {
    fn begin(&mut self, _: u8) -> Turn {
        // Version 0 of EAP-TTLS and PEAP, and the reserved bits of EAP-TLS.
        Turn::Ask(vec![START])
    }

    fn receive(&mut self, data: &[u8], id: u8) -> Turn {
        match &mut self.phase {
            // An alert is one short packet, and whatever the peer says of it is the end.
            Phase::Dead(why) => return Turn::Refuse(std::mem::take(why)),
            // It is not its turn.
            Phase::Judging(..) => return Turn::Ignore,
            _ => {}
        }
        match self.carrier.receive(data) {
            Ok(Got::Reply(packet)) => Turn::Ask(packet),
            Ok(Got::Message(plain)) => self.on_message(&plain, id),
            Ok(Got::Dead(why)) => match self.carrier.flush() {
                Some(alert) => {
                    self.phase = Phase::Dead(why);
                    Turn::Ask(alert)
                }
                None => Turn::Refuse(why),
            },
            Err(why) => Turn::Refuse(why),
        }
    }

    fn poll(&mut self) -> Turn {
        let Phase::Judging(inquiry, plain, id) = &mut self.phase else { return Turn::Wait };
        match inquiry.poll() {
            None => Turn::Wait,
            Some(Ok(())) => {
                let (plain, id) = (std::mem::take(plain), *id);
                self.inside(&plain, id)
            }
            Some(Err(why)) => Turn::Refuse(why),
        }
    }

    fn failed(&self) -> Option<String> {
        match &self.phase {
            Phase::Dead(why) => Some(why.clone()),
            _ => self.inside.failed(),
        }
    }

    fn is_judging(&self) -> bool {
        matches!(self.phase, Phase::Judging(..))
    }
}
