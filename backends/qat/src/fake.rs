//! For unit tests: a function whose registers do nothing but remember.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::os::fd::BorrowedFd;
use std::sync::Mutex;

use crate::pci::{Memory, PciError, PciFunction};

#[derive(Default)]
pub(crate) struct Fake {
    pub(crate) ranges: Vec<RangeInclusive<u64>>,
    pub(crate) maps: Mutex<Vec<(u64, usize)>>,
    pub(crate) registers: Mutex<BTreeMap<(u8, u32), u32>>,
    /// What was written, in order.
    pub(crate) writes: Mutex<Vec<(u8, u32, u32)>>,
    /// Called for every write before it is stored; may change other registers.
    pub(crate) on_write: Option<Box<OnWrite>>,
}

pub(crate) type OnWrite = dyn Fn(&Fake, u8, u32, u32) -> Option<u32> + Send + Sync;

impl Fake {
    pub(crate) fn maps(&self) -> Vec<(u64, usize)> {
        self.maps.lock().unwrap().clone()
    }

    pub(crate) fn set(&self, bar: u8, at: u32, value: u32) {
        self.registers.lock().unwrap().insert((bar, at), value);
    }

    pub(crate) fn take_writes(&self) -> Vec<(u8, u32, u32)> {
        std::mem::take(&mut *self.writes.lock().unwrap())
    }
}

impl PciFunction for Fake {
    fn config_read(&self, _: u16, into: &mut [u8]) -> Result<(), PciError> {
        into.fill(0);
        Ok(())
    }

    fn config_write(&self, _: u16, _: &[u8]) -> Result<(), PciError> {
        Ok(())
    }

    fn bar_len(&self, _: u8) -> u64 {
        0x8000
    }

    fn read(&self, bar: u8, at: u32) -> u32 {
        self.registers.lock().unwrap().get(&(bar, at)).copied().unwrap_or(0)
    }

    fn write(&self, bar: u8, at: u32, value: u32) {
        self.writes.lock().unwrap().push((bar, at, value));
        let value = self.on_write.as_ref().map_or(Some(value), |on_write| on_write(self, bar, at, value));
        if let Some(value) = value {
            self.set(bar, at, value);
        }
    }

    fn map(&self, iova: u64, memory: &Memory<'_>) -> Result<(), PciError> {
        self.maps.lock().unwrap().push((iova, memory.len));
        Ok(())
    }

    fn unmap(&self, iova: u64, len: usize) -> Result<(), PciError> {
        self.maps.lock().unwrap().retain(|map| *map != (iova, len));
        Ok(())
    }

    fn iovas(&self) -> Vec<RangeInclusive<u64>> {
        self.ranges.clone()
    }

    fn interrupt(&self, _: Option<BorrowedFd<'_>>) -> Result<(), PciError> {
        Ok(())
    }

    fn reset(&self) -> Result<(), PciError> {
        Ok(())
    }
}
