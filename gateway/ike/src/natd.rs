//! NAT detection in IKE_SA_INIT (RFC 7296 section 2.23).

use std::net::{IpAddr, SocketAddr};

use spi::{Fault, Hash, ShortOps};
use wire::ike::{Notify, Payload, PayloadList, Spi};
use wire::numbers::NotifyType;

/// Who is behind a NAT, seen from here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Nat {
    /// We are: keepalives are ours to send (RFC 3948 section 4).
    pub we_behind: bool,
    /// The peer is: its address may change without notice.
    pub peer_behind: bool,
}

impl Nat {
    /// Whether there is any: then IKE moves to port 4500 and ESP goes into UDP.
    pub fn any(&self) -> bool {
        self.we_behind || self.peer_behind
    }
}

/// `SHA-1(SPIi | SPIr | address | port)`, 20 octets. In the first request `spi_r` is zero.
///
/// # Errors
/// A [`Fault`] when the provider has no SHA-1.
pub fn hash(ops: &dyn ShortOps, spi_i: Spi, spi_r: Spi, at: SocketAddr) -> Result<Vec<u8>, Fault> {
    let port = at.port().to_be_bytes();
    let (v4, v6);
    let address: &[u8] = match at.ip().to_canonical() {
        IpAddr::V4(a) => {
            v4 = a.octets();
            &v4
        }
        IpAddr::V6(a) => {
            v6 = a.octets();
            &v6
        }
    };
    ops.hash(Hash::Sha1, &[&spi_i.to_bytes(), &spi_r.to_bytes(), address, &port])
}

/// The two notifications to send. With `conceal` the source hash is one that fits no address, so that the peer sees a NAT
/// and encapsulates ESP in UDP.
///
/// # Errors
/// A [`Fault`] when the provider has no SHA-1.
pub fn make(
    ops: &dyn ShortOps,
    spi_i: Spi,
    spi_r: Spi,
    local: SocketAddr,
    remote: SocketAddr,
    conceal: bool,
) -> Result<[Notify; 2], Fault> {
    let source = if conceal {
        let mut random = vec![0; Hash::Sha1.len()];
        ops.random(&mut random);
        random
    } else {
        hash(ops, spi_i, spi_r, local)?
    };
    let destination = hash(ops, spi_i, spi_r, remote)?;
    Ok([
        Notify::with_data(NotifyType::NAT_DETECTION_SOURCE_IP, source),
        Notify::with_data(NotifyType::NAT_DETECTION_DESTINATION_IP, destination),
    ])
}

/// What the peer's notifications say about the way its message took; `None` when it sent none, which means that it cannot
/// do NAT traversal.
///
/// # Errors
/// A [`Fault`] when the provider has no SHA-1.
pub fn compare(
    ops: &dyn ShortOps,
    spi_i: Spi,
    spi_r: Spi,
    payloads: &[Payload],
    local: SocketAddr,
    remote: SocketAddr,
) -> Result<Option<Nat>, Fault> {
    let seen = |kind, at| -> Result<Option<bool>, Fault> {
        let mut any = None;
        let expected = hash(ops, spi_i, spi_r, at)?;
        // RFC 7296 section 2.23: a sender that does not know its address sends one source hash for each it may have.
        for notify in payloads.notifies_of(kind) {
            any = Some(any.unwrap_or(false) || notify.data == expected);
        }
        Ok(any)
    };
    let source = seen(NotifyType::NAT_DETECTION_SOURCE_IP, remote)?;
    let destination = seen(NotifyType::NAT_DETECTION_DESTINATION_IP, local)?;
    Ok(match (source, destination) {
        (Some(source), Some(destination)) => Some(Nat { we_behind: !destination, peer_behind: !source }),
        // One without the other proves nothing; the peer is not following the protocol.
        _ => None,
    })
}
