//! The data of REDIRECT and REDIRECTED_FROM (RFC 5685 sections 8.2 and 8.3).

use super::Notify;
use crate::numbers::{GatewayIdType, NotifyType};
use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;
use core::str;

/// Which gateway to go to, or which one sent the client here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// The gateway.
    pub gateway: GatewayId,
    /// In REDIRECT in an IKE_SA_INIT response the initiator's nonce as proof of having seen the request; empty
    /// elsewhere.
    pub nonce: Vec<u8>,
}

/// A gateway by address or name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GatewayId {
    /// By address.
    Address(IpAddr),
    /// By name: 1 to 255 octets of ASCII.
    Fqdn(String),
}

impl Redirect {
    /// Reads the data of either notification; `None` when it is malformed or names the gateway in a way we do not
    /// know.
    pub fn parse(data: &[u8]) -> Option<Self> {
        let ([kind, len], rest) = data.split_first_chunk::<2>()?;
        let (name, nonce) = rest.split_at_checked(usize::from(*len))?;
        let gateway = match GatewayIdType(*kind) {
            GatewayIdType::IPV4 => GatewayId::Address(<[u8; 4]>::try_from(name).ok()?.into()),
            GatewayIdType::IPV6 => GatewayId::Address(<[u8; 16]>::try_from(name).ok()?.into()),
            GatewayIdType::FQDN if name.is_ascii() && !name.is_empty() => {
                GatewayId::Fqdn(str::from_utf8(name).ok()?.into())
            }
            _ => return None,
        };
        Some(Redirect { gateway, nonce: nonce.into() })
    }

    /// The notification; `None` when the name is empty, longer than 255 octets or not ASCII.
    pub fn notify(&self, kind: NotifyType) -> Option<Notify> {
        let (id, name): (_, Vec<u8>) = match &self.gateway {
            GatewayId::Address(IpAddr::V4(a)) => (GatewayIdType::IPV4, a.octets().into()),
            GatewayId::Address(IpAddr::V6(a)) => (GatewayIdType::IPV6, a.octets().into()),
            GatewayId::Fqdn(name) if name.is_ascii() && !name.is_empty() => {
                (GatewayIdType::FQDN, name.as_bytes().into())
            }
            GatewayId::Fqdn(_) => return None,
        };
        let len = u8::try_from(name.len()).ok()?;
        Some(Notify::with_data(kind, [&[id.0, len], name.as_slice(), self.nonce.as_slice()].concat()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gateways_are_read_and_written_alike() {
        for gateway in [
            GatewayId::Address([192, 0, 2, 1].into()),
            GatewayId::Address("2001:db8::1".parse().unwrap()),
            GatewayId::Fqdn("gw.lab.test".into()),
        ] {
            let redirect = Redirect { gateway, nonce: [7; 16].into() };
            let notify = redirect.notify(NotifyType::REDIRECT).unwrap();
            assert_eq!(Redirect::parse(&notify.data), Some(redirect));
        }
    }

    #[test]
    fn malformed_gateways_are_refused() {
        for data in [&[][..], &[1], &[1, 4, 1, 2, 3], &[1, 3, 1, 2, 3], &[3, 0], &[3, 1, 0xff], &[9, 1, 65]] {
            assert_eq!(Redirect::parse(data), None, "{data:?}");
        }
    }
}
