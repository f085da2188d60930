//! What `status`, `accel` and `sas` show, as it goes over the control socket. Field names are stable: scripts read them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// `tussock status`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the program.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// Seconds since it started.
    pub uptime: u64,
    /// Where keys are written to, when they are.
    pub keylog: Option<String>,
    /// Accelerators.
    pub devices: Vec<Device>,
    /// Sockets towards the outside.
    pub sockets: Vec<Socket>,
    /// TUN devices.
    pub tuns: Vec<Tun>,
    /// Lanes of the data path.
    pub lanes: Vec<Lane>,
    /// The dispatch table, first things first.
    pub dispatch: Vec<DispatchRow>,
    /// Realms, in the order of the configuration.
    pub realms: Vec<Realm>,
    /// The key exchange.
    pub ike: Ike,
    /// The data path.
    pub esp: Esp,
    /// Drops by reason, of both.
    pub drops: BTreeMap<String, u64>,
    /// Routes into TUN devices.
    pub routes: usize,
    /// Addresses handed out, by realm.
    pub leases: BTreeMap<String, usize>,
}

/// An accelerator.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Device {
    /// What the configuration calls it, or its driver.
    pub name: String,
    /// Its driver.
    pub driver: String,
    /// Its name within the driver.
    pub id: String,
    /// `ready`, `resetting`, `failed`, or `missing`: it is not open.
    pub health: String,
    /// Why, when it is not ready.
    pub why: Option<String>,
    /// ESP transforms it carries.
    pub esp: Vec<String>,
    /// Key exchange methods it does.
    pub dh: Vec<String>,
    /// SAs on it.
    pub sas: usize,
    /// SAs it takes at most.
    pub max_sas: usize,
    /// Bursts in its queues.
    pub packets_out: usize,
    /// Bursts that wait for room in them.
    pub packets_waiting: usize,
    /// Operations in its queue.
    pub operations_out: usize,
    /// Operations that wait for room.
    pub waiting: usize,
    /// The engines inside it that it picks from.
    pub engines: Vec<Engine>,
    /// What packets cost on it, for each ESP transform of the configuration.
    pub trials: Vec<Trial>,
}

/// `tussock accel`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Accel {
    /// The accelerators, in the order in which they are preferred.
    pub devices: Vec<AccelDevice>,
}

/// An accelerator, closely.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AccelDevice {
    /// How it is.
    pub device: Device,
    /// Where it is, as the configuration has it.
    pub place: Option<String>,
    /// What it says of itself.
    pub identity: Option<String>,
    /// Its NUMA node, where the machine has several.
    pub numa_node: Option<u8>,
    /// Seconds since its health changed.
    pub since: u64,
    /// Longest packet it takes, octets.
    pub max_len: usize,
    /// Packets that it gave back.
    pub packets: u64,
    /// Octets that it carries in a second, of late.
    pub load: u64,
    /// Operations of the key exchange that it gave back.
    pub operations: u64,
    /// Its queues: one for packets in each lane, and one for operations.
    pub queues: Vec<AccelQueue>,
    /// Packets and operations it failed, by kind.
    pub errors: BTreeMap<String, u64>,
    /// SAs that left it for another device.
    pub sas_left: u64,
    /// SAs that came back to it.
    pub sas_returned: u64,
    /// Operations that were issued again, since it failed them or did not give them back.
    pub operations_reissued: u64,
    /// Jobs with known answers that it did right.
    pub known_right: u64,
    /// Jobs with known answers that it did wrong, or late, or not at all.
    pub known_wrong: u64,
    /// Resets that we began.
    pub resets: u64,
    /// What its driver counts.
    pub counters: BTreeMap<String, u64>,
}

/// A queue on an accelerator.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AccelQueue {
    /// `lane 0`, …: packets, counted in bursts; or `operations`.
    pub name: String,
    /// Jobs it holds.
    pub depth: usize,
    /// Jobs in it.
    pub in_flight: usize,
    /// Jobs that wait for room in it.
    pub waiting: usize,
    /// Jobs that never came back.
    pub lost: u64,
    /// Nanoseconds from submission to completion: half of the jobs, nine in ten, ninety-nine in a hundred, and all took no longer.
    /// Of packets one burst in sixteen is timed. Zeroes: none was.
    pub latency: [u64; 4],
}

/// What packets of a transform cost on an accelerator.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// The transform, as proposals write it.
    pub esp: String,
    /// Why it failed, if it did.
    pub fault: Option<String>,
    /// The costs.
    pub costs: Vec<TrialCost>,
}

