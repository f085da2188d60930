//! The emulator that was loaded into this process (`LD_PRELOAD`), found by the one symbol it is asked for.
#![allow(unsafe_code)]

use std::ffi::CStr;

/// What the emulator answers CPUID with. Not the processor's calling convention, so that the two cannot be mixed up.
const SYMBOL: &CStr = c"tussock_padlock_emulated_cpuid";

type Leaf = unsafe extern "C" fn(u32, *mut u32);

/// EAX, EBX, ECX and EDX of a leaf as the emulator has it; `None`: there is no emulator in this process.
pub(crate) fn leaf(number: u32) -> Option<[u32; 4]> {
    // SAFETY: the name is a C string; the default handle searches what is loaded.
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, SYMBOL.as_ptr()) };
    if found.is_null() {
        return None;
    }
    // SAFETY: whoever exports this name gives it this type; it is ours alone.
    let function: Leaf = unsafe { std::mem::transmute::<*mut libc::c_void, Leaf>(found) };
    let mut registers = [0; 4];
    // SAFETY: the function writes four words.
    unsafe { function(number, registers.as_mut_ptr()) };
    Some(registers)
}
