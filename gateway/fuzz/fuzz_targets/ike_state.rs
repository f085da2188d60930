#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::ike_state(data));
