//! RADIUS as far as it takes to carry EAP to and from real programs (RFC 2865, RFC 3579, RFC 2548): packets, nothing of
//! what a gateway has to do besides.

use std::collections::HashMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use eap::{Conversation, Peer, PeerConfig, Server, ServerConfig, Step};
use md5::{Digest, Md5};

use super::{End, random};

pub const SECRET: &[u8] = b"lab-secret";

const ACCESS_REQUEST: u8 = 1;
const ACCESS_ACCEPT: u8 = 2;
const ACCESS_REJECT: u8 = 3;
const ACCESS_CHALLENGE: u8 = 11;

const USER_NAME: u8 = 1;
const STATE: u8 = 24;
const VENDOR_SPECIFIC: u8 = 26;
const EAP_MESSAGE: u8 = 79;
const MESSAGE_AUTHENTICATOR: u8 = 80;

const MPPE_SEND: u8 = 16;
const MPPE_RECV: u8 = 17;

/// A packet.
struct Packet {
    code: u8,
    id: u8,
    authenticator: [u8; 16],
    attributes: Vec<(u8, Vec<u8>)>,
}

impl Packet {
    fn new(code: u8, id: u8, authenticator: [u8; 16]) -> Packet {
        Packet { code, id, authenticator, attributes: vec![] }
    }

    fn parse(octets: &[u8]) -> Packet {
        let length = usize::from(u16::from_be_bytes([octets[2], octets[3]]));
        let mut rest = &octets[20..length];
        let mut packet = Packet::new(octets[0], octets[1], octets[4..20].try_into().unwrap());
        while let [kind, len, ..] = rest {
            let (attribute, after) = rest.split_at(usize::from(*len));
            packet.attributes.push((*kind, attribute[2..].to_vec()));
            rest = after;
        }
        packet
    }

    fn push_eap(&mut self, message: &[u8]) {
        self.attributes.extend(message.chunks(253).map(|chunk| (EAP_MESSAGE, chunk.to_vec())));
    }

    fn eap(&self) -> Vec<u8> {
        let parts = self.attributes.iter().filter(|(kind, _)| *kind == EAP_MESSAGE);
        parts.flat_map(|(_, value)| value.clone()).collect()
    }

    fn get(&self, kind: u8) -> Option<&[u8]> {
        self.attributes.iter().find(|(k, _)| *k == kind).map(|(_, value)| value.as_slice())
    }

    fn octets(&self, authenticator: &[u8; 16]) -> Vec<u8> {
        let mut out = vec![self.code, self.id, 0, 0];
        out.extend_from_slice(authenticator);
        for (kind, value) in &self.attributes {
            out.extend_from_slice(&[*kind, value.len() as u8 + 2]);
            out.extend_from_slice(value);
        }
        let length = (out.len() as u16).to_be_bytes();
        out[2..4].copy_from_slice(&length);
        out
    }

    /// With its Message-Authenticator, which is calculated over the request's authenticator.
    fn sealed(mut self, request: &[u8; 16]) -> Packet {
        self.attributes.push((MESSAGE_AUTHENTICATOR, vec![0; 16]));
        let mac = hmac_md5(SECRET, &self.octets(request));
        self.attributes.last_mut().unwrap().1 = mac.to_vec();
        self
    }

    /// Whether its Message-Authenticator is right.
    fn is_sealed(&self, request: &[u8; 16]) -> bool {
        let Some(mac) = self.get(MESSAGE_AUTHENTICATOR).map(<[u8]>::to_vec) else { return false };
        let mut blank = Packet::new(self.code, self.id, self.authenticator);
        let zero = |(kind, value): &(u8, Vec<u8>)| {
            (*kind, if *kind == MESSAGE_AUTHENTICATOR { vec![0; 16] } else { value.clone() })
        };
        blank.attributes = self.attributes.iter().map(zero).collect();
        hmac_md5(SECRET, &blank.octets(request))[..] == mac[..]
    }

    fn push_mppe(&mut self, kind: u8, key: &[u8], request: &[u8; 16]) {
        let salt = [0x80 | kind, 1];
        let mut plain = vec![key.len() as u8];
        plain.extend_from_slice(key);
        plain.resize(plain.len().next_multiple_of(16), 0);
        let mut value = vec![0, 0, 1, 0x37, kind, plain.len() as u8 + 4];
        value.extend_from_slice(&salt);
        let mut last = [&request[..], &salt].concat();
        for block in plain.chunks(16) {
            let pad = Md5::new().chain_update(SECRET).chain_update(&last).finalize();
            last = block.iter().zip(pad).map(|(a, b)| a ^ b).collect();
            value.extend_from_slice(&last);
        }
        self.attributes.push((VENDOR_SPECIFIC, value));
    }

    fn mppe(&self, kind: u8, request: &[u8; 16]) -> Option<Vec<u8>> {
        let ours =
            |(k, value): &&(u8, Vec<u8>)| *k == VENDOR_SPECIFIC && value.starts_with(&[0, 0, 1, 0x37, kind]);
        let value = &self.attributes.iter().find(ours)?.1[6..];
        let (salt, sealed) = value.split_at(2);
        let mut last = [&request[..], salt].concat();
        let mut plain = vec![];
        for block in sealed.chunks(16) {
            let pad = Md5::new().chain_update(SECRET).chain_update(&last).finalize();
            plain.extend(block.iter().zip(pad).map(|(a, b)| a ^ b));
            last = block.to_vec();
        }
        Some(plain[1..=usize::from(plain[0])].to_vec())
    }
}

