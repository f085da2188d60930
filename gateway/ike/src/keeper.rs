//! Keeps up what is to be up: the level above single IKE SAs. Commands that want something of it are in [`commands`].

mod commands;

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipc::Role;
use policy::{DpdAction, Realm, Start};

use self::commands::Goal;
pub(crate) use self::commands::Waiter;
use crate::child::{ChildState, REDUNDANT};
use crate::core::{Down, DownKind, PacketSelectors, Timer, Todo};
use crate::effect::{IkeSaId, Why};
use crate::engine::Engine;
use crate::init::initiate;
use crate::realms::Realms;
use crate::sa::{State, Wanted};
use crate::tasks::Task;

/// First wait before a realm is tried again; doubles each time.
const FIRST_WAIT: Duration = Duration::from_secs(2);

/// Longest such wait.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Wait before a child that should be up is tried again.
const CHILD_WAIT: Duration = Duration::from_secs(30);

/// How long an older IKE SA of the same identity may stay: time for a peer that replaces it to do so itself.
const OLDER_STAYS: Duration = Duration::from_secs(10);

/// What is known of a realm across its IKE SAs.
#[derive(Default)]
pub(crate) struct Keeper {
    /// Whether it is to be up whatever happens.
    wanted: bool,
    /// Attempts that failed since the last success.
    failures: u32,
    /// Packets begin nothing before this.
    hold: Option<Instant>,
    /// When it is tried again.
    retry_at: Option<Instant>,
}

// ---- realms ----

impl Engine {
    /// Brings a realm up if it is to be up by itself.
    pub(crate) fn keep(&mut self, realm: &Arc<Realm>) {
        let boot = realm.start == Start::Boot || realm.children.iter().any(|c| c.start == Start::Boot);
        if boot && realm.initiates_to().is_some() {
            self.keepers.entry(realm.name.clone()).or_default().wanted = true;
            self.bring_up(realm, boot_children(realm));
        }
    }

    /// Sets up these children: on the IKE SA that is there, or on a new one.
    fn bring_up(&mut self, realm: &Arc<Realm>, children: Vec<Arc<str>>) -> bool {
        let wanted = children.into_iter().map(|name| Wanted { name, packet: None, replaces: None });
        self.bring_up_wanted(realm, wanted.collect())
    }

    fn bring_up_wanted(&mut self, realm: &Arc<Realm>, mut wanted: VecDeque<Wanted>) -> bool {
        if let Some(id) = self.sa_of(&realm.name) {
            self.with(id, |sa, cx| {
                wanted.retain(|w| !sa.is_child_coming(&w.name));
                match &mut sa.setup {
                    Some(setup) => setup.wanted.extend(wanted),
                    None => {
                        wanted.into_iter().for_each(|w| sa.queue_child(w));
                        sa.pump(cx);
                    }
                }
            });
            return true;
        }
        if self.core.closing {
            return false;
        }
        match initiate(&mut self.core, realm, wanted, None) {
            Ok(sa) => {
                self.adopt(sa);
                true
            }
            Err(why) => {
                self.fail_waiters(&realm.name, None, &why.to_string());
                false
            }
        }
    }

    /// The IKE SA of a realm to make children on: an established one, else one we are setting up; the newest.
    fn sa_of(&self, realm: &str) -> Option<IkeSaId> {
        let of_realm = || self.core.of_realm(realm).rev().filter_map(|id| self.sas.get(&id));
        let up = of_realm().find(|sa| sa.is_the_one());
        let coming = || {
            of_realm().find(|sa| {
                sa.role == Role::Initiator
                    && sa.established.is_none()
                    && !matches!(sa.state, State::Closed | State::Deleting)
            })
        };
        up.or_else(coming).map(|sa| sa.id)
    }

    /// A packet wants a child.
    pub(crate) fn acquire(&mut self, realm: &str, child: Arc<str>, packet: PacketSelectors) {
        let Some(realm) = self.core.realm(realm) else { return };
        let now = self.core.now;
        if self.keepers.get(&realm.name).and_then(|k| k.hold).is_some_and(|until| until > now) {
            return;
        }
        let wanted = Wanted { name: child, packet: Some(packet), replaces: None };
        self.bring_up_wanted(&realm, VecDeque::from([wanted]));
    }

    /// Tries the realms again whose wait is over.
    pub(crate) fn retry_realms(&mut self) {
        let now = self.core.now;
        let mut due = Vec::new();
        for (name, keeper) in &mut self.keepers {
            if keeper.retry_at.take_if(|at| *at <= now).is_some() {
                due.push(Arc::clone(name));
            }
        }
        due.into_iter().for_each(|name| self.retry_realm(&name));
        self.arm_retry();
    }

