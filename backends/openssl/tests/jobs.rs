//! Paused jobs: many at a time on one thread, and everything that a provider can do to them.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ossl::Config;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use spi::{
    CryptoDone, CryptoJob, CryptoOp, CryptoOutput, CryptoQueue, Device, Direction, Encr, EspBurst, EspOp,
    EspQueue, FaultKind, Group, Health, Integ, Outcome, Pool, Queue, QueueConfig, Reject, SaId, SaParams,
    Secret, Token,
};
use support::{Ops, counter, device, pausing};

/// Longest time for anything here.
const LIMIT: Duration = Duration::from_secs(20);

fn config(depth: usize) -> QueueConfig {
    QueueConfig { depth, ..QueueConfig::default() }
}

/// A provider so slow that a busy machine is done with its part long before; nobody is impatient with it.
fn slow() -> Config {
    let mut config = pausing("1s", "");
    config.patience = Duration::from_secs(30);
    config
}

fn install(device: &dyn Device, encr: Encr, integ: Integ, dir: Direction) -> SaId {
    let (info, integ_info) = (encr.info().unwrap(), integ.info().unwrap());
    let params = SaParams {
        spi: 0x5001,
        dir,
        encr,
        integ,
        encr_key: Secret::new(vec![1; info.key_len + info.salt_len]),
        integ_key: Secret::new(vec![2; integ_info.key_len]),
        esn: true,
    };
    device.install_sa(&params).unwrap()
}

/// Sleeps on the doorbell and polls until `count` have come back, or nothing does within the limit.
fn collect<J, D>(queue: &mut dyn Queue<Job = J, Done = D>, count: usize) -> Vec<D> {
    let (start, mut all) = (Instant::now(), Vec::new());
    while all.len() < count {
        assert!(start.elapsed() < LIMIT, "{} of {count} came back", all.len());
        {
            let bell = queue.doorbell().unwrap();
            let mut fds = [PollFd::new(&bell, PollFlags::IN)];
            poll(&mut fds, Some(&Timespec { tv_sec: 20, tv_nsec: 0 })).unwrap();
        }
        queue.poll(64, &mut |done| all.push(done));
    }
    all
}

/// Submits so many operations and has them started.
fn operations(queue: &mut CryptoQueue, group: Group, count: u64) -> Vec<CryptoDone> {
    let op = |token| CryptoJob { token: Token(token), op: CryptoOp::DhGenerate { group } };
    let mut jobs: VecDeque<_> = (1..=count).map(op).collect();
    assert_eq!(queue.submit(&mut jobs), Ok(count as usize));
    // On a machine that is busy the provider may be done before its job has come to pause.
    let mut early = Vec::new();
    queue.poll(64, &mut |done| early.push(done));
    early
}

/// Submits so many and collects them all.
fn run(queue: &mut CryptoQueue, group: Group, count: u64) -> Vec<CryptoDone> {
    let mut all = operations(queue, group, count);
    all.extend(collect(queue, count as usize - all.len()));
    all
}

fn packets(queue: &mut EspQueue, pool: &Pool, sa: SaId, bursts: u64, each: u32) {
    let mut jobs = VecDeque::new();
    for token in 1..=bursts {
        let mut buf = pool.take().unwrap();
        for n in 0..each {
            let seq = token * 100 + u64::from(n);
            buf.bytes_mut()[n as usize * 256..][..256].fill(0x11);
            buf.push_op(EspOp::new(n * 256, 64, seq)).unwrap();
        }
        jobs.push_back(EspBurst { token: Token(token), sa, dir: Direction::Seal, buf });
    }
    assert_eq!(queue.submit(&mut jobs), Ok(bursts as usize));
}

fn tokens(all: &[CryptoDone]) -> HashSet<Token> {
    all.iter().map(|done| done.token).collect()
}

/// The claim of the whole thing: what one thread starts while the first is still out is bounded by room and not by time.
#[test]
fn one_thread_has_hundreds_of_operations_paused_at_once() {
    let device = device(&slow());
    let mut queue = device.crypto_queue(config(400)).unwrap();
    assert!(operations(&mut *queue, Group::X25519, 400).is_empty());
    assert_eq!(queue.in_flight(), 400);
    let most = counter(&*device, "most-paused");
    assert!(most >= 200, "only {most} were paused at once");
    let all = collect(&mut *queue, 400);
    assert_eq!(tokens(&all).len(), 400);
    assert!(all.iter().all(|done| done.outcome == Outcome::Done));
    assert_eq!(queue.in_flight(), 0);
}

