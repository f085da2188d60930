//! Child SAs for single workers of the data path (RFC 9611), in both roles: asked for, given, refused, bounded, rekeyed, deleted.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod world;

use std::time::Duration;

use tussock_ike::{ChildId, ChildInstall, Command, Config, EspSignal, Event};
use world::policy::{child, lives, realm};
use world::{Link, World, is_exchange};

const S: Duration = Duration::from_secs(1);
const LANES: u16 = 4;

fn lanes(config: &mut Config) {
    config.lanes = LANES;
}

/// Two sides of four workers each, with child `net` up.
fn up(seed: u64, adjust: impl Fn(&mut Config)) -> World {
    up_with(seed, [realm(0), realm(1)], adjust)
}

fn up_with(seed: u64, [a, b]: [policy::Realm; 2], adjust: impl Fn(&mut Config)) -> World {
    let mut world = World::with_config(seed, vec![a], vec![b], |config| {
        lanes(config);
        adjust(config);
    });
    let up = world.up(0);
    world.run(5 * S);
    world.assert_ok(0, up);
    world.assert_agreed();
    world
}

/// The child of a node that is for all workers.
fn fallback(world: &World, node: usize) -> ChildId {
    let all: Vec<_> = installed(world, node).filter(|c| c.fallback.is_none()).map(|c| c.id).collect();
    assert_eq!(all.len(), 1, "one child for all");
    all[0]
}

fn installed(world: &World, node: usize) -> impl Iterator<Item = &ChildInstall> {
    world.nodes[node].children.values()
}

/// Those for single workers.
fn single(world: &World, node: usize) -> Vec<&ChildInstall> {
    installed(world, node).filter(|c| c.fallback.is_some()).collect()
}

/// A lane that is not the fallback's own.
fn other_lane(world: &World, node: usize, n: u16) -> u16 {
    let own = world.nodes[node].children[&fallback(world, node)].lane;
    (own + 1 + n) % LANES
}

fn want(world: &mut World, node: usize, resource: u16) {
    let child = fallback(world, node);
    world.esp(node, EspSignal::WantResource { child, resource });
}

/// The same for a lane that is not the fallback's own.
fn want_other(world: &mut World, node: usize, n: u16) {
    let lane = other_lane(world, node, n);
    want(world, node, lane);
}

/// Requests for a child that a node has sent.
fn asked(world: &World, node: usize) -> usize {
    world.wire.iter().filter(|(from, m)| *from == node && is_exchange(m, 36, false)).count()
}

/// Whatever the state, every child beside another is beside one that is there, and on the lane its SPI says.
fn assert_sound(world: &World) {
    for node in 0..2 {
        for c in installed(world, node) {
            assert_eq!(u32::from(c.lane), c.spi_in % u32::from(LANES), "{:08x}", c.spi_in);
            assert_eq!(c.resource, c.fallback.map(|_| c.lane));
        }
    }
}

#[test]
fn a_worker_gets_a_child_of_its_own_in_both_roles() {
    for node in 0..2 {
        let mut world = up(1, |_| ());
        let lane = other_lane(&world, node, 0);
        let before = fallback(&world, node);
        want(&mut world, node, lane);
        world.run(5 * S);
        world.assert_agreed();
        assert_sound(&world);
        let mine = single(&world, node);
        assert_eq!(mine.len(), 1);
        assert_eq!((mine[0].resource, mine[0].lane, mine[0].fallback), (Some(lane), lane, Some(before)));
        let beside = &world.nodes[node].children[&before];
        assert_eq!((&mine[0].ts_local, &mine[0].ts_remote), (&beside.ts_local, &beside.ts_remote));
        assert_eq!((mine[0].encr, mine[0].esn, mine[0].mode), (beside.encr, beside.esn, beside.mode));
        assert!(mine[0].use_outbound && mine[0].replaces.is_none());
        let theirs = single(&world, 1 - node);
        assert_eq!(theirs.len(), 1);
        let theirs_lane = world.nodes[1 - node].children[&fallback(&world, 1 - node)].lane;
        assert_ne!(theirs[0].lane, theirs_lane, "on a worker that has none of these yet");
        assert_eq!(theirs[0].fallback, Some(fallback(&world, 1 - node)));
        assert!(world.has_event(node, |e| {
            matches!(e, Event::ChildEstablished { resource, .. } if *resource == Some(lane))
        }));
    }
}

