//! Everything the data path reads: what comes on port 4500, ESP headers and trailers, and IP packets to be sent or
//! just decrypted.

use std::net::{Ipv4Addr, Ipv6Addr};
use wire::eap::EapMessage;
use wire::esp::{EspHeader, Trailer, emit_trailer, pad_len};
use wire::ip::{IpHeader, Sum, clamp_mss, find_mss, too_big};
use wire::natt::{Datagram, classify};

/// Views stay inside the packet, a trailer comes out the same, a clamped segment keeps its checksum.
pub fn wire_esp(data: &[u8]) {
    match classify(data) {
        Datagram::Ike(ike) => assert_eq!(ike, &data[4..]),
        Datagram::Esp(esp) => {
            let header = EspHeader::peek(esp).expect("sorted as ESP only with a header");
            assert_eq!(header.emit(), esp[..8]);
        }
        Datagram::Keepalive => assert_eq!(data, [0xff]),
        Datagram::Garbage => {}
    }
    trailer(data);
    packet(data);
    if let Ok(message) = EapMessage::parse(data) {
        let emitted = message.emit().expect("no longer than it was");
        assert_eq!(emitted, data[..emitted.len()]);
    }
}

fn trailer(data: &[u8]) {
    if let Ok(found) = Trailer::parse(data) {
        let mut again = data.to_vec();
        assert!(emit_trailer(&mut again[found.payload_len..], found.next_header));
        assert_eq!(again, data);
        let least = usize::from(pad_len(found.payload_len, 4));
        assert_eq!((found.payload_len + least + 2) % 4, 0);
    }
}

fn packet(data: &[u8]) {
    let Ok(header) = IpHeader::parse(data) else {
        assert_eq!(find_mss(data), None);
        assert!(too_big(data, 1280, Ipv4Addr::LOCALHOST.into()).is_none());
        return;
    };
    assert!(header.payload_offset <= header.total_len && header.total_len <= data.len());
    let _ = (header.selector_ports(), header.is_fragment(), header.dscp(), header.ecn());

    for from in [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()] {
        if let Some(answer) = too_big(data, 1280, from) {
            let outer = IpHeader::parse(&answer).expect("what we send is a packet");
            assert_eq!((outer.dst, outer.total_len), (header.src, answer.len()));
            assert!(answer.len() <= if from.is_ipv4() { 576 } else { 1280 });
            assert!(too_big(&answer, 1280, from).is_none(), "an error about an error");
        }
    }

    let sum = |packet: &[u8]| {
        let segment = &packet[header.payload_offset..header.total_len];
        Sum::new().pseudo(header.src, header.dst, header.protocol, segment.len()).octets(segment).finish()
    };
    let mut clamped = data.to_vec();
    if let Some(old) = clamp_mss(&mut clamped, 1200) {
        assert!(old > 1200 && find_mss(&clamped) == Some(1200));
        // Right or wrong before, it is as right or wrong after; 0 and 0xffff are the same number in this arithmetic.
        assert_eq!(sum(data) % 0xffff, sum(&clamped) % 0xffff, "checksum no longer what it was");
    } else {
        assert_eq!(clamped, data);
    }
}
