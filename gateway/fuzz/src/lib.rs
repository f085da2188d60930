//! What the fuzzer runs: each target takes octets from a peer and panics where a promise is broken.
//!
//! A target is one file here, one line in `fuzz_targets/`, one `[[bin]]` in Cargo.toml, a directory in `seeds/`, and
//! one entry in [`TARGETS`].
#![deny(unsafe_code)]

mod certificates;
mod eap;
mod ike_state;
mod ipc;
mod plugin;
mod radius_packets;
pub mod seed;
mod vfio_user;
mod wire_esp;
mod wire_ike;

pub use self::ipc::ipc;
pub use certificates::{certificates, certificates_taken};
pub use eap::{eap, eap_ends};
pub use ike_state::{ike_events, ike_state};
pub use plugin::plugin;
pub use radius_packets::radius;
pub use vfio_user::vfio_user;
pub use wire_esp::wire_esp;
pub use wire_ike::wire_ike;

/// The body of a target.
pub type Target = fn(&[u8]);

/// Every target by the name of its binary and its seed directory.
pub const TARGETS: &[(&str, Target)] = &[
    ("wire_ike", wire_ike),
    ("wire_esp", wire_esp),
    ("ike_state", ike_state),
    ("plugin", plugin),
    ("radius", radius),
    ("vfio_user", vfio_user),
    ("eap", eap),
    ("ipc", ipc),
    ("certificates", certificates),
];
