//! ESP packets, port 4500 datagrams, IP packets in the clear, opened ESP payloads, EAP.

use wire::esp::{EspHeader, EspSpi, emit_trailer, pad_len};
use wire::ip::{IpHeader, Ipv4Emit, Ipv6Emit, Sum, emit_udp, protocol};

pub(super) fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let udp = [emit_udp(1024, 53, 4).expect("short").as_slice(), b"ping"].concat();
    let v4_udp = v4(protocol::UDP, &udp);
    vec![
        ("keepalive", vec![0xff]),
        ("ike_marker", vec![0; 32]),
        ("esp", [EspHeader { spi: EspSpi(0x1000), seq: 1 }.emit().as_slice(), &[0x5a; 40]].concat()),
        ("opened_tunnel", opened(&v4_udp, 4)),
        ("opened_dummy", opened(&[], 59)),
        ("v4_udp", v4_udp),
        ("v4_echo", v4(protocol::ICMP, &[8, 0, 0, 0, 0, 1, 0, 1])),
        ("v4_df_large", v4(protocol::UDP, &[0; 600])),
        ("v4_syn", with_sum(v4(protocol::TCP, &syn(&[2, 4, 5, 0xb4, 1, 3, 3, 7])))),
        ("v4_syn_odd", with_sum(v4(protocol::TCP, &syn(&[1, 2, 4, 5, 0xb4, 3, 3, 7])))),
        ("v6_syn", with_sum(v6(protocol::TCP, &syn(&[1, 1, 4, 2, 2, 4, 5, 0xa0])))),
        ("v6_echo", v6(protocol::ICMPV6, &[128, 0, 0, 0, 0, 1, 0, 1])),
        ("v6_extensions", v6(protocol::HOP_BY_HOP, &extensions(&udp))),
        ("v6_later_fragment", v6(protocol::FRAGMENT, &[17, 0, 0, 8, 0, 0, 0, 1, 1, 2, 3, 4])),
        ("eap_identity", vec![2, 1, 0, 8, 1, b'b', b'o', b'b']),
        ("eap_success", vec![3, 1, 0, 4]),
    ]
}

fn v4(protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut emit = Ipv4Emit::new([10, 1, 0, 1].into(), [10, 2, 0, 1].into(), protocol);
    emit.df = true;
    [emit.emit(payload.len()).expect("short").as_slice(), payload].concat()
}

fn v6(next: u8, payload: &[u8]) -> Vec<u8> {
    let emit = Ipv6Emit::new(0xfec1.into(), 0xfec2.into(), next);
    [emit.emit(payload.len()).expect("short").as_slice(), payload].concat()
}

fn extensions(udp: &[u8]) -> Vec<u8> {
    let options = [protocol::DESTINATION_OPTIONS, 0, 1, 4, 0, 0, 0, 0];
    let more = [protocol::FRAGMENT, 0, 1, 4, 0, 0, 0, 0];
    let fragment = [protocol::UDP, 0, 0, 1, 0, 0, 0, 9];
    [&options, &more, &fragment, udp].concat()
}

fn syn(options: &[u8]) -> Vec<u8> {
    let mut tcp = vec![0; 20];
    tcp[12] = ((20 + options.len()) / 4 * 16) as u8;
    tcp[13] = 2;
    tcp.extend(options);
    tcp
}

fn with_sum(mut packet: Vec<u8>) -> Vec<u8> {
    let header = IpHeader::parse(&packet).expect("a packet");
    let segment = &packet[header.payload_offset..];
    let sum =
        Sum::new().pseudo(header.src, header.dst, protocol::TCP, segment.len()).octets(segment).finish();
    let at = header.payload_offset + 16;
    packet[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    packet
}

fn opened(payload: &[u8], next_header: u8) -> Vec<u8> {
    let mut out = payload.to_vec();
    out.resize(payload.len() + usize::from(pad_len(payload.len(), 16)) + 2, 0);
    assert!(emit_trailer(&mut out[payload.len()..], next_header));
    out
}
