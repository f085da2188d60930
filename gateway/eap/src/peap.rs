//! PEAP version 0 (type 25, as Windows has it: [MS-PEAP]): EAP once more through the tunnel, its packets without their
//! header, and at the end one TLV each way in which both sides say how it went.
//!
//! The key is that of the tunnel. Windows' compound binding, which mixes the inner method's key in, is neither asked for
//! nor answered: who insists on it is refused, as docs/decisions has it.

use std::sync::Arc;

use wire::eap::EapMessage;
use wire::numbers::{EapCode, EapType};
use zeroize::Zeroizing;

use crate::config::{PeerConfig, Random, ServerConfig};
use crate::method::REFUSED_PASSWORD;
use crate::nested::{NestedPeer, NestedServer, Said};
use crate::tls::Channel;
use crate::tls_peer::{Inner, Next};
use crate::tls_server::{Inside, Within};

/// The type of the packets that TLVs are in. These keep their header.
const EXTENSIONS: EapType = EapType(33);
/// Result, which is mandatory, with two octets in it.
const RESULT: [u8; 4] = [0x80, 3, 0, 2];
const SUCCESS: u16 = 1;
const FAILURE: u16 = 2;

/// The server's side of the tunnel.
pub(crate) struct PeapInside {
    config: Arc<ServerConfig>,
    random: Random,
    state: Waiting,
}

enum Waiting {
    Nothing,
    Eap(NestedServer),
    /// The peer's agreement that it went well: who it is, and the method.
    Agreement(String, String),
    /// Its word that it knows how badly it went.
    Regret(String),
}

impl PeapInside {
    pub(crate) fn new(config: Arc<ServerConfig>, random: Random) -> Self {
        PeapInside { config, random, state: Waiting::Nothing }
    }

    fn go_on(&mut self, said: Said, id: u8) -> Within {
        match said {
            Said::Packet(packet) => match packet.get(4..) {
                Some(headless) => Within::Write(headless.to_vec()),
                None => Within::Refuse("a packet without a type".into()),
            },
            Said::Nothing => Within::Listen,
            Said::Accepted { identity, method } => {
                self.state = Waiting::Agreement(identity, method);
                Within::Write(result(EapCode::REQUEST, id, SUCCESS))
            }
            Said::Refused(why) => {
                self.state = Waiting::Regret(why);
                Within::Write(result(EapCode::REQUEST, id, FAILURE))
            }
        }
    }
}

impl Inside for PeapInside {
    fn begin(&mut self, _: &Channel, id: u8) -> Within {
        let Some(mut nested) = NestedServer::new(&self.config, &self.random) else {
            return Within::Refuse("no EAP method is allowed inside".into());
        };
        nested.set_next_id(id);
        let said = nested.receive(None);
        self.state = Waiting::Eap(nested);
        self.go_on(said, id)
    }

    fn receive(&mut self, plain: &[u8], _: &Channel, id: u8) -> Within {
        match &mut self.state {
            Waiting::Nothing => Within::Listen,
            Waiting::Eap(_) if plain.is_empty() => Within::Listen,
            Waiting::Eap(nested) => {
                let packet = whole(plain, EapCode::RESPONSE, nested.id());
                nested.set_next_id(id);
                let said = nested.receive(Some(&packet));
                self.go_on(said, id)
            }
            Waiting::Agreement(identity, method) => {
                let packet = whole(plain, EapCode::RESPONSE, 0);
                if outcome(&packet, EapCode::RESPONSE) == Some(SUCCESS) {
                    return Within::Accept(std::mem::take(identity), Some(std::mem::take(method)));
                }
                Within::Refuse("the peer does not agree that it went well".into())
            }
            Waiting::Regret(why) => Within::Refuse(std::mem::take(why)),
        }
    }
}

/// The peer's side of the tunnel.
pub(crate) struct PeapWithin {
    config: Arc<PeerConfig>,
    nested: NestedPeer,
    /// The method inside, once both sides have said that it went well.
    agreed: Option<String>,
}

impl PeapWithin {
    pub(crate) fn new(config: Arc<PeerConfig>, random: Random) -> Self {
        PeapWithin { nested: NestedPeer::new(&config, &random), config, agreed: None }
    }

    fn on_result(&mut self, packet: &[u8], id: u8) -> Next {
        let why = match (outcome(packet, EapCode::REQUEST), self.nested.content()) {
            (Some(SUCCESS), Some(method)) => {
                self.agreed = Some(method);
                return Next::Write(result(EapCode::RESPONSE, id, SUCCESS));
            }
            (Some(SUCCESS), None) => "the server says success before it has proved itself",
            (Some(FAILURE), _) => REFUSED_PASSWORD,
            _ => "the server asks for something that we do not do",
        };
        Next::Fail(Some(result(EapCode::RESPONSE, id, FAILURE)), why.into())
    }