#[test]
fn who_was_asked_sends_with_it_after_three_seconds_even_if_nothing_came_through_it() {
    let mut world = up(41, |_| ());
    want_other(&mut world, 0, 0);
    world.run(Duration::from_millis(2900));
    let theirs = single(&world, 1)[0].id;
    let sends = |world: &World| world.nodes[1].outbound.values().flatten().any(|id| *id == theirs);
    assert!(!world.nodes[1].children[&theirs].use_outbound);
    assert!(!sends(&world), "the answer may have been lost: who asked may not have it yet");
    world.run(S);
    assert!(sends(&world));
    // One that is gone by then is not sent with, which the world would notice.
    want_other(&mut world, 0, 1);
    world.run(S);
    let mine = single(&world, 0).into_iter().map(|c| c.id).max().unwrap();
    world.esp(0, EspSignal::HardLimit(mine));
    world.run(5 * S);
    assert_eq!(single(&world, 1).len(), 1);
    world.assert_agreed();
}

#[test]
fn every_worker_gets_one_and_no_worker_two() {
    let mut world = up(2, |_| ());
    for _ in 0..3 {
        for lane in 0..LANES {
            want(&mut world, 0, lane);
            want(&mut world, 0, lane);
        }
        want(&mut world, 0, LANES);
        want(&mut world, 0, u16::MAX);
        world.run(5 * S);
    }
    world.assert_agreed();
    assert_sound(&world);
    assert_eq!(asked(&world, 0), usize::from(LANES) - 1, "the fallback's own worker has one");
    for node in 0..2 {
        let mut used: Vec<u16> = installed(&world, node).map(|c| c.lane).collect();
        used.sort_unstable();
        assert_eq!(used, [0, 1, 2, 3], "spread over the workers of node {node}");
    }
}

#[test]
fn a_peer_that_does_not_say_it_can_is_never_asked() {
    let mut world = up(3, |config| config.resources_accepted = 0);
    let one = |config: &mut Config| config.lanes = 1;
    let mut single_worker = up(3, one);
    for lane in 0..LANES {
        want(&mut world, 0, lane);
        single_worker.esp(0, EspSignal::WantResource { child: fallback(&single_worker, 0), resource: lane });
    }
    for world in [&mut world, &mut single_worker] {
        world.run(5 * S);
        world.assert_agreed();
        assert_eq!((asked(world, 0), world.spis(0).len()), (0, 1));
    }
}

#[test]
fn asking_is_bounded_beside_each_child() {
    let mut world = up(4, |config| config.resources_asked = 2);
    for lane in 0..LANES {
        want(&mut world, 0, lane);
    }
    world.run(5 * S);
    for lane in 0..LANES {
        want(&mut world, 0, lane);
    }
    world.run(5 * S);
    world.assert_agreed();
    assert_eq!((asked(&world, 0), single(&world, 0).len()), (2, 2));
}

#[test]
fn a_peer_that_has_enough_is_not_asked_again() {
    let mut world = up(5, |config| config.resources_accepted = 1);
    for round in 0..5 {
        for lane in 0..LANES {
            want(&mut world, 0, lane);
        }
        world.run(60 * S);
        assert_eq!(asked(&world, 0), 2, "round {round}: one was given, one refused with TS_MAX_QUEUE");
    }
    world.assert_agreed();
    assert_eq!(single(&world, 0).len(), 1);
    let refused = world.count_events(0, |e| matches!(e, Event::ResourceRefused { .. }));
    assert_eq!(refused, 1);
    assert!(!world.has_event(0, |e| matches!(e, Event::ChildFailed { .. })));
}

#[test]
fn the_bound_of_all_children_holds_for_these_too() {
    let mut world = up(17, |config| config.children_limit = 3);
    for round in 0..3 {
        for lane in 0..LANES {
            want(&mut world, 0, lane);
        }
        world.run(60 * S);
        assert_eq!((asked(&world, 0), single(&world, 0).len()), (2, 2), "round {round}");
    }
    world.assert_agreed();
}

#[test]
fn what_a_refused_fallback_has_is_asked_for_again_on_another_ike_sa() {
    let mut world = up(6, |config| config.resources_accepted = 1);
    for lane in 0..LANES {
        want(&mut world, 0, lane);
    }
    world.run(60 * S);
    let before = asked(&world, 0);
    let rekey = world.rekey_ike(0);
    world.run(60 * S);
    world.assert_ok(0, rekey);
    for lane in 0..LANES {
        want(&mut world, 0, lane);
    }
    world.run(60 * S);
    world.assert_agreed();
    // The rekeying of the IKE SA, and one more question.
    assert_eq!(asked(&world, 0), before + 2);
    assert_eq!(single(&world, 0).len(), 1);
}

