//! EAP conversations: whom they are with, what has come of them, and the proofs made with their keys. The network side brings
//! packets and carries ours away; passwords and keys stay here.
//!
//! A conversation is bounded in packets and in time, and so is their number: whoever brings packets may be a stranger, and the
//! network side may be somebody else's.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use eap::{Conversation, Grant, Step};
use ipc::{
    AuthInput, EapGrant, EapStep, IkeSaRef, MAX_CANDIDATES, MAX_EAP_LIST, MAX_EAP_PACKET, MAX_EAP_ROUNDS,
    MAX_EAP_TEXT, PeerProof, Refusal, Reply, Role, Table,
};
use policy::{AuthPolicy, Claims, EapMethod, Identity, Realm, identity_of_user};
use spi::{Doorbell, Secret, ShortOps, Token};
use wire::numbers::{AuthMethod, EapCode};

use crate::eap_judge::{EapTrust, Inquiries};
use crate::eap_methods::kind;
use crate::octets::{self, Prover};
use crate::psk;
use crate::vault::Vault;

/// Conversations at once, those included whose key is still to be used.
const MAX_TALKS: usize = 8192;
/// What a conversation may take longer here than the network side allows it.
const GRACE: Duration = Duration::from_secs(30);
/// Shortest key (RFC 3748 section 7.10).
const MIN_MSK: usize = 64;
/// Passwords that somebody has given, and questions for some.
const MAX_PROMPTS: usize = 256;

/// What makes conversations for one realm.
pub(crate) trait Opens: Send + Sync {
    /// Begins one.
    ///
    /// # Errors
    /// What is missing, for the operator.
    fn open(&self, opening: &Opening) -> Result<Box<dyn Conversation>, String>;

    /// Whether a conversation as server may wait for somebody else, who rings when there is an answer.
    fn waits(&self) -> bool {
        false
    }
}

/// What is known when a conversation begins.
pub(crate) struct Opening {
    /// Ours: the responder is the server.
    pub(crate) role: Role,
    pub(crate) realm: Arc<Realm>,
    /// What the peer calls itself in IKE.
    pub(crate) peer_id: Identity,
    /// From where it speaks.
    pub(crate) remote: std::net::IpAddr,
    /// The IKE SA.
    pub(crate) sa: IkeSaRef,
    /// Where passwords are asked for that are not written down.
    pub(crate) passwords: Passwords,
    /// Where it is asked whether certificates were revoked.
    pub(crate) inquiries: Inquiries,
}

/// All conversations.
pub(crate) struct Host {
    talks: HashMap<IkeSaRef, Talk>,
    cap: usize,
    bell: Doorbell,
    passwords: Passwords,
    inquiries: Inquiries,
    pub(crate) replies: VecDeque<(Token, Reply)>,
}

/// Who begins what.
pub(crate) struct Question {
    pub(crate) token: Token,
    pub(crate) sa: IkeSaRef,
    pub(crate) role: Role,
    pub(crate) peer_id: Identity,
    pub(crate) remote: std::net::IpAddr,
}

/// One conversation.
struct Talk {
    role: Role,
    /// The one whose methods are used; when it has succeeded, the one that the peer belongs to.
    realm: Arc<Realm>,
    /// Those that the peer may belong to, best first, and the users of each.
    realms: Vec<Arc<Realm>>,
    users: Vec<Arc<EapUsers>>,
    /// Whom the peer asked for.
    asked: Option<Identity>,
    /// What it calls itself in IKE.
    peer: Identity,
    /// When it is over, whatever it is doing.
    until: SystemTime,
    rounds: u16,
    /// Whether it may wait for somebody else than the one who gives passwords and the judge of certificates.
    waits: bool,
    state: State,
}

enum State {
    /// The other side's packet is awaited.
    Idle(Box<dyn Conversation>),
    /// Somebody else is asked; whose question is then answered. `None`: the network side was told that a password is wanted.
    Waiting(Box<dyn Conversation>, Option<Token>),
    /// It succeeded: the key, and how.
    Keyed(Secret, Arc<str>),
    Over,
}

