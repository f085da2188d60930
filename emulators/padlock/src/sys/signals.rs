//! The handlers.
//!
//! An instruction traps at a place its thread knows, so that a handler may do whatever a function called from there might: it
//! allocates, and it uses thread-local variables. It runs on the thread's own stack.
#![allow(unsafe_code)]

use std::cell::RefCell;
use std::ffi::{c_int, c_void};
use std::io;
use std::mem::{MaybeUninit, zeroed};
use std::sync::{Mutex, OnceLock, PoisonError};

use libc::{siginfo_t, ucontext_t};

use super::memory::Own;
use crate::decode::{Instruction, LONGEST};
use crate::emulator::Emulator;
use crate::execute::{self, Memory, Registers, Trap};
use crate::xcrypt::Loaded;

/// The trap flag: a SIGTRAP after each instruction.
const STEP: i64 = 1 << 8;

/// POPF. Whatever else writes to all flags (IRET) is not found in programs.
const POPF: u8 = 0x9d;

/// What was there before, and gets every SIGILL that is not for us.
static BEFORE: OnceLock<libc::sigaction> = OnceLock::new();

thread_local! {
    /// What the processor of this thread has of its last XCRYPT. Only kept while the thread is watched.
    static LOADED: RefCell<Option<Loaded>> = const { RefCell::new(None) };
}

/// Sets the handlers, once; and again when somebody else has set theirs since.
pub(crate) fn install() -> io::Result<()> {
    static BUSY: Mutex<()> = Mutex::new(());
    let _guard = BUSY.lock().unwrap_or_else(PoisonError::into_inner);
    let before = set(libc::SIGILL, on_illegal)?;
    if before.sa_sigaction != on_illegal as *const () as usize {
        // Of several the first is kept: the others were set over ours, and may well call it.
        BEFORE.get_or_init(|| before);
    }
    Ok(())
}

/// Sets the handler for threads that are followed.
pub(crate) fn install_steps() -> io::Result<()> {
    set(libc::SIGTRAP, on_step).map(drop)
}

type Handler = extern "C" fn(c_int, *mut siginfo_t, *mut c_void);

fn set(signal: c_int, handler: Handler) -> io::Result<libc::sigaction> {
    // SAFETY: all zeroes is a valid value: no flags, no handler.
    let mut action: libc::sigaction = unsafe { zeroed() };
    action.sa_sigaction = handler as *const () as usize;
    // With SIGSEGV blocked meanwhile, one that is sent from here is taken by the thread where it trapped. Not SA_ONSTACK: such
    // stacks are small.
    action.sa_flags = libc::SA_SIGINFO;
    let mut before = MaybeUninit::uninit();
    // SAFETY: both point to values of their type, and the handler has the type that goes with SA_SIGINFO.
    let done = unsafe {
        libc::sigaddset(&mut action.sa_mask, libc::SIGSEGV);
        libc::sigaction(signal, &action, before.as_mut_ptr())
    };
    if done != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call has succeeded, so the value is written.
    Ok(unsafe { before.assume_init() })
}

extern "C" fn on_illegal(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: errno is the thread's own. What is interrupted must find it as it was.
    let errno = unsafe { *libc::__errno_location() };
    // SAFETY: the kernel passes a context, which nobody else has while the handler runs.
    let registers = unsafe { &mut (*context.cast::<ucontext_t>()).uc_mcontext.gregs };
    let ours = Emulator::installed().is_some_and(|emulator| serve(emulator, registers));
    if !ours {
        pass_on(signal, info, context);
    }
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
}

