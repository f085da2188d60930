//! The only files of this crate with unsafe code: signals, memory by system call, and what the loader calls.

mod memory;
mod signals;

pub(crate) use signals::{install, install_steps};

use std::arch::x86_64::__cpuid;

/// Whether the processor itself is one of those that have the instructions.
#[allow(unsafe_code)]
#[allow(unused_unsafe, reason = "an intrinsic that is safe in later versions of the language")]
pub(crate) fn has_padlock() -> bool {
    // SAFETY: every processor of this architecture has the instruction, and it changes nothing but registers.
    let said = unsafe { __cpuid(0) };
    let letters: Vec<u8> = [said.ebx, said.edx, said.ecx].into_iter().flat_map(u32::to_le_bytes).collect();
    letters == b"CentaurHauls" || letters == b"  Shanghai  "
}

/// Fills `out` with random octets of the kernel.
#[allow(unsafe_code)]
pub(crate) fn random(out: &mut [u8]) {
    // SAFETY: `out` is as long as is said. Eight octets are never cut short.
    unsafe { libc::getrandom(out.as_mut_ptr().cast(), out.len(), 0) };
}

/// Has a function called when the process ends by itself.
#[allow(unsafe_code)]
pub(crate) fn at_exit(function: extern "C" fn()) {
    // SAFETY: the function is one of a library that is never unloaded.
    unsafe { libc::atexit(function) };
}

/// Takes variables out of the environment.
#[allow(unsafe_code)]
pub(crate) fn forget_variables(names: &[&str]) {
    for name in names {
        // SAFETY: only called before the program's own beginning, when there is one thread.
        unsafe { std::env::remove_var(name) };
    }
}

/// The loader calls what this section points to.
#[allow(unsafe_code)]
#[used]
// SAFETY: the section holds pointers to functions of this type.
#[unsafe(link_section = ".init_array")]
static LOADED: extern "C" fn() = {
    extern "C" fn loaded() {
        crate::preload::loaded();
    }
    loaded
};

/// What the emulator answers CPUID with, for a program that looks this name up. Four words are written.
///
/// # Safety
/// `to` points to room for four words.
#[allow(unsafe_code)]
#[allow(unreachable_pub, reason = "it is reached by its name")]
// SAFETY: nothing else has this name.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tussock_padlock_emulated_cpuid(number: u32, to: *mut u32) {
    let registers = crate::Emulator::installed().map_or([0; 4], |emulator| emulator.leaf(number));
    // SAFETY: the caller's promise.
    unsafe { to.cast::<[u32; 4]>().write_unaligned(registers) };
}
