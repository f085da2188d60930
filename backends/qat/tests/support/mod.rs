//! Emulated cards, in this process and at a socket, as drivers that checks can run over.
#![allow(dead_code, clippy::unwrap_used)]

pub(crate) mod traffic;

use std::ops::RangeInclusive;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use emu_qat::{Card, Interrupt, Options, Personality, Served};
use qat::{Config, Memory, PciError, PciFunction, Place};
use spi::mem::{Wish, grant};
use spi::{Caps, Device, DeviceDesc, Driver, Fault, FaultKind};

/// A card in this process, as a function.
pub(crate) struct InProcess(pub(crate) Card);

impl PciFunction for InProcess {
    fn config_read(&self, at: u16, into: &mut [u8]) -> Result<(), PciError> {
        self.0.read_config(at, into);
        Ok(())
    }

    fn config_write(&self, at: u16, octets: &[u8]) -> Result<(), PciError> {
        self.0.write_config(at, octets);
        Ok(())
    }

    fn bar_len(&self, bar: u8) -> u64 {
        self.0.bar_len(bar)
    }

    fn read(&self, bar: u8, at: u32) -> u32 {
        self.0.read32(bar, at)
    }

    fn write(&self, bar: u8, at: u32, value: u32) {
        self.0.write32(bar, at, value);
    }

    fn map(&self, iova: u64, memory: &Memory<'_>) -> Result<(), PciError> {
        let file = memory.file.expect("every memory has a file").try_clone_to_owned().unwrap();
        let refused = |error| PciError::Protocol(format!("{error:?}"));
        self.0.map(iova, file, 0, memory.len as u64).map_err(refused)
    }

    fn unmap(&self, iova: u64, len: usize) -> Result<(), PciError> {
        self.0.unmap(iova, len as u64).map_err(|error| PciError::Protocol(format!("{error:?}")))
    }

    fn iovas(&self) -> Vec<RangeInclusive<u64>> {
        vec![0..=u64::MAX]
    }

    fn interrupt(&self, bell: Option<BorrowedFd<'_>>) -> Result<(), PciError> {
        let bell = bell.map(|bell| bell.as_fd().try_clone_to_owned().unwrap());
        self.0.connect(Interrupt::Msi, bell).map_err(|error| PciError::Protocol(error.to_string()))
    }

    fn reset(&self) -> Result<(), PciError> {
        self.0.reset();
        Ok(())
    }
}

/// Settings for a machine that has other things to do: nothing is stuck for being slow.
pub(crate) fn patient() -> Config {
    let mut config = Config::default();
    config.packet_patience = 3000;
    config.operation_patience = 6000;
    config
}

/// A driver for one emulated card, made anew whenever it is opened.
pub(crate) struct Emulated {
    pub(crate) personality: Personality,
    pub(crate) options: Options,
    pub(crate) config: Config,
    pub(crate) over_socket: bool,
    pub(crate) served: Mutex<Vec<Served>>,
}

impl Emulated {
    pub(crate) fn new(personality: Personality) -> Emulated {
        grant(Wish::File);
        let served = Mutex::default();
        Emulated { personality, options: Options::default(), config: patient(), over_socket: false, served }
    }

    pub(crate) fn over_socket(personality: Personality) -> Emulated {
        Emulated { over_socket: true, ..Emulated::new(personality) }
    }
}

/// What can be said of a card before it is asked.
fn nothing_known() -> Caps {
    Caps {
        esp: Vec::new(),
        dh: Vec::new(),
        sign: Vec::new(),
        verify: Vec::new(),
        prf: Vec::new(),
        traits: spi::caps::Traits::ASYNCHRONOUS,
        ring: 0,
        max_sas: 0,
        max_len: 0,
    }
}

/// A path for a socket that nobody else has.
pub(crate) fn socket_path() -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("tussock-qat-{}-{number}.sock", std::process::id()))
}

impl Driver for Emulated {
    fn name(&self) -> &'static str {
        "emulated"
    }

    fn probe(&self) -> Vec<DeviceDesc> {
        vec![DeviceDesc { id: self.personality.to_string(), numa_node: None, caps: nothing_known() }]
    }

    fn open(&self, desc: &DeviceDesc) -> Result<Arc<dyn Device>, Fault> {
        let card = Card::running(self.personality, &self.options).unwrap();
        let opened = if self.over_socket {
            let path = socket_path();
            self.served.lock().unwrap().push(card.serve(&path).unwrap());
            qat::open(&desc.id, &Place::Socket(path), &self.config)
        } else {
            qat::attach(&desc.id, Arc::new(InProcess(card)), &self.config)
        };
        opened.map_err(|error| {
            eprintln!("{error}");
            FaultKind::Internal.into()
        })
    }
}

/// An open card whose time stands still between calls of [`Card::advance`].
pub(crate) fn stepped(
    personality: Personality,
    options: &Options,
    config: &Config,
) -> (Card, Arc<dyn Device>) {
    grant(Wish::File);
    let card = Card::stepped(personality, options);
    let opening = AtomicBool::new(true);
    let device = std::thread::scope(|threads| {
        // Opening takes time, the card's own included.
        threads.spawn(|| {
            while opening.load(Ordering::Acquire) {
                card.advance(Duration::from_micros(20));
                std::thread::yield_now();
            }
        });
        let device = qat::attach("card", Arc::new(InProcess(card.clone())), config);
        opening.store(false, Ordering::Release);
        device.unwrap()
    });
    (card, device)
}

/// Settings for a card whose time may stand still: nothing is ever late, and nothing is asked unless we ask it.
pub(crate) fn timeless() -> Config {
    let mut config = Config::default();
    config.packet_patience = u32::MAX;
    config.operation_patience = u32::MAX;
    config.probe_after = u32::MAX;
    config
}