/// Carries out the instruction at RIP. False: it is none of ours, or this processor does not have it.
fn serve(emulator: &Emulator, gregs: &mut [i64; 23]) -> bool {
    let at = |register: c_int| register as usize;
    let rip = gregs[at(libc::REG_RIP)] as u64;
    let mut octets = [0; LONGEST];
    // The last one of a page may be shorter than the longest.
    let octets = match Own.read(rip, &mut octets) {
        Ok(()) => &octets[..],
        Err(_) if Own.read(rip, &mut octets[..3]).is_ok() => &octets[..3],
        Err(_) => return false,
    };
    let Some((instruction, len)) = Instruction::decode(octets) else { return false };
    if !emulator.has(instruction) {
        return false;
    }
    let names = [libc::REG_RAX, libc::REG_RBX, libc::REG_RCX, libc::REG_RDX, libc::REG_RSI, libc::REG_RDI];
    let [rax, rbx, rcx, rdx, rsi, rdi] = names.map(|register| gregs[at(register)] as u64);
    let mut registers = Registers { rax, rbx, rcx, rdx, rsi, rdi };
    let watch = emulator.watches();
    let outcome = LOADED.with(|loaded| {
        let Ok(mut loaded) = loaded.try_borrow_mut() else { return Err(Trap::Protection) };
        if !watch {
            *loaded = None;
        }
        execute::execute(emulator, instruction, &mut registers, &mut Own, &mut loaded)
    });
    let Registers { rax, rbx, rcx, rdx, rsi, rdi } = registers;
    for (register, value) in names.into_iter().zip([rax, rbx, rcx, rdx, rsi, rdi]) {
        gregs[at(register)] = value as i64;
    }
    match outcome {
        Ok(()) => {
            gregs[at(libc::REG_RIP)] = (rip + len) as i64;
            if watch && matches!(instruction, Instruction::Xcrypt(_)) {
                gregs[at(libc::REG_EFL)] |= STEP;
            }
        }
        // The thread returns to the same instruction, and the signal is waiting for it there.
        Err(Trap::Protection) => raise(libc::SIGSEGV, SI_KERNEL, 0),
        Err(Trap::Page(address)) => raise(libc::SIGSEGV, SEGV_MAPERR, address),
    }
    true
}

/// After each instruction of a thread that is watched. Stops watching when its processor forgets its key.
extern "C" fn on_step(_: c_int, _: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: as above: errno is the thread's own.
    let errno = unsafe { *libc::__errno_location() };
    // SAFETY: as above: the context is this handler's.
    let registers = unsafe { &mut (*context.cast::<ucontext_t>()).uc_mcontext.gregs };
    let mut next = [0];
    let rip = registers[libc::REG_RIP as usize] as u64;
    let pops = Own.read(rip, &mut next).is_ok() && next[0] == POPF;
    let forgets = pops || !Emulator::installed().is_some_and(Emulator::watches);
    if pops {
        unstep(registers[libc::REG_RSP as usize] as u64);
    }
    // A thread that was started by one that is watched is watched, too, and has nothing to forget.
    let has_key = LOADED.with(|loaded| {
        let Ok(mut loaded) = loaded.try_borrow_mut() else { return true };
        loaded.take_if(|_| forgets);
        loaded.is_some()
    });
    if !has_key {
        registers[libc::REG_EFL as usize] &= !STEP;
    }
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
}

/// The flags that POPF is about to take were pushed while the thread was watched: it would be watched on.
fn unstep(stack: u64) {
    let mut octets = [0; 8];
    if Own.read(stack, &mut octets).is_ok() {
        let flags = i64::from_le_bytes(octets) & !STEP;
        // What cannot be written cannot be popped either.
        let _ = Own.write(stack, &flags.to_le_bytes());
    }
}

const SI_KERNEL: c_int = 0x80;
const SEGV_MAPERR: c_int = 1;

/// Sends a signal to this thread with what the kernel would say in it.
fn raise(signal: c_int, code: c_int, address: u64) {
    // SAFETY: all zeroes is a valid value.
    let mut info: siginfo_t = unsafe { zeroed() };
    (info.si_signo, info.si_code) = (signal, code);
    // SAFETY: the address of a fault is the first thing behind the three numbers at the front, at an offset of 16.
    unsafe { (&raw mut info).cast::<u64>().add(2).write(address) };
    // SAFETY: the kernel reads the value. A process may say what it likes to itself.
    unsafe {
        libc::syscall(libc::SYS_rt_tgsigqueueinfo, libc::getpid(), libc::gettid(), signal, &raw const info);
    }
}

/// Hands a signal to whom it would have gone without us.
fn pass_on(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    let before = BEFORE.get();
    let handler = before.map_or(libc::SIG_DFL, |before| before.sa_sigaction);
    if handler == libc::SIG_DFL || handler == libc::SIG_IGN {
        // A fault cannot be ignored either. The thread returns to it, and it ends the process.
        // SAFETY: the default needs no handler.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
        return;
    }
    let takes_all = before.is_some_and(|before| before.sa_flags & libc::SA_SIGINFO != 0);
    let handler = std::ptr::with_exposed_provenance::<c_void>(handler);
    if takes_all {
        // SAFETY: whoever set it with this flag gave it this type.
        let handler = unsafe { std::mem::transmute::<*const c_void, Handler>(handler) };
        handler(signal, info, context);
    } else {
        // SAFETY: whoever set it without the flag gave it this type.
        let handler = unsafe { std::mem::transmute::<*const c_void, extern "C" fn(c_int)>(handler) };
        handler(signal);
    }
}
