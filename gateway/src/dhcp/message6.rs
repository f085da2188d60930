//! Messages of DHCPv6 (RFC 8415 sections 8, 9 and 21) as a relay agent that is its own clients' client writes and reads them.
//!
//! `dhcproto` is not used here: its relay message option holds relay messages alone, not those of clients.

use std::net::Ipv6Addr;

/// Types of messages (RFC 8415 section 7.3).
pub(super) mod kind {
    pub(in crate::dhcp) const SOLICIT: u8 = 1;
    pub(in crate::dhcp) const ADVERTISE: u8 = 2;
    pub(in crate::dhcp) const REQUEST: u8 = 3;
    pub(in crate::dhcp) const RENEW: u8 = 5;
    pub(in crate::dhcp) const REBIND: u8 = 6;
    pub(in crate::dhcp) const REPLY: u8 = 7;
    pub(in crate::dhcp) const RELEASE: u8 = 8;
    pub(in crate::dhcp) const RELAY_FORW: u8 = 12;
    pub(in crate::dhcp) const RELAY_REPL: u8 = 13;
}

/// Status codes (RFC 8415 section 21.13).
pub(super) mod status {
    pub(in crate::dhcp) const SUCCESS: u16 = 0;
    pub(in crate::dhcp) const UNSPEC_FAIL: u16 = 1;
    pub(in crate::dhcp) const NO_BINDING: u16 = 3;
}

/// Codes of options.
mod option {
    pub(super) const CLIENT_ID: u16 = 1;
    pub(super) const SERVER_ID: u16 = 2;
    pub(super) const IA_NA: u16 = 3;
    pub(super) const IA_ADDRESS: u16 = 5;
    pub(super) const REQUEST: u16 = 6;
    pub(super) const PREFERENCE: u16 = 7;
    pub(super) const ELAPSED: u16 = 8;
    pub(super) const RELAY_MESSAGE: u16 = 9;
    pub(super) const STATUS: u16 = 13;
    pub(super) const RAPID_COMMIT: u16 = 14;
    pub(super) const INTERFACE_ID: u16 = 18;
    pub(super) const DNS_SERVERS: u16 = 23;
    pub(super) const DOMAINS: u16 = 24;
    pub(super) const SUBSCRIBER_ID: u16 = 38;
    pub(super) const SOL_MAX_RT: u16 = 82;
}

/// A client has one address of us.
const IAID: u32 = 1;
/// Longest DUID (RFC 8415 section 11.1).
const MAX_DUID: usize = 130;
/// A relay message's header: type, hops, two addresses.
const RELAY_HEADER: usize = 34;

/// What a client says.
pub(super) struct Outgoing<'a> {
    pub(super) kind: u8,
    pub(super) xid: u32,
    /// Its DUID.
    pub(super) client: &'a [u8],
    /// The one server it is for.
    pub(super) server: Option<&'a [u8]>,
    /// The address it has, or would like.
    pub(super) address: Option<Ipv6Addr>,
    /// Hundredths of a second since it began.
    pub(super) elapsed: u16,
}

impl Outgoing<'_> {
    pub(super) fn emit(&self) -> Vec<u8> {
        let [_, xid @ ..] = self.xid.to_be_bytes();
        let mut out = vec![self.kind];
        out.extend(xid);
        push(&mut out, option::CLIENT_ID, self.client);
        if let Some(server) = self.server {
            push(&mut out, option::SERVER_ID, server);
        }
        // T1 and T2 are the server's to say.
        let mut ia = [&IAID.to_be_bytes()[..], &[0; 8]].concat();
        if let Some(address) = self.address {
            push(&mut ia, option::IA_ADDRESS, &[&address.octets()[..], &[0; 8]].concat());
        }
        push(&mut out, option::IA_NA, &ia);
        push(&mut out, option::ELAPSED, &self.elapsed.to_be_bytes());
        if self.kind == kind::SOLICIT {
            push(&mut out, option::RAPID_COMMIT, &[]);
        }
        if self.kind != kind::RELEASE {
            let mut wanted = vec![option::DNS_SERVERS, option::DOMAINS];
            // RFC 8415 section 21.24: asked for in every Solicit. Ours are too few for it to matter.
            wanted.extend((self.kind == kind::SOLICIT).then_some(option::SOL_MAX_RT));
            let wanted: Vec<u8> = wanted.into_iter().flat_map(u16::to_be_bytes).collect();
            push(&mut out, option::REQUEST, &wanted);
        }
        out
    }
}

