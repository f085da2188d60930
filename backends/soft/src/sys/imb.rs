//! Intel's ipsec-mb through `shim/ipsec_mb.c`: AES-GCM packet by packet, the rest as bursts of jobs that fill its lanes.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::OnceLock;

use zeroize::Zeroizing;

use crate::sys::aligned::Aligned;

#[repr(C)]
struct Suite {
    cipher_key: *const c_void,
    ipad: *const c_void,
    opad: *const c_void,
    cipher: u32,
    cipher_key_len: u32,
    hash: u32,
    seal: u32,
    tag_len: u32,
}

#[repr(C)]
struct Packet {
    at: *mut u8,
    text_at: u32,
    text_len: u32,
    hashed_len: u32,
    iv_len: u32,
    aad_len: u32,
    done: u32,
    iv: [u8; 16],
    aad: [u8; 16],
    tag: [u8; 64],
}

impl Packet {
    const EMPTY: Packet = Packet {
        at: std::ptr::null_mut(),
        text_at: 0,
        text_len: 0,
        hashed_len: 0,
        iv_len: 0,
        aad_len: 0,
        done: 0,
        iv: [0; 16],
        aad: [0; 16],
        tag: [0; 64],
    };
}

unsafe extern "C" {
    fn tussock_imb_manager_len() -> usize;
    fn tussock_imb_manager_init(at: *mut c_void) -> *const c_char;
    fn tussock_imb_version() -> *const c_char;
    fn tussock_imb_gcm_key_len() -> usize;
    fn tussock_imb_gcm_work_len() -> usize;
    fn tussock_imb_gcm_key(manager: *const c_void, key: *const u8, key_len: usize, out: *mut c_void)
    -> c_int;
    fn tussock_imb_gcm_seal(
        manager: *const c_void,
        key: *const c_void,
        key_len: usize,
        work: *mut c_void,
        text: *mut u8,
        text_len: usize,
        nonce: *const u8,
        aad: *const u8,
        aad_len: usize,
        tag: *mut u8,
        tag_len: usize,
    );
    fn tussock_imb_gcm_open(
        manager: *const c_void,
        key: *const c_void,
        key_len: usize,
        work: *mut c_void,
        text: *mut u8,
        text_len: usize,
        nonce: *const u8,
        aad: *const u8,
        aad_len: usize,
        tag: *mut u8,
        tag_len: usize,
    );
    fn tussock_imb_aes_key(
        manager: *const c_void,
        key: *const u8,
        key_len: usize,
        encrypt: *mut c_void,
        decrypt: *mut c_void,
    ) -> c_int;
    fn tussock_imb_hash_block(
        manager: *const c_void,
        hash: u32,
        block: *const u8,
        state: *mut c_void,
    ) -> c_int;
    fn tussock_imb_burst(manager: *mut c_void, suite: *const Suite, packets: *mut Packet, count: usize);
}

/// A manager: the library's functions for this processor, and lanes for jobs.
pub(crate) struct Manager(Aligned);

impl Manager {
    /// Takes a few hundred microseconds the first time in a process, and a few hundred kilobytes.
    pub(crate) fn new() -> Result<Self, String> {
        // SAFETY: no arguments.
        let len = unsafe { tussock_imb_manager_len() };
        let mut memory = Aligned::new(len).ok_or("no memory")?;
        // SAFETY: memory of the length and alignment the library wants, which does not move as long as it lives.
        let why = unsafe { tussock_imb_manager_init(memory.as_mut_ptr()) };
        match text(why) {
            Some(why) => Err(why),
            None => Ok(Manager(memory)),
        }
    }

    /// The manager for what needs no lanes, for all threads; or why there is none.
    pub(crate) fn shared() -> Result<&'static Manager, &'static str> {
        static SHARED: OnceLock<Result<Manager, String>> = OnceLock::new();
        SHARED.get_or_init(Manager::new).as_ref().map_err(String::as_str)
    }
}

/// The version of the library that runs.
pub(crate) fn version() -> String {
    // SAFETY: no arguments; a static text comes back.
    text(unsafe { tussock_imb_version() }).unwrap_or_default()
}

fn text(at: *const c_char) -> Option<String> {
    if at.is_null() {
        return None;
    }
    // SAFETY: the shim gives null or texts that end in a zero octet and stay.
    Some(unsafe { CStr::from_ptr(at) }.to_string_lossy().into_owned())
}

