//! What all IKE SAs share: configuration, time, effects to come, timers, the tables of work that is out.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipc::Request;
use policy::{Identity, Realm};
use spi::{CryptoJob, CryptoOp, DhPrivate, Group, InFlight, Secret, ShortOps, Token};
use wire::TrafficSelector;
use wire::ike::Spi;

use crate::config::Config;
use crate::cookie::{CookieJar, Gate, Load, Switch, Thresholds};
use crate::effect::{ChildId, ChildRemoved, Effect, Event, IkeSaId, InnerAddress, LeaseChange, Path, Why};
use crate::handler::Handlers;
use crate::lanes::Lanes;
use crate::pool::AddressPool;
use crate::protect::Opened;
use crate::realms::Realms;
use crate::sa::IkeSa;
use crate::shelf::Shelf;
use crate::status::Repeats;
use crate::timer::Timers;

/// Octets of our nonces: at least half the key of every PRF in the table (RFC 7296 section 2.10).
const NONCE_LEN: usize = 32;

/// How often a job that a device reset threw out is issued again.
const REISSUES: u8 = 2;

/// How often we look whether cookies may go off.
pub(crate) const GATE_LOOK: Duration = Duration::from_secs(1);

/// See [`Core::patience`].
const LONGEST_PATIENCE: Duration = Duration::from_secs(300);

/// Events about dropped messages reported in one second; all are counted.
const DROP_REPORTS: u32 = 10;

/// Shared by all IKE SAs. Everything an SA does to the world goes through here.
pub(crate) struct Core {
    /// All but the realms.
    pub(crate) config: Config,
    pub(crate) realms: Realms,
    pub(crate) ops: Arc<dyn ShortOps>,
    pub(crate) now: Instant,
    pub(crate) fx: Vec<Effect>,
    pub(crate) timers: Timers<Timer>,
    /// What is to be done to other SAs than the one at hand, and at realm level.
    pub(crate) todo: VecDeque<Todo>,
    /// Our SPI of each IKE SA.
    pub(crate) ike_spis: HashMap<Spi, IkeSaId>,
    /// Which IKE SA a child belongs to.
    pub(crate) child_of: HashMap<ChildId, IkeSaId>,
    /// Children that are gone but whose inbound SA still takes late packets.
    pub(crate) fading: BTreeMap<ChildId, ChildRemoved>,
    pub(crate) jar: CookieJar,
    pub(crate) gate: Gate,
    /// By realm, with the configuration they were made from.
    pub(crate) pools: BTreeMap<Arc<str>, (policy::Pool, AddressPool)>,
    /// Addresses that an authentication server has named for clients of realms without a pool; by realm, while there are any.
    pub(crate) grants: BTreeMap<Arc<str>, AddressPool>,
    pub(crate) handlers: Handlers,
    pub(crate) dropped: BTreeMap<&'static str, u64>,
    pub(crate) repeats: Repeats,
    pub(crate) half_open: usize,
    /// Established IKE SAs by a hash of realm and the peer's identity.
    by_peer: BTreeSet<(u64, IkeSaId)>,
    of_realm: HashMap<Arc<str>, OfRealm>,
    pub(crate) hasher: RandomState,
    shelf: Shelf,
    /// Inner addresses assigned to us, and by how many IKE SAs.
    addresses: HashMap<(Arc<str>, IpAddr), usize>,
    pub(crate) crypto_room: usize,
    pub(crate) closing: bool,
    crypto: InFlight<CryptoWait>,
    asks: InFlight<IkeSaId>,
    pub(crate) lanes: Lanes,
    drop_reports: (Option<Instant>, u32),
    told: (Option<Instant>, u32),
    last_sa: u64,
    last_child: u64,
}

/// The IKE SAs of a realm.
#[derive(Default)]
struct OfRealm {
    /// Those we set up, and all that are or were established.
    all: BTreeSet<IkeSaId>,
    /// How many are established.
    up: usize,
}

