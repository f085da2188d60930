//! What an observer on the wire sees: a tcpdump in the background, and a reader that sorts what it caught.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use crate::process::{self, Daemon};
use crate::world::World;

/// A running capture.
pub struct Capture {
    daemon: Daemon,
    file: PathBuf,
}

impl Capture {
    /// Start one on an interface of a host, with `filter` in tcpdump's language (empty for everything).
    pub fn start(world: &World, host: &str, interface: &str, file: &Path, filter: &str) -> Result<Capture> {
        fs::remove_file(file).ok();
        let said = file.with_extension("tcpdump");
        fs::remove_file(&said).ok();
        let mut command = world.on(host, "tcpdump");
        command.args(["-n", "-U", "--immediate-mode", "-Z", "root", "-B", "16384"]);
        command.args(["-s", "2048"]);
        command.args(["-i", interface, "-w"]).arg(file).args(filter.split_whitespace());
        let mut daemon = Daemon::start(&mut command, &said)?;
        let ready = process::until(Duration::from_secs(5), || {
            let listening = fs::read_to_string(&said).is_ok_and(|text| text.contains("listening on"));
            Ok((listening || daemon.has_ended()).then_some(()))
        })?;
        if ready.is_none() || daemon.has_ended() {
            bail!("tcpdump does not start:\n{}", process::tail(&said, 5));
        }
        Ok(Capture { daemon, file: file.to_path_buf() })
    }

    /// Stop and sort.
    pub fn finish(mut self) -> Result<Traffic> {
        // The packet that answered the last ping may still be on its way to the file.
        std::thread::sleep(Duration::from_millis(100));
        self.daemon.stop(Signal::TERM, Duration::from_secs(5))?;
        sort(&fs::read(&self.file).with_context(|| format!("no capture in {}", self.file.display()))?)
    }
}

/// Captured packets, counted by kind.
#[derive(Default, Debug, PartialEq, Eq)]
pub struct Traffic {
    /// IKE messages on port 500, or on 4500 behind the non-ESP marker.
    pub ike: usize,
    /// Of these, fragments (RFC 7383: first payload 53).
    pub ike_fragments: usize,
    /// ESP in UDP (RFC 3948).
    pub esp_in_udp: usize,
    /// ESP as IP protocol 50.
    pub esp_raw: usize,
    /// NAT keepalives, one byte 0xff.
    pub keepalives: usize,
    /// What makes an Ethernet work: ARP, neighbour discovery and multicast listener reports.
    pub housekeeping: usize,
    /// Everything else, described.
    pub others: Vec<String>,
}

/// Whether these bytes appear anywhere in a capture file.
pub fn holds(file: &Path, pattern: &[u8]) -> Result<bool> {
    let bytes = fs::read(file)?;
    Ok(bytes.windows(pattern.len()).any(|window| window == pattern))
}

/// The first IKE_SA_INIT request in a capture file, from its SPI on (RFC 7296 section 3.1).
pub fn init_request(file: &Path) -> Result<Vec<u8>> {
    const IPV4_AND_UDP: usize = 28;
    const IKE_SA_INIT: u8 = 34;
    let file = fs::read(file)?;
    let mut messages = frames(&file)?.filter_map(|frame| frame.get(14 + IPV4_AND_UDP..));
    let found = messages.find(|message| {
        message.get(8..20).is_some_and(|rest| {
            // No responder's SPI yet, version 2.0, the exchange, and the flag of the initiator alone.
            rest.starts_with(&[0; 8]) && rest.ends_with(&[0x20, IKE_SA_INIT, 0x08])
        })
    });
    found.map(<[u8]>::to_vec).context("no IKE_SA_INIT request in the capture")
}

/// Sort a capture file (pcap, Ethernet).
fn sort(bytes: &[u8]) -> Result<Traffic> {
    let mut traffic = Traffic::default();
    frames(bytes)?.for_each(|frame| traffic.count(frame));
    Ok(traffic)
}

/// The frames of a capture file.
fn frames(bytes: &[u8]) -> Result<impl Iterator<Item = &[u8]>> {
    Ok(timed_frames(bytes)?.map(|(_, frame)| frame))
}

/// The frames of a capture file, each with its time, in seconds of the clock.
pub fn timed_frames(bytes: &[u8]) -> Result<impl Iterator<Item = (f64, &[u8])>> {
    const HEADER: usize = 24;
    let magic = bytes.get(..4).context("an empty capture file")?;
    if magic != 0xa1b2_c3d4_u32.to_le_bytes() {
        bail!("not a capture file in the form tcpdump writes on this machine");
    }
    let mut rest = bytes.get(HEADER..).unwrap_or_default();
    // Per packet: seconds, microseconds, captured length, original length, 32 bits each.
    Ok(std::iter::from_fn(move || {
        let (head, after) = rest.split_at_checked(16)?;
        let word = |at: usize| {
            head.get(at..at + 4).and_then(|field| field.try_into().ok()).map_or(0, u32::from_le_bytes)
        };
        let (frame, next) = after.split_at_checked(word(8) as usize)?;
        rest = next;
        Some((f64::from(word(0)) + f64::from(word(4)) / 1e6, frame))
    }))
}

