//! What may be asked when. The network side faces everybody and may one day be somebody else's; this table bounds what it
//! can make of the keys then:
//!
//! | question | when | how often |
//! |---|---|---|
//! | `MakeAuth`, initiator | any time | once per IKE SA |
//! | `MakeAuth`, responder | after `CheckAuth` accepted the peer, for the realm it was accepted in | once per IKE SA |
//! | `CheckAuth` | any time | once per IKE SA |
//! | `EapBegin`, responder | before `CheckAuth`, in a realm whose peers use EAP | once per IKE SA |
//! | `EapBegin`, initiator | after `CheckAuth` accepted the peer, or at once where EAP alone is to do (RFC 5998) | once per IKE SA |
//! | `EapPacket`, `EapWait` | while EAP runs | bounded |
//! | `EapCheckAuth`, responder | after EAP gave a key | once per IKE SA |
//! | `EapMakeAuth`, responder | after `EapCheckAuth` accepted the peer | once per IKE SA |
//! | `EapMakeAuth`, initiator | after EAP gave a key | once per IKE SA |
//! | `EapCheckAuth`, initiator | after `EapMakeAuth` | once per IKE SA |
//! | `Forget` | any time | frees the entry |
//!
//! With EAP begun a responder may make its signature before the peer has proved anything: RFC 7296 section 2.16 wants it in
//! the first answer, so that no client shows a credential to a stranger. Whether EAP may begin is a matter of the realm.
//!
//! All questions of one IKE SA must speak of one IKE_SA_INIT exchange: the same initiator's SPI and the same two nonces.
//! A second `MakeAuth` is refused even if the first failed, because a signature may have been made; the network side
//! starts over with a new IKE SA.

use std::collections::HashMap;
use std::sync::Arc;

use crate::request::{IkeSaRef, Refusal, Role};

/// IKE SAs remembered at once, unless [`Table::new`] says otherwise.
pub const MAX_SAS: usize = 1 << 18;

/// What ties the two questions of an IKE SA together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The initiator's SPI in the message.
    pub spi_i: u64,
    /// Nonce of the initiator.
    pub nonce_i: Vec<u8>,
    /// Nonce of the responder.
    pub nonce_r: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Check {
    NotAsked,
    Open,
    Accepted,
    Refused,
}

/// Where EAP stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Eap {
    NotBegun,
    Running,
    /// It succeeded, with a key.
    Keyed,
    /// It succeeded without a key, or failed: there is nothing more to ask.
    Over,
}

struct Entry {
    role: Role,
    made: bool,
    check: Check,
    eap: Eap,
    eap_made: bool,
    eap_check: Check,
    /// Where the peer was accepted.
    realm: Option<Arc<str>>,
    // Only until the last question: nonces of established SAs are of no more use.
    binding: Option<Box<Binding>>,
}

/// One line per IKE SA. Bounded.
pub struct Table {
    entries: HashMap<IkeSaRef, Entry>,
    cap: usize,
}

impl Default for Table {
    fn default() -> Self {
        Table::new(MAX_SAS)
    }
}

impl Table {
    /// A table for at most `cap` IKE SAs.
    pub fn new(cap: usize) -> Self {
        Table { entries: HashMap::new(), cap }
    }

    /// Whether `MakeAuth` may be asked now; if so, it has been.
    ///
    /// # Errors
    /// [`Refusal::OutOfTurn`].
    pub fn make_auth(
        &mut self,
        sa: IkeSaRef,
        role: Role,
        realm: &str,
        binding: Binding,
    ) -> Result<(), Refusal> {
        let entry = self.entries.get(&sa);
        if role == Role::Responder && !entry.is_some_and(|e| e.eap == Eap::Running) {
            match entry.map(|e| e.check) {
                Some(Check::Accepted) if entry.and_then(|e| e.realm.as_deref()) == Some(realm) => {}
                Some(Check::Accepted) => return Err(out_of_turn("the peer was accepted in another realm")),
                Some(Check::Refused) => return Err(out_of_turn("the peer was refused")),
                Some(Check::Open) => return Err(out_of_turn("the peer's proof is still being checked")),
                Some(Check::NotAsked) | None => return Err(out_of_turn("the peer has not proved itself")),
            }
        }
        let entry = self.entry(sa, role)?;
        if entry.made {
            return Err(out_of_turn("a second proof for one IKE SA"));
        }
        let done = entry.check != Check::NotAsked && entry.eap == Eap::NotBegun;
        entry.bind(binding, done)?;
        entry.made = true;
        Ok(())
    }

