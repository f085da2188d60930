//! Packet buffers and the pools they come home to.
//!
//! A buffer is moved into a job and moved back by its completion. While a device holds it, no Rust reference to its
//! octets can exist: that is what makes DMA sound. Dropping a buffer gives its memory back to its pool.

use std::io;
use std::sync::Arc;

use crate::esp::{EspOp, MAX_OPS};
use crate::mem::{Chunk, Region, Shelf};

struct Parts {
    chunk: Chunk,
    ops: Vec<EspOp>,
}

struct Home {
    region: Arc<Region>,
    free: Shelf<Parts>,
    chunk_len: usize,
}

/// A fixed number of equal buffers. Clones share them; any thread may take and drop. The one dropped last is taken first.
#[derive(Clone)]
pub struct Pool {
    home: Arc<Home>,
}

impl Pool {
    /// Maps memory for `count` buffers of `chunk_len` octets (rounded up to 64).
    ///
    /// # Errors
    /// What the kernel says when it has no memory.
    pub fn new(chunk_len: usize, count: usize) -> io::Result<Pool> {
        let chunk_len = chunk_len.max(64).next_multiple_of(64);
        let count = count.max(1);
        let region = Region::map(chunk_len * count)?;
        let mut chunks = region.cut(chunk_len);
        chunks.truncate(count);
        let region = Arc::clone(chunks[0].region());
        // The op list is allocated once per buffer and travels with it ever after.
        let all = chunks.into_iter().map(|chunk| Parts { chunk, ops: Vec::with_capacity(MAX_OPS) });
        let free = Shelf::new(all.collect());
        Ok(Pool { home: Arc::new(Home { region, free, chunk_len }) })
    }

    /// An empty buffer, or `None`: the pool is dry, stop reading.
    pub fn take(&self) -> Option<PacketBuf> {
        let (place, mut parts) = self.home.free.take()?;
        parts.ops.clear();
        Some(PacketBuf { parts: Some(parts), place, home: Arc::clone(&self.home) })
    }

    /// Buffers that `take` would give now.
    pub fn available(&self) -> usize {
        self.home.free.len()
    }

    /// Octets in each buffer.
    pub fn chunk_len(&self) -> usize {
        self.home.chunk_len
    }

    /// The memory behind the pool, for [`Device::register`](crate::Device::register).
    pub fn region(&self) -> &Arc<Region> {
        &self.home.region
    }
}

/// One buffer: plain octets and a list of up to [`MAX_OPS`] operations on them.
pub struct PacketBuf {
    parts: Option<Parts>,
    place: u32,
    home: Arc<Home>,
}

const TAKEN: &str = "parts are there until drop";

impl PacketBuf {
    /// All octets.
    pub fn bytes(&self) -> &[u8] {
        self.parts.as_ref().expect(TAKEN).chunk.bytes()
    }

    /// All octets, to write.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.parts.as_mut().expect(TAKEN).chunk.bytes_mut()
    }

    /// Octets there are.
    pub fn capacity(&self) -> usize {
        self.parts.as_ref().expect(TAKEN).chunk.len()
    }

    /// Address of the first octet, for a driver's descriptor. Stable as long as the buffer lives.
    pub fn address(&self) -> usize {
        self.parts.as_ref().expect(TAKEN).chunk.address()
    }

    /// The operations.
    pub fn ops(&self) -> &[EspOp] {
        &self.parts.as_ref().expect(TAKEN).ops
    }

    /// The operations, to write outcomes.
    pub fn ops_mut(&mut self) -> &mut [EspOp] {
        &mut self.parts.as_mut().expect(TAKEN).ops
    }

    /// Octets and operations at once.
    pub fn split_mut(&mut self) -> (&mut [u8], &mut [EspOp]) {
        let parts = self.parts.as_mut().expect(TAKEN);
        (parts.chunk.bytes_mut(), &mut parts.ops)
    }

    /// Adds an operation.
    ///
    /// # Errors
    /// The operation, when there are [`MAX_OPS`] already or it points outside the buffer.
    pub fn push_op(&mut self, op: EspOp) -> Result<(), EspOp> {
        let fits = (op.at as usize).checked_add(op.len as usize).is_some_and(|end| end <= self.capacity());
        let ops = &mut self.parts.as_mut().expect(TAKEN).ops;
        if !fits || ops.len() >= MAX_OPS {
            return Err(op);
        }
        ops.push(op);
        Ok(())
    }

    /// Forgets all operations.
    pub fn clear_ops(&mut self) {
        self.parts.as_mut().expect(TAKEN).ops.clear();
    }

    /// The octets of operation `index`; empty when there is none.
    pub fn op_bytes(&self, index: usize) -> &[u8] {
        let Some(op) = self.ops().get(index) else { return &[] };
        let at = op.at as usize;
        self.bytes().get(at..at + op.len as usize).unwrap_or(&[])
    }
}

impl Drop for PacketBuf {
    fn drop(&mut self) {
        if let Some(parts) = self.parts.take() {
            self.home.free.give(self.place, parts);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_come_home_and_a_dry_pool_says_so() {
        let pool = Pool::new(100, 3).unwrap();
        assert_eq!(pool.chunk_len(), 128);
        let all: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
        assert_eq!(all.len(), 3);
        assert!(pool.take().is_none());
        drop(all);
        assert_eq!(pool.available(), 3);
    }

    #[test]
    fn buffers_do_not_overlap() {
        let pool = Pool::new(64, 4).unwrap();
        let mut bufs: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
        for (i, buf) in bufs.iter_mut().enumerate() {
            buf.bytes_mut().fill(i as u8 + 1);
        }
        for (i, buf) in bufs.iter().enumerate() {
            assert!(buf.bytes().iter().all(|b| *b == i as u8 + 1));
        }
    }

    #[test]
    fn an_operation_outside_its_buffer_is_refused() {
        let pool = Pool::new(128, 1).unwrap();
        let mut buf = pool.take().unwrap();
        assert!(buf.push_op(EspOp::new(100, 28, 1)).is_ok());
        assert!(buf.push_op(EspOp::new(100, 29, 2)).is_err());
        assert!(buf.push_op(EspOp::new(u32::MAX, 1, 2)).is_err());
        assert_eq!(buf.op_bytes(0).len(), 28);
        assert_eq!(buf.op_bytes(1).len(), 0);
    }
}
