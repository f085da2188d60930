//! A small speaker of D-Bus: calls of methods of one service, one at a time, each with its answer, within a time. No thread, nothing that is
//! waited for longer.
//!
//! Format: the D-Bus specification, "Message Protocol" and "Authentication Protocol".

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// Longest answer that is read.
const MAX_MESSAGE: usize = 64 * 1024;
/// Messages that are passed over while an answer is awaited: the bus tells us our name, and may tell more.
const MAX_OTHERS: usize = 64;
/// Longest line of the authentication.
const MAX_LINE: usize = 512;

const METHOD_CALL: u8 = 1;
const METHOD_RETURN: u8 = 2;
const ERROR: u8 = 3;

const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SIGNATURE: u8 = 8;

/// A service, as it is called.
pub(crate) struct Service {
    pub(crate) name: &'static str,
    pub(crate) path: &'static str,
    pub(crate) interface: &'static str,
}

const BUS: Service = Service {
    name: "org.freedesktop.DBus",
    path: "/org/freedesktop/DBus",
    interface: "org.freedesktop.DBus",
};

/// Values in a message, one after the other. Little-endian, as we say in its first octet.
#[derive(Default)]
pub(crate) struct Body {
    octets: Vec<u8>,
}

impl Body {
    pub(crate) fn u32(&mut self, value: u32) -> &mut Self {
        self.align(4);
        self.octets.extend(value.to_le_bytes());
        self
    }

    pub(crate) fn bool(&mut self, value: bool) -> &mut Self {
        self.u32(value.into())
    }

    pub(crate) fn text(&mut self, value: &str) -> &mut Self {
        self.u32(value.len() as u32);
        self.octets.extend(value.as_bytes());
        self.octets.push(0);
        self
    }

    pub(crate) fn octets(&mut self, value: &[u8]) -> &mut Self {
        self.u32(value.len() as u32);
        self.octets.extend(value);
        self
    }

    /// An array of structures; each call of `one` writes one.
    pub(crate) fn structs<T>(
        &mut self,
        all: impl IntoIterator<Item = T>,
        one: impl Fn(&mut Self, T),
    ) -> &mut Self {
        self.u32(0);
        let length_at = self.octets.len() - 4;
        self.align(8);
        let begin = self.octets.len();
        for item in all {
            self.align(8);
            one(self, item);
        }
        let length = (self.octets.len() - begin) as u32;
        self.octets[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
        self
    }

    fn align(&mut self, to: usize) {
        self.octets.resize(self.octets.len().next_multiple_of(to), 0);
    }
}

/// A conversation with the bus.
pub(crate) struct Connection {
    stream: UnixStream,
    until: Instant,
    serial: u32,
}

impl Connection {
    /// Says hello; all that is said in this conversation has to be over within `patience`.
    pub(crate) fn new(bus: &Path, patience: Duration) -> io::Result<Connection> {
        Connection::over(UnixStream::connect(bus)?, patience)
    }

