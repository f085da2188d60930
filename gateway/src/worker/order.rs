//! What the control thread may want from the worker.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use ike::{Command, DhcpLease};
use ipc::NetworkEnd;
use policy::Realm;
use serde::{Deserialize, Serialize};
use spi::{Doorbell, Token};
use tokio::sync::oneshot;

use crate::backlog;
use crate::config::{CarveOut, RealmWork};
use crate::report;

/// Orders that may wait.
const DEPTH: usize = 256;

/// An order; each is answered through its own channel.
pub enum Order {
    /// For the engine.
    Command {
        /// What.
        command: Command,
        /// Done, or why not.
        answer: oneshot::Sender<Result<String, String>>,
    },
    /// How things are.
    Status(oneshot::Sender<report::Status>),
    /// The accelerators.
    Accel(oneshot::Sender<report::Accel>),
    /// All SAs.
    Sas(oneshot::Sender<report::Sas>),
    /// The addresses of pools that are in use or remembered.
    Leases(oneshot::Sender<report::Leases>),
    /// Another configuration; the key side has it already.
    Reload {
        /// What changed.
        new: Box<Reload>,
        /// In place.
        answer: oneshot::Sender<()>,
    },
    /// The answer of a DHCP server.
    Address {
        /// The engine's name for the question.
        token: Token,
        /// The address, or why there is none.
        answer: Result<DhcpLease, String>,
    },
    /// A DHCP server has taken an address back.
    AddressLost {
        /// The realm.
        realm: String,
        /// The address.
        address: IpAddr,
    },
    /// Inner packets, as blocks of a pcapng file.
    Capture(backlog::Sender),
    /// The channel to another key side, in the place of one that is gone.
    KeySide(NetworkEnd),
    /// Take everything down and end.
    Stop(oneshot::Sender<()>),
}

/// The part of the configuration that can change while the worker runs. Holds no secret.
#[derive(Serialize, Deserialize)]
pub struct Reload {
    /// The realms.
    pub realms: Vec<Arc<Realm>>,
    /// Hashes of the CAs of each, for CERTREQ.
    pub authorities: BTreeMap<String, ipc::CertAsks>,
    /// Carve-outs.
    pub carve_outs: Vec<CarveOut>,
    /// How often dummy packets go out, by realm and child.
    pub dummies: BTreeMap<(Arc<str>, Arc<str>), Duration>,
    /// Children, by realm and name, whose traffic goes nowhere while they are down.
    pub guarded: BTreeSet<(Arc<str>, Arc<str>)>,
    /// How packets are worked on, by realm, where it is not as usual.
    pub works: BTreeMap<Arc<str>, RealmWork>,
}

/// Where orders go. Clones go to the same worker.
#[derive(Clone)]
pub struct Orders {
    to: SyncSender<Order>,
    bell: Doorbell,
}

/// Why an order was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotTaken {
    /// Too many at once.
    #[error("the gateway is busy; try again")]
    Busy,
    /// It is ending.
    #[error("the gateway is ending")]
    Ended,
}

/// The worker's end.
pub(crate) struct Taker {
    pub(crate) from: Receiver<Order>,
    pub(crate) bell: Doorbell,
}

/// Both ends.
pub(crate) fn channel() -> std::io::Result<(Orders, Taker)> {
    let (to, from) = sync_channel(DEPTH);
    let bell = Doorbell::between_threads()?;
    Ok((Orders { to, bell: bell.clone() }, Taker { from, bell }))
}

impl Orders {
    /// Gives an order. Never waits.
    ///
    /// # Errors
    /// [`NotTaken`].
    pub fn give(&self, order: Order) -> Result<(), NotTaken> {
        self.to.try_send(order).map_err(|error| match error {
            TrySendError::Full(_) => NotTaken::Busy,
            TrySendError::Disconnected(_) => NotTaken::Ended,
        })?;
        self.bell.ring();
        Ok(())
    }
}
