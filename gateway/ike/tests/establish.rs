//! IKE_SA_INIT and IKE_AUTH between two engines.

mod world;

use std::time::Duration;

use tussock_ike::Event;
use world::policy::realm;
use world::{Link, World};

#[test]
fn a_pair_comes_up_in_good_weather() {
    let world = World::established(1, realm(0), realm(1));
    assert_eq!(world.ike_sas(0), 1);
    assert_eq!(world.spis(0).len(), 1);
    assert_eq!(world.wire.len(), 4, "two exchanges");
    assert!(world.has_event(1, |e| matches!(e, Event::IkeEstablished { how, .. } if how == "PSK")));
}

#[test]
fn a_pair_comes_up_through_loss_doubling_and_reordering() {
    for seed in 1..40 {
        let mut world = World::new(seed, vec![realm(0)], vec![realm(1)]);
        world.link = Link::BAD;
        let up = world.up(0);
        world.run(Duration::from_secs(400));
        eprintln!("seed {seed}");
        world.assert_ok(0, up);
        world.assert_agreed();
        assert_eq!(world.spis(0).len(), 1);
    }
}
