//! The backend keeps the contract, over the provider that every OpenSSL has.
#![allow(clippy::unwrap_used)]

mod support;

mod default {
    hwtest::suite!(super::support::driver(super::support::default_provider()));
}