    /// Whether `CheckAuth` may be asked now; if so, it has been, and [`checked`](Table::checked) is to follow.
    ///
    /// # Errors
    /// [`Refusal::OutOfTurn`].
    pub fn check_auth(&mut self, sa: IkeSaRef, role: Role, binding: Binding) -> Result<(), Refusal> {
        let entry = self.entry(sa, role)?;
        if entry.check != Check::NotAsked {
            return Err(out_of_turn("a second check for one IKE SA"));
        }
        if entry.eap != Eap::NotBegun {
            return Err(out_of_turn("the peer is to prove itself by EAP"));
        }
        let done = entry.made;
        entry.bind(binding, done)?;
        entry.check = Check::Open;
        Ok(())
    }

    /// How the check ended: in which realm the peer was accepted, if it was. The IKE SA may be forgotten by now.
    pub fn checked(&mut self, sa: IkeSaRef, accepted: Option<&Arc<str>>) {
        if let Some(entry) = self.entries.get_mut(&sa)
            && entry.check == Check::Open
        {
            entry.check = if accepted.is_some() { Check::Accepted } else { Check::Refused };
            entry.realm = accepted.cloned();
        }
    }

    /// Whether EAP may begin now; if so, it has. `alone`: the initiator need not have accepted the responder before.
    ///
    /// # Errors
    /// [`Refusal::OutOfTurn`].
    pub fn eap_begin(&mut self, sa: IkeSaRef, role: Role, alone: bool) -> Result<(), Refusal> {
        let check = self.entries.get(&sa).map_or(Check::NotAsked, |e| e.check);
        let ready = match role {
            Role::Responder => check == Check::NotAsked,
            Role::Initiator => check == Check::Accepted || (alone && check == Check::NotAsked),
        };
        if !ready {
            return Err(out_of_turn(match role {
                Role::Responder => "the peer proves itself in another way",
                Role::Initiator => "the responder has not proved itself",
            }));
        }
        let entry = self.entry(sa, role)?;
        if entry.eap != Eap::NotBegun {
            return Err(out_of_turn("EAP a second time for one IKE SA"));
        }
        entry.eap = Eap::Running;
        Ok(())
    }

    /// How EAP ended. The IKE SA may be forgotten by now.
    pub fn eap_ended(&mut self, sa: IkeSaRef, keyed: bool) {
        if let Some(entry) = self.entries.get_mut(&sa)
            && entry.eap == Eap::Running
        {
            entry.eap = if keyed { Eap::Keyed } else { Eap::Over };
            if !keyed {
                entry.binding = None;
            }
        }
    }

    /// Whether `EapMakeAuth` may be asked now; if so, it has been.
    ///
    /// # Errors
    /// [`Refusal::OutOfTurn`].
    pub fn eap_make_auth(&mut self, sa: IkeSaRef, role: Role, binding: Binding) -> Result<(), Refusal> {
        let entry = self.keyed(sa, role)?;
        if role == Role::Responder && entry.eap_check != Check::Accepted {
            return Err(out_of_turn("the peer has not proved itself"));
        }
        if entry.eap_made {
            return Err(out_of_turn("a second proof by EAP for one IKE SA"));
        }
        let done = entry.eap_check != Check::NotAsked;
        entry.bind(binding, done)?;
        entry.eap_made = true;
        Ok(())
    }

    /// Whether `EapCheckAuth` may be asked now; if so, it has been, and [`eap_checked`](Table::eap_checked) is to follow.
    ///
    /// # Errors
    /// [`Refusal::OutOfTurn`].
    pub fn eap_check_auth(&mut self, sa: IkeSaRef, role: Role, binding: Binding) -> Result<(), Refusal> {
        let entry = self.keyed(sa, role)?;
        if role == Role::Initiator && !entry.eap_made {
            return Err(out_of_turn("we have not proved ourselves"));
        }
        if entry.eap_check != Check::NotAsked {
            return Err(out_of_turn("a second check by EAP for one IKE SA"));
        }
        let done = entry.eap_made;
        entry.bind(binding, done)?;
        entry.eap_check = Check::Open;
        Ok(())
    }

