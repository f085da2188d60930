//! The seeds, built with the codec itself: one message of each kind a gateway meets, small.

mod certificates;
mod eap;
mod esp;
mod ike;
mod ike_state;
mod ipc;
mod plugin;
mod radius;
mod vfio_user;

/// One file of a seed corpus.
pub struct Seed {
    /// Which target it is for.
    pub target: &'static str,
    /// File name.
    pub name: String,
    /// Content.
    pub bytes: Vec<u8>,
}

/// Every seed of every target.
pub fn all() -> Vec<Seed> {
    let named = |target, (name, bytes): (&str, _)| Seed { target, name: name.to_string(), bytes };
    let ike = ike::seeds().into_iter().map(|seed| named("wire_ike", seed));
    let esp = esp::seeds().into_iter().map(|seed| named("wire_esp", seed));
    let state = ike_state::seeds().into_iter().map(|seed| named("ike_state", seed));
    let plugin = plugin::seeds().into_iter().map(|seed| named("plugin", seed));
    let radius = radius::seeds().into_iter().map(|seed| named("radius", seed));
    let vfio = vfio_user::seeds().into_iter().map(|seed| named("vfio_user", seed));
    let eap = eap::seeds().into_iter().map(|(name, bytes)| Seed { target: "eap", name, bytes });
    let ipc = ipc::seeds().into_iter().map(|seed| named("ipc", seed));
    let certificates = certificates::seeds().into_iter().map(|seed| named("certificates", seed));
    let ipc = ipc.chain(certificates);
    ike.chain(esp).chain(state).chain(plugin).chain(radius).chain(vfio).chain(eap).chain(ipc).collect()
}
