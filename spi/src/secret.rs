//! Bytes that must not be seen: keys, shared secrets, pre-shared keys.

use subtle::ConstantTimeEq;
use zeroize::Zeroize;

/// Secret bytes. Overwritten when dropped, never printed, never cloned by accident, compared in constant time.
pub struct Secret(Box<[u8]>);

impl Secret {
    /// Takes over the bytes. The vector's own memory is kept; nothing is left behind.
    pub fn new(mut bytes: Vec<u8>) -> Self {
        if bytes.len() == bytes.capacity() {
            return Secret(bytes.into_boxed_slice());
        }
        // Shrinking could move the bytes and leave a copy in freed memory: copy here, then wipe.
        let boxed = bytes.as_slice().into();
        bytes.zeroize();
        Secret(boxed)
    }

    /// Copies the bytes; the caller wipes its own.
    pub fn from_slice(bytes: &[u8]) -> Self {
        Secret(bytes.into())
    }

    /// The bytes, for as long as the borrow lasts. The name is long on purpose.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// A second copy, asked for in so many words.
    pub fn duplicate(&self) -> Self {
        Secret(self.0.clone())
    }

    /// Length in octets.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no octets at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Equality in time that depends on the lengths alone.
    pub fn ct_eq(&self, other: &[u8]) -> bool {
        self.0.as_ref().ct_eq(other).into()
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::Secret;

    #[test]
    fn equality_compares_length_and_content() {
        let s = Secret::new(vec![1, 2, 3]);
        assert!(s.ct_eq(&[1, 2, 3]));
        assert!(!s.ct_eq(&[1, 2, 4]));
        assert!(!s.ct_eq(&[1, 2]));
        assert!(s.duplicate().ct_eq(s.expose()));
    }
}