    /// How the check by EAP's key ended.
    pub fn eap_checked(&mut self, sa: IkeSaRef, accepted: bool) {
        if let Some(entry) = self.entries.get_mut(&sa)
            && entry.eap_check == Check::Open
        {
            entry.eap_check = if accepted { Check::Accepted } else { Check::Refused };
        }
    }

    fn keyed(&mut self, sa: IkeSaRef, role: Role) -> Result<&mut Entry, Refusal> {
        match self.entries.get_mut(&sa) {
            Some(entry) if entry.eap == Eap::Keyed && entry.role == role => Ok(entry),
            _ => Err(out_of_turn("EAP has not given a key")),
        }
    }

    /// The IKE SA is gone.
    pub fn forget(&mut self, sa: IkeSaRef) {
        self.entries.remove(&sa);
    }

    /// IKE SAs remembered.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn entry(&mut self, sa: IkeSaRef, role: Role) -> Result<&mut Entry, Refusal> {
        if !self.entries.contains_key(&sa) && self.entries.len() >= self.cap {
            return Err(out_of_turn("too many IKE SAs at once"));
        }
        let fresh = || Entry {
            role,
            made: false,
            check: Check::NotAsked,
            realm: None,
            eap: Eap::NotBegun,
            eap_made: false,
            eap_check: Check::NotAsked,
            binding: None,
        };
        let entry = self.entries.entry(sa).or_insert_with(fresh);
        if entry.role != role {
            return Err(out_of_turn("an IKE SA has one role"));
        }
        Ok(entry)
    }
}

impl Entry {
    /// Takes the binding of the first question, compares those of the others, and lets it go with the last.
    fn bind(&mut self, binding: Binding, last: bool) -> Result<(), Refusal> {
        match &self.binding {
            Some(first) if **first != binding => {
                return Err(out_of_turn("the proofs of an IKE SA are about different exchanges"));
            }
            _ => {}
        }
        self.binding = if last { None } else { Some(Box::new(binding)) };
        Ok(())
    }
}