    fn over(stream: UnixStream, patience: Duration) -> io::Result<Connection> {
        let mut connection = Connection { stream, until: Instant::now() + patience, serial: 0 };
        connection.hurry()?;
        // The bus knows who we are from the socket, and wants to hear the same.
        let user = rustix::process::getuid().as_raw().to_string();
        let user: String = user.bytes().map(|digit| format!("{digit:02x}")).collect();
        connection.stream.write_all(format!("\0AUTH EXTERNAL {user}\r\n").as_bytes())?;
        let answer = connection.line()?;
        if !answer.starts_with(b"OK ") {
            let answer = String::from_utf8_lossy(&answer).escape_default().take(100).collect::<String>();
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                format!("the system bus does not take us: {answer}"),
            ));
        }
        connection.stream.write_all(b"BEGIN\r\n")?;
        connection.call(&BUS, "Hello", "", &Body::default()).map_err(|error| match error.kind() {
            // It does so with users it does not find.
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                let why = "the system bus hung up: it wants to find our user in /etc/passwd";
                io::Error::new(io::ErrorKind::PermissionDenied, why)
            }
            _ => error,
        })?;
        Ok(connection)
    }

    /// Calls a method and waits for its answer, of which only success is looked at.
    ///
    /// # Errors
    /// What the service says, or that it says nothing.
    pub(crate) fn call(
        &mut self,
        to: &Service,
        member: &str,
        signature: &str,
        body: &Body,
    ) -> io::Result<()> {
        self.serial += 1;
        self.hurry()?;
        self.stream.write_all(&message(self.serial, to, member, signature, body))?;
        for _ in 0..MAX_OTHERS {
            let answer = self.read()?;
            if answer.to != Some(self.serial) {
                continue;
            }
            return match answer.kind {
                METHOD_RETURN => Ok(()),
                _ => Err(refused(&answer)),
            };
        }
        Err(io::Error::new(io::ErrorKind::InvalidData, "no answer among too many messages of the bus"))
    }

    fn read(&mut self) -> io::Result<Answer> {
        let mut octets = vec![0; 16];
        self.fill(&mut octets)?;
        let head = Head::parse(&octets).ok_or(io::ErrorKind::InvalidData)?;
        octets.resize(head.length, 0);
        self.fill(&mut octets[16..])?;
        Answer::parse(&head, &octets).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    fn line(&mut self) -> io::Result<Vec<u8>> {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            if line.len() >= MAX_LINE {
                return Err(io::ErrorKind::InvalidData.into());
            }
            let mut octet = [0];
            self.fill(&mut octet)?;
            line.extend(octet);
        }
        line.truncate(line.len() - 2);
        Ok(line)
    }

    fn fill(&mut self, octets: &mut [u8]) -> io::Result<()> {
        let mut filled = 0;
        while filled < octets.len() {
            self.hurry()?;
            match self.stream.read(&mut octets[filled..]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(more) => filled += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// What is left of the time is what the next call to the kernel may take.
    fn hurry(&self) -> io::Result<()> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left))?;
        self.stream.set_write_timeout(Some(left))
    }
}

fn message(serial: u32, to: &Service, member: &str, signature: &str, body: &Body) -> Vec<u8> {
    let mut out = Body { octets: vec![b'l', METHOD_CALL, 0, 1] };
    out.u32(body.octets.len() as u32).u32(serial);
    let mut fields = vec![
        (PATH, "o", to.path),
        (INTERFACE, "s", to.interface),
        (MEMBER, "s", member),
        (DESTINATION, "s", to.name),
    ];
    if !signature.is_empty() {
        fields.push((SIGNATURE, "g", signature));
    }
    out.structs(fields, |out, (code, kind, value)| {
        out.octets.push(code);
        signature_into(out, kind);
        if kind == "g" {
            signature_into(out, value);
        } else {
            out.text(value);
        }
    });
    out.align(8);
    out.octets.extend(&body.octets);
    out.octets
}

fn signature_into(out: &mut Body, signature: &str) {
    out.octets.push(signature.len() as u8);
    out.octets.extend(signature.as_bytes());
    out.octets.push(0);
}

fn refused(answer: &Answer) -> io::Error {
    let name = answer.error.as_deref().unwrap_or("an error without a name");
    let kind = match name {
        "org.freedesktop.DBus.Error.AccessDenied"
        | "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired" => io::ErrorKind::PermissionDenied,
        "org.freedesktop.DBus.Error.ServiceUnknown" => io::ErrorKind::NotFound,
        _ => io::ErrorKind::Other,
    };
    // Another process's words: told without what a terminal would act on.
    let words = |text: &str| text.escape_default().take(200).collect::<String>();
    let text = answer.text.as_deref().map_or_else(String::new, |text| format!(": {}", words(text)));
    io::Error::new(kind, format!("{}{text}", words(name)))
}

