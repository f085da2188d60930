//! One client's conversation, without the socket: a message in, a reply out.

use std::fmt;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use tracing::trace;

use crate::function::{Action, DmaWindow, Function, IrqData, IrqRequest};
use crate::message::{
    Fields, HEADER_LEN, Header, MAX_DATA, MAX_FDS, MAX_MESSAGE, command, emit_error, emit_reply,
};
use crate::{irq, region, version};

/// Octets in a write of `REGION_WRITE_MULTI`, whether used or not.
const MULTI_DATA: usize = 8;
/// Writes in a `REGION_WRITE_MULTI`; QEMU sends up to eight.
const MULTI_MAX: u64 = 64;

/// What a client has told us so far that later messages depend on.
#[derive(Debug, Default)]
pub struct Session {
    agreed: bool,
}

/// Why a connection cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disconnect {
    /// A message claims a length that cannot be.
    Length(u32),
    /// It sent a reply, and nothing was asked.
    Reply,
    /// It did not begin with a version, or there is none in common.
    NoVersion,
    /// More descriptors came than a message may carry.
    TooManyDescriptors,
}

impl fmt::Display for Disconnect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Disconnect::Length(size) => write!(f, "a message claims to have {size} octets"),
            Disconnect::Reply => f.write_str("a reply came though nothing was asked"),
            Disconnect::NoVersion => f.write_str("no version of the protocol was agreed on"),
            Disconnect::TooManyDescriptors => f.write_str("a message carries too many descriptors"),
        }
    }
}

impl std::error::Error for Disconnect {}

type Body = Vec<u8>;

impl Session {
    /// Nothing said yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many octets follow a header.
    ///
    /// # Errors
    /// No message has that length, so that where the next one begins cannot be known.
    pub fn body_len(header: &Header) -> Result<usize, Disconnect> {
        usize::try_from(header.size)
            .ok()
            .filter(|size| *size <= MAX_MESSAGE)
            .and_then(|size| size.checked_sub(HEADER_LEN))
            .ok_or(Disconnect::Length(header.size))
    }

    /// Does what a message asks for and appends the reply, if one is wanted, to `out`.
    ///
    /// # Errors
    /// The connection has to be closed, after what is in `out` has been sent.
    pub fn handle(
        &mut self,
        function: &dyn Function,
        header: &Header,
        body: &[u8],
        fds: Vec<OwnedFd>,
        out: &mut Vec<u8>,
    ) -> Result<(), Disconnect> {
        if !header.is_command() {
            return Err(Disconnect::Reply);
        }
        if fds.len() > MAX_FDS {
            return Err(Disconnect::TooManyDescriptors);
        }
        if !self.agreed {
            if header.command != command::VERSION {
                return Err(Disconnect::NoVersion);
            }
            return match version::negotiate(body) {
                Ok(reply) => {
                    self.agreed = true;
                    emit_reply(out, header, &reply);
                    Ok(())
                }
                Err(error) => {
                    emit_error(out, header, error);
                    Err(Disconnect::NoVersion)
                }
            };
        }
        let result = dispatch(function, header.command, body, fds);
        trace!(command = header.command, len = body.len(), ok = result.is_ok(), "message");
        if header.wants_reply() {
            match result {
                Ok(body) => emit_reply(out, header, &body),
                Err(error) => emit_error(out, header, error),
            }
        }
        Ok(())
    }
}

fn dispatch(function: &dyn Function, code: u16, body: &[u8], fds: Vec<OwnedFd>) -> Result<Body, Errno> {
    let takes_fds = matches!(code, command::DMA_MAP | command::SET_IRQS);
    if !takes_fds && !fds.is_empty() {
        return Err(Errno::INVAL);
    }
    match code {
        command::DMA_MAP => dma_map(function, body, fds),
        command::DMA_UNMAP => dma_unmap(function, body),
        command::DEVICE_GET_INFO => device_info(body),
        command::GET_REGION_INFO => region_info(function, body),
        command::GET_IRQ_INFO => irq_info(function, body),
        command::SET_IRQS => set_irqs(function, body, fds),
        command::REGION_READ => region_read(function, body),
        command::REGION_WRITE => region_write(function, body),
        command::REGION_WRITE_MULTI => region_write_multi(function, body),
        command::DEVICE_RESET => function.reset().map(|()| Body::new()),
        // Every access is trapped: there are no descriptors to do it with.
        command::GET_REGION_IO_FDS => Err(Errno::NOTSUP),
        // Including a second VERSION, and commands that go the other way.
        _ => Err(Errno::INVAL),
    }
}

