//! What a worker does first: the dispatch table.
//!
//! Work comes in classes. In each turn they are served in the table's order, each up to its quota; what a quota leaves undone
//! has its next chance in the next turn, after the classes before it. So a class goes before those behind it, and none of them
//! starves. What waits, waits in lines whose depth is in the table too, and what does not fit there is dropped and counted.
//!
//! | class | what belongs to it | unit |
//! |---|---|---|
//! | `control` | SAs that come and go, answers of the key side and of devices, timers | a message |
//! | `ike` | IKE messages of peers that have proved who they are | a message |
//! | `critical` | inner packets of routing protocols, ARP and neighbour discovery: what must not die of load | a packet |
//! | `esp` | all other packets, both ways | a packet or a superpacket |
//! | `stranger` | IKE messages of everybody else | a message |
//!
//! Where a thing goes is sticky: an SA has one lane for all its life, packets from the network are steered there by their SPI,
//! and packets from inside are handed there by whoever reads them.

pub(crate) mod critical;

use critical::Kinds;
use serde::{Deserialize, Serialize};

/// Kinds of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Class {
    /// SAs that come and go, answers, timers.
    Control,
    /// IKE of peers that have proved who they are.
    Ike,
    /// Inner packets that keep a network together.
    Critical,
    /// All other packets.
    Esp,
    /// IKE of everybody else.
    Stranger,
}

impl Class {
    /// All, in the order of the default table.
    pub const ALL: [Class; 5] = [Class::Control, Class::Ike, Class::Critical, Class::Esp, Class::Stranger];

    /// Its name in the configuration and in `status`.
    pub fn name(self) -> &'static str {
        match self {
            Class::Control => "control",
            Class::Ike => "ike",
            Class::Critical => "critical",
            Class::Esp => "esp",
            Class::Stranger => "stranger",
        }
    }
}

/// One class in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Units in one turn.
    pub quota: usize,
    /// Units that may wait; 0 where others count what waits (devices and the key side).
    pub depth: usize,
}

/// The dispatch table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    order: [Class; 5],
    rows: [Row; 5],
    critical: Kinds,
}

impl Default for Table {
    fn default() -> Self {
        let row = |quota, depth| Row { quota, depth };
        Table {
            order: Class::ALL,
            rows: [row(256, 0), row(64, 1024), row(64, 128), row(64, 128), row(32, 1024)],
            critical: Kinds::default(),
        }
    }
}

impl Table {
    /// A table with another order, which must have every class once.
    pub fn with_order(mut self, order: [Class; 5]) -> Table {
        debug_assert!(Class::ALL.iter().all(|class| order.contains(class)));
        self.order = order;
        self
    }

    /// Changes a class.
    pub fn set(&mut self, class: Class, row: Row) {
        self.rows[class as usize] = row;
    }

    /// Changes what is critical.
    pub fn set_critical(&mut self, kinds: Kinds) {
        self.critical = kinds;
    }

    /// The classes, first things first.
    pub fn order(&self) -> &[Class; 5] {
        &self.order
    }

    /// A class.
    pub fn row(&self, class: Class) -> Row {
        self.rows[class as usize]
    }

    /// Units of a class in one turn.
    pub fn quota(&self, class: Class) -> usize {
        self.row(class).quota
    }

    /// Units of a class that may wait in one line.
    pub fn depth(&self, class: Class) -> usize {
        self.row(class).depth
    }

    /// What is critical.
    pub fn critical(&self) -> Kinds {
        self.critical
    }
}

/// What a worker did, by class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// Turns in which the class had something to do.
    pub turns: [u64; 5],
    /// Those in which its quota was not enough.
    pub cut: [u64; 5],
    /// Units that found no room in a line.
    pub dropped: [u64; 5],
    /// Datagrams that are neither ESP nor IKE nor a keepalive.
    pub garbage: u64,
}

impl Served {
    /// The class had its part of a turn; `more`: and was not through.
    pub fn note(&mut self, class: Class, more: bool) {
        self.turns[class as usize] += 1;
        self.cut[class as usize] += u64::from(more);
    }

    /// A unit was dropped.
    pub fn drop(&mut self, class: Class) {
        self.dropped[class as usize] += 1;
    }

    /// Adds another worker's.
    pub fn add(&mut self, other: &Served) {
        for class in 0..5 {
            self.turns[class] += other.turns[class];
            self.cut[class] += other.cut[class];
            self.dropped[class] += other.dropped[class];
        }
        self.garbage += other.garbage;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_are_last_and_everybody_has_a_quota() {
        let table = Table::default();
        assert_eq!(table.order().last(), Some(&Class::Stranger));
        assert!(Class::ALL.iter().all(|class| table.quota(*class) > 0));
        let order = [Class::Stranger, Class::Esp, Class::Critical, Class::Ike, Class::Control];
        assert_eq!(Table::default().with_order(order).order(), &order);
    }
}
