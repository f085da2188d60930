//! Requests for packets ("lookaside"): 32 words, little-endian.
//!
//! ```text
//! word  0      command, service 4, valid
//!       1      flags of the service (16 bits), common flags (8 bits)
//!       2, 3   address of the content descriptor
//!       4      its length in units of 8 octets, in bits 16-23
//!       6, 7   cookie, which comes back in the response
//!       8-11   address of source and destination: data, or a list of pieces
//!       12, 13 their lengths
//!       14, 15 where the cipher begins, and how much
//!       16-19  IV
//!       20, 21 where authentication begins, and how much; in one pass, the second is the length of the associated data
//!       22, 23 address of associated data
//!       24, 25 address of the digest
//!       26     length of associated data, of the hash's state (in units of 8 octets), and of the digest
//!       27-31  what the slices do with the content descriptor
//! ```

/// Words of a request.
pub(crate) const WORDS: usize = 32;

/// Commands.
pub(crate) const CIPHER: u8 = 0;
pub(crate) const AUTHENTICATE: u8 = 1;
pub(crate) const CIPHER_THEN_HASH: u8 = 2;
pub(crate) const HASH_THEN_CIPHER: u8 = 3;

/// Service of a request, and the flag of a valid one.
const LOOKASIDE: u32 = 4;
const VALID: u32 = 0x80;

/// Flags of the service.
pub(crate) const IV_INLINE: u16 = 1 << 2;
pub(crate) const RETURN_DIGEST: u16 = 1 << 5;
pub(crate) const COMPARE_DIGEST: u16 = 1 << 6;
pub(crate) const PROTOCOL_GCM: u16 = 2 << 7;
pub(crate) const DIGEST_BEHIND: u16 = 1 << 10;
pub(crate) const IV_OF_12: u16 = 1 << 11;
pub(crate) const ONE_PASS: u16 = 1 << 13;
pub(crate) const UCS_SLICE: u16 = 1 << 14;

/// Common flag: source and destination are lists of pieces.
pub(crate) const PIECES: u32 = 1;

/// A request, or the template of one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Request(pub(crate) [u32; WORDS]);

impl Request {
    pub(crate) fn new(command: u8, flags: u16) -> Self {
        let mut words = [0; WORDS];
        words[0] = u32::from(command) << 8 | LOOKASIDE << 16 | VALID << 24;
        words[1] = u32::from(flags);
        Request(words)
    }

    pub(crate) fn set_descriptor(&mut self, iova: u64, len: usize) {
        self.set_address(2, iova);
        self.0[4] = ((len / 8) as u32 & 0xff) << 16;
    }

    pub(crate) fn set_cookie(&mut self, cookie: u64) {
        self.set_address(6, cookie);
    }

    /// Source and destination alike: everything is done in place.
    pub(crate) fn set_data(&mut self, iova: u64, len: u32) {
        self.set_address(8, iova);
        self.set_address(10, iova);
        (self.0[12], self.0[13]) = (len, len);
    }

    /// The data is a list of pieces.
    pub(crate) fn set_pieces(&mut self) {
        self.0[1] |= PIECES << 16;
    }

    pub(crate) fn set_cipher(&mut self, at: u32, len: u32) {
        (self.0[14], self.0[15]) = (at, len);
    }

    pub(crate) fn set_iv(&mut self, iv: [u8; 16]) {
        for (word, octets) in self.0[16..20].iter_mut().zip(iv.as_chunks::<4>().0) {
            *word = u32::from_le_bytes(*octets);
        }
    }

    pub(crate) fn set_auth(&mut self, at: u32, len: u32) {
        (self.0[20], self.0[21]) = (at, len);
    }

    pub(crate) fn set_associated(&mut self, iova: u64) {
        self.set_address(22, iova);
    }

    pub(crate) fn set_digest(&mut self, iova: u64) {
        self.set_address(24, iova);
    }

    /// Lengths of associated data, of the hash's state, and of the digest.
    pub(crate) fn set_lengths(&mut self, associated: u8, state: u8, digest: u8) {
        self.0[26] = u32::from(associated) | u32::from(state / 8) << 16 | u32::from(digest) << 24;
    }

    /// An octet of the last five words.
    pub(crate) fn set_control(&mut self, at: usize, octet: u8) {
        let (word, shift) = (27 + at / 4, 8 * (at % 4));
        self.0[word] = self.0[word] & !(0xff << shift) | u32::from(octet) << shift;
    }

    fn set_address(&mut self, word: usize, iova: u64) {
        self.0[word] = iova as u32;
        self.0[word + 1] = (iova >> 32) as u32;
    }

    /// As the device reads it.
    pub(crate) fn octets(&self) -> [u8; 4 * WORDS] {
        let mut all = [0; 4 * WORDS];
        for (to, word) in all.as_chunks_mut::<4>().0.iter_mut().zip(self.0) {
            *to = word.to_le_bytes();
        }
        all
    }
}

/// Octets of a list of three pieces, the most a packet needs.
pub(crate) const LIST_LEN: usize = 16 + 3 * 16;

/// A list of pieces: where they are, and how long each is.
pub(crate) fn list(pieces: [(u64, u32); 3]) -> [u8; LIST_LEN] {
    let mut list = [0; LIST_LEN];
    let (header, rest) = list.split_at_mut(16);
    header[8..12].copy_from_slice(&3u32.to_le_bytes());
    for (to, (iova, len)) in rest.as_chunks_mut::<16>().0.iter_mut().zip(pieces) {
        to[..4].copy_from_slice(&len.to_le_bytes());
        to[8..].copy_from_slice(&iova.to_le_bytes());
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_and_flags_have_the_words_of_known_drivers() {
        assert_eq!(Request::new(CIPHER, 0).0[0], 0x8004_0000);
        assert_eq!(Request::new(AUTHENTICATE, 0).0[0], 0x8004_0100);
        assert_eq!(Request::new(CIPHER_THEN_HASH, 0).0[0], 0x8004_0200);
        assert_eq!(Request::new(HASH_THEN_CIPHER, 0).0[0], 0x8004_0300);
        assert_eq!(IV_INLINE | RETURN_DIGEST | DIGEST_BEHIND, 0x0424);
        assert_eq!(IV_INLINE | COMPARE_DIGEST | DIGEST_BEHIND, 0x0444);
        assert_eq!(UCS_SLICE | ONE_PASS | IV_OF_12 | RETURN_DIGEST | IV_INLINE, 0x6824);
        assert_eq!(PROTOCOL_GCM | IV_OF_12 | RETURN_DIGEST | IV_INLINE, 0x0924);
    }

    #[test]
    fn a_list_has_its_pieces_where_the_device_looks() {
        let list = list([(0x1_0000_0010, 40), (0x20, 4), (0x30, 16)]);
        assert_eq!(list[8], 3);
        assert_eq!((list[16], list[32], list[48]), (40, 4, 16));
        assert_eq!(list[24..32], 0x1_0000_0010u64.to_le_bytes());
        assert_eq!((list[40], list[56]), (0x20, 0x30));
    }

    #[test]
    fn octets_of_the_control_words_do_not_disturb_each_other() {
        let mut request = Request::new(0, 0);
        request.set_control(1, 4);
        request.set_control(0, 2);
        request.set_control(19, 9);
        assert_eq!((request.0[27], request.0[31]), (0x0402, 0x0900_0000));
        request.set_control(1, 3);
        assert_eq!(request.0[27], 0x0302);
    }
}
