//! Writing pcapng: section header, interface descriptions, enhanced packet blocks (draft-ietf-opsawg-pcapng section 4).

use std::time::{SystemTime, UNIX_EPOCH};

/// Link type of bare IP packets (LINKTYPE_RAW).
pub const RAW_IP: u16 = 101;

/// Longest packet kept, octets.
const SNAPLEN: u32 = 0x1_0000;

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const PACKET: u32 = 6;
const BYTE_ORDER_MAGIC: u32 = 0x1a2b_3c4d;

const OPTION_END: u16 = 0;
const OPTION_COMMENT: u16 = 1;
const OPTION_NAME: u16 = 2;
const OPTION_DESCRIPTION: u16 = 3;
const OPTION_APPLICATION: u16 = 4;
const OPTION_RESOLUTION: u16 = 9;

/// The beginning of a file: who writes it, and its interfaces with name and description, numbered from 0.
pub fn header(application: &str, interfaces: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut body = Vec::new();
    body.extend_from_slice(&BYTE_ORDER_MAGIC.to_le_bytes());
    body.extend_from_slice(&1u16.to_le_bytes());
    body.extend_from_slice(&0u16.to_le_bytes());
    // The length of the section is not known yet.
    body.extend_from_slice(&u64::MAX.to_le_bytes());
    option(&mut body, OPTION_APPLICATION, application.as_bytes());
    option(&mut body, OPTION_END, &[]);
    block(&mut out, SECTION_HEADER, &body);
    for (name, description) in interfaces {
        let mut body = Vec::new();
        body.extend_from_slice(&RAW_IP.to_le_bytes());
        body.extend_from_slice(&0u16.to_le_bytes());
        body.extend_from_slice(&SNAPLEN.to_le_bytes());
        option(&mut body, OPTION_NAME, name.as_bytes());
        option(&mut body, OPTION_DESCRIPTION, description.as_bytes());
        // Times in units of 10^-9 seconds.
        option(&mut body, OPTION_RESOLUTION, &[9]);
        option(&mut body, OPTION_END, &[]);
        block(&mut out, INTERFACE, &body);
    }
    out
}

/// One packet, with an optional comment.
pub fn packet(interface: u32, at: SystemTime, bytes: &[u8], comment: &str) -> Vec<u8> {
    let nanoseconds = at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
    let kept = &bytes[..bytes.len().min(SNAPLEN as usize)];
    let mut body = Vec::with_capacity(kept.len() + comment.len() + 40);
    body.extend_from_slice(&interface.to_le_bytes());
    body.extend_from_slice(&((nanoseconds >> 32) as u32).to_le_bytes());
    body.extend_from_slice(&(nanoseconds as u32).to_le_bytes());
    body.extend_from_slice(&(kept.len() as u32).to_le_bytes());
    body.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    padded(&mut body, kept);
    if !comment.is_empty() {
        option(&mut body, OPTION_COMMENT, comment.as_bytes());
        option(&mut body, OPTION_END, &[]);
    }
    let mut out = Vec::with_capacity(body.len() + 12);
    block(&mut out, PACKET, &body);
    out
}

fn option(body: &mut Vec<u8>, code: u16, value: &[u8]) {
    let value = &value[..value.len().min(0xffff)];
    body.extend_from_slice(&code.to_le_bytes());
    body.extend_from_slice(&(value.len() as u16).to_le_bytes());
    padded(body, value);
}

fn padded(body: &mut Vec<u8>, bytes: &[u8]) {
    body.extend_from_slice(bytes);
    body.resize(body.len().next_multiple_of(4), 0);
}

fn block(out: &mut Vec<u8>, kind: u32, body: &[u8]) {
    let length = (body.len() + 12) as u32;
    out.extend_from_slice(&kind.to_le_bytes());
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(body);
    out.extend_from_slice(&length.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn word(bytes: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
    }

    /// Blocks by type and body; panics where the two lengths of a block differ.
    fn blocks(mut bytes: &[u8]) -> Vec<(u32, Vec<u8>)> {
        let mut all = Vec::new();
        while !bytes.is_empty() {
            let length = word(bytes, 4) as usize;
            assert_eq!(length % 4, 0);
            assert_eq!(word(bytes, length - 4) as usize, length);
            all.push((word(bytes, 0), bytes[8..length - 4].to_vec()));
            bytes = &bytes[length..];
        }
        all
    }

    #[test]
    fn a_file_reads_back_with_its_interfaces_packets_and_times() {
        let mut file = header("tussock", &[("inner-out", "before"), ("inner-in", "after")]);
        let at = UNIX_EPOCH + Duration::new(1_800_000_000, 123_456_789);
        file.extend(packet(1, at, b"hello", "site/net"));
        let all = blocks(&file);
        assert_eq!(all.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(), [SECTION_HEADER, 1, 1, 6]);
        assert_eq!(word(&all[0].1, 0), BYTE_ORDER_MAGIC);
        assert_eq!(all[2].1[..2], RAW_IP.to_le_bytes());
        let body = &all[3].1;
        let time = u64::from(word(body, 4)) << 32 | u64::from(word(body, 8));
        assert_eq!((word(body, 0), time), (1, 1_800_000_000_123_456_789));
        assert_eq!((word(body, 12), word(body, 16), &body[20..25]), (5, 5, &b"hello"[..]));
        assert_eq!(&body[28..40], b"\x01\0\x08\0site/net");
    }

    #[test]
    fn long_packets_are_cut_and_keep_their_length() {
        let long = vec![7; SNAPLEN as usize + 10];
        let all = blocks(&packet(0, UNIX_EPOCH, &long, ""));
        assert_eq!((word(&all[0].1, 12), word(&all[0].1, 16)), (SNAPLEN, SNAPLEN + 10));
    }
}