impl Host {
    pub(crate) fn new(bell: Doorbell) -> Self {
        let passwords = Passwords { entries: Arc::default(), bell: bell.clone() };
        let inquiries = Inquiries::new(bell.clone());
        Host { talks: HashMap::new(), cap: MAX_TALKS, bell, passwords, inquiries, replies: VecDeque::new() }
    }

    /// Begins a conversation.
    ///
    /// # Errors
    /// Not in these realms, not now, or there are too many.
    pub(crate) fn begin(
        &mut self,
        table: &mut Table,
        vault: &Vault,
        at: SystemTime,
        question: Question,
        names: &[Arc<str>],
        asked: Option<Identity>,
    ) -> Result<(), Refusal> {
        let Question { token, sa, role, peer_id, remote } = question;
        let realms = candidates(vault, names, asked.as_ref(), role, &peer_id)?;
        let realm = realms.first().cloned().ok_or_else(|| Refusal::NotAllowed("no realm at all".into()))?;
        self.make_room(at)?;
        table.eap_begin(sa, role, realm.eap.only)?;
        let opening = Opening {
            role,
            realm: Arc::clone(&realm),
            peer_id: peer_id.clone(),
            remote,
            sa,
            passwords: self.passwords.clone(),
            inquiries: self.inquiries.clone(),
        };
        let none = || format!("realm `{}` has no EAP method that can run", realm.name);
        let opens = vault.eap(&realm.name);
        let waits = role == Role::Responder && opens.is_some_and(|opens| opens.waits());
        let conversation = opens.ok_or_else(none).and_then(|opens| opens.open(&opening));
        let mut conversation = conversation.map_err(|why| {
            table.eap_ended(sa, false);
            Refusal::NoCredential(why)
        })?;
        let until = at.checked_add(realm.eap.time + GRACE).unwrap_or(at);
        let users = realms.iter().map(|realm| vault.eap_users(&realm.name)).collect();
        let mut talk = Talk {
            role,
            realm,
            realms,
            users,
            asked,
            peer: peer_id,
            until,
            rounds: 0,
            waits,
            state: State::Over,
        };
        match role {
            Role::Responder => {
                let step = conversation.receive(None);
                talk.follow(table, &mut self.replies, sa, conversation, step, Some(token));
            }
            Role::Initiator => {
                talk.state = State::Idle(conversation);
                self.replies.push_back((token, Reply::Eap(EapStep::Ready)));
            }
        }
        self.talks.insert(sa, talk);
        Ok(())
    }

    /// The peer's next packet.
    ///
    /// # Errors
    /// None is awaited.
    pub(crate) fn packet(
        &mut self,
        table: &mut Table,
        at: SystemTime,
        token: Token,
        sa: IkeSaRef,
        packet: &[u8],
    ) -> Result<(), Refusal> {
        let Some(talk) = self.talks.get_mut(&sa) else { return Err(out_of_turn("EAP has not begun")) };
        if talk.until < at {
            return Err(out_of_turn("EAP has taken too long"));
        }
        if talk.rounds >= MAX_EAP_ROUNDS || packet.len() > MAX_EAP_PACKET {
            self.end(table, sa);
            return Err(Refusal::NotAllowed("EAP without end, or a packet of impossible length".into()));
        }
        match std::mem::replace(&mut talk.state, State::Over) {
            State::Idle(mut conversation) => {
                talk.rounds += 1;
                let step = conversation.receive(Some(packet));
                let waiting = matches!(step, Step::Wait);
                let judging = conversation.is_judging();
                let client = waiting && !judging && talk.role == Role::Initiator;
                let wanted = client.then(|| self.passwords.wanted(&talk.realm.name)).flatten();
                if let Some(user) = wanted {
                    talk.state = State::Waiting(conversation, None);
                    self.replies.push_back((token, Reply::Eap(EapStep::WantPassword(user))));
                } else if waiting && !talk.waits && !judging {
                    // RFC 3748 section 4 has such packets dropped, and the one before sent again. IKE has no way to say that, and
                    // whoever sent it has no other to send.
                    let failure = (talk.role == Role::Responder)
                        .then(|| vec![EapCode::FAILURE.0, packet.get(1).copied().unwrap_or(0), 0, 4]);
                    let why = "a packet that has no place in the conversation".to_owned();
                    let answer = talk.refuse(table, sa, failure, why);
                    self.replies.push_back((token, Reply::Eap(answer)));
                } else {
                    talk.follow(table, &mut self.replies, sa, conversation, step, Some(token));
                }
                self.forget_wrong_password(sa);
                Ok(())
            }
            other => {
                talk.state = other;
                Err(out_of_turn("no EAP packet is awaited"))
            }
        }
    }