/// How a relay agent passes on what a client says, and servers answer it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Relayed<'a> {
    /// Our address in the network the client belongs to.
    pub(super) link: Ipv6Addr,
    /// The client's link-local address.
    pub(super) peer: Ipv6Addr,
    /// Interface-Id (RFC 8415 section 21.18): servers return it.
    pub(super) interface: &'a [u8],
    pub(super) message: &'a [u8],
}

impl<'a> Relayed<'a> {
    /// With the client's name as Subscriber-Id (RFC 4580).
    pub(super) fn emit(&self, subscriber: &[u8]) -> Vec<u8> {
        let mut out = vec![kind::RELAY_FORW, 0];
        out.extend(self.link.octets());
        out.extend(self.peer.octets());
        push(&mut out, option::INTERFACE_ID, self.interface);
        push(&mut out, option::SUBSCRIBER_ID, subscriber);
        push(&mut out, option::RELAY_MESSAGE, self.message);
        out
    }

    /// A Relay-reply.
    pub(super) fn parse(octets: &'a [u8]) -> Option<Relayed<'a>> {
        let (header, options) = octets.split_at_checked(RELAY_HEADER)?;
        let [kind::RELAY_REPL, 0, addresses @ ..] = header else { return None };
        let (link, peer) = addresses.split_first_chunk::<16>()?;
        let (link, peer) = ((*link).into(), <[u8; 16]>::try_from(peer).ok()?.into());
        let mut relayed = Relayed { link, peer, interface: &[], message: &[] };
        for (code, value) in Options::all(options)? {
            match code {
                option::INTERFACE_ID => relayed.interface = value,
                option::RELAY_MESSAGE => relayed.message = value,
                _ => {}
            }
        }
        (!relayed.message.is_empty()).then_some(relayed)
    }
}

/// What a server says to a client.
#[derive(Debug, Default)]
pub(super) struct Incoming {
    pub(super) kind: u8,
    pub(super) xid: u32,
    pub(super) client: Vec<u8>,
    pub(super) server: Vec<u8>,
    pub(super) preference: u8,
    pub(super) rapid: bool,
    pub(super) status: Status,
    pub(super) ia: Option<Ia>,
    pub(super) dns: Vec<Ipv6Addr>,
    pub(super) domains: Vec<Vec<u8>>,
}

/// A status code and what was said with it; without the option it is success.
#[derive(Debug, Default)]
pub(super) struct Status {
    pub(super) code: u16,
    pub(super) text: String,
}

/// The IA_NA of a message.
#[derive(Debug, Default)]
pub(super) struct Ia {
    pub(super) t1: u32,
    pub(super) t2: u32,
    pub(super) status: Status,
    pub(super) addresses: Vec<IaAddress>,
}

/// An address in it; times in seconds, all ones are for ever (RFC 8415 section 7.7).
#[derive(Clone, Copy, Debug)]
pub(super) struct IaAddress {
    pub(super) address: Ipv6Addr,
    pub(super) preferred: u32,
    pub(super) valid: u32,
}

impl Incoming {
    /// `None`: it is no message, or lacks what all that servers say must have (RFC 8415 sections 16.3 and 16.10).
    pub(super) fn parse(octets: &[u8]) -> Option<Incoming> {
        let ([kind, a, b, c], options) = octets.split_first_chunk::<4>()?;
        let mut message =
            Incoming { kind: *kind, xid: u32::from_be_bytes([0, *a, *b, *c]), ..Incoming::default() };
        for (code, value) in Options::all(options)? {
            match code {
                option::CLIENT_ID => message.client = value.to_vec(),
                option::SERVER_ID => message.server = value.to_vec(),
                option::PREFERENCE => message.preference = *value.first()?,
                option::RAPID_COMMIT => message.rapid = true,
                option::STATUS => message.status = Status::parse(value)?,
                option::IA_NA => {
                    let (id, ia) = Ia::parse(value)?;
                    if id == IAID {
                        message.ia = Some(ia);
                    }
                }
                option::DNS_SERVERS => {
                    message.dns = value.as_chunks::<16>().0.iter().map(|a| (*a).into()).collect();
                }
                option::DOMAINS => message.domains = names(value)?,
                _ => {}
            }
        }
        let named = |duid: &[u8]| (1..=MAX_DUID).contains(&duid.len());
        (named(&message.client) && named(&message.server)).then_some(message)
    }

