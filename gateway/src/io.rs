//! Sockets, TUN devices and sleeping.
//!
//! | module | what it holds |
//! |---|---|
//! | [`outside`], [`socket`] | UDP 500 and 4500, protocol 50; which of them serves which address |
//! | [`tun`], [`ethernet`], [`links`] | TUN and TAP devices, and what others do to them |
//! | [`clear`] | packets that policy lets pass in the clear |
//! | [`system`] | what the machine knows: source addresses, path MTU |
//! | [`epoll`] | sleeping |
//! | [`sys`] | calls without a safe interface |

pub mod clear;
pub mod epoll;
pub mod ethernet;
pub mod links;
pub mod outside;
pub mod socket;
pub mod sys;
pub mod system;
pub mod tun;