#[test]
fn one_thread_has_hundreds_of_packets_paused_at_once() {
    let device = device(&slow());
    let sa = install(&*device, Encr::AES128_GCM16, Integ::NONE, Direction::Seal);
    let mut queue = device.esp_queue(config(32)).unwrap();
    let pool = Pool::new(4096, 32).unwrap();
    packets(&mut *queue, &pool, sa, 32, 10);
    queue.poll(64, &mut |_: EspBurst| panic!("nothing is done so soon"));
    let most = counter(&*device, "most-paused");
    assert!(most >= 200, "only {most} were paused at once");
    let all = collect(&mut *queue, 32);
    for burst in &all {
        assert!(burst.buf.ops().iter().all(|op| op.outcome == Outcome::Done));
    }
    drop(all);
    assert_eq!(pool.available(), 32);
}

/// A packet with a cipher and a check value of its own pauses twice.
#[test]
fn a_job_may_pause_more_than_once() {
    let device = device(&pausing("1ms", ""));
    let sa = install(&*device, Encr::AES256_CBC, Integ::HMAC_SHA2_256_128, Direction::Seal);
    let mut queue = device.esp_queue(config(4)).unwrap();
    let pool = Pool::new(4096, 4).unwrap();
    packets(&mut *queue, &pool, sa, 4, 8);
    let all = collect(&mut *queue, 4);
    assert!(all.iter().flat_map(|burst| burst.buf.ops()).all(|op| op.outcome == Outcome::Done));
    assert_eq!(counter(&*device, "paused"), 32, "each is paused, and goes on twice");
}

/// What is more than may be paused waits, and all come back.
#[test]
fn no_more_are_paused_than_may_be() {
    let mut config = pausing("2ms", "");
    config.jobs = 10;
    let device = device(&config);
    let mut queue = device.crypto_queue(self::config(100)).unwrap();
    assert_eq!(tokens(&run(&mut *queue, Group::ECP256, 100)).len(), 100);
    assert_eq!(counter(&*device, "most-paused"), 10);
}

#[test]
fn late_completions_are_waited_for_and_doubled_ones_do_no_harm() {
    for fault in [
        "kind = \"delay\"\nby = \"50ms\"\nprobability = 0.3",
        "kind = \"doubled-completion\"\ntimes = \"always\"",
        "kind = \"slow\"\nfactor = 20.0\nfor = \"100ms\"\nafter = 20",
        "kind = \"silence\"\nfor = \"100ms\"\nafter = 20",
    ] {
        let device = device(&pausing("1ms", &format!("[[fault]]\n{fault}\n")));
        let mut queue = device.crypto_queue(config(50)).unwrap();
        // Several rounds: what rings for the second time rings into the next job at the same descriptor.
        for _ in 0..6 {
            let all = run(&mut *queue, Group::X25519, 50);
            assert_eq!(tokens(&all).len(), 50, "{fault}");
            assert!(all.iter().all(|done| done.outcome == Outcome::Done), "{fault}");
        }
        assert_eq!(device.stats().unwrap().resets, 0, "{fault}");
    }
}

#[test]
fn a_provider_that_fails_fails_its_own_jobs_only() {
    let device = device(&pausing(
        "1ms",
        "[[fault]]\nkind = \"engine-error\"\nservice = \"key\"\nafter = 5\ntimes = 3\n",
    ));
    let mut queue = device.crypto_queue(config(50)).unwrap();
    let all = run(&mut *queue, Group::X25519, 50);
    let failed =
        all.iter().filter(|done| done.outcome == Outcome::Failed(FaultKind::Internal.into())).count();
    let done = all.iter().filter(|done| matches!(done.output, CryptoOutput::DhPair(..))).count();
    assert_eq!((failed, done), (3, 47));
    assert_eq!(counter(&*device, "refused"), 3);
}

