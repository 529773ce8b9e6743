//! One program of all tests that can share a process: linking each on its own took longer than running them.

mod baselines;
mod changing;
mod confined;
mod fuzz_corpus;
mod resume;
mod stop;
mod support;
mod transcripts;
mod trees;
