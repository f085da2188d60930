//! DPDK's interface in C, made safe to call: the environment, devices, sessions, and lanes, which are a queue pair with the requests
//! that go through it: this file's are for packets, those of `numbers` for operations. The only unsafe code of the feature.
//!
//! What DPDK has no check for is kept here by ownership. A device closes when the last session and the last lane on it are gone. A pair
//! has one lane, and who uses it shows an [`Access`], which a reset takes away first. A request keeps its session until it is back.
#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use dpdk_sys as dpdk;

use super::eal;

mod numbers;

pub(super) use numbers::{NumberLane, RsaParts};

pub(super) use dpdk::{td_auth as auth, td_cipher as cipher, td_form as form};

/// Octets that stand beside a request.
pub(super) const IV: usize = dpdk::TD_IV as usize;
pub(super) const AAD: usize = dpdk::TD_AAD as usize;
pub(super) const ICV: usize = dpdk::TD_ICV as usize;
/// Octets of the largest number.
pub(super) const NUMBER: usize = dpdk::TD_NUMBER as usize;
/// Why there is no lane, most of the time.
const NO_PAIR: &str = "every queue pair is taken";
/// Requests taken off a pair at a time.
const HARVEST: usize = 64;

/// Everything DPDK logs from now on goes to `to`.
pub(super) fn log_to(to: fn(u32, &str)) {
    static TO: std::sync::OnceLock<fn(u32, &str)> = std::sync::OnceLock::new();
    extern "C" fn line(level: u32, line: *const c_char, len: usize) {
        let Some(line) = NonNull::new(line.cast_mut().cast::<u8>()) else { return };
        // SAFETY: DPDK's stream gives us so many octets, which stay as they are until we return.
        let octets = unsafe { std::slice::from_raw_parts(line.as_ptr(), len) };
        let text = String::from_utf8_lossy(octets);
        // What is logged is not worth a panic in the middle of C.
        let _ = std::panic::catch_unwind(|| TO.get().map(|to| to(level, text.trim_end())));
    }
    if TO.set(to).is_ok() {
        // SAFETY: the function is there for as long as the program.
        unsafe { dpdk::td_log_to(Some(line)) };
    }
}

/// Starts the environment; the calling thread is its main one from now on.
pub(super) fn start(arguments: Vec<CString>) -> Result<(), i32> {
    // DPDK keeps what it is given, and may write to it.
    let mut pointers: Vec<*mut c_char> = arguments.into_iter().map(CString::into_raw).collect();
    let count = pointers.len() as c_int;
    pointers.push(std::ptr::null_mut());
    let pointers = Box::leak(pointers.into_boxed_slice());
    // SAFETY: as many strings as are counted, and a null behind them, all of which live for ever.
    match unsafe { dpdk::rte_eal_init(count, pointers.as_mut_ptr()) } {
        used if used >= 0 => Ok(()),
        _ => Err(errno()),
    }
}

/// Where the environment would keep files.
pub(super) fn runtime_dir() -> Option<String> {
    // SAFETY: the environment is up or was tried to be, and gives a string of its own.
    let dir = unsafe { dpdk::rte_eal_get_runtime_dir() };
    // SAFETY: a string that ends with a zero and does not change any more, or none.
    (!dir.is_null()).then(|| unsafe { CStr::from_ptr(dir) }.to_string_lossy().into_owned())
}

fn errno() -> i32 {
    // SAFETY: reads a variable of this thread.
    unsafe { dpdk::td_errno() }
}

/// A C string; what has a zero in it ends there.
fn c_string(text: &str) -> CString {
    CString::new(text.split('\0').next().unwrap_or_default()).unwrap_or_default()
}

/// What a device says of itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Info {
    pub(super) hardware: bool,
    pub(super) symmetric: bool,
    pub(super) asymmetric: bool,
    pub(super) most_pairs: u16,
}

