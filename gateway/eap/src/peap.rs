//! PEAP version 0 (type 25, as Windows has it: \[MS-PEAP\]): EAP once more through the tunnel, its packets without their
//! header, and at the end one TLV each way in which both sides say how it went.
//!
//! Our server sends a binding of tunnel and inner method along, and so do others: a peer that answers it has the key of
//! both, and one that does not has the tunnel's.

use std::sync::Arc;

use spi::Secret;
use wire::eap::EapMessage;
use wire::numbers::{EapCode, EapType};
use zeroize::Zeroizing;

use crate::config::{PeerConfig, Random, ServerConfig};
use crate::method::{Found, Proof, REFUSED_PASSWORD};
use crate::nested::{NestedPeer, NestedServer, Said};
use crate::peap_binding::{Binding, From};
use crate::tls::{Channel, Keys};
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
    /// The peer's agreement that it went well.
    Agreement(Box<(Found, Binding)>),
    /// Its word that it knows how badly it went.
    Regret(String),
}

impl PeapInside {
    pub(crate) fn new(config: Arc<ServerConfig>, random: Random) -> Self {
        PeapInside { config, random, state: Waiting::Nothing }
    }

    fn go_on(&mut self, said: Said, id: u8, channel: &Channel) -> Within {
        match said {
            Said::Packet(packet) => match packet.get(4..) {
                Some(headless) => Within::Write(headless.to_vec()),
                None => Within::Refuse("a packet without a type".into()),
            },
            Said::Nothing => Within::Listen,
            Said::Accepted { identity, method, msk } => {
                let binding = match Keys::Peap.msk(channel) {
                    Ok(tunnel) => Binding::new(&tunnel, msk.as_ref()),
                    Err(why) => return Within::Refuse(why),
                };
                let mut nonce = [0; 32];
                (self.random)(&mut nonce);
                let tlv = binding.tlv(From::Server, &nonce);
                let found = Found { identity, inner: Some(method), msk: None };
                self.state = Waiting::Agreement(Box::new((found, binding)));
                Within::Write(result(EapCode::REQUEST, id, SUCCESS, &tlv))
            }
            Said::Refused(why) => {
                self.state = Waiting::Regret(why);
                Within::Write(result(EapCode::REQUEST, id, FAILURE, &[]))
            }
        }
    }

    fn on_agreement(&mut self, plain: &[u8]) -> Within {
        let packet = whole(plain, EapCode::RESPONSE, 0);
        let tlvs = Tlvs::read(&packet, EapCode::RESPONSE);
        let Waiting::Agreement(agreed) = std::mem::replace(&mut self.state, Waiting::Nothing) else {
            return Within::Refuse("an agreement to nothing".into());
        };
        let (mut found, binding) = *agreed;
        if tlvs.result != Some(SUCCESS) {
            return Within::Refuse("the peer does not agree that it went well".into());
        }
        if let Some(theirs) = tlvs.binding {
            if binding.check(From::Peer, theirs).is_none() {
                return Within::Refuse("the peer's tunnel is another one: somebody is between us".into());
            }
            found.msk = Some(binding.msk());
        }
        Within::Accept(found)
    }
}

impl Inside for PeapInside {
    fn begin(&mut self, channel: &Channel, id: u8) -> Within {
        let Some(mut nested) = NestedServer::new(&self.config, &self.random) else {
            return Within::Refuse("no EAP method is allowed inside".into());
        };
        nested.set_next_id(id);
        let said = nested.receive(None);
        self.state = Waiting::Eap(nested);
        self.go_on(said, id, channel)
    }

    fn receive(&mut self, plain: &[u8], channel: &Channel, id: u8) -> Within {
        match &mut self.state {
            Waiting::Nothing => Within::Listen,
            Waiting::Eap(_) if plain.is_empty() => Within::Listen,
            Waiting::Eap(nested) => {
                let packet = whole(plain, EapCode::RESPONSE, nested.id());
                nested.set_next_id(id);
                let said = nested.receive(Some(&packet));
                self.go_on(said, id, channel)
            }
            Waiting::Agreement(..) => self.on_agreement(plain),
            Waiting::Regret(why) => Within::Refuse(std::mem::take(why)),
        }
    }

    fn failed(&self) -> Option<String> {
        match &self.state {
            Waiting::Regret(why) => Some(why.clone()),
            Waiting::Eap(nested) => nested.failed(),
            Waiting::Nothing | Waiting::Agreement(_) => None,
        }
    }
}

/// The peer's side of the tunnel.
pub(crate) struct PeapWithin {
    config: Arc<PeerConfig>,
    nested: NestedPeer,
    /// The method inside, once both sides have said that it went well, and the key if it is bound.
    agreed: Option<(String, Option<Secret>)>,
}

impl PeapWithin {
    pub(crate) fn new(config: Arc<PeerConfig>, random: Random) -> Self {
        PeapWithin { nested: NestedPeer::new(&config, &random), config, agreed: None }
    }