/// What falls due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// Our request was not answered yet.
    Retransmit(IkeSaId),
    /// An IKE SA should have been authenticated by now, or a closed one need not answer retransmissions any more.
    GiveUp(IkeSaId),
    /// Look whether the peer was heard of.
    Liveness(IkeSaId),
    RekeyIke(IkeSaId),
    Reauth(IkeSaId),
    ExpireIke(IkeSaId),
    /// Tasks that were put off may be tried again.
    Tasks(IkeSaId),
    /// Another IKE SA of the same identity replaced this one some time ago.
    Superseded(IkeSaId),
    /// The time is over for which the peer was let in.
    Session(IkeSaId),
    RekeyChild(ChildId),
    ExpireChild(ChildId),
    /// The peer should have deleted this redundant child by now.
    Redundant(ChildId),
    /// The peer has had the time to install a child that it asked for, even if it has sent nothing through it.
    Granted(ChildId),
    /// The last late packets of a child are through.
    Faded(ChildId),
    /// Try the realms again whose time has come.
    Realms,
    /// Look whether cookies may go off.
    Gate,
}

/// What one SA wants done outside itself. Carried out by the engine when the SA is back in its place.
pub(crate) enum Todo {
    /// A new SA, made by rekeying.
    Adopt(Box<IkeSa>),
    /// Hand children and everything else that outlives a rekey from one to the other.
    Inherit { from: IkeSaId, to: IkeSaId },
    /// The peer has deleted an SA whose children were just handed on.
    Inherited(IkeSaId),
    /// The peer uses the SA it made in a collision (`to`) before we know how ours ended: it stands. The message is looked at
    /// when the children have passed on.
    Yield { from: IkeSaId, to: IkeSaId, path: Path, message: Box<Opened> },
    /// See `Yield`.
    Redeliver { to: IkeSaId, path: Path, message: Box<Opened> },
    /// A redundant SA: delete it if the peer does not.
    Redundant(IkeSaId),
    /// Another SA proved the same identity. `forget`: the peer said that it knows of no other (INITIAL_CONTACT).
    Superseded { by: IkeSaId, realm: Arc<str>, peer: Identity, forget: bool },
    /// An IKE SA came up.
    IkeUp { id: IkeSaId, realm: Arc<str> },
    /// It is gone or never came up.
    IkeDown { realm: Arc<str>, down: Down },
    /// An IKE SA was rekeyed.
    IkeRekeyed { realm: Arc<str> },
    /// Rekeying an IKE SA failed; it will be tried again.
    RekeyFailed { realm: Arc<str>, why: String },
    /// A child came up, perhaps in place of another.
    ChildUp { id: IkeSaId, realm: Arc<str>, name: Arc<str>, rekeyed: bool },
    /// A child did not come up.
    ChildFailed { id: IkeSaId, realm: Arc<str>, name: Arc<str>, why: String, again: bool },
    /// A child is gone and nothing took its place.
    ChildDown { realm: Arc<str>, name: Arc<str> },
    /// Replace an SA by a new one with fresh authentication.
    Reauthenticate(IkeSaId),
}

/// How an IKE SA went down.
pub(crate) struct Down {
    pub(crate) why: Why,
    pub(crate) kind: DownKind,
    /// Names of the children that went with it.
    pub(crate) children: Vec<Arc<str>>,
}

/// What to make of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DownKind {
    /// It was to be so: replaced, deleted by command, redundant.
    Meant,
    /// The peer deleted it.
    ByPeer,
    /// The peer does not answer.
    Dead,
    /// It failed.
    Failed,
}

/// Which exchange of an SA waits for a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    /// IKE_SA_INIT.
    Init,
    /// Our CREATE_CHILD_SA.
    Ours,
    /// The peer's CREATE_CHILD_SA.
    Theirs,
    /// An extension that suspended the exchange.
    #[cfg_attr(not(test), allow(dead_code, reason = "for extensions; none of the present ones needs it"))]
    Handler,
}