/// What is asked of a device at its opening.
pub(super) struct Wanted {
    /// Bus and name, when the device is to be taken away from the bus again at the end.
    pub(super) plugged: Option<(&'static str, String)>,
    pub(super) pairs: u16,
    /// Requests a pair holds.
    pub(super) places: u32,
    /// Sessions for packets, and for operations, that can be there at one time.
    pub(super) sessions: u32,
    pub(super) operations: u32,
}

/// Plugs a device into a bus of DPDK's.
pub(super) fn plug(bus: &str, name: &str, arguments: &str) -> Result<(), i32> {
    let (bus, name, arguments) = (c_string(bus), c_string(name), c_string(arguments));
    // SAFETY: three strings, which are copied; the environment is up, since this runs on its thread.
    match unsafe { dpdk::rte_eal_hotplug_add(bus.as_ptr(), name.as_ptr(), arguments.as_ptr()) } {
        0 => Ok(()),
        error => Err(-error),
    }
}

pub(super) fn unplug(bus: &str, name: &str) {
    let (bus, name) = (c_string(bus), c_string(name));
    // SAFETY: two strings, which are copied; the environment is up, since this runs on its thread.
    unsafe { dpdk::rte_eal_hotplug_remove(bus.as_ptr(), name.as_ptr()) };
}

/// A name that no other pool has; DPDK finds them by name, and has 26 octets for one.
fn pool_name(what: &str) -> CString {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    c_string(&format!("ts_{what}_{}", NEXT.fetch_add(1, Ordering::Relaxed)))
}

/// A pool of DPDK's.
struct Mempool(NonNull<dpdk::rte_mempool>);

// SAFETY: pools may be used by any thread; this is the only owner.
unsafe impl Send for Mempool {}
// SAFETY: as above; takers and givers are told apart by compare-and-exchange.
unsafe impl Sync for Mempool {}

impl Mempool {
    fn new(pool: *mut dpdk::rte_mempool) -> Result<Mempool, i32> {
        NonNull::new(pool).map(Mempool).ok_or_else(errno)
    }
}

impl Drop for Mempool {
    fn drop(&mut self) {
        // SAFETY: owned, and everything from it is back: sessions, lanes and engines go in that order.
        unsafe { dpdk::rte_mempool_free(self.0.as_ptr()) };
    }
}

/// A device that runs, with its pools of sessions.
pub(super) struct Engine {
    dev: u8,
    info: Info,
    wanted: Wanted,
    /// One lock for each pair: whether it may be used. Contended only by a reset.
    pairs: Vec<Mutex<bool>>,
    free: Mutex<Vec<u16>>,
    sessions: Option<Mempool>,
    operations: Option<Mempool>,
}

/// Shows that its holder may use a pair now.
pub(super) struct Access<'a> {
    pair: u16,
    _open: MutexGuard<'a, bool>,
}

impl Engine {
    /// What the device of this name says of itself; `None` when there is none.
    pub(super) fn ask(name: &str) -> Option<Info> {
        let dev = Self::find(name)?;
        let mut info = std::mem::MaybeUninit::<dpdk::rte_cryptodev_info>::zeroed();
        // SAFETY: dev is that of a device, and there is room for what is written.
        unsafe { dpdk::rte_cryptodev_info_get(dev, info.as_mut_ptr()) };
        // SAFETY: zeroes are a valid value of it, and so is what was written.
        let info = unsafe { info.assume_init() };
        let has = |flag: u32| info.feature_flags & u64::from(flag) != 0;
        Some(Info {
            hardware: has(dpdk::RTE_CRYPTODEV_FF_HW_ACCELERATED),
            symmetric: has(dpdk::RTE_CRYPTODEV_FF_SYMMETRIC_CRYPTO)
                && has(dpdk::RTE_CRYPTODEV_FF_SYM_OPERATION_CHAINING),
            asymmetric: has(dpdk::RTE_CRYPTODEV_FF_ASYMMETRIC_CRYPTO),
            most_pairs: u16::try_from(info.max_nb_queue_pairs).unwrap_or(u16::MAX),
        })
    }

    fn find(name: &str) -> Option<u8> {
        let name = c_string(name);
        // SAFETY: reads the string.
        u8::try_from(unsafe { dpdk::rte_cryptodev_get_dev_id(name.as_ptr()) }).ok()
    }