fn out_of_turn(why: &str) -> Refusal {
    Refusal::OutOfTurn(why.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: IkeSaRef = IkeSaRef(1);

    fn binding(n: u8) -> Binding {
        Binding { spi_i: 7, nonce_i: vec![n; 32], nonce_r: vec![2; 32] }
    }

    fn refused(result: Result<(), Refusal>) -> bool {
        matches!(result, Err(Refusal::OutOfTurn(_)))
    }

    #[test]
    fn one_proof_and_one_check_per_ike_sa() {
        let mut t = Table::default();
        assert!(t.make_auth(A, Role::Initiator, "a", binding(1)).is_ok());
        assert!(refused(t.make_auth(A, Role::Initiator, "a", binding(1))));
        assert!(t.check_auth(A, Role::Initiator, binding(1)).is_ok());
        assert!(refused(t.check_auth(A, Role::Initiator, binding(1))));
        assert!(refused(t.make_auth(A, Role::Initiator, "a", binding(1))));
        assert!(t.make_auth(IkeSaRef(2), Role::Initiator, "a", binding(1)).is_ok(), "another SA");
    }

    #[test]
    fn a_responder_proves_itself_only_to_a_peer_that_was_accepted() {
        let mut t = Table::default();
        assert!(refused(t.make_auth(A, Role::Responder, "a", binding(1))));
        assert!(t.is_empty(), "a refused question leaves nothing behind");
        t.check_auth(A, Role::Responder, binding(1)).unwrap();
        assert!(refused(t.make_auth(A, Role::Responder, "a", binding(1))), "still being checked");
        t.checked(A, Some(&"a".into()));
        assert!(refused(t.make_auth(A, Role::Responder, "b", binding(1))), "another realm");
        assert!(t.make_auth(A, Role::Responder, "a", binding(1)).is_ok());
        let b = IkeSaRef(2);
        t.check_auth(b, Role::Responder, binding(1)).unwrap();
        t.checked(b, None);
        t.checked(b, Some(&"a".into()));
        assert!(refused(t.make_auth(b, Role::Responder, "a", binding(1))), "refused stays refused");
    }

    #[test]
    fn both_questions_are_about_one_exchange_and_one_role() {
        let mut t = Table::default();
        t.make_auth(A, Role::Initiator, "a", binding(1)).unwrap();
        assert!(refused(t.check_auth(A, Role::Initiator, binding(9))));
        assert!(refused(t.check_auth(A, Role::Responder, binding(1))));
        assert!(t.check_auth(A, Role::Initiator, binding(1)).is_ok());
    }

    #[test]
    fn with_eap_begun_a_responder_proves_itself_first_and_by_the_key_last() {
        let mut t = Table::default();
        t.eap_begin(A, Role::Responder, false).unwrap();
        assert!(refused(t.eap_begin(A, Role::Responder, false)));
        assert!(refused(t.check_auth(A, Role::Responder, binding(1))), "no way around EAP");
        t.make_auth(A, Role::Responder, "r", binding(1)).unwrap();
        assert!(refused(t.make_auth(A, Role::Responder, "r", binding(1))));
        assert!(refused(t.eap_check_auth(A, Role::Responder, binding(1))), "EAP still runs");
        t.eap_ended(A, true);
        assert!(refused(t.eap_make_auth(A, Role::Responder, binding(1))), "the peer goes first");
        assert!(refused(t.eap_check_auth(A, Role::Responder, binding(9))), "of another exchange");
        t.eap_check_auth(A, Role::Responder, binding(1)).unwrap();
        assert!(refused(t.eap_make_auth(A, Role::Responder, binding(1))), "still being checked");
        t.eap_checked(A, true);
        assert!(refused(t.eap_make_auth(A, Role::Responder, binding(9))), "of another exchange");
        t.eap_make_auth(A, Role::Responder, binding(1)).unwrap();
        assert!(refused(t.eap_make_auth(A, Role::Responder, binding(1))));
    }

    #[test]
    fn a_client_shows_no_credential_before_the_server_has_proved_itself() {
        let mut t = Table::default();
        assert!(refused(t.eap_begin(A, Role::Initiator, false)));
        assert!(t.is_empty());
        t.check_auth(A, Role::Initiator, binding(1)).unwrap();
        assert!(refused(t.eap_begin(A, Role::Initiator, true)), "still being checked");
        t.checked(A, None);
        assert!(refused(t.eap_begin(A, Role::Initiator, true)), "refused stays refused");
        let b = IkeSaRef(2);
        t.check_auth(b, Role::Initiator, binding(1)).unwrap();
        t.checked(b, Some(&"r".into()));
        t.eap_begin(b, Role::Initiator, false).unwrap();
        t.eap_ended(b, true);
        assert!(refused(t.eap_check_auth(b, Role::Initiator, binding(1))), "ours goes first");
        assert!(refused(t.eap_make_auth(b, Role::Initiator, binding(9))), "of another exchange");
        t.eap_make_auth(b, Role::Initiator, binding(1)).unwrap();
        t.eap_check_auth(b, Role::Initiator, binding(1)).unwrap();
        assert!(refused(t.eap_check_auth(b, Role::Initiator, binding(1))));
        // Where EAP alone is to do, nothing comes before it.
        t.eap_begin(IkeSaRef(3), Role::Initiator, true).unwrap();
    }

    #[test]
    fn without_a_key_eap_proves_nothing_here() {
        let mut t = Table::default();
        t.eap_begin(A, Role::Responder, false).unwrap();
        t.eap_ended(A, false);
        t.eap_ended(A, true);
        assert!(refused(t.eap_check_auth(A, Role::Responder, binding(1))));
        assert!(refused(t.eap_make_auth(A, Role::Responder, binding(1))));
        assert!(
            refused(t.make_auth(A, Role::Responder, "r", binding(1))),
            "nor is a signature made any more"
        );
    }

    #[test]
    fn the_table_is_bounded_and_forget_frees() {
        let mut t = Table::new(2);
        t.make_auth(IkeSaRef(1), Role::Initiator, "a", binding(1)).unwrap();
        t.make_auth(IkeSaRef(2), Role::Initiator, "a", binding(1)).unwrap();
        assert!(refused(t.make_auth(IkeSaRef(3), Role::Initiator, "a", binding(1))));
        assert!(t.check_auth(IkeSaRef(1), Role::Initiator, binding(1)).is_ok(), "those inside go on");
        t.forget(IkeSaRef(2));
        assert!(t.make_auth(IkeSaRef(3), Role::Initiator, "a", binding(1)).is_ok());
        assert_eq!(t.len(), 2);
    }
}
