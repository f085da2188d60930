//! Addresses for clients from DHCP servers: of IPv4 (RFC 2131) in [`v4`], of IPv6 (RFC 8415) in [`v6`]. We speak to servers as a relay
//! agent that stands in the network the addresses are of, for clients whose name is their IKE identity. What a client holds is renewed,
//! and released when it goes.
//!
//! A task of the control thread does it for each family; the worker asks and is answered by orders, and an exchange that waits for an
//! answer gets one within [`DEADLINE`], whatever the server does. What is no answer to anything we asked is dropped and counted.

mod message6;
mod sockets;
mod v4;
mod v6;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ike::DhcpLease;
use policy::{DhcpSource, Identity, Pool};
use spi::Token;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::worker::order::{Order, Orders};

pub use sockets::{Sockets, open};

/// How long a client's exchange waits for an address.
const DEADLINE: Duration = Duration::from_secs(6);
/// Questions that may wait for a task, and talks it has with servers.
const QUESTIONS: usize = 1024;
const TALKS: usize = 4096;
/// Leases, as many as a pool remembers.
const LEASES: usize = ike::pool::MAX_LEASES;
/// An address that the engine did not take goes back.
const UNCLAIMED: Duration = Duration::from_secs(30);
/// A lease that ends sooner than this is renewed all the time.
const SHORTEST: Duration = Duration::from_secs(30);
/// Why a device's network cannot be asked.
const NO_ADDRESS: &str =
    "it had no address of the family when the configuration was read; reload it when it has";

/// Where the worker asks. Clones reach the same tasks.
#[derive(Clone)]
pub struct Dhcp {
    v4: mpsc::Sender<Ask<Ipv4Addr>>,
    v6: mpsc::Sender<Ask<Ipv6Addr>>,
    drops: Arc<Drops>,
}

/// What the worker wants.
enum Ask<A> {
    Want(Want<A>),
    /// A client has the address now, or has it no more.
    Held(Arc<str>, A, bool),
}

/// An address is wanted.
struct Want<A> {
    /// The engine's name for the question.
    token: Token,
    /// For which realm.
    realm: Arc<str>,
    /// From which server.
    source: DhcpSource<A>,
    /// For whom.
    identity: Identity,
    /// The one it had before.
    hint: Option<A>,
}

/// Why a message was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dropped {
    /// It is no message, or lacks what it must have.
    Malformed,
    /// Nobody has asked, or not any more.
    Unasked,
    /// It comes from another server, or is for another client.
    NotOurs,
    /// It is no answer to what was asked.
    OutOfTurn,
}

/// How many were dropped, by reason.
#[derive(Default)]
struct Drops([AtomicU64; 4]);

/// Where tasks answer.
#[derive(Clone)]
struct Outlet {
    orders: Arc<OnceLock<Orders>>,
    drops: Arc<Drops>,
}

impl Dhcp {
    /// Starts the tasks, with the sockets that are open already.
    ///
    /// The worker is not there yet; `orders` is filled as soon as it is.
    pub fn start(orders: Arc<OnceLock<Orders>>, sockets: Sockets) -> Dhcp {
        let drops = Arc::new(Drops::default());
        let outlet = Outlet { orders, drops: Arc::clone(&drops) };
        let (four, six) = sockets.into_iter().partition(|(place, _)| place.address.is_ipv4());
        let v4 = v4::start(outlet.clone(), four, (sockets::PORT4, sockets::PORT4));
        let v6 = v6::start(outlet, six, (sockets::PORT6, sockets::PORT6));
        Dhcp { v4, v6, drops }
    }

