//! Jobs with known answers: whether a device still does what it says it does. They run on a watcher's thread, over queues of its
//! own.
//!
//! 1. A packet is sealed. With AES-GCM and a key of 128 bits it is known to the octet what must come out; with other transforms
//!    it must be something else than what went in.
//! 2. What came out is opened again, and so is a copy with one bit changed: the one must be what was sealed, the other must be
//!    refused.
//! 3. An operation of the key exchange is done whose result stands in an RFC, where the device does one of those.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use spi::{
    CryptoDone, CryptoJob, CryptoOp, CryptoOutput, CryptoQueue, Device, DhPrivate, Direction, Encr, EspBurst,
    EspOp, EspQueue, FaultKind, Group, Integ, Outcome, PacketBuf, Pool, Queue, QueueConfig, Reject, SaId,
    SaParams, Secret, Token,
};

/// What is sealed: a text, padding and a trailer; whole blocks of any cipher.
const TEXT: &[u8; 48] = b"tussock: is this device telling the truth?\x01\x02\x03\x04\x04\x3b";
/// What AES-GCM with 128 bits makes of it.
const SEALED: &str = "7e57c0de00000007000000000000000780383ade41e84d78a07d82e9ed45c60cfeb5bd2a597a263685bdeabf790d8aac\
                      ff245e646c0068d563611fe80b60c4f86583e204dfc18ec1f2bfa62f88294c5b";
const SPI: u32 = 0x7e57_c0de;
const SEQ: u64 = 7;
/// Every octet of the keys, which protect nothing.
const KEY: u8 = 0x5a;
/// Octets of a buffer, and where in it the changed copy lies.
const BUFFER: usize = 1024;
const COPY: usize = 512;
/// Longest nap between two looks at a queue.
const NAP: Duration = Duration::from_millis(20);

/// A key exchange with a known result; hexadecimal.
struct Exchange {
    group: Group,
    ours: &'static str,
    theirs: &'static str,
    shared: &'static str,
}

const EXCHANGES: [Exchange; 2] = [
    // RFC 7748 section 6.1
    Exchange {
        group: Group::X25519,
        ours: "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb",
        theirs: "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a",
        shared: "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742",
    },
    // RFC 5903 section 8.1
    Exchange {
        group: Group::ECP256,
        ours: "c88f01f510d9ac3f70a292daa2316de544e9aab8afe84049c62a9c57862d1433",
        theirs: "d12dfb5289c8d4f81208b70270398c342296970a0bccb74c736fc7554494bf63\
                 56fbf3ca366cc23e8157854c13c58d6aac23f046ada30f8353e74f33039872ab",
        shared: "d6840f6b42f6edafd13116e0e12565202fef8e9ece7dce03812464d04b9442de",
    },
];

/// What is wrong with a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    /// It has forgotten what was installed: it was reset, by itself or by somebody else.
    Forgot,
    /// Anything else, in words for people.
    Ill(String),
}

impl From<String> for Wrong {
    fn from(what: String) -> Wrong {
        Wrong::Ill(what)
    }
}

impl From<&str> for Wrong {
    fn from(what: &str) -> Wrong {
        Wrong::Ill(what.to_owned())
    }
}

/// Queues and SAs for known answers on one device. One that has found something wrong is done for: answers may still come.
pub(super) struct KnownAnswers {
    packets: Option<Packets>,
    operations: Option<Operations>,
}

struct Packets {
    queue: Box<EspQueue>,
    pool: Pool,
    seal: SaId,
    open: SaId,
    /// Octets before the text.
    head: usize,
    /// What it must be when it is sealed; `None`: it is different each time.
    sealed: Option<Vec<u8>>,
}

struct Operations {
    queue: Box<CryptoQueue>,
    exchange: &'static Exchange,
    next: u64,
}