    /// Sets a device up and starts it. On the environment's thread.
    pub(super) fn open(name: &str, wanted: Wanted) -> Result<Engine, String> {
        let (Some(dev), Some(info)) = (Self::find(name), Self::ask(name)) else {
            return Err(format!("there is no cryptodev {name}"));
        };
        let pairs = wanted.pairs.clamp(1, info.most_pairs.max(1));
        let places = wanted.places;
        // From here on it is closed again, whatever happens.
        let mut engine = Engine {
            dev,
            info,
            wanted,
            pairs: (0..pairs).map(|_| Mutex::new(true)).collect(),
            free: Mutex::new((0..pairs).rev().collect()),
            sessions: None,
            operations: None,
        };
        // SAFETY: dev is a device that nobody else has set up.
        let error = unsafe { dpdk::td_set_up(dev, pairs, places) };
        if error != 0 {
            return Err(format!("{name} cannot be set up with {pairs} queue pairs (error {})", -error));
        }
        let said = |error| format!("no memory for sessions of {name} (error {error})");
        if info.symmetric {
            // SAFETY: dev is a device; asks only.
            let len = unsafe { dpdk::rte_cryptodev_sym_get_private_session_size(dev) };
            let (pool, count) = (pool_name("sess"), engine.wanted.sessions);
            // SAFETY: the name is copied; everything else is numbers.
            let pool =
                unsafe { dpdk::rte_cryptodev_sym_session_pool_create(pool.as_ptr(), count, len, 0, 0, -1) };
            engine.sessions = Some(Mempool::new(pool).map_err(said)?);
        }
        if info.asymmetric {
            let (pool, count) = (pool_name("asym"), engine.wanted.operations);
            // SAFETY: the name is copied; everything else is numbers.
            let pool =
                unsafe { dpdk::rte_cryptodev_asym_session_pool_create(pool.as_ptr(), count, 0, 0, -1) };
            engine.operations = Some(Mempool::new(pool).map_err(said)?);
        }
        Ok(engine)
    }

    pub(super) fn info(&self) -> Info {
        self.info
    }

    /// Queue pairs it has.
    pub(super) fn pairs(&self) -> usize {
        self.pairs.len()
    }

    /// Whether it says that it does a transform, of which the lengths of the keys count.
    pub(super) fn does(&self, transform: &Transform<'_>) -> bool {
        let transform = transform.raw();
        // SAFETY: dev is a device of ours; the structure is read only.
        unsafe { dpdk::td_does(self.dev, &transform) }
    }

    /// Whether it does powers with a modulus of so many octets.
    pub(super) fn does_powers(&self, len: usize) -> bool {
        // SAFETY: dev is a device of ours; asks only.
        let does = |len| unsafe { dpdk::td_does_powers(self.dev, len) };
        self.info.asymmetric && len <= NUMBER && u16::try_from(len).is_ok_and(does)
    }

    /// Whether it signs with an RSA key of so many octets, and whether from the key's parts.
    pub(super) fn does_rsa(&self, len: usize, crt: bool) -> bool {
        // SAFETY: dev is a device of ours; asks only.
        let does = |len| unsafe { dpdk::td_does_rsa(self.dev, len, crt) };
        self.info.asymmetric && len <= NUMBER && u16::try_from(len).is_ok_and(does)
    }

    /// The right to use a pair now; `None` while the device is being reset.
    pub(super) fn enter(&self, pair: u16) -> Option<Access<'_>> {
        let open = match self.pairs.get(usize::from(pair))?.try_lock() {
            Ok(open) => open,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        (*open).then_some(Access { pair, _open: open })
    }

    /// Stops the device. When this returns it writes to no memory any more, and nobody enters.
    pub(super) fn halt(&self) {
        for pair in &self.pairs {
            *pair.lock().unwrap_or_else(PoisonError::into_inner) = false;
        }
        // SAFETY: dev is a device of ours, and nobody is in any of its pairs.
        unsafe { dpdk::rte_cryptodev_stop(self.dev) };
    }

    /// Starts it again, with nothing in it. After [`halt`](Engine::halt).
    pub(super) fn revive(&self) -> Result<(), i32> {
        let mut held: Vec<_> =
            self.pairs.iter().map(|pair| pair.lock().unwrap_or_else(PoisonError::into_inner)).collect();
        // SAFETY: dev is a device of ours, stopped, and nobody is in any of its pairs.
        let error = unsafe { dpdk::td_empty(self.dev, held.len() as u16, self.wanted.places) };
        if error != 0 {
            return Err(-error);
        }
        // SAFETY: dev is a device of ours, and set up.
        let error = unsafe { dpdk::rte_cryptodev_start(self.dev) };
        if error != 0 {
            return Err(-error);
        }
        held.iter_mut().for_each(|open| **open = true);
        Ok(())
    }