    /// What went wrong, if something did.
    pub(super) fn failure(&self) -> Option<&Status> {
        let all = [Some(&self.status), self.ia.as_ref().map(|ia| &ia.status)];
        all.into_iter().flatten().find(|status| status.code != status::SUCCESS)
    }
}

impl Status {
    fn parse(value: &[u8]) -> Option<Status> {
        let (code, text) = value.split_first_chunk::<2>()?;
        // A server's text: told without what a terminal would act on.
        let text = String::from_utf8_lossy(text).escape_default().take(200).collect();
        Some(Status { code: u16::from_be_bytes(*code), text })
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = match self.code {
            1 => "UnspecFail",
            2 => "NoAddrsAvail",
            3 => "NoBinding",
            4 => "NotOnLink",
            5 => "UseMulticast",
            code => return write!(f, "status {code} {}", self.text),
        };
        if self.text.is_empty() { f.write_str(name) } else { write!(f, "{name}, {}", self.text) }
    }
}

impl Ia {
    fn parse(value: &[u8]) -> Option<(u32, Ia)> {
        let (id, rest) = number(value)?;
        let (t1, rest) = number(rest)?;
        let (t2, rest) = number(rest)?;
        let mut ia = Ia { t1, t2, ..Ia::default() };
        for (code, value) in Options::all(rest)? {
            match code {
                option::STATUS => ia.status = Status::parse(value)?,
                option::IA_ADDRESS => {
                    let (address, rest) = value.split_first_chunk::<16>()?;
                    let (preferred, rest) = number(rest)?;
                    let (valid, _) = number(rest)?;
                    // RFC 8415 section 21.6: otherwise it is as if it were not there.
                    if preferred <= valid {
                        ia.addresses.push(IaAddress { address: (*address).into(), preferred, valid });
                    }
                }
                _ => {}
            }
        }
        // RFC 8415 section 21.4: such an IA is discarded.
        if ia.t1 > ia.t2 && ia.t2 > 0 {
            ia.addresses.clear();
        }
        Some((id, ia))
    }
}

/// Options one after the other.
struct Options<'a>(&'a [u8]);

impl<'a> Options<'a> {
    /// All of them; `None` when one does not end where the message does.
    fn all(octets: &'a [u8]) -> Option<Vec<(u16, &'a [u8])>> {
        let mut rest = Options(octets);
        let mut all = Vec::new();
        while !rest.0.is_empty() {
            all.push(rest.take()?);
        }
        Some(all)
    }

    fn take(&mut self) -> Option<(u16, &'a [u8])> {
        let ([a, b, c, d], rest) = self.0.split_first_chunk::<4>()?;
        let (value, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([*c, *d])))?;
        self.0 = rest;
        Some((u16::from_be_bytes([*a, *b]), value))
    }
}

/// Names as DNS writes them, uncompressed (RFC 8415 section 10), with dots.
fn names(mut octets: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut all = Vec::new();
    let mut name: Vec<u8> = Vec::new();
    while let Some((len, rest)) = octets.split_first() {
        if *len == 0 {
            all.push(std::mem::take(&mut name));
            octets = rest;
            continue;
        }
        let (label, rest) = rest.split_at_checked(usize::from(*len)).filter(|_| *len < 64)?;
        if !name.is_empty() {
            name.push(b'.');
        }
        name.extend(label);
        octets = rest;
    }
    name.is_empty().then_some(all)
}

fn number(octets: &[u8]) -> Option<(u32, &[u8])> {
    let (number, rest) = octets.split_first_chunk::<4>()?;
    Some((u32::from_be_bytes(*number), rest))
}

