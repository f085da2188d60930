//! What an established IKE SA has still to do. One request may be outstanding at a time, so what is due waits in a queue.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::child::ChildState;
use crate::core::{Core, DownKind, Timer, Todo};
use crate::create_child::{Ours, Theirs};
use crate::effect::{ChildId, Event, Path, Why};
use crate::sa::{IkeSa, State, Wanted};

/// Something to be done by an exchange of ours.
pub(crate) enum Task {
    NewChild(Wanted),
    /// A child beside this one, for this lane (RFC 9611).
    NewResource(ChildId, u16),
    RekeyChild(ChildId),
    RekeyIke,
    DeleteChild(ChildId),
    /// A child the peer believes in and we never installed.
    DeleteSpi(u32),
    DeleteIke(DownKind, Why),
    Liveness,
}

/// A task, and when it may begin.
pub(crate) struct Queued {
    task: Task,
    not_before: Option<Instant>,
}

impl Queued {
    /// Whether it is to make a child beside another.
    pub(crate) fn is_beside(&self, fallback: ChildId) -> bool {
        matches!(self.task, Task::NewResource(of, _) if of == fallback)
    }

    /// The same, for one lane.
    pub(crate) fn is_resource(&self, fallback: ChildId, lane: u16) -> bool {
        matches!(self.task, Task::NewResource(of, on) if of == fallback && on == lane)
    }

    /// A child has taken the place of the other.
    pub(crate) fn move_beside(&mut self, old: ChildId, new: ChildId) {
        if let Task::NewResource(of, _) = &mut self.task
            && *of == old
        {
            *of = new;
        }
    }
}

impl From<Task> for Queued {
    fn from(task: Task) -> Self {
        Queued { task, not_before: None }
    }
}

/// Most tasks that wait at one SA; what comes beyond is asked for again by whoever wants it.
const MAX_TASKS: usize = 1024;

impl IkeSa {
    /// Begins what is due, if nothing of ours is outstanding.
    pub(crate) fn pump(&mut self, cx: &mut Core) {
        while self.ours.is_none() && self.suspended.is_none() {
            let Some(queued) = self.next_task(cx) else { return };
            match queued.task {
                Task::NewChild(wanted) => {
                    // What was to be replaced may have been rekeyed while this waited.
                    if wanted.replaces.and_then(|old| self.successor_of(old)).is_none() {
                        self.begin_child(cx, wanted, None);
                    }
                }
                Task::RekeyChild(id) => {
                    // Replaced, being deleted, or being rekeyed by the peer: not any more.
                    let theirs = matches!(&self.theirs, Some(Theirs::Child(t)) if t.rekeys == Some(id));
                    let name = self.children.get(id).filter(|c| c.state == ChildState::Installed && !theirs);
                    if let Some(name) = name.map(|c| c.name.clone()) {
                        self.begin_child(cx, Wanted { name, packet: None, replaces: None }, Some(id));
                    }
                }
                Task::NewResource(fallback, lane) => self.begin_resource(cx, fallback, lane),
                Task::RekeyIke => self.begin_rekey(cx),
                Task::DeleteChild(id) => {
                    if self.children.get(id).is_some_and(|c| c.state != ChildState::Deleting) {
                        self.send_child_deletes(cx, vec![id], None);
                    }
                }
                Task::DeleteSpi(spi) => self.send_child_deletes(cx, Vec::new(), Some(spi)),
                Task::DeleteIke(kind, why) => self.send_delete(cx, kind, why, Vec::new()),
                Task::Liveness => self.send_liveness_check(cx),
            }
        }
    }

    fn next_task(&mut self, cx: &mut Core) -> Option<Queued> {
        // While the peer replaces the SA nothing new begins on it; while it makes a child, we don't replace the SA (RFC 7296
        // section 2.25).
        let may = |state: State, theirs: &Option<Theirs>, task: &Task| match (state, task) {
            (State::Established, Task::RekeyIke) => theirs.is_none(),
            (State::Established, Task::DeleteIke(..)) => true,
            (State::Established, _) => !matches!(theirs, Some(Theirs::Rekey(_))),
            (State::Rekeyed, Task::DeleteIke(..)) => true,
            _ => false,
        };
        // Nothing matters any more when the SA is to go.
        let now = cx.now;
        let due = |q: &Queued| q.not_before.is_none_or(|at| at <= now);
        if let Some(at) = self.tasks.iter().position(|q| due(q) && matches!(q.task, Task::DeleteIke(..)))
            && matches!(self.state, State::Established | State::Rekeyed)
        {
            let delete = self.tasks.remove(at);
            self.tasks.clear();
            return delete;
        }
        let at = self.tasks.iter().position(|q| due(q) && may(self.state, &self.theirs, &q.task));
        if at.is_none()
            && let Some(at) = self.tasks.iter().filter_map(|q| q.not_before).filter(|at| *at > now).min()
        {
            cx.timers.arm(Timer::Tasks(self.id), at);
        }
        let task = self.tasks.remove(at?);
        if self.tasks.is_empty() {
            // Most of the time nothing waits: then nothing is kept for it.
            self.tasks = VecDeque::new();
        }
        task
    }

