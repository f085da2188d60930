//! What every backend owes, as checks that run over any [`Driver`](spi::Driver), and fakes for those who use one.
//!
//! A backend's test file has one line: [`suite!`] with an expression that makes its driver. Each check is also a plain
//! function that panics with what went wrong, so other programs can run them.
//!
//! | module | what it holds |
//! |---|---|
//! | [`contract`] | the rules of the queue: once, order, room, budget, doorbell, drop, reset, stale handles |
//! | [`packet`] | transforms: lengths, alignments, ICVs, ESN, refusals |
//! | [`operation`] | key exchange, signatures, random octets, short primitives |
//! | [`slow`] | [`SlowQueue`]: any queue, but late and shuffled |
//! | [`faulty`] | a device that falls ill on request |
//! | [`ring`], [`seed`] | what checks are made of |
//!
//! Checks follow what a device declares in its [`Caps`](spi::Caps): what is not declared is not asked for, and what is
//! declared must work.

pub mod contract;
pub mod faulty;
pub mod operation;
pub mod packet;
pub mod ring;
pub mod seed;
pub mod slow;

pub use faulty::{Ailment, FaultyDriver, Patient};
pub use slow::{Pace, SlowDevice, SlowDriver, SlowQueue};

/// One test for each check, over a driver that the expression makes anew each time.
#[macro_export]
macro_rules! suite {
    ($driver:expr) => {
        $crate::for_all_checks!(suite_tests, $driver);
    };
}

/// Hands the list of checks to a macro of this crate.
#[doc(hidden)]
#[macro_export]
macro_rules! for_all_checks {
    ($then:ident, $($with:tt)*) => {
        $crate::$then! { $($with)* =>
            contract::every_job_comes_back_exactly_once
            contract::packets_come_in_order_where_that_is_declared
            contract::what_does_not_fit_stays_in_place
            contract::room_is_a_promise
            contract::a_poll_delivers_no_more_than_its_budget
            contract::more_is_the_truth
            contract::the_doorbell_rings_for_every_completion
            contract::a_dropped_queue_gives_its_buffers_back
            contract::a_reset_gives_everything_back_and_leaves_old_handles_stale
            contract::a_removed_sa_is_stale_and_its_place_is_safe
            packet::every_declared_transform_opens_what_it_sealed
            packet::every_length_up_to_2048_works
            packet::a_changed_octet_spoils_its_own_packet_only
            packet::impossible_lengths_are_refused
            packet::undeclared_transforms_are_not_installed
            operation::both_ends_of_every_declared_group_agree
            operation::unusable_public_values_are_refused
            operation::every_declared_scheme_signs_and_verifies
            operation::handles_of_keys_turn_stale
            operation::random_octets_come_as_asked
            operation::short_primitives_keep_their_lengths
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! suite_tests {
    ($driver:expr => $($module:ident :: $check:ident)*) => {
        $(
            #[test]
            fn $check() {
                $crate::$module::$check(&$driver);
            }
        )*
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! list_of_checks {
    ($name:ident => $($module:ident :: $check:ident)*) => {
        /// Every check by its name, for programs that run them one by one.
        pub static $name: &[(&str, Check)] = &[$((stringify!($check), $module::$check)),*];
    };
}

/// A check: panics with what went wrong.
pub type Check = fn(&dyn spi::Driver);

for_all_checks!(list_of_checks, CHECKS);
