//! Each fault that an emulated card knows, under traffic: every job comes home once, nothing that is not so is believed, and the card
//! is well again afterwards, or has failed and says so.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use emu_qat::fault::{Fault, Kind, Plan};
use emu_qat::{Card, Options, Personality};
use qat::Config;
use spi::{Closed, Direction, Health, QueueConfig};
use support::traffic::{LIMIT, Traffic, hasty, params};
use support::{InProcess, patient};

const GENERATIONS: [Personality; 2] = [Personality::Vf4941, Personality::Vf37c9];
const SYM: usize = 0;
const ASYM: usize = 1;

fn options(faults: Vec<Fault>) -> Options {
    Options { plan: Plan { seed: 7, faults }, ..Options::default() }
}

/// Runs traffic into the fault and on for a while, once for each generation.
fn survive(fault: Fault, look: impl Fn(&Traffic, Personality)) {
    survive_with(&hasty(), fault, look);
}

fn survive_with(config: &Config, fault: Fault, look: impl Fn(&Traffic, Personality)) {
    for personality in GENERATIONS {
        let mut traffic = Traffic::new(personality, &options(vec![fault.clone()]), config);
        traffic.run_until("the fault", |traffic| traffic.card.counters().faults > 0);
        recover(&mut traffic);
        look(&traffic, personality);
    }
}

/// Until as much as before is done once more, on a card that is well.
fn recover(traffic: &mut Traffic) {
    // What the fault does may still be to come.
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(150) {
        traffic.round();
    }
    let (packets, operations) = (traffic.packet_tally.done, traffic.operation_tally.done);
    traffic.run_until("recovery", |traffic| {
        traffic.device.health() == Health::Ready
            && traffic.packet_tally.done > packets + 200
            && traffic.operation_tally.done > operations + 5
    });
    traffic.drain();
    for queue in traffic.device.stats().unwrap().queues {
        assert_eq!(queue.in_flight, 0, "{}", queue.name);
    }
}

fn sym(kind: Kind) -> Fault {
    Fault::new(kind).after(300).for_service(SYM)
}

fn asym(kind: Kind) -> Fault {
    Fault::new(kind).after(5).for_service(ASYM)
}

#[test]
fn what_is_late_or_overtaken_is_waited_for() {
    for kind in [
        Kind::Delay(Duration::from_millis(30)),
        Kind::Reorder(12),
        Kind::RingFull(Duration::from_millis(30)),
        Kind::Slow(20.0, Duration::from_millis(100)),
    ] {
        survive_with(&patient(), sym(kind.clone()).times(3), |traffic, personality| {
            let state = traffic.state();
            assert_eq!(traffic.counter("resets"), 0, "{kind:?} on {personality}: {state}");
            assert_eq!(traffic.packet_tally.aborted + traffic.packet_tally.failed, 0, "{state}");
        });
    }
}

#[test]
fn a_lost_completion_is_found_by_its_deadline() {
    for fault in [sym(Kind::LoseCompletion), asym(Kind::LoseCompletion)] {
        survive(fault, |traffic, personality| {
            let state = traffic.state();
            assert!(
                traffic.counter("stuck") >= 1 && traffic.counter("resets") >= 1,
                "{personality}: {state}"
            );
            assert!(traffic.counter("aborted") >= 1, "{personality}: {state}");
        });
    }
}

#[test]
fn a_doubled_completion_is_noticed_and_the_card_reset() {
    survive(sym(Kind::DoubleCompletion), |traffic, personality| {
        let state = traffic.state();
        let noticed = traffic.counter("doubled-responses") + traffic.counter("invented-responses");
        assert!(noticed >= 1 && traffic.counter("resets") >= 1, "{personality}: {state}");
    });
}

#[test]
fn a_wrong_cookie_is_never_believed_twice() {
    for fault in [sym(Kind::WrongCookie), asym(Kind::WrongCookie)] {
        survive(fault, |traffic, personality| {
            assert!(traffic.counter("resets") >= 1, "{personality}: {}", traffic.state());
        });
    }
}

#[test]
fn a_wrong_result_on_numbers_is_noticed() {
    survive(asym(Kind::FlipBit), |traffic, personality| {
        let state = traffic.state();
        assert!(traffic.counter("wrong-results") >= 1, "{personality}: {state}");
        assert!(traffic.counter("resets") >= 1, "{personality}: {state}");
    });
}

#[test]
fn an_engine_that_fails_fails_its_own_job() {
    survive(sym(Kind::EngineError), |traffic, personality| {
        let state = traffic.state();
        assert!(traffic.packet_tally.failed + traffic.packet_tally.aborted >= 1, "{personality}: {state}");
        assert!(traffic.counter("device-errors") >= 1, "{personality}: {state}");
    });
}

#[test]
fn an_uncorrectable_error_leads_to_a_reset() {
    survive(sym(Kind::Uncorrectable), |traffic, personality| {
        assert!(traffic.counter("resets") >= 1, "{personality}: {}", traffic.state());
        assert!(traffic.counter("notices") >= 1, "{personality}: {}", traffic.state());
    });
}

