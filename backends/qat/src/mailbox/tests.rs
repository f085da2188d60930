use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::fake::{Fake, OnWrite};
use crate::generation::{INTEL, model};

/// The physical function's side, no more of it than these tests need.
struct Physical {
    version_answer: Option<u32>,
    tables: Vec<(u8, Vec<u8>)>,
    /// Checksums that are wrong before they are right.
    wrong: AtomicUsize,
    heard: Mutex<Vec<(u8, u32)>>,
}

impl Physical {
    fn new() -> Self {
        Physical {
            version_answer: Some(0x105),
            tables: vec![
                (CAPABILITIES, vec![2, 8, 0, 0, 0, 0, 0x0f, 0x72, 3, 0]),
                (RING_MAP, vec![1, 2, 0x1c, 7]),
            ],
            wrong: AtomicUsize::new(0),
            heard: Mutex::default(),
        }
    }

    fn answer(&self, kind: u8, data: u32) -> Option<(u8, u32)> {
        self.heard.lock().unwrap().push((kind, data));
        match kind {
            COMPATIBLE_VERSION => Some((VERSION, self.version_answer?)),
            RESET_PAIR => Some((PAIR_RESET, 0)),
            block::SMALL_REQUEST => {
                let table = self.tables.iter().find(|(number, _)| u32::from(*number) == data & 0xf);
                let at = (data >> 4 & 0x1f) as usize;
                let answer = match table {
                    None => 2,
                    Some((_, octets)) if data & 1 << 9 != 0 => {
                        let wrong = self.wrong.load(Ordering::Relaxed) > 0;
                        self.wrong.fetch_sub(usize::from(wrong), Ordering::Relaxed);
                        let crc = block::crc8(&octets[..=at]) ^ u8::from(wrong);
                        1 | u32::from(crc) << 2
                    }
                    Some((_, octets)) => octets.get(at).map_or(2 | 1 << 2, |octet| u32::from(*octet) << 2),
                };
                Some((block::RESPONSE, answer))
            }
            _ => None,
        }
    }
}

fn fourth(physical: Arc<Physical>) -> Box<OnWrite> {
    Box::new(move |fake, _, at, value| {
        if at == 0x100c && value & 1 != 0 {
            if let Some((kind, data)) = physical.answer((value >> 2 & 0x3f) as u8, value >> 8) {
                fake.set(2, 0x1008, 3 | u32::from(kind) << 2 | data << 8);
            }
            return Some(value & !1);
        }
        Some(value)
    })
}

fn second(physical: Arc<Physical>) -> Box<OnWrite> {
    Box::new(move |_, _, at, value| {
        if at == 0x200 && value & 1 << 16 != 0 {
            assert_eq!(value & 0xffff, 0x6ac2, "the other half does not say that the register is in use");
            let answer = physical.answer((value >> 18 & 0xf) as u8, value >> 22);
            // As the kernel's driver leaves it: its own pattern in our half until we take it away.
            return Some(match answer {
                Some((kind, data)) => 0x6ac2 << 16 | data << 6 | u32::from(kind) << 2 | 3,
                None => value & !(1 << 16),
            });
        }
        // It takes the pattern away itself when its message is acknowledged and we did not.
        Some(if value & 1 == 0 && value >> 16 == 0x6ac2 { value & 0xffff } else { value })
    })
}

fn mailbox(device: u16, physical: &Arc<Physical>) -> (Arc<Fake>, Mailbox) {
    let on_write = if device == 0x37c9 { second } else { fourth }(Arc::clone(physical));
    let fake = Arc::new(Fake { on_write: Some(on_write), ..Fake::default() });
    let function = Arc::clone(&fake) as Arc<dyn PciFunction>;
    (fake, Mailbox::new(&function, model(INTEL, device).unwrap().generation))
}

