//! What comes of a request: octets to be written, and a response.

use emu_model::{Dma, DmaFault};

use super::Trouble;
use super::message::{Request, service};

/// What a request came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Done.
    Served,
    /// Done, and what was to be verified is wrong.
    Mismatch,
    /// Not supported.
    Refused(&'static str),
    /// It makes no sense.
    Invalid(&'static str),
    /// Memory could not be reached.
    DmaFault,
    /// The engine failed.
    EngineError,
}

/// What a request costs, which becomes time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cost {
    /// So many octets through a cipher or hash.
    Data(usize),
    /// So many times the lightest operation on numbers.
    Numbers(u32),
}

/// The result of a request, not yet written.
#[derive(Debug)]
pub(crate) struct Outcome {
    name: String,
    verdict: Verdict,
    writes: Vec<Write>,
    /// Which octet of which write a flipped bit hits.
    target: Option<(usize, usize)>,
    cost: Cost,
    service: u8,
    command: u8,
    opaque: u64,
    /// Addresses of input and output table, which responses of PKE repeat.
    tables: [u64; 2],
}

/// Octets for memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Write {
    pub(crate) iova: u64,
    pub(crate) octets: Vec<u8>,
}

/// Bits of the status of a response.
mod status {
    pub(super) const CRYPTO: u8 = 1 << 7;
    pub(super) const PKE: u8 = 1 << 6;
    pub(super) const UNSUPPORTED: u8 = 1 << 2;
    pub(super) const INVALID: u8 = 1 << 1;
}

/// Error codes of a response.
mod code {
    pub(super) const SLICE_HANG: i8 = -16;
    pub(super) const ENDPOINT: i8 = -17;
}

impl Outcome {
    pub(crate) fn new(request: &Request<'_>, name: String, cost: Cost) -> Self {
        Outcome {
            name,
            verdict: Verdict::Served,
            writes: Vec::new(),
            target: None,
            cost,
            service: request.service(),
            command: request.command(),
            opaque: request.opaque(),
            tables: [0; 2],
        }
    }

    /// Of a request that cannot even be begun.
    pub(crate) fn unfit(request: &Request<'_>, trouble: Trouble) -> Self {
        let mut outcome = Outcome::new(request, "unintelligible".to_string(), Cost::Data(0));
        outcome.fail(trouble.into());
        outcome
    }

    /// Of a request that asks for nothing.
    pub(crate) fn null(request: &Request<'_>) -> Self {
        Outcome::new(request, "null".to_string(), Cost::Data(0))
    }

    pub(crate) fn with_tables(mut self, source: u64, destination: u64) -> Self {
        self.tables = [source, destination];
        self
    }

    /// What people call what was asked.
    pub(crate) fn rename(&mut self, name: String) {
        self.name = name;
    }

    /// So many octets more go through a cipher or hash.
    pub(crate) fn charge(&mut self, octets: u32) {
        if let Cost::Data(sum) = &mut self.cost {
            *sum = sum.saturating_add(octets as usize);
        }
    }

    /// It costs so many times the lightest operation on numbers more.
    pub(crate) fn weigh(&mut self, weight: u32) {
        if let Cost::Numbers(sum) = &mut self.cost {
            *sum = sum.saturating_add(weight);
        }
    }

    /// Octets are to be written.
    pub(crate) fn write(&mut self, iova: u64, octets: Vec<u8>) {
        if !octets.is_empty() {
            self.writes.push(Write { iova, octets });
        }
    }

    /// A flipped bit hits the last write, at so many octets from its beginning.
    pub(crate) fn aim(&mut self, octet: usize) {
        self.target = self.writes.len().checked_sub(1).map(|last| (last, octet));
    }

    /// It was done, and what was to be verified is wrong.
    pub(crate) fn mismatch(&mut self) {
        self.verdict = Verdict::Mismatch;
    }

    /// It was not done, and nothing is written.
    pub(crate) fn fail(&mut self, verdict: Verdict) {
        self.verdict = verdict;
        self.writes.clear();
    }

    /// Makes one bit of the result wrong. Where there is no result but a verdict, that is.
    pub(crate) fn flip_a_bit(&mut self) {
        let target = self.target.or_else(|| self.writes.first().map(|_| (0, 0)));
        let octet = target.and_then(|(write, octet)| self.writes.get_mut(write)?.octets.get_mut(octet));
        match (octet, self.verdict) {
            (Some(octet), _) => *octet ^= 1,
            (None, Verdict::Served) => self.verdict = Verdict::Mismatch,
            (None, Verdict::Mismatch) => self.verdict = Verdict::Served,
            _ => {}
        }
    }

    /// Writes the result.
    pub(crate) fn write_to(&self, memory: &dyn Dma) -> Result<(), DmaFault> {
        self.writes.iter().try_for_each(|write| memory.write(write.iova, &write.octets))
    }

    /// The response.
    pub(crate) fn response(&self) -> [u8; 32] {
        let (failed, code) = match self.verdict {
            Verdict::Served => (0, 0),
            Verdict::Mismatch => (status::CRYPTO, 0),
            // Linux and DPDK look at the first of these bits only.
            Verdict::Refused(_) => (status::CRYPTO | status::UNSUPPORTED, 0),
            Verdict::Invalid(_) => (status::CRYPTO | status::INVALID, 0),
            Verdict::DmaFault => (status::CRYPTO | status::INVALID, code::ENDPOINT),
            Verdict::EngineError => (status::CRYPTO, code::SLICE_HANG),
        };
        let mut response = [0; 32];
        let mut put = |at: usize, octets: &[u8]| {
            response.iter_mut().skip(at).zip(octets).for_each(|(slot, octet)| *slot = *octet);
        };
        // The first word has the valid bit and can never look like an empty slot (0x7f7f7f7f).
        put(0, &[0, 0, self.service & 0x3f, 0x80]);
        put(8, &self.opaque.to_le_bytes());
        if self.service == service::PKE {
            let failed = if failed == 0 { 0 } else { status::PKE };
            put(4, &[code as u8, failed]);
            put(16, &self.tables[0].to_le_bytes());
            put(24, &self.tables[1].to_le_bytes());
        } else {
            put(5, &[code as u8, failed, self.command]);
        }
        response
    }

    /// Makes a response name another request.
    pub(crate) fn spoil_cookie(&self, response: &mut [u8; 32]) {
        let wrong = (!self.opaque).to_le_bytes();
        response.iter_mut().skip(8).zip(wrong).for_each(|(slot, octet)| *slot = octet);
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn verdict(&self) -> Verdict {
        self.verdict
    }

    pub(crate) fn cost(&self) -> Cost {
        self.cost
    }

    /// Octets to be written.
    pub(crate) fn len(&self) -> usize {
        self.writes.iter().map(|write| write.octets.len()).sum()
    }
}