    /// Makes memory reachable for a device that does DMA.
    pub(super) fn map(&self, at: usize, len: usize, page: usize) -> Result<(), i32> {
        // SAFETY: registers an address and a length; whoever calls keeps the memory until it is unmapped.
        match unsafe { dpdk::td_map(self.dev, at as *mut c_void, len, page) } {
            0 => Ok(()),
            error => Err(-error),
        }
    }

    pub(super) fn unmap(&self, at: usize, len: usize) {
        // SAFETY: takes back what map did, or finds that it did not.
        unsafe { dpdk::td_unmap(self.dev, at as *mut c_void, len) };
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let (dev, places) = (self.dev, self.wanted.places);
        let (pools, plugged) = ((self.sessions.take(), self.operations.take()), self.wanted.plugged.take());
        // Waited for: a program that ends while a device is being closed takes libraries away under it.
        let _ = eal::call(move || {
            // SAFETY: dev is a device of ours, and no session or lane of it is left, since each holds the engine.
            unsafe { dpdk::rte_cryptodev_stop(dev) };
            // SAFETY: as above, and stopped.
            unsafe { dpdk::td_close(dev, places) };
            drop(pools);
            if let Some((bus, name)) = plugged {
                unplug(bus, &name);
            }
        });
    }
}

/// A transform, with its keys if a session is to be made.
pub(super) struct Transform<'a> {
    pub(super) form: form::Type,
    pub(super) cipher: cipher::Type,
    pub(super) auth: auth::Type,
    pub(super) seal: bool,
    pub(super) cipher_key: &'a [u8],
    pub(super) auth_key: &'a [u8],
    pub(super) iv_len: u16,
    pub(super) aad_len: u16,
    pub(super) icv_len: u16,
}

impl Transform<'_> {
    fn raw(&self) -> dpdk::td_transform {
        dpdk::td_transform {
            form: self.form,
            cipher: self.cipher,
            auth: self.auth,
            seal: self.seal,
            cipher_key: self.cipher_key.as_ptr(),
            cipher_key_len: self.cipher_key.len() as u16,
            auth_key: self.auth_key.as_ptr(),
            auth_key_len: self.auth_key.len() as u16,
            iv_len: self.iv_len,
            aad_len: self.aad_len,
            icv_len: self.icv_len,
        }
    }
}

/// What a device has to know of an SA, in its own form.
pub(super) struct Session {
    engine: Arc<Engine>,
    session: NonNull<c_void>,
    form: form::Type,
}

// SAFETY: DPDK documents that sessions are shared by threads, each with a queue pair of its own.
unsafe impl Send for Session {}
// SAFETY: as above.
unsafe impl Sync for Session {}

impl Session {
    /// `Err` with the error: ENOMEM when there are as many as there can be.
    pub(super) fn new(engine: &Arc<Engine>, transform: &Transform<'_>) -> Result<Session, i32> {
        let pool = engine.sessions.as_ref().ok_or(0)?;
        let raw = transform.raw();
        let _alone = eal::alone();
        // SAFETY: device and pool are of one engine; keys are copied, or worked into others.
        let session = unsafe { dpdk::td_session(engine.dev, pool.0.as_ptr(), &raw) };
        let session = NonNull::new(session).ok_or_else(errno)?;
        Ok(Session { engine: Arc::clone(engine), session, form: transform.form })
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // SAFETY: owned, and in use by no request, each of which holds it; DPDK wipes it.
        unsafe { dpdk::rte_cryptodev_sym_session_free(self.engine.dev, self.session.as_ptr()) };
    }
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    Good,
    /// The ICV is wrong.
    Mismatch,
    /// The device's status.
    Error(u32),
}

fn ended(status: c_int) -> Ended {
    use dpdk::rte_crypto_op_status as s;
    match status as u32 {
        s::RTE_CRYPTO_OP_STATUS_SUCCESS => Ended::Good,
        s::RTE_CRYPTO_OP_STATUS_AUTH_FAILED => Ended::Mismatch,
        other => Ended::Error(other),
    }
}

/// A packet as a request has it: its address, and what is where in it. The ICV is beside the request if `icv_at` is `None`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    pub(super) at: usize,
    pub(super) len: u16,
    pub(super) text_at: u16,
    pub(super) text_len: u16,
    pub(super) hash_len: u16,
    pub(super) icv_at: Option<u16>,
}

/// What stands beside a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Aside {
    pub(super) iv: [u8; IV],
    pub(super) aad: [u8; AAD],
    pub(super) icv: [u8; ICV],
}

