//! The vfio-user server at its socket: the octets are what a client says, whole and in pieces, with and without descriptors. It answers every
//! message that wants an answer, once and in order; it asks its device for nothing that the device does not have; and when the client
//! has gone, the device is told so once.

use std::io::{IoSlice, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use vfio_user::{
    Action, DmaWindow, Function, HEADER_LEN, Interrupts, IrqData, IrqRequest, MAX_DATA, MAX_FDS, MAX_MESSAGE,
    Region, Server,
};

/// Steps of a script that count; what is longer only makes the fuzzer slow.
const STEPS: usize = 64;
/// How long the server may take for an answer. One that hangs is a finding.
const PATIENCE: Duration = Duration::from_secs(8);

/// A device that believes what the server promises, and panics where it is not so.
#[derive(Default)]
struct Strict {
    gone: AtomicU64,
}

const REGIONS: [Option<Region>; 9] = [
    Some(Region { len: 4096, read: true, write: true }),
    None,
    Some(Region { len: 2 << 20, read: true, write: true }),
    None,
    Some(Region { len: 64, read: true, write: false }),
    Some(Region { len: 1, read: false, write: true }),
    None,
    Some(Region { len: 4096, read: true, write: true }),
    None,
];
const INTERRUPTS: [Option<Interrupts>; 5] = [
    None,
    Some(Interrupts { count: 1, maskable: true, no_resize: true }),
    Some(Interrupts { count: 17, maskable: false, no_resize: true }),
    None,
    Some(Interrupts { count: 1, maskable: false, no_resize: false }),
];

impl Strict {
    fn check(&self, index: u32, offset: u64, len: usize) -> Region {
        let region = self.region(index).expect("an access to a region that is not there");
        assert!(len <= MAX_DATA && offset + len as u64 <= region.len, "an access outside its region");
        region
    }
}

impl Function for Strict {
    fn region(&self, index: u32) -> Option<Region> {
        REGIONS.get(index as usize).copied().flatten()
    }

    fn interrupts(&self, index: u32) -> Option<Interrupts> {
        INTERRUPTS.get(index as usize).copied().flatten()
    }

    fn read(&self, region: u32, offset: u64, into: &mut [u8]) {
        assert!(self.check(region, offset, into.len()).read, "a read of what cannot be read");
        into.fill(0x5a);
    }

    fn write(&self, region: u32, offset: u64, from: &[u8]) {
        assert!(self.check(region, offset, from.len()).write, "a write of what cannot be written");
    }

    fn set_irqs(&self, request: IrqRequest) -> Result<(), Errno> {
        let has = self.interrupts(request.index).expect("interrupts of a kind that is not there").count;
        assert!(
            u64::from(request.start) + u64::from(request.count) <= has.into(),
            "interrupts that are not there"
        );
        match &request.data {
            IrqData::Some(list) => assert_eq!(list.len(), request.count as usize),
            IrqData::Eventfds(list) => {
                assert_eq!(list.len(), request.count as usize);
                assert!(list.len() <= MAX_FDS);
            }
            IrqData::All | IrqData::Disconnect => {}
        }
        // A device may refuse; the client is told.
        if request.action == Action::Mask { Err(Errno::NOTSUP) } else { Ok(()) }
    }

    fn map(&self, window: DmaWindow, file: Option<OwnedFd>) -> Result<(), Errno> {
        assert!(
            window.len > 0 && window.iova.checked_add(window.len - 1).is_some(),
            "a window outside all addresses"
        );
        if file.is_none() && window.offset != 0 { Err(Errno::EXIST) } else { Ok(()) }
    }

    fn unmap(&self, iova: u64, len: u64) -> Result<(), Errno> {
        assert!(len > 0 && iova.checked_add(len - 1).is_some());
        Ok(())
    }

    fn reset(&self) -> Result<(), Errno> {
        Ok(())
    }

    fn client_gone(&self) {
        self.gone.fetch_add(1, Ordering::SeqCst);
    }
}

/// One server for all scripts of a process: what a client leaves behind would meet the next one.
struct Served {
    path: PathBuf,
    device: Arc<Strict>,
}

fn served() -> &'static Served {
    static SERVED: OnceLock<Served> = OnceLock::new();
    SERVED.get_or_init(|| {
        const NAME: &str = "tussock-fuzz-vfio-";
        let folder = std::env::temp_dir();
        // Nobody is told of the end of a process that fuzzes: the next one clears up.
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let refused = |error: std::io::Error| error.kind() == std::io::ErrorKind::ConnectionRefused;
            if entry.file_name().to_string_lossy().starts_with(NAME)
                && UnixStream::connect(entry.path()).is_err_and(refused)
            {
                std::fs::remove_file(entry.path()).ok();
            }
        }
        let path = folder.join(format!("{NAME}{}", std::process::id()));
        let device = Arc::new(Strict::default());
        let mut server = Server::new().expect("a descriptor");
        server.listen(&path, device.clone()).expect("a socket");
        std::thread::spawn(move || server.run());
        Served { path, device }
    })
}

