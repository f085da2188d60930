//! Keys in PKCS #11 tokens: smart cards, HSMs, and what behaves like one.
//!
//! A token is slow, can do few things at a time, may be pulled out, and locks itself when it is told wrong PINs. So every call to a
//! module that may take its time runs on a helper thread that owns one session ([`spi::offthread`]); a session that is lost is opened
//! anew, once for each job; and a PIN that was refused is not tried again, by nobody in this process.
//!
//! ```text
//!   worker ── submit ──► queue.rs ──► helper: work.rs ──► seat.rs (one session) ──► module.rs (one context) ──► the .so
//!          ◄── poll ────     ▲ bell             │                 │ lost?
//!                                               ▼                 ▼
//!                                     sign.rs, dh.rs       token.rs: find the slot, open, log in (pin.rs)
//! ```
//!
//! | module | what it holds |
//! |---|---|
//! | [`uri`] | PKCS #11 URIs (RFC 7512) |
//! | [`module`] | modules that are loaded, one context for each in the whole process; which PINs were refused |
//! | [`token`] | a token by configuration: its slot, sessions, login |
//! | [`pin`] | where a PIN comes from: file, environment, terminal |
//! | [`seat`] | one session and what is known in it; opened anew when it is lost |
//! | [`find`], [`public`] | keys and certificates by URI; a key's public half |
//! | [`sign`], [`dh`], [`work`] | what is done with keys |
//! | [`queue`], [`device`] | the SPI |
//! | [`desk`] | what an operator does: list, generate, sign a request, import |
//! | [`trouble`] | what can be wrong, in words that say what to do |

mod der;
mod desk;
mod device;
mod dh;
mod find;
mod module;
mod pin;
mod point;
mod public;
mod queue;
mod seat;
mod sign;
mod token;
mod trouble;
mod uri;
mod work;

pub use desk::{Desk, KeySpec, Listed, Listing, Signer};
pub use device::{Pkcs11, Side};
pub use pin::PinSource;
pub use token::{Dh, Site};
pub use trouble::{Trouble, What};
pub use uri::{Class, Uri, UriError};
