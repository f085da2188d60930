//! BAR 2: the mailbox between virtual and physical function, and where interrupts come from.
//!
//! Generation 2 has one register for both directions, a half for each, and a pattern in the other half that says who
//! holds it. Generation 4 has a register for each direction.

use std::collections::VecDeque;

use crate::personality::Generation;
use crate::pf::{Answer, Message, from_vf};

/// Generation 2.
mod two {
    pub(super) const MAILBOX: u64 = 0x200;
    pub(super) const SOURCE: u64 = 0x204;
    pub(super) const MASK: u64 = 0x208;
    /// The bit of the mailbox in source and mask; the bit of the ring bank is 0.
    pub(super) const MAILBOX_BIT: u32 = 1 << 1;
    /// After a reset the mailbox is masked; Linux writes the mask before it needs it.
    pub(super) const MASK_RESET: u32 = MAILBOX_BIT;
    /// In the half of the other side: "in use by me".
    pub(super) const IN_USE: u32 = 0x6ac2;
    /// A message is pending in the half of the virtual function.
    pub(super) const VF_PENDING: u32 = 1 << 16;
}

/// Generation 4.
mod four {
    pub(super) const SOURCE: u64 = 0x0000;
    pub(super) const MASK: u64 = 0x0004;
    pub(super) const MAILBOX_SOURCE: u64 = 0x1000;
    pub(super) const MAILBOX_MASK: u64 = 0x1004;
    pub(super) const TO_VF: u64 = 0x1008;
    pub(super) const FROM_VF: u64 = 0x100c;
    pub(super) const BANKS: u32 = 0xf;
}

/// A message is pending, in the low bit of a message word.
const PENDING: u32 = 1;
/// The message belongs to this protocol, and not to what went before it.
const ORIGIN: u32 = 2;
/// Notices that wait for the virtual function to take them; more would be a driver that never does.
const MAX_WAITING: usize = 8;

/// An interrupt source that is active, as bits: banks from bit 0, and this one.
pub(crate) const MAILBOX_SOURCE: u32 = 1 << 31;

pub(crate) struct Mailbox {
    generation: Generation,
    /// The shared register, or the one to the virtual function.
    to_vf: u32,
    /// The one from the virtual function, in generation 4.
    from_vf: u32,
    /// Notices of ours that wait for their turn.
    waiting: VecDeque<Message>,
    /// A notice of ours that was posted and not yet acknowledged.
    posted: Option<Message>,
    mask: u32,
    mailbox_mask: u32,
}

impl Mailbox {
    pub(crate) fn new(generation: Generation) -> Self {
        let mask = match generation {
            Generation::Two => two::MASK_RESET,
            Generation::Four => 0,
        };
        Mailbox {
            generation,
            to_vf: 0,
            from_vf: 0,
            waiting: VecDeque::new(),
            posted: None,
            mask,
            mailbox_mask: 1,
        }
    }

    /// Writes a register. A message that this sends is returned; it is pending until it is [answered](Mailbox::answer).
    pub(crate) fn write(&mut self, offset: u64, value: u32) -> Option<Message> {
        match (self.generation, offset) {
            (Generation::Two, two::MAILBOX) => return self.write_shared(value),
            (Generation::Two, two::MASK) => self.mask = value & 3,
            (Generation::Four, four::MASK) => self.mask = value & four::BANKS,
            (Generation::Four, four::MAILBOX_MASK) => self.mailbox_mask = value & 1,
            (Generation::Four, four::TO_VF) => {
                // A write with the pending bit clear acknowledges, whatever else is in it.
                self.to_vf = value;
                if value & PENDING == 0 {
                    self.posted = None;
                    self.post();
                }
            }
            (Generation::Four, four::FROM_VF) => {
                self.from_vf = value;
                if value & (PENDING | ORIGIN) == PENDING | ORIGIN {
                    return Some(Message { kind: (value >> 2 & 0x3f) as u8, data: value >> 8 });
                }
                self.from_vf &= !PENDING;
            }
            _ => {}
        }
        None
    }

    fn write_shared(&mut self, value: u32) -> Option<Message> {
        if value & two::VF_PENDING == 0 {
            let acknowledged = self.to_vf & PENDING != 0 && value & PENDING == 0;
            self.to_vf = value;
            if acknowledged {
                self.posted = None;
                // What the other half says is ours to clear now.
                self.to_vf &= 0xffff;
            }
            self.post();
            return None;
        }
        // A notice of ours that had not been read yet is overwritten by this. It will be posted again.
        if let Some(lost) = self.posted.take() {
            self.waiting.push_front(lost);
        }
        self.to_vf = value;
        let word = value >> 16;
        if word & ORIGIN == 0 {
            self.to_vf &= !two::VF_PENDING;
            return None;
        }
        Some(Message { kind: (word >> 2 & 0xf) as u8, data: word >> 6 & 0x3ff })
    }

