//! A slow, shuffling device over the software backend keeps it too.
hwtest::suite!(hwtest::SlowDriver::new(soft::Soft::default(), hwtest::Pace::new(5)));
