//! The physical function behind the mailbox, which Linux runs on the host: it knows what the virtual function can do and
//! what its rings are for, resets ring pairs, and tells when the card goes away and comes back.

use crate::personality::{Generation, Layout};

/// The newest version of the protocol that the physical function speaks.
const VERSION: u8 = 5;
/// What the very first protocol, which had another numbering, calls itself.
const LEGACY_VERSION: u32 = 0x11;

/// A message in either direction, without what the two mailboxes do differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) kind: u8,
    pub(crate) data: u32,
}

/// Kinds of message to the virtual function.
pub(crate) mod to_vf {
    pub(crate) const RESTARTING: u8 = 1;
    pub(crate) const VERSION: u8 = 2;
    pub(crate) const BLOCK: u8 = 3;
    pub(crate) const FATAL_ERROR: u8 = 4;
    pub(crate) const RESTARTED: u8 = 5;
    pub(crate) const RP_RESET: u8 = 0x10;
}

/// Kinds of message from the virtual function.
pub(crate) mod from_vf {
    pub(crate) const INIT: u8 = 3;
    pub(crate) const SHUTDOWN: u8 = 4;
    pub(crate) const LEGACY_VERSION: u8 = 5;
    pub(crate) const VERSION: u8 = 6;
    pub(crate) const LARGE_BLOCK: u8 = 7;
    pub(crate) const MEDIUM_BLOCK: u8 = 8;
    pub(crate) const SMALL_BLOCK: u8 = 9;
    pub(crate) const RESTARTING_COMPLETE: u8 = 0xa;
    pub(crate) const RP_RESET: u8 = 0x10;
}

const BLOCK_CAPABILITIES: u8 = 2;
const BLOCK_RING_MAP: u8 = 3;

/// The physical function, as this virtual function sees it.
pub(crate) struct Pf {
    generation: Generation,
    banks: usize,
    pub(crate) capabilities: u32,
    pub(crate) ring_map: u16,
    /// Somebody has announced that he uses the virtual function.
    running: bool,
}

/// What comes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It is acknowledged, and that is all.
    Nothing,
    /// A message back.
    Message(Message),
    /// A bank is to be reset, and then a message back.
    ResetBank(usize, Message),
    /// The virtual function is ready for the restart that it was told of.
    ReadyForRestart,
}

/// How the answers are spoiled.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Spoil {
    pub(crate) checksum: bool,
    pub(crate) version: bool,
}

impl Pf {
    pub(crate) fn new(layout: &Layout, capabilities: Option<u32>, ring_map: Option<u16>) -> Self {
        Pf {
            generation: layout.generation,
            banks: layout.banks,
            capabilities: capabilities.unwrap_or(layout.capabilities),
            ring_map: ring_map.unwrap_or(layout.ring_map),
            running: false,
        }
    }

    /// Answers a message.
    pub(crate) fn handle(&mut self, message: Message, spoil: Spoil) -> Answer {
        let Message { kind, data } = message;
        match kind {
            from_vf::INIT => {
                self.running = true;
                Answer::Nothing
            }
            from_vf::SHUTDOWN => {
                self.running = false;
                Answer::Nothing
            }
            from_vf::VERSION => {
                // 1: compatible. 3: unknown to us, which leaves it to the newer side to decide. 2: not compatible.
                let result = if data as u8 > VERSION { 3 } else { 1 };
                let result = if spoil.version { 2 } else { result };
                Answer::Message(Message { kind: to_vf::VERSION, data: u32::from(VERSION) | result << 8 })
            }
            from_vf::LEGACY_VERSION => {
                let result = if spoil.version { 2 } else { 1 };
                Answer::Message(Message { kind: to_vf::VERSION, data: LEGACY_VERSION | result << 8 })
            }
            from_vf::SMALL_BLOCK => self.block(data & 0xf, data >> 4 & 0x1f, data, spoil),
            // Their numbers go on where those of the smaller blocks end. There are none.
            from_vf::MEDIUM_BLOCK => self.block((data & 7) + 16, data >> 3 & 0x3f, data, spoil),
            from_vf::LARGE_BLOCK => self.block((data & 3) + 24, data >> 2 & 0x7f, data, spoil),
            from_vf::RESTARTING_COMPLETE => Answer::ReadyForRestart,
            from_vf::RP_RESET if self.generation == Generation::Four => {
                let bank = data as usize & 3;
                let reply = |result| Message { kind: to_vf::RP_RESET, data: result };
                if bank < self.banks { Answer::ResetBank(bank, reply(0)) } else { Answer::Message(reply(2)) }
            }
            _ => Answer::Nothing,
        }
    }

    /// One octet of a block, or the checksum over its beginning.
    fn block(&self, id: u32, at: u32, data: u32, spoil: Spoil) -> Answer {
        const OCTET: u32 = 0;
        const CHECKSUM: u32 = 1;
        const ERROR: u32 = 2;
        let reply = |kind, value| Answer::Message(Message { kind: to_vf::BLOCK, data: kind | value << 2 });
        let Some(block) = self.contents(id as u8) else { return reply(ERROR, 0) };
        let at = at as usize;
        if data & 1 << 9 == 0 {
            return match block.get(at) {
                Some(octet) => reply(OCTET, u32::from(*octet)),
                None => reply(ERROR, 1),
            };
        }
        // Here `at` is the last octet to be covered.
        match block.get(..=at) {
            Some(covered) => reply(CHECKSUM, u32::from(crc8(covered) ^ u8::from(spoil.checksum))),
            None => reply(ERROR, 1),
        }
    }