    /// Acknowledges the message that is pending and gives it its answer.
    pub(crate) fn answer(&mut self, message: Message, answer: Answer) {
        let reply = match answer {
            Answer::Message(reply) | Answer::ResetBank(_, reply) => Some(reply),
            Answer::Nothing | Answer::ReadyForRestart => None,
        };
        match self.generation {
            Generation::Two => {
                self.to_vf = match reply {
                    // Nothing in the other half: the virtual function does not yet know whether it may clear it.
                    Some(reply) => encode(Generation::Two, reply),
                    None if matches!(message.kind, from_vf::INIT | from_vf::SHUTDOWN) => {
                        // Its sender compares the register with what it wrote.
                        self.to_vf & !two::VF_PENDING
                    }
                    None => 0,
                };
            }
            Generation::Four => {
                if let Some(reply) = reply {
                    if let Some(lost) = self.posted.take() {
                        self.waiting.push_front(lost);
                    }
                    self.to_vf = encode(Generation::Four, reply);
                }
                // Only now: some drivers read the answer once, as soon as the question is acknowledged.
                self.from_vf &= !PENDING;
            }
        }
        self.post();
    }

    /// Tells the virtual function something it has not asked for.
    pub(crate) fn notify(&mut self, notice: Message) {
        if self.waiting.len() < MAX_WAITING {
            self.waiting.push_back(notice);
        }
        self.post();
    }

    /// Posts a notice, if the register is free.
    fn post(&mut self) {
        let busy = match self.generation {
            Generation::Two => {
                self.to_vf & (PENDING | two::VF_PENDING) != 0 || self.to_vf & 0xffff == two::IN_USE
            }
            Generation::Four => self.to_vf & PENDING != 0,
        };
        if busy {
            return;
        }
        if let Some(notice) = self.waiting.pop_front() {
            self.to_vf = encode(self.generation, notice);
            self.posted = Some(notice);
        }
    }

    pub(crate) fn read(&self, offset: u64, banks: u32) -> u32 {
        match (self.generation, offset) {
            (Generation::Two, two::MAILBOX) | (Generation::Four, four::TO_VF) => self.to_vf,
            (Generation::Two, two::SOURCE) => {
                let mailbox = if self.to_vf & PENDING != 0 { two::MAILBOX_BIT } else { 0 };
                banks & 1 | mailbox
            }
            (Generation::Two, two::MASK) | (Generation::Four, four::MASK) => self.mask,
            (Generation::Four, four::SOURCE) => banks & four::BANKS,
            (Generation::Four, four::MAILBOX_SOURCE) => self.to_vf & PENDING,
            (Generation::Four, four::MAILBOX_MASK) => self.mailbox_mask,
            (Generation::Four, four::FROM_VF) => self.from_vf,
            _ => 0,
        }
    }

    /// Which sources are active and not masked; `banks` has a bit for each ring bank that wants attention.
    pub(crate) fn active(&self, banks: u32) -> u32 {
        let pending = self.to_vf & PENDING != 0;
        let (banks, mailbox) = match self.generation {
            Generation::Two => (banks & 1 & !self.mask, pending && self.mask & two::MAILBOX_BIT == 0),
            Generation::Four => (banks & four::BANKS & !self.mask, pending && self.mailbox_mask == 0),
        };
        banks | if mailbox { MAILBOX_SOURCE } else { 0 }
    }
}