fn hmac_md5(key: &[u8], data: &[u8]) -> [u8; 16] {
    let mut padded = [0; 64];
    padded[..key.len()].copy_from_slice(key);
    let inner = Md5::new().chain_update(padded.map(|octet| octet ^ 0x36)).chain_update(data).finalize();
    Md5::new().chain_update(padded.map(|octet| octet ^ 0x5c)).chain_update(inner).finalize().into()
}

/// A RADIUS server on a port of its own, which runs our server's conversations.
pub struct Authenticator {
    pub at: SocketAddr,
    /// How conversations ended, one after the other.
    pub ends: Receiver<End>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Authenticator {
    pub fn start(config: ServerConfig) -> Authenticator {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let (at, (send, ends)) = (socket.local_addr().unwrap(), channel());
        let stop = Arc::new(AtomicBool::new(false));
        let (config, stopped) = (Arc::new(config), Arc::clone(&stop));
        let thread = std::thread::spawn(move || serve(&socket, &config, &stopped, &send));
        Authenticator { at, ends, stop, thread: Some(thread) }
    }
}

impl Drop for Authenticator {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn serve(socket: &UdpSocket, config: &Arc<ServerConfig>, stop: &AtomicBool, ends: &Sender<End>) {
    let mut open: HashMap<Vec<u8>, Server> = HashMap::new();
    let mut buffer = [0; 4096];
    let mut count = 0u32;
    while !stop.load(Ordering::Relaxed) {
        let Ok((len, from)) = socket.recv_from(&mut buffer) else { continue };
        let request = Packet::parse(&buffer[..len]);
        assert_eq!(request.code, ACCESS_REQUEST);
        assert!(request.is_sealed(&request.authenticator), "the Message-Authenticator is wrong");
        let state = request.get(STATE).map_or_else(
            || {
                count += 1;
                count.to_be_bytes().to_vec()
            },
            <[u8]>::to_vec,
        );
        let server =
            open.entry(state.clone()).or_insert_with(|| Server::new(Arc::clone(config), None, random()));
        let reply = |code| Packet::new(code, request.id, request.authenticator);
        let (mut packet, end) = match server.receive(Some(&request.eap())) {
            Step::Wait => continue,
            Step::Send(eap) => {
                let mut packet = reply(ACCESS_CHALLENGE);
                packet.push_eap(&eap);
                packet.attributes.push((STATE, state.clone()));
                (packet, None)
            }
            Step::Accepted { packet: eap, grant } => {
                let mut packet = reply(ACCESS_ACCEPT);
                packet.push_eap(&eap.unwrap());
                if let Some(msk) = &grant.msk {
                    packet.push_mppe(MPPE_RECV, &msk.expose()[..32], &request.authenticator);
                    packet.push_mppe(MPPE_SEND, &msk.expose()[32..], &request.authenticator);
                }
                (packet, Some(End::Accepted(grant)))
            }
            Step::Refused { packet: eap, why } => {
                let mut packet = reply(ACCESS_REJECT);
                packet.push_eap(&eap.unwrap());
                (packet, Some(End::Refused(why)))
            }
        };
        if let Some(end) = end {
            open.remove(&state);
            let _ = ends.send(end);
        }
        packet = packet.sealed(&request.authenticator);
        let sum = Md5::new()
            .chain_update(packet.octets(&request.authenticator))
            .chain_update(SECRET)
            .finalize()
            .into();
        socket.send_to(&packet.octets(&sum), from).unwrap();
    }
}

/// Lets a peer call a RADIUS server. Returns how it ended, and the key the server gave.
pub fn go(server: SocketAddr, config: PeerConfig) -> (End, Option<Vec<u8>>) {
    let name = config.anonymous.clone().unwrap_or_else(|| config.identity.clone());
    call(server, Peer::new(Arc::new(config), random()), &name)
}

/// Carries our peer's conversation to a RADIUS server.
fn call(server: SocketAddr, mut peer: Peer, name: &str) -> (End, Option<Vec<u8>>) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    socket.connect(server).unwrap();
    let mut state = None;
    // The question that every authenticator asks by itself.
    let mut step = peer.receive(Some(&[1, 0, 0, 5, 1]));
    for id in 0.. {
        let Step::Send(response) = step else { panic!("no answer") };
        let mut authenticator = [0; 16];
        random()(&mut authenticator);
        let mut request = Packet::new(ACCESS_REQUEST, id, authenticator);
        request.attributes.push((USER_NAME, name.as_bytes().to_vec()));
        request.push_eap(&response);
        request.attributes.extend(state.take().map(|state| (STATE, state)));
        let request = request.sealed(&authenticator);
        socket.send(&request.octets(&authenticator)).unwrap();
        let mut buffer = [0; 4096];
        let len = socket.recv(&mut buffer).expect("the RADIUS server is silent");
        let reply = Packet::parse(&buffer[..len]);
        assert!(reply.is_sealed(&authenticator), "the Message-Authenticator is wrong");
        state = reply.get(STATE).map(<[u8]>::to_vec);
        let eap = reply.eap();
        match (reply.code, peer.receive(Some(&eap))) {
            (ACCESS_CHALLENGE, next @ Step::Send(_)) => step = next,
            (ACCESS_CHALLENGE, Step::Refused { why, .. }) => return (End::Refused(why), None),
            (ACCESS_ACCEPT, Step::Accepted { grant, .. }) => {
                let recv = reply.mppe(MPPE_RECV, &authenticator);
                let send = reply.mppe(MPPE_SEND, &authenticator);
                let key = recv.zip(send).map(|(recv, send)| [recv, send].concat());
                return (End::Accepted(grant), key);
            }
            (ACCESS_REJECT, Step::Refused { why, .. }) => return (End::Refused(why), None),
            (code, _) => panic!("RADIUS code {code} and our peer do not agree"),
        }
    }
    unreachable!("256 packets")
}
