//! CERTREQ (RFC 7296 section 3.7): which CAs we trust, and which the peer does. Many peers send no certificate unasked.

use ipc::Role;
use policy::AuthPolicy;
use wire::ike::{CertReq, Payload, PayloadList};
use wire::numbers::CertEncoding;

use super::{Flow, Handler, Stage};
use crate::core::Core;
use crate::sa::IkeSa;

/// See the module.
pub(super) struct CertRequests;

/// Names of CAs kept from one peer.
const MAX_AUTHORITIES: usize = 64;

impl Handler for CertRequests {
    fn build(&self, stage: Stage, sa: &mut IkeSa, cx: &mut Core, out: &mut Vec<Payload>) {
        let realms: Vec<_> = match (stage, sa.role) {
            (Stage::AuthRequest, Role::Initiator) => sa.realm.iter().collect(),
            (Stage::InitResponse, Role::Responder) => sa.setup.iter().flat_map(|s| &s.candidates).collect(),
            _ => return,
        };
        let mut authorities = Vec::new();
        let mut asked = false;
        for realm in realms.into_iter().filter(|r| r.remote_auth == AuthPolicy::Pubkey) {
            asked = true;
            for hash in cx.config.authorities.get(&*realm.name).into_iter().flatten() {
                if !authorities.contains(hash) && authorities.len() < MAX_AUTHORITIES {
                    authorities.push(*hash);
                }
            }
        }
        if asked {
            let authorities = authorities.concat();
            out.push(CertReq { encoding: CertEncoding::X509_SIGNATURE, authorities }.into());
        }
    }

    fn receive(&self, stage: Stage, sa: &mut IkeSa, _cx: &mut Core, message: &[Payload]) -> Flow {
        if matches!(stage, Stage::InitResponse | Stage::AuthRequest) {
            note_authorities(sa, message);
        }
        Flow::Continue
    }
}

/// Keeps which CAs the peer trusts.
pub(crate) fn note_authorities(sa: &mut IkeSa, message: &[Payload]) {
    let Some(setup) = &mut sa.setup else { return };
    let x509 = message.cert_requests().filter(|r| r.encoding == CertEncoding::X509_SIGNATURE);
    for hash in x509.flat_map(|r| r.key_hashes()) {
        if setup.authorities.len() < MAX_AUTHORITIES {
            setup.authorities.push(*hash);
        }
    }
}
