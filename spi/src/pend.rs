//! Adapter: a queue becomes a future, for control-plane code and start-up checks that like to wait for an answer.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use crate::crypto::{CryptoDone, CryptoJob, CryptoOp, CryptoOutput, CryptoQueue};
use crate::inflight::{InFlight, Token};
use crate::outcome::{Fault, FaultKind, Outcome};

struct Table {
    queue: Box<CryptoQueue>,
    jobs: VecDeque<CryptoJob>,
    waiting: InFlight<Option<CryptoDone>>,
    strays: u64,
}

impl Table {
    fn turn(&mut self) {
        if self.queue.submit(&mut self.jobs).is_err() {
            // The device may never be ready again: what it has not taken is answered here, not left waiting.
            for job in self.jobs.drain(..) {
                if let Some(slot) = self.waiting.slot(job.token) {
                    let outcome = Outcome::Failed(FaultKind::Aborted.into());
                    *slot = Some(CryptoDone { token: job.token, outcome, output: CryptoOutput::None });
                }
            }
        }
        let mut done = Vec::new();
        self.queue.poll(usize::MAX, &mut |d: CryptoDone| done.push(d));
        for d in done {
            match self.waiting.slot(d.token) {
                Some(slot) => *slot = Some(d),
                None => self.strays += 1,
            }
        }
    }
}

/// A crypto queue one can await. Single-threaded: the futures drive the queue whenever they are polled.
pub struct Pend {
    table: Rc<RefCell<Table>>,
}

impl Pend {
    /// Takes over a queue; at most `cap` operations are out at a time.
    pub fn new(queue: Box<CryptoQueue>, cap: usize) -> Self {
        let table = Table { queue, jobs: VecDeque::new(), waiting: InFlight::new(cap), strays: 0 };
        Pend { table: Rc::new(RefCell::new(table)) }
    }

    /// Starts an operation. A future that is dropped forgets its answer; the device finishes all the same.
    ///
    /// # Errors
    /// [`FaultKind::Exhausted`] when `cap` operations are out.
    pub fn start(&self, op: CryptoOp) -> Result<Pending, Fault> {
        let mut table = self.table.borrow_mut();
        let token = table.waiting.insert(None).map_err(|_| Fault::new(FaultKind::Exhausted))?;
        table.jobs.push_back(CryptoJob { token, op });
        Ok(Pending { table: Rc::clone(&self.table), token })
    }

    /// Runs one operation to its end on this thread, sleeping between polls. For start-up checks and tools.
    ///
    /// # Errors
    /// The fault the operation ended with, or [`FaultKind::Exhausted`].
    pub fn block_on(&self, op: CryptoOp) -> Result<CryptoDone, Fault> {
        let mut pending = self.start(op)?;
        let mut cx = Context::from_waker(std::task::Waker::noop());
        loop {
            match Pin::new(&mut pending).poll(&mut cx) {
                Poll::Ready(CryptoDone { outcome: Outcome::Failed(fault), .. }) => return Err(fault),
                Poll::Ready(done) => return Ok(done),
                Poll::Pending => std::thread::sleep(std::time::Duration::from_micros(50)),
            }
        }
    }

    /// Completions that named no operation of ours: a driver's bug.
    pub fn strays(&self) -> u64 {
        self.table.borrow().strays
    }
}

/// An operation that is out.
pub struct Pending {
    table: Rc<RefCell<Table>>,
    token: Token,
}

impl Future for Pending {
    type Output = CryptoDone;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<CryptoDone> {
        let mut table = self.table.borrow_mut();
        table.turn();
        if table.waiting.peek(self.token).is_some_and(Option::is_some)
            && let Some(Some(done)) = table.waiting.take(self.token)
        {
            return Poll::Ready(done);
        }
        // The queue has no waker: ask to be polled again. Control plane only.
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.table.borrow_mut().waiting.take(self.token);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inline::Inline;
    use crate::secret::Secret;

    fn queue() -> Box<CryptoQueue> {
        Box::new(Inline::new(4, |job: CryptoJob| CryptoDone {
            token: job.token,
            outcome: Outcome::Done,
            output: match job.op {
                CryptoOp::Random { len } => CryptoOutput::Secret(Secret::new(vec![7; len])),
                _ => CryptoOutput::None,
            },
        }))
    }

    #[test]
    fn an_awaited_operation_gives_its_own_answer() {
        let pend = Pend::new(queue(), 8);
        let forgotten = pend.start(CryptoOp::Random { len: 1 }).unwrap();
        drop(forgotten);
        let done = pend.block_on(CryptoOp::Random { len: 5 }).unwrap();
        assert!(matches!(done.output, CryptoOutput::Secret(s) if s.len() == 5));
        assert_eq!(pend.strays(), 1, "the forgotten answer was noticed, not delivered");
    }

    struct Gone;

    impl crate::Queue for Gone {
        type Job = CryptoJob;
        type Done = CryptoDone;

        fn submit(&mut self, _: &mut VecDeque<CryptoJob>) -> Result<usize, crate::Closed> {
            Err(crate::Closed)
        }

        fn poll(&mut self, _: usize, _: &mut dyn crate::Completions<CryptoDone>) -> crate::Polled {
            crate::Polled::default()
        }

        fn room(&self) -> usize {
            0
        }

        fn in_flight(&self) -> usize {
            0
        }
    }

    #[test]
    fn a_closed_queue_answers_with_a_fault_and_not_with_silence() {
        let pend = Pend::new(Box::new(Gone), 1);
        for _ in 0..3 {
            let fault = pend.block_on(CryptoOp::Random { len: 5 }).err();
            assert_eq!(fault, Some(FaultKind::Aborted.into()));
        }
    }
}
