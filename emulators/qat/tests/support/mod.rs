//! A very small driver: rings in memory, requests in, responses out.
#![allow(dead_code, clippy::unwrap_used)]

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use emu_qat::{Card, Options, Personality};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::io::{pread, pwrite, read};

pub(crate) const MEMORY: u64 = 8 << 20;
/// Where the memory is for the card. Not where it is in the file.
pub(crate) const BASE: u64 = 0x1_0000_0000;

/// Memory that the card reaches.
pub(crate) struct Memory(OwnedFd);

impl Memory {
    pub(crate) fn new(card: &Card) -> Memory {
        let fd = memfd_create("dma", MemfdFlags::ALLOW_SEALING | MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&fd, MEMORY).unwrap();
        let memory = Memory(fd);
        memory.map(card);
        memory
    }

    pub(crate) fn map(&self, card: &Card) {
        card.map(BASE, self.0.as_fd().try_clone_to_owned().unwrap(), 0, MEMORY).unwrap();
    }

    pub(crate) fn write(&self, iova: u64, octets: &[u8]) {
        assert_eq!(pwrite(&self.0, octets, iova - BASE).unwrap(), octets.len());
    }

    pub(crate) fn read(&self, iova: u64, len: usize) -> Vec<u8> {
        let mut octets = vec![0; len];
        assert_eq!(pread(&self.0, &mut octets, iova - BASE).unwrap(), len);
        octets
    }
}

/// A pair of rings: 64 requests, 64 responses.
pub(crate) struct Pair {
    pub(crate) card: Card,
    bank: u32,
    tx: u32,
    rx: u32,
    request_len: u32,
    base: u64,
    tail: u32,
    head: u32,
}

const REQUESTS: u32 = 64;
const EMPTY: u32 = 0x7f7f_7f7f;

impl Pair {
    /// Sets up the rings of a pair at `base` in memory: `pair` is the bank in generation 4, the request ring in generation 2.
    pub(crate) fn new(card: &Card, memory: &Memory, pair: u32, request_len: u32, base: u64) -> Pair {
        let four = card.personality() != Personality::Vf37c9;
        let (bank, tx, rx) = if four { (pair, 0, 1) } else { (0, pair, pair + 8) };
        let this = Pair { card: card.clone(), bank, tx, rx, request_len, base, tail: 0, head: 0 };
        memory.write(this.responses(), &[0x7f; (REQUESTS * 32) as usize]);
        let (config, lbase, ubase) = if four { (0x1000, 0x1040, 0x1080) } else { (0x00, 0x40, 0x80) };
        for (ring, at, len, watermark) in
            [(tx, base, REQUESTS * request_len, 0), (rx, this.responses(), REQUESTS * 32, 8 << 10)]
        {
            let code = (len / 64).trailing_zeros();
            let at = if four { at } else { at >> 6 };
            this.write(lbase + 4 * ring, at as u32);
            this.write(ubase + 4 * ring, (at >> 32) as u32);
            this.write(config + 4 * ring, code | watermark);
        }
        let arbiter = this.read(0x19c);
        this.write(0x19c, arbiter | 1 << tx);
        this
    }

    pub(crate) fn responses(&self) -> u64 {
        self.base + 0x4000
    }

    pub(crate) fn write(&self, register: u32, value: u32) {
        let stride = if self.card.personality() == Personality::Vf37c9 { 0x1000 } else { 0x2000 };
        self.card.write32(0, self.bank * stride + register, value);
    }

    pub(crate) fn read(&self, register: u32) -> u32 {
        let stride = if self.card.personality() == Personality::Vf37c9 { 0x1000 } else { 0x2000 };
        self.card.read32(0, self.bank * stride + register)
    }

    /// Puts a request into the ring, without a word to the card.
    pub(crate) fn push(&mut self, memory: &Memory, request: &[u8]) {
        assert_eq!(request.len(), self.request_len as usize);
        memory.write(self.base + u64::from(self.tail), request);
        self.tail = (self.tail + self.request_len) % (REQUESTS * self.request_len);
    }

    /// Tells the card.
    pub(crate) fn doorbell(&self) {
        self.write(0x100 + 4 * self.tx, self.tail);
    }

    /// The next response, if there is one.
    pub(crate) fn take(&mut self, memory: &Memory) -> Option<[u8; 32]> {
        let at = self.responses() + u64::from(self.head);
        let response: [u8; 32] = memory.read(at, 32).try_into().unwrap();
        if response[..4] == EMPTY.to_le_bytes() {
            return None;
        }
        memory.write(at, &EMPTY.to_le_bytes());
        self.head = (self.head + 32) % (REQUESTS * 32);
        Some(response)
    }