/// A key of AES-GCM. Sealing and opening do not change it, so one serves all threads.
pub(crate) struct Gcm {
    key: Aligned,
    key_len: u8,
}

/// What one thread needs for AES-GCM: remnants of the last packet are in it.
pub(crate) struct GcmWork(Aligned);

impl GcmWork {
    pub(crate) fn new() -> Option<Self> {
        // SAFETY: no arguments.
        Aligned::new(unsafe { tussock_imb_gcm_work_len() }).map(GcmWork)
    }

    /// Forgets the last packet.
    pub(crate) fn wipe(&mut self) {
        self.0.wipe();
    }
}

impl Gcm {
    pub(crate) fn new(manager: &Manager, key: &[u8]) -> Option<Self> {
        // SAFETY: no arguments.
        let mut made = Aligned::new(unsafe { tussock_imb_gcm_key_len() })?;
        // SAFETY: a manager that is set up, a live slice of the length given, and aligned memory of the length asked for.
        let ok =
            unsafe { tussock_imb_gcm_key(manager.0.as_ptr(), key.as_ptr(), key.len(), made.as_mut_ptr()) };
        (ok == 1).then_some(Gcm { key: made, key_len: key.len() as u8 })
    }

    /// Encrypts `text` in place and writes the tag. False: no tag of that length.
    pub(crate) fn seal(
        &self,
        manager: &Manager,
        work: &mut GcmWork,
        nonce: &[u8; 12],
        aad: &[u8],
        text: &mut [u8],
        tag: &mut [u8],
    ) -> bool {
        if !(4..=16).contains(&tag.len()) {
            return false;
        }
        // SAFETY: a manager that is set up, a key made for this length, and live slices with the lengths given; the tag is no
        // longer than the 16 octets the library has.
        unsafe {
            tussock_imb_gcm_seal(
                manager.0.as_ptr(),
                self.key.as_ptr(),
                usize::from(self.key_len),
                work.0.as_mut_ptr(),
                text.as_mut_ptr(),
                text.len(),
                nonce.as_ptr(),
                aad.as_ptr(),
                aad.len(),
                tag.as_mut_ptr(),
                tag.len(),
            );
        }
        true
    }

    /// Decrypts `text` in place and gives the tag that should have come with it, of which the caller compares as many octets
    /// as came.
    pub(crate) fn open(
        &self,
        manager: &Manager,
        work: &mut GcmWork,
        nonce: &[u8; 12],
        aad: &[u8],
        text: &mut [u8],
    ) -> [u8; 16] {
        let mut tag = [0; 16];
        // SAFETY: as in `seal`.
        unsafe {
            tussock_imb_gcm_open(
                manager.0.as_ptr(),
                self.key.as_ptr(),
                usize::from(self.key_len),
                work.0.as_mut_ptr(),
                text.as_mut_ptr(),
                text.len(),
                nonce.as_ptr(),
                aad.as_ptr(),
                aad.len(),
                tag.as_mut_ptr(),
                tag.len(),
            );
        }
        tag
    }
}

/// Ciphers of jobs, by the shim's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Cipher {
    Null = 0,
    Cbc = 1,
    Ctr = 2,
    ChachaPoly = 3,
}

/// Hashes of jobs, by the shim's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Hash {
    None = 0,
    Sha1 = 1,
    Sha256 = 2,
    Sha384 = 3,
    Sha512 = 4,
}

impl Hash {
    /// Octets of a block of input.
    fn block_len(self) -> usize {
        if matches!(self, Hash::Sha384 | Hash::Sha512) { 128 } else { 64 }
    }

    /// Octets of state.
    fn state_len(self) -> usize {
        match self {
            Hash::None => 0,
            Hash::Sha1 => 20,
            Hash::Sha256 => 32,
            Hash::Sha384 | Hash::Sha512 => 64,
        }
    }
}

/// Keys for jobs of one direction. Not changed by use.
pub(crate) struct JobKeys {
    /// Cipher key or schedule, then the two states of HMAC, each on 16 octets.
    memory: Aligned,
    ipad_at: u16,
    cipher: Cipher,
    cipher_key_len: u8,
    hash: Hash,
    seal: bool,
    tag_len: u8,
}

