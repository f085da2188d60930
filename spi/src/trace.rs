//! The SPI for logging and tracing: where events of the gateway go. An event is a record with fields, never a format
//! string, and holds no secret.

use std::time::SystemTime;

/// How much an event matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// For those who debug.
    Debug,
    /// The normal course of things.
    Info,
    /// Somebody should look.
    Warning,
    /// Something does not work.
    Error,
}

/// The value of a field.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// A count, a size, a number.
    Number(u64),
    /// A text.
    Text(String),
    /// Yes or no.
    Flag(bool),
}

/// One event.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// When.
    pub at: SystemTime,
    /// How much it matters.
    pub severity: Severity,
    /// Name of the event, for example `ike-sa-established`; stable, for machines.
    pub name: &'static str,
    /// One line for people.
    pub message: String,
    /// Fields, in order.
    pub fields: Vec<(&'static str, Value)>,
}

/// Where events go. Called on the data path's threads: must not block; may drop, and counts what it drops.
pub trait Sink: Send + Sync {
    /// Takes one event.
    fn record(&self, record: &Record);

    /// Events that could not be taken.
    fn dropped(&self) -> u64 {
        0
    }
}
