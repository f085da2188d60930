//! An allocator that counts: how often and how much, and what is still held, by whose turn it was.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64, Ordering};

/// Whose memory it is. On threads other than the first, everything is [`Part::Threads`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Part {
    /// Threads of the key side and of devices.
    Threads = 0,
    /// The IKE engine.
    Engine = 1,
    /// The device's contexts of packet SAs.
    Device = 2,
    /// The data path's SAs.
    Esp = 3,
    /// The channel to the key side.
    Channel = 4,
    /// This program.
    Harness = 5,
}

/// All parts with their names.
pub(crate) const PARTS: [(Part, &str); 5] = [
    (Part::Engine, "ike engine"),
    (Part::Device, "device SAs"),
    (Part::Esp, "esp SAs"),
    (Part::Channel, "channel"),
    (Part::Threads, "key side"),
];

const COUNT: usize = 16;
const UNCOUNTED: u8 = u8::MAX;
/// Room before each block for its owner; as much as keeps the alignment malloc gives.
const HEAD: usize = 16;

/// What malloc takes for a block: its size with a word more, in steps of 16, 32 at least.
fn weight(size: usize) -> i64 {
    ((size + 8).next_multiple_of(16)).max(32) as i64
}

static ON: AtomicBool = AtomicBool::new(false);
static ROLE: AtomicU8 = AtomicU8::new(0);
static HELD: [AtomicI64; COUNT] = [const { AtomicI64::new(0) }; COUNT];
static BLOCKS: [AtomicI64; COUNT] = [const { AtomicI64::new(0) }; COUNT];
static CALLS: AtomicU64 = AtomicU64::new(0);
static OCTETS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static PART: Cell<u8> = const { Cell::new(0) };
}

/// The allocator.
pub(crate) struct Counting;

fn owner() -> u8 {
    let part = PART.try_with(Cell::get).unwrap_or(0);
    ROLE.load(Ordering::Relaxed) * 8 + part
}

// SAFETY: every block comes from the system's allocator with a head of at least HEAD octets in front, which keeps the
// alignment asked for; the same head is taken off before the block goes back.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let head = layout.align().max(HEAD);
        let Ok(whole) = Layout::from_size_align(layout.size() + head, head) else {
            return std::ptr::null_mut();
        };
        // SAFETY: the size is not zero.
        let at = unsafe { System.alloc(whole) };
        if at.is_null() {
            return at;
        }
        let mut tag = UNCOUNTED;
        if ON.load(Ordering::Relaxed) {
            tag = owner();
            CALLS.fetch_add(1, Ordering::Relaxed);
            OCTETS.fetch_add(layout.size() as u64, Ordering::Relaxed);
            HELD[usize::from(tag) % COUNT].fetch_add(weight(layout.size()), Ordering::Relaxed);
            BLOCKS[usize::from(tag) % COUNT].fetch_add(1, Ordering::Relaxed);
        }
        // SAFETY: head octets lie before the block, and HEAD of them at least.
        let block = unsafe { at.add(head) };
        // SAFETY: the octet before the block is in the head.
        unsafe { block.sub(1).write(tag) };
        block
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let head = layout.align().max(HEAD);
        // SAFETY: written by alloc.
        let tag = unsafe { block.sub(1).read() };
        if tag != UNCOUNTED {
            HELD[usize::from(tag) % COUNT].fetch_sub(weight(layout.size()), Ordering::Relaxed);
            BLOCKS[usize::from(tag) % COUNT].fetch_sub(1, Ordering::Relaxed);
        }
        // SAFETY: the whole came from alloc with this layout, which was good there.
        unsafe {
            System.dealloc(block.sub(head), Layout::from_size_align_unchecked(layout.size() + head, head))
        };
    }
}

/// Counts from now on, or no more.
pub(crate) fn count(on: bool) {
    ON.store(on, Ordering::SeqCst);
}

/// Whose turn it is: 0 or 1.
pub(crate) fn turn(role: usize) {
    ROLE.store(role as u8, Ordering::SeqCst);
}

/// Does something on behalf of a part.
pub(crate) fn on_behalf<T>(part: Part, what: impl FnOnce() -> T) -> T {
    let before = PART.replace(part as u8);
    let result = what();
    PART.set(before);
    result
}

/// Allocations and their octets so far.
pub(crate) fn calls() -> (u64, u64) {
    (CALLS.load(Ordering::SeqCst), OCTETS.load(Ordering::SeqCst))
}

/// Does something on behalf of a part, and gives the octets it holds that did not come from here: a C library's.
pub(crate) fn outside<T>(what: impl FnOnce() -> T) -> (T, i64) {
    if !ON.load(Ordering::Relaxed) {
        return (what(), 0);
    }
    let ours = || {
        (0..COUNT)
            .map(|place| {
                HELD[place].load(Ordering::SeqCst) + HEAD as i64 * BLOCKS[place].load(Ordering::SeqCst)
            })
            .sum::<i64>()
    };
    let (before, ours_before) = (in_use(), ours());
    let result = what();
    (result, (in_use() - before) - (ours() - ours_before))
}

fn in_use() -> i64 {
    // SAFETY: looks at the allocator's own counters under its own locks.
    unsafe { libc::mallinfo2() }.uordblks as i64
}

/// Octets and blocks a part of a role holds.
pub(crate) fn held(role: usize, part: Part) -> (i64, i64) {
    let place = role * 8 + part as usize;
    (HELD[place].load(Ordering::SeqCst), BLOCKS[place].load(Ordering::SeqCst))
}