    /// Asks for an address of a family; the answer is an [`Order::Address`]. Never waits.
    ///
    /// # Errors
    /// Too many questions wait, or the realm has no such server.
    pub fn want(
        &self,
        token: Token,
        (realm, pool): (&Arc<str>, &Pool),
        identity: Identity,
        v4: bool,
        hint: Option<IpAddr>,
    ) -> Result<(), String> {
        let (realm, none) = (Arc::clone(realm), || "the realm has no DHCP server any more".to_owned());
        let sent = if v4 {
            let source = pool.dhcp.clone().ok_or_else(none)?;
            let hint = hint.and_then(|hint| if let IpAddr::V4(hint) = hint { Some(hint) } else { None });
            self.v4.try_send(Ask::Want(Want { token, realm, source, identity, hint })).is_ok()
        } else {
            let source = pool.dhcp6.clone().ok_or_else(none)?;
            let hint = hint.and_then(|hint| if let IpAddr::V6(hint) = hint { Some(hint) } else { None });
            self.v6.try_send(Ask::Want(Want { token, realm, source, identity, hint })).is_ok()
        };
        if sent { Ok(()) } else { Err("too many questions to DHCP servers wait".to_owned()) }
    }

    /// Tells that a client has an address, or has it no more.
    pub fn held(&self, realm: &Arc<str>, address: IpAddr, held: bool) {
        let name = Arc::clone(realm);
        let told = match address {
            IpAddr::V4(address) => self.v4.try_send(Ask::Held(name, address, held)).is_ok(),
            IpAddr::V6(address) => self.v6.try_send(Ask::Held(name, address, held)).is_ok(),
        };
        if !told {
            // The server's own clock will see to it.
            tracing::warn!(%realm, %address, held, "DHCP does not learn what became of an address");
        }
    }

    /// What was dropped so far, by reason.
    pub fn drops(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let counts = self.drops.0.iter().map(|count| count.load(Ordering::Relaxed));
        let reasons = ["malformed", "nobody asked", "another's", "out of turn"];
        reasons.into_iter().zip(counts).filter(|(_, count)| *count > 0)
    }
}

/// What a family's task does.
trait Agent<A> {
    fn want(&mut self, want: Want<A>);
    fn held(&mut self, realm: Arc<str>, address: A, held: bool);
    fn hear(&mut self, from: SocketAddr, octets: &[u8]);
    /// When it wants to look after what it has.
    fn due(&self) -> Option<Instant>;
    fn look_after(&mut self, now: Instant);
    fn release_all(self);
}

async fn run<A>(
    mut agent: impl Agent<A>,
    mut asks: mpsc::Receiver<Ask<A>>,
    mut hear: mpsc::Receiver<(SocketAddr, Vec<u8>)>,
) {
    loop {
        let due = agent.due();
        let due = async {
            match due {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            ask = asks.recv() => match ask {
                Some(Ask::Want(want)) => agent.want(want),
                Some(Ask::Held(realm, address, held)) => agent.held(realm, address, held),
                // The worker is gone, and with it every client.
                None => return agent.release_all(),
            },
            Some((from, octets)) = hear.recv() => agent.hear(from, &octets),
            () = due => agent.look_after(Instant::now()),
        }
    }
}

impl Outlet {
    fn answer(&self, token: Token, answer: Result<DhcpLease, String>) {
        self.give(Order::Address { token, answer });
    }

    /// A client must let its address go.
    fn lost(&self, realm: &str, address: IpAddr, why: &str) {
        tracing::warn!(%realm, %address, %why, "a lease by DHCP is over");
        self.give(Order::AddressLost { realm: realm.to_owned(), address });
    }

    fn give(&self, order: Order) {
        if let Some(Err(error)) = self.orders.get().map(|orders| orders.give(order)) {
            tracing::warn!(%error, "word of a DHCP server was lost");
        }
    }

    fn drop(&self, why: Dropped) {
        let place = match why {
            Dropped::Malformed => 0,
            Dropped::Unasked => 1,
            Dropped::NotOurs => 2,
            Dropped::OutOfTurn => 3,
        };
        self.drops.0[place].fetch_add(1, Ordering::Relaxed);
        tracing::debug!(?why, "message for a DHCP relay dropped");
    }
}

/// Domains that a server names, as clients are told of them.
fn domains<T: AsRef<[u8]>>(names: impl IntoIterator<Item = T>) -> Vec<Arc<str>> {
    let mut all: Vec<Arc<str>> = Vec::new();
    for name in names.into_iter().filter_map(|name| policy::pool::domain(name.as_ref())) {
        if !all.iter().any(|known| **known == *name) {
            all.push(name.into());
        }
    }
    all
}
