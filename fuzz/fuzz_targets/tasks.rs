#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| revolve_fuzz::run("tasks", data));
