//! Sequence numbers of ESP on a wire, looked at as they pass: whether one is used twice.
//!
//! A tcpdump writes into a pipe, and of each SA a bit for each number is kept, so that it can go on for as long as somebody likes.

use std::collections::BTreeMap;
use std::io::{BufReader, Read};
use std::process::{Child, Stdio};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::process;
use crate::world::{BRIDGE, World};

/// Octets of each frame: up to the sequence number, and some more.
const CUT: u32 = 64;
/// No SA of a lab sends so many packets; a number above it is not believed.
const MOST: u32 = 1 << 28;

/// Looks at the wire between the gateways.
pub struct Numbers {
    tcpdump: Child,
    reader: JoinHandle<Result<Seen>>,
}

/// What was seen.
#[derive(Default, Debug)]
pub struct Seen {
    /// ESP packets.
    pub packets: u64,
    /// Packets with a number that another one of their SA had.
    pub again: u64,
    /// For each SA by its SPI, which numbers there were.
    sas: BTreeMap<u32, Vec<u64>>,
}

impl Numbers {
    /// Begins to look at the bridge. The gateways send no superpackets from here on: a capture would show one number for each.
    pub fn begin(world: &World) -> Result<Numbers> {
        for host in ["moon", "sun"] {
            world.net.ip(host, "link set eth0 gso_max_segs 1\n")?;
        }
        let mut command = world.on("inet", "tcpdump");
        command.args(["-n", "-U", "--immediate-mode", "-Z", "root", "-B", "16384"]);
        command.args(["-s", &CUT.to_string(), "-i", BRIDGE, "-w", "-"]);
        command.args(["udp", "port", "4500", "or", "ip", "proto", "50"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut tcpdump = command.spawn().context("cannot run tcpdump")?;
        let mut pipe = BufReader::new(tcpdump.stdout.take().context("tcpdump has no output")?);
        // The file's header comes when it listens.
        let mut header = [0; 24];
        if pipe.read_exact(&mut header).is_err() || header[..4] != 0xa1b2_c3d4_u32.to_le_bytes() {
            tcpdump.kill().ok();
            tcpdump.wait().ok();
            bail!("tcpdump does not start");
        }
        Ok(Numbers { tcpdump, reader: thread::spawn(move || Seen::read(pipe)) })
    }

    /// Ends it.
    ///
    /// # Errors
    /// It saw fewer than two SAs: then it proves nothing.
    pub fn finish(mut self) -> Result<Seen> {
        // The last packets may still be on their way here.
        thread::sleep(Duration::from_millis(100));
        if let Some(pid) = i32::try_from(self.tcpdump.id()).ok().and_then(Pid::from_raw) {
            kill_process(pid, Signal::TERM).ok();
        }
        if process::wait(&mut self.tcpdump, Duration::from_secs(5))?.is_none() {
            self.tcpdump.kill().ok();
            self.tcpdump.wait().ok();
        }
        let seen = self.reader.join().map_err(|_| anyhow!("a thread panicked"))??;
        if seen.sas() < 2 {
            bail!("the wire has shown {} SAs", seen.sas());
        }
        Ok(seen)
    }
}

impl Seen {
    /// SAs that sent something.
    pub fn sas(&self) -> usize {
        self.sas.len()
    }

    /// An error if a number was used again.
    pub fn none_again(&self) -> Result<()> {
        if self.again > 0 {
            bail!("of {} packets {} had a sequence number that was used before", self.packets, self.again);
        }
        Ok(())
    }

    /// Packets as a capture file has them, after its header.
    fn read(mut pipe: impl Read) -> Result<Seen> {
        let mut seen = Seen::default();
        let (mut head, mut frame) = ([0; 16], Vec::new());
        // Seconds, microseconds, captured length, original length, 32 bits each.
        while pipe.read_exact(&mut head).is_ok() {
            let length = u32::from_le_bytes([head[8], head[9], head[10], head[11]]);
            if length > CUT {
                bail!("tcpdump speaks of {length} octets of a frame");
            }
            frame.resize(length as usize, 0);
            if pipe.read_exact(&mut frame).is_err() {
                break;
            }
            seen.note(&frame);
        }
        Ok(seen)
    }

    fn note(&mut self, frame: &[u8]) {
        let Some((spi, number)) = esp(frame) else { return };
        self.packets += 1;
        if number >= MOST {
            self.again += 1;
            return;
        }
        let (word, bit) = (number as usize / 64, 1_u64 << (number % 64));
        let bits = self.sas.entry(spi).or_default();
        if bits.len() <= word {
            bits.resize(word + 1, 0);
        }
        if let Some(word) = bits.get_mut(word) {
            self.again += u64::from(*word & bit != 0);
            *word |= bit;
        }
    }
}

/// SPI and sequence number of an Ethernet frame with ESP.
fn esp(frame: &[u8]) -> Option<(u32, u32)> {
    let be16 = |at: usize| frame.get(at..at + 2)?.try_into().ok().map(u16::from_be_bytes);
    // IPv4 without options; UDP on port 4500, or ESP itself (RFC 3948, RFC 4303).
    let esp = match frame.get(23) {
        Some(17) if be16(34) == Some(4500) || be16(36) == Some(4500) => frame.get(42..50)?,
        Some(50) => frame.get(34..42)?,
        _ => return None,
    };
    let word = |at: usize| esp.get(at..at + 4)?.try_into().ok().map(u32::from_be_bytes);
    let (spi, number) = (word(0)?, word(4)?);
    // Smaller ones are reserved, and 0 is the mark of IKE (RFC 4303 section 2.1, RFC 3948 section 2.2).
    (spi >= 256).then_some((spi, number))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(spi: u32, number: u32) -> Vec<u8> {
        let mut frame = vec![0; 34];
        frame[23] = 50;
        frame.extend(spi.to_be_bytes());
        frame.extend(number.to_be_bytes());
        let mut record = vec![0; 8];
        record.extend((frame.len() as u32).to_le_bytes());
        record.extend([0; 4]);
        record.extend(frame);
        record
    }

    #[test]
    fn a_number_used_again_is_noticed_and_one_of_another_sa_is_not() {
        let stream = [record(4096, 1), record(4096, 2), record(4097, 1), record(4096, 70), record(4096, 1)];
        let seen = Seen::read(stream.concat().as_slice()).unwrap();
        assert_eq!((seen.packets, seen.again, seen.sas()), (5, 1, 2));
        assert!(seen.none_again().is_err());
        let seen = Seen::read(stream[..4].concat().as_slice()).unwrap();
        assert!(seen.none_again().is_ok());
        // Cut off in the middle of a packet.
        let seen = Seen::read(&stream.concat()[..100]).unwrap();
        assert_eq!(seen.packets, 1);
    }
}
