//! The server at its socket: clients one after the other, whole and in pieces, well-behaved and not.
#![allow(clippy::unwrap_used)]

use std::io::{IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use vfio_user::{DmaWindow, Function, Interrupts, IrqRequest, ListenError, Region, Server, Stopper};

const VERSION: u16 = 1;
const DMA_MAP: u16 = 2;
const REGION_READ: u16 = 9;
const RESET: u16 = 13;

/// One region, in which octet n reads as n.
#[derive(Default)]
struct Device {
    gone: AtomicU64,
    resets: AtomicU64,
    files: Mutex<Vec<bool>>,
}

impl Function for Device {
    fn region(&self, index: u32) -> Option<Region> {
        (index == 0).then_some(Region { len: 1 << 20, read: true, write: true })
    }

    fn interrupts(&self, _: u32) -> Option<Interrupts> {
        None
    }

    fn read(&self, _: u32, offset: u64, into: &mut [u8]) {
        into.iter_mut().zip(offset..).for_each(|(octet, at)| *octet = at as u8);
    }

    fn write(&self, _: u32, _: u64, _: &[u8]) {}

    fn set_irqs(&self, _: IrqRequest) -> Result<(), Errno> {
        Ok(())
    }

    fn map(&self, _: DmaWindow, file: Option<OwnedFd>) -> Result<(), Errno> {
        self.files.lock().unwrap().push(file.is_some());
        Ok(())
    }

    fn unmap(&self, _: u64, _: u64) -> Result<(), Errno> {
        Ok(())
    }

    fn reset(&self) -> Result<(), Errno> {
        self.resets.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn client_gone(&self) {
        self.gone.fetch_add(1, Ordering::SeqCst);
    }
}

struct Served {
    path: PathBuf,
    device: Arc<Device>,
    stopper: Stopper,
    thread: Option<JoinHandle<()>>,
}

impl Served {
    fn new(name: &str) -> Served {
        let path = path(name);
        let device = Arc::new(Device::default());
        let mut server = Server::new().unwrap();
        server.listen(&path, device.clone()).unwrap();
        let stopper = server.stopper();
        let thread = std::thread::spawn(move || server.run().unwrap());
        Served { path, device, stopper, thread: Some(thread) }
    }

    fn client(&self) -> UnixStream {
        let stream = UnixStream::connect(&self.path).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    fn agreed(&self) -> UnixStream {
        let mut stream = self.client();
        assert_eq!(ask(&mut stream, VERSION, &[0, 0, 1, 0]).0, 0);
        stream
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stopper.stop();
        self.thread.take().unwrap().join().unwrap();
        assert!(!self.path.exists(), "the socket is left behind");
    }
}

fn path(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("vfio-user-{}-{name}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    path
}

fn message(code: u16, flags: u32, body: &[u8]) -> Vec<u8> {
    let size = 16 + body.len() as u32;
    let head =
        [&[5, 0][..], &code.to_ne_bytes(), &size.to_ne_bytes(), &flags.to_ne_bytes(), &[0; 4]].concat();
    [head, body.to_vec()].concat()
}

/// Error and body.
fn reply(stream: &mut UnixStream) -> (u32, Vec<u8>) {
    let mut head = [0; 16];
    stream.read_exact(&mut head).unwrap();
    let word = |at: usize| u32::from_ne_bytes(head[at..at + 4].try_into().unwrap());
    let mut body = vec![0; word(4) as usize - 16];
    stream.read_exact(&mut body).unwrap();
    (word(12), body)
}

fn ask(stream: &mut UnixStream, code: u16, body: &[u8]) -> (u32, Vec<u8>) {
    stream.write_all(&message(code, 0, body)).unwrap();
    reply(stream)
}

fn read_request(offset: u64, count: u32) -> Vec<u8> {
    [&offset.to_ne_bytes()[..], &[0; 4], &count.to_ne_bytes()].concat()
}

fn closed(stream: &mut UnixStream) -> bool {
    let mut rest = Vec::new();
    match stream.read_to_end(&mut rest) {
        Ok(_) => true,
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    }
}

fn send_with_fds(stream: &UnixStream, octets: &[u8], fds: &[OwnedFd]) {
    let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(64))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
    let sent = sendmsg(stream, &[IoSlice::new(octets)], &mut control, SendFlags::empty()).unwrap();
    assert_eq!(sent, octets.len());
}

#[test]
fn clients_come_one_after_the_other_and_the_second_waits() {
    let served = Served::new("turns");
    let mut first = served.agreed();
    let mut second = served.client();
    second.write_all(&message(VERSION, 0, &[0, 0, 1, 0])).unwrap();
    second.write_all(&message(RESET, 0, &[])).unwrap();
    assert_eq!(ask(&mut first, REGION_READ, &read_request(0x102, 2)).1[16..], [2, 3]);
    assert_eq!(served.device.resets.load(Ordering::SeqCst), 0);
    drop(first);
    assert_eq!(reply(&mut second).0, 0);
    assert_eq!(reply(&mut second).0, 0);
    assert_eq!(served.device.gone.load(Ordering::SeqCst), 1);
    assert_eq!(served.device.resets.load(Ordering::SeqCst), 1);
}

#[test]
fn a_message_may_come_octet_by_octet_and_many_may_come_at_once() {
    let served = Served::new("pieces");
    let mut client = served.agreed();
    for octet in message(REGION_READ, 0, &read_request(7, 1)) {
        client.write_all(&[octet]).unwrap();
    }
    assert_eq!(reply(&mut client).1[16..], [7]);
    let many: Vec<u8> = (0..200).flat_map(|at| message(REGION_READ, 0, &read_request(at, 1))).collect();
    client.write_all(&many).unwrap();
    for at in 0..200 {
        assert_eq!(reply(&mut client).1[16..], [at as u8]);
    }
}

#[test]
fn descriptors_stay_with_the_message_they_came_with() {
    let served = Served::new("fds");
    let client = served.agreed();
    let map = |iova: u64| {
        let longs: Vec<u8> = [0, iova, 0x1000].iter().flat_map(|v: &u64| v.to_ne_bytes()).collect();
        message(DMA_MAP, 1 << 4, &[&[32, 0, 0, 0, 3, 0, 0, 0][..], &longs].concat())
    };
    let fd = || eventfd(0, EventfdFlags::empty()).unwrap();
    (&client).write_all(&map(0)).unwrap();
    send_with_fds(&client, &map(0x1000), &[fd()]);
    (&client).write_all(&map(0x2000)).unwrap();
    send_with_fds(&client, &map(0x3000), &[fd()]);
    let mut client = client;
    assert_eq!(ask(&mut client, RESET, &[]).0, 0);
    assert_eq!(*served.device.files.lock().unwrap(), [false, true, false, true]);
    // As many as no message may have.
    let fds: Vec<OwnedFd> = (0..40).map(|_| fd()).collect();
    send_with_fds(&client, &map(0x4000), &fds);
    assert!(closed(&mut client));
}

#[test]
fn nonsense_ends_one_connection_and_not_the_server() {
    let served = Served::new("nonsense");
    for nonsense in [vec![0xff; 64], vec![0; 64], message(RESET, 0, &[]), message(VERSION, 0, &[9, 0, 0, 0])]
    {
        let mut client = served.client();
        client.write_all(&nonsense).unwrap();
        assert!(closed(&mut client), "{nonsense:?}");
    }
    let mut client = served.agreed();
    client.write_all(&message(REGION_READ, 0, &[0; 3])[..10]).unwrap();
    drop(client);
    assert_eq!(ask(&mut served.agreed(), RESET, &[]).0, 0);
}

#[test]
fn who_does_not_read_his_replies_is_not_read_either() {
    let served = Served::new("backlog");
    let mut client = served.agreed();
    client.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    let wish = message(REGION_READ, 0, &read_request(0, 1 << 20));
    // What asks for a gigabyte is stopped long before; the answers to what was taken are all there.
    let taken = (0..100_000).take_while(|_| client.write_all(&wish).is_ok()).count();
    assert!(taken < 50_000, "{taken}");
    assert_eq!(reply(&mut client).1.len(), 16 + (1 << 20));
    drop(client);
    assert_eq!(ask(&mut served.agreed(), RESET, &[]).0, 0);
}

#[test]
fn who_has_said_his_last_word_still_hears_the_answers() {
    let served = Served::new("last-word");
    // The same whether he ends the conversation himself or says what ends it.
    for last in [None, Some(message(RESET, 1, &[]))] {
        let mut client = served.agreed();
        for _ in 0..3 {
            client.write_all(&message(REGION_READ, 0, &read_request(0, 1 << 20))).unwrap();
        }
        match last {
            None => client.shutdown(std::net::Shutdown::Write).unwrap(),
            Some(last) => client.write_all(&last).unwrap(),
        }
        for _ in 0..3 {
            assert_eq!(reply(&mut client).1.len(), 16 + (1 << 20));
        }
        assert!(closed(&mut client));
    }
}

#[test]
fn a_path_is_taken_only_if_nobody_uses_it() {
    let served = Served::new("taken");
    let listen = |path: &PathBuf| Server::new().unwrap().listen(path, Arc::new(Device::default()));
    assert!(matches!(listen(&served.path), Err(ListenError::InUse(_))));
    let stale = path("stale");
    drop(UnixListener::bind(&stale).unwrap());
    assert!(stale.exists());
    listen(&stale).unwrap();
    assert!(!stale.exists(), "dropped again, and gone");
    std::fs::write(&stale, "a file of somebody").unwrap();
    assert!(matches!(listen(&stale), Err(ListenError::NotASocket(_))));
    assert!(stale.exists());
    std::fs::remove_file(&stale).unwrap();
}
