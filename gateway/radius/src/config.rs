//! What the client is told. Plain data; whoever reads the configuration file fills it.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use spi::Secret;

/// Everything. Holds secrets, so it has no `Debug`.
pub struct Config {
    /// What we call ourselves (NAS-Identifier).
    pub nas_identifier: String,
    /// Our address as servers are told it (NAS-IP-Address, NAS-IPv6-Address).
    pub nas_address: Option<IpAddr>,
    /// The servers, most wanted first.
    pub servers: Vec<Server>,
    /// How long they are waited for.
    pub patience: Patience,
    /// Who may tell us to send somebody away, and where they do so.
    pub dynamic: Option<Dynamic>,
    /// The folder in which accounting is written down, and whether the sessions there are of a gateway that still runs. Looked at in the
    /// beginning only.
    pub journal: Option<(PathBuf, Whose)>,
}

/// Whose sessions were written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// Those of a gateway that still has them.
    Ours,
    /// Those of one that is gone, and they with it.
    NobodysNow,
}

/// A server.
pub struct Server {
    /// Its name, for messages.
    pub name: String,
    /// Where it answers Access-Requests; `None`: it does not.
    pub access: Option<SocketAddr>,
    /// Where it takes accounting; `None`: it does not.
    pub accounting: Option<SocketAddr>,
    /// What it shares with us. Over TLS it is `radsec` (RFC 6614 section 2.3).
    pub secret: Secret,
    /// TLS, if it is spoken to that way (RFC 6614).
    pub tls: Option<Tls>,
}

/// How a server is spoken to over TLS.
#[derive(Clone)]
pub struct Tls {
    /// Trust, and our own certificate.
    pub config: Arc<rustls::ClientConfig>,
    /// Whose certificate it has to have.
    pub name: rustls::pki_types::ServerName<'static>,
    /// The same for the same roots, certificate, key and name.
    pub(crate) fingerprint: [u8; 32],
}

impl Tls {
    /// TLS 1.2 or 1.3 with a server that has a certificate for `name` by one of the `roots`; `own`: our certificate, the
    /// end entity's first, and its key as PKCS #8, PKCS #1 or SEC 1. All in DER.
    ///
    /// # Errors
    /// What does not fit together.
    pub fn new(roots: Vec<Vec<u8>>, own: Option<(Vec<Vec<u8>>, &Secret)>, name: &str) -> Result<Tls, String> {
        let fingerprint = fingerprint(&roots, own.as_ref(), name);
        let mut store = rustls::RootCertStore::empty();
        for root in roots {
            store.add(root.into()).map_err(|error| format!("a CA cannot be used: {error}"))?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(store);
        let config = match own {
            Some((chain, key)) => {
                let key = rustls::pki_types::PrivateKeyDer::try_from(key.expose().to_vec())
                    .map_err(|error| format!("our key: {error}"))?;
                let chain = chain.into_iter().map(Into::into).collect();
                builder.with_client_auth_cert(chain, key).map_err(|error| format!("our key: {error}"))?
            }
            None => builder.with_no_client_auth(),
        };
        let name = rustls::pki_types::ServerName::try_from(name.to_owned())
            .map_err(|_| format!("`{name}` is no name that a certificate can have"))?;
        Ok(Tls { config: Arc::new(config), name, fingerprint })
    }
}

fn fingerprint(roots: &[Vec<u8>], own: Option<&(Vec<Vec<u8>>, &Secret)>, name: &str) -> [u8; 32] {
    let mut hash = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    let mut add = |octets: &[u8]| {
        hash.update(&octets.len().to_be_bytes());
        hash.update(octets);
    };
    add(name.as_bytes());
    roots.iter().for_each(|root| add(root));
    if let Some((chain, key)) = own {
        add(b"own");
        chain.iter().for_each(|cert| add(cert));
        add(key.expose());
    }
    let mut out = [0; 32];
    out.copy_from_slice(hash.finish().as_ref());
    out
}

/// How long a server is waited for. A question is sent `tries` times, each time waited for twice as long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// The wait after the first.
    pub first: Duration,
    /// How often it is sent to one server.
    pub tries: u8,
}

impl Default for Patience {
    /// Seven seconds until the next server's turn.
    fn default() -> Self {
        Patience { first: Duration::from_secs(1), tries: 3 }
    }
}

impl Patience {
    /// How long after the first time there is still hope, over TLS, which repeats by itself.
    pub(crate) fn whole(&self) -> Duration {
        (0..self.tries).map(|tries| self.after(tries)).sum()
    }

    /// The wait after the question was sent `tries` times and once more.
    pub(crate) fn after(&self, tries: u8) -> Duration {
        self.first.saturating_mul(1 << tries.min(8))
    }
}

/// Requests that come to us (RFC 5176).
pub struct Dynamic {
    /// Where they come in.
    pub listen: SocketAddr,
    /// From whom.
    pub clients: Vec<DynamicClient>,
    /// Whether Message-Authenticator and Event-Timestamp must be there. Without, somebody who has seen a request may repeat
    /// it for ever.
    pub strict: bool,
}

/// Who may send such requests.
pub struct DynamicClient {
    /// Its address.
    pub address: IpAddr,
    /// What it shares with us.
    pub secret: Secret,
}