    /// Tells the card how far the responses have been read.
    pub(crate) fn acknowledge(&self) {
        self.write(0xc0 + 4 * self.rx, self.head);
    }

    /// Submits one request to a stepped or running card and waits for its response.
    pub(crate) fn ask(&mut self, memory: &Memory, request: &[u8]) -> [u8; 32] {
        self.push(memory, request);
        self.doorbell();
        let began = Instant::now();
        loop {
            self.card.advance(Duration::from_micros(10));
            if let Some(response) = self.take(memory) {
                self.acknowledge();
                return response;
            }
            assert!(began.elapsed() < Duration::from_secs(60), "no response");
            std::thread::yield_now();
        }
    }
}

/// A card that may reach memory.
pub(crate) fn stepped(personality: Personality, options: &Options) -> (Card, Memory) {
    let card = Card::stepped(personality, options);
    let memory = Memory::new(&card);
    master(&card);
    (card, memory)
}

/// Memory and bus master on.
pub(crate) fn master(card: &Card) {
    card.write_config(0x04, &[0x06, 0]);
}

pub(crate) fn bell() -> OwnedFd {
    eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).unwrap()
}

pub(crate) fn rung(bell: &OwnedFd) -> u64 {
    let mut octets = [0; 8];
    read(bell, &mut octets).map_or(0, |_| u64::from_ne_bytes(octets))
}

pub(crate) fn hex(digits: &str) -> Vec<u8> {
    let digits: String = digits.chars().filter(|c| !c.is_whitespace()).collect();
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

/// A request from words at places.
pub(crate) fn request(len: usize, words: &[(usize, u32)]) -> Vec<u8> {
    let mut octets = vec![0; len];
    for (at, word) in words {
        octets[4 * at..4 * at + 4].copy_from_slice(&word.to_le_bytes());
    }
    octets
}

pub(crate) fn low(address: u64) -> u32 {
    address as u32
}

pub(crate) fn high(address: u64) -> u32 {
    (address >> 32) as u32
}

/// A request for modular exponentiation with numbers of up to 512 bits, whose tables and numbers are put at `at`.
pub(crate) fn modexp(memory: &Memory, at: u64, opaque: u32, numbers: [&[u8]; 3]) -> Vec<u8> {
    for (index, number) in numbers.into_iter().enumerate() {
        let place = at + 0x100 + 0x40 * index as u64;
        memory.write(place, &[vec![0; 64 - number.len()], number.to_vec()].concat());
        memory.write(at + 8 * index as u64, &place.to_le_bytes());
    }
    memory.write(at + 0x40, &(at + 0x200).to_le_bytes());
    let (source, destination) = (at, at + 0x40);
    request(
        64,
        &[
            (0, 0x8003_0000),
            (5, 0x150c_2327),
            (6, opaque),
            (8, low(source)),
            (9, high(source)),
            (10, low(destination)),
            (11, high(destination)),
            (12, 0x0301),
        ],
    )
}

/// The request of the specification: AES-256-GCM over a packet of ESP at `packet`, additional data at `aad`, descriptor at
/// `descriptor`, all of which are put there.
pub(crate) fn esp_gcm(memory: &Memory, at: u64, opaque: u32) -> Vec<u8> {
    let (packet, aad, descriptor) = (at, at + 0x400, at + 0x800);
    let head = hex("0000004300000001 1122334455667788");
    memory.write(packet, &[head.clone(), vec![0xab; 64], vec![0; 16]].concat());
    memory.write(aad, &[&head[..8], &[0; 8]].concat());
    let config = request(16, &[(0, 0x0000_4045), (1, 0x0800_0000)]);
    memory.write(descriptor, &[config, (0..32).collect()].concat());
    let salt = 0xddcc_bbaa_u32;
    let iv: Vec<u32> = head[8..].chunks(4).map(|c| u32::from_le_bytes(c.try_into().unwrap())).collect();
    request(
        128,
        &[
            (0, 0x8004_0000),
            (1, 0x0000_6424),
            (2, low(descriptor)),
            (3, high(descriptor)),
            (4, 0x0006_0000),
            (6, opaque),
            (8, low(packet)),
            (9, high(packet)),
            (10, low(packet)),
            (11, high(packet)),
            (12, 0x60),
            (13, 0x60),
            (14, 0x10),
            (15, 0x40),
            (16, salt),
            (17, iv[0]),
            (18, iv[1]),
            (21, 8),
            (22, low(aad)),
            (23, high(aad)),
            (26, 0x1000_0000),
            (27, 0x0000_0402),
        ],
    )
}
