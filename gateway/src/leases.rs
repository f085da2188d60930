//! Leases over restarts. The worker notes what becomes of addresses and never waits; a task of the control thread writes it down. A
//! store that cannot be written to costs nobody an address: the gateway says so, goes on, and tries again.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::bail;
use ike::{KnownLease, LeaseChange, LeaseState};
use policy::Identity;
use store::sqlite::{Opened, Sqlite};
use store::{Change, Lease, Store, StoreError};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;

use crate::events::{Events, Notice};

/// Addresses whose changes wait to be written, at most; one that changes again waits once.
const MAX_PENDING: usize = 1 << 17;
/// Changes written at once, so that a store of somebody else's is not held for long.
const BATCH: usize = 4096;
/// Waits between tries while the store cannot be written to.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// How long the last changes may take at the end.
const GOODBYE: Duration = Duration::from_secs(2);

/// Where the worker notes changes. Clones go to the same store.
#[derive(Clone, Default)]
pub struct Ledger {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    pending: Mutex<Pending>,
    bell: Notify,
}

#[derive(Default)]
struct Pending {
    changes: HashMap<(String, IpAddr), Change>,
    /// Changes that found no room.
    lost: u64,
}

/// An open store with its task.
pub struct Keeper {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Ledger {
    /// Notes a change. Never waits.
    pub fn note(&self, change: &LeaseChange) {
        let LeaseChange { realm, address, identity, state } = change;
        let (realm, address) = (realm.to_string(), *address);
        let change = match state {
            LeaseState::Forgotten => Change::Remove { realm: realm.clone(), address },
            LeaseState::Held | LeaseState::Idle => {
                let (kind, octets) = identity.to_wire();
                Change::Put(Lease {
                    realm: realm.clone(),
                    address,
                    identity: (kind.0, octets),
                    who: identity.to_string(),
                    held: *state == LeaseState::Held,
                    since: now(),
                })
            }
        };
        {
            let mut pending = self.shared.lock();
            let key = (realm, address);
            if pending.changes.len() >= MAX_PENDING && !pending.changes.contains_key(&key) {
                pending.lost += 1;
            } else {
                pending.changes.insert(key, change);
            }
        }
        self.shared.bell.notify_one();
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> (Vec<Change>, u64) {
        let mut pending = self.lock();
        let keys: Vec<_> = pending.changes.keys().take(BATCH).cloned().collect();
        let changes = keys.iter().filter_map(|key| pending.changes.remove(key)).collect();
        (changes, std::mem::take(&mut pending.lost))
    }

    /// What could not be written waits again, unless there is newer.
    fn give_back(&self, changes: Vec<Change>) {
        let mut pending = self.lock();
        for change in changes {
            let (realm, address) = change.key();
            pending.changes.entry((realm.to_owned(), address)).or_insert(change);
        }
    }
}

/// Opens the store and reads it. `None` in the place of a keeper: there is no store, the reason has been told, and nothing will be
/// remembered.
///
/// # Errors
/// Another gateway has the store: two would give the same addresses to different clients.
pub async fn open(
    path: &Path,
    ledger: &Ledger,
    events: &Events,
) -> anyhow::Result<(Vec<KnownLease>, Option<Keeper>)> {
    let file = path.display().to_string();
    let failed = |why: String| {
        events.publish(Notice::StoreFailed {
            file: file.clone(),
            why: why + "; leases are not kept over a restart",
        });
    };
    if let Some(folder) = path.parent()
        && let Err(error) = make_folder(folder)
    {
        failed(format!("cannot make its folder: {error}"));
        return Ok((Vec::new(), None));
    }
    let mut store = match Sqlite::open(path).await {
        Ok(Opened { store, aside: None }) => store,
        Ok(Opened { store, aside: Some((aside, why)) }) => {
            let why = format!("{why}; it was moved to {}, and a new one begun", aside.display());
            events.publish(Notice::StoreFailed { file: file.clone(), why });
            store
        }
        Err(StoreError::Taken) => {
            bail!("another gateway keeps its leases in {file}; give each a file of its own")
        }
        Err(error) => {
            failed(error.to_string());
            return Ok((Vec::new(), None));
        }
    };
    let known = match store.load().await {
        Ok(leases) => leases.into_iter().filter_map(known).collect(),
        Err(error) => {
            failed(error.to_string());
            return Ok((Vec::new(), None));
        }
    };
    let (stop, stopped) = oneshot::channel();
    let task = tokio::spawn(keep(ledger.clone(), store, file, events.clone(), stopped));
    Ok((known, Some(Keeper { stop, task })))
}

impl Keeper {
    /// Writes what is left, and closes the store.
    pub async fn close(self) {
        let _ = self.stop.send(());
        let _ = tokio::time::timeout(GOODBYE, self.task).await;
    }
}

async fn keep(
    ledger: Ledger,
    mut store: impl Store + Closing,
    file: String,
    events: Events,
    mut stopped: oneshot::Receiver<()>,
) {
    let mut wait = None;
    let mut last = false;
    loop {
        if !last {
            let bell = async {
                match wait {
                    Some(wait) => tokio::time::sleep(wait).await,
                    None => ledger.shared.bell.notified().await,
                }
            };
            tokio::select! {
                () = bell => {}
                _ = &mut stopped => last = true,
            }
        }
        loop {
            let (changes, lost) = ledger.shared.take();
            if lost > 0 {
                let why = format!("it is too far behind; changes of {lost} leases were lost");
                events.publish(Notice::StoreFailed { file: file.clone(), why });
            }
            if changes.is_empty() {
                break;
            }
            match store.write(&changes).await {
                Ok(()) => {
                    if wait.take().is_some() {
                        events.publish(Notice::StoreWorks { file: file.clone() });
                    }
                }
                Err(error) => {
                    ledger.shared.give_back(changes);
                    if wait.is_none() {
                        let why = format!("{error}; leases are not written until it can be");
                        events.publish(Notice::StoreFailed { file: file.clone(), why });
                    }
                    wait = Some(wait.map_or(FIRST_WAIT, |wait: Duration| (wait * 2).min(LONGEST_WAIT)));
                    break;
                }
            }
        }
        if last {
            return store.end().await;
        }
    }
}

/// A store that can be closed in order.
trait Closing {
    fn end(self) -> impl Future<Output = ()> + Send;
}

impl Closing for Sqlite {
    fn end(self) -> impl Future<Output = ()> + Send {
        self.close()
    }
}

fn known(lease: Lease) -> Option<KnownLease> {
    let identity = Identity::from_wire(wire::numbers::IdType(lease.identity.0), &lease.identity.1).ok()?;
    // Nobody knows when one that was in use came out of it: now, then.
    let idle = if lease.held { 0 } else { now().saturating_sub(lease.since).max(0) };
    let idle = Duration::from_secs(idle.unsigned_abs());
    Some(KnownLease { realm: lease.realm.into(), address: lease.address, identity, idle })
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    i64::try_from(since).unwrap_or(i64::MAX)
}

/// For its owner alone: who was where when is nobody else's business.
fn make_folder(folder: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(address: &str, who: &str, state: LeaseState) -> LeaseChange {
        let identity = Identity::parse(who).unwrap();
        LeaseChange { realm: "r".into(), address: address.parse().unwrap(), identity, state }
    }

    /// A store that fails as often as told.
    #[derive(Clone, Default)]
    struct Paper {
        rows: Arc<Mutex<HashMap<(String, IpAddr), Lease>>>,
        failures: Arc<Mutex<u32>>,
    }

    impl Store for Paper {
        async fn load(&mut self) -> Result<Vec<Lease>, StoreError> {
            Ok(self.rows.lock().unwrap().values().cloned().collect())
        }

        async fn write(&mut self, changes: &[Change]) -> Result<(), StoreError> {
            {
                let mut failures = self.failures.lock().unwrap();
                if *failures > 0 {
                    *failures -= 1;
                    return Err(StoreError::Failed("disk is full".into()));
                }
            }
            let mut rows = self.rows.lock().unwrap();
            for change in changes {
                let key = (change.key().0.to_owned(), change.key().1);
                match change {
                    Change::Put(lease) => drop(rows.insert(key, lease.clone())),
                    Change::Remove { .. } => drop(rows.remove(&key)),
                }
            }
            Ok(())
        }
    }

    impl Closing for Paper {
        async fn end(self) {}
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_fails_for_a_while_gets_the_latest_afterwards() {
        let (ledger, store, events) = (Ledger::default(), Paper::default(), Events::default());
        let mut heard = events.listen();
        *store.failures.lock().unwrap() = 3;
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(keep(ledger.clone(), store.clone(), "f".into(), events, stopped));
        ledger.note(&change("10.3.0.2", "carol.lab.test", LeaseState::Held));
        ledger.note(&change("10.3.0.3", "dave.lab.test", LeaseState::Held));
        tokio::time::sleep(Duration::from_secs(2)).await;
        ledger.note(&change("10.3.0.2", "carol.lab.test", LeaseState::Idle));
        ledger.note(&change("10.3.0.3", "dave.lab.test", LeaseState::Forgotten));
        tokio::time::sleep(Duration::from_secs(60)).await;
        stop.send(()).unwrap();
        task.await.unwrap();
        let rows: Vec<Lease> = store.rows.lock().unwrap().values().cloned().collect();
        assert_eq!((rows.len(), rows[0].held, rows[0].who.as_str()), (1, false, "carol.lab.test"));
        assert!(
            matches!(heard.recv().await.unwrap().notice, Notice::StoreFailed { why, .. } if why.contains("full"))
        );
        assert!(matches!(heard.recv().await.unwrap().notice, Notice::StoreWorks { .. }), "said once");
    }

    #[tokio::test]
    async fn what_is_noted_is_known_after_a_restart() {
        let dir = std::env::temp_dir().join(format!("tussock-leases-{}", std::process::id()));
        let file = dir.join("leases.db");
        let (ledger, events) = (Ledger::default(), Events::default());
        let (known, keeper) = open(&file, &ledger, &events).await.unwrap();
        assert!(known.is_empty());
        ledger.note(&change("10.3.0.2", "carol@lab.test", LeaseState::Held));
        ledger.note(&change("fec3::7", "C=CH, CN=dave", LeaseState::Held));
        let taken = open(&file, &Ledger::default(), &events).await.err().unwrap().to_string();
        assert!(taken.contains("another gateway"), "{taken}");
        keeper.unwrap().close().await;
        let (mut known, keeper) = open(&file, &ledger, &events).await.unwrap();
        known.sort_by_key(|lease| lease.address);
        assert_eq!(known.len(), 2);
        assert_eq!(known[0].identity, Identity::parse("carol@lab.test").unwrap());
        assert_eq!(known[1].identity, Identity::parse("C=CH, CN=dave").unwrap());
        keeper.unwrap().close().await;
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[tokio::test]
    async fn without_a_store_the_gateway_goes_on_and_says_so() {
        let events = Events::default();
        let mut heard = events.listen();
        let (known, keeper) =
            open(Path::new("/proc/no/leases.db"), &Ledger::default(), &events).await.unwrap();
        assert!(known.is_empty() && keeper.is_none());
        assert!(matches!(heard.try_recv().unwrap().notice, Notice::StoreFailed { .. }));
    }

    #[test]
    fn the_line_before_the_store_is_bounded() {
        let ledger = Ledger::default();
        for n in 0..MAX_PENDING as u32 + 10 {
            let address = IpAddr::from(std::net::Ipv4Addr::from(0x0a00_0000 + n));
            let identity = Identity::V4(std::net::Ipv4Addr::LOCALHOST);
            ledger.note(&LeaseChange { realm: "r".into(), address, identity, state: LeaseState::Held });
        }
        let pending = ledger.shared.lock();
        assert_eq!((pending.changes.len(), pending.lost), (MAX_PENDING, 10));
    }
}