    /// The network side has told that a password is wanted, and waits.
    ///
    /// # Errors
    /// Nothing is waited for.
    pub(crate) fn wait(
        &mut self,
        table: &mut Table,
        at: SystemTime,
        token: Token,
        sa: IkeSaRef,
    ) -> Result<(), Refusal> {
        let talk = self.talk(at, sa)?;
        match &mut talk.state {
            State::Waiting(_, answer @ None) => *answer = Some(token),
            _ => return Err(out_of_turn("nobody is asked for a password")),
        }
        // It may have come meanwhile.
        self.go_on(table, sa);
        Ok(())
    }

    /// Our proof by the key.
    ///
    /// # Errors
    /// Not now.
    pub(crate) fn make_auth(
        &mut self,
        table: &mut Table,
        short: &dyn ShortOps,
        token: Token,
        sa: IkeSaRef,
        input: &AuthInput,
    ) -> Result<(), Refusal> {
        let (octets, binding) = build(input, Prover::us(input.role))?;
        table.eap_make_auth(sa, input.role, binding)?;
        let (msk, _) = self.key(sa)?;
        let proof = psk::proof(short, input.prf, msk, &octets)
            .map_err(|fault| Refusal::System(format!("PRF: {fault}")))?;
        let (method, data) = (AuthMethod::SHARED_KEY_MIC.0, proof.expose().to_vec());
        self.replies.push_back((token, Reply::Proof { method, data, certs: Vec::new() }));
        if input.role == Role::Responder {
            self.talks.remove(&sa);
        }
        Ok(())
    }

    /// The peer's proof by the key.
    ///
    /// # Errors
    /// Not now, or it is wrong.
    pub(crate) fn check_auth(
        &mut self,
        table: &mut Table,
        short: &dyn ShortOps,
        token: Token,
        sa: IkeSaRef,
        input: &AuthInput,
        proof: &PeerProof,
    ) -> Result<(), Refusal> {
        let (octets, binding) = build(input, Prover::peer(input.role))?;
        table.eap_check_auth(sa, input.role, binding)?;
        let realm = self.talks.get(&sa).map(|talk| Arc::clone(&talk.realm.name)).unwrap_or_else(|| "".into());
        let (msk, how) = self.key(sa)?;
        let how = Arc::clone(how);
        let expected = psk::proof(short, input.prf, msk, &octets)
            .map_err(|fault| Refusal::System(format!("PRF: {fault}")))?;
        // RFC 7296 section 2.16: the method is that of shared keys.
        let right = AuthMethod(proof.method) == AuthMethod::SHARED_KEY_MIC && expected.ct_eq(&proof.data);
        table.eap_checked(sa, right);
        if !right || input.role == Role::Initiator {
            self.talks.remove(&sa);
        }
        if !right {
            let why = "AUTH was not made with the key that EAP gave: somebody may be in between";
            tracing::warn!(sa = sa.0, "{why}");
            return Err(Refusal::AuthenticationFailed(why.into()));
        }
        self.replies.push_back((token, Reply::PeerAccepted { realm, how }));
        Ok(())
    }

