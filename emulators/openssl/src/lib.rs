//! A provider for OpenSSL 3 whose hardware is a thread: it pauses the job that asks it for something, and wakes it later by its wait
//! descriptor, or, by a plan, much later, never, twice, with an error, or with a wrong result.
//!
//! What is computed is computed by OpenSSL's own default provider, in a library context of this module's. Outside of a job
//! nothing is paused and nothing goes wrong, as with any asynchronous provider: what is tried out when a device is opened works.
//!
//! | module | what it holds |
//! |---|---|
//! | `options` | parameters: where the plan is, and how fast the hardware is |
//! | `hardware` | the thread, its clock, and what goes wrong |
//! | `sys` | the provider's side of OpenSSL's interface; the only unsafe code |

mod hardware;
mod options;
mod sys;
