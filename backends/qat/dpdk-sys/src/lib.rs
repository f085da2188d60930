//! Bindings to as much of DPDK as the QuickAssist driver's feature `dpdk` uses: its environment, cryptodevs, pools, and a shim in C
//! for what DPDK has as inline functions. Made at build time from the headers that are installed, since no two releases of DPDK have
//! the same binary interface. Without the feature `link` this crate is empty.
#![cfg(feature = "link")]
#![allow(
    unsafe_code,
    missing_docs,
    unreachable_pub,
    non_camel_case_types,
    non_upper_case_globals,
    non_snake_case
)]
#![allow(clippy::all, clippy::undocumented_unsafe_blocks)]

/// Types of DPDK that are only ever behind a pointer.
macro_rules! opaque {
    ($($name:ident)*) => { $(#[repr(C)] pub struct $name { _private: [u8; 0] })* };
}

opaque!(rte_mempool rte_mbuf rte_crypto_op rte_device rte_cryptodev_capabilities);

include!(concat!(env!("OUT_DIR"), "/bindings.rs"));
