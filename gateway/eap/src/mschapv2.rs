//! EAP-MSCHAPv2 (type 26): the challenges and responses of RFC 2759 in EAP packets, as Windows and everybody since sends
//! them.
//!
//! 1. Server: Challenge, with 16 random octets.
//! 2. Peer: Response, with 16 octets of its own and the proof that it knows the password.
//! 3. Server: Success, with the proof that it does, too; or Failure, `E=691 R=0`.
//! 4. Peer: the same code, if it agrees.

use std::sync::Arc;

use spi::Secret;
use subtle::{Choice, ConstantTimeEq};

use crate::account::{Account, MAX_NAME, name, printable};
use crate::ask::{Given, given};
use crate::config::{PeerConfig, Random, ServerConfig};
use crate::method::{PeerMethod, Proof, REFUSED_PASSWORD, Reply, ServerMethod, Turn};
use crate::mschap::Exchange;

const CHALLENGE: u8 = 1;
const RESPONSE: u8 = 2;
const SUCCESS: u8 = 3;
const FAILURE: u8 = 4;

/// What the method is called in a grant.
pub(crate) const NAME: &str = "EAP-MSCHAPv2";

/// The server's side.
pub(crate) struct MsChapV2Server {
    config: Arc<ServerConfig>,
    random: Random,
    /// Who the peer said it is, before the method.
    claimed: Option<String>,
    challenge: [u8; 16],
    /// The identifier inside the packets.
    id: u8,
    state: Waiting,
}

/// What the server waits for.
enum Waiting {
    Response,
    /// The peer's assent to our proof.
    Assent(Option<Proof>),
    /// The peer's word that it knows.
    Regret(String),
}

impl MsChapV2Server {
    pub(crate) fn new(config: Arc<ServerConfig>, claimed: Option<String>, random: Random) -> Self {
        let mut challenge = [0; 16];
        random(&mut challenge);
        MsChapV2Server { config, random, claimed, challenge, id: 0, state: Waiting::Response }
    }

    fn on_response(&mut self, data: &[u8]) -> Turn {
        let Some((RESPONSE, id, value, sent)) = split(data) else { return Turn::Ignore };
        let Some((value, [])) = value.split_first_chunk::<49>() else { return Turn::Ignore };
        if id != self.id {
            return Turn::Ignore;
        }
        // An empty name is that of the identity.
        let sent =
            if sent.is_empty() { self.claimed.as_deref().unwrap_or_default().as_bytes() } else { sent };
        let claims = Claim {
            challenge: &self.challenge,
            peer: chunk(&value[..16]),
            response: chunk(&value[24..48]),
            name: sent,
        };
        match claims.judge(&self.config, &self.random) {
            Ok((identity, exchange)) => {
                let text = format!("{} M=OK", exchange.authenticator());
                let proof = Proof { identity, method: NAME.into(), msk: Some(exchange.msk()) };
                self.state = Waiting::Assent(Some(proof));
                Turn::Ask(packet(SUCCESS, self.id, &[], text.as_bytes()))
            }
            Err(why) => {
                self.state = Waiting::Regret(why);
                Turn::Ask(packet(FAILURE, self.id, &[], failure(&self.challenge).as_bytes()))
            }
        }
    }
}

impl ServerMethod for MsChapV2Server {
    fn begin(&mut self, id: u8) -> Turn {
        self.id = id;
        let mut value = vec![16];
        value.extend_from_slice(&self.challenge);
        Turn::Ask(packet(CHALLENGE, id, &value, self.config.name.as_bytes()))
    }

    fn receive(&mut self, data: &[u8], _: u8) -> Turn {
        match &mut self.state {
            Waiting::Response => self.on_response(data),
            Waiting::Assent(proof) => match data.first() {
                Some(&SUCCESS) => proof.take().map_or(Turn::Ignore, Turn::Accept),
                Some(&FAILURE) => Turn::Refuse("the peer does not accept our proof of its password".into()),
                _ => Turn::Ignore,
            },
            Waiting::Regret(why) => match data.first() {
                // Some confirm, some have nothing to say; no other answer leads anywhere either.
                Some(_) => Turn::Refuse(std::mem::take(why)),
                None => Turn::Ignore,
            },
        }
    }

    fn failed(&self) -> Option<String> {
        match &self.state {
            Waiting::Regret(why) => Some(why.clone()),
            Waiting::Response | Waiting::Assent(_) => None,
        }
    }
}

/// What a peer sends to prove its password, in EAP or in the tunnel of EAP-TTLS.
pub(crate) struct Claim<'a> {
    /// The server's challenge.
    pub(crate) challenge: &'a [u8; 16],
    /// The peer's challenge.
    pub(crate) peer: &'a [u8; 16],
    /// The proof.
    pub(crate) response: &'a [u8; 24],
    /// Whose password.
    pub(crate) name: &'a [u8],
}

impl Claim<'_> {
    /// Whether it is true; for whom, and what the server calculates with.
    ///
    /// # Errors
    /// Why not, for the log. The peer learns that it is not.
    pub(crate) fn judge(&self, config: &ServerConfig, random: &Random) -> Result<(String, Exchange), String> {
        let user = name(self.name);
        let account = Account::find(&*config.users, random, user);
        let exchange = Exchange::new(self.challenge, self.peer, self.name, account.password());
        let verdict =
            exchange.as_ref().map_or(Choice::from(0), |mine| mine.response.ct_eq(self.response.as_slice()));
        match exchange {
            Some(exchange) if account.admits(verdict) => Ok((user.unwrap_or_default().to_string(), exchange)),
            _ => Err(account.refusal(self.name)),
        }
    }
}

