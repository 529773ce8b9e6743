//! One program of all tests that can share a process: linking each on its own took longer than running them.

mod etcd;
mod fuzz_corpus;
mod roundtrip;
