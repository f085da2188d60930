//! Bursts: what of them the plug-in gets to see, and what must be true of one that comes back.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use spi::{Direction, EspBurst, Fault, FaultKind, Outcome, Reject, Token};

use crate::abi;
use crate::device::Shared;
use crate::lie::Lie;
use crate::ring::{Kind, Landed, Look, RUN};
use crate::sas::Sa;
use crate::sys::{Loaded, Packets, RawQueue, Room};

/// Bursts of packets.
pub(crate) struct Bursts;

/// A burst that is out.
pub(crate) struct Flight {
    burst: EspBurst,
    sa: Arc<Sa>,
    packets: Packets,
    room: Room,
    /// Packets the plug-in got: the operations that can be carried out, in their order.
    count: usize,
}

impl Kind for Bursts {
    const CODE: u32 = abi::PACKETS;
    type Job = EspBurst;
    type Done = EspBurst;
    type Flight = Flight;
    type Given = Arc<Sa>;
    /// How operations end that could have been carried out.
    type Verdict = Outcome;
    type Said = abi::BurstDone;
    type Memory = Packets;

    fn look(shared: &Shared, burst: &EspBurst) -> Look<Outcome, Arc<Sa>> {
        let failed = |kind: FaultKind| Look::Decided(Outcome::Failed(kind.into()));
        let Some(sa) = shared.table.find(burst.sa) else { return failed(FaultKind::StaleHandle) };
        if sa.dir != burst.dir {
            // An SA has one direction (RFC 4301 section 4.1).
            return failed(FaultKind::Unsupported);
        }
        let capacity = burst.buf.capacity();
        match burst.buf.ops().iter().any(|op| sa.result_len(op, capacity).is_some()) {
            true => Look::Give(sa),
            false => Look::Decided(Outcome::Rejected(Reject::BadLength)),
        }
    }

    fn decide(mut burst: EspBurst, outcome: Outcome) -> EspBurst {
        burst.buf.ops_mut().iter_mut().for_each(|op| op.outcome = outcome);
        burst
    }

    fn depart(burst: EspBurst, sa: Arc<Sa>, spare: &mut Vec<Packets>) -> Flight {
        let mut packets = spare.pop().unwrap_or_else(Packets::new);
        let capacity = burst.buf.capacity();
        let mut count = 0;
        for op in burst.buf.ops().iter().filter(|op| sa.result_len(op, capacity).is_some()) {
            let status = abi::PENDING as u16;
            packets.set(count, abi::Packet { seq: op.seq, at: op.at, len: op.len, status });
            count += 1;
        }
        let room = Room::of(&burst.buf);
        Flight { burst, sa, packets, room, count }
    }

    fn undo(flight: Flight) -> EspBurst {
        flight.burst
    }

    fn submit(loaded: &Loaded, queue: &mut RawQueue, run: &[(Token, &Flight)]) -> u32 {
        let mut bursts = Vec::with_capacity(RUN);
        bursts.extend(run.iter().map(|(token, flight)| abi::Burst {
            token: token.0,
            buf: flight.room.at(),
            packets: flight.packets.at(),
            capacity: flight.room.len(),
            count: flight.count as u32,
            sa: flight.sa.handle,
            dir: if flight.burst.dir == Direction::Seal { abi::SEAL } else { abi::OPEN }.into(),
        }));
        loaded.burst_submit(queue, &bursts)
    }

    fn fetch(loaded: &Loaded, queue: &mut RawQueue, said: &mut [abi::BurstDone]) -> u32 {
        loaded.burst_poll(queue, said)
    }

    fn token(said: &abi::BurstDone) -> Token {
        Token(said.token)
    }

    fn land(shared: &Shared, mut flight: Flight, said: &abi::BurstDone) -> Landed<Bursts> {
        if said.sa != flight.sa.handle {
            let lie = Lie::WrongSa { submitted: flight.sa.handle, said: said.sa };
            return Landed::Lied(flight, lie);
        }
        if said.count as usize != flight.count {
            let lie = Lie::WrongCount { submitted: flight.count, said: said.count };
            return Landed::Lied(flight, lie);
        }
        match judge(&mut flight) {
            Err(lie) => Landed::Lied(flight, lie),
            Ok(aborted) => {
                let counts = &shared.counts;
                counts.bursts.fetch_add(1, Ordering::Relaxed);
                counts.packets.fetch_add(flight.count as u64 - aborted, Ordering::Relaxed);
                counts.aborted.fetch_add(aborted, Ordering::Relaxed);
                Landed::Good(flight.burst, Some(flight.packets))
            }
        }
    }
}

/// Enters what the plug-in has made of each packet; returns how many it has not got round to.
fn judge(flight: &mut Flight) -> Result<u64, Lie> {
    let Flight { burst, sa, packets, .. } = flight;
    let capacity = burst.buf.capacity();
    let (octets, ops) = burst.buf.split_mut();
    let (mut next, mut aborted) = (0, 0);
    for op in ops {
        let Some(expected) = sa.result_len(op, capacity) else {
            op.outcome = Outcome::Rejected(Reject::BadLength);
            continue;
        };
        let said = packets.see(next);
        next += 1;
        let fault = match u32::from(said.status) {
            abi::DONE => None,
            abi::BAD_ICV if sa.dir == Direction::Open => {
                op.outcome = Outcome::Rejected(Reject::BadIcv);
                continue;
            }
            abi::ABORTED => {
                aborted += 1;
                Some(FaultKind::Aborted)
            }
            abi::UNSUPPORTED => Some(FaultKind::Unsupported),
            abi::EXHAUSTED => Some(FaultKind::Exhausted),
            abi::FAILED => Some(FaultKind::Internal),
            status => return Err(Lie::WrongStatus(status)),
        };
        if let Some(kind) = fault {
            op.outcome = Outcome::Failed(Fault::new(kind));
            continue;
        }
        if usize::from(said.len) != expected {
            return Err(Lie::WrongLen { expected, said: said.len.into() });
        }
        match sa.dir {
            Direction::Seal => {
                sa.is_header(op.seq, octets.get(op.at as usize..).unwrap_or_default())?;
            }
            // The text begins where the header ended.
            Direction::Open => op.at += sa.head as u32,
        }
        op.len = said.len;
        op.outcome = Outcome::Done;
    }
    Ok(aborted)
}
