//! Commands of the operator, and what they wait for.

use std::collections::HashSet;
use std::sync::Arc;

use policy::Start;

use super::boot_children;
use crate::child::ChildState;
use crate::effect::{Command, CommandId, Effect, IkeSaId};
use crate::engine::Engine;
use crate::sa::{IkeSa, State};
use crate::tasks::Task;

/// Commands that may wait at once.
const MAX_WAITERS: usize = 1024;

/// A command that is not done.
pub(crate) struct Waiter {
    command: CommandId,
    realm: Arc<str>,
    goal: Goal,
}

/// What it waits for.
pub(super) enum Goal {
    /// These children, and if `ike` the IKE SA, are still to come up.
    Up {
        ike: bool,
        children: Vec<Arc<str>>,
    },
    /// All IKE SAs of the realm.
    Down,
    /// One child of it.
    ChildDown(Arc<str>),
    RekeyIke,
    RekeyChild(Arc<str>),
    Shutdown,
}

impl Engine {
    pub(crate) fn command(&mut self, command: CommandId, what: Command) {
        if self.waiters.len() >= MAX_WAITERS {
            return self.answer(command, Err("too many commands are waiting".into()));
        }
        match what {
            Command::Up { realm, child } => self.command_up(command, &realm, child),
            Command::Down { realm, child } => self.command_down(command, &realm, child),
            Command::Rekey { realm, child } => self.command_rekey(command, &realm, child),
            Command::ForgetLeases { realm, identity, address } => {
                self.forget_leases(command, realm.as_deref(), identity.as_deref(), address);
            }
            Command::Shutdown => {
                self.core.closing = true;
                self.keepers.clear();
                self.waiters.push(Waiter { command, realm: "".into(), goal: Goal::Shutdown });
                for id in self.sas.keys().copied().collect::<Vec<_>>() {
                    self.with(id, |sa, cx| sa.finish(cx, "shut down"));
                }
                self.check_down("");
            }
        }
    }

    fn command_up(&mut self, command: CommandId, realm: &str, child: Option<String>) {
        let Some(policy) = self.core.realm(realm) else {
            return self.answer(command, Err(format!("there is no realm {realm}")));
        };
        let children = match child {
            Some(child) if policy.child(&child).is_some() => vec![child.into()],
            Some(child) => return self.answer(command, Err(format!("realm {realm} has no child {child}"))),
            None => boot_children(&policy),
        };
        let sa = self.sa_of(realm).and_then(|id| self.sas.get(&id)).filter(|sa| sa.is_established());
        let is_up = |name: &Arc<str>| {
            sa.is_some_and(|sa| {
                sa.children.values().any(|c| c.name == *name && c.state == ChildState::Installed)
            })
        };
        let missing: Vec<Arc<str>> = children.into_iter().filter(|name| !is_up(name)).collect();
        if sa.is_some() && missing.is_empty() {
            return self.answer(command, Ok("up already".into()));
        }
        let goal = Goal::Up { ike: sa.is_none(), children: missing.clone() };
        let realm = &policy.name;
        self.waiters.push(Waiter { command, realm: Arc::clone(realm), goal });
        if policy.start == Start::Boot {
            self.keepers.entry(Arc::clone(realm)).or_default().wanted = true;
        }
        self.set_retry(realm, None);
        self.bring_up(&policy, missing);
    }

    fn command_down(&mut self, command: CommandId, realm: &str, child: Option<String>) {
        let of_realm = |sa: &IkeSa| sa.realm.as_ref().is_some_and(|r| *r.name == *realm);
        let ids: Vec<IkeSaId> = self.sas.values().filter(|sa| of_realm(sa)).map(|sa| sa.id).collect();
        if self.core.realm(realm).is_none() && ids.is_empty() {
            return self.answer(command, Err(format!("there is no realm {realm}")));
        }
        let realm: Arc<str> = realm.into();
        match child {
            None => {
                if let Some(keeper) = self.keepers.get_mut(&realm) {
                    keeper.wanted = false;
                }
                self.set_retry(&realm, None);
                self.waiters.push(Waiter { command, realm: Arc::clone(&realm), goal: Goal::Down });
                for id in ids {
                    self.with(id, |sa, cx| sa.finish(cx, "taken down"));
                }
            }
            Some(child) => {
                let child: Arc<str> = child.into();
                let goal = Goal::ChildDown(Arc::clone(&child));
                self.waiters.push(Waiter { command, realm: Arc::clone(&realm), goal });
                for id in ids {
                    self.with(id, |sa, cx| {
                        sa.forget_child(&child);
                        let named = sa.children.iter().filter(|(_, c)| c.name == child).map(|(id, _)| id);
                        for id in named.collect::<Vec<_>>() {
                            sa.queue(Task::DeleteChild(id));
                        }
                        sa.pump(cx);
                    });
                }
            }
        }
        self.check_down(&realm);
    }

