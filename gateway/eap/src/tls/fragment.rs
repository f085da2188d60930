//! TLS in EAP packets: flags, lengths, fragments (RFC 5216 section 3.1), alike in EAP-TLS, EAP-TTLS and PEAP.
//!
//! 1. A packet begins with flags; with L set, four octets follow that say how long the whole message is.
//! 2. All fragments but the last have M set. Each is acknowledged by a packet with nothing in it.
//! 3. A whole message goes to TLS; what TLS says is the next message.

use zeroize::Zeroizing;

use super::Channel;

/// A packet that says how long the whole message is.
const LENGTH: u8 = 0x80;
/// A packet after which more fragments come.
const MORE: u8 = 0x40;
/// The server's first packet.
pub(crate) const START: u8 = 0x20;
/// What is left: reserved bits, and the version in EAP-TTLS and PEAP.
const VERSION: u8 = 0x07;

/// Octets of TLS in one packet: with what goes around it, EAP stays within the 1020 octets that every lower layer
/// has room for (RFC 3748 section 3.1).
const FRAGMENT: usize = 1000;
/// Octets of one message, in all its fragments: four records of the largest kind, or a long chain of certificates.
const MAX_MESSAGE: usize = 64 * 1024;

/// Carries messages of a TLS connection.
pub(crate) struct Carrier {
    /// The connection.
    pub(crate) channel: Channel,
    incoming: Vec<u8>,
    /// How long the message will be, if the other side said so.
    announced: Option<usize>,
    outgoing: Vec<u8>,
    sent: usize,
}

/// What a packet of the other side came to.
pub(crate) enum Got {
    /// This is to be sent: an acknowledgement, or our next fragment.
    Reply(Vec<u8>),
    /// A whole message, and the plaintext that was in it.
    Message(Zeroizing<Vec<u8>>),
    /// A whole message that killed the connection, and why. There may be an alert to send.
    Dead(String),
}

impl Carrier {
    pub(crate) fn new(channel: Channel) -> Self {
        Carrier { channel, incoming: Vec::new(), announced: None, outgoing: Vec::new(), sent: 0 }
    }

    /// Takes what follows the type octet.
    ///
    /// # Errors
    /// How the other side does not keep to the rules of fragments.
    pub(crate) fn receive(&mut self, data: &[u8]) -> Result<Got, String> {
        let (flags, body) = data.split_first().ok_or("a packet without flags")?;
        let (length, body) = if flags & LENGTH == 0 {
            (None, body)
        } else {
            let (length, body) = body.split_first_chunk::<4>().ok_or("a packet without its length")?;
            (Some(u32::from_be_bytes(*length) as usize), body)
        };
        if self.sent < self.outgoing.len() {
            if !body.is_empty() || flags & MORE != 0 {
                return Err("data where a fragment was to be acknowledged".into());
            }
            return Ok(Got::Reply(self.next()));
        }
        if self.incoming.is_empty() {
            self.announced = length;
        } else if length.is_some() && length != self.announced {
            return Err("a message that changes its length".into());
        }
        let most = self.announced.unwrap_or(MAX_MESSAGE).min(MAX_MESSAGE);
        if self.announced.is_some_and(|length| length > MAX_MESSAGE)
            || self.incoming.len() + body.len() > most
        {
            return Err(format!("a message of more than {most} octets"));
        }
        self.incoming.extend_from_slice(body);
        if flags & MORE != 0 {
            if body.is_empty() {
                return Err("a fragment with nothing in it".into());
            }
            return Ok(Got::Reply(vec![0]));
        }
        let message = std::mem::take(&mut self.incoming);
        if self.announced.take().is_some_and(|length| length != message.len()) {
            return Err("a message shorter than it said".into());
        }
        match self.channel.feed(&message) {
            Ok(plain) => Ok(Got::Message(plain)),
            Err(why) => Ok(Got::Dead(why)),
        }
    }

    /// What TLS has to say, or its first fragment; `None` when it has nothing to say.
    pub(crate) fn flush(&mut self) -> Option<Vec<u8>> {
        self.outgoing = self.channel.pending();
        self.sent = 0;
        (!self.outgoing.is_empty()).then(|| self.next())
    }

    fn next(&mut self) -> Vec<u8> {
        let left = &self.outgoing[self.sent..];
        let now = left.len().min(FRAGMENT);
        let more = if now < left.len() { MORE } else { 0 };
        let mut packet = vec![more];
        if self.sent == 0 && more != 0 {
            packet[0] |= LENGTH;
            // Our own messages are far below 4 GiB.
            packet.extend_from_slice(&(self.outgoing.len() as u32).to_be_bytes());
        }
        packet.extend_from_slice(&left[..now]);
        self.sent += now;
        packet
    }
}

/// Whether a packet is the server's first one, and which version it offers.
pub(crate) fn start(data: &[u8]) -> Option<u8> {
    let flags = *data.first()?;
    (flags & START != 0).then_some(flags & VERSION)
}
