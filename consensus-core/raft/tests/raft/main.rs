//! One program of all tests that can share a process: linking each on its own took longer than running them.

mod cluster;
mod codec;
mod compacted;
mod fuzz_corpus;
mod leave;
mod lost_leader;
mod told;