    /// The IKE SA is gone.
    pub(crate) fn forget(&mut self, sa: IkeSaRef) {
        let Some(Talk { realm, peer, state: State::Idle(conversation), .. }) = self.talks.remove(&sa) else {
            return;
        };
        // Many peers go without a word when they are told.
        if let Some(why) = conversation.failed() {
            tracing::warn!(realm = %realm.name, %peer, sa = sa.0, %why, "EAP failed");
        }
    }

    /// Somebody has given a password.
    pub(crate) fn give_password(&mut self, realm: &str, user: Option<&str>, password: Secret) {
        let user = user.map(str::to_owned).or_else(|| self.passwords.wanted(realm));
        match user {
            Some(user) => self.passwords.give(realm, &user, password),
            None => tracing::warn!(realm, "a password came, and nobody's is wanted"),
        }
    }

    /// Lets conversations that wait go on, if anything rang; returns whether something did.
    pub(crate) fn poll(&mut self, table: &mut Table) -> bool {
        if !self.bell.answer() {
            return false;
        }
        let waiting = self.talks.iter().filter(|(_, talk)| matches!(talk.state, State::Waiting(_, Some(_))));
        let waiting: Vec<IkeSaRef> = waiting.map(|(sa, _)| *sa).collect();
        for sa in waiting {
            self.go_on(table, sa);
        }
        true
    }

    /// Whether somebody would be asked for this password.
    #[cfg(test)]
    pub(crate) fn asks_again(&self, realm: &str, user: &str) -> bool {
        self.passwords.ask(realm, user).is_none()
    }

    /// What conversations want to know of certificates.
    pub(crate) fn inquiries(&self) -> &Inquiries {
        &self.inquiries
    }

    pub(crate) fn bell(&self) -> &Doorbell {
        &self.bell
    }

    fn go_on(&mut self, table: &mut Table, sa: IkeSaRef) {
        let Some(talk) = self.talks.get_mut(&sa) else { return };
        match std::mem::replace(&mut talk.state, State::Over) {
            State::Waiting(mut conversation, Some(token)) => {
                let judging = conversation.is_judging();
                let step = conversation.poll();
                // With the server judged, a password may be the next thing that is missing.
                let client = talk.role == Role::Initiator && matches!(step, Step::Wait);
                let asks = client && judging && !conversation.is_judging();
                match asks.then(|| self.passwords.wanted(&talk.realm.name)).flatten() {
                    Some(user) => {
                        talk.state = State::Waiting(conversation, None);
                        self.replies.push_back((token, Reply::Eap(EapStep::WantPassword(user))));
                    }
                    None => talk.follow(table, &mut self.replies, sa, conversation, step, Some(token)),
                }
                self.forget_wrong_password(sa);
            }
            other => talk.state = other,
        }
    }

    fn talk(&mut self, at: SystemTime, sa: IkeSaRef) -> Result<&mut Talk, Refusal> {
        match self.talks.get_mut(&sa) {
            Some(talk) if talk.until >= at => Ok(talk),
            Some(_) => Err(out_of_turn("EAP has taken too long")),
            None => Err(out_of_turn("EAP has not begun")),
        }
    }

    fn key(&self, sa: IkeSaRef) -> Result<(&[u8], &Arc<str>), Refusal> {
        match self.talks.get(&sa).map(|talk| &talk.state) {
            Some(State::Keyed(msk, how)) => Ok((msk.expose(), how)),
            _ => Err(out_of_turn("EAP has given no key")),
        }
    }

    fn end(&mut self, table: &mut Table, sa: IkeSaRef) {
        table.eap_ended(sa, false);
        self.talks.remove(&sa);
    }

