//! A queue for operations. A software device works while it takes a request, so requests are given from a helper thread, which also
//! waits for cards: each queue has one, with a queue pair of its own and one request out at a time.
//!
//! Everything is made of powers: a key exchange is one, and so is opening a signature. A session holds the numbers and a device keeps
//! working state in it, so each request has a session of its own.

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use spi::offthread::OffThread;
use spi::{
    Caps, Closed, Completions, CryptoDone, CryptoJob, CryptoOp, CryptoOutput, CryptoQueue, DhPrivate, Fault,
    FaultKind, Group, Outcome, Polled, Queue, QueueConfig, Secret, SignScheme, Token,
};

use super::Octets;
use super::driver::PLACES;
use super::eal;
use super::life::Life;
use super::sys::{NumberLane, RsaParts};
use crate::der::{self, PublicKey};
use crate::gate::Phase;
use crate::keys::{Kind, PrivateKey, Rsa};
use crate::view::{View, now_ns};
use crate::work::{BAD_INPUT, BAD_SIGNATURE, INTERNAL, UNSUPPORTED, dh, padding, rsa};

/// How long one request may take. Devices that take longer are found ill by whoever watches over them, and reset.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks at a card.
const PAUSE: Duration = Duration::from_micros(20);

const ABORTED: Outcome = Outcome::Failed(Fault::new(FaultKind::Aborted));
const STALE: Outcome = Outcome::Failed(Fault::new(FaultKind::StaleHandle));

/// A job, the life of the device in which it was submitted, and when.
type Stamped = (u32, u64, CryptoJob);

/// A queue for operations; `None` when no queue pair is left, no memory, or no thread.
pub(super) fn open(life: &Arc<Life>, caps: &Caps, config: QueueConfig) -> Option<Box<CryptoQueue>> {
    let engine = Arc::clone(life.numbers.as_ref()?);
    let lane = eal::call(move || NumberLane::open(&engine))?;
    let lane = lane
        .inspect_err(|why| tracing::warn!(device = %life.name, why, "dpdk: no queue for operations"))
        .ok()?;
    let view = life.new_view(format!("operations on queue pair {}", lane.pair()));
    let depth = config.depth.clamp(1, PLACES as usize);
    let (epoch, _) = life.gate.look();
    let worker = Worker { life: Arc::clone(life), lane: Some(lane), caps: caps.clone(), epoch };
    let queue = OffThread::new(depth, vec![worker], |worker: &mut Worker, job| worker.run(job)).ok()?;
    Some(Box::new(Numbers { life: Arc::clone(life), queue, view, stamped: VecDeque::new() }))
}

struct Numbers {
    life: Arc<Life>,
    queue: OffThread<Stamped, (u64, CryptoDone)>,
    view: Arc<View>,
    /// Kept so that submit allocates nothing.
    stamped: VecDeque<Stamped>,
}

impl Queue for Numbers {
    type Job = CryptoJob;
    type Done = CryptoDone;

    fn submit(&mut self, jobs: &mut VecDeque<CryptoJob>) -> Result<usize, Closed> {
        let (epoch, phase) = self.life.gate.look();
        if phase != Phase::Open {
            return Err(Closed);
        }
        let (count, since) = (self.queue.room().min(jobs.len()), now_ns());
        self.stamped.extend(jobs.drain(..count).map(|job| (epoch, since, job)));
        let taken = self.queue.submit(&mut self.stamped)?;
        self.view.set_in_flight(self.queue.in_flight());
        Ok(taken)
    }

    fn poll(&mut self, budget: usize, to: &mut dyn Completions<CryptoDone>) -> Polled {
        let (view, now) = (&self.view, now_ns());
        let polled = self.queue.poll(budget, &mut |(since, done): (u64, CryptoDone)| {
            view.delivered(since, now);
            to.on_done(done);
        });
        self.view.set_in_flight(self.queue.in_flight());
        polled
    }

    fn room(&self) -> usize {
        match self.life.gate.look() {
            (_, Phase::Open) => self.queue.room(),
            _ => 0,
        }
    }

    fn in_flight(&self) -> usize {
        self.queue.in_flight()
    }

    fn doorbell(&self) -> Option<BorrowedFd<'_>> {
        self.queue.doorbell()
    }
}

/// What the helper thread has.
struct Worker {
    life: Arc<Life>,
    /// Always there until the queue is dropped.
    lane: Option<NumberLane>,
    caps: Caps,
    /// The life of the device in which what is out was submitted.
    epoch: u32,
}

