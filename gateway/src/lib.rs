//! The gateway: what drives the IKE engine and the ESP data path on a Linux machine.
//!
//! | module | what it holds |
//! |---|---|
//! | [`config`] | the configuration file |
//! | [`worker`] | the thread that owns IKE, ESP, sockets and TUN devices |
//! | [`io`] | sockets, TUN devices, sleeping |
//! | [`run`](mod@run) | all threads put together |
//! | [`control`], [`cli`] | the control socket; the commands |
//! | [`events`], [`report`] | what happened; how things are |
//! | [`pcapng`], [`keylog`], [`backlog`] | for those who look into packets |
//! | [`log`] | the log, which nobody waits for |

pub mod backlog;
pub mod cli;
pub mod config;
pub mod control;
pub mod events;
pub mod io;
pub mod keylog;
pub mod log;
pub mod pcapng;
pub mod report;
pub mod run;
pub mod worker;