impl Traffic {
    fn count(&mut self, frame: &[u8]) {
        const ARP: u16 = 0x0806;
        const IPV4: u16 = 0x0800;
        const IPV6: u16 = 0x86dd;
        let packet = frame.get(14..).unwrap_or_default();
        match be16(frame, 12) {
            Some(ARP) => self.housekeeping += 1,
            Some(IPV4) => {
                let header = packet.first().map_or(20, |byte| usize::from(byte & 0x0f) * 4);
                // A later fragment has no header of the upper layer; the lab's wire should not have any.
                if be16(packet, 6).is_some_and(|word| word & 0x1fff != 0) {
                    return self.other(packet, "an IPv4 fragment");
                }
                self.upper(packet, packet.get(9).copied(), header);
            }
            Some(IPV6) => self.upper(packet, packet.get(6).copied(), 40),
            _ => self.other(packet, "neither IP nor ARP"),
        }
    }

    fn upper(&mut self, packet: &[u8], protocol: Option<u8>, header: usize) {
        const UDP: u8 = 17;
        const ESP: u8 = 50;
        const HOP_BY_HOP: u8 = 0;
        const ICMPV6: u8 = 58;
        let inside = packet.get(header..).unwrap_or_default();
        match protocol {
            Some(ESP) => self.esp_raw += 1,
            Some(UDP) => self.udp(packet, inside),
            // Router and neighbour solicitations and advertisements are ICMPv6 133 to 136; listener reports are
            // the only ones here with a hop-by-hop header.
            Some(ICMPV6) if matches!(inside.first(), Some(133..=136)) => self.housekeeping += 1,
            Some(HOP_BY_HOP) => self.housekeeping += 1,
            Some(number) => self.other(packet, &format!("IP protocol {number}")),
            None => self.other(packet, "a cut packet"),
        }
    }

    fn udp(&mut self, packet: &[u8], datagram: &[u8]) {
        let ports = [be16(datagram, 0), be16(datagram, 2)];
        let payload = datagram.get(8..).unwrap_or_default();
        if ports.contains(&Some(500)) {
            self.message(payload);
        } else if ports.contains(&Some(4500)) {
            match payload {
                [0xff] => self.keepalives += 1,
                // RFC 3948 section 2.2: four zero bytes where an SPI would stand mean IKE.
                [0, 0, 0, 0, message @ ..] => self.message(message),
                _ => self.esp_in_udp += 1,
            }
        } else {
            self.other(packet, &format!("UDP {ports:?}"));
        }
    }

    /// An IKE message, by its header (RFC 7296 section 3.1: next payload is byte 16).
    fn message(&mut self, message: &[u8]) {
        const ENCRYPTED_FRAGMENT: u8 = 53;
        self.ike += 1;
        if message.get(16) == Some(&ENCRYPTED_FRAGMENT) {
            self.ike_fragments += 1;
        }
    }

    fn other(&mut self, packet: &[u8], what: &str) {
        let start: String = packet.iter().take(40).map(|byte| format!("{byte:02x}")).collect();
        self.others.push(format!("{what}: {start}"));
    }
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2).and_then(|field| field.try_into().ok()).map(u16::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ethernet and IPv4 around a protocol and its bytes.
    fn frame(protocol: u8, inside: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 12];
        bytes.extend([0x08, 0x00, 0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        bytes.extend(inside);
        bytes
    }

    fn udp(port: u16, payload: &[u8]) -> Vec<u8> {
        let mut bytes = port.to_be_bytes().to_vec();
        bytes.extend(port.to_be_bytes());
        bytes.extend([0, 0, 0, 0]);
        bytes.extend(payload);
        frame(17, &bytes)
    }

    fn counted(frame: &[u8]) -> Traffic {
        let mut file = 0xa1b2_c3d4_u32.to_le_bytes().to_vec();
        file.extend([0; 20]);
        file.extend([0; 8]);
        file.extend(u32::try_from(frame.len()).unwrap().to_le_bytes());
        file.extend([0; 4]);
        file.extend(frame);
        sort(&file).unwrap()
    }

    #[test]
    fn esp_ike_and_keepalives_on_one_port_are_told_apart() {
        let mut fragment = vec![0; 28];
        fragment[4 + 16] = 53;
        assert_eq!(counted(&udp(4500, &[0xff])).keepalives, 1);
        assert_eq!(counted(&udp(4500, &[0xc0, 0, 0, 1, 0, 0])).esp_in_udp, 1);
        let ike = counted(&udp(4500, &fragment));
        assert_eq!((ike.ike, ike.ike_fragments), (1, 1));
    }

    #[test]
    fn clear_text_is_never_passed_over() {
        assert_eq!(counted(&frame(1, &[8, 0])).others.len(), 1);
        assert_eq!(counted(&frame(6, &[0; 20])).others.len(), 1);
        assert_eq!(counted(&udp(5201, &[1])).others.len(), 1);
        assert_eq!(counted(&frame(50, &[0; 20])), Traffic { esp_raw: 1, ..Traffic::default() });
    }
}
