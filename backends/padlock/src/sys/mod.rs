//! The only files of this crate with unsafe code: the instructions, and memory that they can reach.
//!
//! Every wrapper checks what its instruction would otherwise find out by a fault, or not at all: alignment, lengths, and what
//! the processor reads behind the end of its input.

#[cfg(target_arch = "x86_64")]
pub(crate) mod cpuid;
#[cfg(test)]
pub(crate) mod guard;
#[cfg(target_arch = "x86_64")]
pub(crate) mod isa;
pub(crate) mod low;
#[cfg(feature = "emulated")]
pub(crate) mod preloaded;

/// Other processors: nothing is detected, so nothing is carried out.
#[cfg(not(target_arch = "x86_64"))]
#[path = "absent.rs"]
pub(crate) mod isa;
#[cfg(not(target_arch = "x86_64"))]
pub(crate) use isa as cpuid;
