//! Memory of the process, reached by system calls: an address that is not there is an error and not another signal.
#![allow(unsafe_code)]

use crate::execute::{Memory, Trap};

/// All of it.
pub(crate) struct Own;

impl Memory for Own {
    fn read(&self, at: u64, to: &mut [u8]) -> Result<(), Trap> {
        let (local, remote) = vectors(to.as_mut_ptr(), at, to.len());
        // SAFETY: the kernel writes to `to` only, as long as it is, and says so if it cannot read.
        let done = unsafe { libc::process_vm_readv(libc::getpid(), &local, 1, &remote, 1, 0) };
        outcome(at, to.len(), done)
    }

    fn write(&mut self, at: u64, from: &[u8]) -> Result<(), Trap> {
        let (local, remote) = vectors(from.as_ptr().cast_mut(), at, from.len());
        // SAFETY: what is written to is what the trapped thread told its processor to write to, and it lent that to the
        // instruction; the kernel says so if it cannot.
        let done = unsafe { libc::process_vm_writev(libc::getpid(), &local, 1, &remote, 1, 0) };
        outcome(at, from.len(), done)
    }
}

fn vectors(here: *mut u8, there: u64, len: usize) -> (libc::iovec, libc::iovec) {
    let there = std::ptr::with_exposed_provenance_mut(there as usize);
    (libc::iovec { iov_base: here.cast(), iov_len: len }, libc::iovec { iov_base: there, iov_len: len })
}

/// The kernel stops at the first page that is not there.
fn outcome(at: u64, len: usize, done: isize) -> Result<(), Trap> {
    match usize::try_from(done) {
        Ok(done) if done == len => Ok(()),
        Ok(done) => Err(Trap::Page(at + done as u64)),
        Err(_) => Err(Trap::Page(at)),
    }
}