fn dma_map(function: &dyn Function, body: &[u8], mut fds: Vec<OwnedFd>) -> Result<Body, Errno> {
    let mut fields = Fields(body);
    let mut next = || {
        let (_argsz, flags) = (fields.u32()?, fields.u32()?);
        Some((flags, fields.u64()?, fields.u64()?, fields.u64()?))
    };
    let (flags, offset, iova, len) = next().ok_or(Errno::INVAL)?;
    let file = fds.pop();
    if !fds.is_empty() || flags & !3 != 0 || !exists(iova, len) {
        return Err(Errno::INVAL);
    }
    let window = DmaWindow { iova, len, offset, read: flags & 1 != 0, write: flags & 2 != 0 };
    function.map(window, file).map(|()| Body::new())
}

fn dma_unmap(function: &dyn Function, body: &[u8]) -> Result<Body, Errno> {
    let mut fields = Fields(body);
    let mut next = || {
        let (_argsz, flags) = (fields.u32()?, fields.u32()?);
        Some((flags, fields.u64()?, fields.u64()?))
    };
    let (flags, iova, len) = next().ok_or(Errno::INVAL)?;
    if flags != 0 {
        // Bitmaps of dirty pages, and "everything": of later drafts.
        return Err(Errno::NOTSUP);
    }
    if !exists(iova, len) {
        return Err(Errno::INVAL);
    }
    function.unmap(iova, len)?;
    Ok(body.get(..24).unwrap_or(body).to_vec())
}

fn device_info(body: &[u8]) -> Result<Body, Errno> {
    const RESET: u32 = 1;
    const PCI: u32 = 2;
    Fields(body).u32().ok_or(Errno::INVAL)?;
    Ok(words(&[16, RESET | PCI, region::COUNT, irq::COUNT]))
}

fn region_info(function: &dyn Function, body: &[u8]) -> Result<Body, Errno> {
    const READ: u32 = 1;
    const WRITE: u32 = 2;
    let mut fields = Fields(body);
    let mut next = || {
        let (_argsz, _flags) = (fields.u32()?, fields.u32()?);
        fields.u32()
    };
    let index = next().filter(|index| *index < region::COUNT).ok_or(Errno::INVAL)?;
    let (flags, len) = match function.region(index) {
        Some(region) => ((u32::from(region.read) * READ) | (u32::from(region.write) * WRITE), region.len),
        None => (0, 0),
    };
    let mut reply = words(&[32, flags, index, 0]);
    reply.extend(len.to_ne_bytes());
    reply.extend(0u64.to_ne_bytes());
    Ok(reply)
}

fn irq_info(function: &dyn Function, body: &[u8]) -> Result<Body, Errno> {
    const EVENTFD: u32 = 1;
    const MASKABLE: u32 = 2;
    const NO_RESIZE: u32 = 8;
    let mut fields = Fields(body);
    let mut next = || {
        let (_argsz, _flags) = (fields.u32()?, fields.u32()?);
        fields.u32()
    };
    let index = next().filter(|index| *index < irq::COUNT).ok_or(Errno::INVAL)?;
    let (flags, count) = match function.interrupts(index) {
        Some(i) => {
            let flags = EVENTFD | (u32::from(i.maskable) * MASKABLE) | (u32::from(i.no_resize) * NO_RESIZE);
            (flags, i.count)
        }
        None => (0, 0),
    };
    Ok(words(&[16, flags, index, count]))
}

