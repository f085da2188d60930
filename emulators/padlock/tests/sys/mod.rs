//! The raw instructions, with whatever registers a test likes, and memory behind which there is none.
#![allow(unsafe_code)]
#![allow(dead_code, unreachable_pub)]

use std::arch::asm;
use std::ptr::null_mut;

/// Registers before and after.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Registers {
    pub rax: u64,
    pub rbx: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
}

macro_rules! instruction {
    ($name:ident, $octets:literal) => {
        /// Executes it.
        pub fn $name(before: Registers) -> Registers {
            let Registers { mut rax, mut rbx, mut rcx, mut rdx, mut rsi, mut rdi } = before;
            // SAFETY: tests pass addresses of memory that is theirs and alive, or want the fault that follows.
            unsafe {
                asm!(
                    "xchg {rbx}, rbx",
                    concat!(".byte ", $octets),
                    "xchg {rbx}, rbx",
                    rbx = inout(reg) rbx,
                    inout("rax") rax, inout("rcx") rcx, inout("rdx") rdx, inout("rsi") rsi, inout("rdi") rdi,
                );
            }
            Registers { rax, rbx, rcx, rdx, rsi, rdi }
        }
    };
}

instruction!(xstore, "0x0f, 0xa7, 0xc0");
instruction!(rep_xstore, "0xf3, 0x0f, 0xa7, 0xc0");
instruction!(xcrypt_ecb, "0xf3, 0x0f, 0xa7, 0xc8");
instruction!(xcrypt_cbc, "0xf3, 0x0f, 0xa7, 0xd0");
instruction!(xcrypt_ctr, "0xf3, 0x0f, 0xa7, 0xd8");
instruction!(xsha1, "0xf3, 0x0f, 0xa6, 0xc8");
instruction!(xsha256, "0xf3, 0x0f, 0xa6, 0xd0");
instruction!(montmul, "0xf3, 0x0f, 0xa6, 0xc0");
// XCRYPT without REP, and one that every processor finds illegal.
instruction!(bare_xcrypt, "0x0f, 0xa7, 0xc8");
instruction!(ud2, "0x0f, 0x0b");

/// Writes to the flags.
pub fn popf() {
    // SAFETY: the flags become what they were.
    unsafe { asm!("pushfq", "popfq") };
}

/// A page, and one behind it that cannot be touched.
pub fn page_at_the_end() -> &'static mut [u8] {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a fresh mapping anywhere it likes; never unmapped.
    unsafe {
        let base = libc::mmap(null_mut(), 8192, libc::PROT_NONE, flags, -1, 0);
        assert_eq!(libc::mprotect(base, 4096, libc::PROT_READ | libc::PROT_WRITE), 0);
        std::slice::from_raw_parts_mut(base.cast(), 4096)
    }
}

/// Ends the process with 42, or with 43 if the fault has no address, when a segmentation fault is reported with an address at the
/// beginning of a page.
pub fn report_page_faults() {
    extern "C" fn handler(_: i32, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
        // SAFETY: the kernel passes what it says.
        let (code, address) = unsafe { ((*info).si_code, (*info).si_addr() as usize) };
        let status = match code {
            1 if address != 0 && address % 4096 == 0 => 42,
            0x80 if address == 0 => 43,
            _ => 44,
        };
        // SAFETY: ends the process at once.
        unsafe { libc::_exit(status) };
    }
    set(libc::SIGSEGV, handler);
}

/// A handler that was there before: it steps over UD2, and counts.
pub fn step_over_ud2() {
    extern "C" fn handler(_: i32, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
        // SAFETY: the kernel passes a context.
        let registers = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
        registers[libc::REG_RIP as usize] += 2;
        registers[libc::REG_RAX as usize] += 1;
    }
    set(libc::SIGILL, handler);
}

fn set(signal: i32, handler: extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void)) {
    // SAFETY: all zeroes is valid; the handler has the type that goes with the flag.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        assert_eq!(libc::sigaction(signal, &action, null_mut()), 0);
    }
}