fn push(out: &mut Vec<u8>, code: u16, value: &[u8]) {
    // Values are ours and short: a DUID, an identity's beginning, a message of those.
    let len = u16::try_from(value.len()).unwrap_or(u16::MAX);
    out.extend(code.to_be_bytes());
    out.extend(len.to_be_bytes());
    out.extend(value.iter().take(usize::from(len)));
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A server's answer to what a relay has sent: the message's type, the address with its times, and options of its own.
    pub(in crate::dhcp) fn answer(
        forward: &[u8],
        kind: u8,
        ia: Option<(Ipv6Addr, [u32; 4])>,
        more: &[(u16, &[u8])],
    ) -> Vec<u8> {
        let (header, options) = forward.split_at(RELAY_HEADER);
        let options = Options::all(options).unwrap();
        let find = |code| options.iter().find(|(c, _)| *c == code).unwrap().1;
        let (asked, interface) = (find(option::RELAY_MESSAGE), find(option::INTERFACE_ID));
        let inner = Options::all(&asked[4..]).unwrap();
        let mut message = vec![kind, asked[1], asked[2], asked[3]];
        push(&mut message, option::CLIENT_ID, inner.iter().find(|(c, _)| *c == option::CLIENT_ID).unwrap().1);
        push(&mut message, option::SERVER_ID, b"server");
        if let Some((address, [t1, t2, preferred, valid])) = ia {
            let mut value: Vec<u8> = [IAID, t1, t2].iter().flat_map(|n| n.to_be_bytes()).collect();
            let times = [preferred, valid].into_iter().flat_map(u32::to_be_bytes);
            push(
                &mut value,
                option::IA_ADDRESS,
                &address.octets().into_iter().chain(times).collect::<Vec<_>>(),
            );
            push(&mut message, option::IA_NA, &value);
        }
        more.iter().for_each(|(code, value)| push(&mut message, *code, value));
        let mut out = vec![kind::RELAY_REPL, 0];
        out.extend(&header[2..]);
        push(&mut out, option::INTERFACE_ID, interface);
        push(&mut out, option::RELAY_MESSAGE, &message);
        out
    }

    /// Type of the message within, and the options that tell one from another.
    pub(in crate::dhcp) fn asked(forward: &[u8]) -> (u8, Option<Vec<u8>>, Option<Ipv6Addr>) {
        assert_eq!(forward[0], kind::RELAY_FORW);
        let options = Options::all(&forward[RELAY_HEADER..]).unwrap();
        let inner = options.iter().find(|(code, _)| *code == option::RELAY_MESSAGE).unwrap().1;
        let options = Options::all(&inner[4..]).unwrap();
        let find = |code| options.iter().find(|(c, _)| *c == code).map(|(_, value)| *value);
        let (_, ia) = find(option::IA_NA).unwrap().split_at(12);
        let address =
            Options::all(ia).unwrap().first().map(|(_, value)| Ipv6Addr::from(*value.first_chunk().unwrap()));
        (inner[0], find(option::SERVER_ID).map(<[u8]>::to_vec), address)
    }

    #[test]
    fn names_are_read_as_dns_writes_them() {
        let names = |octets: &[u8]| names(octets);
        assert_eq!(
            names(b"\x03lan\x07example\x00\x01x\x00"),
            Some(vec![b"lan.example".to_vec(), b"x".to_vec()])
        );
        for bad in [&b"\x03la"[..], b"\xc0\x00", b"\x03lan", b"\x40"] {
            assert_eq!(names(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn whatever_comes_is_read_or_refused() {
        let outgoing = Outgoing {
            kind: kind::SOLICIT,
            xid: 0x0001_0203,
            client: b"client",
            server: None,
            address: Some("fec1::7".parse().unwrap()),
            elapsed: 7,
        };
        let message = outgoing.emit();
        let (link, peer) = ("fec1::1".parse().unwrap(), "fe80::1".parse().unwrap());
        let forward = Relayed { link, peer, interface: b"realm", message: &message }.emit(b"carol");
        let given = ("fec1::7".parse().unwrap(), [50, 80, 100, 200]);
        let dns: [u8; 16] = "fec1::53".parse::<Ipv6Addr>().unwrap().octets();
        let more: [(u16, &[u8]); 4] = [(13, b"\0\x02full"), (23, &dns), (24, b"\x01x\0"), (7, &[9])];
        let whole = answer(&forward, kind::ADVERTISE, Some(given), &more);
        let relayed = Relayed::parse(&whole).unwrap();
        assert_eq!((relayed.link, relayed.peer, relayed.interface), (link, peer, &b"realm"[..]));
        let read = Incoming::parse(relayed.message).unwrap();
        assert_eq!((read.xid, read.preference, read.dns.len(), read.domains.len()), (0x0001_0203, 9, 1, 1));
        assert_eq!(read.failure().unwrap().to_string(), "NoAddrsAvail, full");
        // Cut anywhere, and with any one octet different.
        for end in 0..whole.len() {
            assert!(
                Relayed::parse(&whole[..end]).is_none_or(|r| Incoming::parse(r.message).is_none()),
                "{end}"
            );
        }
        for at in 0..whole.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut other = whole.clone();
                other[at] = value;
                if let Some(relayed) = Relayed::parse(&other) {
                    let _ = Incoming::parse(relayed.message);
                }
            }
        }
        // Times that contradict each other.
        for times in [[80, 50, 100, 200], [50, 80, 200, 100]] {
            let whole = answer(&forward, kind::REPLY, Some((given.0, times)), &[]);
            let read = Incoming::parse(Relayed::parse(&whole).unwrap().message).unwrap();
            assert!(read.ia.unwrap().addresses.is_empty(), "{times:?}");
        }
    }
}
