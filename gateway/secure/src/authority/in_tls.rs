//! Certificates that were shown in TLS inside EAP: path and status are found out as those of IKE are.

use std::time::SystemTime;

use spi::cert::{CertError, CertInfo, CertJob, Usages};

use super::papers::Parked;
use super::{Authority, Chained};
use crate::eap_judge::Asked;
use crate::revocation::{Question, Verdict, links};

impl Authority {
    /// Takes what conversations ask.
    pub(super) fn begin_inquiries(&mut self, at: SystemTime) {
        while let Some(mut asked) = self.eap.inquiries().next() {
            asked.at = at;
            let (chain, anchors) = (std::mem::take(&mut asked.chain), asked.anchors.clone());
            match self.chains.insert(Chained::InTls(asked)) {
                // TLS has looked at what the certificate may be used for.
                Ok(token) => {
                    self.chain_jobs.push_back(CertJob { token, chain, anchors, at, usages: Usages::all() });
                }
                Err(Chained::InTls(asked)) => {
                    asked.answer(Err("too many certificates are being checked".into()));
                }
                Err(Chained::InIke(_)) => {}
            }
        }
        let _ = self.certs.submit(&mut self.chain_jobs);
    }

    /// There is a path, and what is on it may have been revoked; or there is none that we would take.
    pub(super) fn on_path_in_tls(&mut self, asked: Asked, verdict: Result<CertInfo, CertError>) {
        let info = match verdict {
            Ok(info) => info,
            Err(error) => return asked.answer(Err(error.to_string())),
        };
        let question = Question {
            links: links(&info.path),
            policy: asked.policy.clone(),
            stapled: Vec::new(),
            lists: Vec::new(),
            at: asked.at,
        };
        match self.checks.begin(question) {
            Some(token) => {
                self.parked.insert(token, Parked::InTls(asked));
                self.status_operations();
            }
            None => asked.answer(Err("the status of too many certificates is being found out".into())),
        }
    }

    pub(super) fn on_status_in_tls(&mut self, asked: Asked, verdict: Verdict) {
        let about = &asked.about;
        for warning in verdict.iter().flatten() {
            tracing::warn!(realm = %about.realm, peer = %about.peer, sa = about.sa.0, "{warning}; the realm is relaxed, and the certificate is believed");
        }
        asked.answer(verdict.map(drop));
    }
}
