//! What a policy looks at in a packet.

use std::net::IpAddr;

/// The selectors of one packet, as seen from our side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowKey {
    /// Interface on our side.
    pub iface: u32,
    /// Address on our side.
    pub local: IpAddr,
    /// Address on the other side.
    pub remote: IpAddr,
    /// Upper-layer protocol, IPv6 extension headers skipped.
    pub protocol: u8,
    /// Port on our side, or ICMP type and code; `None` when the packet has none or is a later fragment.
    pub local_port: Option<u16>,
    /// Port on the other side, or ICMP type and code.
    pub remote_port: Option<u16>,
}