#[test]
fn a_wrong_check_value_is_noticed_when_the_packet_is_opened() {
    let plan = "[[fault]]\nkind = \"flip-bit\"\nservice = \"packet\"\nafter = 2\n";
    let device = device(&pausing("1ms", plan));
    for (encr, integ) in [(Encr::AES128_GCM16, Integ::NONE), (Encr::CHACHA20_POLY1305, Integ::NONE)] {
        let (seal, open) =
            [Direction::Seal, Direction::Open].map(|dir| install(&*device, encr, integ, dir)).into();
        let mut queue = device.esp_queue(config(1)).unwrap();
        let pool = Pool::new(4096, 1).unwrap();
        packets(&mut *queue, &pool, seal, 1, 4);
        let mut burst = collect(&mut *queue, 1).pop().unwrap();
        burst.buf.ops_mut().iter_mut().for_each(|op| op.outcome = Outcome::Pending);
        (burst.sa, burst.dir) = (open, Direction::Open);
        queue.submit(&mut VecDeque::from([burst])).unwrap();
        let burst = collect(&mut *queue, 1).pop().unwrap();
        let bad = burst.buf.ops().iter().filter(|op| op.outcome == Outcome::Rejected(Reject::BadIcv)).count();
        // The fault strikes once in the life of the provider.
        assert_eq!(bad, usize::from(encr == Encr::AES128_GCM16), "{encr}");
    }
}

/// A wake that never comes: the device notices by itself, what is out comes back as aborted, and the device goes on.
#[test]
fn a_lost_wake_is_noticed_and_hangs_nobody() {
    let mut settings = pausing("1ms", "[[fault]]\nkind = \"lost-completion\"\nafter = 7\n");
    settings.patience = Duration::from_millis(300);
    let device = device(&settings);
    let mut queue = device.crypto_queue(config(20)).unwrap();
    let all = run(&mut *queue, Group::X25519, 20);
    let aborted: Vec<_> =
        all.iter().filter(|done| done.outcome == Outcome::Failed(FaultKind::Aborted.into())).collect();
    // On a machine that is busy others may have been out, too, when the device was reset.
    assert!(tokens(&all).len() == 20 && !aborted.is_empty(), "{} aborted", aborted.len());
    assert_eq!(counter(&*device, "overdue"), 1);
    assert!(counter(&*device, "abandoned") >= 1);
    assert_eq!((device.health(), device.stats().unwrap().resets), (Health::Ready, 1));
    assert!(Ops::new(&*device).run(CryptoOp::DhGenerate { group: Group::X25519 }).is_ok());
}

/// When that happens again and again the device has failed, says so, and takes nothing more; a reset gives it another chance.
#[test]
fn a_device_that_loses_wakes_again_and_again_has_failed() {
    let mut settings = pausing("1ms", "[[fault]]\nkind = \"lost-completion\"\ntimes = 4\n");
    settings.patience = Duration::from_millis(150);
    let device = device(&settings);
    let mut queue = device.crypto_queue(config(8)).unwrap();
    for round in 1..=4 {
        assert_eq!(device.health(), Health::Ready, "round {round}");
        let all = run(&mut *queue, Group::X25519, 1);
        assert_eq!(all[0].outcome, Outcome::Failed(FaultKind::Aborted.into()));
    }
    assert_eq!(device.health(), Health::Failed);
    let mut jobs = VecDeque::from([CryptoJob { token: Token(9), op: CryptoOp::Random { len: 8 } }]);
    assert!(queue.submit(&mut jobs).is_err() && jobs.len() == 1);
    device.begin_reset();
    assert_eq!(device.health(), Health::Ready);
    assert_eq!(queue.submit(&mut jobs), Ok(1));
    assert_eq!(collect(&mut *queue, 1)[0].outcome, Outcome::Done);
}