fn set_irqs(function: &dyn Function, body: &[u8], fds: Vec<OwnedFd>) -> Result<Body, Errno> {
    let mut fields = Fields(body);
    let mut next = || {
        let (_argsz, flags) = (fields.u32()?, fields.u32()?);
        Some((flags, fields.u32()?, fields.u32()?, fields.u32()?))
    };
    let (flags, index, start, count) = next().ok_or(Errno::INVAL)?;
    let has = function.interrupts(index).map_or(0, |interrupts| interrupts.count);
    if start.checked_add(count).is_none_or(|end| end > has) {
        return Err(Errno::INVAL);
    }
    let action = match flags >> 3 {
        1 => Action::Mask,
        2 => Action::Unmask,
        4 => Action::Trigger,
        _ => return Err(Errno::INVAL),
    };
    let data = match flags & 7 {
        1 if fds.is_empty() => IrqData::All,
        2 if fds.is_empty() => {
            let octets = fields.octets(count as usize).ok_or(Errno::INVAL)?;
            IrqData::Some(octets.iter().map(|octet| *octet != 0).collect())
        }
        4 if fds.is_empty() => IrqData::Disconnect,
        4 if fds.len() == count as usize => IrqData::Eventfds(fds),
        _ => return Err(Errno::INVAL),
    };
    // No interrupts of a kind that does not exist: what clients send when they tear down.
    if has == 0 {
        return Ok(Body::new());
    }
    function.set_irqs(IrqRequest { index, start, count, action, data }).map(|()| Body::new())
}

fn region_read(function: &dyn Function, body: &[u8]) -> Result<Body, Errno> {
    let mut fields = Fields(body);
    let (index, offset, count) = access(&mut fields).ok_or(Errno::INVAL)?;
    inside(function, index, offset, count, |region| region.read)?;
    let mut reply = body.get(..16).unwrap_or(body).to_vec();
    let data = reply.len();
    reply.resize(data + count, 0);
    function.read(index, offset, reply.get_mut(data..).unwrap_or_default());
    Ok(reply)
}

fn region_write(function: &dyn Function, body: &[u8]) -> Result<Body, Errno> {
    let mut fields = Fields(body);
    let (index, offset, count) = access(&mut fields).ok_or(Errno::INVAL)?;
    inside(function, index, offset, count, |region| region.write)?;
    let data = fields.octets(count).ok_or(Errno::INVAL)?;
    function.write(index, offset, data);
    Ok(body.get(..16).unwrap_or(body).to_vec())
}

fn region_write_multi(function: &dyn Function, body: &[u8]) -> Result<Body, Errno> {
    let mut fields = Fields(body);
    let writes = fields.u64().filter(|count| *count <= MULTI_MAX).ok_or(Errno::INVAL)?;
    // All or nothing: look at every write before the first is done.
    let mut list = Vec::new();
    for _ in 0..writes {
        let (index, offset, count) = access(&mut fields).ok_or(Errno::INVAL)?;
        inside(function, index, offset, count, |region| region.write)?;
        let data = fields.octets(MULTI_DATA).and_then(|data| data.get(..count)).ok_or(Errno::INVAL)?;
        list.push((index, offset, data));
    }
    for (index, offset, data) in list {
        function.write(index, offset, data);
    }
    Ok(writes.to_ne_bytes().to_vec())
}

/// Region, offset and count, as every access begins.
fn access(fields: &mut Fields<'_>) -> Option<(u32, u64, usize)> {
    let offset = fields.u64()?;
    let (index, count) = (fields.u32()?, fields.u32()?);
    Some((index, offset, usize::try_from(count).ok()?))
}

/// Whether an access stays in its region.
fn inside(
    function: &dyn Function,
    index: u32,
    offset: u64,
    count: usize,
    allowed: impl Fn(&crate::Region) -> bool,
) -> Result<(), Errno> {
    let region = function.region(index).ok_or(Errno::INVAL)?;
    let end = offset.checked_add(count as u64).ok_or(Errno::INVAL)?;
    if count > MAX_DATA || end > region.len {
        return Err(Errno::INVAL);
    }
    if allowed(&region) { Ok(()) } else { Err(Errno::PERM) }
}

/// Whether a range has octets and its last address exists.
fn exists(first: u64, len: u64) -> bool {
    len.checked_sub(1).and_then(|more| first.checked_add(more)).is_some()
}

fn words(words: &[u32]) -> Body {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

#[cfg(test)]
mod tests;