/// An operation that can be issued again.
pub(crate) enum Op {
    Generate(Group),
    Derive {
        group: Group,
        ours: DhPrivate,
        theirs: Vec<u8>,
    },
    Encapsulate {
        group: Group,
        theirs: Vec<u8>,
    },
    #[cfg_attr(not(test), allow(dead_code, reason = "for extensions; none of the present ones needs it"))]
    Random(usize),
}

pub(crate) struct CryptoWait {
    pub(crate) sa: IkeSaId,
    pub(crate) slot: Slot,
    pub(crate) op: Op,
    reissues: u8,
}

impl Core {
    pub(crate) fn new(mut config: Config, ops: Arc<dyn ShortOps>, now: Instant, handlers: Handlers) -> Self {
        let realms = Realms::new(std::mem::take(&mut config.realms));
        let limit = config.in_flight_limit.max(8);
        let jar = CookieJar::new(&*ops, now);
        let gate = Gate::new(Thresholds::of(config.cookie_threshold));
        let mut core = Core {
            ops,
            now,
            fx: Vec::new(),
            timers: Timers::new(now),
            todo: VecDeque::new(),
            ike_spis: HashMap::new(),
            child_of: HashMap::new(),
            fading: BTreeMap::new(),
            jar,
            gate,
            pools: BTreeMap::new(),
            handlers,
            dropped: BTreeMap::new(),
            repeats: Repeats::default(),
            half_open: 0,
            by_peer: BTreeSet::new(),
            of_realm: HashMap::new(),
            hasher: RandomState::new(),
            shelf: Shelf::new(),
            grants: BTreeMap::new(),
            realms,
            addresses: HashMap::new(),
            crypto_room: usize::MAX,
            closing: false,
            crypto: InFlight::new(limit),
            asks: InFlight::new(limit),
            lanes: Lanes::new(config.lanes),
            drop_reports: (None, 0),
            told: (None, 0),
            last_sa: 0,
            last_child: 0,
            config,
        };
        core.make_pools();
        for known in std::mem::take(&mut core.config.leases) {
            if let Some((of, pool)) = core.pools.get_mut(&known.realm) {
                pool.restore(now, known.address, known.identity, of.hold.saturating_sub(known.idle));
            }
        }
        core
    }

    /// Issues an operation; `None` when too much is out already.
    pub(crate) fn submit(&mut self, sa: IkeSaId, slot: Slot, op: Op) -> Option<Token> {
        self.issue(CryptoWait { sa, slot, op, reissues: 0 })
    }

    /// Issues again what a device reset threw out: nothing of it was seen by anybody.
    pub(crate) fn reissue(&mut self, mut wait: CryptoWait) -> Option<Token> {
        wait.reissues += 1;
        if wait.reissues > REISSUES { None } else { self.issue(wait) }
    }

    fn issue(&mut self, wait: CryptoWait) -> Option<Token> {
        let op = wait.op.duplicate()?;
        let token = self.crypto.insert(wait).ok()?;
        self.fx.push(Effect::Crypto(CryptoJob { token, op }));
        Some(token)
    }

    /// Asks the key side; `None` when too much is out already.
    pub(crate) fn ask(&mut self, sa: IkeSaId, request: Request) -> Option<Token> {
        let token = self.insert_ask(sa)?;
        self.fx.push(Effect::Ask { token, request });
        Some(token)
    }

    /// A question of this IKE SA that is out, to whomever.
    pub(crate) fn insert_ask(&mut self, sa: IkeSaId) -> Option<Token> {
        self.asks.insert(sa).ok()
    }

    pub(crate) fn take_crypto(&mut self, token: Token) -> Option<CryptoWait> {
        self.crypto.take(token)
    }

    pub(crate) fn take_ask(&mut self, token: Token) -> Option<IkeSaId> {
        self.asks.take(token)
    }

    /// Nobody waits for this any more; its completion will be a stray.
    pub(crate) fn forget_crypto(&mut self, token: Option<Token>) {
        if let Some(token) = token {
            self.crypto.take(token);
        }
    }

