//! What the firmware and the engines behind it make of a request. Nothing here has a clock or a register: a request and
//! memory go in, and what is to be written comes out.

mod buffer;
mod la;
mod message;
mod outcome;
mod pke;

use emu_model::{Dma, DmaFault};

use crate::personality::Generation;

use message::{Request, service};
pub(crate) use outcome::{Cost, Outcome, Verdict};

/// Why a request cannot be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// What it asks for is not there.
    Refused(&'static str),
    /// It contradicts itself.
    Invalid(&'static str),
    /// Memory that it points to cannot be reached.
    Dma(DmaFault),
}

impl From<DmaFault> for Trouble {
    fn from(fault: DmaFault) -> Self {
        Trouble::Dma(fault)
    }
}

impl From<Trouble> for Verdict {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Refused(what) => Verdict::Refused(what),
            Trouble::Invalid(what) => Verdict::Invalid(what),
            Trouble::Dma(_) => Verdict::DmaFault,
        }
    }
}

/// Does what a request asks for. `request` is one element of a ring.
pub(crate) fn execute(request: &[u8], generation: Generation, memory: &dyn Dma) -> Outcome {
    let request = Request(request);
    match request.service() {
        _ if !request.is_valid() => Outcome::unfit(&request, Trouble::Invalid("the valid bit is not set")),
        // Drivers ask for the version of the firmware with this, and send it in the place of what they cannot build. It
        // is answered, and it is not told which version: nothing that we have depends on it.
        service::NULL => Outcome::null(&request),
        service::LA => la::execute(&request, generation, memory),
        service::PKE => pke::execute(&request, memory),
        _ => Outcome::unfit(&request, Trouble::Refused("service other than LA and PKE")),
    }
}