#[test]
fn a_restart_of_the_physical_function_is_agreed_to_and_survived() {
    let kind = Kind::Restart { grace: Duration::from_secs(5), away: Duration::from_millis(100) };
    survive(sym(kind), |traffic, personality| {
        let state = traffic.state();
        assert!(traffic.counter("resets") >= 1 && traffic.counter("notices") >= 1, "{personality}: {state}");
    });
}

#[test]
fn engines_that_stand_still_are_noticed() {
    survive(sym(Kind::Silence(None)), |traffic, personality| {
        assert!(traffic.counter("resets") >= 1, "{personality}: {}", traffic.state());
    });
}

#[test]
fn a_slow_reset_is_waited_for() {
    for personality in GENERATIONS {
        let slow = Fault::new(Kind::SlowReset(Duration::from_millis(400))).after(1);
        let options = options(vec![sym(Kind::LoseCompletion), slow]);
        let mut traffic = Traffic::new(personality, &options, &hasty());
        traffic.run_until("both faults", |traffic| traffic.card.counters().faults >= 2);
        recover(&mut traffic);
        assert_eq!(traffic.counter("resets"), 1, "{}", traffic.state());
    }
}

#[test]
fn an_idle_card_that_stands_still_is_noticed_before_a_packet_meets_it() {
    for personality in GENERATIONS {
        let mut traffic = Traffic::new(personality, &options(Vec::new()), &hasty());
        traffic.card.inject(Fault::new(Kind::Silence(None)));
        let start = Instant::now();
        while traffic.counter("resets") == 0 || traffic.device.health() != Health::Ready {
            assert!(start.elapsed() < LIMIT, "{}", traffic.state());
            std::thread::sleep(Duration::from_millis(1));
        }
        recover(&mut traffic);
    }
}

#[test]
fn a_card_that_is_pulled_out_fails_and_everything_comes_home() {
    for personality in GENERATIONS {
        let mut traffic = Traffic::new(personality, &options(vec![sym(Kind::Unplug)]), &hasty());
        traffic.run_until("failure", |traffic| traffic.device.health() == Health::Failed);
        traffic.drain();
        assert_eq!(traffic.packets.submit(&mut Default::default()), Err(Closed));
        assert_eq!(traffic.packets.room() + traffic.operations.room(), 0);
        let error = traffic.device.install_sa(&params(Direction::Seal)).unwrap_err();
        assert_eq!(error.kind, spi::FaultKind::Aborted);
        assert!(traffic.device.stats().unwrap().identity.contains("failed: "), "{}", traffic.state());
    }
}

#[test]
fn lost_and_needless_interrupts_keep_nobody_asleep_and_harm_nobody() {
    for personality in GENERATIONS {
        for kind in [Kind::LoseInterrupt, Kind::SpuriousInterrupt] {
            let options = options(vec![Fault::new(kind.clone()).always()]);
            let driver = support::Emulated { options, ..support::Emulated::new(personality) };
            hwtest::contract::the_doorbell_rings_for_every_completion(&driver);
        }
    }
}

#[test]
fn handles_of_before_a_reset_are_stale() {
    for personality in GENERATIONS {
        let mut traffic = Traffic::new(personality, &options(Vec::new()), &hasty());
        traffic.run_until("work", |traffic| traffic.packet_tally.done > 100);
        traffic.device.begin_reset();
        recover(&mut traffic);
        assert!(traffic.packet_tally.stale + traffic.packet_tally.aborted > 0, "{}", traffic.state());
    }
}

#[test]
fn a_mailbox_that_garbles_is_asked_again_and_one_that_refuses_is_named() {
    let attach = |personality, kind, times| {
        let options = options(vec![Fault::new(kind).times(times)]);
        let card = Card::running(personality, &options).unwrap();
        qat::attach("card", Arc::new(InProcess(card)), &hasty())
            .map(|_| ())
            .map_err(|error| error.to_string())
    };
    for personality in GENERATIONS {
        support::Emulated::new(personality);
        attach(personality, Kind::MailboxBadChecksum, 12).unwrap();
        let error = attach(personality, Kind::MailboxIncompatible, u64::MAX).unwrap_err();
        assert!(error.contains("version 5") && error.contains("update the host's kernel"), "{error}");
    }
}

#[test]
fn a_queue_that_is_dropped_under_a_dying_card_gives_its_buffers_back() {
    for personality in GENERATIONS {
        let mut traffic = Traffic::new(personality, &options(vec![sym(Kind::Silence(None))]), &hasty());
        traffic.run_until("the fault", |traffic| traffic.card.counters().faults > 0);
        traffic.round();
        assert!(traffic.packets.in_flight() > 0, "nothing is out");
        let queue = traffic.device.esp_queue(QueueConfig::default()).unwrap();
        drop(std::mem::replace(&mut traffic.packets, queue));
        let start = Instant::now();
        while traffic.pool.available() < support::traffic::BUFFERS {
            assert!(start.elapsed() < LIMIT, "{}", traffic.state());
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