    /// Those go first whose time is over: an honest network side has forgotten them.
    fn make_room(&mut self, at: SystemTime) -> Result<(), Refusal> {
        if self.talks.len() >= self.cap {
            self.talks.retain(|_, talk| talk.until >= at);
        }
        if self.talks.len() >= self.cap {
            return Err(Refusal::System("too many EAP conversations at once".into()));
        }
        Ok(())
    }

    /// A password that somebody gave and that was refused is asked for again.
    fn forget_wrong_password(&mut self, sa: IkeSaRef) {
        if let Some(talk) = self.talks.get(&sa)
            && talk.role == Role::Initiator
            && matches!(talk.state, State::Over)
        {
            self.passwords.forget(&talk.realm.name);
        }
    }
}

impl Talk {
    /// Notes what a step means, and answers.
    fn follow(
        &mut self,
        table: &mut Table,
        replies: &mut VecDeque<(Token, Reply)>,
        sa: IkeSaRef,
        conversation: Box<dyn Conversation>,
        step: Step,
        token: Option<Token>,
    ) {
        let answer = match step {
            Step::Wait => {
                self.state = State::Waiting(conversation, token);
                return;
            }
            Step::Send(packet) if packet.len() <= MAX_EAP_PACKET => {
                let regret = conversation.failed().filter(|_| self.role == Role::Responder);
                self.state = State::Idle(conversation);
                match regret {
                    Some(why) => EapStep::Regret { packet, why },
                    None => EapStep::Send(packet),
                }
            }
            Step::Send(packet) => {
                self.refuse(table, sa, None, format!("a packet of {} octets to send", packet.len()))
            }
            Step::Accepted { packet, grant } => self.accept(table, sa, packet, *grant),
            Step::Refused { packet, why } => self.refuse(table, sa, packet, why),
        };
        if let Some(token) = token {
            replies.push_back((token, Reply::Eap(answer)));
        }
    }

    fn accept(&mut self, table: &mut Table, sa: IkeSaRef, packet: Option<Vec<u8>>, grant: Grant) -> EapStep {
        let told = shown(&grant);
        let why = match &grant.msk {
            _ if grant.identity.is_empty() || grant.identity.len() > MAX_EAP_TEXT => "no identity of any use",
            Some(msk) if msk.len() < MIN_MSK => "a key that is too short",
            _ => {
                let realm = match self.belongs(&grant) {
                    Ok(realm) => realm,
                    Err(why) => {
                        let packet = failure_for(packet);
                        return self.refuse(table, sa, packet, why);
                    }
                };
                self.realm = Arc::clone(&realm);
                table.eap_ended(sa, grant.msk.is_some());
                let how: Arc<str> = grant.method.as_str().into();
                self.state = grant.msk.map_or(State::Over, |msk| State::Keyed(msk, how));
                return EapStep::Accepted { packet, realm: Arc::clone(&realm.name), grant: Box::new(told) };
            }
        };
        let packet = failure_for(packet);
        self.refuse(table, sa, packet, format!("{} gave {why}", grant.method))
    }

