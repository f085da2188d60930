//! What every backend owes, as checks that run over any [`Driver`](spi::Driver), and fakes for those who use one.
//!
//! A backend's test file has one line: [`suite!`] with an expression that makes its driver, and, to be compared with on random
//! jobs, one that makes a reference. Each check is a plain function that panics with what went wrong; [`run`] has programs run
//! them one by one, over one capability after the other.
//!
//! | module | what it holds |
//! |---|---|
//! | [`contract`] | the rules of the queue: once, order, room, budget, doorbell, drop, reset, stale handles |
//! | [`packet`], [`lengths`] | transforms: ICVs, ESN, refusals; every length, every alignment |
//! | [`operation`] | key exchange, signatures, random octets, short primitives |
//! | [`vectors`] | answers that others have published |
//! | [`cross`] | two devices on the same random jobs |
//! | [`stress`] | threads, full rings and resets; what is left behind |
//! | [`narrow`], [`run`], [`note`] | rules times capabilities; running them; what is not checked, and why |
//! | [`layer`] | a device over another, of which the next two are; keys that stay in a device |
//! | [`slow`] | [`SlowQueue`]: any queue, but late and shuffled |
//! | [`faulty`] | a device that falls ill on request |
//! | [`ring`], [`seed`] | what checks are made of |
//!
//! Checks follow what a device declares in its [`Caps`](spi::Caps): what is not declared is not asked for, and what is
//! declared must work.

pub mod contract;
pub mod cross;
pub mod faulty;
pub mod layer;
pub mod lengths;
pub mod narrow;
pub mod note;
pub mod operation;
pub mod packet;
pub mod ring;
pub mod run;
pub mod seed;
pub mod slow;
pub mod stress;
pub mod vectors;

pub use faulty::{Ailment, FaultyDriver, Patient};
pub use layer::{Keyed, Layer};
pub use narrow::{Capability, Narrow, Scope};
pub use run::{Ending, Rule, Verdict};
pub use slow::{Pace, SlowDevice, SlowDriver, SlowQueue};

/// One test for each check, over a driver that the expression makes anew each time and over each capability that its devices declare.
/// With a second expression, for a driver to compare with, one test more: a hundred thousand random jobs on both.
#[macro_export]
macro_rules! suite {
    ($driver:expr) => {
        $crate::for_all_checks!(suite_tests, $driver);
    };
    ($driver:expr, $reference:expr) => {
        $crate::for_all_checks!(suite_tests, $driver);

        #[test]
        fn random_jobs_end_as_those_of_the_reference() {
            $crate::cross::agree(&$driver, &$reference, $crate::cross::Plan::default());
        }
    };
}

/// One test for each check, with everything that is declared at once: for a driver that [`suite!`] has judged already, reached in another way.
#[macro_export]
macro_rules! suite_at_once {
    ($driver:expr) => {
        $crate::for_all_checks!(suite_at_once_tests, $driver);
    };
}

/// Hands the list of checks to a macro of this crate: where it is, its name, and what it is run over.
#[doc(hidden)]
#[macro_export]
macro_rules! for_all_checks {
    ($then:ident, $($with:tt)*) => {
        $crate::$then! { $($with)* =>
            contract::every_job_comes_back_exactly_once Rings
            contract::packets_come_in_order_where_that_is_declared Rings
            contract::what_does_not_fit_stays_in_place Rings
            contract::room_is_a_promise Rings
            contract::a_poll_delivers_no_more_than_its_budget Rings
            contract::more_is_the_truth Rings
            contract::the_doorbell_rings_for_every_completion Rings
            contract::a_dropped_queue_gives_its_buffers_back Rings
            contract::a_reset_gives_everything_back_and_leaves_old_handles_stale Rings
            contract::a_removed_sa_is_stale_and_its_place_is_safe Packets
            packet::every_declared_transform_opens_what_it_sealed Packets
            packet::a_changed_octet_spoils_its_own_packet_only Packets
            packet::impossible_lengths_are_refused Packets
            packet::undeclared_transforms_are_not_installed Whole
            lengths::every_length_up_to_2048_works Packets
            lengths::packets_of_9000_octets_work Packets
            lengths::the_longest_packet_works Packets
            lengths::every_alignment_works Packets
            operation::both_ends_of_every_declared_group_agree Groups
            operation::unusable_public_values_are_refused Groups
            operation::every_declared_scheme_signs_and_verifies Schemes
            operation::handles_of_keys_turn_stale Signing
            operation::random_octets_come_as_asked Whole
            operation::short_primitives_keep_their_lengths Prfs
            vectors::published_packets_open Packets
            vectors::recorded_packets_open Whole
            vectors::published_exchanges_are_answered_as_published Groups
            vectors::published_signatures_are_judged_as_published Verifying
            stress::threads_with_full_rings_and_resets_lose_nothing Whole
            stress::what_is_closed_leaves_nothing_behind Whole
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! suite_tests {
    ($driver:expr => $($module:ident :: $check:ident $scope:ident)*) => {
        $(
            #[test]
            fn $check() {
                $crate::run::over_each(&$driver, &$crate::rule!($module $check $scope));
            }
        )*
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! suite_at_once_tests {
    ($driver:expr => $($module:ident :: $check:ident $scope:ident)*) => {
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
macro_rules! rule {
    ($module:ident $check:ident $scope:ident) => {
        $crate::Rule {
            part: stringify!($module),
            name: stringify!($check),
            scope: $crate::Scope::$scope,
            check: $crate::$module::$check,
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! list_of_checks {
    ($checks:ident $rules:ident => $($module:ident :: $check:ident $scope:ident)*) => {
        /// Every check by its name, for programs that run them one by one over a whole driver.
        pub static $checks: &[(&str, Check)] = &[$((stringify!($check), $module::$check)),*];

        /// Every check with what it is run over.
        pub static $rules: &[Rule] = &[$($crate::rule!($module $check $scope)),*];
    };
}

/// A check: panics with what went wrong.
pub type Check = fn(&dyn spi::Driver);

for_all_checks!(list_of_checks, CHECKS RULES);
