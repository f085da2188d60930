//! The octets that AUTH proves (RFC 7296 section 2.15), put together here and nowhere else: what is signed is always an
//! IKE_SA_INIT message followed by the nonce of the other side, so a key can be misused inside IKEv2 only, whoever asks.

use ipc::{AuthInput, Binding, Role};
use thiserror::Error;
use wire::ike::limits::NONCE_LEN;
use wire::ike::{Body, Message};
use wire::numbers::ExchangeType;

/// Longest message, octets: what fits in a datagram.
const MAX_MESSAGE: usize = 65_535;
/// `SK_p`-keyed PRF outputs of both sides and a message ID (RFC 9242 section 3.3.2).
const INT_AUTH_TAIL: usize = 4;

/// Which side's proof it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Prover {
    Initiator,
    Responder,
}

impl Prover {
    /// The side we are.
    pub(crate) fn us(role: Role) -> Self {
        match role {
            Role::Initiator => Prover::Initiator,
            Role::Responder => Prover::Responder,
        }
    }

    /// The side the peer is.
    pub(crate) fn peer(role: Role) -> Self {
        match role {
            Role::Initiator => Prover::Responder,
            Role::Responder => Prover::Initiator,
        }
    }
}

/// Why the input is nothing to be proved.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum OctetsError {
    #[error("the message is no IKE message: {0}")]
    NoMessage(String),
    #[error("the message is not the IKE_SA_INIT of the side that proves itself: {0}")]
    WrongMessage(String),
    #[error("a nonce of {0} octets")]
    NonceLength(usize),
    #[error("both sides have the same nonce")]
    SameNonce,
    #[error("a MACed identity of {0} octets for a PRF of {1}")]
    MacLength(usize, usize),
    #[error("an IntAuth of {0} octets")]
    IntAuthLength(usize),
    #[error("an unknown PRF")]
    UnknownPrf,
}

