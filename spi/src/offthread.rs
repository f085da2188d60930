//! Adapter: a blocking call becomes a [`Queue`], with helper threads that each own a session.
//! For backends that can only block: a token, a library without an asynchronous interface.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::doorbell::Doorbell;
use crate::queue::{Closed, Completions, Polled, Queue};

struct Shared<J> {
    state: Mutex<State<J>>,
    wake: Condvar,
    ended: Condvar,
}

struct State<J> {
    jobs: VecDeque<J>,
    stop: bool,
    /// Helpers that have not ended yet.
    helpers: usize,
}

/// Counts a helper out when it ends, however it does.
struct Present<J>(Arc<Shared<J>>);

impl<J> Drop for Present<J> {
    fn drop(&mut self) {
        self.0.lock().helpers -= 1;
        self.0.ended.notify_all();
    }
}

impl<J> Shared<J> {
    // A helper that panicked has lost its own job only; the queue of the others is intact.
    fn lock(&self) -> MutexGuard<'_, State<J>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A queue whose jobs are done by helper threads, in any order.
pub struct OffThread<J, D> {
    shared: Arc<Shared<J>>,
    done: Receiver<D>,
    parked: Option<D>,
    bell: Doorbell,
    helpers: Vec<JoinHandle<()>>,
    depth: usize,
    out: usize,
    patience: Option<Duration>,
}

impl<J: Send + 'static, D: Send + 'static> OffThread<J, D> {
    /// Starts one helper for each session; `work` runs there and may block.
    ///
    /// `work` must not panic; a job whose helper dies never comes back, which the owner sees as `in_flight` that does
    /// not fall.
    ///
    /// # Errors
    /// No thread or file descriptor to be had.
    pub fn new<S, F>(depth: usize, sessions: Vec<S>, work: F) -> io::Result<Self>
    where
        S: Send + 'static,
        F: Fn(&mut S, J) -> D + Send + Sync + 'static,
    {
        let bell = Doorbell::between_threads()?;
        let shared = Arc::new(Shared {
            state: Mutex::new(State { jobs: VecDeque::new(), stop: false, helpers: 0 }),
            wake: Condvar::new(),
            ended: Condvar::new(),
        });
        let (to_done, done) = channel();
        let work = Arc::new(work);
        let mut queue = OffThread {
            shared: Arc::clone(&shared),
            done,
            parked: None,
            bell: bell.clone(),
            helpers: Vec::new(),
            depth: depth.max(1),
            out: 0,
            patience: None,
        };
        for session in sessions {
            let (shared, work, to_done, bell) =
                (Arc::clone(&shared), Arc::clone(&work), to_done.clone(), bell.clone());
            shared.lock().helpers += 1;
            let present = Present(Arc::clone(&shared));
            let helper = std::thread::Builder::new().name("offthread".into()).spawn(move || {
                // The session goes first, and then the helper counts as gone.
                let (_present, mut session) = (present, session);
                while let Some(job) = next(&shared) {
                    let done = work(&mut session, job);
                    if to_done.send(done).is_err() {
                        break;
                    }
                    bell.ring();
                }
            })?;
            queue.helpers.push(helper);
        }
        Ok(queue)
    }

    /// Waits no longer than this when it is dropped. A helper whose call has not returned by then is left behind with what it
    /// holds, and ends when the call returns: only for work that holds no buffer of anybody else's.
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = Some(patience);
        self
    }

    /// The bell that [`doorbell`](Queue::doorbell) lends, for a queue around this one that has other things to ring for.
    /// [`poll`](Queue::poll) answers it.
    pub fn bell(&self) -> Doorbell {
        self.bell.clone()
    }
}

fn next<J>(shared: &Shared<J>) -> Option<J> {
    let mut state = shared.lock();
    loop {
        if let Some(job) = state.jobs.pop_front() {
            return Some(job);
        }
        if state.stop {
            return None;
        }
        state = shared.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
    }
}

impl<J: Send, D: Send> Queue for OffThread<J, D> {
    type Job = J;
    type Done = D;

    fn submit(&mut self, jobs: &mut VecDeque<J>) -> Result<usize, Closed> {
        let take = self.room().min(jobs.len());
        if take > 0 {
            self.shared.lock().jobs.extend(jobs.drain(..take));
            match take {
                1 => self.shared.wake.notify_one(),
                _ => self.shared.wake.notify_all(),
            }
            self.out += take;
        }
        Ok(take)
    }

