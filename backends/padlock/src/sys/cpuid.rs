//! What the processor says of itself.
#![allow(unsafe_code)]
#![allow(unused_unsafe, reason = "an intrinsic that is safe in later versions of the language")]

use std::arch::x86_64::__cpuid;

/// EAX, EBX, ECX and EDX of a leaf.
pub(crate) fn leaf(number: u32) -> [u32; 4] {
    // SAFETY: every processor of this architecture has the instruction, and it changes nothing but these registers.
    let said = unsafe { __cpuid(number) };
    [said.eax, said.ebx, said.ecx, said.edx]
}