/// The text of a failure: the wrong password, no second try, and a challenge that nobody needs then.
pub(crate) fn failure(challenge: &[u8; 16]) -> String {
    let digits: String = challenge.iter().map(|octet| format!("{octet:02X}")).collect();
    format!("E=691 R=0 C={digits} V=3 M=Authentication failed")
}

/// The peer's side.
pub(crate) struct MsChapV2Peer {
    config: Arc<PeerConfig>,
    random: Random,
    /// The challenge that was not answered yet, and its identifier.
    asked: Option<(u8, [u8; 16])>,
    exchange: Option<Exchange>,
    proven: bool,
}

impl MsChapV2Peer {
    pub(crate) fn new(config: Arc<PeerConfig>, random: Random) -> Self {
        MsChapV2Peer { config, random, asked: None, exchange: None, proven: false }
    }

    fn on_challenge(&mut self, data: &[u8]) -> Reply {
        let Some((CHALLENGE, id, value, _)) = split(data) else { return Reply::Ignore };
        let Ok(challenge) = value.try_into() else { return Reply::Ignore };
        self.asked = Some((id, challenge));
        self.poll()
    }

    fn on_success(&mut self, data: &[u8]) -> Reply {
        let Some(exchange) = &self.exchange else { return Reply::Ignore };
        // Some leave out the identifier and the length.
        let text = data.get(4..).unwrap_or_default();
        if is_authenticator(text, exchange) {
            self.proven = true;
            return Reply::Answer(vec![SUCCESS]);
        }
        Reply::Fail(Some(vec![FAILURE]), NOT_PROVEN.into())
    }
}

/// What is said of a server that cannot prove that it knows the password.
pub(crate) const NOT_PROVEN: &str = "the server does not know the password, and may be somebody else";

/// Whether a text begins with the server's proof.
pub(crate) fn is_authenticator(text: &[u8], exchange: &Exchange) -> bool {
    let ours = exchange.authenticator();
    text.get(..ours.len()).is_some_and(|theirs| {
        // Digits in either case.
        theirs.to_ascii_uppercase().ct_eq(ours.as_bytes()).into()
    })
}

/// What to say of a failure's text. Some put something before it, some have no code in it.
pub(crate) fn explain(text: &[u8]) -> String {
    let text = printable(text);
    let text = text.find("E=").and_then(|at| text.get(at..)).unwrap_or(&text).trim();
    let code = text.split_ascii_whitespace().find_map(|word| word.strip_prefix("E="));
    let what = match code {
        Some("646") => "the account may not be used at this hour",
        Some("647") => "the account is disabled",
        Some("648") => "the password has expired",
        Some("649") => "the account may not dial in",
        Some("691") => "wrong name or password",
        Some("709") => "the password could not be changed",
        // Whoever knows the server may know what it means.
        _ => return format!("{REFUSED_PASSWORD} ({text})"),
    };
    what.into()
}

impl PeerMethod for MsChapV2Peer {
    fn receive(&mut self, data: &[u8], _: u8) -> Reply {
        match data.first() {
            Some(&CHALLENGE) if !self.proven => self.on_challenge(data),
            Some(&SUCCESS) if !self.proven => self.on_success(data),
            Some(&FAILURE) if !self.proven => {
                Reply::Fail(Some(vec![FAILURE]), explain(data.get(4..).unwrap_or_default()))
            }
            _ => Reply::Ignore,
        }
    }

    fn poll(&mut self) -> Reply {
        let Some((id, challenge)) = self.asked else { return Reply::Wait };
        let password: Secret = match given(&self.config, None) {
            Given::Now(password) => password,
            Given::Later => return Reply::Wait,
            Given::Never(why) => return Reply::Fail(None, why),
        };
        self.asked = None;
        let mut peer = [0; 16];
        (self.random)(&mut peer);
        let name = self.config.identity.as_bytes();
        let Some(exchange) = Exchange::new(&challenge, &peer, name, &password) else {
            return Reply::Fail(None, "the password is no text".into());
        };
        let mut value = vec![49];
        value.extend_from_slice(&peer);
        value.extend_from_slice(&[0; 8]);
        value.extend_from_slice(&exchange.response);
        value.push(0);
        self.exchange = Some(exchange);
        Reply::Answer(packet(RESPONSE, id, &value, name))
    }

    fn succeed(&self) -> Option<Result<Proof, String>> {
        let exchange = self.exchange.as_ref().filter(|_| self.proven)?;
        let identity = self.config.identity.clone();
        Some(Ok(Proof { identity, method: NAME.into(), msk: Some(exchange.msk()) }))
    }
}

/// Code, identifier and length of the whole, a value, a text.
fn packet(code: u8, id: u8, value: &[u8], text: &[u8]) -> Vec<u8> {
    let text = text.get(..MAX_NAME).unwrap_or(text);
    let mut out = vec![code, id];
    // Values are 50 octets at most, and the text was cut.
    out.extend_from_slice(&((4 + value.len() + text.len()) as u16).to_be_bytes());
    out.extend_from_slice(value);
    out.extend_from_slice(text);
    out
}

/// Code, identifier, value and name of a challenge or a response.
fn split(data: &[u8]) -> Option<(u8, u8, &[u8], &[u8])> {
    let ([code, id, hi, lo, size], rest) = data.split_first_chunk::<5>()?;
    let length = usize::from(u16::from_be_bytes([*hi, *lo]));
    let rest = rest.get(..length.checked_sub(5)?)?;
    let (value, name) = rest.split_at_checked(usize::from(*size))?;
    Some((*code, *id, value, name))
}

/// Octets of which it is known how many there are.
fn chunk<const N: usize>(octets: &[u8]) -> &[u8; N] {
    octets.try_into().expect("a slice of that length")
}