#[test]
fn each_is_rekeyed_for_itself_and_stays_on_its_worker() {
    for (asker, rekeyer) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let mut world = up(7, |_| ());
        let lane = other_lane(&world, asker, 1);
        want(&mut world, asker, lane);
        world.run(5 * S);
        let places = |world: &World, node: usize| {
            single(world, node).iter().map(|c| (c.lane, c.fallback)).collect::<Vec<_>>()
        };
        let before = [places(&world, 0), places(&world, 1)];
        let spis = world.spis(0);
        let id = single(&world, rekeyer)[0].id;
        world.esp(rekeyer, EspSignal::SoftLimit(id));
        world.run(30 * S);
        world.assert_agreed();
        assert_sound(&world);
        assert_eq!(world.spis(0).iter().filter(|pair| spis.contains(pair)).count(), 1, "one is the same");
        let after = [places(&world, 0), places(&world, 1)];
        assert_eq!(after, before, "asked for by {asker}, rekeyed by {rekeyer}");
    }
}

#[test]
fn when_the_fallback_is_rekeyed_the_others_are_beside_its_successor() {
    for rekeyer in 0..2 {
        let mut world = up(8, |_| ());
        want_other(&mut world, 0, 0);
        want_other(&mut world, 1, 1);
        world.run(5 * S);
        assert_eq!(single(&world, 0).len(), 2);
        let old = fallback(&world, rekeyer);
        let lane = world.nodes[rekeyer].children[&old].lane;
        let rekey = world.rekey_child(rekeyer, "net");
        world.run(30 * S);
        world.assert_ok(rekeyer, rekey);
        world.assert_agreed();
        assert_sound(&world);
        let status = world.nodes[rekeyer].engine.status();
        let new = status.sas[0].children.iter().find(|c| c.resource.is_none());
        assert_eq!(new.unwrap().lane, lane, "it keeps its worker, too");
        // They still go with it.
        let down = world.command(rekeyer, Command::Down { realm: "r".into(), child: Some("net".into()) });
        world.run(30 * S);
        world.assert_ok(rekeyer, down);
        world.assert_agreed();
        assert_eq!(world.spis(0), []);
    }
}

#[test]
fn they_go_with_their_fallback_whoever_deletes_it() {
    for deleter in 0..2 {
        let mut world = up(9, |_| ());
        for lane in 0..LANES {
            want(&mut world, 0, lane);
        }
        world.run(5 * S);
        assert_eq!(world.spis(0).len(), usize::from(LANES));
        let id = fallback(&world, deleter);
        world.esp(deleter, EspSignal::NotInstalled(id));
        world.run(30 * S);
        world.assert_agreed();
        assert_eq!(world.spis(0), []);
        assert!(single(&world, 0).is_empty() && single(&world, 1).is_empty());
    }
}

#[test]
fn one_that_reaches_its_limit_goes_alone_and_can_be_asked_for_again() {
    let mut world = up(10, |_| ());
    let lane = other_lane(&world, 0, 0);
    want(&mut world, 0, lane);
    world.run(5 * S);
    let id = single(&world, 0)[0].id;
    world.esp(0, EspSignal::HardLimit(id));
    world.run(10 * S);
    world.assert_agreed();
    assert_eq!(world.spis(0).len(), 1, "the fallback");
    want(&mut world, 0, lane);
    world.run(10 * S);
    world.assert_agreed();
    assert_eq!(single(&world, 0).len(), 1);
}

#[test]
fn both_sides_may_ask_at_once() {
    for seed in 1..30 {
        let mut world = up(seed, |_| ());
        world.link.spread = Duration::from_millis(30);
        for lane in 0..LANES {
            want(&mut world, 0, lane);
            want(&mut world, 1, lane);
        }
        world.run(60 * S);
        world.assert_agreed();
        assert_sound(&world);
        for node in 0..2 {
            let all: Vec<u16> = installed(&world, node).map(|c| c.lane).collect();
            assert!((0..LANES).all(|lane| all.contains(&lane)), "seed {seed}: {all:?}");
        }
    }
}