    /// Which of the realms that came into question is that of the one who has proved itself now. The rules are those of the
    /// realms; beside them a realm must take the method, have the user, and go by the name that the peer was told.
    fn belongs(&self, grant: &Grant) -> Result<Arc<Realm>, String> {
        if self.role == Role::Initiator {
            let keyed = grant.msk.is_some() || self.realm.eap.keyless;
            let no_key = || format!("{} gave no key, and the realm wants one", grant.method);
            return keyed.then(|| Arc::clone(&self.realm)).ok_or_else(no_key);
        }
        let id = identity_of_user(&grant.identity);
        let claims = Claims {
            asked: self.asked.as_ref(),
            eap: Some(&grant.identity),
            groups: &grant.granted.groups,
            ..Claims::of(&id, AuthPolicy::Eap)
        };
        let told = self.realm.own_id(self.asked.as_ref());
        let by = |realm: &Realm, method: &EapMethod| {
            realm.eap.methods.contains(method) && by_method(&grant.method, *method)
        };
        let fits = |realm: &Realm, users: &EapUsers| {
            let method = match self.realm.eap.methods.as_slice() {
                // Somebody else has chosen it.
                [] => realm.eap.methods.is_empty(),
                all => all.iter().any(|method| by(realm, method)),
            };
            let keyed = grant.msk.is_some() || realm.eap.keyless;
            let only = realm.eap.only == self.realm.eap.only;
            method
                && keyed
                && only
                && users.may_be(&grant.identity)
                && realm.own_id(self.asked.as_ref()) == told
        };
        let ranked = self.realms.iter().zip(&self.users).filter(|(realm, users)| fits(realm, users));
        let ranked = ranked.filter_map(|(realm, users)| Some((realm.rank(&claims)?, realm, users)));
        // Of equals the first: they are in their order.
        let best = ranked.reduce(|best, next| if next.0 > best.0 { next } else { best });
        let (_, realm, users) = best.ok_or_else(|| {
            format!(
                "`{}` by {} belongs to no realm that came into question; `{}` accepts `{}`",
                grant.identity, grant.method, self.realm.name, self.realm.remote_id
            )
        })?;
        // The certificate was judged as the first realm has it.
        if by_method(&grant.method, EapMethod::Tls)
            && let Some(first) = self.users.first()
        {
            first.trust.suffices_for(&users.trust).map_err(|why| {
                let (who, here) = (&grant.identity, &self.realm.name);
                format!(
                    "`{who}` belongs to realm `{}`, which {why} than realm `{here}`, whose methods were used",
                    realm.name
                )
            })?;
        }
        Ok(Arc::clone(realm))
    }

    fn refuse(&mut self, table: &mut Table, sa: IkeSaRef, packet: Option<Vec<u8>>, why: String) -> EapStep {
        table.eap_ended(sa, false);
        self.state = State::Over;
        tracing::warn!(realm = %self.realm.name, peer = %self.peer, sa = sa.0, why = %why, "EAP failed");
        EapStep::Refused { packet, why }
    }
}

/// Users of a realm, by name; those of others are known as such.
pub(crate) struct EapUsers {
    /// Names that are for this realm.
    pub(crate) here: HashSet<String>,
    /// Names that are for others only.
    pub(crate) elsewhere: HashSet<String>,
    /// Which certificates may be in the place of a password.
    pub(crate) trust: Arc<EapTrust>,
}

impl EapUsers {
    /// Whether somebody of this name may be a peer of the realm. Who has a certificate in the place of a password is written down
    /// nowhere.
    fn may_be(&self, name: &str) -> bool {
        let bare = name.split_once('\\').map_or(name, |(_, user)| user);
        let known = |name: &str| self.here.contains(name);
        known(name) || known(bare) || !(self.elsewhere.contains(name) || self.elsewhere.contains(bare))
    }
}

/// The realms that come into question, with the first the one whose methods are used.
fn candidates(
    vault: &Vault,
    names: &[Arc<str>],
    asked: Option<&Identity>,
    role: Role,
    peer: &Identity,
) -> Result<Vec<Arc<Realm>>, Refusal> {
    if names.len() > MAX_CANDIDATES || (role == Role::Initiator && names.len() > 1) {
        return Err(Refusal::NotAllowed(format!("{} realms to choose from", names.len())));
    }
    let mut realms = Vec::new();
    for name in names {
        let realm = vault.realm(name).ok_or_else(|| Refusal::NotAllowed(format!("no realm `{name}`")))?;
        let (side, proof) = match role {
            Role::Responder => (realm.remote_auth, AuthPolicy::Eap),
            Role::Initiator => (realm.local_auth, realm.remote_auth),
        };
        if side != AuthPolicy::Eap {
            return Err(Refusal::NotAllowed(format!("realm `{name}` has no use for EAP")));
        }
        let claims = Claims { asked, open: true, ..Claims::of(peer, proof) };
        if realm.rank(&claims).is_none() {
            let what = format!("`{peer}` is not `{}`, whom realm `{name}` accepts", realm.remote_id);
            return Err(Refusal::AuthenticationFailed(what));
        }
        realms.push(Arc::clone(realm));
    }
    Ok(realms)
}

