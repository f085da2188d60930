//! What a conversation that succeeded brings.

use std::net::IpAddr;
use std::time::Duration;

use spi::Secret;

/// The outcome, with the key. Stays on the key side; no `Debug`, since it holds a secret.
pub struct Grant {
    /// Who was authenticated: the identity the method proved, of a tunnelled method the inner one.
    pub identity: String,
    /// The method, for the log: `EAP-TLS`, `EAP-TTLS with MSCHAPv2`, `RADIUS, EAP-MSCHAPv2`.
    pub method: String,
    /// The MSK (RFC 5247), at least 64 octets; `None` from a method that derives no key.
    pub msk: Option<Secret>,
    /// What else the authenticating server said of the peer.
    pub granted: Granted,
}

/// What a server says of a peer besides yes; most of it by RADIUS. Holds no secret.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Granted {
    /// Inner addresses for the peer (Framed-IP-Address, Framed-IPv6-Address).
    pub addresses: Vec<IpAddr>,
    /// Name servers for it.
    pub dns: Vec<IpAddr>,
    /// How long it may stay (Session-Timeout).
    pub session_timeout: Option<Duration>,
    /// How often accounting is to be sent (Acct-Interim-Interval).
    pub interim: Option<Duration>,
    /// What the realm is chosen by (Class, Filter-Id, Tunnel-Private-Group-Id), as text.
    pub groups: Vec<String>,
    /// Class attributes, which accounting gives back as they are.
    pub class: Vec<Vec<u8>>,
    /// Whether somebody keeps account of the session.
    pub accounted: bool,
}
