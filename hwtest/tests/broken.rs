//! The checks can fail: each broken device here is caught by the check that is there for it.
#![allow(clippy::unwrap_used)]

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use hwtest::contract::*;
use hwtest::{Pace, SlowQueue, operation, packet};
use spi::alg::Group;
use spi::caps::{EspCap, Traits};
use spi::crypto::{KeyInfo, KeySource};
use spi::{
    Closed, Completions, CryptoDone, CryptoJob, CryptoOutput, CryptoQueue, Device, DeviceDesc, Driver, Encr,
    EspBurst, EspQueue, Fault, Health, Integ, KeyId, Outcome, Polled, Queue, QueueConfig, SaId, SaParams,
    ShortOps,
};

/// What is wrong with a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    None,
    LosesOne,
    InventsOne,
    IgnoresBudget,
    ShufflesAndDeclaresOrder,
    TakesMoreThanItSays,
    ReversesWhatIsLeft,
    PromisesTooMuch,
    SaysMoreForNothing,
    NeverRings,
    KeepsBuffers,
    ForgetsToReset,
    IgnoresRemoval,
    LeavesPending,
    WritesBeside,
    AcceptsBadIcv,
    DeclaresTooMuch,
    DeclaresTooLittle,
    AcceptsAnyPublicValue,
    AcceptsAnySignature,
    KeepsKeys,
}

#[derive(Clone, Copy)]
struct Broken(Flaw);

struct BrokenDevice {
    inner: Arc<dyn Device>,
    desc: DeviceDesc,
    flaw: Flaw,
}

/// Job and completion, as far as a flaw has to know them.
trait Kind {
    type Job: Send + 'static;
    type Done: Send + 'static;
    fn spoil(flaw: Flaw, done: &mut Self::Done);
    fn twin(done: &Self::Done) -> Option<Self::Done>;
}

struct Packets;
struct Operations;

impl Kind for Packets {
    type Job = EspBurst;
    type Done = EspBurst;

    fn spoil(flaw: Flaw, done: &mut EspBurst) {
        for op in done.buf.ops_mut() {
            match flaw {
                Flaw::LeavesPending => op.outcome = Outcome::Pending,
                Flaw::AcceptsBadIcv if op.outcome != Outcome::Done => op.outcome = Outcome::Done,
                _ => {}
            }
        }
        if flaw == Flaw::WritesBeside {
            *done.buf.bytes_mut().last_mut().unwrap() ^= 1;
        }
    }

    fn twin(_: &EspBurst) -> Option<EspBurst> {
        None
    }
}

impl Kind for Operations {
    type Job = CryptoJob;
    type Done = CryptoDone;

    fn spoil(flaw: Flaw, done: &mut CryptoDone) {
        match (flaw, done.outcome) {
            (Flaw::LeavesPending, _) => done.outcome = Outcome::Pending,
            (Flaw::AcceptsAnySignature, Outcome::Rejected(_)) => done.outcome = Outcome::Done,
            (Flaw::AcceptsAnyPublicValue, Outcome::Rejected(_)) => {
                done.outcome = Outcome::Done;
                done.output = CryptoOutput::Secret(spi::Secret::new(vec![0; 32]));
            }
            _ => {}
        }
    }

    fn twin(done: &CryptoDone) -> Option<CryptoDone> {
        Some(CryptoDone { token: done.token, outcome: done.outcome, output: CryptoOutput::None })
    }
}

struct BrokenQueue<K: Kind> {
    inner: Box<dyn Queue<Job = K::Job, Done = K::Done>>,
    silent: spi::Doorbell,
    flaw: Flaw,
    done_once: bool,
}

impl<K: Kind> BrokenQueue<K> {
    fn over(inner: Box<dyn Queue<Job = K::Job, Done = K::Done>>, flaw: Flaw) -> Box<Self> {
        let silent = spi::Doorbell::new().unwrap();
        Box::new(BrokenQueue { inner, silent, flaw, done_once: false })
    }
}

