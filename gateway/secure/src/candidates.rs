//! The realms that a peer may belong to, and which of them it does belong to. The network side says which come into question; the rules
//! are applied here again, with what was proved.

use std::collections::VecDeque;
use std::sync::Arc;

use ipc::{MAX_CANDIDATES, Refusal};
use policy::{AuthPolicy, Claims, Identity, Realm};
use spi::cert::CertInfo;
use wire::numbers::AuthMethod;

use crate::identity;
use crate::vault::Vault;

/// See the module. There is at least one.
pub(crate) struct Candidates {
    /// The one that is being tried.
    pub(crate) realm: Arc<Realm>,
    /// What is tried if none of the realm's CAs has vouched for the peer.
    rest: VecDeque<Arc<Realm>>,
    /// Why the first one did not take the peer.
    why: Option<String>,
    /// Whom the peer asked for.
    asked: Option<Identity>,
}

impl Candidates {
    /// Looks the realms up.
    ///
    /// # Errors
    /// One that is not there, or that does not go by the name the peer asked for: our own engine asks no such thing.
    pub(crate) fn of(vault: &Vault, names: &[Arc<str>], asked: Option<Identity>) -> Result<Self, Refusal> {
        if names.len() > MAX_CANDIDATES {
            return Err(Refusal::NotAllowed(format!("{} realms to choose from", names.len())));
        }
        let mut realms = VecDeque::new();
        for name in names {
            let realm = vault.realm(name).ok_or_else(|| Refusal::NotAllowed(format!("no realm `{name}`")))?;
            if let Some(asked) = asked.as_ref().filter(|asked| !realm.is_called(asked)) {
                return Err(Refusal::NotAllowed(format!("realm `{name}` does not speak as `{asked}`")));
            }
            realms.push_back(Arc::clone(realm));
        }
        let realm = realms.pop_front().ok_or_else(|| Refusal::NotAllowed("no realm at all".into()))?;
        Ok(Candidates { realm, rest: realms, why: None, asked })
    }

    /// Who we are in the realm at hand.
    pub(crate) fn own_id(&self) -> &Identity {
        self.realm.own_id(self.asked.as_ref())
    }

    /// Keeps those whose rules the peer fits, the narrowest first; of equals the one that wants this proof, then the one that stands
    /// first. Of signatures only realms that want one are tried after the first.
    ///
    /// # Errors
    /// There is none, in words.
    pub(crate) fn sort(
        &mut self,
        id: &Identity,
        method: AuthMethod,
        cert: Option<&CertInfo>,
    ) -> Result<(), String> {
        let proof = proof_of(method);
        // Without a certificate in the message it may be one that is known here.
        let open = proof == AuthPolicy::Pubkey && cert.is_none();
        let claims = Claims { cert, open, ..Claims::of(id, proof) };
        let first = Arc::clone(&self.realm);
        let all = std::iter::once(Arc::clone(&first)).chain(self.rest.drain(..));
        let mut ranked: Vec<_> = all
            .filter_map(|realm| Some(((realm.rank(&claims)?, realm.remote_auth == proof), realm)))
            .collect();
        ranked.sort_by(|(a, _), (b, _)| b.cmp(a));
        let mut realms = ranked.into_iter().map(|(_, realm)| realm);
        self.realm = realms.next().ok_or_else(|| unfit(id, cert, proof, &first))?;
        self.rest = realms.filter(|realm| realm.remote_auth == AuthPolicy::Pubkey).collect();
        Ok(())
    }

    /// Nobody vouches for the peer in this realm: goes on to the next one.
    ///
    /// # Errors
    /// There is none; what was wrong in the first.
    pub(crate) fn next(&mut self, why: String) -> Result<(), String> {
        match self.rest.pop_front() {
            Some(realm) => {
                self.why.get_or_insert(why);
                self.realm = realm;
                Ok(())
            }
            None => Err(self.why.take().unwrap_or(why)),
        }
    }
}

/// The kind of a method.
pub(crate) fn proof_of(method: AuthMethod) -> AuthPolicy {
    match method {
        AuthMethod::SHARED_KEY_MIC => AuthPolicy::Psk,
        AuthMethod::NULL => AuthPolicy::Null,
        _ => AuthPolicy::Pubkey,
    }
}

fn unfit(id: &Identity, cert: Option<&CertInfo>, proof: AuthPolicy, realm: &Realm) -> String {
    match (realm.remote_auth, proof) {
        (AuthPolicy::Null, AuthPolicy::Null) => {}
        (_, AuthPolicy::Null) => {
            return format!("the peer does not say who it is, and realm `{}` wants to know", realm.name);
        }
        (AuthPolicy::Null, _) => {
            return format!("realm `{}` is for peers that do not say who they are", realm.name);
        }
        _ => {}
    }
    let with =
        cert.map(|cert| format!(" with a certificate of {}", identity::spoken_for(cert))).unwrap_or_default();
    format!("`{id}`{with} is not `{}`, whom the realm accepts", realm.remote_id)
}