/// What packets of a size cost in bursts of a length.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TrialCost {
    /// Octets of text in each packet.
    pub text: u16,
    /// Packets in each burst.
    pub burst: u16,
    /// Nanoseconds of CPU per packet, the mean of both directions.
    pub ns: u64,
}

/// An engine of an accelerator: for one transform, or in general.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Engine {
    /// Its name.
    pub name: String,
    /// The ESP transform this is about; none: all.
    pub esp: Option<String>,
    /// Why it is used, or not.
    pub why: String,
    /// What it costs, where that was measured.
    pub costs: Vec<EngineCost>,
}

/// What an engine costs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EngineCost {
    /// `seal` or `open`.
    pub direction: String,
    /// Octets of text in each packet.
    pub text: u16,
    /// Packets in each burst.
    pub burst: u16,
    /// Nanoseconds of CPU per packet.
    pub ns: u64,
    /// Whether packets like these go to this engine.
    pub picked: bool,
}

/// A socket.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Socket {
    /// `udp` or `esp`.
    pub kind: String,
    /// What it is for: `ike`, or the lane whose ESP it carries.
    pub serves: String,
    /// Address, and port for UDP.
    pub address: String,
    /// Datagrams received.
    pub received: u64,
    /// Pieces they came in.
    pub arrivals: u64,
    /// Datagrams sent.
    pub sent: u64,
    /// Pieces they left in.
    pub departures: u64,
    /// Datagrams that found the receive buffer full.
    pub lost: u64,
    /// Octets that wait to be received, as the kernel counts them.
    pub queued: u32,
    /// Octets that may wait.
    pub queue: u32,
    /// Offloads in use: `gso`, `gro`.
    pub offload: Vec<String>,
    /// Datagrams the kernel would not take.
    pub unsent: u64,
    /// Datagrams too large for the path.
    pub too_big: u64,
}

/// A TUN device.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tun {
    /// Its name.
    pub name: String,
    /// MTU, octets.
    pub mtu: u16,
    /// Queues in use, one for each lane.
    pub queues: usize,
    /// Offloads in use: `checksum`, `tso`, `uso`.
    pub offload: Vec<String>,
    /// Packets read from it.
    pub read: u64,
    /// Reads they came in.
    pub reads: u64,
    /// Packets written to it.
    pub written: u64,
    /// Writes they went in.
    pub writes: u64,
    /// Packets it did not take.
    pub refused: u64,
    /// Reads that gave no packet.
    pub odd: u64,
}

/// A lane of the data path.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Lane {
    /// Its number.
    pub lane: usize,
    /// SAs it has, both directions.
    pub sas: usize,
    /// Packets sealed.
    pub sealed: u64,
    /// Packets opened.
    pub opened: u64,
    /// Bursts they were in.
    pub bursts: u64,
    /// Packets and superpackets handed to other lanes.
    pub handed: u64,
    /// Packet buffers that are free.
    pub buffers_free: usize,
    /// Packet buffers there are.
    pub buffers: usize,
    /// Budgets of CPU time: realm, part of the core, bursts that wait.
    pub shares: Vec<(String, f64, usize)>,
}

/// A class in the dispatch table.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DispatchRow {
    /// Its name.
    pub class: String,
    /// Units served in one turn.
    pub quota: usize,
    /// Units that may wait in one line.
    pub depth: usize,
    /// Units that wait now, in all lines.
    pub waiting: usize,
    /// Turns in which it had something to do.
    pub turns: u64,
    /// Those in which the quota was not enough.
    pub cut: u64,
    /// Units that found no room.
    pub dropped: u64,
}

/// A realm.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Realm {
    /// Its name.
    pub name: String,
    /// `up`, `connecting` or `down`.
    pub state: String,
    /// Established IKE SAs.
    pub ike_sas: usize,
    /// Its children.
    pub children: Vec<Child>,
}

/// A child of a realm.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Child {
    /// Its name.
    pub name: String,
    /// `up`, `waiting for traffic` or `down`.
    pub state: String,
    /// Child SA pairs.
    pub sas: usize,
}

/// The key exchange.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Ike {
    /// IKE SAs, half-open ones included.
    pub sas: usize,
    /// Those not authenticated yet.
    pub half_open: usize,
    /// Whether strangers must return a cookie.
    pub cookies: bool,
    /// Jobs and questions that are out.
    pub in_flight: usize,
    /// Questions to the key side without an answer yet.
    pub questions: usize,
    /// Requests of ours that were sent again, each time.
    #[serde(default)]
    pub sent_again: u64,
    /// Requests of peers that came again, each time.
    #[serde(default)]
    pub came_again: u64,
}