#[test]
fn version_capabilities_and_map_are_agreed_on_in_both_generations() {
    for device in [0x4941, 0x37c9] {
        let physical = Arc::new(Physical::new());
        let (_, mut mailbox) = mailbox(device, &physical);
        let agreed = mailbox.agree().unwrap();
        assert_eq!(agreed, Agreement { version: 5, caps: 0x0003_720f, map: 0x071c }, "{device:#x}");
        mailbox.say_init().unwrap();
        mailbox.say_restarting_complete().unwrap();
        mailbox.say_shutdown().unwrap();
        mailbox.reset_pair(2).unwrap();
        let heard: Vec<u8> = physical.heard.lock().unwrap().iter().map(|(kind, _)| *kind).collect();
        assert_eq!(heard[0], COMPATIBLE_VERSION);
        let told = if device == 0x4941 {
            vec![INIT, RESTARTING_COMPLETE, SHUTDOWN, RESET_PAIR]
        } else {
            vec![INIT, RESTARTING_COMPLETE, SHUTDOWN]
        };
        assert!(heard.ends_with(&told), "{heard:?}");
        assert_eq!(mailbox.take(), None);
    }
}

#[test]
fn a_damaged_table_is_read_again_and_not_believed() {
    for (wrong, good) in [(1, true), (TRIES * 2, false)] {
        let physical = Arc::new(Physical { wrong: AtomicUsize::new(wrong), ..Physical::new() });
        let (_, mut mailbox) = mailbox(0x4941, &physical);
        let got = mailbox.agree();
        assert_eq!(got.is_ok(), good);
        assert!(good || got.unwrap_err().to_string().contains("damaged"));
    }
}

#[test]
fn absurd_tables_are_refused() {
    for table in [vec![2, 0], vec![0, 8], vec![2, 200], vec![1, 4, 0, 0, 0, 0]] {
        let physical = Arc::new(Physical { tables: vec![(CAPABILITIES, table.clone())], ..Physical::new() });
        let (_, mut mailbox) = mailbox(0x4941, &physical);
        assert!(mailbox.agree().is_err(), "{table:?}");
    }
}

#[test]
fn an_incompatible_version_says_what_to_update() {
    for answer in [0x205, 0x000, 0x300] {
        let physical = Arc::new(Physical { version_answer: Some(answer), ..Physical::new() });
        let (_, mut mailbox) = mailbox(0x4941, &physical);
        let error = mailbox.agree().unwrap_err().to_string();
        assert!(error.contains("update the host's kernel"), "{error}");
    }
    let physical = Arc::new(Physical { version_answer: Some(0x304), ..Physical::new() });
    let (_, mut mailbox) = mailbox(0x4941, &physical);
    assert_eq!(mailbox.agree().unwrap().version, 4, "an older physical function will do");
}

#[test]
fn a_first_version_has_no_tables_and_a_silent_one_nothing_at_all() {
    for (answer, version) in [(Some(0x301), 1), (None, 0)] {
        let physical = Arc::new(Physical { version_answer: answer, tables: vec![], ..Physical::new() });
        let (_, mut mailbox) = mailbox(0x37c9, &physical);
        assert_eq!(mailbox.agree().unwrap(), Agreement { version, caps: 0x0f, map: 0x0409 });
    }
}

#[test]
fn what_is_said_unasked_is_kept_and_acknowledged() {
    let physical = Arc::new(Physical::new());
    let (fake, mut mailbox) = mailbox(0x4941, &physical);
    for (kind, event) in [(1, Event::Restarting), (4, Event::FatalError), (5, Event::Restarted)] {
        fake.set(2, 0x1008, 3 | kind << 2);
        assert_eq!(mailbox.take(), Some(event));
        assert_eq!(fake.read(2, 0x1008) & 1, 0, "not acknowledged");
        assert_eq!(mailbox.take(), None);
    }
    fake.set(2, 0x1008, u32::MAX);
    assert_eq!(mailbox.take(), None, "a function that is gone says nothing");
}

#[test]
fn checksums_are_those_of_the_protocol() {
    for (octets, crc) in [
        (&[1, 2, 0x1c, 7][..], 0xac),
        (&[1, 2, 9, 4], 0x2c),
        (&[2, 8, 0, 0, 0, 0, 0x0b, 0, 0, 0], 0xe0),
        (&[2, 8, 0, 0, 0, 0, 0x0f, 0, 0, 0], 0x93),
        (&[2, 8, 0, 0, 0, 0, 0x0f, 0x72, 3, 0], 0x7b),
    ] {
        assert_eq!(block::crc8(octets), crc, "{octets:02x?}");
    }
}