    /// Has the realm tried again after this time, or not by itself.
    fn set_retry(&mut self, realm: &Arc<str>, after: Option<Duration>) {
        let at = after.and_then(|after| self.core.now.checked_add(after));
        match (at, self.keepers.get_mut(realm)) {
            (None, None) => return,
            (Some(_), None) => self.keepers.entry(Arc::clone(realm)).or_default().retry_at = at,
            (at, Some(keeper)) => {
                if keeper.retry_at == at {
                    return;
                }
                keeper.retry_at = at;
            }
        }
        self.arm_retry();
    }

    fn arm_retry(&mut self) {
        match self.keepers.values().filter_map(|k| k.retry_at).min() {
            Some(at) => self.core.timers.arm(Timer::Realms, at),
            None => self.core.disarm(Timer::Realms),
        }
    }

    fn retry_realm(&mut self, name: &str) {
        let wanted = self.keepers.get(name).is_some_and(|k| k.wanted);
        if let Some(realm) = self.core.realm(name).filter(|_| wanted)
            && self.sa_of(name).is_none()
        {
            self.bring_up(&realm, boot_children(&realm));
        }
    }

    /// Other realms in the place of the present ones.
    pub(crate) fn replace_realms(&mut self, realms: Vec<Arc<Realm>>) {
        let old = std::mem::replace(&mut self.core.realms, Realms::new(realms));
        self.core.make_pools();
        let same = |realms: &Realms, r: &Realm| realms.named(&r.name).is_some_and(|n| **n == *r);
        let changed: HashSet<&str> =
            old.iter().filter(|r| !same(&self.core.realms, r)).map(|r| &*r.name).collect();
        for name in &changed {
            self.keepers.remove(*name);
        }
        self.arm_retry();
        for id in self.sas.keys().copied().collect::<Vec<_>>() {
            self.with(id, |sa, cx| {
                if let Some(setup) = &mut sa.setup {
                    setup.candidates.retain(|r| !changed.contains(&*r.name));
                }
                if sa.realm.as_ref().is_some_and(|r| changed.contains(&*r.name)) {
                    sa.finish(cx, "the realm's configuration changed");
                }
            });
        }
        let new: Vec<_> = self.core.realms.iter().filter(|r| !same(&old, r)).cloned().collect();
        new.iter().for_each(|realm| self.keep(realm));
    }

    /// How long to wait before the next attempt, and a note that this one failed.
    fn back_off(&mut self, realm: &Arc<str>) -> Duration {
        let keeper = self.keepers.entry(Arc::clone(realm)).or_default();
        let wait = FIRST_WAIT.saturating_mul(1 << keeper.failures.min(8)).min(LONGEST_WAIT);
        keeper.failures = keeper.failures.saturating_add(1);
        keeper.hold = self.core.now.checked_add(wait);
        self.core.jittered_time(wait, 0.25)
    }

    /// An IKE SA is gone: is another one to come?
    fn ike_down(&mut self, realm: &Arc<str>, down: &Down) {
        let Some(policy) = self.core.realm(realm) else { return };
        if self.core.closing || down.kind == DownKind::Meant || policy.initiates_to().is_none() {
            return;
        }
        if self.sa_of(realm).is_some() {
            return;
        }
        let wanted = self.keepers.get(realm).is_some_and(|k| k.wanted);
        match down.kind {
            DownKind::Meant => {}
            DownKind::Dead if policy.dpd.action == DpdAction::Restart => {
                self.keepers.entry(Arc::clone(realm)).or_default().wanted = true;
                self.bring_up(&policy, down.children.clone());
            }
            // Cleared, or left to the next packet.
            DownKind::Dead => {}
            DownKind::ByPeer | DownKind::Failed => {
                let wait = self.back_off(realm);
                if wanted {
                    self.set_retry(realm, Some(wait));
                }
            }
        }
    }