impl<K: Kind> Queue for BrokenQueue<K> {
    type Job = K::Job;
    type Done = K::Done;

    fn submit(&mut self, jobs: &mut VecDeque<K::Job>) -> Result<usize, Closed> {
        let taken = self.inner.submit(jobs)?;
        match self.flaw {
            Flaw::TakesMoreThanItSays => drop(jobs.pop_front()),
            Flaw::ReversesWhatIsLeft => jobs.make_contiguous().reverse(),
            _ => {}
        }
        Ok(taken)
    }

    fn poll(&mut self, budget: usize, to: &mut dyn Completions<K::Done>) -> Polled {
        let flaw = self.flaw;
        let inner_budget = if flaw == Flaw::IgnoresBudget { usize::MAX } else { budget };
        let once = &mut self.done_once;
        let mut delivered = 0;
        let mut polled = self.inner.poll(inner_budget, &mut |mut done| {
            K::spoil(flaw, &mut done);
            match flaw {
                Flaw::LosesOne if !std::mem::replace(once, true) => return,
                Flaw::InventsOne if !*once => {
                    if let Some(twin) = K::twin(&done) {
                        *once = true;
                        delivered += 1;
                        to.on_done(twin);
                    }
                }
                Flaw::KeepsBuffers => {
                    std::mem::forget(done);
                    return;
                }
                _ => {}
            }
            delivered += 1;
            to.on_done(done);
        });
        polled.delivered = delivered;
        polled.more |= flaw == Flaw::SaysMoreForNothing;
        polled
    }

    fn room(&self) -> usize {
        self.inner.room() + if self.flaw == Flaw::PromisesTooMuch { 3 } else { 0 }
    }

    fn in_flight(&self) -> usize {
        self.inner.in_flight()
    }

    fn doorbell(&self) -> Option<BorrowedFd<'_>> {
        match self.flaw {
            Flaw::NeverRings => Some(std::os::fd::AsFd::as_fd(&self.silent)),
            _ => self.inner.doorbell(),
        }
    }
}

impl Driver for Broken {
    fn name(&self) -> &'static str {
        "broken"
    }

    fn probe(&self) -> Vec<DeviceDesc> {
        soft::Soft::default().probe()
    }

    fn open(&self, desc: &DeviceDesc) -> Result<Arc<dyn Device>, Fault> {
        let inner = soft::Soft::default().open(desc)?;
        let mut desc = desc.clone();
        // A few transforms and groups will do, and take less time.
        desc.caps.esp.retain(|cap| cap.encr == Encr::AES128_GCM16);
        desc.caps.dh = vec![Group::X25519];
        match self.0 {
            Flaw::DeclaresTooMuch => {
                desc.caps.esp.push(EspCap { encr: Encr::AES128_CBC, integ: Integ::NONE, esn: false })
            }
            Flaw::DeclaresTooLittle => desc.caps.esp = vec![],
            _ => desc.caps.traits |= Traits::IN_ORDER | Traits::RECOVERS,
        }
        Ok(Arc::new(BrokenDevice { inner, desc, flaw: self.0 }))
    }
}

impl Device for BrokenDevice {
    fn desc(&self) -> &DeviceDesc {
        &self.desc
    }

    fn esp_queue(&self, config: QueueConfig) -> Option<Box<EspQueue>> {
        let inner = self.inner.esp_queue(config)?;
        Some(match self.flaw {
            Flaw::ShufflesAndDeclaresOrder => Box::new(SlowQueue::new(inner, Pace::new(1))),
            flaw => BrokenQueue::<Packets>::over(inner, flaw),
        })
    }

    fn crypto_queue(&self, config: QueueConfig) -> Option<Box<CryptoQueue>> {
        Some(BrokenQueue::<Operations>::over(self.inner.crypto_queue(config)?, self.flaw))
    }