/// Checks the input and puts the octets together; also what ties them to the other proof of the same exchange.
pub(crate) fn build(input: &AuthInput, prover: Prover) -> Result<(Vec<u8>, Binding), OctetsError> {
    let wrong = |message: &Message| OctetsError::WrongMessage(message.summary());
    if input.message.len() > MAX_MESSAGE {
        return Err(OctetsError::NoMessage(format!("{} octets", input.message.len())));
    }
    let message = Message::parse(&input.message).map_err(|e| OctetsError::NoMessage(e.to_string()))?;
    let header = &message.header;
    let of_prover = match prover {
        // RFC 7296 section 3.1: the responder's SPI is zero in the first request, cookie or not.
        Prover::Initiator => header.is_initiator() && !header.is_response() && header.spi_r.is_zero(),
        Prover::Responder => !header.is_initiator() && header.is_response() && !header.spi_r.is_zero(),
    };
    let first = header.exchange == ExchangeType::IKE_SA_INIT && header.message_id == 0;
    if !of_prover || !first || header.spi_i.is_zero() {
        return Err(wrong(&message));
    }
    // RFC 7296 section 1.2: SA, KE and nonce are in both messages, once.
    let count = |fits: fn(&Body) -> bool| message.payloads.iter().filter(|p| fits(&p.body)).count();
    let nonces: Vec<_> = message
        .payloads
        .iter()
        .filter_map(|p| if let Body::Nonce(nonce) = &p.body { Some(nonce) } else { None })
        .collect();
    let [own_nonce] = nonces.as_slice() else { return Err(wrong(&message)) };
    if count(|b| matches!(b, Body::Sa(_))) != 1 || count(|b| matches!(b, Body::Ke(_))) != 1 {
        return Err(wrong(&message));
    }
    let own_nonce = &own_nonce.0;
    if !NONCE_LEN.contains(&input.nonce.len()) {
        return Err(OctetsError::NonceLength(input.nonce.len()));
    }
    if own_nonce[..] == input.nonce[..] {
        return Err(OctetsError::SameNonce);
    }
    let prf = input.prf.info().ok_or(OctetsError::UnknownPrf)?;
    if input.maced_id.len() != prf.out_len {
        return Err(OctetsError::MacLength(input.maced_id.len(), prf.out_len));
    }
    if !input.int_auth.is_empty() && input.int_auth.len() != 2 * prf.out_len + INT_AUTH_TAIL {
        return Err(OctetsError::IntAuthLength(input.int_auth.len()));
    }
    let octets = [&input.message[..], &input.nonce, &input.maced_id, &input.int_auth].concat();
    let (nonce_i, nonce_r) = match prover {
        Prover::Initiator => (own_nonce.to_vec(), input.nonce.clone()),
        Prover::Responder => (input.nonce.clone(), own_nonce.to_vec()),
    };
    Ok((octets, Binding { spi_i: header.spi_i.0, nonce_i, nonce_r }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{init_request, init_response};
    use spi::Prf;

    fn input(message: Vec<u8>) -> AuthInput {
        AuthInput {
            role: Role::Initiator,
            message,
            nonce: vec![9; 32],
            maced_id: vec![3; 32],
            prf: Prf::HMAC_SHA2_256,
            int_auth: vec![],
        }
    }

    #[test]
    fn octets_are_message_nonce_mac_and_int_auth() {
        let message = init_request();
        let mut with = input(message.clone());
        with.int_auth = vec![4; 68];
        let (octets, binding) = build(&with, Prover::Initiator).unwrap();
        assert_eq!(octets, [message, vec![9; 32], vec![3; 32], vec![4; 68]].concat());
        assert_eq!((binding.nonce_i, binding.nonce_r), (vec![1; 32], vec![9; 32]));
    }

    #[test]
    fn both_proofs_of_one_exchange_have_one_binding() {
        let mut mine = input(init_request());
        mine.nonce = vec![2; 32];
        let mut theirs = input(init_response());
        theirs.nonce = vec![1; 32];
        let (_, a) = build(&mine, Prover::Initiator).unwrap();
        let (_, b) = build(&theirs, Prover::Responder).unwrap();
        assert_eq!(a, b);
    }

    #[test]
    fn nothing_but_the_provers_own_ike_sa_init_is_signed() {
        assert!(matches!(
            build(&input(b"GET / HTTP/1.1".to_vec()), Prover::Initiator),
            Err(OctetsError::NoMessage(_))
        ));
        let refused = |message: Vec<u8>, prover| {
            matches!(build(&input(message), prover), Err(OctetsError::WrongMessage(_)))
        };
        assert!(refused(init_request(), Prover::Responder), "the other side's message");
        assert!(refused(init_response(), Prover::Initiator));
        let mut other = init_request();
        other[18] = 35;
        assert!(build(&input(other), Prover::Initiator).is_err(), "another exchange");
        let mut other = init_request();
        other[23] = 1;
        assert!(refused(other, Prover::Initiator), "another message ID");
        let parsed = Message::parse(&init_request()).unwrap();
        for without in 0..parsed.payloads.len() {
            let mut less = parsed.clone();
            less.payloads.remove(without);
            assert!(refused(less.emit(), Prover::Initiator), "payload {without} is missing");
        }
        let mut twice = parsed.clone();
        twice.payloads.push(twice.payloads[2].clone());
        assert!(refused(twice.emit(), Prover::Initiator), "two nonces");
    }

    #[test]
    fn nonces_and_macs_have_their_lengths_and_differ() {
        let with = |change: fn(&mut AuthInput)| {
            let mut i = input(init_request());
            change(&mut i);
            build(&i, Prover::Initiator).unwrap_err()
        };
        assert_eq!(with(|i| i.nonce = vec![9; 15]), OctetsError::NonceLength(15));
        assert_eq!(with(|i| i.nonce = vec![9; 257]), OctetsError::NonceLength(257));
        assert_eq!(with(|i| i.nonce = vec![1; 32]), OctetsError::SameNonce);
        assert_eq!(with(|i| i.maced_id = vec![3; 20]), OctetsError::MacLength(20, 32));
        assert_eq!(with(|i| i.int_auth = vec![0; 64]), OctetsError::IntAuthLength(64));
        assert_eq!(with(|i| i.prf = Prf(99)), OctetsError::UnknownPrf);
    }
}