impl JobKeys {
    /// `None`: a length the algorithms cannot have, or no memory.
    pub(crate) fn new(
        manager: &Manager,
        (cipher, cipher_key): (Cipher, &[u8]),
        (hash, hash_key): (Hash, &[u8]),
        seal: bool,
        tag_len: usize,
    ) -> Option<Self> {
        // Room for the two schedules that the library writes, of which one is kept.
        let mut both = Aligned::new(2 * SCHEDULE)?;
        let cipher_part: &[u8] = match cipher {
            Cipher::Null => &[],
            Cipher::ChachaPoly => (cipher_key.len() == 32).then_some(cipher_key)?,
            Cipher::Cbc | Cipher::Ctr => {
                let encrypt = both.as_mut_ptr();
                // SAFETY: the second half of the same memory, which begins on 16 octets too.
                let decrypt = unsafe { encrypt.byte_add(SCHEDULE) };
                // SAFETY: a manager that is set up, a live slice of the length given, and room for two schedules.
                let ok = unsafe {
                    tussock_imb_aes_key(
                        manager.0.as_ptr(),
                        cipher_key.as_ptr(),
                        cipher_key.len(),
                        encrypt,
                        decrypt,
                    )
                };
                // Counter mode encrypts its counters either way.
                let at = if seal || cipher == Cipher::Ctr { 0 } else { SCHEDULE };
                // FIPS 197: ten, twelve or fourteen rounds, and one round key more than rounds.
                let used = (cipher_key.len() / 4 + 7) * 16;
                (ok == 1).then_some(both.bytes().get(at..at + used)?)?
            }
        };
        let mut states = Zeroizing::new([[0u8; 64]; 2]);
        if hash != Hash::None {
            for (state, pad) in states.iter_mut().zip([0x36, 0x5c]) {
                // RFC 2104 section 2: the key, filled with zeroes, under the pad.
                let mut block = Zeroizing::new([pad; 128]);
                let part = block.get_mut(..hash.block_len())?.get_mut(..hash_key.len())?;
                part.iter_mut().zip(hash_key).for_each(|(octet, key)| *octet ^= key);
                // SAFETY: a manager that is set up, a block that is at least as long as the hash's, room for its state.
                let ok = unsafe {
                    tussock_imb_hash_block(
                        manager.0.as_ptr(),
                        hash as u32,
                        block.as_ptr(),
                        state.as_mut_ptr().cast(),
                    )
                };
                (ok == 1).then_some(())?;
            }
        }
        // Schedules are whole 16 octets long, so the states begin on 16 octets too.
        let (ipad_at, opad_at) = (cipher_part.len(), cipher_part.len() + state_room(hash));
        let mut memory = Aligned::new(opad_at + state_room(hash))?;
        memory.bytes_mut().get_mut(..ipad_at)?.copy_from_slice(cipher_part);
        for (state, at) in states.iter().zip([ipad_at, opad_at]) {
            let state = state.get(..hash.state_len())?;
            memory.bytes_mut().get_mut(at..at + state.len())?.copy_from_slice(state);
        }
        Some(JobKeys {
            memory,
            ipad_at: ipad_at as u16,
            cipher,
            cipher_key_len: cipher_key.len() as u8,
            hash,
            seal,
            tag_len: u8::try_from(tag_len).ok().filter(|len| *len <= 64)?,
        })
    }

    fn suite(&self) -> Suite {
        let at = self.memory.as_ptr();
        let ipad_at = usize::from(self.ipad_at);
        Suite {
            cipher_key: at,
            // SAFETY: inside the memory, or at its end where there is no hash: `new` made it of these three parts.
            ipad: unsafe { at.byte_add(ipad_at) },
            // SAFETY: as above.
            opad: unsafe { at.byte_add(ipad_at + state_room(self.hash)) },
            cipher: self.cipher as u32,
            cipher_key_len: u32::from(self.cipher_key_len),
            hash: self.hash as u32,
            seal: u32::from(self.seal),
            tag_len: u32::from(self.tag_len),
        }
    }
}

/// Octets of an AES schedule at most.
const SCHEDULE: usize = 240;

/// Octets a state takes, so that the next one begins on 16 octets.
fn state_room(hash: Hash) -> usize {
    hash.state_len().next_multiple_of(16)
}

/// A manager with lanes of its own, and room for the packets that go into them together.
pub(crate) struct Lanes {
    manager: Manager,
    packets: Box<[Packet]>,
    /// Packets in the last batch: the first ones.
    filled: usize,
}

// SAFETY: the pointers in `packets` are not followed after `Batch::run`; the rest is owned memory.
unsafe impl Send for Lanes {}

