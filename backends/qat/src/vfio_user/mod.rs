//! A function at a vfio-user socket: an emulated card, or one that another process lends.
//!
//! | module | what it holds |
//! |---|---|
//! | `line` | the connection: asking, telling, giving up |
//! | `wire` | messages as octets |
//!
//! The server maps our memory by the files behind it. When the connection ends it has to let go of all of it; that is the
//! protocol's word for it, and a server is trusted as far as that, as a kernel is with the IOMMU.

mod line;
mod wire;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use crate::pci::{Memory, PciError, PciFunction};
use line::Line;
use wire::{Fields, Message, command};

/// Numbers of regions and interrupts, as VFIO has them for PCI.
const BARS: u32 = 6;
const CONFIG: u32 = 7;
const MSI: u32 = 1;

/// Octets of configuration space that are used.
const CONFIG_LEN: u64 = 256;

/// What is done with an interrupt: an eventfd is rung; nothing.
const RING_EVENTFD: u32 = 1 << 2 | 1 << 5;
const SWITCH_OFF: u32 = 1 << 0 | 1 << 5;

/// May be read, and written.
const READ_WRITE: u32 = 3;

/// What is proposed in the first message.
const PROPOSAL: &str = r#"{"capabilities":{"max_msg_fds":1,"max_data_xfer_size":4096}}"#;

/// Where addresses for a server end: none is known to have fewer.
const MOST: u64 = (1 << 47) - 1;

/// A function at a socket.
pub(crate) struct VfioUser {
    path: PathBuf,
    line: RwLock<Arc<Line>>,
    bars: [u64; BARS as usize],
    /// What was mapped, to be mapped again after the server has been away.
    maps: Mutex<BTreeMap<u64, (OwnedFd, u64)>>,
}

impl VfioUser {
    /// # Errors
    /// [`PciError`]: nobody is there, or somebody who is no PCI function.
    pub(crate) fn open(path: &Path) -> Result<VfioUser, PciError> {
        let (line, bars) = greet(path)?;
        Ok(VfioUser { path: path.into(), line: RwLock::new(Arc::new(line)), bars, maps: Mutex::default() })
    }

    fn line(&self) -> Arc<Line> {
        Arc::clone(&self.line.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn maps(&self) -> MutexGuard<'_, BTreeMap<u64, (OwnedFd, u64)>> {
        self.maps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes up with a server that is there again.
    fn return_to(&self) -> Result<Arc<Line>, PciError> {
        let (line, bars) = greet(&self.path)?;
        if bars != self.bars {
            return Err(PciError::Unusable(format!(
                "another kind of device is at {} now",
                self.path.display()
            )));
        }
        for (iova, (file, len)) in self.maps().iter() {
            map(&line, *iova, file.as_fd(), *len)?;
        }
        let line = Arc::new(line);
        *self.line.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&line);
        Ok(line)
    }
}

/// Connects, agrees on a version, and asks what there is.
fn greet(path: &Path) -> Result<(Line, [u64; BARS as usize]), PciError> {
    let line = Line::connect(path)?;
    let version = Message::new(command::VERSION).u16(0).u16(1).octets(PROPOSAL.as_bytes()).octets(&[0]);
    let answer = line.ask("the version", version, &[])?;
    if Fields(&answer).u16() != Some(0) {
        return Err(PciError::Unusable(format!(
            "the server at {} speaks another version of vfio-user than 0.x",
            path.display()
        )));
    }
    let mut bars = [0; BARS as usize];
    for (number, bar) in (0..).zip(&mut bars) {
        *bar = region_len(&line, number)?;
    }
    if region_len(&line, CONFIG)? < CONFIG_LEN {
        return Err(PciError::Unusable(format!("what is at {} is no PCI function", path.display())));
    }
    Ok((line, bars))
}

fn region_len(line: &Line, number: u32) -> Result<u64, PciError> {
    let ask = Message::new(command::GET_REGION_INFO).u32(32).u32(0).u32(number).u32(0).u64(0).u64(0);
    let answer = line.ask("what its regions are", ask, &[])?;
    let mut fields = Fields(&answer);
    let mut len = || {
        let (_, flags, index, _) = (fields.u32()?, fields.u32()?, fields.u32()?, fields.u32()?);
        let len = fields.u64()?;
        // What cannot be both read and written is no register of ours.
        (index == number).then_some(if flags & READ_WRITE == READ_WRITE { len } else { 0 })
    };
    len().ok_or_else(|| PciError::Protocol("the server says nothing about its regions".into()))
}

fn map(line: &Line, iova: u64, file: BorrowedFd<'_>, len: u64) -> Result<(), PciError> {
    let ask = Message::new(command::DMA_MAP).u32(32).u32(READ_WRITE).u64(0).u64(iova).u64(len);
    line.ask("mapping memory", ask, &[file]).map(|_| ())
}

fn access(code: u16, at: u64, region: u32, len: usize) -> Message {
    Message::new(code).u64(at).u32(region).u32(len as u32)
}

fn read(line: &Line, region: u32, at: u64, into: &mut [u8]) -> Result<(), PciError> {
    let answer = line.ask("reading", access(command::REGION_READ, at, region, into.len()), &[])?;
    // Offset, region and length come first.
    let octets = answer.get(16..16 + into.len());
    let octets =
        octets.ok_or_else(|| PciError::Protocol("the server gives less than was asked for".into()))?;
    into.copy_from_slice(octets);
    Ok(())
}

impl PciFunction for VfioUser {
    fn config_read(&self, at: u16, into: &mut [u8]) -> Result<(), PciError> {
        read(&self.line(), CONFIG, at.into(), into)
    }

