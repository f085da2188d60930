//! A slow, shuffling device over the software backend keeps it too, and comes to the same results.
hwtest::suite!(hwtest::SlowDriver::new(soft::Soft::default(), hwtest::Pace::new(5)), soft::Soft::default());
