//! The gateway: what drives the IKE engine and the ESP data path on a Linux machine.
//!
//! | module | what it holds |
//! |---|---|
//! | [`config`] | the configuration file |
//! | [`worker`] | the thread that owns the key exchange, and what it needs of the machine |
//! | `plane` | the data path: a lane for each core |
//! | [`dhcp`] | addresses for clients from DHCP servers |
//! | [`dispatch`] | what a worker does first |
//! | [`io`] | sockets, TUN devices, sleeping |
//! | [`run`](mod@run) | all threads put together, or all processes |
//! | [`processes`], [`sandbox`] | supervisor, gateway and key side as processes of their own; what they give up |
//! | [`control`], [`cli`] | the control socket; the commands |
//! | [`leases`] | leases of inner addresses over restarts |
//! | [`keyside`] | how devices are that hold keys |
//! | [`events`], [`report`] | what happened; how things are |
//! | [`pcapng`], [`keylog`], [`backlog`] | for those who look into packets |
//! | `terminal` | put right after a question, whatever happens |
//! | [`log`] | the log, which nobody waits for |

pub mod backlog;
pub mod cli;
pub mod config;
pub mod control;
pub mod dhcp;
pub mod dispatch;
pub mod events;
pub mod io;
pub mod keylog;
pub mod keyside;
pub mod leases;
pub mod log;
pub mod pcapng;
mod plane;
pub mod processes;
pub mod report;
pub mod run;
pub mod sandbox;
mod terminal;
pub mod worker;