impl Worker {
    fn run(&mut self, (epoch, since, CryptoJob { token, op }): Stamped) -> (u64, CryptoDone) {
        let done = |token: Token, outcome, output| (since, CryptoDone { token, outcome, output });
        let (now, _) = self.life.gate.look();
        if now != self.epoch {
            // The device was halted in between.
            self.lane.iter_mut().for_each(NumberLane::end);
            self.epoch = now;
        }
        let result = if epoch == now { self.carry_out(op) } else { Err(ABORTED) };
        self.life.counters.operations.add(1);
        match result {
            // What was worked out before a reset is as good as any.
            Ok(output) => done(token, Outcome::Done, output),
            Err(outcome) => {
                match outcome {
                    ABORTED => self.life.counters.aborted.add(1),
                    Outcome::Failed(fault) if fault.kind == FaultKind::Internal => {
                        self.life.counters.errors.add(1);
                    }
                    _ => {}
                }
                done(token, outcome, CryptoOutput::None)
            }
        }
    }

    fn carry_out(&mut self, op: CryptoOp) -> Result<CryptoOutput, Outcome> {
        match op {
            CryptoOp::DhGenerate { group } | CryptoOp::DhDerive { group, .. }
                if !self.caps.dh.contains(&group) =>
            {
                Err(UNSUPPORTED)
            }
            CryptoOp::DhGenerate { group } => {
                let private = dh::random(dh::exponent_len(group))?;
                let public = self.modp(group, &[2], &private)?;
                Ok(CryptoOutput::DhPair(DhPrivate::Bytes(Secret::from_slice(&private)), public.to_vec()))
            }
            CryptoOp::DhDerive { group, ours: DhPrivate::Bytes(ours), theirs } => {
                let prime = dh::prime(group).ok_or(INTERNAL)?;
                if !dh::is_usable(&theirs, prime) {
                    return Err(BAD_INPUT);
                }
                if ours.is_empty() || ours.len() > prime.len() {
                    return Err(INTERNAL);
                }
                Ok(CryptoOutput::Secret(Secret::from_slice(&self.modp(group, &theirs, ours.expose())?)))
            }
            // No handle of a private half was ever given out here.
            CryptoOp::DhDerive { .. } => Err(STALE),
            CryptoOp::Sign { key, scheme, octets } => {
                let key = self.life.keys().find(key.index, key.epoch).cloned().ok_or(STALE)?;
                self.sign(&key, scheme, &octets)
            }
            CryptoOp::Verify { scheme, .. } if !self.caps.verify.contains(&scheme) => Err(UNSUPPORTED),
            CryptoOp::Verify { spki, scheme, octets, signature } => {
                let key = der::public_key(&spki).ok_or(BAD_INPUT)?;
                self.verify(key, scheme, &octets, &signature)
            }
            _ => Err(UNSUPPORTED),
        }
    }

    /// A power in a group, at full length (RFC 7296 section 2.14).
    fn modp(&mut self, group: Group, base: &[u8], exponent: &[u8]) -> Result<Octets, Outcome> {
        let prime = dh::prime(group).ok_or(INTERNAL)?;
        let power = self.power(base, exponent, prime)?;
        if !crate::curve::is_in_range(&power, prime) {
            self.life.counters.wrong.add(1);
            return Err(INTERNAL);
        }
        Ok(power)
    }

    /// `base ^ exponent mod modulus`, as long as the modulus.
    fn power(&mut self, base: &[u8], exponent: &[u8], modulus: &[u8]) -> Result<Octets, Outcome> {
        let power = self.ask(|lane, access| lane.ask_power(access, base, exponent, modulus))?;
        let front = modulus.len().checked_sub(power.len()).ok_or(INTERNAL)?;
        let mut whole = Octets::new(vec![0; modulus.len()]);
        whole[front..].copy_from_slice(&power);
        Ok(whole)
    }

