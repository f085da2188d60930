//! A PKCS #11 module with one token, in software: slow, flaky and removable on request, and it counts what it is asked.
//!
//! An application loads `libtussock_pkcs11_emulator.so`. Which token it finds is said by the environment variable `TUSSOCK_TOKEN`,
//! which names a folder:
//!
//! | file | what it is |
//! |---|---|
//! | `control.toml` | how the token behaves ([`control`]); read again whenever it changes, so that a test can pull the token out |
//! | `objects/N.json` | what is stored on it |
//! | `wrong-pins` | wrong PINs since the last right one; three lock it |
//! | `counts.json` | calls that this process has made, by name, and the most signatures that were under way at one time |
//!
//! | module | what it holds |
//! |---|---|
//! | [`sys`] | the C functions, the only unsafe code |
//! | [`token`] | sessions, login, searches: the rules of PKCS #11 |
//! | [`object`] | objects and their attributes |
//! | [`work`] | keys made, signatures, secrets: by OpenSSL |
//! | [`engine`] | how many operations run at once, and how long one takes |
//! | [`control`], [`counts`] | what a test says, and what it hears |
//!
//! It is not a safe place for keys: they lie in the folder as they are.

pub mod control;
pub mod counts;
pub mod engine;
pub mod object;
pub mod sys;
pub mod token;
pub mod work;