/// The fixed part of a message.
struct Head {
    little: bool,
    kind: u8,
    fields: usize,
    length: usize,
}

impl Head {
    fn parse(octets: &[u8]) -> Option<Head> {
        let little = match octets.first()? {
            b'l' => true,
            b'B' => false,
            _ => return None,
        };
        let (kind, version) = (*octets.get(1)?, *octets.get(3)?);
        let body = number(octets, 4, little)? as usize;
        let fields = number(octets, 12, little)? as usize;
        let length = 16usize.checked_add(fields)?.checked_next_multiple_of(8)?.checked_add(body)?;
        (version == 1 && length <= MAX_MESSAGE).then_some(Head { little, kind, fields, length })
    }
}

/// What matters of an answer.
#[derive(Debug)]
struct Answer {
    kind: u8,
    /// To which call.
    to: Option<u32>,
    error: Option<String>,
    /// Of an error, the text that goes with it.
    text: Option<String>,
}

impl Answer {
    fn parse(head: &Head, octets: &[u8]) -> Option<Answer> {
        let mut answer = Answer { kind: head.kind, to: None, error: None, text: None };
        let (mut at, end, mut speaks) = (16, 16 + head.fields, false);
        while at < end {
            at = at.next_multiple_of(8);
            let (code, length) = (*octets.get(at)?, usize::from(*octets.get(at + 1)?));
            let kind = octets.get(at + 2..at + 2 + length)?;
            at += 3 + length;
            match kind {
                b"s" | b"o" => {
                    let (value, next) = text(octets, at, head.little)?;
                    if code == ERROR_NAME {
                        answer.error = Some(value);
                    }
                    at = next;
                }
                b"u" => {
                    at = at.next_multiple_of(4);
                    if code == REPLY_SERIAL {
                        answer.to = Some(number(octets, at, head.little)?);
                    }
                    at += 4;
                }
                b"g" => {
                    let length = usize::from(*octets.get(at)?);
                    speaks |= code == SIGNATURE && octets.get(at + 1) == Some(&b's');
                    at += 2 + length;
                }
                // There are no others (but descriptors, whose number is a `u`).
                _ => return None,
            }
        }
        if head.kind == ERROR && speaks {
            let (value, _) = text(octets, end.next_multiple_of(8), head.little)?;
            answer.text = Some(value);
        }
        Some(answer)
    }
}

fn number(octets: &[u8], at: usize, little: bool) -> Option<u32> {
    let four = octets.get(at..)?.first_chunk::<4>()?;
    Some(if little { u32::from_le_bytes(*four) } else { u32::from_be_bytes(*four) })
}

