//! What may be asked when. The network side faces everybody and may one day be somebody else's; this table bounds what it
//! can make of the keys then:
//!
//! | question | when | how often |
//! |---|---|---|
//! | `MakeAuth`, initiator | any time | once per IKE SA |
//! | `MakeAuth`, responder | after `CheckAuth` accepted the peer, for the realm it was accepted in | once per IKE SA |
//! | `CheckAuth` | any time | once per IKE SA |
//! | `Forget` | any time | frees the entry |
//!
//! Both questions of one IKE SA must speak of one IKE_SA_INIT exchange: the same initiator's SPI and the same two nonces.
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

struct Entry {
    role: Role,
    made: bool,
    check: Check,
    /// Where the peer was accepted.
    realm: Option<Arc<str>>,
    // Only between the two questions: nonces of established SAs are of no more use.
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
        if role == Role::Responder {
            let entry = self.entries.get(&sa);
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
        let done = entry.check != Check::NotAsked;
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
        let fresh = || Entry { role, made: false, check: Check::NotAsked, realm: None, binding: None };
        let entry = self.entries.entry(sa).or_insert_with(fresh);
        if entry.role != role {
            return Err(out_of_turn("an IKE SA has one role"));
        }
        Ok(entry)
    }
}

impl Entry {
    /// Takes the binding of the first question, compares that of the second and lets it go.
    fn bind(&mut self, binding: Binding, second: bool) -> Result<(), Refusal> {
        match &self.binding {
            Some(first) if **first != binding => {
                return Err(out_of_turn("the two proofs of an IKE SA are about different exchanges"));
            }
            _ => {}
        }
        self.binding = if second { None } else { Some(Box::new(binding)) };
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
