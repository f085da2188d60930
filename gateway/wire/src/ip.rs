//! IPv4 and IPv6 as the data path needs them: a header view, checksums, headers to send, too-big messages, TCP MSS.

mod checksum;
mod emit;
mod header;
mod mss;
mod too_big;

pub use checksum::{Sum, checksum, update_checksum};
pub use emit::{Ipv4Emit, Ipv6Emit, emit_udp, fill_udp_checksum};
pub use header::{IpError, IpHeader, MAX_EXTENSIONS, Ports};
pub use mss::{clamp_mss, find_mss};
pub use too_big::too_big;

/// Octets of an IPv4 header without options.
pub const IPV4_LEN: usize = 20;
/// Octets of the fixed IPv6 header.
pub const IPV6_LEN: usize = 40;
/// Octets of a UDP header.
pub const UDP_LEN: usize = 8;

/// Protocol numbers and IPv6 next headers the data path knows by name.
pub mod protocol {
    /// IPv6 hop-by-hop options.
    pub const HOP_BY_HOP: u8 = 0;
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// IPv4 in a tunnel.
    pub const IPV4: u8 = 4;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// DCCP.
    pub const DCCP: u8 = 33;
    /// IPv6 in a tunnel.
    pub const IPV6: u8 = 41;
    /// IPv6 routing header.
    pub const ROUTING: u8 = 43;
    /// IPv6 fragment header.
    pub const FRAGMENT: u8 = 44;
    /// GRE.
    pub const GRE: u8 = 47;
    /// ESP.
    pub const ESP: u8 = 50;
    /// AH.
    pub const AH: u8 = 51;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;
    /// IPv6 "no next header", and the next header of ESP dummy packets.
    pub const NONE: u8 = 59;
    /// IPv6 destination options.
    pub const DESTINATION_OPTIONS: u8 = 60;
    /// EtherIP.
    pub const ETHERIP: u8 = 97;
    /// SCTP.
    pub const SCTP: u8 = 132;
    /// IPv6 mobility header.
    pub const MOBILITY: u8 = 135;
    /// UDP-Lite.
    pub const UDP_LITE: u8 = 136;
}
