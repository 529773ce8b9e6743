#![no_main]

#[path = "../bodies/consensus_member.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::run(data));