/// A queue pair for packets, and its requests.
pub(super) struct Lane {
    engine: Arc<Engine>,
    pair: u16,
    slots: Vec<dpdk::td_slot>,
    /// What each request works with, as long as it is out.
    sessions: Vec<Option<Arc<Session>>>,
    free: Vec<u32>,
    /// Prepared, and not taken by the device yet.
    waiting: VecDeque<u32>,
    /// With the device.
    out: usize,
    requests: Mempool,
    buffers: Mempool,
}

// SAFETY: requests and buffers belong to this lane alone; DPDK wants one thread at a time in a pair, which `&mut self` is.
unsafe impl Send for Lane {}

impl Lane {
    /// A lane of `count` requests. On the environment's thread.
    ///
    /// # Errors
    /// No pair is left, or no memory.
    pub(super) fn open(engine: &Arc<Engine>, count: usize) -> Result<Lane, String> {
        let no_memory = |error| eal::said("no memory for a queue", error);
        let pools = || {
            let (requests, buffers) = (pool_name("req"), pool_name("buf"));
            // SAFETY: the name is copied; everything else is numbers.
            let requests = unsafe { dpdk::td_requests(requests.as_ptr(), count as u32, false) };
            let requests = Mempool::new(requests).map_err(no_memory)?;
            // SAFETY: as above.
            let buffers = unsafe { dpdk::td_buffers(buffers.as_ptr(), count as u32) };
            let buffers = Mempool::new(buffers).map_err(no_memory)?;
            let empty = dpdk::td_slot { op: std::ptr::null_mut(), mbuf: std::ptr::null_mut() };
            let mut slots = vec![empty; count];
            // SAFETY: the pools are for requests and buffers, and there is room for as many as are asked for.
            let error = unsafe {
                dpdk::td_take_slots(requests.0.as_ptr(), buffers.0.as_ptr(), slots.as_mut_ptr(), count as u32)
            };
            if error == 0 { Ok((slots, requests, buffers)) } else { Err(no_memory(-error)) }
        };
        let pair = engine.take_pair().ok_or(NO_PAIR)?;
        let (slots, requests, buffers) = pools().inspect_err(|_| engine.give_pair(pair))?;
        Ok(Lane {
            engine: Arc::clone(engine),
            pair,
            sessions: slots.iter().map(|_| None).collect(),
            free: (0..slots.len() as u32).rev().collect(),
            waiting: VecDeque::with_capacity(slots.len()),
            slots,
            out: 0,
            requests,
            buffers,
        })
    }

    pub(super) fn pair(&self) -> u16 {
        self.pair
    }

    /// Requests that can be prepared now.
    pub(super) fn room(&self) -> usize {
        self.free.len()
    }

    /// Requests that are with the device.
    pub(super) fn out(&self) -> usize {
        self.out
    }

    /// Prepares a request; its number, or `None` when there is no room. The packet stays where it is until the request is back.
    #[inline]
    pub(super) fn put(&mut self, session: &Arc<Session>, layout: &Layout, aside: &Aside) -> Option<u32> {
        if !Arc::ptr_eq(&session.engine, &self.engine) {
            return None;
        }
        let number = self.free.pop()?;
        let slot = *self.slots.get(number as usize)?;
        let raw = dpdk::td_packet {
            at: layout.at as *mut u8,
            iova: layout.at as u64,
            len: layout.len,
            text_at: layout.text_at,
            text_len: layout.text_len,
            hash_len: layout.hash_len,
            icv_at: layout.icv_at.map_or(-1, i32::from),
        };
        // SAFETY: the slot is ours and not out; the session is of this device, and kept below until the request is back. What lies
        // at the address is a burst's buffer, which the queue holds in its table until then.
        unsafe { dpdk::td_prepare(slot, session.session.as_ptr(), session.form, &raw) };
        // SAFETY: a request has TD_ASIDE octets beside it, more than are written.
        let beside = unsafe { dpdk::td_aside(slot.op) };
        // SAFETY: as above; the three follow each other, and nobody else has the request.
        unsafe {
            std::ptr::copy_nonoverlapping(aside.iv.as_ptr(), beside, IV);
            std::ptr::copy_nonoverlapping(aside.aad.as_ptr(), beside.add(IV), AAD);
            std::ptr::copy_nonoverlapping(aside.icv.as_ptr(), beside.add(IV + AAD), ICV);
        }
        if let Some(kept) = self.sessions.get_mut(number as usize) {
            *kept = Some(Arc::clone(session));
        }
        self.waiting.push_back(number);
        Some(number)
    }

