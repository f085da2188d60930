//! A device that may fall ill keeps the contract while it is well.
hwtest::suite!(hwtest::Patient::new().driver(soft::Soft::default(), true));
