//! LDAP (RFC 4511), as much of it as fetches one attribute of one entry (RFC 4516): an anonymous bind and a search of the base object.
//! Own code because every answer has to be bounded before it is read, which the clients there are do not do.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::Url;
use super::url::decode;

const INTEGER: u8 = 0x02;
const OCTETS: u8 = 0x04;
const ENUMERATED: u8 = 0x0a;
const SEQUENCE: u8 = 0x30;
const BIND_REQUEST: u8 = 0x60;
const BIND_RESPONSE: u8 = 0x61;
const UNBIND_REQUEST: u8 = 0x42;
const SEARCH_REQUEST: u8 = 0x63;
const SEARCH_ENTRY: u8 = 0x64;
const SEARCH_DONE: u8 = 0x65;
/// `(objectClass=*)`: whatever is there.
const PRESENT: u8 = 0x87;

/// What surrounds a value in a message, octets.
const AROUND: usize = 64 * 1024;
/// Messages that are read before giving up.
const MAX_MESSAGES: usize = 16;

/// Fetches the first value of the attribute that the URL names.
pub(super) fn fetch(
    url: &Url,
    until: Instant,
    most: usize,
    addresses: &[SocketAddr],
) -> Result<Vec<u8>, String> {
    let wanted = Wanted::of(url)?;
    let mut why = format!("{} has no address", url.host);
    for address in addresses.iter().take(3) {
        match search(&wanted, *address, until, most) {
            Ok(value) => return Ok(value),
            Err(error) => why = format!("{} at {address}: {error}", url.host),
        }
    }
    Err(why)
}

/// What is asked for.
pub(crate) struct Wanted {
    base: Vec<u8>,
    attribute: Vec<u8>,
}

impl Wanted {
    /// What a URL says.
    pub(crate) fn of(url: &Url) -> Result<Wanted, String> {
        let mut parts = url.rest.trim_start_matches('/').split('?');
        let broken = || format!("the LDAP URL of {} makes no sense", url.host);
        let base = decode(parts.next().unwrap_or_default()).ok_or_else(broken)?;
        let attributes = decode(parts.next().unwrap_or_default()).ok_or_else(broken)?;
        let (scope, filter) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        if base.is_empty() {
            return Err(format!("the LDAP URL of {} names no entry", url.host));
        }
        // RFC 4516: the base object is what is meant where nothing is said.
        if !matches!(&*scope.to_ascii_lowercase(), "" | "base") {
            return Err(format!("the LDAP URL of {} is of a search (`{scope}`), not of one entry", url.host));
        }
        let filter = decode(filter).ok_or_else(broken)?;
        let filter = filter.strip_prefix(b"(").and_then(|f| f.strip_suffix(b")")).unwrap_or(&filter);
        if !filter.is_empty()
            && !filter.eq_ignore_ascii_case(b"objectClass=*")
            && !filter.eq_ignore_ascii_case(b"objectClass=cRLDistributionPoint")
        {
            return Err(format!("the LDAP URL of {} has a filter, which is not supported", url.host));
        }
        let attribute = match attributes.split(|octet| *octet == b',').next() {
            None | Some(b"") => b"certificateRevocationList;binary".to_vec(),
            Some(first) => first.to_vec(),
        };
        Ok(Wanted { base, attribute })
    }
}

fn search(wanted: &Wanted, address: SocketAddr, until: Instant, most: usize) -> Result<Vec<u8>, String> {
    let stream = TcpStream::connect_timeout(&address, left(until)?).map_err(|error| error.to_string())?;
    ask(wanted, stream, until, most)
}

/// A connection to a server.
pub(crate) trait Stream: Read + Write {
    /// How long the next octets may take, either way.
    fn allow(&self, time: Duration) -> std::io::Result<()>;
}

impl Stream for TcpStream {
    fn allow(&self, time: Duration) -> std::io::Result<()> {
        self.set_read_timeout(Some(time))?;
        self.set_write_timeout(Some(time))
    }
}

