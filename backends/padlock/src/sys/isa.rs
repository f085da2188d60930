//! The instructions themselves.
#![allow(unsafe_code)]

use std::arch::asm;

use crate::blocks::{BLOCK, Control, Iv, Key, State};
use crate::hash::Kind;
use crate::mode::Mode;
use crate::sys::low::Low;

/// The smallest page there is: behind its end nothing may be mapped.
const PAGE: usize = 4096;

/// Makes the next XCRYPT of this thread read key and control word from memory. Until then the processor goes on with those it
/// has, whatever is in memory by now; any write to the flags, this one or a task switch, makes it forget them.
pub(crate) fn forget_key() {
    // SAFETY: the flags become what they were. This pushes, so `nostack` is not claimed.
    unsafe { asm!("pushfq", "popfq") };
}

/// How many octets at the front of a text can be given to [`xcrypt`] where they lie: whole blocks, none when the text is not
/// aligned, and fewer than all when what the processor reads behind them might be on a page that is not there.
pub(crate) fn reach(mode: Mode, text: &[u8]) -> usize {
    let start = text.as_ptr().addr();
    if !start.is_multiple_of(BLOCK) {
        return 0;
    }
    let whole = text.len() / BLOCK * BLOCK;
    if may_end_at(mode, text, whole) {
        return whole;
    }
    // What lies behind is read, and is ours.
    text.len().saturating_sub(mode.over_read()) / BLOCK * BLOCK
}

/// Whether reading on behind `end` octets of a text stays in the text or on its last page.
fn may_end_at(mode: Mode, text: &[u8], end: usize) -> bool {
    let address = text.as_ptr().addr() + end;
    let on_page = address.next_multiple_of(PAGE) - address;
    text.len() - end >= mode.over_read() || on_page >= mode.over_read()
}

/// REP XCRYPT over `blocks` blocks at the front of `text`, in place. `iv` is read, but for ECB; what is in it afterwards is
/// unspecified.
///
/// # Panics
/// When the text is not aligned, is shorter than that, or what lies behind might not be readable. [`reach`] says what is.
pub(crate) fn xcrypt(mode: Mode, key: &Key, control: &Control, iv: &mut Iv, text: &mut [u8], blocks: usize) {
    let end = blocks.checked_mul(BLOCK).filter(|end| *end <= text.len());
    let end = end.expect("as many blocks as there are");
    assert!(text.as_ptr().addr().is_multiple_of(BLOCK) && may_end_at(mode, text, end));
    if blocks == 0 {
        return;
    }
    let (key, control) = (key.0.as_ptr(), control.0.as_ptr());
    let (iv, text) = (iv.0.as_mut_ptr(), text.as_mut_ptr());
    // RBX is the compiler's; it is lent to the instruction, which does not change it. The direction flag is clear, as it
    // always is at the beginning of such a block.
    macro_rules! rep {
        ($last:literal) => {
            // SAFETY: key, control word and IV are aligned and as long as they must be, by their types; the text is aligned,
            // holds the blocks, and what is read behind it is readable, as was checked above; `text` is borrowed mutably, so
            // that nobody else sees it written to.
            unsafe {
                asm!(
                    "xchg {key}, rbx",
                    concat!(".byte 0xf3, 0x0f, 0xa7, ", $last),
                    "xchg {key}, rbx",
                    key = inout(reg) key => _,
                    inout("rax") iv => _,
                    inout("rcx") blocks => _,
                    inout("rdx") control => _,
                    inout("rsi") text => _,
                    inout("rdi") text => _,
                    options(nostack),
                );
            }
        };
    }
    match mode {
        Mode::Ecb => rep!("0xc8"),
        Mode::Cbc => rep!("0xd0"),
        Mode::Ctr => rep!("0xd8"),
        Mode::Cfb => rep!("0xe0"),
        Mode::Ofb => rep!("0xe8"),
    }
}

