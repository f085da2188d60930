//! One TLS connection between two buffers.

use std::io::{Read, Write};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, Connection, ProtocolVersion, ServerConfig, ServerConnection};
use spi::Secret;
use zeroize::Zeroizing;

/// Octets of plaintext that one message of the other side may bring.
const MAX_PLAIN: usize = 16 * 1024;

/// A connection: octets of the other side in, octets for the other side and plaintext out.
pub(crate) struct Channel {
    tls: Connection,
}

impl Channel {
    pub(super) fn server(config: Arc<ServerConfig>) -> Result<Self, String> {
        let tls = ServerConnection::new(config).map_err(|e| format!("TLS: {e}"))?;
        Ok(Self::new(tls.into()))
    }

    pub(super) fn client(config: Arc<ClientConfig>, name: ServerName<'static>) -> Result<Self, String> {
        let tls = ClientConnection::new(config, name).map_err(|e| format!("TLS: {e}"))?;
        Ok(Self::new(tls.into()))
    }

    fn new(mut tls: Connection) -> Self {
        tls.set_buffer_limit(Some(64 * 1024));
        Channel { tls }
    }

    /// Takes octets of the other side; returns the plaintext in them.
    ///
    /// # Errors
    /// Why the connection is dead. What [`Channel::pending`] gives then is an alert.
    pub(crate) fn feed(&mut self, mut octets: &[u8]) -> Result<Zeroizing<Vec<u8>>, String> {
        let mut plain = Zeroizing::new(Vec::new());
        while !octets.is_empty() {
            let took = self.tls.read_tls(&mut octets).map_err(|e| format!("TLS: {e}"))?;
            let state = self.tls.process_new_packets().map_err(|e| format!("TLS: {e}"))?;
            let ready = state.plaintext_bytes_to_read();
            if plain.len() + ready > MAX_PLAIN {
                return Err(format!("more than {MAX_PLAIN} octets in one message"));
            }
            if ready > 0 {
                let at = plain.len();
                // With room for everything from the start, no copy is left behind.
                plain.reserve_exact(MAX_PLAIN - at);
                plain.resize(at + ready, 0);
                self.tls.reader().read_exact(&mut plain[at..]).map_err(|e| format!("TLS: {e}"))?;
            }
            if took == 0 {
                // The connection is closed and reads no more.
                break;
            }
        }
        Ok(plain)
    }

    /// Encrypts; the octets come with [`Channel::pending`].
    pub(crate) fn write(&mut self, plain: &[u8]) -> Result<(), String> {
        self.tls.writer().write_all(plain).map_err(|e| format!("TLS: {e}"))
    }

    /// What is to be sent.
    pub(crate) fn pending(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        while self.tls.wants_write() {
            // A vector takes everything.
            if !matches!(self.tls.write_tls(&mut out), Ok(1..)) {
                break;
            }
        }
        out
    }

    /// Whether both sides are through with the handshake.
    pub(crate) fn is_up(&self) -> bool {
        !self.tls.is_handshaking()
    }

    pub(crate) fn is_tls13(&self) -> bool {
        self.tls.protocol_version() == Some(ProtocolVersion::TLSv1_3)
    }

    /// The certificate the other side showed and proved, in DER.
    pub(crate) fn certificate(&self) -> Option<&[u8]> {
        self.tls.peer_certificates()?.first().map(|cert| cert.as_ref())
    }

    /// All that it showed, that one first; nothing, if it was not asked.
    pub(crate) fn certificates(&self) -> Vec<Vec<u8>> {
        let all = self.tls.peer_certificates().unwrap_or_default();
        all.iter().map(|cert| cert.to_vec()).collect()
    }

    /// Keying material (RFC 5705, RFC 8446 section 7.5), once the connection is up.
    fn export(&self, len: usize, label: &str, context: Option<&[u8]>) -> Result<Secret, String> {
        let out = vec![0; len];
        let out = self.tls.export_keying_material(out, label.as_bytes(), context);
        out.map(Secret::new).map_err(|e| format!("TLS: {e}"))
    }
}

/// What a method takes from its connection.
#[derive(Clone, Copy)]
pub(crate) enum Keys {
    /// EAP-TLS.
    Tls,
    /// EAP-TTLS.
    Ttls,
    /// PEAP.
    Peap,
}

impl Keys {
    /// The MSK, 64 octets.
    pub(crate) fn msk(self, channel: &Channel) -> Result<Secret, String> {
        let material = if channel.is_tls13() {
            // RFC 9190 section 2.3 and RFC 9427 section 2.1: one label, and the method's type as context.
            let context = match self {
                Keys::Tls => 13,
                Keys::Ttls => 21,
                Keys::Peap => 25,
            };
            channel.export(128, "EXPORTER_EAP_TLS_Key_Material", Some(&[context]))?
        } else {
            // RFC 5216 section 2.3, which PEAP took over, and RFC 5281 section 8.
            let label = match self {
                Keys::Tls | Keys::Peap => "client EAP encryption",
                Keys::Ttls => "ttls keying material",
            };
            channel.export(128, label, None)?
        };
        Ok(Secret::from_slice(&material.expose()[..64]))
    }

    /// The challenge inside EAP-TTLS that nobody sends (RFC 5281 section 11.1, RFC 9427 section 2.1): 16 octets of
    /// challenge, one of identifier.
    pub(crate) fn challenge(channel: &Channel) -> Result<([u8; 16], u8), String> {
        // In TLS 1.3 no context and an empty one are the same.
        let material = channel.export(17, "ttls challenge", None)?;
        let (challenge, rest) = material.expose().split_first_chunk().ok_or("no challenge")?;
        Ok((*challenge, rest.first().copied().unwrap_or_default()))
    }
}
