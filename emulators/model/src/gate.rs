//! No word from the dead: what a device was doing before a reset may not reach memory after it.

use std::sync::{PoisonError, RwLock};

use crate::dma::{Dma, DmaFault};

/// Lets the work of one lifetime through to memory and stops that of the lifetimes before. A function-level reset, a
/// reset of one ring pair and the loss of an engine each end a lifetime.
#[derive(Debug, Default)]
pub struct Gate(RwLock<u64>);

/// The lifetime in which a piece of work began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(u64);

impl Gate {
    /// A ticket for work that begins now.
    pub fn ticket(&self) -> Ticket {
        Ticket(*self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Ends the lifetime. When this returns, no access of earlier tickets is under way and none will begin.
    pub fn close(&self) {
        let mut lifetime = self.0.write().unwrap_or_else(PoisonError::into_inner);
        *lifetime = lifetime.wrapping_add(1);
    }

    /// Whether the lifetime of a ticket goes on.
    pub fn admits(&self, ticket: Ticket) -> bool {
        self.ticket() == ticket
    }
}

/// Memory as one piece of work sees it: there until its lifetime ends.
#[derive(Clone, Copy)]
pub struct Guarded<'a> {
    dma: &'a dyn Dma,
    gate: &'a Gate,
    ticket: Ticket,
}

impl<'a> Guarded<'a> {
    /// Access to `dma` for the holder of a ticket.
    pub fn new(dma: &'a dyn Dma, gate: &'a Gate, ticket: Ticket) -> Self {
        Guarded { dma, gate, ticket }
    }

    fn admitted(&self, access: impl FnOnce(&dyn Dma) -> Result<(), DmaFault>) -> Result<(), DmaFault> {
        // Held during the access, so that closing the gate waits for it.
        let lifetime = self.gate.0.read().unwrap_or_else(PoisonError::into_inner);
        if *lifetime != self.ticket.0 {
            return Err(DmaFault::Stale);
        }
        access(self.dma)
    }
}

impl Dma for Guarded<'_> {
    fn read(&self, iova: u64, into: &mut [u8]) -> Result<(), DmaFault> {
        self.admitted(|dma| dma.read(iova, into))
    }

    fn write(&self, iova: u64, from: &[u8]) -> Result<(), DmaFault> {
        self.admitted(|dma| dma.write(iova, from))
    }

    fn publish(&self, iova: u64, from: &[u8]) -> Result<(), DmaFault> {
        self.admitted(|dma| dma.publish(iova, from))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    struct Memory(Mutex<[u8; 8]>);

    impl Dma for Memory {
        fn read(&self, _: u64, into: &mut [u8]) -> Result<(), DmaFault> {
            into.copy_from_slice(&self.0.lock().unwrap()[..into.len()]);
            Ok(())
        }

        fn write(&self, _: u64, from: &[u8]) -> Result<(), DmaFault> {
            self.0.lock().unwrap()[..from.len()].copy_from_slice(from);
            Ok(())
        }

        fn publish(&self, iova: u64, from: &[u8]) -> Result<(), DmaFault> {
            self.write(iova, from)
        }
    }

    #[test]
    fn work_of_an_earlier_lifetime_reaches_nothing() {
        let (memory, gate) = (Memory(Mutex::new([0; 8])), Gate::default());
        let early = Guarded::new(&memory, &gate, gate.ticket());
        early.write(0, &[1]).unwrap();
        gate.close();
        assert_eq!(early.write(0, &[2]), Err(DmaFault::Stale));
        assert_eq!(early.publish(0, &[2]), Err(DmaFault::Stale));
        assert_eq!(early.read(0, &mut [0]), Err(DmaFault::Stale));
        assert_eq!(memory.0.lock().unwrap()[0], 1);
        Guarded::new(&memory, &gate, gate.ticket()).write(0, &[3]).unwrap();
        assert_eq!(memory.0.lock().unwrap()[0], 3);
    }
}
