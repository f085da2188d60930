use std::sync::Mutex;

use rustix::event::{EventfdFlags, eventfd};

use super::*;
use crate::function::{Interrupts, Region};

/// Writes down what it is asked, and has a register file of 64 octets in region 0.
struct Scribe {
    asked: Mutex<Vec<String>>,
    registers: Mutex<[u8; 64]>,
}

impl Default for Scribe {
    fn default() -> Self {
        Scribe { asked: Mutex::default(), registers: Mutex::new([0; 64]) }
    }
}

impl Scribe {
    fn note(&self, what: String) {
        self.asked.lock().unwrap().push(what);
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

impl Function for Scribe {
    fn region(&self, index: u32) -> Option<Region> {
        match index {
            0 => Some(Region { len: 64, read: true, write: true }),
            2 => Some(Region { len: 8, read: true, write: false }),
            _ => None,
        }
    }

    fn interrupts(&self, index: u32) -> Option<Interrupts> {
        (index == irq::MSIX).then_some(Interrupts { count: 4, maskable: false, no_resize: true })
    }

    fn read(&self, _: u32, offset: u64, into: &mut [u8]) {
        into.copy_from_slice(&self.registers.lock().unwrap()[offset as usize..][..into.len()]);
    }

    fn write(&self, _: u32, offset: u64, from: &[u8]) {
        self.registers.lock().unwrap()[offset as usize..][..from.len()].copy_from_slice(from);
    }

    fn set_irqs(&self, request: IrqRequest) -> Result<(), Errno> {
        let IrqRequest { index, start, count, action, data } = request;
        let data = match data {
            IrqData::All => "all".to_string(),
            IrqData::Some(which) => format!("{which:?}"),
            IrqData::Eventfds(fds) => format!("{} eventfds", fds.len()),
            IrqData::Disconnect => "disconnect".to_string(),
        };
        self.note(format!("irqs {index} {start}+{count} {action:?} {data}"));
        Ok(())
    }

    fn map(&self, w: DmaWindow, file: Option<OwnedFd>) -> Result<(), Errno> {
        self.note(format!("map {:#x}+{:#x} r{} w{} file {}", w.iova, w.len, w.read, w.write, file.is_some()));
        Ok(())
    }

    fn unmap(&self, iova: u64, len: u64) -> Result<(), Errno> {
        self.note(format!("unmap {iova:#x}+{len:#x}"));
        if len == 13 { Err(Errno::INVAL) } else { Ok(()) }
    }

    fn reset(&self) -> Result<(), Errno> {
        self.note("reset".to_string());
        Ok(())
    }

    fn client_gone(&self) {}
}

fn header(code: u16, body: usize, flags: u32) -> Header {
    Header { id: 7, command: code, size: (HEADER_LEN + body) as u32, flags }
}

/// Error and body of the reply.
fn ask(function: &Scribe, code: u16, body: &[u8], fds: Vec<OwnedFd>) -> (u32, Vec<u8>) {
    let mut session = Session { agreed: true };
    let mut out = Vec::new();
    session.handle(function, &header(code, body.len(), 0), body, fds, &mut out).unwrap();
    let reply = Header::parse(out.first_chunk().unwrap());
    assert_eq!((reply.id, reply.command, reply.size as usize), (7, code, out.len()));
    let error = u32::from_ne_bytes(out[12..16].try_into().unwrap());
    assert_eq!(reply.flags, if error == 0 { 1 } else { 0x21 });
    (error, out[16..].to_vec())
}

fn octets(words: &[u32], longs: &[u64]) -> Vec<u8> {
    let mut octets: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    octets.extend(longs.iter().flat_map(|long| long.to_ne_bytes()));
    octets
}

fn access_body(offset: u64, region: u32, count: u32, data: &[u8]) -> Vec<u8> {
    [&offset.to_ne_bytes()[..], &region.to_ne_bytes(), &count.to_ne_bytes(), data].concat()
}

const INVAL: u32 = 22;

#[test]
fn a_conversation_begins_with_a_version() {
    let (function, mut out) = (Scribe::default(), Vec::new());
    let mut session = Session::new();
    let early = session.handle(&function, &header(command::DEVICE_RESET, 0, 0), &[], vec![], &mut out);
    assert_eq!(early, Err(Disconnect::NoVersion));
    assert!(function.asked().is_empty());
    let body = [0, 0, 1, 0];
    session.handle(&function, &header(command::VERSION, 4, 0), &body, vec![], &mut out).unwrap();
    session.handle(&function, &header(command::DEVICE_RESET, 0, 0), &[], vec![], &mut out).unwrap();
    assert_eq!(function.asked(), ["reset"]);
    // Once is enough.
    assert_eq!(ask(&function, command::VERSION, &body, vec![]).0, INVAL);
    let reply = session.handle(&function, &header(command::VERSION, 4, 1), &body, vec![], &mut out);
    assert_eq!(reply, Err(Disconnect::Reply));
}

#[test]
fn lengths_that_cannot_be_end_the_connection() {
    for size in [0, 15, MAX_MESSAGE as u32 + 1, u32::MAX] {
        let header = Header { size, ..header(1, 0, 0) };
        assert_eq!(Session::body_len(&header), Err(Disconnect::Length(size)));
    }
    assert_eq!(Session::body_len(&header(1, 9, 0)), Ok(9));
}

#[test]
fn registers_are_read_and_written_within_their_region() {
    let function = Scribe::default();
    let write = |offset, region, count, data: &[u8]| {
        ask(&function, command::REGION_WRITE, &access_body(offset, region, count, data), vec![]).0
    };
    assert_eq!(write(60, 0, 4, &[1, 2, 3, 4]), 0);
    let read = |offset, region, count| {
        ask(&function, command::REGION_READ, &access_body(offset, region, count, &[]), vec![])
    };
    assert_eq!(read(60, 0, 4), (0, access_body(60, 0, 4, &[1, 2, 3, 4])));
    assert_eq!(read(0, 2, 8).0, 0);
    for (offset, region, count) in
        [(61, 0, 4), (64, 0, 1), (u64::MAX, 0, 2), (0, 1, 1), (0, 99, 1), (0, 0, u32::MAX), (0, 2, 9)]
    {
        assert_eq!(read(offset, region, count).0, INVAL, "{offset} {region} {count}");
    }
    assert_eq!(write(0, 0, 4, &[1, 2, 3]), INVAL, "less data than it says");
    assert_eq!(write(0, 2, 1, &[1]), 1, "a region for reading");
    assert_eq!(ask(&function, command::REGION_READ, &[0; 15], vec![]).0, INVAL);
}

#[test]
fn a_posted_write_has_no_answer() {
    let (function, mut out) = (Scribe::default(), Vec::new());
    let body = access_body(0, 0, 1, &[9]);
    let mut session = Session { agreed: true };
    session
        .handle(&function, &header(command::REGION_WRITE, body.len(), 1 << 4), &body, vec![], &mut out)
        .unwrap();
    assert!(out.is_empty());
    assert_eq!(function.registers.lock().unwrap()[0], 9);
}

#[test]
fn several_writes_in_one_message_are_all_done_or_none() {
    let function = Scribe::default();
    let one = |offset, octet| access_body(offset, 0, 1, &[octet, 0, 0, 0, 0, 0, 0, 0]);
    let both = |second| [&2u64.to_ne_bytes()[..], &one(3, 5), &one(second, 6)].concat();
    assert_eq!(ask(&function, command::REGION_WRITE_MULTI, &both(64), vec![]).0, INVAL);
    assert_eq!(function.registers.lock().unwrap()[3], 0);
    assert_eq!(ask(&function, command::REGION_WRITE_MULTI, &both(4), vec![]).0, 0);
    assert_eq!(function.registers.lock().unwrap()[3..5], [5, 6]);
    for count in [3u64, 65, u64::MAX] {
        let body = [&count.to_ne_bytes()[..], &one(3, 5), &one(4, 6)].concat();
        assert_eq!(ask(&function, command::REGION_WRITE_MULTI, &body, vec![]).0, INVAL);
    }
    let nine = [&1u64.to_ne_bytes()[..], &access_body(0, 0, 9, &[0; 9])].concat();
    assert_eq!(ask(&function, command::REGION_WRITE_MULTI, &nine, vec![]).0, INVAL);
}

#[test]
fn memory_is_mapped_with_and_without_a_file_and_unmapped_to_the_end_of_the_addresses() {
    let function = Scribe::default();
    let fd = || eventfd(0, EventfdFlags::empty()).unwrap();
    let map = |flags, iova, len, fds| {
        ask(&function, command::DMA_MAP, &octets(&[32, flags], &[0, iova, len]), fds).0
    };
    assert_eq!(map(3, 0x1000, 0x2000, vec![fd()]), 0);
    assert_eq!(map(1, 0xfffc_0000, 0x40000, vec![]), 0);
    assert_eq!(
        function.asked(),
        ["map 0x1000+0x2000 rtrue wtrue file true", "map 0xfffc0000+0x40000 rtrue wfalse file false"]
    );
    assert_eq!(map(3, 0, 0, vec![]), INVAL);
    assert_eq!(map(3, u64::MAX, 2, vec![]), INVAL);
    assert_eq!(map(8, 0, 1, vec![]), INVAL);
    assert_eq!(map(3, 0, 1, vec![fd(), fd()]), INVAL);
    let unmap =
        |flags, iova, len| ask(&function, command::DMA_UNMAP, &octets(&[24, flags], &[iova, len]), vec![]);
    let (iova, len) = (0xfef0_0000, 0xffff_ffff_0110_0000);
    assert_eq!(unmap(0, iova, len), (0, octets(&[24, 0], &[iova, len])));
    assert_eq!(function.asked(), [format!("unmap {iova:#x}+{len:#x}")]);
    assert_eq!(unmap(0, iova, len + 1).0, INVAL);
    assert_eq!(unmap(0, 0, 0).0, INVAL);
    assert_eq!(unmap(1, 0, 1).0, Errno::NOTSUP.raw_os_error() as u32);
    assert_eq!(unmap(0, 0, 13).0, INVAL, "what the device says is passed on");
}

#[test]
fn interrupts_are_set_as_qemu_sets_them() {
    let function = Scribe::default();
    let fd = || eventfd(0, EventfdFlags::empty()).unwrap();
    let set = |words: &[u32], more: &[u8], fds| {
        ask(&function, command::SET_IRQS, &[&octets(words, &[])[..], more].concat(), fds).0
    };
    assert_eq!(set(&[20, 0x24, 2, 3, 1], &[], vec![fd()]), 0);
    assert_eq!(set(&[20, 0x24, 2, 3, 1], &[], vec![]), 0);
    assert_eq!(set(&[20, 0x21, 2, 0, 0], &[], vec![]), 0);
    assert_eq!(set(&[20, 0x0a, 2, 0, 2], &[1, 0], vec![]), 0);
    assert_eq!(
        function.asked(),
        [
            "irqs 2 3+1 Trigger 1 eventfds",
            "irqs 2 3+1 Trigger disconnect",
            "irqs 2 0+0 Trigger all",
            "irqs 2 0+2 Mask [true, false]"
        ]
    );
    // Tearing down what was never there is fine; connecting it is not.
    assert_eq!(set(&[20, 0x21, 0, 0, 0], &[], vec![]), 0);
    assert_eq!(set(&[20, 0x24, 0, 0, 1], &[], vec![fd()]), INVAL);
    for words in [[20, 0x24, 2, 4, 1], [20, 0x24, 2, u32::MAX, 1], [20, 0x24, 9, 0, 1], [20, 0x24, 2, 0, 2]] {
        assert_eq!(set(&words, &[], vec![fd()]), INVAL, "{words:?}");
    }
    for flags in [0x01, 0x20, 0x23, 0x31, 0x38, 0x61] {
        assert_eq!(set(&[20, flags, 2, 0, 1], &[], vec![]), INVAL, "{flags:#x}");
    }
    assert_eq!(set(&[20, 0x0a, 2, 0, 2], &[1], vec![]), INVAL);
    assert_eq!(set(&[20, 0x21, 2, 0, 1], &[], vec![fd()]), INVAL);
    assert!(function.asked().is_empty());
}

#[test]
fn what_there_is_is_told_and_what_is_not_is_empty() {
    let function = Scribe::default();
    let info = |index| ask(&function, command::GET_REGION_INFO, &octets(&[32, 0, index, 0], &[0, 0]), vec![]);
    assert_eq!(info(2), (0, octets(&[32, 1, 2, 0], &[8, 0])));
    assert_eq!(info(5), (0, octets(&[32, 0, 5, 0], &[0, 0])));
    assert_eq!(info(9).0, INVAL);
    let irqs = |index| ask(&function, command::GET_IRQ_INFO, &octets(&[16, 0, index, 0], &[]), vec![]);
    assert_eq!(irqs(2), (0, octets(&[16, 9, 2, 4], &[])));
    assert_eq!(irqs(0), (0, octets(&[16, 0, 0, 0], &[])));
    assert_eq!(irqs(5).0, INVAL);
    let device = ask(&function, command::DEVICE_GET_INFO, &octets(&[16, 0, 0, 0], &[]), vec![]);
    assert_eq!(device, (0, octets(&[16, 3, 9, 5], &[])));
    assert_eq!(ask(&function, command::DEVICE_GET_INFO, &[], vec![]).0, INVAL);
    for unknown in [0, 11, 12, 14, 16, 999] {
        assert_eq!(ask(&function, unknown, &[], vec![]).0, INVAL);
    }
}

#[test]
fn descriptors_where_none_belong_are_an_error() {
    let function = Scribe::default();
    let fd = eventfd(0, EventfdFlags::empty()).unwrap();
    assert_eq!(ask(&function, command::DEVICE_RESET, &[], vec![fd]).0, INVAL);
    assert!(function.asked().is_empty());
}
