//! Octets to steps and back: the fuzzer changes octets, seeds are written as steps.

use std::time::Duration;

/// Payloads by type, flags and content.
pub type Inside = Vec<(u8, u8, Vec<u8>)>;

/// One step of a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Any octets as a datagram.
    Raw(Vec<u8>),
    /// IKE_SA_INIT of a new peer, one payload left out, others added.
    Init {
        drop: Option<u8>,
        add: Inside,
    },
    /// Its IKE_AUTH.
    Auth {
        drop: Option<u8>,
        add: Inside,
        honest: bool,
    },
    /// A message with the right keys. `id` counts from the next one; `flags` are turned.
    Sealed {
        exchange: u8,
        id: i8,
        flags: u8,
        inside: Inside,
    },
    NewChild {
        pfs: bool,
    },
    RekeyChild {
        which: u8,
        nonce: u8,
        pfs: bool,
    },
    RekeyIke {
        nonce: u8,
    },
    DeleteChild {
        which: u8,
    },
    DeleteIke,
    /// Takes up the engine's next request.
    Read,
    /// Answers the request taken up first, honestly.
    Grant {
        nonce: u8,
    },
    /// The same with an error.
    Refuse {
        kind: u16,
    },
    /// The same with anything.
    AnswerWith {
        inside: Inside,
    },
    /// Sends again what was sent before, perhaps with one bit turned.
    Again {
        which: u8,
        flip: Option<u16>,
    },
    /// A message in pieces, of which `keep` says which arrive.
    Fragments {
        size: u8,
        keep: u32,
        inside: Inside,
    },
    Wait(Duration),
    Command(u8),
    Esp {
        which: u8,
        signal: u8,
    },
    /// Devices and the key side wait, or go on.
    Hold(bool),
    TurnJobs,
    /// How the next job ends.
    Fail(u8),
    /// The peer speaks on another of its IKE SAs.
    Speak(u8),
    /// The peer is at another address.
    Move(u8),
}

/// Reads steps.
pub struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    pub fn new(octets: &'a [u8]) -> Self {
        Script(octets)
    }

    /// The next step; `None` at the end.
    pub fn next_op(&mut self) -> Option<Op> {
        let (&code, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(match code % 23 {
            0 => Op::Raw(self.octets()),
            1 => Op::Init { drop: self.option(), add: self.inside() },
            2 => Op::Auth { drop: self.option(), add: self.inside(), honest: self.u8() & 1 == 1 },
            3 => Op::Sealed {
                exchange: self.u8(),
                id: self.u8() as i8,
                flags: self.u8(),
                inside: self.inside(),
            },
            4 => Op::NewChild { pfs: self.u8() & 1 == 1 },
            5 => Op::RekeyChild { which: self.u8(), nonce: self.u8(), pfs: self.u8() & 1 == 1 },
            6 => Op::RekeyIke { nonce: self.u8() },
            7 => Op::DeleteChild { which: self.u8() },
            8 => Op::DeleteIke,
            9 => Op::Read,
            10 => Op::Grant { nonce: self.u8() },
            11 => Op::Refuse { kind: self.u16() },
            12 => Op::AnswerWith { inside: self.inside() },
            13 => Op::Again { which: self.u8(), flip: (self.u8() & 1 == 1).then(|| self.u16()) },
            14 => Op::Fragments {
                size: self.u8(),
                keep: u32::from(self.u16()) << 16 | u32::from(self.u16()),
                inside: self.inside(),
            },
            15 => Op::Wait(Duration::from_millis(u64::from(self.u16()) * 10)),
            16 => Op::Command(self.u8()),
            17 => Op::Esp { which: self.u8(), signal: self.u8() },
            18 => Op::Hold(self.u8() & 1 == 1),
            19 => Op::TurnJobs,
            20 => Op::Fail(self.u8()),
            21 => Op::Speak(self.u8()),
            _ => Op::Move(self.u8()),
        })
    }

    fn u8(&mut self) -> u8 {
        match self.0.split_first() {
            Some((&octet, rest)) => {
                self.0 = rest;
                octet
            }
            None => 0,
        }
    }

    fn u16(&mut self) -> u16 {
        u16::from_be_bytes([self.u8(), self.u8()])
    }

    fn octets(&mut self) -> Vec<u8> {
        let len = usize::from(self.u16()).min(self.0.len());
        let (octets, rest) = self.0.split_at(len);
        self.0 = rest;
        octets.to_vec()
    }

    fn option(&mut self) -> Option<u8> {
        (self.u8() & 1 == 1).then(|| self.u8())
    }

    fn inside(&mut self) -> Inside {
        let count = self.u8() % 8;
        (0..count).map(|_| (self.u8(), self.u8(), self.octets())).collect()
    }
}

