//! Lanes for operations on large numbers: one request, and the memory in which its numbers are.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::Arc;

use dpdk_sys as dpdk;
use zeroize::Zeroize;

use super::{Access, Ended, Engine, Mempool, NO_PAIR, NUMBER, eal, ended, errno, pool_name};
use crate::dpdk::Octets;

/// Places in the memory of a lane for numbers: what goes in and what comes out.
const MODULUS: usize = 0;
const EXPONENT: usize = NUMBER;
const BASE: usize = 2 * NUMBER;
const RESULT: usize = 3 * NUMBER;
/// The parts of an RSA key are half as long as the modulus, and there are five.
const PARTS: usize = 4 * NUMBER;
const NUMBERS_LEN: usize = PARTS + 5 * NUMBER / 2;

/// A queue pair for numbers, with one request.
pub(in crate::dpdk) struct NumberLane {
    engine: Arc<Engine>,
    pair: u16,
    slot: dpdk::td_slot,
    /// The session of what is out.
    session: Option<NonNull<c_void>>,
    kind: Kind,
    memory: NonNull<u8>,
    requests: Mempool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Power,
    Signature,
}

// SAFETY: request and memory belong to this lane alone; DPDK wants one thread at a time in a pair, which `&mut self` is.
unsafe impl Send for NumberLane {}

/// A private key of RSA as a lane takes it: p, q, dP, dQ and qInv, or d.
pub(in crate::dpdk) struct RsaParts<'a> {
    pub(in crate::dpdk) n: &'a [u8],
    pub(in crate::dpdk) e: &'a [u8],
    pub(in crate::dpdk) parts: &'a [&'a [u8]],
}

impl NumberLane {
    /// On the environment's thread.
    ///
    /// # Errors
    /// No pair is left, or no memory.
    pub(in crate::dpdk) fn open(engine: &Arc<Engine>) -> Result<NumberLane, String> {
        let no_memory = |error| eal::said("no memory for a queue", error);
        let name = pool_name("num");
        // SAFETY: the name is copied; everything else is numbers.
        let requests =
            Mempool::new(unsafe { dpdk::td_requests(name.as_ptr(), 1, true) }).map_err(no_memory)?;
        let mut slot = dpdk::td_slot { op: std::ptr::null_mut(), mbuf: std::ptr::null_mut() };
        // SAFETY: the pool is for requests, and there is room for one.
        let error = unsafe { dpdk::td_take_slots(requests.0.as_ptr(), std::ptr::null_mut(), &mut slot, 1) };
        if error != 0 {
            return Err(no_memory(-error));
        }
        // SAFETY: asks for memory; the name is for statistics.
        let memory = unsafe { dpdk::rte_zmalloc(c"numbers".as_ptr(), NUMBERS_LEN, 64) };
        let pair = engine.take_pair();
        let (Some(memory), Some(pair)) = (NonNull::new(memory.cast::<u8>()), pair) else {
            pair.into_iter().for_each(|pair| engine.give_pair(pair));
            // SAFETY: memory of DPDK's, or null, which is no memory.
            unsafe { dpdk::rte_free(memory) };
            return Err(pair.map_or(NO_PAIR.to_owned(), |_| no_memory(errno())));
        };
        let engine = Arc::clone(engine);
        Ok(NumberLane { engine, pair, slot, session: None, kind: Kind::Power, memory, requests })
    }

    pub(in crate::dpdk) fn pair(&self) -> u16 {
        self.pair
    }

    /// Whether the request is out.
    pub(in crate::dpdk) fn is_out(&self) -> bool {
        self.session.is_some()
    }

    /// The lane's memory. Only while the request is not out.
    fn memory(&mut self) -> &mut [u8] {
        // SAFETY: so many octets of ours, written by nobody else as long as the request is not out, which callers look at first.
        unsafe { std::slice::from_raw_parts_mut(self.memory.as_ptr(), NUMBERS_LEN) }
    }

    fn place(&mut self, at: usize, number: &[u8]) -> Option<*mut u8> {
        self.memory().get_mut(at..at + number.len())?.copy_from_slice(number);
        // SAFETY: the slice above is inside the memory.
        Some(unsafe { self.memory.as_ptr().add(at) })
    }

    /// Asks for `base ^ exponent mod modulus`. False when that cannot be asked now.
    pub(in crate::dpdk) fn ask_power(
        &mut self,
        access: &Access<'_>,
        base: &[u8],
        exponent: &[u8],
        modulus: &[u8],
    ) -> bool {
        let fits = [base, exponent, modulus].iter().all(|number| (1..=NUMBER).contains(&number.len()));
        let pool = self.engine.operations.as_ref().map(|pool| pool.0.as_ptr());
        let (true, Some(pool), false) = (fits && access.pair == self.pair, pool, self.is_out()) else {
            return false;
        };
        let places = [(MODULUS, modulus), (EXPONENT, exponent), (BASE, base)];
        let [Some(m), Some(e), Some(b)] = places.map(|(at, number)| self.place(at, number)) else {
            return false;
        };
        let mut session = std::ptr::null_mut();
        let (modulus_len, exponent_len) = (modulus.len() as u16, exponent.len() as u16);
        // SAFETY: device and pool are of one engine; the numbers are in the lane's memory, which outlives the session.
        let error = unsafe {
            dpdk::td_power_session(self.engine.dev, pool, m, modulus_len, e, exponent_len, &mut session)
        };
        let Some(session) = NonNull::new(session).filter(|_| error == 0) else { return false };
        let base_len = base.len() as u16;
        // SAFETY: the request is ours and not out; base and result are in the lane's memory, which has room for both.
        unsafe {
            let result = self.memory.as_ptr().add(RESULT);
            dpdk::td_prepare_power(self.slot.op, session.as_ptr(), b, base_len, result, modulus_len);
        }
        self.send(session, Kind::Power)
    }

