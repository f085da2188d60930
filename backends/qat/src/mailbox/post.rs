//! One message to the physical function and one back.
//!
//! Generation 4 has a register for each way: the sender sets the lowest bit, the receiver clears it. Generation 2 has one register
//! of two halves: its sender also writes a pattern into the other half, which says that the register is in use.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::generation::{Generation, MISC, MailboxKind};
use crate::pci::PciFunction;

/// A message, without what carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) kind: u8,
    pub(super) data: u32,
}

/// Lowest bits of a message: pending; of the system's protocol and not of an older one.
const PENDING: u32 = 1 << 0;
const SYSTEM: u32 = 1 << 1;

/// The pattern that says "in use", and the bits of a half that are compared with it.
const IN_USE: u32 = 0x6ac2;
const IN_USE_MASK: u32 = 0xfffe;
const HALF: u32 = 16;

/// From this version on the receiver of a message, unless it is a notification, takes the sender's pattern away.
const FAST_ACK: u8 = 3;

/// Steps and their length while a message is not taken: short ones first, since most are taken at once.
const QUICK: usize = 500;
const QUICK_STEP: Duration = Duration::from_micros(5);
const SLOW: usize = 500;
const SLOW_STEP: Duration = Duration::from_millis(2);
/// And while no answer is there.
const ANSWER: usize = 2000;
const ANSWER_STEP: Duration = Duration::from_micros(100);
/// How often, and after what time, a register in use is tried again.
const BUSY: usize = 3;
const BUSY_STEP: Duration = Duration::from_millis(5);

/// Unasked messages that are kept; more of them say nothing new.
const KEPT: usize = 8;

/// Messages nobody asked for.
const UNASKED: [u8; 3] = [1, 4, 5];

pub(super) struct Post {
    function: Arc<dyn PciFunction>,
    kind: MailboxKind,
    version: u8,
    unasked: VecDeque<u8>,
}

impl Post {
    pub(super) fn new(function: &Arc<dyn PciFunction>, generation: &Generation) -> Self {
        Post {
            function: Arc::clone(function),
            kind: generation.mailbox,
            version: 0,
            unasked: VecDeque::new(),
        }
    }

    /// The version both sides speak from now on; 0: unknown.
    pub(super) fn speak(&mut self, version: u8) {
        self.version = version;
    }

    pub(super) fn version(&self) -> u8 {
        self.version
    }

    /// Sends; false when it is not taken.
    pub(super) fn send(&mut self, message: Message) -> bool {
        match self.kind {
            MailboxKind::Split { to_them, .. } => {
                let word = word(message, 6);
                self.write(to_them, word);
                self.waits_until(|post| post.read(to_them) & PENDING == 0).is_some()
            }
            MailboxKind::Shared { at } => self.send_shared(at, message),
        }
    }

    fn send_shared(&mut self, at: u32, message: Message) -> bool {
        let half = word(message, 4) & 0xffff;
        for _ in 0..BUSY {
            if self.read(at) >> HALF & IN_USE_MASK == IN_USE & IN_USE_MASK {
                std::thread::sleep(BUSY_STEP);
                continue;
            }
            let sent = half << HALF | IN_USE;
            self.write(at, sent);
            let taken = |post: &Post| {
                let now = post.read(at);
                (now & PENDING << HALF == 0).then_some(now)
            };
            let Some(now) = self.waits_for(taken) else { return false };
            // What nobody answers must come back as it was sent; otherwise both sides wrote at once, and theirs won.
            let noted = matches!(message.kind, super::INIT | super::SHUTDOWN);
            if noted && now != sent & !(PENDING << HALF) {
                self.receive_shared(at, now);
                continue;
            }
            if now & 0xffff == IN_USE {
                self.write(at, now & !0xffff);
            }
            return true;
        }
        false
    }

    /// The answer; unasked messages that come in between are kept.
    pub(super) fn receive(&mut self) -> Option<Message> {
        for _ in 0..ANSWER {
            match self.look() {
                Some(message) if UNASKED.contains(&message.kind) => self.keep(message),
                Some(message) => return Some(message),
                None => std::thread::sleep(ANSWER_STEP),
            }
        }
        None
    }

    /// A message that nobody asked for.
    pub(super) fn take_unasked(&mut self) -> Option<u8> {
        if let Some(message) = self.look() {
            self.keep(message);
        }
        self.unasked.pop_front()
    }

    fn keep(&mut self, message: Message) {
        if UNASKED.contains(&message.kind) && self.unasked.len() < KEPT {
            self.unasked.push_back(message.kind);
        }
    }

    /// Takes a message if there is one, and says so to the sender.
    fn look(&mut self) -> Option<Message> {
        match self.kind {
            MailboxKind::Split { to_us, .. } => {
                let now = self.read(to_us);
                // All ones: nobody is there.
                if now & PENDING == 0 || now == u32::MAX {
                    return None;
                }
                self.write(to_us, now & !PENDING);
                (now & SYSTEM != 0).then_some(Message { kind: (now >> 2 & 0x3f) as u8, data: now >> 8 })
            }
            MailboxKind::Shared { at } => {
                let now = self.read(at);
                self.receive_shared(at, now)
            }
        }
    }

    fn receive_shared(&mut self, at: u32, now: u32) -> Option<Message> {
        if now & PENDING == 0 || now == u32::MAX {
            return None;
        }
        let message = Message { kind: (now >> 2 & 0xf) as u8, data: now >> 6 & 0x3ff };
        let mut answer = now & !PENDING;
        let theirs = now >> HALF & IN_USE_MASK == IN_USE & IN_USE_MASK;
        if self.version >= FAST_ACK && !UNASKED.contains(&message.kind) && theirs {
            answer &= 0xffff;
        }
        self.write(at, answer);
        (now & SYSTEM != 0).then_some(message)
    }

    fn waits_until(&self, is_so: impl Fn(&Post) -> bool) -> Option<()> {
        self.waits_for(|post| is_so(post).then_some(()))
    }

    fn waits_for<T>(&self, look: impl Fn(&Post) -> Option<T>) -> Option<T> {
        for step in 0..QUICK + SLOW {
            if let Some(found) = look(self) {
                return Some(found);
            }
            if self.function.trouble().is_some() {
                return None;
            }
            std::thread::sleep(if step < QUICK { QUICK_STEP } else { SLOW_STEP });
        }
        None
    }

    fn read(&self, at: u32) -> u32 {
        self.function.read(MISC, at)
    }

    fn write(&self, at: u32, value: u32) {
        self.function.write(MISC, at, value);
    }
}

/// A message with its two lowest bits; the kind has `bits` bits.
fn word(message: Message, bits: u32) -> u32 {
    let kind = u32::from(message.kind) & ((1 << bits) - 1);
    PENDING | SYSTEM | kind << 2 | message.data << (2 + bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_the_words_of_the_protocol() {
        let message = |kind, data| Message { kind, data };
        // Generation 4: version 5 asked for; octets 2 and 3 of table 3, and the checksum over four.
        assert_eq!(word(message(6, 5), 6), 0x0000_051b);
        assert_eq!(word(message(9, 3 | 2 << 4), 6), 0x0000_2327);
        assert_eq!(word(message(9, 3 | 3 << 4), 6), 0x0000_3327);
        assert_eq!(word(message(9, 3 | 3 << 4 | 1 << 9), 6), 0x0002_3327);
        // Generation 2, the upper half, over the pattern.
        assert_eq!(word(message(6, 5), 4) << HALF | IN_USE, 0x015b_6ac2);
        assert_eq!(word(message(3, 0), 4) << HALF | IN_USE, 0x000f_6ac2);
    }
}
