use spi::Driver;
use spi::caps::Traits;

use crate::note;
use crate::ring::{devices, rings};

/// Rule 4: a device that declares [`Traits::IN_ORDER`] gives packets back in the order of submission. Others may do as
/// they like, and so may operations.
pub fn packets_come_in_order_where_that_is_declared(driver: &dyn Driver) {
    for device in devices(driver) {
        if !device.desc().caps.traits.contains(Traits::IN_ORDER) {
            note::skip("the device does not declare that packets come in order");
            continue;
        }
        for mut ring in rings(&*device, 64).into_iter().filter(|ring| ring.kind() == "packets") {
            let mut last = None;
            for _ in 0..8 {
                ring.offer(40).expect("a healthy device takes work");
                for seen in ring.drain() {
                    assert!(last < Some(seen.token), "{:?} came after {last:?}", seen.token);
                    last = Some(seen.token);
                }
            }
            assert!(last.is_some(), "nothing came");
        }
    }
}
