//! Anything at any time from both sides over a bad link: in the end both sides have the same SAs and nothing is left over.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod world;

use std::time::Duration;

use tussock_ike::{Command, EspSignal, Event};
use world::policy::{child, realm};
use world::{Link, World};

const S: Duration = Duration::from_secs(1);

fn two_children(node: usize) -> policy::Realm {
    let mut realm = realm(node);
    let mut more = child(node, "more");
    more.local = world::policy::specs(&[["10.3.0.0/16", "10.4.0.0/16"][node]]);
    more.remote = world::policy::specs(&[["10.4.0.0/16", "10.3.0.0/16"][node]]);
    realm.children.push(more);
    realm
}

/// How many Child SAs for single workers there were.
fn storm(seed: u64) -> usize {
    let mut world = World::with_config(seed, vec![two_children(0)], vec![two_children(1)], |config| {
        // Long enough that no message is lost for good.
        config.retransmission.tries = 14;
        config.retransmission.limit = Duration::from_secs(10);
        config.lanes = 3;
    });
    let up = world.up(0);
    world.run(5 * S);
    world.assert_ok(0, up);
    world.link = match seed % 3 {
        0 => Link::BAD,
        1 => Link { spread: Duration::from_millis(100), ..Link::GOOD },
        _ => Link { loss: 100, double: 300, spread: Duration::from_millis(1500), ..Link::BAD },
    };
    world.device_delay = Duration::from_millis([5, 200, 50][(seed / 3 % 3) as usize]);
    for _ in 0..30 {
        let node = world.random(2) as usize;
        let name = ["net", "more"][world.random(2) as usize].to_owned();
        let r = || "r".to_owned();
        match world.random(11) {
            0..=2 => drop(world.rekey_child(node, &name)),
            3 | 4 => drop(world.rekey_ike(node)),
            5 => drop(world.command(node, Command::Down { realm: r(), child: Some(name) })),
            6 | 7 => drop(world.command(node, Command::Up { realm: r(), child: Some(name) })),
            what => {
                let ids: Vec<_> = world.nodes[node].children.keys().copied().collect();
                if !ids.is_empty() {
                    let child = ids[world.random(ids.len() as u64) as usize];
                    let signal = match what {
                        8 => EspSignal::SoftLimit(child),
                        lane => EspSignal::WantResource { child, resource: (lane - 9) as u16 },
                    };
                    world.esp(node, signal);
                }
            }
        }
        let pause = world.random(if seed.is_multiple_of(2) { 400 } else { 3000 });
        world.run(Duration::from_millis(pause));
    }
    world.run(900 * S);
    eprintln!("seed {seed}");
    world.assert_agreed();
    for n in 0..2 {
        let status = world.nodes[n].engine.status();
        for child in status.sas.iter().flat_map(|sa| &sa.children) {
            assert_eq!(child.spi_in % 3, u32::from(child.lane), "seed {seed}");
        }
        assert!(!world.has_event(n, |e| matches!(e, Event::PeerDead { .. })), "seed {seed}");
        let unwell = |e: &Event| {
            matches!(
                e,
                Event::IkeClosed {
                    why: tussock_ike::Why::PeerMisbehaved(_) | tussock_ike::Why::Device(_),
                    ..
                }
            )
        };
        assert!(!world.has_event(n, unwell), "seed {seed}: {:#?}", world.nodes[n].events);
    }
    assert!(world.ike_sas(0) <= 1, "seed {seed}");
    let answered = world.nodes[0].answers.len() + world.nodes[1].answers.len();
    assert!(answered > 10, "seed {seed}: {answered}");
    world.count_events(0, |e| matches!(e, Event::ChildEstablished { resource: Some(_), .. }))
}

#[test]
fn after_any_storm_both_sides_have_the_same_sas() {
    let first = std::env::var("IKE_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(1);
    let count = std::env::var("IKE_SEEDS").ok().and_then(|s| s.parse().ok()).unwrap_or(30);
    let single: usize = (first..first + count).map(storm).sum();
    assert!(single as u64 >= count, "{single} in {count} storms");
}
