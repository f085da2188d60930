//! Peers that prove themselves by EAP-MSCHAPv2 within IKE_AUTH (RFC 7296 section 2.16), to a gateway with a certificate.

use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use eap::{Conversation, MethodKind, Password, Peer, PeerConfig, Step};
use spi::{Secret, ShortOps};
use wire::ike::{Auth, Body, Eap, Id, Payload, PayloadList};

use super::proof::{Octets, mic_with};

/// EAP of one peer.
pub struct Talk {
    peer: Peer,
    /// What EAP gave.
    key: Option<Secret>,
    /// The gateway's identity, once it has proved it.
    pub gateway: Option<Id>,
}

impl Talk {
    /// The conversation of this user.
    pub fn new(ops: &Arc<dyn ShortOps>, user: String, password: &str) -> Talk {
        let config = PeerConfig {
            identity: user,
            anonymous: None,
            password: Password::Known(Secret::from_slice(password.as_bytes())),
            methods: vec![MethodKind::MsChapV2],
            inner: Vec::new(),
            tls: None,
            allow_keyless: false,
        };
        let ops = Arc::clone(ops);
        let peer = Peer::new(Arc::new(config), Arc::new(move |octets: &mut [u8]| ops.random(octets)));
        Talk { peer, key: None, gateway: None }
    }

    /// The payload that follows those of the gateway; `None` when there is no EAP in them. `octets`: of our proof.
    ///
    /// # Errors
    /// The gateway does not let us in.
    pub fn answer(
        &mut self,
        ops: &dyn ShortOps,
        payloads: &[Payload],
        octets: &Octets<'_>,
    ) -> Result<Option<Payload>> {
        let Some(Eap(packet)) = payloads.eap() else { return Ok(None) };
        match self.peer.receive(Some(packet)) {
            Step::Send(packet) => Ok(Some(Body::Eap(Eap(packet)).into())),
            Step::Accepted { grant, .. } => {
                let key = grant.msk.context("EAP gave no key")?;
                let auth = mic_with(ops, &key, octets)?;
                self.key = Some(key);
                Ok(Some(auth.into()))
            }
            Step::Refused { why, .. } => bail!("EAP: {why}"),
            Step::Wait => bail!("EAP waits for nobody"),
        }
    }

    /// Checks the gateway's last proof.
    ///
    /// # Errors
    /// It is wrong.
    pub fn check(&self, ops: &dyn ShortOps, octets: &Octets<'_>, auth: &Auth) -> Result<()> {
        let key = self.key.as_ref().context("the gateway is done before EAP is")?;
        ensure!(mic_with(ops, key, octets)?.data == auth.data, "the gateway has another key by EAP");
        Ok(())
    }
}
