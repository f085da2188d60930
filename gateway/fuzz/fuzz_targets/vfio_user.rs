#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::vfio_user(data));