    fn on_result(&mut self, packet: &[u8], id: u8, channel: &Channel) -> Next {
        let tlvs = Tlvs::read(packet, EapCode::REQUEST);
        let why = match (tlvs.result, self.nested.content()) {
            (Some(SUCCESS), Some(proof)) => match bind(&proof, tlvs.binding, channel) {
                Ok((msk, tlv)) => {
                    self.agreed = Some((proof.method, msk));
                    return Next::Write(result(EapCode::RESPONSE, id, SUCCESS, &tlv));
                }
                Err(why) => why,
            },
            (Some(SUCCESS), None) => "the server says success before it has proved itself",
            (Some(FAILURE), _) => self.nested.lost().unwrap_or(REFUSED_PASSWORD),
            _ => "the server asks for something that we do not do",
        };
        Next::Fail(Some(result(EapCode::RESPONSE, id, FAILURE, &[])), why.to_string())
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

    fn receive(&mut self, plain: &[u8], id: u8, channel: &Channel) -> Next {
        if plain.is_empty() {
            return Next::Listen;
        }
        let packet = whole(plain, EapCode::REQUEST, id);
        if EapMessage::parse(&packet).is_ok_and(|message| message.kind == Some(EXTENSIONS)) {
            return self.on_result(&packet, id, channel);
        }
        let said = self.nested.receive(&packet);
        self.go_on(said)
    }

    fn poll(&mut self) -> Next {
        let said = self.nested.poll();
        self.go_on(said)
    }

    fn succeed(&self) -> Option<Found> {
        let (method, msk) = self.agreed.as_ref()?;
        let msk = msk.as_ref().map(Secret::duplicate);
        Some(Found { identity: self.config.identity.clone(), inner: Some(method.clone()), msk })
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

/// Answers the server's binding, if it sent one: the key that is bound, and our TLV.
fn bind(
    proof: &Proof,
    theirs: Option<&[u8]>,
    channel: &Channel,
) -> Result<(Option<Secret>, Vec<u8>), &'static str> {
    let Some(theirs) = theirs else { return Ok((None, vec![])) };
    let tunnel = Keys::Peap.msk(channel).map_err(|_| "there is no key of the tunnel")?;
    let binding = Binding::new(&tunnel, proof.msk.as_ref());
    let nonce = binding
        .check(From::Server, theirs)
        .ok_or("the server ran the inner method with somebody else: its binding is wrong")?;
    Ok((Some(binding.msk()), binding.tlv(From::Peer, &nonce)))
}

/// A packet with a Result TLV, and another one after it.
fn result(code: EapCode, identifier: u8, value: u16, more: &[u8]) -> Vec<u8> {
    let [hi, lo] = value.to_be_bytes();
    // A binding has 60 octets.
    let length = 11 + more.len() as u8;
    [&[code.0, identifier, 0, length, EXTENSIONS.0][..], &RESULT, &[hi, lo], more].concat()
}

/// What the TLVs of a packet say.
#[derive(Default)]
struct Tlvs<'a> {
    result: Option<u16>,
    binding: Option<&'a [u8]>,
}

impl<'a> Tlvs<'a> {
    /// Nothing, if it is no such packet or they do not fit it.
    fn read(packet: &'a [u8], code: EapCode) -> Self {
        Self::try_read(packet, code).unwrap_or_default()
    }

    fn try_read(packet: &'a [u8], code: EapCode) -> Option<Self> {
        let message = EapMessage::parse(packet).ok()?;
        let mut left = message.data;
        if message.code != code || message.kind != Some(EXTENSIONS) {
            return None;
        }
        let mut found = Tlvs::default();
        while let Some(([a, b, hi, lo], rest)) = left.split_first_chunk::<4>() {
            let (value, after) = rest.split_at_checked(usize::from(u16::from_be_bytes([*hi, *lo])))?;
            // The highest bit is "mandatory".
            match [a & 0x3f, *b] {
                [0, 3] => found.result = Some(u16::from_be_bytes(value.try_into().ok()?)),
                [0, 12] => found.binding = Some(value),
                _ => {}
            }
            left = after;
        }
        Some(found)
    }
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
        let tlv = result(EapCode::REQUEST, 3, SUCCESS, &[]);
        assert_eq!(whole(&tlv), tlv);
    }

    #[test]
    fn results_are_found_among_other_tlvs() {
        let mut packet = result(EapCode::REQUEST, 3, FAILURE, &[]);
        assert_eq!(Tlvs::read(&packet, EapCode::REQUEST).result, Some(FAILURE));
        assert_eq!(Tlvs::read(&packet, EapCode::RESPONSE).result, None);
        packet.splice(5..5, [0, 12, 0, 1, 9]);
        packet[3] += 5;
        assert_eq!(Tlvs::read(&packet, EapCode::REQUEST).result, Some(FAILURE));
        packet[8] = 200;
        assert_eq!(Tlvs::read(&packet, EapCode::REQUEST).result, None);
    }
}