    /// Asks for an RSA signature of what is padded already. False when that cannot be asked now.
    pub(in crate::dpdk) fn ask_signature(
        &mut self,
        access: &Access<'_>,
        padded: &[u8],
        key: &RsaParts<'_>,
    ) -> bool {
        let (len, crt) = (key.n.len(), key.parts.len() == 5);
        let part_len = if crt { len / 2 } else { len };
        let fits = (2..=NUMBER).contains(&len)
            && padded.len() == len
            && (1..=len).contains(&key.e.len())
            && matches!(key.parts.len(), 1 | 5)
            && key.parts.iter().all(|part| part.len() == part_len);
        let pool = self.engine.operations.as_ref().map(|pool| pool.0.as_ptr());
        let (true, Some(pool), false) = (fits && access.pair == self.pair, pool, self.is_out()) else {
            return false;
        };
        let places = [(MODULUS, key.n), (EXPONENT, key.e), (BASE, padded)];
        let [Some(n), Some(e), Some(message)] = places.map(|(at, number)| self.place(at, number)) else {
            return false;
        };
        for (place, part) in key.parts.iter().enumerate() {
            if self.place(PARTS + place * part_len, part).is_none() {
                return false;
            }
        }
        // SAFETY: a place inside the lane's memory.
        let parts = unsafe { self.memory.as_ptr().add(PARTS) };
        let (len, e_len) = (len as u16, key.e.len() as u16);
        let raw = dpdk::td_rsa { n, e, len, e_len, parts, crt };
        let mut session = std::ptr::null_mut();
        // SAFETY: device and pool are of one engine; the numbers are in the lane's memory, which outlives the session.
        let error = unsafe { dpdk::td_rsa_session(self.engine.dev, pool, &raw, &mut session) };
        let Some(session) = NonNull::new(session).filter(|_| error == 0) else { return false };
        // SAFETY: the request is ours and not out; message and result are in the lane's memory, which has room for both.
        unsafe {
            let result = self.memory.as_ptr().add(RESULT);
            dpdk::td_prepare_sign(self.slot.op, session.as_ptr(), message, len, result);
        }
        self.send(session, Kind::Signature)
    }

    fn send(&mut self, session: NonNull<c_void>, kind: Kind) -> bool {
        (self.session, self.kind) = (Some(session), kind);
        let mut ops = [self.slot.op];
        // SAFETY: a request that is prepared and not out; the caller showed that we are in the pair.
        if 1 == unsafe { dpdk::td_enqueue(self.engine.dev, self.pair, ops.as_mut_ptr(), 1) } {
            return true;
        }
        self.end();
        false
    }

    /// What came of it, if it is back: the number, without zeroes in front, or the device's status.
    pub(in crate::dpdk) fn answer(&mut self, access: &Access<'_>) -> Option<Result<Octets, u32>> {
        if !self.is_out() || access.pair != self.pair {
            return None;
        }
        let mut ops = [std::ptr::null_mut()];
        // SAFETY: there is room for one; we are in the pair, and the only ones.
        if 1 != unsafe { dpdk::td_dequeue(self.engine.dev, self.pair, ops.as_mut_ptr(), 1) } {
            return None;
        }
        // SAFETY: the request is back.
        let status = unsafe { dpdk::td_status(self.slot.op) };
        let len = match self.kind {
            // SAFETY: as above, and it was one of this kind.
            Kind::Power => unsafe { dpdk::td_power_len(self.slot.op) },
            // SAFETY: as above.
            Kind::Signature => unsafe { dpdk::td_sign_len(self.slot.op) },
        };
        let len = usize::from(len).min(NUMBER);
        let answer = match ended(status) {
            Ended::Good => Ok(Octets::new(self.memory()[RESULT..RESULT + len].to_vec())),
            _ => Err(status as u32),
        };
        self.end();
        Some(answer)
    }

    /// The request is ours again, because it is back or because the device has been halted; nothing of it is left.
    pub(in crate::dpdk) fn end(&mut self) {
        if let Some(session) = self.session.take() {
            // SAFETY: owned, and in use by no request any more.
            unsafe { dpdk::rte_cryptodev_asym_session_free(self.engine.dev, session.as_ptr()) };
        }
        self.memory().zeroize();
    }
}

impl Drop for NumberLane {
    fn drop(&mut self) {
        self.end();
        // SAFETY: it came from this pool, and is not with the device: whoever drops a lane has waited for that, or halted it.
        unsafe { dpdk::td_give_slots(self.requests.0.as_ptr(), std::ptr::null_mut(), &mut self.slot, 1) };
        // SAFETY: memory of DPDK's, which nobody else has.
        unsafe { dpdk::rte_free(self.memory.as_ptr().cast()) };
        self.engine.give_pair(self.pair);
    }
}
