//! The rules of [`spi::queue`] and [`spi::device`], one file each. Every check takes a driver, opens all its devices,
//! and panics with what went wrong.

mod budget;
mod doorbell;
mod drop;
mod once;
mod order;
mod reset;
mod room;
mod stale;

pub use budget::{a_poll_delivers_no_more_than_its_budget, more_is_the_truth};
pub use doorbell::the_doorbell_rings_for_every_completion;
pub use drop::a_dropped_queue_gives_its_buffers_back;
pub use once::every_job_comes_back_exactly_once;
pub use order::packets_come_in_order_where_that_is_declared;
pub use reset::a_reset_gives_everything_back_and_leaves_old_handles_stale;
pub use room::{room_is_a_promise, what_does_not_fit_stays_in_place};
pub use stale::a_removed_sa_is_stale_and_its_place_is_safe;