    /// The same for a question.
    pub(crate) fn forget_ask(&mut self, token: Option<Token>) {
        if let Some(token) = token {
            self.asks.take(token);
        }
    }

    /// Jobs and questions that are out.
    pub(crate) fn in_flight(&self) -> usize {
        self.crypto.len() + self.asks.len()
    }

    /// What strangers cost us now: the device's room and our own table's count alike.
    pub(crate) fn load(&self) -> Load {
        Load { half_open: self.half_open, crypto_room: self.crypto_room.min(self.crypto.room()) }
    }

    /// Tells of cookies going on or off.
    pub(crate) fn note_switch(&mut self, switch: Switch) {
        if switch != Switch::Same {
            let half_open = self.half_open;
            self.event(Event::Cookies { on: switch == Switch::On, half_open });
        }
        if switch == Switch::On {
            self.arm(Timer::Gate, GATE_LOOK);
        }
    }

    pub(crate) fn event(&mut self, event: Event) {
        self.fx.push(Effect::Event(event));
    }

    /// Counts a dropped message; reports some of them.
    pub(crate) fn dropped(&mut self, remote: SocketAddr, reason: &'static str) {
        *self.dropped.entry(reason).or_default() += 1;
        self.refusal(Event::Dropped { remote, reason });
    }

    /// Whether one more answer to a message that made no sense may go out: a few in a second, for people who wonder.
    pub(crate) fn may_tell_strangers(&mut self) -> bool {
        let fresh = self.told.0.is_none_or(|at| self.now.duration_since(at) >= Duration::from_secs(1));
        if fresh {
            self.told = (Some(self.now), 0);
        }
        self.told.1 += 1;
        self.told.1 <= DROP_REPORTS
    }

    /// An event that strangers can cause at will: reported at a bounded rate.
    pub(crate) fn refusal(&mut self, event: Event) {
        let fresh =
            self.drop_reports.0.is_none_or(|at| self.now.duration_since(at) >= Duration::from_secs(1));
        if fresh {
            self.drop_reports = (Some(self.now), 0);
        }
        if self.drop_reports.1 < DROP_REPORTS {
            self.drop_reports.1 += 1;
            self.event(event);
        }
    }

    /// Whether no IKE SA of the realm is up.
    pub(crate) fn is_first_contact(&self, realm: &str) -> bool {
        self.of_realm.get(realm).is_none_or(|of| of.up == 0)
    }

    /// An IKE SA is up.
    pub(crate) fn note_up(&mut self, realm: &Arc<str>, peer: &Identity, id: IkeSaId) {
        self.by_peer.insert((self.hasher.hash_one((realm, peer)), id));
        let of = self.of_realm.entry(Arc::clone(realm)).or_default();
        of.all.insert(id);
        of.up += 1;
    }

    /// It no longer is.
    pub(crate) fn note_down(&mut self, realm: &Arc<str>, peer: &Identity, id: IkeSaId) {
        if self.by_peer.remove(&(self.hasher.hash_one((realm, peer)), id))
            && let Some(of) = self.of_realm.get_mut(realm)
        {
            of.up = of.up.saturating_sub(1);
        }
    }

    /// We are setting up an IKE SA for a realm.
    pub(crate) fn note_coming(&mut self, realm: &Arc<str>, id: IkeSaId) {
        self.of_realm.entry(Arc::clone(realm)).or_default().all.insert(id);
    }

    /// An IKE SA is gone.
    pub(crate) fn note_gone(&mut self, realm: &Arc<str>, id: IkeSaId) {
        if let Some(of) = self.of_realm.get_mut(realm) {
            of.all.remove(&id);
            if of.all.is_empty() {
                self.of_realm.remove(realm);
            }
        }
    }

    /// IKE SAs that may be established with this peer under this realm, oldest first: the caller looks, for hashes may be alike.
    pub(crate) fn with_peer(&self, realm: &Arc<str>, peer: &Identity) -> Vec<IkeSaId> {
        let hash = self.hasher.hash_one((realm, peer));
        self.by_peer
            .range((hash, ipc::IkeSaRef(0))..=(hash, ipc::IkeSaRef(u64::MAX)))
            .map(|(_, id)| *id)
            .collect()
    }

