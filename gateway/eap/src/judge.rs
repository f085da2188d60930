//! Whether certificates were revoked, which TLS cannot know: somebody else is asked when it has found everything else in order, and the
//! conversation waits for what comes of it. On the peer's side no password has been sent by then.

/// Finds out whether certificates were revoked.
pub trait Judge: Send + Sync {
    /// Begins to find out. `chain` is what the other side showed and what TLS believes it by, its own certificate first, in DER.
    fn begin(&self, chain: Vec<Vec<u8>>) -> Box<dyn Inquiry>;
}

/// Something that is being found out.
pub trait Inquiry: Send {
    /// What came of it; `Err` says why the other side is not to be believed, for the operator. `None`: nothing yet.
    fn poll(&mut self) -> Option<Result<(), String>>;
}
