//! What the firmware understands: requests, responses, content descriptors, functions on large numbers. Layouts only; nothing
//! here knows of rings or memory.

pub(crate) mod descriptor;
pub(crate) mod pke;
pub(crate) mod precompute;
pub(crate) mod request;
pub(crate) mod response;
