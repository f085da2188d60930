//! The PadLock instructions in software. On a processor without them they raise SIGILL; a handler finds out which one it was,
//! carries it out on the registers and the memory of the thread it happened to, and lets that thread go on behind it. So a
//! program that was written for PadLock runs as it is, machine code and all.
//!
//! It is loaded into a process by itself ([`Emulator::install`]) or by `LD_PRELOAD` with the variable
//! `TUSSOCK_PADLOCK_EMULATOR` (module `preload`). Without one or the other it does nothing. CPUID cannot be trapped everywhere, so who wants
//! to be told of these units asks [`Emulator::leaf`] instead.
//!
//! Everything that is known of the instructions holds here, and where nothing is known they are as unhelpful as they might be: a
//! program that leaves the paths that are known is stopped by a fault, or gets what it cannot use.
//!
//! | module | what it holds |
//! |---|---|
//! | `emulator` | the units of this process, what they count, what goes wrong with them |
//! | `options` | the words of the environment variable |
//! | `decode` | octets to instructions |
//! | `execute` | what all instructions have in common |
//! | `xcrypt`, `aes`, `xsha`, `xstore`, `montmul` | what each does |
//! | `preload` | what is done when the library is loaded |
//! | `sys` | signals and memory; the only unsafe code |

#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

mod aes;
mod decode;
mod emulator;
mod execute;
mod montmul;
mod options;
mod preload;
mod sys;
mod xcrypt;
mod xsha;
mod xstore;

pub use decode::Instruction;
pub use emulator::{Emulator, Fault, NotInstalled, Units};
pub use options::{BadOption, Options};
