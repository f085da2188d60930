//! Data where a request says it is: in one piece, or in pieces that a list names.

use emu_model::Dma;

use super::Trouble;
use super::outcome::Write;

/// Octets that one request may work on. Drivers use up to a few hundred kilobytes.
pub(crate) const MAX_DATA: u32 = 4 << 20;
/// Pieces that a list may have.
const MAX_PIECES: u32 = 4096;
/// Octets of the head of a list, and of one of its entries.
const LIST_HEAD: usize = 16;
const LIST_ENTRY: usize = 16;

/// A stream of octets in memory.
#[derive(Clone, Debug)]
pub(crate) struct Stream {
    pieces: Vec<Piece>,
}

#[derive(Clone, Copy, Debug)]
struct Piece {
    iova: u64,
    len: u64,
}

impl Stream {
    /// In one piece. How long it is, the request's offsets and lengths say; what drivers put into its length field
    /// differs.
    pub(crate) fn flat(iova: u64) -> Self {
        Stream { pieces: vec![Piece { iova, len: u64::from(u32::MAX) }] }
    }

    /// In the pieces that the list at `iova` names.
    pub(crate) fn listed(memory: &dyn Dma, iova: u64) -> Result<Self, Trouble> {
        let mut head = [0; LIST_HEAD];
        memory.read(iova, &mut head)?;
        let count = word(&head, 8);
        if count > MAX_PIECES {
            return Err(Trouble::Invalid("a list of more than 4096 pieces"));
        }
        let mut entries = vec![0; count as usize * LIST_ENTRY];
        memory.read(iova.wrapping_add(LIST_HEAD as u64), &mut entries)?;
        let piece = |entry: &[u8]| {
            let (low, high) = (u64::from(word(entry, 8)), u64::from(word(entry, 12)));
            Piece { iova: low | high << 32, len: u64::from(word(entry, 0)) }
        };
        Ok(Stream { pieces: entries.chunks_exact(LIST_ENTRY).map(piece).collect() })
    }

    /// Reads `len` octets from an offset.
    pub(crate) fn read(&self, memory: &dyn Dma, offset: u32, len: u32) -> Result<Vec<u8>, Trouble> {
        if len > MAX_DATA {
            return Err(Trouble::Invalid("more than 4 MiB of data"));
        }
        let mut octets = vec![0; len as usize];
        let mut rest = octets.as_mut_slice();
        for (iova, len) in self.range(offset, len)? {
            let Some((part, left)) = rest.split_at_mut_checked(len) else { break };
            memory.read(iova, part)?;
            rest = left;
        }
        Ok(octets)
    }

    /// The writes that put octets at an offset.
    pub(crate) fn writes(&self, offset: u32, octets: &[u8]) -> Result<Vec<Write>, Trouble> {
        let len = u32::try_from(octets.len()).map_err(|_| Trouble::Invalid("more than 4 GiB of data"))?;
        let mut rest = octets;
        let mut writes = Vec::new();
        for (iova, len) in self.range(offset, len)? {
            let Some((part, left)) = rest.split_at_checked(len) else { break };
            writes.push(Write { iova, octets: part.to_vec() });
            rest = left;
        }
        Ok(writes)
    }

    /// A range of the stream as ranges of memory.
    fn range(&self, offset: u32, len: u32) -> Result<Vec<(u64, usize)>, Trouble> {
        let (mut skip, mut want) = (u64::from(offset), u64::from(len));
        let mut ranges = Vec::new();
        for piece in &self.pieces {
            if want == 0 {
                break;
            }
            if skip >= piece.len {
                skip -= piece.len;
                continue;
            }
            let part = (piece.len - skip).min(want);
            let iova = piece.iova.checked_add(skip).ok_or(Trouble::Invalid("an address that wraps"))?;
            ranges.push((iova, part as usize));
            want -= part;
            skip = 0;
        }
        if want > 0 {
            return Err(Trouble::Invalid("offset and length go past the end of the buffer"));
        }
        Ok(ranges)
    }
}

fn word(octets: &[u8], at: usize) -> u32 {
    octets.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |word| u32::from_le_bytes(*word))
}
