//! A card at a vfio-user socket.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use emu_model::{Access, IrqError, MapError, Window};
use rustix::io::Errno;
use tracing::{debug, trace};
use vfio_user::{
    Action, DmaWindow, Function, Interrupts, IrqData, IrqRequest, ListenError, Region, Server, Stopper, irq,
    region,
};

use crate::card::{Card, Interrupt};

/// A thread that serves a card; it ends, and the socket goes, when this is dropped.
pub struct Served {
    stopper: Stopper,
    thread: Option<JoinHandle<io::Result<()>>>,
}

/// Why a card cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The socket.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The system.
    #[error("cannot serve: {0}")]
    Io(#[from] io::Error),
}

impl Card {
    /// Serves the card on a vfio-user socket at `path`, on a thread of its own.
    ///
    /// # Errors
    /// The path is taken, or the system lets us have no socket or thread.
    pub fn serve(&self, path: &Path) -> Result<Served, ServeError> {
        let mut server = Server::new()?;
        server.listen(path, Arc::new(self.clone()))?;
        let stopper = server.stopper();
        let builder = std::thread::Builder::new().name("vfio-user".to_string());
        let thread = builder.spawn(move || server.run())?;
        Ok(Served { stopper, thread: Some(thread) })
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stopper.stop();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Function for Card {
    fn region(&self, index: u32) -> Option<Region> {
        let len = match index {
            region::CONFIG => region::CONFIG_LEN,
            bar => self.bar_len(u8::try_from(bar).ok()?),
        };
        (len > 0).then_some(Region { len, read: true, write: true })
    }

    fn interrupts(&self, index: u32) -> Option<Interrupts> {
        interrupt(index).map(|_| Interrupts { count: 1, maskable: false, no_resize: true })
    }

    fn read(&self, index: u32, offset: u64, into: &mut [u8]) {
        let (Ok(bar), Ok(offset)) = (u8::try_from(index), u32::try_from(offset)) else { return };
        if index == region::CONFIG {
            self.read_config(offset as u16, into);
            return;
        }
        // Registers have 32 bits; whoever reads a part of one, or several, gets that.
        let mut register = None;
        for (octet, at) in into.iter_mut().zip(offset..) {
            let value = match register {
                Some((from, value)) if from == at & !3 => value,
                _ => self.read32(bar, at),
            };
            register = Some((at & !3, value));
            *octet = (value >> (8 * (at & 3))) as u8;
        }
        trace!(bar, offset, ?into, "read");
    }

    fn write(&self, index: u32, offset: u64, from: &[u8]) {
        trace!(index, offset, ?from, "write");
        let (Ok(bar), Ok(offset)) = (u8::try_from(index), u32::try_from(offset)) else { return };
        if index == region::CONFIG {
            self.write_config(offset as u16, from);
            return;
        }
        // Whole registers only: what half of one would mean, nobody has said.
        if !offset.is_multiple_of(4) {
            return;
        }
        for (value, at) in from.as_chunks::<4>().0.iter().zip((offset..).step_by(4)) {
            self.write32(bar, at, u32::from_le_bytes(*value));
        }
    }

    fn set_irqs(&self, request: IrqRequest) -> Result<(), Errno> {
        debug!(?request, "interrupts");
        let IrqRequest { index, start, count, action, data } = request;
        let Some(kind) = interrupt(index) else { return Ok(()) };
        self.with_vectors(kind, |vectors| {
            let which = (start..start.saturating_add(count)).map(|vector| vector as usize);
            match (action, data) {
                (Action::Trigger, IrqData::All) if count == 0 => vectors.disconnect_all(),
                (Action::Trigger, IrqData::All) => which.for_each(|vector| vectors.raise(vector)),
                (Action::Trigger, IrqData::Some(wanted)) => {
                    which
                        .zip(wanted)
                        .filter(|(_, wanted)| *wanted)
                        .for_each(|(vector, _)| vectors.raise(vector));
                }
                (Action::Trigger, IrqData::Eventfds(fds)) => {
                    for (vector, fd) in which.zip(fds) {
                        vectors.connect(vector, Some(fd)).map_err(irq_error)?;
                    }
                }
                (Action::Trigger, IrqData::Disconnect) => {
                    for vector in which {
                        vectors.connect(vector, None).map_err(irq_error)?;
                    }
                }
                // MSI cannot be masked vector by vector here, and the information says so.
                (Action::Mask | Action::Unmask, _) => return Err(Errno::INVAL),
            }
            Ok(())
        })
    }

    fn map(&self, window: DmaWindow, file: Option<OwnedFd>) -> Result<(), Errno> {
        trace!(?window, with_file = file.is_some(), "map");
        let DmaWindow { iova, len, offset, read, write } = window;
        let window = Window { iova, len, offset, access: Access { read, write } };
        self.space().map(window, file).map_err(map_error)
    }

    fn unmap(&self, iova: u64, len: u64) -> Result<(), Errno> {
        trace!(iova, len, "unmap");
        self.space().unmap(iova, len).map(|_| ()).map_err(map_error)
    }

    fn reset(&self) -> Result<(), Errno> {
        debug!("reset");
        Card::reset(self);
        Ok(())
    }

    /// As when a process closes a VFIO device: the next user finds nothing of this one.
    fn client_gone(&self) {
        self.let_go();
    }
}

fn interrupt(index: u32) -> Option<Interrupt> {
    match index {
        irq::MSI => Some(Interrupt::Msi),
        irq::ERR => Some(Interrupt::Error),
        irq::REQ => Some(Interrupt::Request),
        _ => None,
    }
}

fn map_error(error: MapError) -> Errno {
    match error {
        MapError::Exists => Errno::EXIST,
        MapError::TooMany => Errno::NOSPC,
        MapError::OutOfRange | MapError::NotMappable | MapError::Cuts => Errno::INVAL,
    }
}

fn irq_error(error: IrqError) -> Errno {
    match error {
        IrqError::NoSuchVector | IrqError::NotAnEventfd => Errno::INVAL,
    }
}
