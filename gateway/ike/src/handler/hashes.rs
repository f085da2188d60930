//! SIGNATURE_HASH_ALGORITHMS (RFC 7427 section 4): the hashes we verify signatures with.

use spi::Hash;
use wire::ike::{Notify, Payload, PayloadList};
use wire::numbers::NotifyType;

use super::{Flow, Handler, Stage};
use crate::core::Core;
use crate::sa::IkeSa;

/// See the module.
pub(super) struct SignatureHashes;

/// What we accept in signatures. SHA-1 is not among it (RFC 8247 section 4); Identity is for EdDSA (RFC 8420).
const ACCEPTED: [Hash; 4] = [Hash::Sha256, Hash::Sha384, Hash::Sha512, Hash::Identity];

impl Handler for SignatureHashes {
    fn build(&self, stage: Stage, _sa: &mut IkeSa, _cx: &mut Core, out: &mut Vec<Payload>) {
        if matches!(stage, Stage::InitRequest | Stage::InitResponse) {
            let data = ACCEPTED.iter().flat_map(|h| h.iana().to_be_bytes()).collect();
            out.push(Notify::with_data(NotifyType::SIGNATURE_HASH_ALGORITHMS, data).into());
        }
    }

    fn receive(&self, stage: Stage, sa: &mut IkeSa, _cx: &mut Core, message: &[Payload]) -> Flow {
        if matches!(stage, Stage::InitRequest | Stage::InitResponse)
            && let Some(setup) = &mut sa.setup
        {
            let offered = message.notify(NotifyType::SIGNATURE_HASH_ALGORITHMS);
            let mut hashes: Vec<Hash> =
                offered.iter().flat_map(|n| n.data_u16s()).filter_map(Hash::from_iana).collect();
            hashes.dedup();
            hashes.truncate(16);
            setup.hashes = hashes;
        }
        Flow::Continue
    }
}
