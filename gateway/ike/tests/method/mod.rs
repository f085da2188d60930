//! An EAP method for tests of what carries it.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::cast_possible_truncation,
    reason = "every test file uses another part"
)]

/// An EAP method of a few rounds, whose state is in its packets: each side counts what the other has sent.
#[derive(Clone)]
pub struct Eap {
    /// Packets of the server before it decides.
    pub rounds: u8,
    /// Octets of each packet.
    pub size: usize,
    /// Whether the server refuses in the end.
    pub refuses: bool,
    /// Whether it says so by its last request, before EAP-Failure.
    pub regrets: bool,
    /// The client goes when it gets the request of this number.
    pub leaves: u8,
    /// Whose password has to be asked for first.
    pub wants: Option<String>,
    pub msk: Vec<u8>,
    /// The realm that the peer turns out to belong to.
    pub realm: String,
    pub grant: ipc::EapGrant,
}

impl Default for Eap {
    fn default() -> Self {
        let grant = ipc::EapGrant {
            identity: "carol".into(),
            method: "EAP-Test".into(),
            keyed: true,
            ..ipc::EapGrant::default()
        };
        Eap {
            rounds: 4,
            size: 32,
            refuses: false,
            regrets: false,
            leaves: 0,
            wants: None,
            msk: vec![5; 64],
            realm: "r".into(),
            grant,
        }
    }
}

impl Eap {
    fn packet(&self, code: u8, id: u8) -> Vec<u8> {
        let size = if code > 2 { 4 } else { self.size };
        let mut packet = vec![code, id, (size >> 8) as u8, size as u8];
        packet.resize(size, 255);
        packet
    }

    pub fn begin(&self, role: ipc::Role) -> ipc::EapStep {
        match (role, &self.wants) {
            (ipc::Role::Responder, _) => ipc::EapStep::Send(self.packet(1, 1)),
            (ipc::Role::Initiator, Some(user)) => ipc::EapStep::WantPassword(user.clone()),
            (ipc::Role::Initiator, None) => ipc::EapStep::Ready,
        }
    }

    pub fn receive(&self, packet: &[u8]) -> ipc::EapStep {
        let no = |packet| ipc::EapStep::Refused { packet, why: "not to be".into() };
        match *packet {
            // As the server.
            [2, id, ..] if id == self.rounds && self.regrets => {
                ipc::EapStep::Regret { packet: self.packet(1, id + 1), why: "not to be".into() }
            }
            [2, id, ..] if id < self.rounds => ipc::EapStep::Send(self.packet(1, id + 1)),
            [2, id, ..] if self.refuses => no(Some(self.packet(4, id))),
            [2, id, ..] => {
                let grant = Box::new(self.grant.clone());
                ipc::EapStep::Accepted {
                    packet: Some(self.packet(3, id)),
                    realm: self.realm.as_str().into(),
                    grant,
                }
            }
            // As the client.
            [1, id, ..] if id == self.leaves => no(None),
            [1, id, ..] => ipc::EapStep::Send(self.packet(2, id)),
            [3, ..] => ipc::EapStep::Accepted {
                packet: None,
                realm: self.realm.as_str().into(),
                grant: Box::new(self.grant.clone()),
            },
            _ => no(None),
        }
    }
}
