//! The backend keeps the contract: over the provider that every OpenSSL has, and over one that pauses every job.
#![allow(clippy::unwrap_used)]

mod support;

mod default {
    hwtest::suite!(super::support::driver(super::support::default_provider()));
}

mod pausing {
    hwtest::suite!(super::support::driver(super::support::pausing("50us", "")));
}

/// Two jobs at a time have to do for everybody.
mod pausing_with_little_room {
    fn driver() -> ossl::OpenSsl {
        let mut config = super::support::pausing("50us", "");
        config.jobs = 2;
        super::support::driver(config)
    }

    hwtest::suite!(driver());
}