/// Asks a server that somebody has connected to.
pub(crate) fn ask(
    wanted: &Wanted,
    stream: impl Stream,
    until: Instant,
    most: usize,
) -> Result<Vec<u8>, String> {
    let mut wire = Wire { stream, until, most: most + AROUND };
    // Version 3, no name, no password.
    let bind = [tlv(INTEGER, &[3]), tlv(OCTETS, &[]), tlv(0x80, &[])].concat();
    wire.send(1, &tlv(BIND_REQUEST, &bind))?;
    let answer = wire.receive(1)?;
    result(answer.of(BIND_RESPONSE)?, "will not talk to strangers")?;
    let request = [
        tlv(OCTETS, &wanted.base),
        tlv(ENUMERATED, &[0]),
        tlv(ENUMERATED, &[0]),
        // One entry, whatever time it takes: ours is bounded here.
        tlv(INTEGER, &[1]),
        tlv(INTEGER, &[0]),
        tlv(0x01, &[0]),
        tlv(PRESENT, b"objectClass"),
        tlv(SEQUENCE, &tlv(OCTETS, &wanted.attribute)),
    ];
    wire.send(2, &tlv(SEARCH_REQUEST, &request.concat()))?;
    let mut found = None;
    for _ in 0..MAX_MESSAGES {
        let answer = wire.receive(2)?;
        match answer.kind {
            SEARCH_ENTRY if found.is_none() => found = value(&answer.content, &wanted.attribute)?,
            SEARCH_DONE => {
                result(&answer.content, "does not give it away")?;
                let _ = wire.send(3, &[UNBIND_REQUEST, 0]);
                let value = found.ok_or("there is no such attribute")?;
                return if value.len() > most { Err(format!("more than {most} octets")) } else { Ok(value) };
            }
            // A reference elsewhere is not followed.
            _ => {}
        }
    }
    Err("it does not come to an end".into())
}

struct Wire<S> {
    stream: S,
    until: Instant,
    most: usize,
}

struct Message {
    kind: u8,
    content: Vec<u8>,
}

impl Message {
    fn of(&self, kind: u8) -> Result<&[u8], String> {
        if self.kind == kind { Ok(&self.content) } else { Err("it answers something else".into()) }
    }
}

impl<S: Stream> Wire<S> {
    fn send(&mut self, id: u8, operation: &[u8]) -> Result<(), String> {
        let message = tlv(SEQUENCE, &[&tlv(INTEGER, &[id]), operation].concat());
        self.stream.allow(left(self.until)?).map_err(|error| error.to_string())?;
        self.stream.write_all(&message).map_err(|error| error.to_string())
    }

    fn receive(&mut self, id: u8) -> Result<Message, String> {
        let mut head = [0; 2];
        self.fill(&mut head)?;
        let [tag, first] = head;
        if tag != SEQUENCE {
            return Err("it does not speak LDAP".into());
        }
        let len = match first {
            short @ 0..0x80 => usize::from(short),
            long => {
                let octets = usize::from(long & 0x7f);
                if !(1..=4).contains(&octets) {
                    return Err("it does not speak LDAP".into());
                }
                let mut len = [0; 4];
                self.fill(&mut len[4 - octets..])?;
                u32::from_be_bytes(len) as usize
            }
        };
        if len > self.most {
            return Err(format!("a message of more than {} octets", self.most));
        }
        // Grows with what comes, not with what is announced.
        let mut message = Vec::new();
        let mut part = [0; 16 * 1024];
        while message.len() < len {
            let room = part.len().min(len - message.len());
            let Some(part) = part.get_mut(..room) else { break };
            self.fill(part)?;
            message.extend_from_slice(part);
        }
        let broken = || "it does not speak LDAP".to_owned();
        let (number, rest) = take(&message).filter(|(field, _)| field.tag == INTEGER).ok_or_else(broken)?;
        let (operation, _) = take(rest).ok_or_else(broken)?;
        // An unsolicited notification (RFC 4511 section 4.4) has the number 0: it says goodbye.
        if number.value != [id] {
            return Err("it answers something else, or ends the connection".into());
        }
        Ok(Message { kind: operation.tag, content: operation.value.to_vec() })
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), String> {
        let mut have = 0;
        while have < buffer.len() {
            self.stream.allow(left(self.until)?).map_err(|error| error.to_string())?;
            let room = buffer.get_mut(have..).unwrap_or_default();
            match self.stream.read(room) {
                Ok(0) => return Err("it broke off".into()),
                Ok(got) => have += got,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    return Err("it did not answer in time".into());
                }
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok(())
    }
}

/// A field: BER, definite lengths, which need not be of the shortest form.
struct Field<'a> {
    tag: u8,
    value: &'a [u8],
}

