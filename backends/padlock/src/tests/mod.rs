//! The units, instruction by instruction as the emulator carries them out, against OpenSSL and published answers.
#![cfg(target_arch = "x86_64")]

mod ciphers;
mod hashes;
mod powers;

use emu_padlock::{Emulator, Options};

use crate::blocks::Work;

/// What a thread needs, on a processor that has it all.
fn work() -> Box<Work> {
    Emulator::install(Options::default()).expect("this processor has no PadLock of its own");
    Work::new()
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|digit| !digit.is_ascii_whitespace()).collect();
    let octet = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(octet).collect()
}