/// REP XSHA1 or XSHA256 over whole blocks, without the padding that ends a message: the state goes on from what it is.
///
/// # Panics
/// When the data is not whole blocks of 64.
pub(crate) fn xsha(kind: Kind, state: &mut State, data: &[u8]) {
    assert!(data.len().is_multiple_of(64));
    let (blocks, data) = (data.len() / 64, data.as_ptr());
    if blocks == 0 {
        return;
    }
    let state = state.0.as_mut_ptr();
    // All ones: no padding, and a count of blocks instead of octets.
    let raw = usize::MAX;
    macro_rules! rep {
        ($last:literal) => {
            // SAFETY: the state is aligned and has the 128 octets that the processor uses, by its type, and is borrowed
            // mutably; the data holds as many blocks as are announced.
            unsafe {
                asm!(
                    concat!(".byte 0xf3, 0x0f, 0xa6, ", $last),
                    inout("rax") raw => _,
                    inout("rcx") blocks => _,
                    inout("rsi") data => _,
                    inout("rdi") state => _,
                    options(nostack),
                );
            }
        };
    }
    match kind {
        Kind::Sha1 => rep!("0xc8"),
        Kind::Sha256 => rep!("0xd0"),
    }
}

/// One XSTORE: random octets at the front of `to`, as many as the low bits of what is returned say. `quality` is 0 to 3, and 3
/// the best.
pub(crate) fn xstore(to: &mut [u8; 16], quality: u32) -> u32 {
    let status: u64;
    // SAFETY: the instruction writes at most 8 octets, and there are 16, borrowed mutably. That it keeps RCX is not written
    // anywhere, so it need not.
    unsafe {
        asm!(
            ".byte 0x0f, 0xa7, 0xc0",
            inout("rdi") to.as_mut_ptr() => _,
            inout("edx") quality & 3 => _,
            inout("rax") 0u64 => status,
            lateout("rcx") _,
            options(nostack),
        );
    }
    // The upper half is not described.
    status as u32
}

/// REP MONTMUL with the operand block at `block` of `low`, for a modulus of so many bits.
///
/// # Panics
/// When the block is not one, points outside `low`, or the number of bits cannot be.
pub(crate) fn montmul(low: &mut Low, block: usize, bits: usize) {
    assert!((256..=32_768).contains(&bits) && bits.is_multiple_of(128));
    // Each operand, and the 16 zero octets behind it.
    let len = bits / 8 + 16;
    let field = |at: usize| low.word(block + at) as usize;
    for (at, len) in [(4, len), (8, len), (12, len), (16, len), (20, 32)] {
        let inside = field(at).checked_sub(low.address()).is_some_and(|offset| low.holds(offset, len));
        assert!(inside && field(at).is_multiple_of(16));
    }
    assert!(field(12) != field(4) && field(12) != field(8) && low.holds(block, 24));
    let block = low.at(block);
    // SAFETY: all operands lie in `low`, which is borrowed mutably, aligned and as long as they must be, as was checked. What
    // the instruction does to registers that it is not said to use is not described, so they are all given up.
    unsafe {
        asm!(
            ".byte 0xf3, 0x0f, 0xa6, 0xc0",
            inout("rax") 0u64 => _,
            inout("rcx") bits => _,
            inout("rsi") block => _,
            lateout("rdx") _,
            lateout("rdi") _,
            options(nostack),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[repr(C, align(4096))]
    struct Pages([u8; 3 * PAGE]);

    #[test]
    fn a_text_near_the_end_of_its_page_is_not_reached_to_its_end() {
        let pages = Box::new(Pages([0; 3 * PAGE]));
        let all = &pages.0;
        // Far from it: all of it, but for what is no block.
        assert_eq!(reach(Mode::Cbc, &all[..100]), 96);
        assert_eq!(reach(Mode::Cbc, &all[1..101]), 0, "not aligned");
        for (mode, over) in
            [(Mode::Ecb, 128), (Mode::Cbc, 64), (Mode::Ctr, 32), (Mode::Cfb, 128), (Mode::Ofb, 128)]
        {
            for gap in (0..=256).step_by(16) {
                let text = &all[16..PAGE - gap];
                let reached = reach(mode, text);
                let direct = if gap >= over { text.len() } else { text.len() - over };
                assert_eq!(reached, direct, "{mode:?} {gap}");
                let short = &all[PAGE - gap - 16..PAGE - gap];
                assert_eq!(reach(mode, short), if gap >= over { 16 } else { 0 }, "{mode:?} {gap}");
            }
            // It may cross a page: only what is behind its end counts.
            assert_eq!(reach(mode, &all[..2 * PAGE - 128]), 2 * PAGE - 128, "{mode:?}");
        }
    }
}
