//! TLS as EAP methods use it: what a server and a client are made of. No tickets, no resumption, no early data: every
//! conversation verifies every certificate.

mod channel;
mod fragment;
mod names;

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{default_provider, sign::any_supported_type};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use spi::Secret;

pub(crate) use channel::{Channel, Keys};
pub(crate) use fragment::{Carrier, Got, START, start};
pub(crate) use names::names;

/// Says what time it is; certificates are judged by it.
pub type Clock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// Which versions of TLS are spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsVersions {
    /// 1.2 and 1.3, the newer one preferred.
    #[default]
    Both,
    /// 1.2 only.
    Tls12,
    /// 1.3 only.
    Tls13,
}

impl TlsVersions {
    fn list(self) -> Vec<&'static SupportedProtocolVersion> {
        match self {
            TlsVersions::Both => vec![&rustls::version::TLS13, &rustls::version::TLS12],
            TlsVersions::Tls12 => vec![&rustls::version::TLS12],
            TlsVersions::Tls13 => vec![&rustls::version::TLS13],
        }
    }
}

/// What the certificates of one side are.
pub struct Certificates {
    /// Our own, the end of the chain first, in DER; empty for a client without.
    pub chain: Vec<Vec<u8>>,
    /// Its private key (PKCS #8, PKCS #1 or SEC 1, in DER).
    pub key: Option<Secret>,
    /// CAs that the other side's are verified with, in DER.
    pub roots: Vec<Vec<u8>>,
    /// What is spoken.
    pub versions: TlsVersions,
    /// What time it is.
    pub clock: Clock,
}

impl Default for Certificates {
    fn default() -> Self {
        Certificates {
            chain: Vec::new(),
            key: None,
            roots: Vec::new(),
            versions: TlsVersions::Both,
            clock: Arc::new(SystemTime::now),
        }
    }
}

/// The server's side of TLS, for all its conversations.
pub struct TlsServer {
    /// For EAP-TLS, where clients have certificates.
    mutual: Option<Arc<rustls::ServerConfig>>,
    /// For tunnels, where they are not asked.
    plain: Arc<rustls::ServerConfig>,
}

impl TlsServer {
    /// A server with this certificate. Without CAs it does not do EAP-TLS.
    ///
    /// # Errors
    /// Which certificate or key cannot be used.
    pub fn new(certificates: Certificates) -> Result<Self, String> {
        let Certificates { chain, key, roots, versions, clock } = certificates;
        let provider = Arc::new(default_provider());
        let own = own(&chain, &key.ok_or("a server needs a private key")?)?;
        let clock: Arc<dyn TimeProvider> = Arc::new(Time(clock));
        let config = |verifier| -> Result<Arc<rustls::ServerConfig>, String> {
            let mut config =
                rustls::ServerConfig::builder_with_details(Arc::clone(&provider), Arc::clone(&clock))
                    .with_protocol_versions(&versions.list())
                    .map_err(|e| e.to_string())?
                    .with_client_cert_verifier(verifier)
                    .with_cert_resolver(Arc::clone(&own) as _);
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
            Ok(Arc::new(config))
        };
        let mutual = if roots.is_empty() {
            None
        } else {
            let verifier = WebPkiClientVerifier::builder_with_provider(store(&roots)?, Arc::clone(&provider));
            Some(config(verifier.build().map_err(|e| format!("the CAs of clients: {e}"))?)?)
        };
        Ok(TlsServer { mutual, plain: config(WebPkiClientVerifier::no_client_auth())? })
    }

    /// Whether it can verify certificates of clients, which EAP-TLS is.
    pub fn takes_clients(&self) -> bool {
        self.mutual.is_some()
    }

    pub(crate) fn open(&self, mutual: bool) -> Result<Channel, String> {
        let config = if mutual { self.mutual.as_ref() } else { Some(&self.plain) };
        let config = config.ok_or("there are no CAs to verify clients with")?;
        Channel::server(Arc::clone(config))
    }
}

/// The client's side of TLS.
pub struct TlsClient {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    has_certificate: bool,
}

impl TlsClient {
    /// A client that believes a server whose certificate comes from one of these CAs and is for this name (a host
    /// name or an IP address among the subjectAltNames).
    ///
    /// # Errors
    /// Which certificate, key or name cannot be used.
    pub fn new(certificates: Certificates, server_name: &str) -> Result<Self, String> {
        let Certificates { chain, key, roots, versions, clock } = certificates;
        let name = ServerName::try_from(server_name.to_string()).map_err(|_| {
            format!("`{server_name}` is no name of a server: a host name or an IP address is")
        })?;
        if roots.is_empty() {
            return Err("no CA to verify the server with".into());
        }
        let provider: Arc<CryptoProvider> = Arc::new(default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(store(&roots)?, Arc::clone(&provider));
        let verifier = verifier.build().map_err(|e| format!("the CAs of the server: {e}"))?;
        let builder = ClientConfig::builder_with_details(provider, Arc::new(Time(clock)))
            .with_protocol_versions(&versions.list())
            .map_err(|e| e.to_string())?
            .with_webpki_verifier(verifier);
        let has_certificate = key.is_some();
        let mut config = match key {
            Some(key) => builder.with_client_cert_resolver(own(&chain, &key)?),
            None => builder.with_no_client_auth(),
        };
        config.resumption = Resumption::disabled();
        // The name is that of a server behind the gateway, and whoever listens need not know it.
        config.enable_sni = false;
        Ok(TlsClient { config: Arc::new(config), name, has_certificate })
    }

    /// Whether it has a certificate of its own, as EAP-TLS needs.
    pub fn has_certificate(&self) -> bool {
        self.has_certificate
    }

    pub(crate) fn open(&self) -> Result<Channel, String> {
        Channel::client(Arc::clone(&self.config), self.name.clone())
    }
}

fn der(chain: &[Vec<u8>]) -> Vec<CertificateDer<'static>> {
    chain.iter().map(|cert| CertificateDer::from(cert.clone())).collect()
}

/// A certificate with its key, of which no copy in DER is left.
fn own(chain: &[Vec<u8>], key: &Secret) -> Result<Arc<SingleCertAndKey>, String> {
    let key = PrivateKeyDer::try_from(key.expose()).map_err(|e| format!("the private key: {e}"))?;
    let key = any_supported_type(&key).map_err(|e| format!("the private key: {e}"))?;
    let own = CertifiedKey::new(der(chain), key);
    own.keys_match().map_err(|e| format!("the certificate and its private key: {e}"))?;
    Ok(Arc::new(own.into()))
}

fn store(roots: &[Vec<u8>]) -> Result<Arc<RootCertStore>, String> {
    let mut store = RootCertStore::empty();
    for root in der(roots) {
        store.add(root).map_err(|e| format!("a CA's certificate: {e}"))?;
    }
    Ok(Arc::new(store))
}

/// A [`Clock`] as rustls asks for it.
struct Time(Clock);

impl TimeProvider for Time {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch((self.0)().duration_since(UNIX_EPOCH).ok()?))
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Time")
    }
}
