//! The only unsafe code of this crate: a library is loaded, its functions are called, and memory that it may write to is held.
//!
//! Two things are taken on faith, since nobody can check them inside one process: that functions of the plug-in return, and that its
//! pointers lead to what `accel.h` says they lead to. Everything that comes back is a number, and is judged elsewhere.
#![allow(unsafe_code)]

mod bells;
mod memory;

use std::ffi::{c_char, c_void};
use std::path::Path;
use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use crate::abi;
use crate::lie::Lie;

pub(crate) use bells::Bell;
pub(crate) use memory::{Octets, Packets, Room};

/// The one symbol of a plug-in.
pub type Entry = unsafe extern "C" fn(u32) -> *const abi::Driver;

const SYMBOL: &str = "accel_plugin";
/// Octets of a text of the plug-in's that are looked at.
const LONGEST: usize = 200;

/// What a library says when it is asked for its functions.
pub(crate) enum Answer {
    /// It speaks no such ABI.
    Nothing,
    /// A structure whose address or size cannot be right.
    Odd { address: usize, size: u32, abi: u32 },
    /// Its functions, not looked at yet.
    Driver(Box<abi::Driver>),
}

/// A library in this process. It is never unloaded: its threads may still be running.
#[derive(Clone, Copy)]
pub struct Library(Entry);

impl Library {
    /// Loads a shared library and finds the symbol.
    pub(crate) fn load(path: &Path) -> Result<Library, libloading::Error> {
        // SAFETY: initialisers of the library run here. Whoever named it in a configuration wants its code to run.
        let library = unsafe { libloading::Library::new(path) }?;
        // SAFETY: a plug-in's accel_plugin has this type; a library that has another thing of this name is no plug-in.
        let entry = unsafe { library.get::<Entry>(SYMBOL) }.map(|symbol| *symbol)?;
        std::mem::forget(library);
        Ok(Library(entry))
    }

    /// A plug-in that is a function of this program.
    ///
    /// # Safety
    /// The function and all that it leads to keep to the types of `accel.h`, for ever.
    pub const unsafe fn of(entry: Entry) -> Library {
        Library(entry)
    }

    /// Asks for its functions.
    pub(crate) fn ask(self, version: u32) -> Answer {
        // SAFETY: the type of the symbol is the plug-in's promise, see load and of.
        let driver = unsafe { (self.0)(version) };
        if driver.is_null() {
            return Answer::Nothing;
        }
        if !driver.is_aligned() {
            return Answer::Odd { address: driver.addr(), size: 0, abi: 0 };
        }
        // SAFETY: aligned and not null; every version of the structure begins with these two numbers.
        let [size, abi] = unsafe { driver.cast::<[u32; 2]>().read() };
        if abi != version || (size as usize) < size_of::<abi::Driver>() {
            return Answer::Odd { address: driver.addr(), size, abi };
        }
        // SAFETY: it says that it is at least as long as what is read.
        Answer::Driver(Box::new(unsafe { driver.read() }))
    }
}

/// A text of the plug-in's: at most [`LONGEST`] octets, and only what can be printed. `None` without one.
pub(crate) fn text(at: *const c_char) -> Option<String> {
    if at.is_null() {
        return None;
    }
    let mut octets = Vec::new();
    while octets.len() < LONGEST {
        // SAFETY: the text goes on until its NUL, which has not come yet.
        match unsafe { at.add(octets.len()).cast::<u8>().read() } {
            0 => break,
            octet => octets.push(octet),
        }
    }
    let shown = |c: char| if c.is_control() { '?' } else { c };
    Some(String::from_utf8_lossy(&octets).chars().map(shown).collect())
}

/// `count` things of the plug-in's, copied; empty without a pointer to them.
pub(crate) fn copy<T: Copy>(at: *const T, count: usize) -> Vec<T> {
    if at.is_null() || !at.is_aligned() {
        return Vec::new();
    }
    // SAFETY: accel.h: the pointers in accel_info lead to so many things, for ever. The caller has bounded the count.
    unsafe { std::slice::from_raw_parts(at, count) }.to_vec()
}

