//! The units of this process: there is one of each, and what happens to them happens to all threads.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Instant, SystemTime};

use crate::decode::Instruction;
use crate::options::Options;
use crate::sys;

bitflags::bitflags! {
    /// Units, at the bits that say in CPUID leaf 0xC0000001 that they are present.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Units: u32 {
        /// Random numbers.
        const RNG = 1 << 2;
        /// AES.
        const ACE = 1 << 6;
        /// AES, second version: counter mode, and texts that are not aligned.
        const ACE2 = 1 << 8;
        /// Hashes.
        const PHE = 1 << 10;
        /// Montgomery multiplication.
        const PMM = 1 << 12;
    }
}

/// What can go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Fault {
    /// Random numbers: the same octet for ever.
    RngStuck,
    /// Random numbers: never ready.
    RngDry,
    /// Random numbers: one octet comes every fifth time.
    RngBiased,
    /// A bit of every result of XCRYPT is wrong.
    XcryptFlips,
    /// A bit of every result of XSHA is wrong.
    XshaFlips,
    /// XSHA ends every message, as processors before Nano did.
    XshaEnds,
    /// A bit of every result of MONTMUL is wrong.
    MontmulFlips,
    /// All instructions are illegal, as after a move to a machine without them.
    Vanished,
}

/// Why there is no emulator.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotInstalled {
    /// This processor has the instructions: nothing would ever be trapped.
    #[error("this processor has PadLock itself: nothing would be trapped")]
    Real,
    /// The kernel does not let the handlers be set.
    #[error("signal handlers: {0}")]
    Signals(std::io::Error),
}

/// The emulator of this process.
pub struct Emulator {
    options: Options,
    since: Instant,
    faults: AtomicU32,
    watches: AtomicBool,
    served: [AtomicU64; KINDS],
    reused: AtomicU64,
}

const KINDS: usize = 5;

static THE_ONE: OnceLock<Emulator> = OnceLock::new();

impl Emulator {
    /// Puts the handlers in place, if that has not been done yet; the options are those of the first call.
    ///
    /// # Errors
    /// Why that cannot be.
    pub fn install(options: Options) -> Result<&'static Emulator, NotInstalled> {
        if sys::has_padlock() {
            return Err(NotInstalled::Real);
        }
        let emulator = THE_ONE.get_or_init(|| Emulator {
            options,
            since: Instant::now(),
            faults: AtomicU32::new(0),
            watches: AtomicBool::new(false),
            served: [const { AtomicU64::new(0) }; KINDS],
            reused: AtomicU64::new(0),
        });
        sys::install().map_err(NotInstalled::Signals)?;
        Ok(emulator)
    }

    pub(crate) fn installed() -> Option<&'static Emulator> {
        THE_ONE.get()
    }

    /// EAX, EBX, ECX and EDX of a CPUID leaf, as a processor with these units would say.
    pub fn leaf(&self, number: u32) -> [u32; 4] {
        let word = |letters: &[u8; 4]| u32::from_le_bytes(*letters);
        match number {
            0 => [1, word(b"Cent"), word(b"auls"), word(b"aurH")],
            // Family 6, model 15, stepping 8: a Nano.
            1 => [0x6f8, 0, 0, 0],
            0xc000_0000 => [0xc000_0001, 0, 0, 0],
            0xc000_0001 if !self.suffers(Fault::Vanished) => {
                let there = self.options.units.bits();
                let enabled = (self.options.units - self.options.asleep).bits() << 1;
                [0, 0, 0, there | enabled]
            }
            _ => [0; 4],
        }
    }

    /// From now on this goes wrong, or no longer does.
    pub fn inject(&self, fault: Fault, happens: bool) {
        let bit = 1 << fault as u32;
        match happens {
            true => self.faults.fetch_or(bit, Ordering::SeqCst),
            false => self.faults.fetch_and(!bit, Ordering::SeqCst),
        };
    }

    /// From now on threads are followed, or no longer: instruction by instruction, from one XCRYPT to the next write to the flags.
    /// Only then is a key that the processor still has used again, as by silicon. Each instruction then
    /// takes two system calls and a signal, so it is for short tests. Otherwise every XCRYPT reads its key anew.
    ///
    /// # Errors
    /// [`NotInstalled::Signals`].
    pub fn watch(&self, follows: bool) -> Result<(), NotInstalled> {
        if follows {
            sys::install_steps().map_err(NotInstalled::Signals)?;
        }
        self.watches.store(follows, Ordering::SeqCst);
        Ok(())
    }

    /// Instructions of this kind that were carried out; all modes and forms of one count together.
    pub fn served(&self, kind: Instruction) -> u64 {
        self.served[place(kind)].load(Ordering::Relaxed)
    }

    /// Times that XCRYPT went on with a key it had, because nothing had made it forget that.
    pub fn reused(&self) -> u64 {
        self.reused.load(Ordering::Relaxed)
    }

    /// What was counted, as JSON.
    pub fn counters(&self) -> String {
        let names = ["xstore", "xcrypt", "xsha1", "xsha256", "montmul"];
        let counts = names.iter().zip(&self.served);
        let counts: Vec<String> =
            counts.map(|(name, count)| format!("\"{name}\":{}", count.load(Ordering::Relaxed))).collect();
        format!("{{{}}}\n", counts.join(","))
    }

    pub(crate) fn options(&self) -> &Options {
        &self.options
    }

    pub(crate) fn suffers(&self, fault: Fault) -> bool {
        let is_time = match fault {
            Fault::Vanished => self.options.vanish.is_some_and(|at| SystemTime::now() >= at),
            Fault::XcryptFlips => self.options.flips.is_some_and(|after| self.since.elapsed() >= after),
            _ => false,
        };
        is_time || self.faults.load(Ordering::Relaxed) & 1 << fault as u32 != 0
    }

    /// Whether a processor like this one has the instruction.
    pub(crate) fn has(&self, kind: Instruction) -> bool {
        let unit = match kind {
            Instruction::Xstore | Instruction::RepXstore => Units::RNG,
            Instruction::Xcrypt(crate::decode::Mode::Ctr) => Units::ACE2,
            Instruction::Xcrypt(_) => Units::ACE,
            Instruction::Xsha1 | Instruction::Xsha256 => Units::PHE,
            Instruction::Montmul => Units::PMM,
        };
        (self.options.units - self.options.asleep).contains(unit) && !self.suffers(Fault::Vanished)
    }

    pub(crate) fn watches(&self) -> bool {
        self.watches.load(Ordering::Relaxed)
    }

    pub(crate) fn note(&self, kind: Instruction) {
        self.served[place(kind)].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn note_reuse(&self) {
        self.reused.fetch_add(1, Ordering::Relaxed);
    }
}

const fn place(kind: Instruction) -> usize {
    match kind {
        Instruction::Xstore | Instruction::RepXstore => 0,
        Instruction::Xcrypt(_) => 1,
        Instruction::Xsha1 => 2,
        Instruction::Xsha256 => 3,
        Instruction::Montmul => 4,
    }
}