    /// Queues a task at the end.
    pub(crate) fn queue(&mut self, task: Task) {
        if self.tasks.len() < MAX_TASKS {
            self.tasks.push_back(task.into());
        }
    }

    /// Queues a child, unless the same is waiting or being made.
    pub(crate) fn queue_child(&mut self, wanted: Wanted) {
        if !self.is_child_coming(&wanted.name) {
            self.queue(Task::NewChild(wanted));
        }
    }

    /// Whether a child of that name waits or is being made.
    pub(crate) fn is_child_coming(&self, name: &str) -> bool {
        let waiting = self.tasks.iter().any(|q| matches!(&q.task, Task::NewChild(w) if *w.name == *name));
        let making =
            matches!(&self.ours, Some(Ours::Child(c)) if c.is_new() && *c.offer.wanted.name == *name);
        let setup = self.setup.iter().any(|s| {
            s.child.iter().any(|c| *c.wanted.name == *name) || s.wanted.iter().any(|w| *w.name == *name)
        });
        waiting || making || setup
    }

    pub(crate) fn queue_delete_spi(&mut self, spi: u32) {
        self.tasks.push_front(Task::DeleteSpi(spi).into());
    }

    /// Queues a task for later: `after`, and up to as much again at random.
    pub(crate) fn put_off(&mut self, cx: &mut Core, task: Task, after: Duration) {
        let after = after + after.mul_f64(cx.chance());
        let not_before = cx.now.checked_add(after);
        if self.tasks.len() < MAX_TASKS {
            self.tasks.push_back(Queued { task, not_before });
        }
    }

    /// Something of this SA fell due.
    pub(crate) fn handle_timer(&mut self, cx: &mut Core, timer: Timer) {
        match timer {
            Timer::Retransmit(_) => self.retransmit(cx),
            Timer::GiveUp(_) => self.give_up(cx),
            Timer::Liveness(_) => self.check_liveness(cx),
            Timer::RekeyIke(_) => self.queue(Task::RekeyIke),
            Timer::Reauth(id) => cx.todo.push_back(Todo::Reauthenticate(id)),
            Timer::ExpireIke(_) => {
                let why = Why::Timeout("the IKE SA reached the end of its life without being rekeyed".into());
                self.queue(Task::DeleteIke(DownKind::Dead, why));
            }
            Timer::Superseded(_) => {
                let why = Why::Normal(crate::session::NEWER.into());
                self.queue(Task::DeleteIke(DownKind::Meant, why));
            }
            Timer::Session(_) => {
                let why = Why::Normal(crate::session::TIME_OVER.into());
                self.queue(Task::DeleteIke(DownKind::Meant, why));
            }
            Timer::RekeyChild(id) => self.queue(Task::RekeyChild(id)),
            Timer::ExpireChild(id) => self.expire_child(cx, id, "the end of its life"),
            Timer::Redundant(id) => self.queue(Task::DeleteChild(id)),
            Timer::Granted(id) => self.use_outbound(cx, id),
            Timer::Tasks(_) | Timer::Faded(_) | Timer::Realms | Timer::Gate => {}
        }
        self.pump(cx);
    }

    /// A child may carry no more traffic: it goes, and another one comes unless one is there already.
    pub(crate) fn expire_child(&mut self, cx: &mut Core, id: ChildId, what: &str) {
        let Some(child) = self.children.get(id) else { return };
        let name = child.name.clone();
        // One for a single worker is asked for again by the data path.
        let again = child.state == ChildState::Installed && child.place.fallback.is_none();
        cx.event(Event::ChildFailed {
            realm: self.realm_name(),
            name: name.clone(),
            why: Why::Timeout(format!("reached {what}")),
        });
        self.queue(Task::DeleteChild(id));
        if again {
            self.queue_child(Wanted { name, packet: None, replaces: Some(id) });
        }
    }

