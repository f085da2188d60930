//! CERTREQ (RFC 7296 section 3.7): which CAs we trust, and which the peer does. Many peers send no certificate unasked. A second one
//! asks for an OCSP answer (RFC 4806), and a notification says that a URL will do in place of a certificate (RFC 7296 section 3.6).

use ipc::Role;
use policy::AuthPolicy;
use wire::ike::{CertReq, Notify, Payload, PayloadList};
use wire::numbers::{CertEncoding, NotifyType};

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
        let (mut authorities, mut responders) = (Vec::new(), Vec::new());
        let (mut asked, mut ocsp, mut urls) = (false, false, false);
        let add = |list: &mut Vec<[u8; 20]>, more: &[[u8; 20]]| {
            for hash in more {
                if !list.contains(hash) && list.len() < MAX_AUTHORITIES {
                    list.push(*hash);
                }
            }
        };
        for realm in realms.into_iter().filter(|r| r.remote_auth == AuthPolicy::Pubkey) {
            asked = true;
            let Some(asks) = cx.config.authorities.get(&*realm.name) else { continue };
            add(&mut authorities, &asks.authorities);
            if let Some(more) = &asks.responders {
                ocsp = true;
                add(&mut responders, more);
            }
            urls |= asks.urls;
        }
        if urls {
            out.push(Notify::new(NotifyType::HTTP_CERT_LOOKUP_SUPPORTED).into());
        }
        if asked {
            let authorities = authorities.concat();
            out.push(CertReq { encoding: CertEncoding::X509_SIGNATURE, authorities }.into());
        }
        if ocsp {
            let authorities = responders.concat();
            out.push(CertReq { encoding: CertEncoding::OCSP_CONTENT, authorities }.into());
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
    // Which responders it believes does not matter: there is one answer to send, or none.
    setup.wants_ocsp |= message.cert_requests().any(|r| r.encoding == CertEncoding::OCSP_CONTENT);
    setup.takes_urls |= message.notify(NotifyType::HTTP_CERT_LOOKUP_SUPPORTED).is_some();
}