    fn go_on(&mut self, said: Said) -> Next {
        match said {
            Said::Packet(packet) => match packet.get(4..) {
                Some(headless) => Next::Write(headless.to_vec()),
                None => Next::Fail(None, "a packet without a type".into()),
            },
            Said::Nothing => Next::Wait,
            // Success and failure are said by TLV, or outside.
            Said::Accepted { .. } => Next::Listen,
            Said::Refused(why) => Next::Fail(Some(Vec::new()), why),
        }
    }
}

impl Inner for PeapWithin {
    fn begin(&mut self, _: &Channel) -> Next {
        Next::Listen
    }

    fn receive(&mut self, plain: &[u8], id: u8, _: &Channel) -> Next {
        if plain.is_empty() {
            return Next::Listen;
        }
        let packet = whole(plain, EapCode::REQUEST, id);
        if EapMessage::parse(&packet).is_ok_and(|message| message.kind == Some(EXTENSIONS)) {
            return self.on_result(&packet, id);
        }
        let said = self.nested.receive(&packet);
        self.go_on(said)
    }

    fn poll(&mut self) -> Next {
        let said = self.nested.poll();
        self.go_on(said)
    }

    fn succeed(&self) -> Option<(String, Option<String>)> {
        Some((self.config.identity.clone(), Some(self.agreed.clone()?)))
    }
}

/// A packet with its header: TLVs have kept it, and some servers leave it on their first request, too.
fn whole(plain: &[u8], code: EapCode, identifier: u8) -> Zeroizing<Vec<u8>> {
    let has_header = EapMessage::parse(plain).is_ok_and(|message| {
        let exact = plain.get(2..4) == Some(&(plain.len() as u16).to_be_bytes()[..]);
        let kind = message.kind == Some(EXTENSIONS)
            || (message.kind == Some(EapType::IDENTITY) && message.data.is_empty());
        message.code == code && exact && kind
    });
    if has_header {
        return Zeroizing::new(plain.to_vec());
    }
    let mut packet = Zeroizing::new(Vec::with_capacity(4 + plain.len()));
    // No message of a tunnel is as long as the length could not say.
    let length = u16::try_from(4 + plain.len()).unwrap_or(u16::MAX);
    packet.extend_from_slice(&[code.0, identifier]);
    packet.extend_from_slice(&length.to_be_bytes());
    packet.extend_from_slice(plain);
    packet
}

/// A packet with a Result TLV.
fn result(code: EapCode, identifier: u8, value: u16) -> Vec<u8> {
    let [hi, lo] = value.to_be_bytes();
    [&[code.0, identifier, 0, 11, EXTENSIONS.0][..], &RESULT, &[hi, lo]].concat()
}

/// What the Result TLV of a packet says.
fn outcome(packet: &[u8], code: EapCode) -> Option<u16> {
    let message = EapMessage::parse(packet).ok()?;
    let mut tlvs = message.data;
    if message.code != code || message.kind != Some(EXTENSIONS) {
        return None;
    }
    while let Some(([a, b, hi, lo], rest)) = tlvs.split_first_chunk::<4>() {
        let (value, after) = rest.split_at_checked(usize::from(u16::from_be_bytes([*hi, *lo])))?;
        // The highest bit is "mandatory".
        if [a & 0x3f, *b] == [0, RESULT[1]] {
            return value.try_into().ok().map(u16::from_be_bytes);
        }
        tlvs = after;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_put_back_where_they_were_left_off() {
        let whole = |plain: &[u8]| whole(plain, EapCode::REQUEST, 7).to_vec();
        assert_eq!(whole(&[1]), [1, 7, 0, 5, 1], "identity, as it should be");
        assert_eq!(whole(&[1, 9, 0, 5, 1]), [1, 9, 0, 5, 1], "identity with its header");
        assert_eq!(whole(&[26, 1, 2]), [1, 7, 0, 7, 26, 1, 2]);
        let tlv = result(EapCode::REQUEST, 3, SUCCESS);
        assert_eq!(whole(&tlv), tlv);
    }

    #[test]
    fn results_are_found_among_other_tlvs() {
        let mut packet = result(EapCode::REQUEST, 3, FAILURE);
        assert_eq!(outcome(&packet, EapCode::REQUEST), Some(FAILURE));
        assert_eq!(outcome(&packet, EapCode::RESPONSE), None);
        packet.splice(5..5, [0, 12, 0, 1, 9]);
        packet[3] += 5;
        assert_eq!(outcome(&packet, EapCode::REQUEST), Some(FAILURE));
        packet[8] = 200;
        assert_eq!(outcome(&packet, EapCode::REQUEST), None);
    }
}