    /// The data path could not install a child: the peer must not go on believing in it. Whatever was in the way is likely
    /// still there, so another one is not asked for at once.
    pub(crate) fn not_installed(&mut self, cx: &mut Core, id: ChildId) {
        let Some(child) = self.children.get(id) else { return };
        let (realm, name, place) = (self.realm_name(), child.name.clone(), child.place);
        let why = Why::Device("the Child SA could not be installed".into());
        cx.event(Event::ChildFailed { realm: realm.clone(), name: name.clone(), why: why.clone() });
        match place.fallback {
            Some(fallback) => self.hold_resources(cx, fallback),
            None => {
                let why = why.to_string();
                cx.todo.push_back(Todo::ChildFailed { id: self.id, realm, name, why, again: true });
            }
        }
        self.queue(Task::DeleteChild(id));
        self.pump(cx);
    }

    fn give_up(&mut self, cx: &mut Core) {
        match self.state {
            State::Closed => self.state = State::Gone,
            State::Rekeyed if self.ours.is_none() => {
                // The peer began the rekey and should have deleted the old SA.
                self.queue(Task::DeleteIke(DownKind::Meant, Why::Normal("rekeyed".into())));
            }
            // Something of ours is still out, perhaps at a device that takes its time. It ends; then there must be somebody who
            // looks once more.
            State::Rekeyed => cx.arm(Timer::GiveUp(self.id), cx.patience()),
            State::Established | State::Deleting | State::Gone => {}
            state => {
                let timeout = || Why::Timeout(format!("nothing came while in {state:?}"));
                let why = self.regretted().unwrap_or_else(timeout);
                self.close(cx, DownKind::Failed, why);
            }
        }
    }

    /// RFC 7296 section 2.4: asks only when nothing was heard, and when no request of ours is an ask already.
    fn check_liveness(&mut self, cx: &mut Core) {
        let Some(delay) = self.realm.as_ref().map(|r| r.dpd.delay).filter(|d| !d.is_zero()) else { return };
        let silent = cx.now.duration_since(self.heard);
        if silent >= delay {
            if self.ours.is_none() && !self.tasks.iter().any(|q| matches!(q.task, Task::Liveness)) {
                self.queue(Task::Liveness);
            }
            cx.arm(Timer::Liveness(self.id), delay);
        } else {
            cx.arm(Timer::Liveness(self.id), delay - silent);
        }
    }

    /// The data path heard the peer on a child: it is alive, and where it had to be waited for, the new child is in use.
    pub(crate) fn peer_alive(&mut self, cx: &mut Core, id: ChildId) {
        self.heard = cx.now;
        self.use_outbound(cx, id);
    }

    /// An authenticated packet came from elsewhere.
    pub(crate) fn peer_moved(&mut self, cx: &mut Core, remote: std::net::SocketAddr) {
        let moved = Path { remote, ..self.path };
        // RFC 7296 section 2.23: follow only a peer behind a NAT, and not when we are behind one ourselves.
        if self.is_established() && self.nat.peer_behind && !self.nat.we_behind && self.path != moved {
            self.move_path(cx, moved);
        }
    }
}

impl IkeSa {
    /// Brings the SA to its end in good order: with a Delete if the peer knows of it.
    pub(crate) fn finish(&mut self, cx: &mut Core, why: &str) {
        match self.state {
            State::Established => {
                self.queue(Task::DeleteIke(DownKind::Meant, Why::Normal(why.into())));
                self.pump(cx);
            }
            State::Rekeyed | State::Deleting | State::Closed | State::Gone => {}
            _ => self.close(cx, DownKind::Meant, Why::Normal(why.into())),
        }
    }

    /// Whether children are still to come.
    pub(crate) fn is_busy_with_children(&self) -> bool {
        let making = matches!(&self.ours, Some(Ours::Child(c)) if c.is_new());
        making || self.tasks.iter().any(|q| matches!(q.task, Task::NewChild(_)))
    }

    /// Drops what would bring up a child of that name.
    pub(crate) fn forget_child(&mut self, name: &str) {
        self.tasks.retain(|q| !matches!(&q.task, Task::NewChild(w) if *w.name == *name));
    }

    /// Takes out the tasks that concern children, for the SA that replaces this one.
    pub(crate) fn take_child_tasks(&mut self) -> Vec<Queued> {
        let concerns = |task: &Task| {
            matches!(
                task,
                Task::NewChild(_)
                    | Task::NewResource(..)
                    | Task::RekeyChild(_)
                    | Task::DeleteChild(_)
                    | Task::DeleteSpi(_)
            )
        };
        let (taken, kept) =
            std::mem::take(&mut self.tasks).into_iter().partition::<Vec<_>, _>(|q| concerns(&q.task));
        self.tasks = kept.into();
        taken
    }
}