    fn config_write(&self, at: u16, octets: &[u8]) -> Result<(), PciError> {
        let ask = access(command::REGION_WRITE, at.into(), CONFIG, octets.len()).octets(octets);
        self.line().ask("writing", ask, &[]).map(|_| ())
    }

    fn bar_len(&self, bar: u8) -> u64 {
        self.bars.get(usize::from(bar)).copied().unwrap_or(0)
    }

    fn read(&self, bar: u8, at: u32) -> u32 {
        let mut octets = [0xff; 4];
        match read(&self.line(), bar.into(), at.into(), &mut octets) {
            Ok(()) => u32::from_le_bytes(octets),
            Err(_) => u32::MAX,
        }
    }

    fn write(&self, bar: u8, at: u32, value: u32) {
        // Memory that was written before is there when the server gets this: the socket passes it on.
        let tell = access(command::REGION_WRITE, at.into(), bar.into(), 4).octets(&value.to_le_bytes());
        self.line().tell(tell);
    }

    fn map(&self, iova: u64, memory: &Memory<'_>) -> Result<(), PciError> {
        let Some(file) = memory.file else {
            return Err(PciError::Unusable(
                "memory without a file behind it cannot be shared with another process: make the pool after the card was \
                 configured"
                    .into(),
            ));
        };
        let kept = file.try_clone_to_owned().map_err(|cause| PciError::refused("a descriptor", cause))?;
        let len = memory.len as u64;
        map(&self.line(), iova, file, len)?;
        self.maps().insert(iova, (kept, len));
        Ok(())
    }

    fn unmap(&self, iova: u64, len: usize) -> Result<(), PciError> {
        let line = self.line();
        let ask = Message::new(command::DMA_UNMAP).u32(24).u32(0).u64(iova).u64(len as u64);
        let result = line.ask("taking memory back", ask, &[]);
        // With the connection everything that was lent is taken back.
        if line.broken().is_none() {
            result?;
        }
        self.maps().remove(&iova);
        Ok(())
    }

    fn iovas(&self) -> Vec<RangeInclusive<u64>> {
        vec![0..=MOST]
    }

    fn interrupt(&self, bell: Option<BorrowedFd<'_>>) -> Result<(), PciError> {
        let line = self.line();
        let ask = |flags: u32, count: u32| {
            Message::new(command::SET_IRQS).u32(20).u32(flags).u32(MSI).u32(0).u32(count)
        };
        let Some(bell) = bell else {
            return line.ask("switching interrupts off", ask(SWITCH_OFF, 0), &[]).map(|_| ());
        };
        let info = Message::new(command::GET_IRQ_INFO).u32(16).u32(0).u32(MSI).u32(0);
        let answer = line.ask("what its interrupts are", info, &[])?;
        if answer.len() < 16 || Fields(&answer[12..]).u32().unwrap_or(0) == 0 {
            return Err(PciError::Unusable("the function has no message-signalled interrupt".into()));
        }
        line.ask("an interrupt", ask(RING_EVENTFD, 1), &[bell]).map(|_| ())
    }

    fn reset(&self) -> Result<(), PciError> {
        let reset = |line: &Line| line.ask("a reset", Message::new(command::DEVICE_RESET), &[]);
        let line = self.line();
        if line.broken().is_none() {
            let result = reset(&line).map(|_| ());
            if line.broken().is_none() {
                return result;
            }
        }
        // It may have been started anew.
        reset(&*self.return_to()?).map(|_| ())
    }

    fn trouble(&self) -> Option<String> {
        self.line().broken().map(Into::into)
    }
}