impl KnownAnswers {
    /// Opens queues, and installs SAs. A device that has no queue left is asked nothing. Software need not be asked for
    /// operations: its helpers compete with everything else on the machine, and late is not wrong.
    ///
    /// # Errors
    /// What is wrong with the device.
    pub(super) fn new(device: &dyn Device, of_operations: bool) -> Result<KnownAnswers, Wrong> {
        let caps = &device.desc().caps;
        let does = |exchange: &&Exchange| of_operations && caps.dh.contains(&exchange.group);
        let exchange = EXCHANGES.iter().find(does);
        let operations = exchange.and_then(|exchange| {
            let queue = device.crypto_queue(QueueConfig { depth: 4, cpu: None })?;
            Some(Operations { queue, exchange, next: 1 })
        });
        Ok(KnownAnswers { packets: Packets::new(device)?, operations })
    }

    /// Whether anything is asked at all.
    pub(super) fn asks(&self) -> bool {
        self.packets.is_some() || self.operations.is_some()
    }

    /// Asks. Takes no longer than `patience`, twice for packets and once for operations; time in which this process did not run
    /// counts as one nap.
    ///
    /// # Errors
    /// What is wrong.
    pub(super) fn ask(&mut self, patience: Duration) -> Result<(), Wrong> {
        self.packets.as_mut().map_or(Ok(()), |packets| packets.ask(patience))?;
        self.operations.as_mut().map_or(Ok(()), |operations| operations.ask(patience))
    }

    /// Takes the SAs off the device.
    pub(super) fn remove(&self, device: &dyn Device) {
        if let Some(packets) = &self.packets {
            device.remove_sa(packets.seal);
            device.remove_sa(packets.open);
        }
    }
}

impl Packets {
    fn new(device: &dyn Device) -> Result<Option<Packets>, Wrong> {
        let caps = &device.desc().caps.esp;
        let exact = |encr, integ| encr == Encr::AES128_GCM16 && integ == Integ::NONE;
        let cap = caps.iter().find(|cap| exact(cap.encr, cap.integ)).or_else(|| caps.first());
        let Some(cap) = cap else { return Ok(None) };
        let (Some(encr), Some(integ)) = (cap.encr.info(), cap.integ.info()) else { return Ok(None) };
        let Some(queue) = device.esp_queue(QueueConfig { depth: 4, cpu: None }) else { return Ok(None) };
        let pool = Pool::new(BUFFER, 4).map_err(|error| format!("no memory to try it with: {error}"))?;
        device.register(pool.region()).map_err(|fault| format!("cannot reach memory: {fault}"))?;
        let install = |dir| {
            let installed = device.install_sa(&SaParams {
                spi: SPI,
                dir,
                encr: cap.encr,
                integ: cap.integ,
                encr_key: Secret::new(vec![KEY; encr.key_len + encr.salt_len]),
                integ_key: Secret::new(vec![KEY; integ.key_len]),
                esn: false,
            });
            installed.map_err(|fault| format!("does not take an SA: {fault}"))
        };
        let seal = install(Direction::Seal)?;
        let open = install(Direction::Open).inspect_err(|_| device.remove_sa(seal))?;
        let sealed = exact(cap.encr, cap.integ).then(|| octets(SEALED));
        let head = spi::esp::HEADER_LEN + encr.iv_len;
        Ok(Some(Packets { queue, pool, seal, open, head, sealed }))
    }

    fn ask(&mut self, patience: Duration) -> Result<(), Wrong> {
        let mut buf = self.pool.take().ok_or("does not give buffers back")?;
        let head = self.head;
        buf.bytes_mut()[head..head + TEXT.len()].copy_from_slice(TEXT);
        let pushed = buf.push_op(EspOp::new(0, TEXT.len() as u16, SEQ));
        pushed.map_err(|_| "has no room for a packet")?;
        let mut buf = self.round(self.seal, Direction::Seal, buf, patience)?;
        let op = buf.ops()[0];
        expect(op.outcome, Outcome::Done, "sealing")?;
        let packet = buf.bytes().get(op.at as usize..op.at as usize + usize::from(op.len));
        let packet = packet.ok_or("sealing: an answer outside its buffer")?.to_vec();
        let wrong = match &self.sealed {
            Some(sealed) => packet != *sealed,
            None => packet.len() <= head + TEXT.len() || packet.windows(TEXT.len()).any(|some| some == TEXT),
        };
        if wrong {
            return Err("sealing: a wrong answer".into());
        }
        let (at, len) = (op.at as usize, packet.len());
        if at + len > COPY || COPY + len > BUFFER {
            return Err("sealing: an answer that is too long".into());
        }
        let changed = &mut buf.bytes_mut()[COPY..COPY + len];
        changed.copy_from_slice(&packet);
        changed[len - 1] ^= 1;
        buf.clear_ops();
        for at in [at, COPY] {
            let pushed = buf.push_op(EspOp::new(at as u32, len as u16, SEQ));
            pushed.map_err(|_| "has no room for a packet")?;
        }
        let buf = self.round(self.open, Direction::Open, buf, patience)?;
        let [good, bad] = [buf.ops()[0], buf.ops()[1]];
        expect(good.outcome, Outcome::Done, "opening")?;
        expect(bad.outcome, Outcome::Rejected(Reject::BadIcv), "opening what was changed")?;
        let text = buf.bytes().get(good.at as usize..good.at as usize + usize::from(good.len));
        if text == Some(TEXT) { Ok(()) } else { Err("opening: a wrong answer".into()) }
    }