    /// Version, length, contents.
    fn contents(&self, id: u8) -> Option<Vec<u8>> {
        match id {
            BLOCK_CAPABILITIES => {
                // Version 2: capabilities of compression, of which there are none, and then all.
                let mut block = vec![2, 8, 0, 0, 0, 0];
                block.extend(self.capabilities.to_le_bytes());
                Some(block)
            }
            BLOCK_RING_MAP => {
                let mut block = vec![1, 2];
                block.extend(self.ring_map.to_le_bytes());
                Some(block)
            }
            _ => None,
        }
    }

    /// After a reset of the virtual function nothing is known of it.
    pub(crate) fn forget(&mut self) {
        self.running = false;
    }

    /// Whether somebody is there who wants to be told of restarts and errors.
    pub(crate) fn is_listened_to(&self) -> bool {
        self.running
    }
}

/// The checksum over blocks: polynomial 0x97, most significant bit first, all ones in the beginning.
fn crc8(octets: &[u8]) -> u8 {
    octets.iter().fold(0xff, |crc, octet| {
        (0..8).fold(crc ^ octet, |crc, _| if crc & 0x80 == 0 { crc << 1 } else { crc << 1 ^ 0x97 })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::personality::Personality;

    #[test]
    fn checksums_are_those_of_the_specification() {
        for (block, crc) in [
            (&[0x01, 0x02, 0x1c, 0x07][..], 0xac),
            (&[0x01, 0x02, 0x09, 0x04], 0x2c),
            (&[0x02, 0x08, 0, 0, 0, 0, 0x0b, 0, 0, 0], 0xe0),
            (&[0x02, 0x08, 0, 0, 0, 0, 0x0f, 0, 0, 0], 0x93),
            (&[0x02, 0x08, 0, 0, 0, 0, 0x0f, 0x72, 0x03, 0], 0x7b),
        ] {
            assert_eq!(crc8(block), crc);
        }
    }

    fn pf(personality: Personality) -> Pf {
        Pf::new(personality.layout(), None, None)
    }

    fn ask(pf: &mut Pf, kind: u8, data: u32) -> Option<u32> {
        match pf.handle(Message { kind, data }, Spoil::default()) {
            Answer::Message(reply) => Some(reply.data),
            _ => None,
        }
    }

    #[test]
    fn blocks_are_read_octet_by_octet_and_checked() {
        let mut pf = pf(Personality::Vf4941);
        let mut block = Vec::new();
        for at in 0..10 {
            let reply = ask(&mut pf, from_vf::SMALL_BLOCK, 2 | at << 4).unwrap();
            assert_eq!(reply & 3, 0);
            block.push((reply >> 2) as u8);
        }
        assert_eq!(block, [2, 8, 0, 0, 0, 0, 0x0f, 0x72, 0x03, 0]);
        assert_eq!(ask(&mut pf, from_vf::SMALL_BLOCK, 2 | 9 << 4 | 1 << 9), Some(1 | 0x7b << 2));
        assert_eq!(ask(&mut pf, from_vf::SMALL_BLOCK, 2 | 10 << 4), Some(2 | 1 << 2), "behind the end");
        assert_eq!(ask(&mut pf, from_vf::SMALL_BLOCK, 2 | 10 << 4 | 1 << 9), Some(2 | 1 << 2));
        assert_eq!(ask(&mut pf, from_vf::SMALL_BLOCK, 4), Some(2), "no such block");
        assert_eq!(ask(&mut pf, from_vf::MEDIUM_BLOCK, 2), Some(2));
        assert_eq!(ask(&mut pf, from_vf::LARGE_BLOCK, 3), Some(2));
    }

    #[test]
    fn versions_are_compatible_or_left_to_the_newer_side() {
        let mut pf = pf(Personality::Vf37c9);
        assert_eq!(ask(&mut pf, from_vf::VERSION, 5), Some(0x105));
        assert_eq!(ask(&mut pf, from_vf::VERSION, 6), Some(0x305));
        assert_eq!(ask(&mut pf, from_vf::LEGACY_VERSION, 0), Some(0x111));
        let spoilt = pf
            .handle(Message { kind: from_vf::VERSION, data: 5 }, Spoil { version: true, ..Spoil::default() });
        assert_eq!(spoilt, Answer::Message(Message { kind: to_vf::VERSION, data: 0x205 }));
    }

    #[test]
    fn ring_pairs_are_reset_in_generation_four_only() {
        let reset = Message { kind: from_vf::RP_RESET, data: 3 };
        let done = Answer::ResetBank(3, Message { kind: to_vf::RP_RESET, data: 0 });
        assert_eq!(pf(Personality::Vf4941).handle(reset, Spoil::default()), done);
        assert_eq!(pf(Personality::Vf37c9).handle(reset, Spoil::default()), Answer::Nothing);
    }

    #[test]
    fn who_is_running_wants_to_be_told_things() {
        let mut pf = pf(Personality::Vf4941);
        ask(&mut pf, from_vf::VERSION, 5);
        assert!(!pf.is_listened_to());
        ask(&mut pf, from_vf::INIT, 0);
        assert!(pf.is_listened_to());
        ask(&mut pf, from_vf::SHUTDOWN, 0);
        assert!(!pf.is_listened_to());
    }
}
