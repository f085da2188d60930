//! The seeds, built with the codec itself: one message of each kind a gateway meets, small.

mod esp;
mod ike;
mod ike_state;
mod plugin;
mod vfio_user;

/// One file of a seed corpus.
pub struct Seed {
    /// Which target it is for.
    pub target: &'static str,
    /// File name.
    pub name: &'static str,
    /// Content.
    pub bytes: Vec<u8>,
}

/// Every seed of every target.
pub fn all() -> Vec<Seed> {
    let named = |target, (name, bytes)| Seed { target, name, bytes };
    let ike = ike::seeds().into_iter().map(|seed| named("wire_ike", seed));
    let esp = esp::seeds().into_iter().map(|seed| named("wire_esp", seed));
    let state = ike_state::seeds().into_iter().map(|seed| named("ike_state", seed));
    let plugin = plugin::seeds().into_iter().map(|seed| named("plugin", seed));
    let vfio = vfio_user::seeds().into_iter().map(|seed| named("vfio_user", seed));
    ike.chain(esp).chain(state).chain(plugin).chain(vfio).collect()
}
