//! The client of vfio-user: servers that are not there, that hold other views of the protocol, that go away and that come back.
#![allow(clippy::unwrap_used)]

mod support;

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Instant;

use emu_qat::fault::{Fault, Kind};
use emu_qat::{Card, Options, Personality};
use qat::Place;
use spi::Health;
use spi::mem::{Wish, grant};
use support::socket_path;
use support::traffic::{LIMIT, Traffic, hasty};

fn open(path: &Path) -> Result<std::sync::Arc<dyn spi::Device>, String> {
    qat::open("card", &Place::Socket(path.into()), &hasty()).map_err(|error| error.to_string())
}

#[test]
fn a_socket_that_is_not_there_is_named() {
    let error = open(Path::new("/nonexistent/qat.sock")).map(|_| ()).unwrap_err();
    assert!(error.contains("/nonexistent/qat.sock") && error.contains("No such file"), "{error}");
}

/// A server that does as it is told with its first client.
fn server(act: impl FnOnce(UnixStream) + Send + 'static) -> PathBuf {
    let path = socket_path();
    let listener = UnixListener::bind(&path).unwrap();
    std::thread::spawn(move || {
        let (client, _) = listener.accept().unwrap();
        act(client);
    });
    path
}

/// Header of the answer to a message, with so many octets to follow.
fn answer(message: &[u8], len: u32, flags: u32, error: u32) -> Vec<u8> {
    let mut octets = message[..4].to_vec();
    octets.extend((16 + len).to_ne_bytes());
    octets.extend(flags.to_ne_bytes());
    octets.extend(error.to_ne_bytes());
    octets
}

fn take(client: &mut UnixStream) -> Vec<u8> {
    let mut head = vec![0; 16];
    client.read_exact(&mut head).unwrap();
    let len = u32::from_ne_bytes(head[4..8].try_into().unwrap()) as usize;
    let mut rest = vec![0; len - 16];
    client.read_exact(&mut rest).unwrap();
    head.extend(rest);
    head
}

#[test]
fn servers_that_do_not_keep_the_rules_are_left_with_a_reason() {
    let reply = |act: fn(&[u8]) -> Vec<u8>| {
        let path = server(move |mut client| {
            let message = take(&mut client);
            client.write_all(&act(&message)).unwrap();
            // Until the client leaves.
            let _ = client.read_to_end(&mut Vec::new());
        });
        open(&path).map(|_| ()).unwrap_err()
    };
    let error = reply(|message| answer(message, u32::MAX - 16, 1, 0));
    assert!(error.contains("impossible length"), "{error}");
    let error = reply(|message| answer(&[message[0] ^ 1, message[1], message[2], message[3]], 0, 1, 0));
    assert!(error.contains("something else"), "{error}");
    let error = reply(|message| answer(&[0, 0, 11, 0, message[4]], 0, 0, 0));
    assert!(error.contains("asks us for something (command 11)"), "{error}");
    let error = reply(|message| answer(message, 0, 1 | 1 << 5, 95));
    assert!(error.contains("the version") && error.contains("not supported"), "{error}");
    let error = reply(|message| [answer(message, 5, 1, 0), vec![1, 0, 0, 0, 0]].concat());
    assert!(error.contains("another version"), "{error}");
    let error = reply(|message| answer(message, 0, 1, 0));
    assert!(error.contains("another version"), "an empty answer: {error}");
}

#[test]
fn a_server_that_says_nothing_or_hangs_up_is_not_waited_for_for_ever() {
    let path = server(|mut client| drop(client.read_to_end(&mut Vec::new())));
    let error = open(&path).map(|_| ()).unwrap_err();
    assert!(error.contains("does not answer the version") && error.contains("somebody else"), "{error}");
    let path = server(|mut client| drop(take(&mut client)));
    let error = open(&path).map(|_| ()).unwrap_err();
    assert!(error.contains("closed") || error.contains("gone"), "{error}");
}

#[test]
fn a_card_is_taken_by_one_and_then_by_the_next() {
    grant(Wish::File);
    let card = Card::running(Personality::Vf4941, &Options::default()).unwrap();
    let path = socket_path();
    let _served = card.serve(&path).unwrap();
    let first = open(&path).unwrap();
    let error = open(&path).map(|_| ()).unwrap_err();
    assert!(error.contains("somebody else") || error.contains("closed"), "{error}");
    drop(first);
    assert_eq!(open(&path).unwrap().health(), Health::Ready);
}

fn traffic(card: &Card, path: &Path) -> Traffic {
    Traffic::on(card.clone(), open(path).unwrap())
}

fn wait_for(traffic: &Traffic, health: Health) {
    let start = Instant::now();
    while traffic.device.health() != health {
        assert!(start.elapsed() < LIMIT, "{}", traffic.state());
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

#[test]
fn a_server_that_goes_away_fails_the_card_and_one_that_comes_back_heals_it() {
    grant(Wish::File);
    for personality in [Personality::Vf4941, Personality::Vf37c9] {
        let card = Card::running(personality, &Options::default()).unwrap();
        let path = socket_path();
        let served = card.serve(&path).unwrap();
        let mut traffic = traffic(&card, &path);
        traffic.run_until("work", |traffic| traffic.packet_tally.done > 500);
        drop(served);
        traffic.run_until("failure", |traffic| traffic.device.health() == Health::Failed);
        traffic.drain();
        assert!(traffic.packet_tally.aborted + traffic.operation_tally.aborted > 0, "{}", traffic.state());
        let _served = card.serve(&path).unwrap();
        traffic.device.begin_reset();
        wait_for(&traffic, Health::Ready);
        let done = traffic.packet_tally.done;
        traffic.run_until("work", |traffic| traffic.packet_tally.done > done + 500);
        traffic.drain();
    }
}

#[test]
fn faults_are_survived_over_a_socket_too() {
    grant(Wish::File);
    for personality in [Personality::Vf4941, Personality::Vf37c9] {
        let card = Card::running(personality, &Options::default()).unwrap();
        let path = socket_path();
        let _served = card.serve(&path).unwrap();
        let mut traffic = traffic(&card, &path);
        for kind in [Kind::LoseCompletion, Kind::DoubleCompletion, Kind::Uncorrectable] {
            let (faults, resets) = (card.counters().faults, traffic.counter("resets"));
            card.inject(Fault::new(kind).after(50).for_service(0));
            traffic.run_until("the fault", |traffic| traffic.card.counters().faults > faults);
            traffic.run_until("a reset", |traffic| traffic.counter("resets") > resets);
            let done = traffic.packet_tally.done;
            traffic.run_until("recovery", |traffic| traffic.packet_tally.done > done + 500);
        }
        traffic.drain();
    }
}
