#![no_main]

#[path = "../bodies/delta.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::run(data));
