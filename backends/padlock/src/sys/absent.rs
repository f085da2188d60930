//! Stands where other processors have the instructions. Nothing here is reached: without CPUID no unit is found.

use crate::blocks::{Control, Iv, Key, State};
use crate::mode::Mode;

const NEVER: &str = "no unit is ever detected on this architecture";

/// Zeroes: no leaf exists.
pub(crate) fn leaf(_: u32) -> [u32; 4] {
    [0; 4]
}

pub(crate) fn forget_key() {}

pub(crate) fn reach(_: Mode, _: &[u8]) -> usize {
    0
}

pub(crate) fn xcrypt(_: Mode, _: &Key, _: &Control, _: &mut Iv, _: &mut [u8], _: usize) {
    unreachable!("{NEVER}")
}

pub(crate) fn xsha(_: crate::hash::Kind, _: &mut State, _: &[u8]) {
    unreachable!("{NEVER}")
}

pub(crate) fn xstore(_: &mut [u8; 16], _: u32) -> u32 {
    unreachable!("{NEVER}")
}

pub(crate) fn montmul(_: &mut crate::sys::low::Low, _: usize, _: usize) {
    unreachable!("{NEVER}")
}