/// Whether the words for a method, perhaps with what ran inside, are about this one.
fn by_method(words: &str, method: EapMethod) -> bool {
    words.split(' ').next() == Some(kind(method).to_string().as_str())
}

/// What would have been EAP-Success is a failure under the same identifier (RFC 3748 section 4.2).
fn failure_for(packet: Option<Vec<u8>>) -> Option<Vec<u8>> {
    let [_, id, ..] = packet.as_deref()? else { return None };
    Some(vec![EapCode::FAILURE.0, *id, 0, 4])
}

/// What the network side learns, within bounds.
fn shown(grant: &Grant) -> EapGrant {
    let granted = &grant.granted;
    let text = |text: &String| text.chars().take(MAX_EAP_TEXT / 4).collect::<String>();
    let octets = |octets: &&Vec<u8>| octets.len() <= MAX_EAP_TEXT;
    EapGrant {
        identity: grant.identity.clone(),
        method: text(&grant.method),
        keyed: grant.msk.is_some(),
        addresses: granted.addresses.iter().take(MAX_EAP_LIST).copied().collect(),
        dns: granted.dns.iter().take(MAX_EAP_LIST).copied().collect(),
        session_timeout: granted.session_timeout,
        interim: granted.interim,
        groups: granted.groups.iter().take(MAX_EAP_LIST).map(text).collect(),
        class: granted.class.iter().filter(octets).take(MAX_EAP_LIST).cloned().collect(),
        accounted: granted.accounted,
    }
}

/// Passwords that are not written down: asked for, and given.
#[derive(Clone)]
pub(crate) struct Passwords {
    entries: Entries,
    bell: Doorbell,
}

/// By realm and user; `None`: wanted, and not given yet.
type Entries = Arc<Mutex<HashMap<(String, String), Option<Secret>>>>;

impl Passwords {
    /// The password of this user, if somebody has given it; otherwise it is wanted from now on.
    pub(crate) fn ask(&self, realm: &str, user: &str) -> Option<Secret> {
        let mut entries = self.lock();
        let key = (realm.to_owned(), user.to_owned());
        match entries.get(&key) {
            Some(given) => given.as_ref().map(Secret::duplicate),
            None => {
                if entries.len() < MAX_PROMPTS {
                    entries.insert(key, None);
                }
                None
            }
        }
    }

    fn give(&self, realm: &str, user: &str, password: Secret) {
        let mut entries = self.lock();
        let key = (realm.to_owned(), user.to_owned());
        if entries.len() < MAX_PROMPTS || entries.contains_key(&key) {
            entries.insert(key, Some(password));
        }
        drop(entries);
        self.bell.ring();
    }

    /// Whose password is wanted in a realm.
    fn wanted(&self, realm: &str) -> Option<String> {
        let entries = self.lock();
        entries
            .iter()
            .find(|((of, _), given)| of == realm && given.is_none())
            .map(|((_, user), _)| user.clone())
    }

    fn forget(&self, realm: &str) {
        self.lock().retain(|(of, _), _| of != realm);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<(String, String), Option<Secret>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn build(input: &AuthInput, prover: Prover) -> Result<(Vec<u8>, ipc::Binding), Refusal> {
    octets::build(input, prover).map_err(|e| {
        tracing::warn!(why = %e, "octets that are not IKE_SA_INIT were to be proved");
        Refusal::NotAllowed(e.to_string())
    })
}

fn out_of_turn(why: &str) -> Refusal {
    Refusal::OutOfTurn(why.into())
}
