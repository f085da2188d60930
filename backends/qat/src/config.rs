//! What the driver may be told.

use std::path::PathBuf;

/// Where a card is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// On the PCI bus, for example `0000:6b:00.1`, and bound to vfio-pci.
    Pci(String),
    /// At the socket of a vfio-user server: an emulated card.
    Socket(PathBuf),
}

/// Settings; the defaults suit every card.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// Whether the card interrupts when a worker sleeps; without, queues have no doorbell and are polled.
    pub interrupts: bool,
    /// Places of a ring for packets, and for operations; made powers of two.
    pub packet_ring: usize,
    /// See above.
    pub operation_ring: usize,
    /// How long, in hundredths of a second, a packet may stay out before the card is said to be stuck.
    pub packet_patience: u32,
    /// And an operation. The largest ones take long, and may wait for each other.
    pub operation_patience: u32,
    /// How long a ring pair may be idle, in hundredths of a second, before it is asked something whose answer is known.
    pub probe_after: u32,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            interrupts: true,
            packet_ring: 1024,
            operation_ring: 128,
            packet_patience: 50,
            operation_patience: 1000,
            probe_after: 100,
        }
    }
}

impl Config {
    /// Places of the two rings.
    pub(crate) fn rings(&self) -> (usize, usize) {
        let of = |wish: usize, most: usize| wish.clamp(128, most).next_power_of_two();
        (of(self.packet_ring, 32 * 1024), of(self.operation_ring, 1024))
    }
}
