//! Pausing a job until the hardware says that it is done.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::null_mut;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::event::{EventfdFlags, eventfd};

use super::raw::{self, ASYNC_WAIT_CTX};
use crate::hardware::{Fate, Hardware, Waiter};

/// The key of our descriptor in a wait context: an address of this module's.
static KEY: u8 = 0;

fn key() -> *const c_void {
    (&raw const KEY).cast()
}

/// Gives a piece of work to the hardware and pauses the job until that says that it is done. Outside of a job it is done at once.
pub(super) fn wait_for(hardware: &Hardware, service: usize) -> Fate {
    // SAFETY: no pointers.
    let job = unsafe { raw::ASYNC_get_current_job() };
    if job.is_null() {
        return Fate::default();
    }
    // SAFETY: the job is the one that runs.
    let context = unsafe { raw::ASYNC_get_wait_ctx(job) };
    let Some(bell) = bell(context) else { return Fate { error: true, wrong: false } };
    let waiter = Waiter { done: Arc::default(), bell };
    let fate = hardware.take(service, &waiter);
    // Whoever goes on with a job may have been woken by something else.
    while !waiter.done.load(Ordering::Acquire) {
        // SAFETY: no pointers. No lock is held here: the hardware has let go of its own.
        if unsafe { raw::ASYNC_pause_job() } != 1 {
            return Fate { error: true, wrong: false };
        }
        // What rang has been heard; a ring that is still to come rings again.
        let _ = rustix::io::read(&*waiter.bell, &mut [0; 8]);
    }
    fate
}

/// The descriptor of a wait context, made for its first job and there for all later ones.
fn bell(context: *mut ASYNC_WAIT_CTX) -> Option<Arc<OwnedFd>> {
    if context.is_null() {
        return None;
    }
    let (mut fd, mut data) = (-1, null_mut());
    // SAFETY: the context is live; the data under our key is what is put there below.
    unsafe {
        if raw::ASYNC_WAIT_CTX_get_fd(context, key(), &mut fd, &mut data) == 1 && !data.is_null() {
            return Some(Arc::clone(&*data.cast::<Arc<OwnedFd>>()));
        }
    }
    let bell = Arc::new(eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).ok()?);
    let data = Box::into_raw(Box::new(Arc::clone(&bell)));
    // SAFETY: the context is live. It takes the data over, and gives it to `cleanup` when it goes.
    let set =
        unsafe { raw::ASYNC_WAIT_CTX_set_wait_fd(context, key(), bell.as_raw_fd(), data.cast(), cleanup) };
    if set != 1 {
        // SAFETY: it was not taken over.
        drop(unsafe { Box::from_raw(data) });
        return None;
    }
    Some(bell)
}

/// The wait context goes. The hardware may still ring: the descriptor is closed when it does not want it any more either.
unsafe extern "C" fn cleanup(_: *mut ASYNC_WAIT_CTX, _: *const c_void, _: c_int, data: *mut c_void) {
    // SAFETY: made by `bell`, and given back once.
    drop(unsafe { Box::from_raw(data.cast::<Arc<OwnedFd>>()) });
}