    fn poll(&mut self, budget: usize, to: &mut dyn Completions<D>) -> Polled {
        self.bell.answer();
        let mut delivered = 0;
        while delivered < budget {
            match self.parked.take().map_or_else(|| self.done.try_recv(), Ok) {
                Ok(done) => {
                    self.out = self.out.saturating_sub(1);
                    delivered += 1;
                    to.on_done(done);
                }
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => {
                    return Polled { delivered, more: false };
                }
            }
        }
        if self.parked.is_none() {
            self.parked = self.done.try_recv().ok();
        }
        if self.parked.is_some() {
            // The bell was answered; whoever sleeps on it must hear of the rest.
            self.bell.ring();
        }
        Polled { delivered, more: self.parked.is_some() }
    }

    fn room(&self) -> usize {
        self.depth - self.out.min(self.depth)
    }

    fn in_flight(&self) -> usize {
        self.out
    }

    fn doorbell(&self) -> Option<BorrowedFd<'_>> {
        Some(self.bell.as_fd())
    }
}

impl<J, D> Drop for OffThread<J, D> {
    fn drop(&mut self) {
        {
            let mut state = self.shared.lock();
            state.stop = true;
            state.jobs.clear();
        }
        self.shared.wake.notify_all();
        if let Some(patience) = self.patience {
            let state = self.shared.lock();
            let waited = self.shared.ended.wait_timeout_while(state, patience, |state| state.helpers > 0);
            let (_state, waited) = waited.unwrap_or_else(PoisonError::into_inner);
            if waited.timed_out() {
                return;
            }
        }
        for helper in self.helpers.drain(..) {
            let _ = helper.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::time::Duration;

    #[test]
    fn blocking_work_comes_back_once_each_and_rings() {
        let mut q = OffThread::new(8, vec![(), ()], |_: &mut (), n: u32| {
            std::thread::sleep(Duration::from_millis(u64::from(n % 3)));
            n
        })
        .unwrap();
        let mut jobs: VecDeque<u32> = (0..20).collect();
        let mut seen = HashSet::new();
        while seen.len() < 20 {
            q.submit(&mut jobs).unwrap();
            assert!(q.in_flight() <= 8);
            let mut fds = [rustix::event::PollFd::from_borrowed_fd(
                q.doorbell().unwrap(),
                rustix::event::PollFlags::IN,
            )];
            let limit = rustix::event::Timespec { tv_sec: 5, tv_nsec: 0 };
            assert_eq!(rustix::event::poll(&mut fds, Some(&limit)), Ok(1), "the bell rings");
            q.poll(3, &mut |d| assert!(seen.insert(d), "{d} came twice"));
        }
        assert_eq!(q.in_flight(), 0);
    }

    #[test]
    fn a_poll_without_budget_loses_nothing() {
        let mut q = OffThread::new(4, vec![()], |_: &mut (), n: u32| n).unwrap();
        q.submit(&mut (0..4).collect()).unwrap();
        let mut seen = Vec::new();
        let start = std::time::Instant::now();
        while seen.len() < 4 {
            assert!(start.elapsed() < Duration::from_secs(5), "only {seen:?} came");
            for budget in [0, 0, 1] {
                let polled = q.poll(budget, &mut |d| seen.push(d));
                assert!(polled.delivered <= budget);
            }
            std::thread::yield_now();
            assert!(q.in_flight() == 4 - seen.len());
        }
        assert_eq!(seen, [0, 1, 2, 3]);
    }

    #[test]
    fn a_call_that_does_not_return_is_left_behind_when_patience_ends() {
        let (let_go, held) = channel::<()>();
        let (began, begun) = channel::<()>();
        let held = Mutex::new((held, began));
        let ended = Arc::new(());
        let session = Arc::clone(&ended);
        let mut q = OffThread::new(4, vec![session], move |_: &mut Arc<()>, _: u32| {
            let held = held.lock().unwrap();
            held.1.send(()).unwrap();
            let _ = held.0.recv();
        })
        .unwrap()
        .with_patience(Duration::from_millis(10));
        q.submit(&mut (0..2).collect()).unwrap();
        begun.recv().unwrap();
        drop(q);
        assert_eq!(Arc::strong_count(&ended), 2, "its helper still has its session");
        drop(let_go);
        let start = std::time::Instant::now();
        while Arc::strong_count(&ended) > 1 {
            assert!(start.elapsed() < Duration::from_secs(5), "the helper never ends");
            std::thread::yield_now();
        }
    }

    #[test]
    fn dropping_with_work_out_waits_for_the_helpers() {
        let running = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let counter = Arc::clone(&running);
        let mut q = OffThread::new(4, vec![()], move |_: &mut (), _: u32| {
            counter.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(20));
            counter.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
        })
        .unwrap();
        q.submit(&mut (0..4).collect()).unwrap();
        drop(q);
        assert_eq!(running.load(std::sync::atomic::Ordering::SeqCst), 0);
    }
}