    fn short_ops(&self) -> Option<Arc<dyn ShortOps>> {
        self.inner.short_ops()
    }

    fn install_sa(&self, sa: &SaParams) -> Result<SaId, Fault> {
        self.inner.install_sa(sa)
    }

    fn remove_sa(&self, sa: SaId) {
        if self.flaw != Flaw::IgnoresRemoval {
            self.inner.remove_sa(sa);
        }
    }

    fn open_key(&self, source: KeySource) -> Result<KeyInfo, Fault> {
        self.inner.open_key(source)
    }

    fn close_key(&self, key: KeyId) {
        if self.flaw != Flaw::KeepsKeys {
            self.inner.close_key(key);
        }
    }

    fn health(&self) -> Health {
        Health::Ready
    }

    fn begin_reset(&self) {
        if self.flaw != Flaw::ForgetsToReset {
            self.inner.begin_reset();
        }
    }
}

type Check = fn(&dyn Driver);

/// Whether a check panics over a device with this flaw.
fn caught(flaw: Flaw, check: Check) -> bool {
    catch_unwind(AssertUnwindSafe(|| check(&Broken(flaw)))).is_err()
}

#[test]
fn every_flaw_is_caught_by_the_check_that_is_there_for_it() {
    let cases: [(Flaw, Check); 20] = [
        (Flaw::LosesOne, every_job_comes_back_exactly_once),
        (Flaw::InventsOne, every_job_comes_back_exactly_once),
        (Flaw::LeavesPending, every_job_comes_back_exactly_once),
        (Flaw::IgnoresBudget, a_poll_delivers_no_more_than_its_budget),
        (Flaw::SaysMoreForNothing, more_is_the_truth),
        (Flaw::ShufflesAndDeclaresOrder, packets_come_in_order_where_that_is_declared),
        (Flaw::TakesMoreThanItSays, what_does_not_fit_stays_in_place),
        (Flaw::ReversesWhatIsLeft, what_does_not_fit_stays_in_place),
        (Flaw::PromisesTooMuch, room_is_a_promise),
        (Flaw::NeverRings, the_doorbell_rings_for_every_completion),
        (Flaw::KeepsBuffers, a_dropped_queue_gives_its_buffers_back),
        (Flaw::ForgetsToReset, a_reset_gives_everything_back_and_leaves_old_handles_stale),
        (Flaw::IgnoresRemoval, a_removed_sa_is_stale_and_its_place_is_safe),
        (Flaw::WritesBeside, packet::every_declared_transform_opens_what_it_sealed),
        (Flaw::AcceptsBadIcv, packet::a_changed_octet_spoils_its_own_packet_only),
        (Flaw::DeclaresTooMuch, packet::every_declared_transform_opens_what_it_sealed),
        (Flaw::DeclaresTooLittle, packet::undeclared_transforms_are_not_installed),
        (Flaw::AcceptsAnyPublicValue, operation::unusable_public_values_are_refused),
        (Flaw::AcceptsAnySignature, operation::every_declared_scheme_signs_and_verifies),
        (Flaw::KeepsKeys, operation::handles_of_keys_turn_stale),
    ];
    // The panics are wanted; their stories are not.
    std::panic::set_hook(Box::new(|_| ()));
    // Side by side, since some flaws show only after a deadline.
    let results: Vec<(Flaw, bool, bool)> = std::thread::scope(|scope| {
        let all: Vec<_> = cases
            .map(|(flaw, check)| scope.spawn(move || (flaw, caught(flaw, check), caught(Flaw::None, check))))
            .into();
        all.into_iter().map(|case| case.join().unwrap()).collect()
    });
    let _ = std::panic::take_hook();
    for (flaw, with, without) in results {
        assert!(with, "{flaw:?} was not caught");
        // This driver always declares less than the device below it can do.
        assert!(!without || flaw == Flaw::DeclaresTooLittle, "the check for {flaw:?} blames a sound device");
    }
}