/// A string, and where what follows it begins.
fn text(octets: &[u8], at: usize, little: bool) -> Option<(String, usize)> {
    let at = at.next_multiple_of(4);
    let length = number(octets, at, little)? as usize;
    let begin = at + 4;
    let end = begin.checked_add(length)?;
    let value = octets.get(begin..end)?;
    Some((String::from_utf8_lossy(value).into_owned(), end + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVICE: Service = Service { name: "a.b", path: "/a/b", interface: "a.b.C" };

    /// An answer as a bus would write it.
    fn answer(kind: u8, to: u32, error: Option<&str>, words: Option<&str>) -> Vec<u8> {
        let mut body = Body::default();
        if let Some(words) = words {
            body.text(words);
        }
        let mut out = Body { octets: vec![b'l', kind, 0, 1] };
        out.u32(body.octets.len() as u32).u32(9);
        let fields = [Some(REPLY_SERIAL), error.map(|_| ERROR_NAME), words.map(|_| SIGNATURE)];
        out.structs(fields.into_iter().flatten(), |out, code| {
            out.octets.push(code);
            match code {
                REPLY_SERIAL => {
                    signature_into(out, "u");
                    out.u32(to);
                }
                ERROR_NAME => {
                    signature_into(out, "s");
                    out.text(error.unwrap_or_default());
                }
                _ => {
                    signature_into(out, "g");
                    signature_into(out, "s");
                }
            }
        });
        out.align(8);
        out.octets.extend(body.octets);
        out.octets
    }

    /// Somebody who plays the bus: takes whatever comes and says these things.
    fn bus(says: Vec<Vec<u8>>) -> (UnixStream, std::thread::JoinHandle<Vec<u8>>) {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let thread = std::thread::spawn(move || {
            theirs.write_all(b"OK 0123\r\n").unwrap();
            says.iter().for_each(|octets| drop(theirs.write_all(octets)));
            let _ = theirs.shutdown(std::net::Shutdown::Write);
            let mut heard = Vec::new();
            let _ = theirs.read_to_end(&mut heard);
            heard
        });
        (ours, thread)
    }

    fn talk(says: Vec<Vec<u8>>) -> (io::Result<()>, Vec<u8>) {
        let (ours, thread) = bus(says);
        let connection = Connection::over(ours, Duration::from_secs(20));
        let mut body = Body::default();
        body.u32(7).structs([("x.test", true)], |body, (name, is)| {
            body.text(name).bool(is);
        });
        let result = connection.and_then(|mut bus| bus.call(&SERVICE, "Do", "ia(sb)", &body));
        (result, thread.join().unwrap())
    }

    #[test]
    fn a_call_is_written_as_the_specification_says() {
        let hello = answer(METHOD_RETURN, 1, None, None);
        let signal = answer(4, 0, None, Some("a name"));
        let (result, heard) = talk(vec![hello, signal, answer(METHOD_RETURN, 2, None, None)]);
        result.unwrap();
        let begin = heard.windows(7).position(|part| part == b"BEGIN\r\n").unwrap() + 7;
        assert!(heard.starts_with(b"\0AUTH EXTERNAL "));
        let call = heard[begin..].windows(2).skip(1).position(|part| part == b"l\x01").unwrap() + 1 + begin;
        // As another implementation (jeepney) writes it.
        let expected = concat!(
            "6c01000118000000020000004c00000001016f00040000002f612f62000000000201730005000000612e622e43000000",
            "0301730002000000446f0000000000000601730003000000612e62000000000008016700066961287362290000000000",
            "070000001000000006000000782e74657374000001000000",
        );
        let written: String = heard[call..].iter().map(|octet| format!("{octet:02x}")).collect();
        assert_eq!(written, expected);
    }

    #[test]
    fn errors_are_told_in_the_services_words() {
        let hello = || answer(METHOD_RETURN, 1, None, None);
        let denied = "org.freedesktop.DBus.Error.AccessDenied";
        let (result, _) = talk(vec![hello(), answer(ERROR, 2, Some(denied), Some("no\x1b"))]);
        let error = result.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        assert_eq!(error.to_string(), format!("{denied}: no\\u{{1b}}"));
        let (result, _) = talk(vec![hello()]);
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        let (result, _) = talk(vec![]);
        assert!(result.unwrap_err().to_string().contains("/etc/passwd"));
        let others = (0..100).map(|_| answer(METHOD_RETURN, 77, None, None));
        let (result, _) = talk(std::iter::once(hello()).chain(others).collect());
        assert!(result.unwrap_err().to_string().contains("too many"));
    }

    #[test]
    fn whatever_the_bus_says_is_read_or_refused() {
        let whole = answer(ERROR, 2, Some("a.b.Error"), Some("words"));
        for at in 0..whole.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut other = whole.clone();
                other[at] = value;
                if let Some(head) = Head::parse(&other) {
                    other.resize(head.length, 0);
                    let _ = Answer::parse(&head, &other);
                }
            }
        }
        let mut long = whole.clone();
        long[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(Head::parse(&long).is_none());
    }

    #[test]
    fn a_bus_that_says_nothing_is_waited_for_no_longer_than_allowed() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let error = Connection::over(ours, Duration::from_millis(50)).err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