fn take(octets: &[u8]) -> Option<(Field<'_>, &[u8])> {
    let (&[tag, first], rest) = octets.split_first_chunk::<2>()?;
    // Tags of more than one octet are not in LDAP.
    if tag & 0x1f == 0x1f {
        return None;
    }
    let (len, rest) = match first {
        short @ 0..0x80 => (usize::from(short), rest),
        long => {
            let octets = usize::from(long & 0x7f);
            if !(1..=4).contains(&octets) {
                return None;
            }
            let (len, rest) = rest.split_at_checked(octets)?;
            (len.iter().fold(0, |len, octet| len << 8 | usize::from(*octet)), rest)
        }
    };
    let (value, rest) = rest.split_at_checked(len)?;
    Some((Field { tag, value }, rest))
}

/// The outcome of an operation (RFC 4511 section 4.1.9).
fn result(content: &[u8], refusal: &str) -> Result<(), String> {
    match take(content) {
        Some((code, _)) if code.tag == ENUMERATED && code.value == [0] => Ok(()),
        Some((code, rest)) if code.tag == ENUMERATED => {
            let said =
                take(rest).and_then(|(_, rest)| take(rest)).map(|(said, _)| said.value).unwrap_or_default();
            let said: String =
                String::from_utf8_lossy(said).chars().filter(|c| !c.is_control()).take(200).collect();
            let code = code.value.first().copied().unwrap_or_default();
            match code {
                32 => Err("there is no such entry".into()),
                _ => Err(format!("it {refusal} (result {code}) {said}").trim_end().to_owned()),
            }
        }
        _ => Err("it does not speak LDAP".into()),
    }
}

/// The first value of an attribute of a SearchResultEntry.
fn value(content: &[u8], attribute: &[u8]) -> Result<Option<Vec<u8>>, String> {
    let broken = || "an entry that makes no sense".to_owned();
    let (_, rest) = take(content).ok_or_else(broken)?;
    let (list, _) = take(rest).filter(|(list, _)| list.tag == SEQUENCE).ok_or_else(broken)?;
    let mut list = list.value;
    while !list.is_empty() {
        let (one, rest) = take(list).ok_or_else(broken)?;
        list = rest;
        let (name, values) = take(one.value).ok_or_else(broken)?;
        let bare =
            |name: &[u8]| name.split(|octet| *octet == b';').next().unwrap_or_default().to_ascii_lowercase();
        if bare(name.value) == bare(attribute) {
            let (set, _) = take(values).ok_or_else(broken)?;
            return Ok(take(set.value).map(|(first, _)| first.value.to_vec()));
        }
    }
    Ok(None)
}

fn tlv(tag: u8, value: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match u8::try_from(value.len()) {
        Ok(short @ 0..0x80) => out.push(short),
        _ => {
            out.push(0x84);
            out.extend_from_slice(&u32::try_from(value.len()).unwrap_or(u32::MAX).to_be_bytes());
        }
    }
    out.extend_from_slice(value);
    out
}

fn left(until: Instant) -> Result<Duration, String> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() { Err("it did not answer in time".into()) } else { Ok(left) }
}
