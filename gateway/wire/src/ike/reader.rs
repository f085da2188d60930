//! A cursor over untrusted octets that knows where it is for error messages.

use super::error::{ErrorKind, ParseError};
use crate::numbers::PayloadType;

#[derive(Clone)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    offset: usize,
    payload: Option<PayloadType>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(rest: &'a [u8], offset: usize, payload: Option<PayloadType>) -> Self {
        Reader { rest, offset, payload }
    }

    /// The next `n` octets.
    pub(crate) fn take(&mut self, n: usize) -> Result<&'a [u8], ParseError> {
        match self.rest.split_at_checked(n) {
            Some((head, rest)) => {
                self.rest = rest;
                self.offset += n;
                Ok(head)
            }
            None => Err(self.syntax("truncated")),
        }
    }

    /// A reader over the next `n` octets, leaving this one behind them.
    pub(crate) fn sub(&mut self, n: usize) -> Result<Reader<'a>, ParseError> {
        let offset = self.offset;
        Ok(Reader { rest: self.take(n)?, offset, payload: self.payload })
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], ParseError> {
        match self.rest.split_first_chunk::<N>() {
            Some((head, rest)) => {
                self.rest = rest;
                self.offset += N;
                Ok(*head)
            }
            None => Err(self.syntax("truncated")),
        }
    }

    pub(crate) fn u8(&mut self) -> Result<u8, ParseError> {
        self.array::<1>().map(|[b]| b)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, ParseError> {
        self.array().map(u16::from_be_bytes)
    }

    /// Everything left.
    pub(crate) fn rest(&mut self) -> &'a [u8] {
        let rest = core::mem::take(&mut self.rest);
        self.offset += rest.len();
        rest
    }

    pub(crate) fn len(&self) -> usize {
        self.rest.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn offset(&self) -> usize {
        self.offset
    }

    /// The whole must have been read: a length that promises more than the content has is an error.
    pub(crate) fn finish(&self, what: &'static str) -> Result<(), ParseError> {
        if self.is_empty() { Ok(()) } else { Err(self.syntax(what)) }
    }

    pub(crate) fn syntax(&self, what: &'static str) -> ParseError {
        self.error(ErrorKind::InvalidSyntax(what))
    }

    pub(crate) fn too_many(&self, what: &'static str, limit: usize) -> ParseError {
        self.error(ErrorKind::TooMany { what, limit })
    }

    pub(crate) fn error(&self, kind: ErrorKind) -> ParseError {
        ParseError { kind, payload: self.payload, offset: self.offset }
    }
}
