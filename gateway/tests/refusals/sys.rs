//! System calls that no library makes for us. The only file of these tests with unsafe code.
#![allow(unsafe_code)]

use std::io;

/// Makes a call whose arguments are numbers and no places in memory; all of them are harmless where it is not refused.
pub(crate) fn call(number: i64, arguments: [i64; 4]) -> io::Result<i64> {
    let [a, b, c, d] = arguments;
    // SAFETY: no argument is an address of ours: what takes addresses is given none, and fails for it.
    let result = unsafe { libc::syscall(number, a, b, c, d, 0i64, 0i64) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Makes another process, which ends at once.
pub(crate) fn fork(number: i64) -> io::Result<()> {
    // As `clone` it has no flags and no stack of its own.
    let made = call(number, [i64::from(libc::SIGCHLD), 0, 0, 0])?;
    if made == 0 {
        // SAFETY: ends the process without running anything of ours.
        unsafe { libc::_exit(0) };
    }
    Ok(())
}