/// The data path.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Esp {
    /// Packets sealed.
    pub sealed: u64,
    /// Their payload octets.
    pub sealed_bytes: u64,
    /// Packets opened.
    pub opened: u64,
    /// Their octets.
    pub opened_bytes: u64,
    /// Packets let through in the clear.
    pub bypassed: u64,
    /// Keepalives received and sent.
    pub keepalives: (u64, u64),
    /// Flow cache: found and decided anew.
    pub flows: (u64, u64),
    /// Places in the order of delivery that were given up, and bursts that came after theirs was.
    pub order: (u64, u64),
}

/// `tussock sas`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sas {
    /// The IKE SAs, oldest first.
    pub ike_sas: Vec<IkeSa>,
}

/// `tussock leases`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Leases {
    /// The addresses that are in use or remembered, by realm and in their order.
    pub leases: Vec<Lease>,
}

/// An address of a pool.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Lease {
    /// The realm.
    pub realm: String,
    /// The address.
    pub address: String,
    /// Whose it is.
    pub who: String,
    /// The IKE SAs that hold it; none: it is not in use.
    pub sas: Vec<u64>,
    /// Of one that is not in use: seconds for which nobody else gets it.
    pub kept: Option<u64>,
}

/// An IKE SA.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct IkeSa {
    /// Its number in this run.
    pub id: u64,
    /// Its realm, once known.
    pub realm: Option<String>,
    /// `initiator` or `responder`.
    pub role: String,
    /// `established`, or what is awaited.
    pub state: String,
    /// Initiator's SPI, 16 hexadecimal digits.
    pub spi_i: String,
    /// Responder's SPI.
    pub spi_r: String,
    /// Our address and port.
    pub local: String,
    /// The peer's.
    pub remote: String,
    /// Who we are.
    pub own_id: Option<String>,
    /// Who the peer is.
    pub peer_id: Option<String>,
    /// What the peer called itself in IKE, where EAP has named it otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ike_id: Option<String>,
    /// How the peer proved it.
    pub how: Option<String>,
    /// The suite, as proposals write it.
    pub suite: String,
    /// Whether there is a NAT before us.
    pub we_behind_nat: bool,
    /// Whether there is one before the peer.
    pub peer_behind_nat: bool,
    /// Seconds since it was begun.
    pub age: u64,
    /// Seconds since it is up.
    pub established: Option<u64>,
    /// Seconds until we rekey it.
    pub rekey_in: Option<u64>,
    /// Seconds until we authenticate anew.
    pub reauth_in: Option<u64>,
    /// Seconds until the peer's session is over, if it was let in for a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_left: Option<u64>,
    /// Groups that the authentication server put the peer into.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// Seconds since the peer was last heard.
    pub heard: u64,
    /// Inner addresses, the peer's or ours.
    pub addresses: Vec<String>,
    /// Its children.
    pub children: Vec<ChildSa>,
}

/// A Child SA pair.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ChildSa {
    /// Its number in this run.
    pub id: u64,
    /// Its name in the realm.
    pub name: String,
    /// The worker it is for, if it is for one alone: one of several with the same selectors (RFC 9611).
    pub resource: Option<u16>,
    /// `installed`, or what is going on with it.
    pub state: String,
    /// SPI of packets to us, 8 hexadecimal digits.
    pub spi_in: String,
    /// SPI of packets to the peer.
    pub spi_out: String,
    /// The suite, as proposals write it.
    pub suite: String,
    /// `tunnel` or `transport`.
    pub mode: String,
    /// Our selectors.
    pub local: Vec<String>,
    /// The peer's selectors.
    pub remote: Vec<String>,
    /// The peer's address.
    pub peer: String,
    /// `udp` or `raw`.
    pub encap: String,
    /// Whether we send with it now.
    pub sending: bool,
    /// Packets to us.
    pub packets_in: u64,
    /// Octets to us.
    pub bytes_in: u64,
    /// Packets to the peer.
    pub packets_out: u64,
    /// Octets to the peer.
    pub bytes_out: u64,
    /// Drops by reason, both directions.
    pub drops: BTreeMap<String, u64>,
    /// Seconds since it is installed.
    pub age: u64,
    /// Seconds until we rekey it.
    pub rekey_in: Option<u64>,
    /// Seconds until it is given up.
    pub expires_in: Option<u64>,
}