/// What is said, made of octets.
struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    fn octet(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn octets(&mut self, len: usize) -> &'a [u8] {
        let (octets, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        octets
    }
}

/// A message as it is sent.
#[derive(Default)]
struct Said {
    octets: Vec<u8>,
    /// Descriptors with it.
    fds: usize,
    /// It is sent in two parts, the first so long.
    cut: Option<usize>,
    sent: Sent,
}

/// What the answer to a message depends on.
#[derive(Clone, Copy, Default)]
struct Sent {
    /// The stream could be read on after it, and after all before it.
    orderly: bool,
    /// Its id and command, which the answer bears.
    head: [u8; 4],
    /// An answer is wanted.
    wanted: bool,
}

/// The next message: an octet with the command and what is odd about it, one with the length of the body, then the body.
fn next(script: &mut Script<'_>, number: u16) -> Option<Said> {
    let what = script.octet()?;
    let len = script.octet()?;
    let odd = if what & 0x10 != 0 { script.octet()? } else { 0 };
    let body = script.octets(len.into());
    // A long write needs many octets, which the fuzzer need not find.
    let padding = if odd & 1 != 0 { usize::from(script.octet()?) * 4112 } else { 0 };
    let size = (HEADER_LEN + body.len() + padding) as u32;
    let (mut claimed, mut flags) = (size, u32::from(what & 0x20 != 0) << 4);
    if odd & 2 != 0 {
        claimed = claimed.wrapping_add_signed(i32::from(script.octet()? as i8));
    }
    if odd & 4 != 0 {
        claimed = u32::from_le_bytes(std::array::from_fn(|_| script.octet().unwrap_or(0xff)));
    }
    if odd & 8 != 0 {
        flags = script.octet()?.into();
    }
    let fds = if what & 0x40 != 0 { usize::from(script.octet()? % 20) } else { 0 };
    let head = head(number, what & 15);
    let cut = if what & 0x80 != 0 { Some(usize::from(script.octet()?)) } else { None };
    let octets =
        [&head[..], &claimed.to_ne_bytes(), &flags.to_ne_bytes(), &[0; 4], body, &vec![7; padding][..]]
            .concat();
    // The stream can be read on after it: its length is what it says, it is a command, and what comes with it is not too much.
    let orderly = claimed == size && octets.len() <= MAX_MESSAGE && flags & 15 == 0 && fds <= MAX_FDS;
    Some(Said { octets, fds, cut, sent: Sent { orderly, head, wanted: flags & 0x10 == 0 } })
}

fn head(number: u16, command: u8) -> [u8; 4] {
    let [low, high] = number.to_ne_bytes();
    let [first, second] = u16::from(command).to_ne_bytes();
    [low, high, first, second]
}

/// Sends it all, or what the server takes of it.
fn send(stream: &UnixStream, octets: &[u8], fds: &[BorrowedFd<'_>]) -> bool {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(20))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
        return false;
    }
    let mut rest = octets;
    while !rest.is_empty() {
        let sent = sendmsg(stream, &[IoSlice::new(rest)], &mut ancillary, SendFlags::NOSIGNAL);
        ancillary.clear();
        match sent {
            Ok(count) => rest = &rest[count..],
            Err(Errno::INTR) => {}
            Err(_) => return false,
        }
    }
    true
}