    /// Begins an IKE SA that is to take the place of another, with all its children (RFC 7296 section 2.8.3, but the new one
    /// comes first so that no packet is lost).
    fn reauthenticate(&mut self, id: IkeSaId) {
        let Some(sa) = self.sas.get(&id).filter(|sa| sa.is_established()) else { return };
        let Some(realm) = sa.realm.clone() else { return };
        let installed = sa
            .children
            .iter()
            .filter(|(_, c)| c.state == ChildState::Installed && c.place.fallback.is_none());
        let wanted = installed
            .map(|(child, c)| Wanted { name: c.name.clone(), packet: None, replaces: Some(child) })
            .collect::<VecDeque<_>>();
        let path = sa.path;
        match initiate(&mut self.core, &realm, wanted, Some((id, path))) {
            Ok(sa) => self.adopt(sa),
            Err(_) => self.core.arm(Timer::Reauth(id), LONGEST_WAIT),
        }
    }

    /// When all children of a reauthenticated SA are there, the old one goes.
    fn drop_replaced(&mut self, id: IkeSaId) {
        let Some(sa) = self.sas.get_mut(&id) else { return };
        if !sa.is_established() || sa.is_busy_with_children() {
            return;
        }
        if let Some(old) = sa.replaces.take() {
            self.with(old, |sa, cx| {
                sa.superseded = true;
                sa.unmourned = true;
                sa.finish(cx, "reauthenticated");
            });
        }
    }
}

// ---- what SAs want done ----

impl Engine {
    pub(crate) fn carry_out(&mut self, todo: Todo) {
        match todo {
            Todo::Adopt(sa) => {
                let id = sa.id;
                self.adopt(sa);
                self.with(id, |sa, cx| sa.pump(cx));
            }
            Todo::Inherit { from, to } => self.inherit(from, to),
            Todo::Yield { from, to, path, message } => {
                self.with(from, |sa, cx| sa.yield_early(cx, to));
                self.core.todo.push_back(Todo::Redeliver { to, path, message });
            }
            Todo::Redeliver { to, path, message } => {
                self.with(to, |sa, cx| sa.handle_opened(cx, path, *message))
            }
            Todo::Inherited(id) => {
                self.with(id, |sa, cx| {
                    sa.close_lingering(cx, DownKind::Meant, Why::Normal("rekeyed".into()))
                });
            }
            Todo::Redundant(id) => {
                if let Some(sa) = self.sas.get_mut(&id) {
                    sa.unmourned = true;
                    sa.rival_of = None;
                    self.core.arm(Timer::Superseded(id), REDUNDANT);
                }
            }
            Todo::Superseded { by, realm, peer, forget } => {
                // Where an identity may have any number of SAs, all of them are not looked at for each new one.
                if !forget && self.core.realm(&realm).is_none_or(|realm| !realm.unique) {
                    return;
                }
                for id in self.core.with_peer(&realm, &peer).into_iter().filter(|id| *id != by) {
                    // Those of this very peer, and not of one whose hash is alike.
                    let same = self.sas.get(&id).is_some_and(|sa| {
                        sa.peer_id.as_ref() == Some(&peer)
                            && sa.realm.as_ref().is_some_and(|r| r.name == realm)
                    });
                    if same {
                        self.supersede(id, by, forget);
                    }
                }
            }
            Todo::IkeUp { id, realm } => {
                let keeper = self.keepers.entry(realm.clone()).or_default();
                keeper.failures = 0;
                keeper.hold = None;
                self.set_retry(&realm, None);
                self.progress(&realm, |goal| {
                    if let Goal::Up { ike, .. } = goal {
                        *ike = false;
                    }
                    matches!(goal, Goal::Up { children, .. } if children.is_empty())
                });
                self.drop_replaced(id);
            }
            Todo::IkeDown { realm, down } => {
                self.ike_down(&realm, &down);
                if !self.waiters.is_empty() && self.sa_of(&realm).is_none() {
                    self.fail_waiters(&realm, None, &down.why.to_string());
                }
                self.check_down(&realm);
            }
            Todo::IkeRekeyed { realm } => self.progress(&realm, |goal| matches!(goal, Goal::RekeyIke)),
            Todo::RekeyFailed { realm, why } => {
                self.fail_if(&realm, &why, |goal| matches!(goal, Goal::RekeyIke))
            }
            Todo::ChildUp { id, realm, name, rekeyed } => {
                self.progress(&realm, |goal| match goal {
                    Goal::Up { ike, children } => {
                        children.retain(|c| *c != name);
                        !*ike && children.is_empty()
                    }
                    Goal::RekeyChild(child) => rekeyed && *child == name,
                    _ => false,
                });
                self.drop_replaced(id);
            }
            Todo::ChildFailed { id, realm, name, why, again } => {
                self.fail_waiters(&realm, Some(&name), &why);
                self.retry_child(id, &realm, name, again);
                self.drop_replaced(id);
            }
            Todo::ChildDown { realm, name } => {
                self.fail_if(
                    &realm,
                    "the child is gone",
                    |goal| matches!(goal, Goal::RekeyChild(c) if *c == name),
                );
                self.check_down(&realm);
            }
            Todo::Reauthenticate(id) => self.reauthenticate(id),
        }
    }