    /// Gives the device what waits, as much as it takes; true when that is not all.
    /// `ended_at_once` hears of those that it judged and did not take.
    pub(super) fn push(&mut self, access: &Access<'_>, mut ended_at_once: impl FnMut(u32, Ended)) -> bool {
        if access.pair != self.pair {
            return false;
        }
        while !self.waiting.is_empty() {
            let mut ops = [std::ptr::null_mut(); HARVEST];
            let mut count = 0;
            for (op, number) in ops.iter_mut().zip(&self.waiting) {
                let Some(slot) = self.slots.get(*number as usize) else { break };
                *op = slot.op;
                count += 1;
            }
            // SAFETY: requests that are prepared and not out; we are in the pair, and the only ones.
            let taken =
                unsafe { dpdk::td_enqueue(self.engine.dev, self.pair, ops.as_mut_ptr(), count as u16) };
            let taken = usize::from(taken).min(count);
            self.waiting.drain(..taken);
            self.out += taken;
            if taken == count {
                continue;
            }
            // SAFETY: it was not taken, so it is ours.
            let status = unsafe { dpdk::td_status(ops[taken]) };
            if status as u32 == dpdk::rte_crypto_op_status::RTE_CRYPTO_OP_STATUS_NOT_PROCESSED {
                return true;
            }
            // Drivers that do the work while they take it keep what they cannot do, and say so in its status. Given to them once
            // more, it would be done twice.
            if let Some(number) = self.waiting.pop_front() {
                self.release(number);
                ended_at_once(number, ended(status));
            }
        }
        false
    }

    /// Takes back up to `most` requests. `each` is given number, end, and the ICV beside it.
    pub(super) fn take(
        &mut self,
        access: &Access<'_>,
        most: usize,
        mut each: impl FnMut(u32, Ended, &[u8; ICV]),
    ) -> usize {
        if self.out == 0 || access.pair != self.pair {
            return 0;
        }
        let mut ops = [std::ptr::null_mut(); HARVEST];
        let most = most.min(HARVEST) as u16;
        // SAFETY: there is room for as many; we are in the pair, and the only ones.
        let taken = unsafe { dpdk::td_dequeue(self.engine.dev, self.pair, ops.as_mut_ptr(), most) };
        for op in ops.into_iter().take(usize::from(taken)) {
            // SAFETY: the device gives back only requests of this lane, since nobody else is in its pair and it was empty at first.
            let number = unsafe { dpdk::td_number(op) };
            if self.slots.get(number as usize).is_none_or(|slot| slot.op != op) {
                continue;
            }
            // SAFETY: as above.
            let status = unsafe { dpdk::td_status(op) };
            let mut icv = [0; ICV];
            // SAFETY: a request has TD_ASIDE octets beside it, of which these are the third part.
            unsafe {
                std::ptr::copy_nonoverlapping(
                    dpdk::td_aside(op).add(IV + AAD).cast_const(),
                    icv.as_mut_ptr(),
                    ICV,
                );
            }
            self.out = self.out.saturating_sub(1);
            self.release(number);
            each(number, ended(status), &icv);
        }
        usize::from(taken)
    }

    fn release(&mut self, number: u32) {
        if let Some(session) = self.sessions.get_mut(number as usize) {
            *session = None;
        }
        self.free.push(number);
    }

    /// All requests are ours again: the device has been halted.
    pub(super) fn forget(&mut self) {
        self.waiting.clear();
        self.out = 0;
        self.sessions.iter_mut().for_each(|session| *session = None);
        self.free = (0..self.slots.len() as u32).rev().collect();
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        let (requests, buffers) = (self.requests.0.as_ptr(), self.buffers.0.as_ptr());
        // SAFETY: they came from these pools, and none is with the device: whoever drops a lane has waited for that, or halted it.
        unsafe {
            dpdk::td_give_slots(requests, buffers, self.slots.as_mut_ptr(), self.slots.len() as u32);
        }
        self.engine.give_pair(self.pair);
    }
}

impl Engine {
    fn take_pair(&self) -> Option<u16> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn give_pair(&self, pair: u16) {
        self.free.lock().unwrap_or_else(PoisonError::into_inner).push(pair);
    }
}