/// Paused jobs come back at once when their device is reset, long before their provider wakes them; and when it does, what they
/// still held is given back.
#[test]
fn a_reset_brings_paused_jobs_back_at_once_and_their_orphans_end_by_themselves() {
    let device = device(&slow());
    let sa = install(&*device, Encr::AES128_GCM16, Integ::NONE, Direction::Seal);
    let mut queue = device.esp_queue(config(16)).unwrap();
    let pool = Pool::new(4096, 16).unwrap();
    packets(&mut *queue, &pool, sa, 16, 8);
    queue.poll(64, &mut |_: EspBurst| panic!("nothing is done so soon"));
    let start = Instant::now();
    device.begin_reset();
    let all = collect(&mut *queue, 16);
    assert!(
        start.elapsed() < Duration::from_millis(390),
        "they came when the provider was done, and not before"
    );
    for op in all.iter().flat_map(|burst| burst.buf.ops()) {
        assert_eq!(op.outcome, Outcome::Failed(FaultKind::Aborted.into()));
    }
    drop(all);
    assert_eq!(pool.available(), 16);
    assert_eq!(counter(&*device, "abandoned"), 128);
    // While they are waited for by nobody, others go on.
    let sa = install(&*device, Encr::AES128_GCM16, Integ::NONE, Direction::Seal);
    packets(&mut *queue, &pool, sa, 4, 4);
    let all = collect(&mut *queue, 4);
    assert!(all.iter().flat_map(|burst| burst.buf.ops()).all(|op| op.outcome == Outcome::Done));
    let start = Instant::now();
    while counter(&*device, "orphans") >= 128 {
        assert!(start.elapsed() < LIMIT, "orphans are left");
        queue.poll(1, &mut |_: EspBurst| panic!("nothing is out"));
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A worker has the doorbell in a set of its own, sleeps on that, and asks only then.
#[test]
fn a_worker_that_sleeps_on_a_set_with_the_doorbell_in_it_is_woken() {
    use rustix::event::epoll;
    let device = device(&pausing("300us", ""));
    let sa = install(&*device, Encr::AES128_GCM16, Integ::NONE, Direction::Seal);
    let mut queue = device.esp_queue(config(32)).unwrap();
    let pool = Pool::new(4096, 32).unwrap();
    let set = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
    epoll::add(&set, queue.doorbell().unwrap(), epoll::EventData::new_u64(1), epoll::EventFlags::IN).unwrap();
    let mut late = Vec::new();
    for round in 0..2000 {
        packets(&mut *queue, &pool, sa, 1, 1);
        let (mut back, start) = (0, Instant::now());
        let mut naps = 0;
        loop {
            queue.poll(64, &mut |_: EspBurst| back += 1);
            if back == 1 {
                break;
            }
            let mut events = Vec::with_capacity(8);
            let limit = Timespec { tv_sec: 1, tv_nsec: 0 };
            epoll::wait(&set, rustix::buffer::spare_capacity(&mut events), Some(&limit)).unwrap();
            naps += usize::from(events.is_empty());
        }
        if naps > 0 {
            late.push((round, start.elapsed()));
        }
    }
    assert!(late.is_empty(), "slept through: {late:?}");
}

/// Nobody asks a queue that has nothing out, so its bell must not ring on: not for orphans that wake, and not for resets.
#[test]
fn a_queue_with_nothing_out_is_silent() {
    let device = device(&pausing("50ms", ""));
    let mut queue = device.crypto_queue(config(8)).unwrap();
    assert!(operations(&mut *queue, Group::X25519, 8).is_empty());
    device.begin_reset();
    assert_eq!(collect(&mut *queue, 8).len(), 8);
    device.begin_reset();
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(200) {
        let bell = queue.doorbell().unwrap();
        let mut fds = [PollFd::new(&bell, PollFlags::IN)];
        assert_eq!(poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 1_000_000 })), Ok(0), "it rings");
    }
    let all = run(&mut *queue, Group::X25519, 8);
    assert!(all.iter().all(|done| done.outcome == Outcome::Done));
}

/// A queue that is dropped gives its buffers back whatever its provider does, and takes no longer than a bounded time.
#[test]
fn a_dropped_queue_does_not_wait_for_a_wake_that_never_comes() {
    let device = device(&pausing("1ms", "[[fault]]\nkind = \"silence\"\n"));
    let sa = install(&*device, Encr::AES128_GCM16, Integ::NONE, Direction::Seal);
    let mut queue = device.esp_queue(config(4)).unwrap();
    let pool = Pool::new(4096, 4).unwrap();
    packets(&mut *queue, &pool, sa, 4, 4);
    queue.poll(64, &mut |_: EspBurst| panic!("nothing is done so soon"));
    assert_eq!(pool.available(), 0);
    let start = Instant::now();
    drop(queue);
    assert!(start.elapsed() < LIMIT);
    assert_eq!(pool.available(), 4);
    assert!(counter(&*device, "orphans") >= 16, "they are known to be there");
}