    /// What outlives the rekeying of an IKE SA passes on (RFC 7296 section 2.18).
    fn inherit(&mut self, from: IkeSaId, to: IkeSaId) {
        if !self.sas.get(&to).is_some_and(|sa| sa.is_established()) {
            let why = Why::PeerMisbehaved("the SA that should have replaced this one is gone".into());
            return self.with(from, |sa, cx| {
                sa.state = State::Established;
                sa.close(cx, DownKind::Failed, why);
            });
        }
        let Some(old) = self.sas.get_mut(&from) else { return };
        let children = std::mem::take(&mut old.children);
        let cfg = std::mem::take(&mut old.ext.cfg);
        let tasks = old.take_child_tasks();
        let replaces = old.replaces.take();
        let before = old.predecessor.take();
        let realm = old.realm_name();
        if let Some((_, pool)) = self.core.pools.get_mut(&realm) {
            pool.transfer(from, to);
        }
        if let Some(grants) = self.core.grants.get_mut(&realm) {
            grants.transfer(from, to);
        }
        for child in children.ids() {
            self.core.child_of.insert(child, to);
        }
        // A peer that never deletes what it rekeyed must not fill our memory: only the last one waits.
        if let Some(before) = before {
            self.with(before, |sa, cx| {
                sa.close(cx, DownKind::Meant, Why::Normal("rekeyed, and never deleted".into()))
            });
        }
        self.with(from, |sa, cx| sa.pump(cx));
        self.with(to, |sa, cx| {
            sa.unmourned = false;
            sa.rival_of = None;
            sa.children.take_over(children);
            sa.forget_refusals();
            sa.ext.cfg = cfg;
            sa.tasks.extend(tasks);
            sa.replaces = replaces;
            sa.predecessor = Some(from);
            sa.pump(cx);
        });
    }

    /// An older SA of an identity that has a newer one.
    fn supersede(&mut self, id: IkeSaId, by: IkeSaId, forget: bool) {
        let Some((began, unique)) =
            self.sas.get(&by).map(|sa| (sa.created, sa.realm.as_ref().is_some_and(|r| r.unique)))
        else {
            return;
        };
        let Some(old) = self.sas.get_mut(&id) else { return };
        let older = old.established.is_some_and(|at| at <= began) && old.is_established();
        if forget && older {
            // RFC 7296 section 2.4: the peer has none but the new one, so there is nobody to send a Delete to. Only SAs that
            // were there before the new one began: others the peer may have begun at the same time.
            self.with(id, |sa, cx| {
                sa.unmourned = true;
                sa.close(cx, DownKind::Meant, Why::Normal(crate::session::INITIAL_CONTACT.into()));
            });
        } else if unique && older && old.role == Role::Responder {
            // One it began itself; two that both sides began at once stay both.
            self.core.arm(Timer::Superseded(id), OLDER_STAYS);
            self.with(id, |sa, _| {
                sa.superseded = true;
                sa.unmourned = true;
            });
        }
    }

    fn retry_child(&mut self, id: IkeSaId, realm: &Arc<str>, name: Arc<str>, again: bool) {
        let now = self.core.now;
        let keeper = self.keepers.entry(Arc::clone(realm)).or_default();
        keeper.hold = now.checked_add(FIRST_WAIT);
        let wanted = keeper.wanted;
        let boot = self.core.realm(realm).is_some_and(|r| {
            r.children.iter().any(|c| c.name == name && (c.start == Start::Boot || r.start == Start::Boot))
        });
        if again && wanted && boot {
            self.with(id, |sa, cx| {
                if sa.is_established() && !sa.is_child_coming(&name) {
                    sa.put_off(cx, Task::NewChild(Wanted { name, packet: None, replaces: None }), CHILD_WAIT);
                    sa.pump(cx);
                }
            });
        }
    }
}

/// Names of the children that come up with the realm: those that say so, or all.
fn boot_children(realm: &Realm) -> Vec<Arc<str>> {
    let boot = realm.children.iter().filter(|c| c.start == Start::Boot).map(|c| c.name.clone());
    let boot: Vec<Arc<str>> = boot.collect();
    if boot.is_empty() { realm.children.iter().map(|c| c.name.clone()).collect() } else { boot }
}