/// The target.
pub fn vfio_user(data: &[u8]) {
    let Served { path, device } = served();
    let before = device.gone.load(Ordering::SeqCst);
    let stream = UnixStream::connect(path).expect("the server is there");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time");
    stream.set_write_timeout(Some(PATIENCE)).expect("a time");
    let mut script = Script(data);
    let mut said = Vec::new();
    // Most begin as they should; a first octet that is odd leaves that to the script.
    if script.octet().is_some_and(|first| first & 1 == 0) {
        let head = head(0, 1);
        let octets = [&head[..], &20u32.to_ne_bytes(), &[0; 8], &[0, 0, 1, 0]].concat();
        let sent = Sent { orderly: true, head, wanted: true };
        said.push(Said { octets, sent, ..Said::default() });
    }
    for number in 1..STEPS {
        match next(&mut script, number as u16) {
            Some(message) => said.push(message),
            None => break,
        }
    }
    // Answers are read while messages are sent: nobody waits for the other for ever.
    let mut answers = stream.try_clone().expect("a descriptor");
    let (expected, heard) = std::thread::scope(|scope| {
        let listener = scope.spawn(move || {
            let mut heard = Vec::new();
            let end = answers.read_to_end(&mut heard);
            // A server that lets a client go while that still speaks resets the connection.
            let gone =
                end.as_ref().err().is_none_or(|error| error.kind() == std::io::ErrorKind::ConnectionReset);
            assert!(gone, "the server neither answers nor hangs up: {end:?}");
            heard
        });
        let mut expected = Vec::new();
        let mut orderly = true;
        for message in &said {
            let event = eventfd(0, EventfdFlags::CLOEXEC).expect("a descriptor");
            let fds = vec![event.as_fd(); message.fds];
            let (first, second) = message.octets.split_at(message.cut.unwrap_or(0).min(message.octets.len()));
            let sent = match first {
                [] => send(&stream, second, &fds),
                _ => send(&stream, first, &fds) && send(&stream, second, &[]),
            };
            orderly &= message.sent.orderly;
            expected.push(Sent { orderly, ..message.sent });
            if !sent {
                break;
            }
        }
        stream.shutdown(std::net::Shutdown::Write).ok();
        (expected, listener.join().expect("no finding"))
    });
    check(&expected, &heard);
    // The device has heard of the end, now or within a moment, and once.
    let since = std::time::Instant::now();
    while device.gone.load(Ordering::SeqCst) == before {
        assert!(since.elapsed() < PATIENCE, "the device is not told that its client has gone");
        std::thread::yield_now();
    }
    assert_eq!(device.gone.load(Ordering::SeqCst), before + 1);
}

/// As long as the stream was orderly, the answers are those of the messages that wanted one, each once and in order, and all of them;
/// behind a message that is not, there may be answers to whatever the server took for a message, if it went on at all. A client that
/// did not begin with a version gets none.
fn check(said: &[Sent], mut heard: &[u8]) {
    let orderly = said.iter().take_while(|sent| sent.orderly).enumerate();
    // Whoever begins with a version is told, whatever he wants.
    let mut due =
        orderly.filter(|(n, sent)| sent.wanted || (*n == 0 && sent.head[2] == 1)).map(|(_, sent)| sent.head);
    let torn = said.iter().any(|sent| !sent.orderly);
    let mut agreed = None;
    while let Some((head, after)) = heard.split_first_chunk::<HEADER_LEN>() {
        let word = |at: usize| u32::from_ne_bytes(std::array::from_fn(|n| head[at + n]));
        let (size, flags, error) = (word(4) as usize, word(8), word(12));
        assert!((HEADER_LEN..=MAX_MESSAGE).contains(&size), "an answer of {size} octets");
        assert!(
            flags == 1 || (flags == 0x21 && error != 0),
            "an answer with flags {flags:#x}, error {error}"
        );
        let Some(body) = after.get(size - HEADER_LEN..) else { break };
        agreed.get_or_insert(flags == 1);
        match due.next() {
            Some(wanted) => assert_eq!(wanted, head[..4], "an answer to another message"),
            None => assert!(torn, "an answer to nothing"),
        }
        heard = body;
    }
    assert!(agreed != Some(true) || due.next().is_none(), "a message was not answered");
}
