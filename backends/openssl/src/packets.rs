//! ESP: a burst is a job, and each of its packets a task.
//!
//! A packet is copied out of its buffer, sealed or opened in a room of the task's own, and copied back when that is over. So
//! the buffer can go home at any time, whatever a provider still does to the room.

use std::sync::Arc;

use spi::{EspBurst, FaultKind, Outcome, Reject};
use zeroize::Zeroize;

use crate::frame::{Verdict, fail};
use crate::lane::{Kind, Part};
use crate::sa::{Keys, Sa};
use crate::shared::{Counters, Shared};
use crate::sys::job::Task;

/// Tasks that are kept for the next packets, with their rooms.
const SPARE: usize = 512;
/// Random octets that are fetched at one time, for the IVs of CBC.
const IVS: usize = 4096;

/// One packet.
pub(crate) struct PacketTask {
    burst: usize,
    op: usize,
    seq: u64,
    /// The keys first: they go before what they were made from.
    work: Option<(Keys, Arc<Sa>)>,
    room: Vec<u8>,
    verdict: Verdict,
}

impl Task for PacketTask {
    fn run(&mut self) {
        if let Some((keys, sa)) = &mut self.work {
            self.verdict = sa.run(keys, &mut self.room, self.seq);
        }
    }
}

impl Part for PacketTask {
    fn whole(&self) -> usize {
        self.burst
    }
}

/// A burst that was begun.
pub(crate) struct BegunBurst {
    burst: EspBurst,
    sa: Arc<Sa>,
    /// Packets that have been looked at.
    next: usize,
}

/// Packets.
#[derive(Default)]
pub(crate) struct Packets {
    #[allow(clippy::vec_box, reason = "a job holds its task by address")]
    spare: Vec<Box<PacketTask>>,
    ivs: Vec<u8>,
}

impl Packets {
    /// Fills in an IV that nobody can foretell.
    fn iv(&mut self, shared: &Shared, to: &mut [u8]) -> bool {
        if self.ivs.len() < to.len() {
            self.ivs.resize(IVS, 0);
            if !shared.context.random(&mut self.ivs) {
                self.ivs.clear();
                return false;
            }
        }
        let from = self.ivs.len() - to.len();
        to.copy_from_slice(&self.ivs[from..]);
        self.ivs.truncate(from);
        true
    }

    /// Lays one packet out in a room of its own; an outcome where it goes no further.
    fn lay_out(
        &mut self,
        shared: &Shared,
        begun: &mut BegunBurst,
        op: usize,
        task: &mut PacketTask,
    ) -> Result<(), Outcome> {
        const BAD_LENGTH: Outcome = Outcome::Rejected(Reject::BadLength);
        const INTERNAL: Outcome = Outcome::Failed(spi::Fault::new(FaultKind::Internal));
        let (frame, buf) = (begun.sa.frame, &begun.burst.buf);
        let op = buf.ops().get(op).ok_or(INTERNAL)?;
        let text_len = frame.text_len(buf.capacity(), op).ok_or(BAD_LENGTH)?;
        let (start, total) = (op.at as usize, frame.head_len + text_len + frame.icv_len);
        let packet = buf.bytes().get(start..start + total).ok_or(BAD_LENGTH)?;
        task.room.clear();
        task.room.extend_from_slice(packet);
        if frame.dir == spi::Direction::Seal {
            let (header, rest) = task.room.split_at_mut(spi::esp::HEADER_LEN);
            header.copy_from_slice(&frame.header(op.seq));
            let iv = &mut rest[..frame.head_len - spi::esp::HEADER_LEN];
            match begun.sa.wants_random_iv() {
                true if !self.iv(shared, iv) => return Err(INTERNAL),
                true => {}
                false => iv.copy_from_slice(&op.seq.to_be_bytes()),
            }
        }
        task.seq = op.seq;
        task.verdict = Verdict::Open;
        let keys = begun.sa.keys().ok_or(INTERNAL)?;
        task.work = Some((keys, Arc::clone(&begun.sa)));
        Ok(())
    }
}

impl Kind for Packets {
    type Job = EspBurst;
    type Done = EspBurst;
    type Whole = BegunBurst;
    type Task = PacketTask;

    fn begin(&mut self, shared: &Shared, mut burst: EspBurst) -> Result<BegunBurst, EspBurst> {
        let Some(sa) = shared.find_sa(burst.sa) else {
            fail(&mut burst, FaultKind::StaleHandle);
            return Err(burst);
        };
        if burst.dir != sa.frame.dir {
            // An SA has one direction (RFC 4301 section 4.1); the caller has mixed up two.
            fail(&mut burst, FaultKind::Unsupported);
            return Err(burst);
        }
        Ok(BegunBurst { burst, sa, next: 0 })
    }

    fn next(&mut self, shared: &Shared, begun: &mut BegunBurst, number: usize) -> Option<Box<PacketTask>> {
        let mut task = self.spare.pop().unwrap_or_else(|| {
            let (room, verdict) = (Vec::new(), Verdict::Open);
            Box::new(PacketTask { burst: 0, op: 0, seq: 0, work: None, room, verdict })
        });
        while begun.next < begun.burst.buf.ops().len() {
            let op = begun.next;
            begun.next += 1;
            (task.burst, task.op) = (number, op);
            match self.lay_out(shared, begun, op, &mut task) {
                Ok(()) => return Some(task),
                Err(outcome) => {
                    if let Some(op) = begun.burst.buf.ops_mut().get_mut(op) {
                        op.outcome = outcome;
                    }
                }
            }
        }
        self.spare.push(task);
        None
    }

    fn absorb(&mut self, shared: &Shared, begun: &mut BegunBurst, mut task: Box<PacketTask>) {
        if let Some((keys, sa)) = task.work.take()
            && task.verdict != Verdict::Broken
        {
            // What has failed once is not used again.
            sa.give_back(keys);
        }
        let frame = begun.sa.frame;
        if task.verdict == Verdict::Broken {
            Counters::add(&shared.counters.refused, 1);
        }
        let (bytes, ops) = begun.burst.buf.split_mut();
        if let Some(op) = ops.get_mut(task.op) {
            let at = op.at as usize;
            let whole = bytes.get_mut(at..at + task.room.len());
            match (task.verdict, frame.dir, whole) {
                (Verdict::Good, spi::Direction::Seal, Some(to)) => to.copy_from_slice(&task.room),
                (Verdict::Good, spi::Direction::Open, Some(to)) => {
                    // The text, and nothing around it.
                    let text = frame.head_len..task.room.len() - frame.icv_len;
                    to[text.clone()].copy_from_slice(&task.room[text]);
                }
                _ => {}
            }
            frame.finish(op, task.verdict);
        }
        if self.spare.len() < SPARE {
            self.spare.push(task);
        }
    }

    fn end(&mut self, begun: BegunBurst) -> EspBurst {
        begun.burst
    }

    fn abort(&mut self, begun: BegunBurst) -> EspBurst {
        self.abort_job(begun.burst)
    }

    fn abort_job(&mut self, mut burst: EspBurst) -> EspBurst {
        fail(&mut burst, FaultKind::Aborted);
        burst
    }
}

impl Drop for PacketTask {
    fn drop(&mut self) {
        // It may hold the text of a packet.
        self.room.zeroize();
    }
}