    /// The IKE SAs of a realm that we set up, or that are established, oldest first.
    pub(crate) fn of_realm(&self, realm: &str) -> impl DoubleEndedIterator<Item = IkeSaId> {
        self.of_realm.get(realm).into_iter().flat_map(|of| of.all.iter().copied())
    }

    /// The same selectors, kept once for all children that have them.
    pub(crate) fn share(&mut self, selectors: Arc<[TrafficSelector]>) -> Arc<[TrafficSelector]> {
        self.shelf.share(selectors)
    }

    /// Counts inner addresses in; returns those that are new to us.
    pub(crate) fn use_addresses(
        &mut self,
        realm: &Arc<str>,
        addresses: &[InnerAddress],
    ) -> Vec<InnerAddress> {
        let mut new = Vec::new();
        for inner in addresses {
            let users = self.addresses.entry((Arc::clone(realm), inner.address)).or_default();
            *users += 1;
            if *users == 1 {
                new.push(*inner);
            }
        }
        new
    }

    /// Counts them out; returns those nobody uses any more.
    pub(crate) fn drop_addresses(
        &mut self,
        realm: &Arc<str>,
        addresses: &[InnerAddress],
    ) -> Vec<InnerAddress> {
        let mut gone = Vec::new();
        for inner in addresses {
            let key = (Arc::clone(realm), inner.address);
            if let Some(users) = self.addresses.get_mut(&key) {
                *users -= 1;
                if *users == 0 {
                    self.addresses.remove(&key);
                    gone.push(*inner);
                }
            }
        }
        gone
    }

    pub(crate) fn arm(&mut self, timer: Timer, after: Duration) {
        // An unreachable deadline is no deadline.
        match self.now.checked_add(after) {
            Some(at) => self.timers.arm(timer, at),
            None => {
                self.timers.disarm(&timer);
            }
        }
    }

    pub(crate) fn disarm(&mut self, timer: Timer) {
        self.timers.disarm(&timer);
    }

    pub(crate) fn next_sa(&mut self) -> IkeSaId {
        self.last_sa += 1;
        ipc::IkeSaRef(self.last_sa)
    }

    pub(crate) fn next_child(&mut self, sa: IkeSaId) -> ChildId {
        self.last_child += 1;
        let id = ChildId(self.last_child);
        self.child_of.insert(id, sa);
        id
    }

    /// A fresh SPI for an IKE SA: random, not zero, not in use.
    pub(crate) fn ike_spi(&mut self, sa: IkeSaId) -> Spi {
        loop {
            let mut bytes = [0; 8];
            self.ops.random(&mut bytes);
            let spi = Spi::from_bytes(bytes);
            if !spi.is_zero() && !self.ike_spis.contains_key(&spi) {
                self.ike_spis.insert(spi, sa);
                return spi;
            }
        }
    }

    /// A fresh SPI for packets to us, of this lane.
    pub(crate) fn esp_spi(&mut self, lane: u16) -> u32 {
        self.lanes.take(&*self.ops, lane)
    }

    pub(crate) fn free_esp_spi(&mut self, spi: u32) {
        self.lanes.free(spi);
    }

    /// The lane for a new child of a realm: the one the realm names, or the one with the fewest SAs.
    pub(crate) fn lane_for(&self, realm: &Realm) -> u16 {
        realm.worker.map_or_else(|| self.lanes.least(), |worker| worker % self.lanes.count())
    }

    pub(crate) fn nonce(&mut self) -> Vec<u8> {
        let mut nonce = vec![0; NONCE_LEN];
        self.ops.random(&mut nonce);
        nonce
    }

    /// A number in 0.0..1.0.
    pub(crate) fn chance(&mut self) -> f64 {
        let mut bytes = [0; 4];
        self.ops.random(&mut bytes);
        f64::from(u32::from_be_bytes(bytes)) / (f64::from(u32::MAX) + 1.0)
    }