/// Where one packet lies in the memory of its batch, and what comes with it.
pub(crate) struct Job {
    /// Header, IV and text, which HMAC covers.
    body: Range<usize>,
    /// Octets before the text.
    head_len: usize,
    /// Octets behind the body that HMAC covers too.
    pub(crate) tail_len: usize,
    /// IV or nonce.
    pub(crate) iv: Few,
    /// What a combined mode covers besides.
    pub(crate) aad: Few,
}

impl Job {
    /// A packet whose text ends where `body` does and begins `head_len` octets into it.
    pub(crate) fn new(body: Range<usize>, head_len: usize) -> Self {
        Job { body, head_len, tail_len: 0, iv: Few::default(), aad: Few::default() }
    }
}

/// Up to 16 octets.
#[derive(Clone, Copy, Default)]
pub(crate) struct Few {
    octets: [u8; 16],
    len: usize,
}

impl Few {
    /// Takes over the octets, or the first 16 of them.
    pub(crate) fn set(&mut self, octets: &[u8]) {
        self.len = octets.len().min(self.octets.len());
        self.octets.iter_mut().zip(octets).for_each(|(to, from)| *to = *from);
    }
}

/// Octets one job may cover: beyond this the library's 16-bit lengths end.
const MAX_COVERED: usize = 65_533;

impl Lanes {
    /// For batches of at most `most` packets, of which the library takes more than a hundred.
    pub(crate) fn new(most: usize) -> Result<Self, String> {
        let packets = (0..most.min(128)).map(|_| Packet::EMPTY).collect();
        Ok(Lanes { manager: Manager::new()?, packets, filled: 0 })
    }

    /// A batch of packets that lie in `memory`.
    pub(crate) fn batch<'a>(&'a mut self, memory: &'a mut [u8]) -> Batch<'a> {
        self.filled = 0;
        Batch { lanes: self, base: memory.as_mut_ptr(), len: memory.len(), memory: PhantomData }
    }

    /// Of the packets of the last batch, in order: whether it was carried out, and where its tag begins.
    pub(crate) fn results(&self) -> impl Iterator<Item = (bool, &[u8; 64])> {
        self.packets.iter().take(self.filled).map(|packet| (packet.done == 1, &packet.tag))
    }
}

/// Packets on their way into the lanes.
pub(crate) struct Batch<'a> {
    lanes: &'a mut Lanes,
    // The parts of the borrow below, since the packets hold pointers into it.
    base: *mut u8,
    len: usize,
    memory: PhantomData<&'a mut [u8]>,
}

impl Batch<'_> {
    /// The memory the packets lie in.
    pub(crate) fn memory(&mut self) -> &mut [u8] {
        // SAFETY: the parts of a slice that is borrowed exclusively for as long as the batch lives; the packets' pointers into
        // it are not followed before `run`, which ends this borrow.
        unsafe { std::slice::from_raw_parts_mut(self.base, self.len) }
    }

    /// Adds a packet. False: the batch is full, or it is not a packet that lies in the memory.
    pub(crate) fn push(&mut self, job: &Job) -> bool {
        let covered = job.body.len() + job.tail_len;
        let inside = job.body.start.checked_add(covered).is_some_and(|end| end <= self.len);
        let Some(text_len) = job.body.len().checked_sub(job.head_len) else { return false };
        let Some(packet) = self.lanes.packets.get_mut(self.lanes.filled) else { return false };
        if !inside || covered > MAX_COVERED {
            return false;
        }
        // SAFETY: inside the memory, as just checked.
        packet.at = unsafe { self.base.add(job.body.start) };
        packet.text_at = job.head_len as u32;
        packet.text_len = text_len as u32;
        packet.hashed_len = covered as u32;
        (packet.iv, packet.iv_len) = (job.iv.octets, job.iv.len as u32);
        (packet.aad, packet.aad_len) = (job.aad.octets, job.aad.len as u32);
        self.lanes.filled += 1;
        true
    }

    /// Encrypts or decrypts the packets in place, and computes their tags.
    pub(crate) fn run(self, keys: &JobKeys) {
        let suite = keys.suite();
        let lanes = self.lanes;
        // SAFETY: a manager that is set up and empty and nobody else's; packets that lie, with all that the suite covers, in
        // memory that this batch has borrowed exclusively; keys that outlive the call, after which the manager is empty again.
        unsafe {
            tussock_imb_burst(lanes.manager.0.as_mut_ptr(), &suite, lanes.packets.as_mut_ptr(), lanes.filled);
        }
    }
}
