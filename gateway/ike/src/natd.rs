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

#[cfg(test)]
mod tests {
    use super::*;
    use spi::Device;
    use std::sync::Arc;

    const I: Spi = Spi(0x1122_3344_5566_7788);
    const R: Spi = Spi(0x99aa_bbcc_ddee_ff00);

    fn ops() -> Arc<dyn ShortOps> {
        soft::Soft::new(1).device().short_ops().unwrap()
    }

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    /// What the receiver at `seen_to` makes of a message sent from `from` to `to` that arrives from `seen_from`.
    fn through(from: &str, to: &str, seen_from: &str, seen_to: &str) -> Option<Nat> {
        let sent = make(&*ops(), I, R, at(from), at(to), false).unwrap().map(Payload::from);
        compare(&*ops(), I, R, &sent, at(seen_to), at(seen_from)).unwrap()
    }

    #[test]
    fn each_side_behind_a_nat_is_told_from_the_other() {
        let (a, b) = ("10.0.0.1:500", "192.0.2.1:500");
        let nat = |we_behind, peer_behind| Some(Nat { we_behind, peer_behind });
        assert_eq!(through(a, b, a, b), nat(false, false));
        assert_eq!(through(a, b, "192.0.2.9:500", b), nat(false, true));
        assert_eq!(through(a, b, "10.0.0.1:1027", b), nat(false, true), "the port counts too");
        assert_eq!(through(a, b, a, "10.9.9.9:500"), nat(true, false));
        assert_eq!(through(a, b, "192.0.2.9:4711", "10.9.9.9:500"), nat(true, true));
        let (a, b) = ("[2001:db8::1]:500", "[2001:db8::2]:500");
        assert_eq!(through(a, b, a, b), nat(false, false));
        assert_eq!(through(a, b, "[2001:db8::3]:500", b), nat(false, true));
    }

    #[test]
    fn mapped_addresses_of_a_dual_stack_socket_are_the_plain_ones() {
        let none = Some(Nat::default());
        assert_eq!(
            through("10.0.0.1:500", "10.0.0.2:500", "[::ffff:10.0.0.1]:500", "[::ffff:10.0.0.2]:500"),
            none
        );
    }

    #[test]
    fn one_fitting_source_hash_of_several_is_enough() {
        let ops = ops();
        let (us, peer) = (at("10.0.0.1:500"), at("10.0.0.2:500"));
        let source = |a: &str| {
            let data = hash(&*ops, I, R, at(a)).unwrap();
            Payload::from(Notify::with_data(NotifyType::NAT_DETECTION_SOURCE_IP, data))
        };
        let data = hash(&*ops, I, R, us).unwrap();
        let destination = Payload::from(Notify::with_data(NotifyType::NAT_DETECTION_DESTINATION_IP, data));
        let mut sent =
            vec![source("10.9.9.1:500"), source("10.0.0.2:500"), source("10.9.9.2:500"), destination];
        assert_eq!(compare(&*ops, I, R, &sent, us, peer).unwrap(), Some(Nat::default()));
        sent.remove(1);
        assert_eq!(compare(&*ops, I, R, &sent, us, peer).unwrap().map(|n| n.peer_behind), Some(true));
    }

    #[test]
    fn concealed_source_looks_like_a_nat_and_no_notifications_like_no_support() {
        let ops = ops();
        let (us, peer) = (at("10.0.0.1:500"), at("10.0.0.2:500"));
        let sent = make(&*ops, I, Spi::ZERO, us, peer, true).unwrap().map(Payload::from);
        let seen = compare(&*ops, I, Spi::ZERO, &sent, peer, us).unwrap();
        assert_eq!(seen, Some(Nat { we_behind: false, peer_behind: true }));
        assert!(seen.unwrap().any());
        assert_eq!(compare(&*ops, I, R, &[], peer, us).unwrap(), None);
        assert_eq!(compare(&*ops, I, R, &sent[..1], peer, us).unwrap(), None);
        let cut = Payload::from(Notify::with_data(NotifyType::NAT_DETECTION_SOURCE_IP, vec![]));
        let odd = [cut, sent[1].clone()];
        assert_eq!(compare(&*ops, I, Spi::ZERO, &odd, peer, us).unwrap().map(|n| n.peer_behind), Some(true));
    }
}
