//! ASYNC_JOB: work that runs on a stack of its own and may be paused in the middle by the provider that carries it out.
//!
//! OpenSSL ties a job to the thread that started it: its stack returns to where that thread's dispatcher waits. So a fibre knows
//! its thread and refuses to turn on any other. And there is no way to end a job from outside: its stack has frames of the
//! provider's on it, and hardware may write to what it holds. A fibre that is dropped while it is paused is therefore left
//! alone, with all that belongs to it, for as long as the process lives.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::os::fd::RawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::{NonNull, null_mut};
use std::thread::ThreadId;

use super::raw::{self, ASYNC_JOB, ASYNC_WAIT_CTX};

/// Work for a fibre. Its stack is small (32 KiB), and a lock that is held when it pauses stays locked.
pub(crate) trait Task: Send + 'static {
    /// Does it. Owns all it touches.
    fn run(&mut self);
}

/// How far a fibre got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// The task has run to its end.
    Finished,
    /// It waits for its provider.
    Paused,
    /// It did not start: the thread has as many jobs as it may have, or no memory for another one.
    NotNow,
    /// Started on another thread, or OpenSSL cannot go on with it. It stays paused for good.
    Stuck,
}

/// Where a provider says what a job waits for. One job after the other may use it.
pub(crate) struct Wait(NonNull<ASYNC_WAIT_CTX>);

// SAFETY: a plain list; it is used by one owner at a time, on the thread of its fibre.
unsafe impl Send for Wait {}

impl Wait {
    pub(crate) fn new() -> Option<Self> {
        // SAFETY: no pointers; null on failure.
        NonNull::new(unsafe { raw::ASYNC_WAIT_CTX_new() }).map(Wait)
    }

    /// Descriptors that were added and taken away since this was last asked.
    pub(crate) fn changes(&mut self) -> (Vec<RawFd>, Vec<RawFd>) {
        let (mut added, mut deleted) = (0, 0);
        let context = self.0.as_ptr();
        // SAFETY: the context is live; null asks for the counts alone.
        let ok = unsafe {
            raw::ASYNC_WAIT_CTX_get_changed_fds(context, null_mut(), &mut added, null_mut(), &mut deleted)
        };
        if ok != 1 || (added, deleted) == (0, 0) {
            return (Vec::new(), Vec::new());
        }
        let (mut to_add, mut to_delete) = (vec![-1; added], vec![-1; deleted]);
        // SAFETY: as above, and the lists are as long as was just said; nobody else has the context.
        let ok = unsafe {
            let (add, delete) = (to_add.as_mut_ptr(), to_delete.as_mut_ptr());
            raw::ASYNC_WAIT_CTX_get_changed_fds(context, add, &mut added, delete, &mut deleted)
        };
        if ok != 1 {
            return (Vec::new(), Vec::new());
        }
        to_add.truncate(added);
        to_delete.truncate(deleted);
        (to_add, to_delete)
    }

    /// All descriptors it has now.
    pub(crate) fn fds(&self) -> Vec<RawFd> {
        let mut count = 0;
        // SAFETY: the context is live; null asks for the count alone.
        if unsafe { raw::ASYNC_WAIT_CTX_get_all_fds(self.0.as_ptr(), null_mut(), &mut count) } != 1 {
            return Vec::new();
        }
        let mut all = vec![-1; count];
        // SAFETY: as above, and the list is as long as was just said.
        if unsafe { raw::ASYNC_WAIT_CTX_get_all_fds(self.0.as_ptr(), all.as_mut_ptr(), &mut count) } != 1 {
            return Vec::new();
        }
        all.truncate(count);
        all
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        // SAFETY: made by new, freed once; no job uses it, for a paused fibre never lets go of its own. Providers' descriptors are
        // closed by their own clean-up functions in here.
        unsafe { raw::ASYNC_WAIT_CTX_free(self.0.as_ptr()) }
    }
}

/// A task, and the job it runs in.
pub(crate) struct Fibre<T: Task> {
    /// Null unless it is paused.
    job: *mut ASYNC_JOB,
    parts: Option<(NonNull<T>, Wait)>,
    thread: Option<ThreadId>,
}

// SAFETY: the task may be sent. A paused job is only touched by `turn`, which sees to it that it is on the job's thread.
unsafe impl<T: Task> Send for Fibre<T> {}

impl<T: Task> Fibre<T> {
    pub(crate) fn new(task: Box<T>, wait: Wait) -> Self {
        let task = NonNull::from(Box::leak(task));
        Fibre { job: null_mut(), parts: Some((task, wait)), thread: None }
    }

    /// Starts the task, or goes on where it paused.
    pub(crate) fn turn(&mut self) -> Turn {
        let Some((task, wait)) = &self.parts else { return Turn::Stuck };
        let here = std::thread::current().id();
        if *self.thread.get_or_insert(here) != here {
            return Turn::Stuck;
        }
        let (mut result, mut argument) = (0, task.as_ptr());
        // SAFETY: the wait context lives as long as the job, since a fibre lets go of neither while it is paused; so does the task,
        // of which no reference exists outside of the job. The argument is copied, pointer-sized as announced. A paused job is
        // gone on with on its own thread only, see above.
        let code = unsafe {
            let size = size_of::<*mut T>();
            let argument = (&raw mut argument).cast();
            raw::ASYNC_start_job(&mut self.job, wait.0.as_ptr(), &mut result, enter::<T>, argument, size)
        };
        match code {
            raw::ASYNC_FINISH => {
                self.job = null_mut();
                Turn::Finished
            }
            raw::ASYNC_PAUSE => Turn::Paused,
            raw::ASYNC_NO_JOBS => Turn::NotNow,
            // A job that could not be started is none; out of memory is the one reason.
            _ if self.job.is_null() => Turn::NotNow,
            _ => Turn::Stuck,
        }
    }

    /// Where it says what it waits for.
    pub(crate) fn wait(&mut self) -> Option<&mut Wait> {
        self.parts.as_mut().map(|(_, wait)| wait)
    }

    /// Task and wait context of a fibre that is not paused; one that is stays as it is.
    pub(crate) fn into_parts(mut self) -> Option<(Box<T>, Wait)> {
        if !self.job.is_null() {
            return None;
        }
        let (task, wait) = self.parts.take()?;
        // SAFETY: leaked from a box by new; the job is over, so this is the only way to it.
        Some((unsafe { Box::from_raw(task.as_ptr()) }, wait))
    }
}

impl<T: Task> Drop for Fibre<T> {
    fn drop(&mut self) {
        let Some((task, wait)) = self.parts.take() else { return };
        if self.job.is_null() {
            // SAFETY: as in into_parts.
            drop(unsafe { Box::from_raw(task.as_ptr()) });
            return;
        }
        // The job goes on existing, and will never be asked for again: see the head of this file.
        std::mem::forget(wait);
    }
}

/// Where a job begins.
unsafe extern "C" fn enter<T: Task>(argument: *mut c_void) -> c_int {
    // SAFETY: OpenSSL hands out its copy of the pointer that `turn` gave it.
    let task = unsafe { argument.cast::<*mut T>().read() };
    // A panic must not unwind into OpenSSL's frames.
    let run = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: the fibre keeps the task alive and gives out no reference while the job is not over.
        unsafe { &mut *task }.run();
    }));
    c_int::from(run.is_ok())
}