    /// Puts a request and waits for what comes of it. On the helper thread, where waiting keeps nobody.
    fn ask(
        &mut self,
        ask: impl FnOnce(&mut NumberLane, &super::sys::Access<'_>) -> bool,
    ) -> Result<Octets, Outcome> {
        let (life, epoch) = (&self.life, self.epoch);
        let (Some(lane), Some(engine)) = (&mut self.lane, &life.numbers) else { return Err(INTERNAL) };
        if lane.is_out() {
            // The one before has not come back. Only a reset helps.
            return Err(INTERNAL);
        }
        let is_over = || life.gate.look().0 != epoch || life.gate.look().1 == Phase::Quiet;
        match engine.enter(lane.pair()) {
            Some(access) if !is_over() => {
                if !ask(lane, &access) {
                    return Err(INTERNAL);
                }
            }
            _ => return Err(ABORTED),
        }
        let until = Instant::now() + PATIENCE;
        loop {
            if is_over() {
                lane.end();
                return Err(ABORTED);
            }
            let answer = engine.enter(lane.pair()).and_then(|access| lane.answer(&access));
            match answer {
                Some(Ok(number)) => return Ok(number),
                Some(Err(status)) => {
                    return Err(Outcome::Failed(Fault { kind: FaultKind::Internal, vendor: status }));
                }
                None if Instant::now() > until => return Err(INTERNAL),
                None => std::thread::sleep(PAUSE),
            }
        }
    }

    fn sign(&mut self, key: &PrivateKey, scheme: SignScheme, octets: &[u8]) -> Result<CryptoOutput, Outcome> {
        let Kind::Rsa(numbers) = &key.kind else { return Err(UNSUPPORTED) };
        let len = numbers.n.len();
        let padded = match scheme {
            SignScheme::RsaPkcs1(hash) if key.schemes().contains(&scheme) => {
                padding::pkcs1(hash, octets, len)?
            }
            SignScheme::RsaPss(hash) if key.schemes().contains(&scheme) => {
                padding::pss(hash, octets, 8 * len)?
            }
            _ => return Err(UNSUPPORTED),
        };
        let signature = self.raw_signature(numbers, &padded)?;
        // A fault of the device gives a signature from which anybody can work out the key; see `work::rsa`.
        match rsa::opens_to(numbers, &signature, &padded) {
            Some(true) => Ok(CryptoOutput::Signature(signature.to_vec())),
            Some(false) => {
                self.life.counters.wrong.add(1);
                Err(INTERNAL)
            }
            None => Err(INTERNAL),
        }
    }

    fn raw_signature(&mut self, key: &Rsa, padded: &[u8]) -> Result<Octets, Outcome> {
        let len = key.n.len();
        let with_parts =
            self.life.numbers.as_ref().is_some_and(|engine| engine.does_rsa(len, true)).then_some(&key.crt);
        let parts: Vec<&[u8]> = match with_parts.into_iter().flatten().next() {
            Some(parts) => parts.iter().map(Secret::expose).collect(),
            None => vec![key.d.expose()],
        };
        let zeroes = key.e.iter().take_while(|octet| **octet == 0).count();
        let rsa = RsaParts { n: &key.n, e: key.e.get(zeroes..).unwrap_or_default(), parts: &parts };
        let signature = self.ask(|lane, access| lane.ask_signature(access, padded, &rsa))?;
        if signature.len() > len {
            return Err(INTERNAL);
        }
        let mut whole = Octets::new(vec![0; len]);
        whole[len - signature.len()..].copy_from_slice(&signature);
        Ok(whole)
    }

    fn verify(
        &mut self,
        key: PublicKey,
        scheme: SignScheme,
        octets: &[u8],
        signature: &[u8],
    ) -> Result<CryptoOutput, Outcome> {
        let PublicKey::Rsa { n, e } = key else { return Err(BAD_INPUT) };
        let bits = rsa::is_believed(&n, &e).ok_or(BAD_INPUT)?;
        // RFC 8017 sections 8.1.2 and 8.2.2: as long as the modulus, and below it.
        if signature.len() != n.len() || *signature >= *n {
            return Err(BAD_SIGNATURE);
        }
        let opened = self.power(signature, &e, &n)?;
        let good = match scheme {
            SignScheme::RsaPkcs1(hash) => {
                let expected = padding::pkcs1(hash, octets, n.len()).map_err(|_| BAD_SIGNATURE)?;
                *expected == **opened
            }
            _ => padding::is_pss(scheme.hash(), octets, bits, &opened)?,
        };
        if good { Ok(CryptoOutput::None) } else { Err(BAD_SIGNATURE) }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let (epoch, phase) = self.life.gate.look();
        if epoch != self.epoch || phase == Phase::Quiet {
            self.lane.iter_mut().for_each(NumberLane::end);
        }
        if let Some(lane) = self.lane.take_if(|lane| lane.is_out()) {
            tracing::warn!(device = %self.life.name, "dpdk: a queue is dropped and the device keeps its operation");
            self.life.adopt(Box::new(lane));
        }
    }
}