/// A job belongs to the thread that started it. Elsewhere it is not gone on with, and comes back as aborted; nothing is torn.
#[test]
fn a_queue_that_changes_its_thread_with_paused_jobs_gives_them_back_as_aborted() {
    let device = device(&pausing("300ms", ""));
    let mut queue = device.crypto_queue(config(8)).unwrap();
    assert!(operations(&mut *queue, Group::X25519, 8).is_empty());
    let elsewhere = std::thread::spawn(move || {
        let all = collect(&mut *queue, 8);
        assert!(all.iter().all(|done| done.outcome == Outcome::Failed(FaultKind::Aborted.into())));
        // New ones are this thread's.
        let all = run(&mut *queue, Group::X25519, 8);
        all.iter().filter(|done| done.outcome == Outcome::Done).count()
    });
    assert_eq!(elsewhere.join().unwrap(), 8);
}

/// Several threads, each with its own queues on one device, and resets in between.
#[test]
fn threads_with_full_rings_survive_resets() {
    let device = device(&pausing("200us", "[[fault]]\nkind = \"delay\"\nby = \"3ms\"\nprobability = 0.1\n"));
    let work = |device: Arc<dyn Device>, seed: u64| {
        let mut queue = device.crypto_queue(config(64)).unwrap();
        let (mut out, mut back, mut next) = (HashSet::new(), 0, seed << 32);
        let start = Instant::now();
        while back < 2000 {
            assert!(start.elapsed() < LIMIT * 3, "{back} came back");
            let mut jobs = VecDeque::new();
            for _ in 0..queue.room() {
                next += 1;
                out.insert(Token(next));
                let group = if next % 3 == 0 { Group::ECP256 } else { Group::X25519 };
                jobs.push_back(CryptoJob { token: Token(next), op: CryptoOp::DhGenerate { group } });
            }
            queue.submit(&mut jobs).unwrap();
            assert!(jobs.is_empty());
            queue.poll(64, &mut |done: CryptoDone| {
                assert!(out.remove(&done.token), "{:?} came twice", done.token);
                let aborted = done.outcome == Outcome::Failed(FaultKind::Aborted.into());
                assert!(aborted || done.outcome == Outcome::Done, "{:?}", done.outcome);
                back += 1;
            });
        }
        for done in collect(&mut *queue, out.len()) {
            assert!(out.remove(&done.token));
        }
        assert!(out.is_empty() && queue.in_flight() == 0);
    };
    let threads: Vec<_> = (1..=3)
        .map(|seed| {
            let device = Arc::clone(&device);
            std::thread::spawn(move || work(device, seed))
        })
        .collect();
    for _ in 0..10 {
        std::thread::sleep(Duration::from_millis(20));
        device.begin_reset();
    }
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn memory_is_flat_over_many_jobs() {
    let device = device(&pausing("20us", ""));
    let mut queue = device.crypto_queue(config(64)).unwrap();
    let mut round = || {
        let op = |token| CryptoJob { token: Token(token), op: CryptoOp::Random { len: 32 } };
        let mut jobs: VecDeque<_> = (1..=32).map(op).collect();
        jobs.extend((33..=64).map(|token| CryptoJob {
            token: Token(token),
            op: CryptoOp::DhGenerate { group: Group::X25519 },
        }));
        queue.submit(&mut jobs).unwrap();
        assert_eq!(collect(&mut *queue, 64).len(), 64);
    };
    let resident = || -> usize {
        let text = std::fs::read_to_string("/proc/self/statm").unwrap();
        text.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 4096
    };
    (0..100).for_each(|_| round());
    let before = resident();
    (0..600).for_each(|_| round());
    let grown = resident().saturating_sub(before);
    // Other tests run at the same time; a stack that is lost with each job would be a gigabyte.
    assert!(grown < 64 << 20, "{grown} octets more");
}

#[test]
fn what_is_configured_is_what_is_used() {
    let config: Config = pausing("1ms", "");
    let identity = device(&config).stats().unwrap().identity;
    assert!(
        identity.starts_with("OpenSSL ") && identity.contains("tussock pausing provider 0.1.0"),
        "{identity}"
    );
    assert!(identity.ends_with("properties provider=pausing"), "{identity}");
}