    fn command_rekey(&mut self, command: CommandId, realm: &str, child: Option<String>) {
        let up = self.sa_of(realm).filter(|id| self.sas.get(id).is_some_and(|sa| sa.is_established()));
        let Some(id) = up else { return self.answer(command, Err(format!("realm {realm} is not up"))) };
        let (goal, task) = match child {
            None => (Goal::RekeyIke, Task::RekeyIke),
            Some(name) => {
                let children = self.sas.get(&id).map(|sa| &sa.children);
                let found = children.and_then(|c| {
                    c.iter()
                        .find(|(_, c)| {
                            *c.name == *name && c.state == ChildState::Installed && c.place.fallback.is_none()
                        })
                        .map(|(id, _)| id)
                });
                let Some(child) = found else {
                    return self.answer(command, Err(format!("child {name} is not up")));
                };
                (Goal::RekeyChild(name.into()), Task::RekeyChild(child))
            }
        };
        self.waiters.push(Waiter { command, realm: realm.into(), goal });
        self.with(id, |sa, cx| {
            sa.queue(task);
            sa.pump(cx);
        });
    }

    fn answer(&mut self, command: CommandId, result: Result<String, String>) {
        self.core.fx.push(Effect::Answer { command, result });
    }

    /// Shows something that happened to every waiting command of the realm; those it fulfils are answered.
    pub(super) fn progress(&mut self, realm: &str, mut done: impl FnMut(&mut Goal) -> bool) {
        let mut answered = Vec::new();
        self.waiters.retain_mut(|w| {
            let done = *w.realm == *realm && done(&mut w.goal);
            if done {
                answered.push((w.command, w.goal.what_happened()));
            }
            !done
        });
        answered.into_iter().for_each(|(command, text)| self.answer(command, Ok(text.into())));
    }

    pub(super) fn fail_if(&mut self, realm: &str, why: &str, concerns: impl Fn(&Goal) -> bool) {
        let mut failed = Vec::new();
        self.waiters.retain(|w| {
            let fails = *w.realm == *realm && concerns(&w.goal);
            if fails {
                failed.push(w.command);
            }
            !fails
        });
        failed.into_iter().for_each(|command| self.answer(command, Err(why.to_owned())));
    }

    /// Something the commands of a realm wait for will not be: one child, or everything.
    pub(super) fn fail_waiters(&mut self, realm: &str, child: Option<&str>, why: &str) {
        self.fail_if(realm, why, |goal| match (goal, child) {
            (Goal::Up { .. } | Goal::RekeyIke | Goal::RekeyChild(_), None) => true,
            (Goal::Up { children, .. }, Some(name)) => {
                name.is_empty() || children.iter().any(|c| **c == *name)
            }
            (Goal::RekeyChild(child), Some(name)) => **child == *name,
            _ => false,
        });
    }

    /// Answers commands that wait for something to be gone.
    pub(super) fn check_down(&mut self, realm: &str) {
        if self.waiters.is_empty() {
            return;
        }
        let living = |sa: &IkeSa| !matches!(sa.state, State::Closed | State::Gone);
        let any = self.sas.values().any(|sa| living(sa));
        // Of SAs that are set up by a peer no realm is known.
        let of_realm =
            || self.core.of_realm(realm).filter_map(|id| self.sas.get(&id)).filter(|sa| living(sa));
        let mut left = HashSet::new();
        if self.waiters.iter().any(|w| matches!(w.goal, Goal::ChildDown(_)) && *w.realm == *realm) {
            left.extend(of_realm().flat_map(|sa| sa.children.values()).map(|c| c.name.clone()));
        }
        let here = of_realm().next().is_some();
        self.progress(realm, |goal| match goal {
            Goal::Down => !here,
            Goal::ChildDown(name) => !left.contains(name),
            _ => false,
        });
        if !any {
            self.progress("", |goal| matches!(goal, Goal::Shutdown));
        }
    }
}

impl Goal {
    fn what_happened(&self) -> &'static str {
        match self {
            Goal::Up { .. } => "up",
            Goal::Down | Goal::ChildDown(_) => "down",
            Goal::RekeyIke | Goal::RekeyChild(_) => "rekeyed",
            Goal::Shutdown => "all SAs are deleted",
        }
    }
}