macro_rules! calls {
    ($($(#[$doc:meta])* $name:ident: $type:ty),* $(,)?) => {
        /// The functions of a plug-in, all of them there.
        pub(crate) struct Calls { $($name: $type,)* memory_add: Option<MemoryAdd>, op_submit: Option<OpSubmit>, op_poll: Option<OpPoll> }

        impl Calls {
            /// Picks the functions.
            ///
            /// # Errors
            /// The names of those that are missing.
            pub(crate) fn pick(driver: &abi::Driver) -> Result<Calls, Vec<&'static str>> {
                let mut missing = Vec::new();
                $(if driver.$name.is_none() { missing.push(stringify!($name)); })*
                match ($(driver.$name,)*) {
                    ($(Some($name),)*) => Ok(Calls {
                        $($name,)*
                        memory_add: driver.memory_add,
                        op_submit: driver.op_submit,
                        op_poll: driver.op_poll,
                    }),
                    _ => Err(missing),
                }
            }
        }
    };
}

type MemoryAdd = unsafe extern "C" fn(abi::Opaque, *mut c_void, u64) -> u32;
type OpSubmit = unsafe extern "C" fn(abi::Opaque, *const abi::Op, u32) -> u32;
type OpPoll = unsafe extern "C" fn(abi::Opaque, *mut abi::OpDone, u32) -> u32;

calls! {
    probe: unsafe extern "C" fn(u32, *mut abi::Info) -> u32,
    device_open: unsafe extern "C" fn(u32, *const abi::Host) -> abi::Opaque,
    device_close: unsafe extern "C" fn(abi::Opaque),
    device_health: unsafe extern "C" fn(abi::Opaque) -> u32,
    sa_install: unsafe extern "C" fn(abi::Opaque, *const abi::Sa, *mut u32) -> u32,
    sa_remove: unsafe extern "C" fn(abi::Opaque, u32),
    queue_open: unsafe extern "C" fn(abi::Opaque, u32, u32, u64) -> abi::Opaque,
    queue_room: unsafe extern "C" fn(abi::Opaque) -> u32,
    burst_submit: unsafe extern "C" fn(abi::Opaque, *const abi::Burst, u32) -> u32,
    burst_poll: unsafe extern "C" fn(abi::Opaque, *mut abi::BurstDone, u32) -> u32,
    queue_stop: unsafe extern "C" fn(abi::Opaque),
    queue_close: unsafe extern "C" fn(abi::Opaque),
}

/// An open device of the plug-in's.
#[derive(Clone, Copy)]
pub(crate) struct RawDevice(NonNull<c_void>);

// SAFETY: accel.h: control plane functions may be called from any thread, one at a time, which Loaded::control sees to.
unsafe impl Send for RawDevice {}
// SAFETY: as above.
unsafe impl Sync for RawDevice {}

/// An open queue of the plug-in's. Not Clone: one owner.
pub(crate) struct RawQueue(NonNull<c_void>);

// SAFETY: accel.h: a queue's functions may be called from any thread, one at a time, which ownership sees to.
unsafe impl Send for RawQueue {}

/// A plug-in at work. No function of it is called once it was shut out.
pub(crate) struct Loaded {
    calls: Calls,
    control: Mutex<()>,
    shut: OnceLock<Lie>,
    /// It is known to write to nothing once it has lied: part of this program.
    harmless: bool,
}

/// What the host has for a plug-in.
static HOST: abi::Host =
    abi::Host { size: size_of::<abi::Host>() as u32, abi: abi::ABI, ring: bells::ring, log };

/// A line of the plug-in's, for whoever reads the standard error.
unsafe extern "C" fn log(line: *const c_char) {
    if let Some(line) = text(line) {
        tracing::info!(%line, "plug-in");
    }
}

impl Loaded {
    pub(crate) fn new(calls: Calls, harmless: bool) -> Loaded {
        Loaded { calls, control: Mutex::new(()), shut: OnceLock::new(), harmless }
    }

    /// Deals with what the plug-in had in its hands when it was shut out: it may still write there, so nobody may use or free it.
    pub(crate) fn abandon<T>(&self, held: T) {
        if !self.harmless {
            std::mem::forget(held);
        }
    }

    /// Shuts the plug-in out, for good. The first reason stays.
    pub(crate) fn shut_out(&self, lie: Lie) {
        if self.shut.set(lie).is_ok() {
            tracing::error!(%lie, "plug-in: shut out");
        }
    }

    /// Why it was shut out, if it was.
    pub(crate) fn lie(&self) -> Option<Lie> {
        self.shut.get().copied()
    }

    /// Whether it does operations, and not packets alone.
    pub(crate) fn has_operations(&self) -> bool {
        self.calls.op_submit.is_some() && self.calls.op_poll.is_some()
    }

    /// Whether it wants to know of memory.
    pub(crate) fn wants_memory(&self) -> bool {
        self.calls.memory_add.is_some()
    }

    /// One control call at a time; `None` for a plug-in that is shut out.
    fn control(&self) -> Option<MutexGuard<'_, ()>> {
        let guard = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        self.lie().is_none().then_some(guard)
    }

    pub(crate) fn probe(&self, index: u32, info: &mut abi::Info) -> bool {
        let Some(_one) = self.control() else { return false };
        // SAFETY: the structure is ours, and as long as its size says.
        unsafe { (self.calls.probe)(index, info) == 1 }
    }

    pub(crate) fn device_open(&self, index: u32) -> Option<RawDevice> {
        let _one = self.control()?;
        // SAFETY: the host's table is static.
        NonNull::new(unsafe { (self.calls.device_open)(index, &HOST) }).map(RawDevice)
    }

    pub(crate) fn device_close(&self, device: RawDevice) {
        let Some(_one) = self.control() else { return };
        // SAFETY: the device was opened and is closed once, by the Drop of its only owner; its queues keep that owner.
        unsafe { (self.calls.device_close)(device.0.as_ptr()) }
    }

    pub(crate) fn device_health(&self, device: RawDevice) -> Option<u32> {
        let _one = self.control()?;
        // SAFETY: the device is open.
        Some(unsafe { (self.calls.device_health)(device.0.as_ptr()) })
    }

    pub(crate) fn memory_add(&self, device: RawDevice, base: usize, len: usize) -> Option<u32> {
        let memory_add = self.calls.memory_add?;
        let _one = self.control()?;
        let base = std::ptr::with_exposed_provenance_mut(base);
        // SAFETY: the device is open; the caller keeps the memory for as long as the device.
        Some(unsafe { memory_add(device.0.as_ptr(), base, len as u64) })
    }

    pub(crate) fn sa_install(&self, device: RawDevice, sa: &abi::Sa) -> Option<(u32, u32)> {
        let _one = self.control()?;
        let mut handle = u32::MAX;
        // SAFETY: the device is open; keys and handle are there during the call.
        let status = unsafe { (self.calls.sa_install)(device.0.as_ptr(), sa, &mut handle) };
        Some((status, handle))
    }

    pub(crate) fn sa_remove(&self, device: RawDevice, handle: u32) {
        let Some(_one) = self.control() else { return };
        // SAFETY: the device is open, and the handle came from it and is removed once, by the Drop of its only owner.
        unsafe { (self.calls.sa_remove)(device.0.as_ptr(), handle) }
    }

    pub(crate) fn queue_open(
        &self,
        device: RawDevice,
        kind: u32,
        depth: u32,
        bell: &Bell,
    ) -> Option<RawQueue> {
        let _one = self.control()?;
        // SAFETY: the device is open.
        let queue = unsafe { (self.calls.queue_open)(device.0.as_ptr(), kind, depth, bell.number()) };
        NonNull::new(queue).map(RawQueue)
    }

    pub(crate) fn queue_room(&self, queue: &RawQueue) -> u32 {
        if self.lie().is_some() {
            return 0;
        }
        // SAFETY: the queue is open, and this is its owner's thread.
        unsafe { (self.calls.queue_room)(queue.0.as_ptr()) }
    }

    pub(crate) fn burst_submit(&self, queue: &mut RawQueue, bursts: &[abi::Burst]) -> u32 {
        if self.lie().is_some() {
            return 0;
        }
        // SAFETY: the queue is open; what the bursts point to stays in the queue's table until they are back, or is leaked.
        unsafe { (self.calls.burst_submit)(queue.0.as_ptr(), bursts.as_ptr(), bursts.len() as u32) }
    }

    pub(crate) fn burst_poll(&self, queue: &mut RawQueue, done: &mut [abi::BurstDone]) -> u32 {
        if self.lie().is_some() {
            return 0;
        }
        // SAFETY: the queue is open, and so many completions fit.
        unsafe { (self.calls.burst_poll)(queue.0.as_ptr(), done.as_mut_ptr(), done.len() as u32) }
    }

    pub(crate) fn op_submit(&self, queue: &mut RawQueue, ops: &[abi::Op]) -> u32 {
        let Some(op_submit) = self.calls.op_submit.filter(|_| self.lie().is_none()) else { return 0 };
        // SAFETY: as for bursts.
        unsafe { op_submit(queue.0.as_ptr(), ops.as_ptr(), ops.len() as u32) }
    }

    pub(crate) fn op_poll(&self, queue: &mut RawQueue, done: &mut [abi::OpDone]) -> u32 {
        let Some(op_poll) = self.calls.op_poll.filter(|_| self.lie().is_none()) else { return 0 };
        // SAFETY: the queue is open, and so many completions fit.
        unsafe { op_poll(queue.0.as_ptr(), done.as_mut_ptr(), done.len() as u32) }
    }

    pub(crate) fn queue_stop(&self, queue: &mut RawQueue) {
        if self.lie().is_none() {
            // SAFETY: the queue is open, and this is its owner's thread.
            unsafe { (self.calls.queue_stop)(queue.0.as_ptr()) }
        }
    }

    pub(crate) fn queue_close(&self, queue: RawQueue) {
        let Some(_one) = self.control() else { return };
        // SAFETY: the queue is open, nothing is out, and nobody has it afterwards.
        unsafe { (self.calls.queue_close)(queue.0.as_ptr()) }
    }
}