fn encode(generation: Generation, message: Message) -> u32 {
    let head = PENDING | ORIGIN | u32::from(message.kind) << 2;
    match generation {
        Generation::Two => (head & 0x3f | message.data << 6) & 0xffff,
        Generation::Four => head & 0xff | message.data << 8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::personality::Personality;
    use crate::pf::{Pf, Spoil, to_vf};

    struct Pair(Mailbox, Pf);

    impl Pair {
        fn new(personality: Personality) -> Pair {
            let layout = personality.layout();
            Pair(Mailbox::new(layout.generation), Pf::new(layout, None, None))
        }

        fn write(&mut self, offset: u64, value: u32) {
            if let Some(message) = self.0.write(offset, value) {
                let answer = self.1.handle(message, Spoil::default());
                self.0.answer(message, answer);
            }
        }

        fn read(&self, offset: u64) -> u32 {
            self.0.read(offset, 0)
        }
    }

    const RESTARTING: Message = Message { kind: to_vf::RESTARTING, data: 0 };

    #[test]
    fn generation_two_answers_in_the_half_of_the_other() {
        let mut pair = Pair::new(Personality::Vf37c9);
        pair.write(two::MASK, 0);
        pair.write(two::MAILBOX, 0x015b_6ac2);
        assert_eq!(pair.read(two::MAILBOX), 0x0000_414b);
        assert_eq!(pair.read(two::SOURCE), 2);
        assert_eq!(pair.0.active(0), MAILBOX_SOURCE);
        pair.write(two::MASK, 2);
        assert_eq!(pair.0.active(0), 0);
        pair.write(two::MAILBOX, 0x0000_414a);
        assert_eq!(pair.read(two::SOURCE), 0);
    }

    #[test]
    fn generation_two_leaves_a_notification_as_its_sender_expects_it() {
        let mut pair = Pair::new(Personality::Vf37c9);
        pair.write(two::MAILBOX, 0x000f_6ac2);
        assert_eq!(pair.read(two::MAILBOX), 0x000e_6ac2);
        // While the sender still holds the register, nothing is posted over it.
        pair.0.notify(RESTARTING);
        assert_eq!(pair.read(two::MAILBOX), 0x000e_6ac2);
        pair.write(two::MAILBOX, 0x000e_0000);
        assert_eq!(pair.read(two::MAILBOX), 0x0007);
        pair.write(two::MAILBOX, 0x0006);
        assert_eq!(pair.read(two::SOURCE), 0);
    }

    #[test]
    fn generation_two_posts_again_what_a_message_has_overwritten() {
        let mut pair = Pair::new(Personality::Vf37c9);
        pair.0.notify(RESTARTING);
        assert_eq!(pair.read(two::MAILBOX), 0x0007);
        pair.write(two::MAILBOX, 0x015b_6ac2);
        assert_eq!(pair.read(two::MAILBOX), 0x0000_414b);
        pair.write(two::MAILBOX, 0x0000_414a);
        assert_eq!(pair.read(two::MAILBOX), 0x0007);
        // What is not of this protocol is only acknowledged.
        let mut pair = Pair::new(Personality::Vf37c9);
        pair.write(two::MAILBOX, 0x0159_6ac2);
        assert_eq!(pair.read(two::MAILBOX), 0x0158_6ac2);
    }

    #[test]
    fn generation_four_has_the_answer_ready_when_it_acknowledges() {
        let mut pair = Pair::new(Personality::Vf4941);
        pair.write(four::FROM_VF, 0x0000_051b);
        assert_eq!(pair.read(four::FROM_VF), 0x0000_051a);
        assert_eq!(pair.read(four::TO_VF), 0x0001_050b);
        assert_eq!(pair.read(four::MAILBOX_SOURCE), 1);
        assert_eq!(pair.0.active(0), 0, "masked after a reset");
        // DPDK acknowledges with whatever it has at hand.
        pair.write(four::TO_VF, 0x0000_051a);
        assert_eq!(pair.read(four::MAILBOX_SOURCE), 0);
        for (question, answer) in
            [(0x0000_2327, 0x0000_700f), (0x0000_3327, 0x0000_1c0f), (0x0002_3327, 0x0002_b10f)]
        {
            pair.write(four::FROM_VF, question);
            assert_eq!(pair.read(four::TO_VF), answer, "{question:#x}");
            pair.write(four::TO_VF, answer & !1);
        }
    }

    #[test]
    fn generation_four_keeps_notices_until_they_are_taken() {
        let mut pair = Pair::new(Personality::Vf4941);
        for _ in 0..100 {
            pair.0.notify(RESTARTING);
        }
        pair.write(four::MAILBOX_MASK, 0);
        let mut seen = 0;
        while pair.0.active(0) == MAILBOX_SOURCE {
            assert_eq!(pair.read(four::TO_VF), 7);
            pair.write(four::TO_VF, 6);
            seen += 1;
        }
        assert_eq!(seen, 1 + MAX_WAITING);
    }

    #[test]
    fn banks_show_in_source_and_mask() {
        for (personality, source, mask) in
            [(Personality::Vf37c9, two::SOURCE, two::MASK), (Personality::Vf4941, four::SOURCE, four::MASK)]
        {
            let mut pair = Pair::new(personality);
            assert_eq!(pair.0.read(source, 1), 1);
            pair.write(mask, 0);
            assert_eq!(pair.0.active(1), 1);
            pair.write(mask, 1);
            assert_eq!(pair.0.active(1), 0);
            assert_eq!(pair.read(mask), 1);
        }
    }
}