/// The octets of a script.
pub fn encode(ops: &[Op]) -> Vec<u8> {
    let mut out = Vec::new();
    ops.iter().for_each(|op| put(op, &mut out));
    out
}

fn put(op: &Op, out: &mut Vec<u8>) {
    match op {
        Op::Raw(octets) => {
            out.push(0);
            put_octets(octets, out);
        }
        Op::Init { drop, add } => {
            out.push(1);
            put_option(*drop, out);
            put_inside(add, out);
        }
        Op::Auth { drop, add, honest } => {
            out.push(2);
            put_option(*drop, out);
            put_inside(add, out);
            out.push(u8::from(*honest));
        }
        Op::Sealed { exchange, id, flags, inside } => {
            out.extend([3, *exchange, *id as u8, *flags]);
            put_inside(inside, out);
        }
        Op::NewChild { pfs } => out.extend([4, u8::from(*pfs)]),
        Op::RekeyChild { which, nonce, pfs } => out.extend([5, *which, *nonce, u8::from(*pfs)]),
        Op::RekeyIke { nonce } => out.extend([6, *nonce]),
        Op::DeleteChild { which } => out.extend([7, *which]),
        Op::DeleteIke => out.push(8),
        Op::Read => out.push(9),
        Op::Grant { nonce } => out.extend([10, *nonce]),
        Op::Refuse { kind } => {
            out.push(11);
            out.extend(kind.to_be_bytes());
        }
        Op::AnswerWith { inside } => {
            out.push(12);
            put_inside(inside, out);
        }
        Op::Again { which, flip } => {
            out.extend([13, *which, u8::from(flip.is_some())]);
            out.extend(flip.iter().flat_map(|f| f.to_be_bytes()));
        }
        Op::Fragments { size, keep, inside } => {
            out.extend([14, *size]);
            out.extend(keep.to_be_bytes());
            put_inside(inside, out);
        }
        Op::Wait(time) => {
            out.push(15);
            let tens = u16::try_from(time.as_millis() / 10).unwrap_or(u16::MAX);
            out.extend(tens.to_be_bytes());
        }
        Op::Command(which) => out.extend([16, *which]),
        Op::Esp { which, signal } => out.extend([17, *which, *signal]),
        Op::Hold(on) => out.extend([18, u8::from(*on)]),
        Op::TurnJobs => out.push(19),
        Op::Fail(how) => out.extend([20, *how]),
        Op::Speak(which) => out.extend([21, *which]),
        Op::Move(octet) => out.extend([22, *octet]),
    }
}

fn put_octets(octets: &[u8], out: &mut Vec<u8>) {
    let len = u16::try_from(octets.len()).unwrap_or(u16::MAX);
    out.extend(len.to_be_bytes());
    out.extend(octets.iter().take(len.into()));
}

fn put_option(value: Option<u8>, out: &mut Vec<u8>) {
    out.push(u8::from(value.is_some()));
    out.extend(value);
}

fn put_inside(inside: &Inside, out: &mut Vec<u8>) {
    out.push(inside.len().min(7) as u8);
    for (kind, flags, octets) in inside.iter().take(7) {
        out.extend([*kind, *flags]);
        put_octets(octets, out);
    }
}