#[test]
fn rekeys_from_both_sides_at_once_leave_each_its_one() {
    for seed in 1..40 {
        let mut world = up(seed, |_| ());
        want_other(&mut world, 0, 0);
        want_other(&mut world, 0, 2);
        world.run(10 * S);
        world.link = if seed % 2 == 0 { Link::BAD } else { world.link };
        for node in 0..2 {
            let ids: Vec<_> = world.nodes[node].children.keys().copied().collect();
            ids.into_iter().for_each(|id| world.esp(node, EspSignal::SoftLimit(id)));
            world.run(Duration::from_millis(seed * 13 % 300));
        }
        world.run(400 * S);
        world.assert_agreed();
        assert_sound(&world);
        assert_eq!(world.spis(0).len(), 3, "seed {seed}");
        for node in 0..2 {
            let all = fallback(&world, node);
            let status = world.nodes[node].engine.status();
            let singles = status.sas[0].children.iter().filter(|c| c.resource.is_some()).count();
            assert_eq!(singles, 2, "seed {seed}");
            assert!(status.sas[0].children.iter().any(|c| c.id == all && c.resource.is_none()));
        }
        // And they all go with the fallback that is there now.
        world.link = Link::GOOD;
        world.command(0, Command::Down { realm: "r".into(), child: Some("net".into()) });
        world.run(60 * S);
        world.assert_agreed();
        assert_eq!(world.spis(0), [], "seed {seed}");
    }
}

#[test]
fn they_live_on_when_the_ike_sa_is_rekeyed_and_die_with_it() {
    let mut world = up(12, |_| ());
    want_other(&mut world, 1, 0);
    world.run(5 * S);
    let spis = world.spis(0);
    let rekey = world.rekey_ike(0);
    world.run(10 * S);
    world.assert_ok(0, rekey);
    assert_eq!(world.spis(0), spis);
    want_other(&mut world, 0, 1);
    world.run(5 * S);
    world.assert_agreed();
    assert_eq!(world.spis(0).len(), 3);
    let down = world.command(0, Command::Down { realm: "r".into(), child: None });
    world.run(10 * S);
    world.assert_ok(0, down);
    assert_eq!((world.spis(0).len(), world.spis(1).len()), (0, 0));
}

#[test]
fn reauthentication_carries_over_the_fallback_alone() {
    let mut a = realm(0);
    a.ike_reauth = lives(100);
    let mut world = up_with(13, [a, realm(1)], |_| ());
    for lane in 0..LANES {
        want(&mut world, 0, lane);
    }
    world.run(5 * S);
    assert_eq!(world.spis(0).len(), usize::from(LANES));
    world.run(100 * S);
    world.assert_agreed();
    assert_eq!(world.spis(0).len(), 1, "the others are asked for by whoever needs them");
    assert!(single(&world, 0).is_empty());
    want_other(&mut world, 0, 0);
    world.run(5 * S);
    world.assert_agreed();
    assert_eq!(single(&world, 0).len(), 1);
}

#[test]
fn children_are_spread_over_the_workers_or_pinned_to_the_realms() {
    let many = |node: usize| {
        let mut realm = realm(node);
        for n in 3..12 {
            let mut more = child(node, &format!("c{n}"));
            let nets = [format!("10.{n}.0.0/17"), format!("10.{n}.128.0/17")];
            more.local = world::policy::specs(&[&nets[node]]);
            more.remote = world::policy::specs(&[&nets[1 - node]]);
            realm.children.push(more);
        }
        realm
    };
    let spread = up_with(14, [many(0), many(1)], |_| ());
    for node in 0..2 {
        let mut counts = [0; LANES as usize];
        installed(&spread, node).for_each(|c| counts[usize::from(c.lane)] += 1);
        assert!(counts.iter().all(|count| (2..=3).contains(count)), "{counts:?}");
    }
    let pinned = |node: usize, worker| policy::Realm { worker: Some(worker), ..many(node) };
    let mut world = up_with(15, [pinned(0, 2), pinned(1, LANES + 1)], |_| ());
    let all_on = |world: &World, node: usize, lane| installed(world, node).all(|c| c.lane == lane);
    assert!(all_on(&world, 0, 2) && all_on(&world, 1, 1), "a worker too many counts from the first again");
    let child = world.nodes[0].children.keys().next().copied().unwrap();
    world.esp(0, EspSignal::WantResource { child, resource: 0 });
    world.run(5 * S);
    world.assert_agreed();
    assert_eq!(installed(&world, 0).filter(|c| c.lane == 0).count(), 1, "what is asked for is given");
    assert!(all_on(&world, 1, 1), "and the realm of the other side stays where it is pinned");
}

#[test]
fn signals_about_children_that_are_none_change_nothing() {
    let mut world = up(16, |_| ());
    want_other(&mut world, 0, 0);
    world.run(5 * S);
    let before = world.spis(0);
    let of_single = single(&world, 0)[0].id;
    for child in [of_single, ChildId(0), ChildId(u64::MAX)] {
        for resource in 0..LANES {
            world.esp(0, EspSignal::WantResource { child, resource });
        }
    }
    world.run(5 * S);
    assert_eq!(world.spis(0), before);
}