    fn round(
        &mut self,
        sa: SaId,
        dir: Direction,
        buf: PacketBuf,
        patience: Duration,
    ) -> Result<PacketBuf, Wrong> {
        let count = buf.ops().len();
        let burst: EspBurst = ask(&mut *self.queue, EspBurst { token: Token(SEQ), sa, dir, buf }, patience)?;
        if burst.buf.ops().len() != count {
            return Err("an answer to another question".into());
        }
        Ok(burst.buf)
    }
}

impl Operations {
    fn ask(&mut self, patience: Duration) -> Result<(), Wrong> {
        let Exchange { group, ours, theirs, shared } = *self.exchange;
        let ours = DhPrivate::Bytes(Secret::new(octets(ours)));
        let op = CryptoOp::DhDerive { group, ours, theirs: octets(theirs) };
        self.next += 1;
        let job = CryptoJob { token: Token(self.next), op };
        let done: CryptoDone = ask(&mut *self.queue, job, patience)?;
        expect(done.outcome, Outcome::Done, "a key exchange")?;
        match done.output {
            CryptoOutput::Secret(secret) if secret.ct_eq(&octets(shared)) => Ok(()),
            _ => Err("a key exchange: a wrong answer".into()),
        }
    }
}

/// Submits one job and waits for it.
fn ask<J, D>(queue: &mut dyn Queue<Job = J, Done = D>, job: J, patience: Duration) -> Result<D, Wrong> {
    let mut jobs = VecDeque::from([job]);
    let (mut answer, mut waited) = (None, Duration::ZERO);
    loop {
        if !jobs.is_empty() {
            queue.submit(&mut jobs).map_err(|closed| closed.to_string())?;
        }
        queue.poll(usize::MAX, &mut |done: D| answer = Some(done));
        if let Some(answer) = answer {
            return Ok(answer);
        }
        if waited >= patience {
            return Err(format!("no answer within {} ms", patience.as_millis()).into());
        }
        let asleep = Instant::now();
        match queue.doorbell() {
            Some(bell) => {
                let longest = Timespec { tv_sec: 0, tv_nsec: NAP.as_nanos() as i64 };
                // However it ends, the queue is polled next.
                let _ = poll(&mut [PollFd::new(&bell, PollFlags::IN)], Some(&longest));
            }
            None => std::thread::sleep(Duration::from_micros(200)),
        }
        waited += asleep.elapsed().min(NAP);
    }
}

fn expect(is: Outcome, should: Outcome, what: &str) -> Result<(), Wrong> {
    let text = match is {
        is if is == should => return Ok(()),
        Outcome::Failed(fault) if fault.kind == FaultKind::StaleHandle => return Err(Wrong::Forgot),
        Outcome::Failed(fault) => fault.to_string(),
        Outcome::Rejected(reject) => reject.to_string(),
        Outcome::Done => "not refused".to_owned(),
        Outcome::Pending => "no outcome".to_owned(),
    };
    Err(format!("{what}: {text}").into())
}

fn octets(hex: &str) -> Vec<u8> {
    crate::config::units::hex(hex).expect("a constant of this file")
}