    /// `limit` less a random part of up to `jitter` of it, so that both ends seldom rekey at once (RFC 7296 section 2.8).
    pub(crate) fn jittered(&mut self, limit: f64, jitter: f64) -> f64 {
        let jitter = if jitter.is_finite() { jitter.clamp(0.0, 0.5) } else { 0.0 };
        limit * (1.0 - jitter * self.chance())
    }

    pub(crate) fn jittered_time(&mut self, limit: Duration, jitter: f64) -> Duration {
        Duration::try_from_secs_f64(self.jittered(limit.as_secs_f64(), jitter)).unwrap_or(limit)
    }

    /// How long a peer may go on retransmitting, if it does as we do: nothing that a lost response could still explain is
    /// cleaned up before.
    pub(crate) fn patience(&self) -> Duration {
        let policy = &self.config.retransmission;
        let waits = (0..=policy.tries.min(64)).map(|n| {
            let seconds = policy.first.as_secs_f64() * policy.base.max(1.0).powi(n as i32);
            seconds.min(policy.limit.as_secs_f64())
        });
        Duration::try_from_secs_f64(waits.sum::<f64>() * 1.25)
            .unwrap_or(LONGEST_PATIENCE)
            .min(LONGEST_PATIENCE)
    }

    pub(crate) fn realm(&self, name: &str) -> Option<Arc<Realm>> {
        self.realms.named(name).cloned()
    }

    /// Makes the address pools the realms name; those that did not change keep their leases, and the others what of it they can.
    pub(crate) fn make_pools(&mut self) {
        let realms = &self.realms;
        let mut old = std::mem::take(&mut self.pools);
        for realm in realms.iter() {
            let Some(pool) = &realm.pool else { continue };
            let made = match old.remove(&realm.name) {
                Some((of, addresses)) if of == *pool => addresses,
                before => {
                    let mut addresses = AddressPool::new(pool);
                    let known = before.map(|(_, addresses)| addresses.leases(self.now)).unwrap_or_default();
                    for lease in known {
                        // The SAs of a realm that changed are about to go.
                        let left = if lease.holders.is_empty() { lease.kept } else { pool.hold };
                        addresses.restore(self.now, lease.address, lease.identity, left);
                    }
                    addresses
                }
            };
            self.pools.insert(realm.name.clone(), (pool.clone(), made));
        }
    }

    /// Passes on what has become of a realm's addresses.
    pub(crate) fn tell_leases(&mut self, realm: &Arc<str>) {
        let Some((_, pool)) = self.pools.get_mut(realm) else { return };
        for (address, identity, state) in pool.take_notes() {
            let change = LeaseChange { realm: Arc::clone(realm), address, identity, state };
            self.fx.push(Effect::Lease(change));
        }
    }
}

impl Op {
    /// The job, from copies, so that the operation can be issued again. `None`: not possible.
    fn duplicate(&self) -> Option<CryptoOp> {
        Some(match self {
            Op::Generate(group) => CryptoOp::DhGenerate { group: *group },
            Op::Derive { group, ours, theirs } => {
                CryptoOp::DhDerive { group: *group, ours: duplicate_private(ours)?, theirs: theirs.clone() }
            }
            Op::Encapsulate { group, theirs } => {
                CryptoOp::KemEncapsulate { group: *group, theirs: theirs.clone() }
            }
            Op::Random(len) => CryptoOp::Random { len: *len },
        })
    }
}

fn duplicate_private(private: &DhPrivate) -> Option<DhPrivate> {
    match private {
        DhPrivate::Bytes(secret) => Some(DhPrivate::Bytes(Secret::duplicate(secret))),
        DhPrivate::Handle(id) => Some(DhPrivate::Handle(*id)),
        _ => None,
    }
}

/// The selectors of the packet that asked for a child, ours first.
pub(crate) type PacketSelectors = (TrafficSelector, TrafficSelector);
